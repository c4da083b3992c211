"""Reports after the end of a call that was given up and then found live: its late proof waits for them."""

from datetime import timedelta

import pytest

from scheduler.domain.attempt import ConversationOutcome, Reason
from scheduler.domain.call import AnsweredBy, CallStatus
from scheduler.domain.command import InvokeAttempt
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.policy import VERDICT_WAIT
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import Tenant, an_attempt_of_unknown_outcome
from tests.use_cases.conftest import Perform, answering, apply_news, change_now, end, see_leg, settle_at
from tests.use_cases.conversations.conftest import (
    CALL_BACK,
    FINISHED,
    IN_UTC,
    OPTED_OUT,
    SCREENED,
    TECHNICAL,
    TOMORROW_AT_SIX,
    WRONG_PERSON,
    answered_late,
    booked,
    code,
    follower,
    found_late,
    invoked,
    pending_times,
    refusal_of,
    report,
)
from tests.use_cases.conversations.test_report_order import call_of

SECOND = timedelta(seconds=1)


@guards("late_report", "late_call_back")
def test_time_named_after_the_end_of_a_call_found_late_is_kept(voice: Tenant, perform: Perform, now: TestClock) -> None:
    attempt = found_late(voice)
    ended_at = now()
    assert end(voice, attempt).reason is Reason.OUTCOME_UNKNOWN
    now.move(voice.policy.outcome_wait - SECOND)
    end(voice, attempt)  # the callback comes again
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None, "the same again"
    proven = voice.attempt(attempt.id)
    assert (proven.reason, proven.ended_at, booked(voice, attempt)) == (Reason.ANSWERED, ended_at, 1)
    assert voice.interview_status(attempt) is InterviewStatus.SCHEDULED
    end(voice, attempt)
    assert pending_times(voice, attempt) == [IN_UTC]
    assert voice.history(attempt.id)[-3:] == ["verdict_awaited", "reported", "proven"]


def test_report_counts_after_a_late_end_of_an_unheard_answer(voice: Tenant, perform: Perform) -> None:
    attempt = see_leg(voice, an_attempt_of_unknown_outcome(voice))
    end(voice, attempt)
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    assert pending_times(voice, attempt) == [IN_UTC]


@pytest.mark.parametrize("is_invoked", [True, False])
@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (FINISHED, InterviewStatus.COMPLETED),
        (SCREENED, InterviewStatus.FAILED),
        (ConversationOutcome.HUNG_UP_EARLY, InterviewStatus.FAILED),
        (TECHNICAL, InterviewStatus.FAILED),
        (WRONG_PERSON, InterviewStatus.FAILED),
        (OPTED_OUT, InterviewStatus.CANCELLED),
    ],
)
def test_only_a_named_time_follows_after_the_late_end(
    voice: Tenant, perform: Perform, outcome: ConversationOutcome, status: InterviewStatus, *, is_invoked: bool
) -> None:
    """Also of an interview that was invoked before the call was found, which has replaced the invoked one."""
    lost = an_attempt_of_unknown_outcome(voice)
    if is_invoked:
        invoked(voice, perform, lost)
    attempt = answered_late(voice, lost)
    end(voice, attempt)
    assert report(perform, attempt, outcome) is None
    proven = voice.attempt(attempt.id)
    assert (proven.reason, proven.outcome, booked(voice, attempt)) == (Reason.ANSWERED, outcome, 1)
    assert (pending_times(voice, attempt), voice.interview_status(attempt)) == ([], status)


@pytest.mark.parametrize("is_carrier_away", [True, False])
def test_call_that_was_found_late_counts_without_a_report(
    voice: Tenant, perform: Perform, now: TestClock, *, is_carrier_away: bool
) -> None:
    attempt = end(voice, found_late(voice))
    ended_at = now()
    with answering(500, b"{}") if is_carrier_away else answering(200, call_of(attempt)) as url:
        settle = settle_at(voice, url)
        now.move(voice.policy.outcome_wait - SECOND)
        settle.round()
        assert voice.attempt(attempt.id).reason is Reason.OUTCOME_UNKNOWN
        assert (voice.interview_status(attempt), booked(voice, attempt)) == (InterviewStatus.FAILED, 0)
        now.move(SECOND)
        settle.round()
    proven = voice.attempt(attempt.id)
    assert (proven.reason, proven.ended_at, booked(voice, attempt)) == (Reason.ANSWERED, ended_at, 1)
    assert voice.interview_status(attempt) is InterviewStatus.COMPLETED
    assert code(report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX)) == "OUTCOME_REPORTED"
    assert pending_times(voice, attempt) == []


@guards("late_wait_over", "late_report")
def test_wait_for_a_verdict_is_part_of_the_wait_for_a_report(voice: Tenant, perform: Perform, now: TestClock) -> None:
    attempt = found_late(voice)
    voice.change("UPDATE attempts SET machine_detection = 'ASYNC' WHERE id = :id", id=attempt.id)
    ended_at = now()
    assert end(voice, attempt).look_at == ended_at + VERDICT_WAIT
    now.move(VERDICT_WAIT)
    apply_news(voice, attempt, CallStatus.COMPLETED, token=None)
    waiting = voice.attempt(attempt.id)
    assert (waiting.reason, waiting.hung_up_at) == (Reason.OUTCOME_UNKNOWN, ended_at)
    assert waiting.look_at == ended_at + voice.policy.outcome_wait
    now.instant = waiting.look_at
    apply_news(voice, attempt, CallStatus.COMPLETED, token=None)
    proven = voice.attempt(attempt.id)
    assert (proven.reason, proven.ended_at) == (Reason.ANSWERED, ended_at)


@guards("late_wait_with_a_key")
def test_late_proof_waits_for_no_report_without_a_voice_key(retrying: Tenant) -> None:
    attempt = end(retrying, found_late(retrying))
    assert (attempt.reason, retrying.interview_status(attempt)) == (Reason.ANSWERED, InterviewStatus.COMPLETED)
    assert retrying.history(attempt.id)[-2:] == ["leg_seen", "proven"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE interviews SET status = 'CANCELLED', finished_at = :at",
        "UPDATE interviews SET status = 'COMPLETED', finished_at = :at",
        "UPDATE interviews SET deleted_at = :at",
    ],
)
@pytest.mark.parametrize("is_over", [True, False])
def test_no_named_time_is_kept_of_an_interview_that_is_over(
    voice: Tenant, perform: Perform, change: str, *, is_over: bool
) -> None:
    """Late proof of its call waits for no report. If it has begun to wait, the report is stored."""
    attempt = found_late(voice)
    if is_over:
        change_now(voice, change)
    assert end(voice, attempt).reason is (Reason.ANSWERED if is_over else Reason.OUTCOME_UNKNOWN)
    if not is_over:
        change_now(voice, change)
    before = voice.interview_status(attempt)
    is_deleted = voice.interview(attempt.interview_id).deleted_at is not None
    refused_with = "RESOURCE_NOT_FOUND" if is_deleted else "OUTCOME_REPORTED" if is_over else None
    assert code(report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX)) == refused_with
    proven = voice.attempt(attempt.id).reason is Reason.ANSWERED
    assert proven is (is_over or not is_deleted)
    assert (pending_times(voice, attempt), voice.interview_status(attempt)) == ([], before)


def test_interview_is_not_invoked_while_its_late_proof_waits(voice: Tenant, perform: Perform) -> None:
    attempt = end(voice, found_late(voice))
    invoke = InvokeAttempt(interview_id=attempt.interview_id)
    assert code(refusal_of(perform(invoke))) == "CALL_ATTEMPT_IN_PROGRESS"
    assert follower(voice, attempt) is None


@guards("gap_of_live_call")
def test_named_time_waits_for_no_gap_after_its_own_call(voice: Tenant, now: TestClock) -> None:
    attempt = found_late(voice)
    now.move(voice.policy.line_gap)  # the gap after its outcome was given up
    end(voice, attempt)
    assert voice.line(attempt) == (None, attempt.interview_id, voice.now() + voice.policy.line_gap)


def test_who_answered_is_kept_while_late_proof_waits(voice: Tenant, perform: Perform) -> None:
    """A poll need not name it again."""
    attempt = found_late(voice)
    apply_news(voice, attempt, CallStatus.COMPLETED, answered_by=AnsweredBy.PERSON, duration=timedelta(seconds=30))
    assert report(perform, attempt, FINISHED) is None
    assert voice.attempt(attempt.id).answered_by is AnsweredBy.PERSON


def test_late_proof_of_a_call_that_we_end_waits_for_no_report(voice: Tenant) -> None:
    attempt = found_late(voice)
    voice.change("UPDATE attempts SET hang_up = 'COMPANY_DELETED' WHERE id = :id", id=attempt.id)
    assert end(voice, attempt).reason is Reason.ANSWERED


def test_wait_that_begins_in_the_future_is_over(voice: Tenant) -> None:
    """A wrong clock has written its begin."""
    attempt = end(voice, found_late(voice))
    later = voice.now() + timedelta(hours=1)
    voice.change("UPDATE attempts SET hung_up_at = :at WHERE id = :id", at=later, id=attempt.id)
    apply_news(voice, attempt, CallStatus.COMPLETED, token=None)
    proven = voice.attempt(attempt.id)
    assert (proven.reason, proven.ended_at) == (Reason.ANSWERED, voice.now())
