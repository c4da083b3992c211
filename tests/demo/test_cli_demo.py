"""The demo's sample calls, how they are judged, and that they fit a terminal; the whole demo is `make demo ONCE=1`."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console

from scheduler.demo.client import Client, Row, _held_against
from scheduler.demo.sample_calls import CALLS, STARTS_AT, SampleCall, Then, moved_to
from scheduler.demo.table import WIDE, table

STARTS = datetime.fromisoformat(STARTS_AT).astimezone(UTC)
CLIENT = Client(company_id=uuid4(), agent_id=uuid4(), key="none")
SCHEDULE = {"timezone": "Europe/Berlin", "timezoneSource": "PHONE_NUMBER", "localTime": "2026-04-02T09:00:00"}


def _call(then: Then = Then.NOTHING, *, ends: str = "COMPLETED ANSWERED") -> SampleCall:
    return next(call for call in CALLS if call.then is then and call.ends == ends)


def _row(call: SampleCall, **more: Any) -> Row:
    return Row(call=call, client=CLIENT, **more)


def _attempt(status: str, reason: str | None = None, retry_number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "status": status,
        "reasonCode": reason,
        "retryNumber": retry_number,
        "schedule": SCHEDULE,
        "scheduledAt": "2026-04-02T07:00:00Z",
        "waitingFor": None,
        **more,
    }


def _ring(after: timedelta = timedelta()) -> dict[str, Any]:
    return {"accepted_at": (STARTS + after).isoformat()}


def test_the_sample_calls_are_in_eight_countries_and_each_has_a_number_of_its_own() -> None:
    assert len({call.country for call in CALLS}) == 8
    assert len({call.number for call in CALLS}) == len(CALLS)


@pytest.mark.parametrize(
    ("row", "stands"),
    [
        pytest.param(_row(_call()), "NOT SENT YET", id="not sent"),
        pytest.param(_row(_call(), refusal={"code": "WHY"}), "REFUSED WHY", id="refused"),
        pytest.param(_row(_call(), deleted=True), "DELETED", id="deleted"),
        pytest.param(
            _row(_call(), attempts=[_attempt("PENDING")]),
            "PENDING until 09:00 Europe/Berlin",
            id="waiting for its time",
        ),
        pytest.param(
            _row(_call(), attempts=[_attempt("FAILED", "BUSY"), _attempt("PENDING", retry_number=1)]),
            "FAILED BUSY, then PENDING again",
            id="a retry waits",
        ),
        pytest.param(
            _row(_call(), attempts=[_attempt("FAILED", "BUSY"), _attempt("COMPLETED", "ANSWERED", 1)]),
            "FAILED BUSY, then COMPLETED ANSWERED",
            id="the retry was answered",
        ),
    ],
)
def test_how_a_call_stands_is_told_in_the_words_of_what_is_expected(row: Row, stands: str) -> None:
    assert row.stands == stands


def test_a_call_that_the_carrier_took_as_often_as_expected_has_nothing_against_it() -> None:
    assert _held_against(_row(_call()), [_ring()]) is None


def test_a_call_that_rang_twice_is_held_against_it_however_it_ended() -> None:
    row = _row(_call(), attempts=[_attempt("COMPLETED", "ANSWERED")])
    assert row.is_as_expected
    row.problem = _held_against(row, [_ring(), _ring()])
    assert row.problem == "the carrier took 2 calls for it, not 1"
    assert not row.is_as_expected


def test_a_cancelled_call_that_rang_is_held_against_it() -> None:
    row = _row(_call(Then.DELETED, ends="DELETED"), deleted=True)
    assert _held_against(row, []) is None
    assert _held_against(row, [_ring()]) == "the carrier took 1 calls for it, not 0"


def test_a_moved_call_that_rang_at_its_first_time_is_held_against_it_and_one_at_the_new_time_is_not() -> None:
    row = _row(_call(Then.MOVED), not_before=STARTS + timedelta(seconds=24))
    assert _held_against(row, [_ring(after=timedelta(seconds=16))]) == "it rang at 07:00:16 UTC, before 07:00:24"
    assert _held_against(row, [_ring(after=timedelta(seconds=24))]) is None


def test_it_is_moved_to_a_later_time() -> None:
    asked = _call(Then.MOVED).asked(STARTS)
    assert asked is not None
    assert datetime.fromisoformat(moved_to(asked)) > datetime.fromisoformat(asked)


def test_a_cancelled_call_is_watched_until_its_time_is_past() -> None:
    row = _row(_call(Then.DELETED, ends="DELETED"), deleted=True, due_at=STARTS)
    assert not row.is_over(STARTS)
    assert row.is_over(STARTS + timedelta(seconds=5))


@pytest.mark.parametrize("width", [80, WIDE])
def test_the_table_fits_a_terminal_and_cuts_nothing_off(width: int) -> None:
    rows = [
        _row(call, asked="2026-04-02T07:00:16Z", moved_to="2026-04-02T07:00:24Z", attempts=[_attempt("PENDING")])
        for call in CALLS
    ]
    longest = {**SCHEDULE, "timezone": "Europe/Bratislava"}
    rows[0].attempts = [
        _attempt("FAILED", "NO_ANSWER"),
        _attempt("PENDING", retry_number=1, schedule=longest, scheduledAt="2026-04-02T12:00:00Z"),
    ]
    several = {**SCHEDULE, "timezone": "Pacific/Pago_Pago, Pacific/Saipan", "localTime": "1, 2"}
    rows[1].attempts = [_attempt("PENDING", schedule=several)]
    rows[2].deleted = True
    rows[3].attempts = [_attempt("IN_PROGRESS", waitingFor="proof of what became of it")]
    rows[4].attempts = [_attempt("FAILED", "OUTCOME_UNKNOWN")]
    paper = io.StringIO()
    console = Console(file=paper, width=width, height=24, highlight=False)
    console.print(table(console, rows, STARTS, over=True))
    lines = paper.getvalue().splitlines()
    assert len(lines) < 24
    assert all(len(line) <= width for line in lines)
    assert "…" not in paper.getvalue()
