"""The end of waits for outcomes: a round ends all that are over, and none stops the others or the round."""

from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta

from structlog.testing import capture_logs

from scheduler.domain.attempt import Attempt
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.policy import latest_outcome
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared.outcome_waits import OutcomeWaits
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import Tenant, a_placed_attempt, a_voice_key
from tests.use_cases.conftest import answered, end, refusing

A_SECOND = timedelta(seconds=1)


def stuck_at(attempt: Attempt, tenant: Tenant, code: str) -> AbstractContextManager[None]:
    """Make the database refuse changes of an attempt."""
    return refusing(tenant, "UPDATE ON attempts", f"OLD.id = '{attempt.id}'", code)


def some_awaited(voice: Tenant, now: TestClock, count: int) -> list[Attempt]:
    """Attempts whose outcome is awaited, in the order in which their waits end."""
    awaited = []
    for _ in range(count):
        awaited.append(end(voice, answered(voice)))
        now.move(A_SECOND)
    return awaited


def is_completed(voice: Tenant, attempt: Attempt) -> bool:
    return voice.interview_status(attempt) is InterviewStatus.COMPLETED


def first_overdue(voice: Tenant) -> list[object]:
    with voice.database.transaction() as stores:
        return list(stores.conversations.overdue(voice.now(), latest_outcome(voice.now(), voice.policy), 1))


def test_round_ends_more_waits_than_one_transaction(voice: Tenant, now: TestClock) -> None:
    over = some_awaited(voice, now, 3)
    now.move(voice.policy.outcome_wait - A_SECOND)
    later = end(voice, answered(voice))
    OutcomeWaits(voice.context, at_once=1).end()
    assert all(is_completed(voice, each) for each in over)
    assert not is_completed(voice, later), "its wait is not over"


@guards("unreadable_wait", "readable")
def test_unreadable_attempt_stays_not_the_first_overdue(voice: Tenant, now: TestClock) -> None:
    spoiled, readable = some_awaited(voice, now, 2)
    voice.change("UPDATE attempts SET warnings = '{OF_A_LATER_RELEASE}' WHERE id = :id", id=spoiled.id)
    now.move(voice.policy.outcome_wait)
    OutcomeWaits(voice.context, at_once=1).end()
    assert is_completed(voice, readable)
    assert not is_completed(voice, spoiled)
    assert first_overdue(voice) == [], "it takes no place of others for ten minutes"


@guards("failed_wait")
def test_wait_that_cannot_be_ended_is_not_tried_again_at_once(voice: Tenant, now: TestClock) -> None:
    broken, first, second = some_awaited(voice, now, 3)
    now.move(voice.policy.outcome_wait)
    waits = OutcomeWaits(voice.context, at_once=2)
    with stuck_at(broken, voice, "raise_exception"), capture_logs() as logs:
        waits.end()
        waits.end()
    assert is_completed(voice, first)
    assert is_completed(voice, second)
    assert not is_completed(voice, broken)
    assert len([each for each in logs if each["event"].startswith("outcome_wait_failed")]) == 1
    OutcomeWaits(voice.context).end()
    assert is_completed(voice, broken), "another process, or this one in ten minutes"


def test_locked_row_stops_no_other_company_and_no_later_step(
    voice: Tenant, other: Tenant, settle: Settle, now: TestClock
) -> None:
    a_voice_key(other)
    [stuck, _], [free] = some_awaited(voice, now, 2), some_awaited(other, now, 1)
    polled = a_placed_attempt(voice)
    now.move(max(voice.policy.outcome_wait, polled.look_at - voice.now() if polled.look_at else timedelta()))
    with stuck_at(stuck, voice, "lock_not_available"):
        settle.round()
    assert is_completed(other, free)
    assert not is_completed(voice, stuck)
    assert voice.attempt(polled.id).looks == polled.looks + 1
    settle.round()
    assert is_completed(voice, stuck), "a row that was only locked is tried again in the next round"


def test_locked_row_of_a_lone_wait_stops_no_later_step(voice: Tenant, settle: Settle, now: TestClock) -> None:
    [stuck] = some_awaited(voice, now, 1)
    now.move(voice.policy.outcome_wait)
    with stuck_at(stuck, voice, "lock_not_available"):
        settle.round()
    assert not is_completed(voice, stuck)
    settle.round()
    assert is_completed(voice, stuck)


def test_listing_that_fails_raises_nothing(voice: Tenant, now: TestClock) -> None:
    [awaited] = some_awaited(voice, now, 1)
    now.move(voice.policy.outcome_wait)
    endless = replace(voice.context, policy=replace(voice.policy, outcome_wait=timedelta.max))
    with capture_logs() as logs:
        OutcomeWaits(endless).end()
    assert [each["log_level"] for each in logs] == ["error"]
    assert not is_completed(voice, awaited)
