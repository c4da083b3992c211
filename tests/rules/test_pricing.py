"""The price of a call: exact, in one unit, by its focus (F5-3)."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.company import BillingSystem, Bucket, Price
from scheduler.domain.interview import AgentFocus
from scheduler.domain.refusals import InvalidPrice
from scheduler.rules.pricing import DEFAULT_PRICES, credits_of, merged, minutes_shown, prices_as_json, read_prices

AMOUNTS = st.decimals(min_value=0, max_value=10_000, places=6)
TALKS = st.integers(min_value=0, max_value=12_000).map(lambda seconds: timedelta(seconds=seconds))
PRICE = Price(base_cost=Decimal("1.5"), cost_per_minute=Decimal("0.3"), included_minutes=Decimal(2))


@pytest.mark.parametrize(
    ("seconds", "cost"),
    [
        pytest.param(0, "1.5", id="no time costs the base"),
        pytest.param(119, "1.5", id="a second less than what is included"),
        pytest.param(120, "1.5", id="all that is included"),
        pytest.param(121, "1.505", id="a second more is a sixtieth of a minute more"),
        pytest.param(180, "1.8", id="a minute more"),
        pytest.param(190, "1.85", id="not whole minutes"),
    ],
)
def test_credits_are_the_base_cost_plus_extra_minutes(seconds: int, cost: str) -> None:
    assert credits_of(PRICE, timedelta(seconds=seconds)) == Decimal(cost)


def test_what_no_decimal_can_say_is_rounded_once_to_a_millionth() -> None:
    by_the_minute = Price(base_cost=Decimal(0), cost_per_minute=Decimal(1), included_minutes=Decimal(0))
    assert credits_of(by_the_minute, timedelta(seconds=10)) == Decimal("0.166667")


@given(base=AMOUNTS, per_minute=AMOUNTS, included=AMOUNTS, talked=TALKS)
def test_no_price_is_off_by_more_than_half_a_millionth(
    base: Decimal, per_minute: Decimal, included: Decimal, talked: timedelta
) -> None:
    price = Price(base_cost=base, cost_per_minute=per_minute, included_minutes=included)
    minutes = Fraction(int(talked.total_seconds()), 60)
    exact = Fraction(base) + Fraction(per_minute) * max(Fraction(0), minutes - Fraction(included))
    assert abs(Fraction(credits_of(price, talked)) - exact) <= Fraction(1, 2_000_000)
    assert credits_of(price, talked) >= base


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0.0"), (2, "0.0"), (3, "0.1"), (59, "1.0"), (60, "1.0"), (63, "1.1"), (750, "12.5")]
)
def test_minutes_are_shown_to_one_decimal(seconds: int, shown: str) -> None:
    assert str(minutes_shown(timedelta(seconds=seconds))) == shown


def test_every_focus_has_a_price() -> None:
    assert set(DEFAULT_PRICES) == set(AgentFocus)


@given(base=AMOUNTS, per_minute=AMOUNTS, included=AMOUNTS)
def test_prices_are_read_back_as_they_were(base: Decimal, per_minute: Decimal, included: Decimal) -> None:
    prices = {AgentFocus.OUTREACH: Price(base_cost=base, cost_per_minute=per_minute, included_minutes=included)}
    assert read_prices(prices_as_json(prices)) == prices


@pytest.mark.parametrize(
    ("focus", "base"),
    [
        ("SCREENING", "-1"),
        ("SCREENING", "a lot"),
        ("SCREENING", "NaN"),
        ("SCREENING", "Infinity"),
        ("SCREENING", "10001"),
        ("SCREENING", "0.0000001"),
        ("SCREENING", None),
        ("UNDEFINED", "1"),
    ],
)
def test_what_is_no_price_is_refused_by_name(focus: str, base: str | None) -> None:
    with pytest.raises(InvalidPrice) as refused:
        read_prices({focus: {"baseCost": base, "costPerMinute": "1", "includedMinutes": "1"}})
    assert str(refused.value.details["field"]).startswith(focus)


def test_a_price_without_a_part_of_it_is_refused() -> None:
    with pytest.raises(InvalidPrice, match=r"GENERIC\.includedMinutes"):
        read_prices({"GENERIC": {"baseCost": "1", "costPerMinute": "1"}})


def test_the_two_units_are_never_added() -> None:
    minutes = Bucket(
        system=BillingSystem.MINUTES,
        cost_key="a key",
        events=1,
        interviews=1,
        talked=timedelta(minutes=1),
        credits=Decimal(0),
    )
    in_credits = replace(minutes, system=BillingSystem.CREDITS, credits=Decimal(7))
    total = merged([in_credits, minutes, minutes])
    assert [(each.system, each.events, each.talked, each.credits) for each in total] == [
        (BillingSystem.MINUTES, 2, timedelta(minutes=2), Decimal(0)),
        (BillingSystem.CREDITS, 1, timedelta(minutes=1), Decimal(7)),
    ]
