"""Reputation of caller ids: which ends of calls count as what, and when an operator is alarmed."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from uuid import UUID

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.lifecycle.state_machine import CALL_ENDS
from scheduler.rules.reputation import (
    CallerDay,
    CallerResult,
    day_of,
    is_blocked_too_often,
    is_rarely_answered,
    result_of,
    usual_answer_rate,
)
from tests.architecture.guards import guards
from tests.lifecycle.lifecycle_setup import pending

CALLER = "+421221020001"
ENDED_AT = datetime(2026, 4, 1, 23, 30, tzinfo=UTC)
RINGING = pending(state=AttemptState.IN_PROGRESS, call_sid="CA1")
FLAGS = {
    Reason.ANSWERED: (True, False, False),
    Reason.DECLINED: (False, True, False),
    Reason.BLOCKED_BY_NETWORK: (False, False, True),
}


def ended(reason: Reason, before: Attempt = RINGING) -> CallerResult | None:
    after = replace(before, state=CALL_ENDS.get(reason, AttemptState.FAILED), reason=reason, ended_at=ENDED_AT)
    return result_of(before, after, CALLER)


def a_day(calls: int = 0, answered: int = 0, blocked: int = 0) -> CallerDay:
    return CallerDay(
        company_id=UUID(int=1),
        phone_number_id=UUID(int=2),
        day=date(2026, 4, 1),
        calls=calls,
        answered=answered,
        blocked=blocked,
    )


@pytest.mark.parametrize(
    "reason",
    [
        *sorted(CALL_ENDS.keys() - {Reason.BLOCKED_BY_NETWORK}),
        pytest.param(Reason.BLOCKED_BY_NETWORK, marks=guards("network_block")),
    ],
)
def test_end_of_a_call_counts_as_one_outcome_at_most(reason: Reason) -> None:
    result = ended(reason)
    assert result is not None
    flags = (result.is_answered, result.is_declined, result.is_blocked)
    assert flags == FLAGS.get(reason, (False, False, False))


def test_call_is_counted_on_its_day_of_utc() -> None:
    result = ended(Reason.BUSY)
    assert result is not None
    assert result.day == date(2026, 4, 1)
    in_bratislava = ENDED_AT.astimezone(timezone(timedelta(hours=2)))
    assert in_bratislava.date() == date(2026, 4, 2)
    assert day_of(in_bratislava) == date(2026, 4, 1)


def test_unknown_outcome_is_counted_when_it_is_proven() -> None:
    given_up = replace(RINGING, state=AttemptState.FAILED, reason=Reason.OUTCOME_UNKNOWN, ended_at=ENDED_AT)
    assert ended(Reason.OUTCOME_UNKNOWN) is None
    assert ended(Reason.BUSY, given_up) is not None


def test_end_is_not_counted_twice() -> None:
    busy = replace(RINGING, state=AttemptState.FAILED, reason=Reason.BUSY, ended_at=ENDED_AT)
    assert ended(Reason.BUSY, busy) is None


def test_attempt_without_a_call_is_not_counted() -> None:
    assert ended(Reason.INVALID_NUMBER, pending(state=AttemptState.IN_PROGRESS)) is None
    assert ended(Reason.EXPIRED) is None


@pytest.mark.parametrize(("blocked", "alarmed"), [(0, False), (2, False), (3, True), (4, True)])
def test_third_blocked_call_of_a_day_is_too_often(blocked: int, *, alarmed: bool) -> None:
    assert is_blocked_too_often(a_day(calls=100, blocked=blocked)) is alarmed


USUAL = [a_day(100, 60), a_day(50, 20), a_day(80, 40)]


def test_usual_answer_rate_is_the_median_of_large_days() -> None:
    assert usual_answer_rate([*USUAL, a_day(49, 0)]) == 0.5
    assert usual_answer_rate(USUAL[:2]) is None, "two caller ids have no usual rate"


@pytest.mark.parametrize(
    ("calls", "answered", "usual", "alarmed"),
    [
        pytest.param(50, 12, 0.5, True, id="below half"),
        pytest.param(60, 15, 0.5, False, id="half"),
        pytest.param(49, 0, 0.5, False, id="too few calls"),
        pytest.param(50, 0, None, False, id="no usual rate"),
    ],
)
def test_rate_below_half_of_the_usual_one_is_rare(
    calls: int, answered: int, usual: float | None, *, alarmed: bool
) -> None:
    assert is_rarely_answered(a_day(calls, answered), usual) is alarmed
