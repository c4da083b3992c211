"""Columns of the calendar: every due call is counted in its quarter hour, next to the calls that can start."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.calendar_rows import QUARTERS, CompanyDue, DueQuarters, due_quarters, forecast_text
from scheduler.lifecycle.forecast import Starts
from tests.console.examples import utc

BEGINS = utc("2026-11-27 06:15:00")


def due(name: str, calls: dict[int, int]) -> CompanyDue:
    return CompanyDue(name=name, calls=tuple(calls.get(quarter, 0) for quarter in range(QUARTERS)))


def of(*companies: CompanyDue, places: int | None = None) -> DueQuarters:
    lasts = None if places is None else timedelta(minutes=5)
    return due_quarters(companies, BEGINS, calls_per_second=2, concurrent_calls=places or 1, call_lasts=lasts)


def bar(found: DueQuarters, quarter: int) -> list[tuple[str, float]]:
    return [(part.kind, round(part.width, 1)) for part in found.bar(quarter)]


def test_twenty_companies_have_a_column_and_the_rest_shares_one() -> None:
    many = [due(f"Company {number:02}", {number: 100 + number, 40: 7}) for number in range(25)]
    found = of(*many)
    assert [each.name for each in found.companies[:2]] == ["Company 24", "Company 23"]
    assert len(found.companies) == 21
    assert found.companies[-1].name == "the rest (5 companies)"
    assert found.companies[-1].total == sum(each.total for each in many[:5])


def test_part_above_the_limit_is_shown_as_such() -> None:
    found = of(due("Hays", {3: 1800, 5: 3600, 7: 1}))
    assert (bar(found, 3), bar(found, 4)) == ([("due", 50)], [])
    assert bar(found, 5) == [("due", 50), ("over", 50)]
    assert bar(found, 7) == [("due", 0.8)], "one call is visible next to thousands"


def test_company_is_compared_with_the_fullest_of_all() -> None:
    found = of(due("Hays", {3: 100}), due("Acme", {3: 25, 4: 50}))
    assert [round(part.width) for quarter in (3, 4) for part in found.bar_of(found.companies[1], quarter)] == [25, 50]


def test_places_limit_calls_besides_the_pace() -> None:
    found = of(due("Hays", {3: 700}), places=100)
    assert (found.by_pace, found.by_places, found.capacity) == (1800, 300, 300)
    assert (of().by_places, of().capacity) == (None, 1800)


@given(calls=st.lists(st.lists(st.integers(0, 100_000), min_size=96, max_size=96), max_size=23))
@settings(max_examples=15, deadline=None)
def test_every_call_is_in_a_column_and_in_the_sum(calls: list[list[int]]) -> None:
    found = of(*(CompanyDue(name=f"{number}", calls=tuple(each)) for number, each in enumerate(calls)))
    total = sum(sum(each) for each in calls)
    assert found.every.total == sum(each.total for each in found.companies) == total
    for quarter in range(QUARTERS):
        assert sum(part.width for part in found.bar(quarter)) < 100.01


@pytest.mark.parametrize(
    ("starts", "text"),
    [
        (Starts(), "No call is due."),
        (
            Starts(
                calls=4812,
                past_closing=120,
                last_start_at=datetime(2026, 11, 27, 16, tzinfo=UTC),
                last_is_late_by=timedelta(minutes=41),
                latest_by=timedelta(minutes=41),
            ),
            "The last of 4,812 calls starts 41 min late. 120 have to wait for the next opening of their calling hours.",
        ),
        (
            Starts(calls=2, last_start_at=BEGINS, latest_by=timedelta(minutes=2), past_closing=1),
            (
                "The last of 2 calls starts on time, the latest one 2 min late. 1 has to wait for the next opening of"
                " its calling hours."
            ),
        ),
        (
            Starts(calls=1, last_start_at=BEGINS),
            "The only call starts on time. None has to wait for the next opening of its calling hours.",
        ),
        (
            Starts(calls=9, past_closing=9),
            "No call starts before its calling hours end. 9 have to wait for the next opening of their calling hours.",
        ),
    ],
)
def test_forecast_is_a_sentence(starts: Starts, text: str) -> None:
    assert forecast_text(starts) == text
