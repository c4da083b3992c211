"""Pricing: the cost of a call in the unit in which its company is billed."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from scheduler.domain.attempt import Attempt
from scheduler.domain.company import Billing, BillingSystem, Booking, Bucket, Price, PriceList
from scheduler.domain.interview import AgentFocus, Interview
from scheduler.domain.refusals import InvalidPrice

_MINUTE, _TICK = timedelta(minutes=1), timedelta(microseconds=1)
_TENTH = Decimal("0.1")
_PLACES = 6
"""Decimals of prices and bookings: a millionth of a credit."""
_MOST = Decimal(10_000)

DEFAULT_PRICES: PriceList = MappingProxyType(
    {
        AgentFocus.GENERIC: Price(base_cost=Decimal(1), cost_per_minute=Decimal("0.1"), included_minutes=Decimal(10)),
        AgentFocus.SCREENING: Price(base_cost=Decimal(2), cost_per_minute=Decimal("0.2"), included_minutes=Decimal(10)),
        AgentFocus.OUTREACH: Price(
            base_cost=Decimal("0.5"), cost_per_minute=Decimal("0.1"), included_minutes=Decimal(3)
        ),
        AgentFocus.LANGUAGE_TEST: Price(
            base_cost=Decimal(3), cost_per_minute=Decimal("0.3"), included_minutes=Decimal(15)
        ),
    }
)
"""In credits. A company's own price for a focus replaces the one here."""


def booking_of(attempt: Attempt, interview: Interview, billing: Billing, now: datetime) -> Booking:
    """Compute the booking of a call that a person answered. A missing duration counts as zero."""
    talked = attempt.duration or timedelta(0)
    in_credits = billing.system is BillingSystem.CREDITS
    price = {**DEFAULT_PRICES, **billing.prices}[interview.focus]
    return Booking(
        attempt_id=attempt.id,
        interview_id=interview.id,
        company_id=interview.company_id,
        ats_principal_id=billing.ats_principal_id,
        booked_at=now,
        system=billing.system,
        cost_key=f"{interview.focus.value.lower()}_interview" if in_credits else "interview_minutes",
        talked=talked,
        credits=credits_of(price, talked) if in_credits else None,
    )


def credits_of(price: Price, talked: timedelta) -> Decimal:
    """Compute the exact price of one call, rounded once to a millionth of a credit (half to even)."""
    beyond = max(Fraction(0), Fraction(talked // _TICK, _MINUTE // _TICK) - Fraction(price.included_minutes))
    exact = Fraction(price.base_cost) + Fraction(price.cost_per_minute) * beyond
    return Decimal(round(exact * 10**_PLACES)).scaleb(-_PLACES)


def minutes_shown(talked: timedelta) -> Decimal:
    """Round minutes to one decimal. Only for display: a total is not the sum of rounded parts."""
    return (Decimal(talked // _TICK) / (_MINUTE // _TICK)).quantize(_TENTH, ROUND_HALF_UP)


def merged(buckets: Iterable[Bucket]) -> tuple[Bucket, ...]:
    """Merge the buckets into one per unit and cost key, minutes first, then by cost key."""
    by_key: dict[tuple[BillingSystem, str], Bucket] = {}
    for each in buckets:
        key = (each.system, each.cost_key)
        so_far = by_key.get(key)
        by_key[key] = each if so_far is None else _sum(so_far, each)
    return tuple(sorted(by_key.values(), key=lambda each: (each.system is BillingSystem.CREDITS, each.cost_key)))


def _sum(one: Bucket, other: Bucket) -> Bucket:
    return Bucket(
        system=one.system,
        cost_key=one.cost_key,
        events=one.events + other.events,
        interviews=one.interviews + other.interviews,
        talked=one.talked + other.talked,
        credits=one.credits + other.credits,
    )


def read_prices(form: Mapping[str, Any]) -> PriceList:
    """Parse prices by focus: `{"SCREENING": {"baseCost": "2", "costPerMinute": "0.2", "includedMinutes": "10"}}`.

    Raises InvalidPrice.
    """
    return {
        _focus(name): Price(
            base_cost=_amount(name, each, "baseCost"),
            cost_per_minute=_amount(name, each, "costPerMinute"),
            included_minutes=_amount(name, each, "includedMinutes"),
        )
        for name, each in form.items()
    }


def prices_as_json(prices: PriceList) -> dict[str, dict[str, str]]:
    """Build the JSON form that `read_prices` parses. Decimals are text, because JSON numbers are not exact."""
    return {
        focus.value: {
            "baseCost": str(price.base_cost),
            "costPerMinute": str(price.cost_per_minute),
            "includedMinutes": str(price.included_minutes),
        }
        for focus, price in prices.items()
    }


def _focus(name: str) -> AgentFocus:
    try:
        return AgentFocus(name)
    except ValueError:
        raise InvalidPrice(f"Unknown focus {name!r}. Use one of {', '.join(AgentFocus)}.", field=name) from None


def _amount(focus: str, form: Mapping[str, Any], name: str) -> Decimal:
    field = f"{focus}.{name}"
    try:
        amount = Decimal(form[name])
    except (KeyError, TypeError, ArithmeticError):
        raise _invalid(field) from None
    if not amount.is_finite() or not 0 <= amount <= _MOST or amount != round(amount, _PLACES):
        raise _invalid(field)
    return amount


def _invalid(field: str) -> InvalidPrice:
    return InvalidPrice(
        f"{field} must be a decimal number from 0 to {_MOST} with at most {_PLACES} decimals.", field=field
    )
