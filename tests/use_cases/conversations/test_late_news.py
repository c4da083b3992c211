"""Reported conversations and late news of their calls: nothing is overruled, lost or done twice."""

from datetime import timedelta

import pytest

from scheduler.domain.attempt import (
    Attempt,
    AttemptState,
    ConversationOutcome,
    Ended,
    ProofMissing,
    Reason,
)
from scheduler.domain.call import CallStatus
from scheduler.domain.interview import InterviewStatus
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    Tenant,
    a_number,
    a_placed_attempt,
    an_attempt_of_unknown_outcome,
)
from tests.use_cases.conftest import Perform, answered, apply_news, change_now, end, see_leg
from tests.use_cases.conversations.conftest import (
    CALL_BACK,
    FINISHED,
    IN_UTC,
    OPTED_OUT,
    SCREENED,
    TECHNICAL,
    TOMORROW_AT_SIX,
    WRONG_PERSON,
    a_newer_call,
    booked,
    code,
    follower,
    found_late,
    invoked,
    lose_the_end,
    pending_of,
    pending_times,
    report,
)


def test_late_proof_never_adds_an_attempt_for_a_report(voice: Tenant, perform: Perform) -> None:
    lost = an_attempt_of_unknown_outcome(voice)
    assert code(report(perform, lost, SCREENED)) == "CALL_NOT_ANSWERED"
    invoked(voice, perform, lost)
    apply_news(voice, lost, CallStatus.COMPLETED, duration=timedelta(seconds=30))
    proven = voice.attempt(lost.id)
    assert (proven.reason, proven.outcome_until) == (Reason.ANSWERED, None)
    assert code(report(perform, proven, CALL_BACK, TOMORROW_AT_SIX)) == "OUTCOME_REPORTED"
    assert pending_of(voice, lost) == []


def test_reported_call_of_unknown_end_is_not_repeated(voice: Tenant, perform: Perform) -> None:
    """The call was live when it was reported. Its end was lost, and is proven late."""
    attempt = answered(voice)
    assert report(perform, attempt, SCREENED) is None
    voice.take(voice.attempt(attempt.id), ProofMissing())
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, InterviewStatus.FAILED)
    end(voice, attempt)
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, InterviewStatus.FAILED)
    assert booked(voice, attempt) == 1


@pytest.mark.parametrize("is_reported", [pytest.param(False, marks=guards("nothing_happened")), True])
def test_news_after_the_end_decides_nothing(voice: Tenant, perform: Perform, *, is_reported: bool) -> None:
    """A callback may come late or again, during the wait for a report or after it. The call is over."""
    attempt = end(voice, answered(voice))
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None if is_reported else True
    for status in (CallStatus.ANSWERED, CallStatus.RINGING, CallStatus.COMPLETED):
        apply_news(voice, attempt, status)
        assert voice.interview_status(attempt) is InterviewStatus.SCHEDULED
    assert is_reported or report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    back = follower(voice, attempt)
    assert back is not None
    assert (back.state, voice.interview_status(back)) == (AttemptState.PENDING, InterviewStatus.SCHEDULED)


@guards("late_failure")
def test_late_failure_of_an_earlier_call_ends_no_wait(voice: Tenant, perform: Perform) -> None:
    """The outcome of a newer call of the interview is awaited, and decides about it."""
    lost = an_attempt_of_unknown_outcome(voice)
    voice.change("UPDATE interviews SET status = 'SCHEDULED', finished_at = NULL")
    newer = end(voice, answered(voice, a_placed_attempt(voice, a_number(), interview_id=lost.interview_id)))
    apply_news(voice, lost, CallStatus.BUSY)
    assert (voice.attempt(lost.id).reason, voice.interview_status(lost)) == (Reason.BUSY, InterviewStatus.SCHEDULED)
    assert report(perform, newer, SCREENED) is None
    assert [each.state for each in voice.attempts(lost.interview_id)][2:] == [AttemptState.PENDING]


def test_late_proof_of_an_open_result_cancels_no_invoked_call(voice: Tenant, perform: Perform) -> None:
    """Its conversation asked for another call, so that the invoke after the lost end is not replaced."""
    attempt = lose_the_end(voice, perform)
    pending = invoked(voice, perform, attempt)
    end(voice, attempt)
    assert (follower(voice, attempt), voice.attempt(attempt.id).reason) == (pending, Reason.ANSWERED)
    assert voice.interview_status(attempt) is InterviewStatus.SCHEDULED


# ---- the voice server fails in a conversation that has reported


def lose_instructions(tenant: Tenant, attempt: Attempt) -> None:
    """The carrier requests the fallback of a call in progress."""
    answered(tenant, tenant.attempt(attempt.id), instructions_failed=True)


@guards("reported_outcome")
@pytest.mark.parametrize("is_reported_first", [True, False])
@pytest.mark.parametrize(
    ("outcome", "at", "status"),
    [
        (FINISHED, None, InterviewStatus.COMPLETED),
        (CALL_BACK, TOMORROW_AT_SIX, InterviewStatus.SCHEDULED),
        (OPTED_OUT, None, InterviewStatus.CANCELLED),
        (WRONG_PERSON, None, InterviewStatus.FAILED),
    ],
)
def test_fallback_overrules_no_report(
    voice: Tenant,
    perform: Perform,
    outcome: ConversationOutcome,
    at: str | None,
    status: InterviewStatus,
    *,
    is_reported_first: bool,
) -> None:
    attempt = answered(voice)
    if not is_reported_first:
        lose_instructions(voice, attempt)
    assert report(perform, attempt, outcome, at) is None
    if is_reported_first:
        lose_instructions(voice, attempt)
    ended = end(voice, attempt)
    assert (ended.reason, ended.outcome, ended.instructions_failed) == (Reason.ANSWERED, outcome, True)
    assert (voice.interview_status(attempt), booked(voice, attempt)) == (status, 1)
    assert pending_times(voice, attempt) == ([IN_UTC] if at else [])


@guards("instructions_failed")
@pytest.mark.parametrize("is_reported", [True, False])
def test_fallback_decides_without_a_report_that_knows_better(
    voice: Tenant, perform: Perform, *, is_reported: bool
) -> None:
    attempt = answered(voice)
    lose_instructions(voice, attempt)
    assert not is_reported or report(perform, attempt, TECHNICAL) is None
    assert end(voice, attempt).reason is Reason.INSTRUCTIONS_FAILED
    retry = follower(voice, attempt)
    assert retry is not None
    assert retry.due_at == voice.now() + timedelta(minutes=15)
    assert booked(voice, attempt) == 0


@pytest.mark.parametrize("is_live", [True, False])
def test_notified_failure_of_a_reported_call_is_noted(voice: Tenant, perform: Perform, *, is_live: bool) -> None:
    """The request for the fallback was lost, and a poll finds the error."""
    attempt = answered(voice)
    assert report(perform, attempt, FINISHED) is None
    if not is_live:
        voice.take(voice.attempt(attempt.id), ProofMissing())
    apply_news(voice, attempt, CallStatus.COMPLETED, instructions_failed=True)
    ended = voice.attempt(attempt.id)
    assert (ended.reason, ended.instructions_failed) == (Reason.ANSWERED, True)


# ---- the end of a call back is lost


@guards("late_call_back")
def test_named_time_is_kept_when_its_call_is_proven_late(voice: Tenant, perform: Perform) -> None:
    attempt = lose_the_end(voice, perform)
    end(voice, attempt)
    back = follower(voice, attempt)
    assert back is not None
    assert (back.state, back.due_at.isoformat()) == (AttemptState.PENDING, IN_UTC)
    assert (back.chain_id, back.call_backs) == (attempt.chain_id, 1)
    assert (voice.interview_status(attempt), booked(voice, attempt)) == (InterviewStatus.SCHEDULED, 1)
    end(voice, attempt)
    assert follower(voice, attempt) == back, "the proof comes again"


def test_proof_that_the_call_failed_plans_no_call_back(voice: Tenant, perform: Perform) -> None:
    attempt = lose_the_end(voice, perform)
    apply_news(voice, attempt, CallStatus.BUSY)
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, InterviewStatus.FAILED)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE interviews SET status = 'CANCELLED', finished_at = :at",
        "UPDATE interviews SET status = 'COMPLETED', finished_at = :at",
        "UPDATE interviews SET deleted_at = :at",
        "UPDATE candidates SET gdpr_expiry_date = '2026-04-02'",
    ],
)
def test_late_proof_plans_no_impossible_call_back(voice: Tenant, perform: Perform, change: str) -> None:
    attempt = lose_the_end(voice, perform)
    change_now(voice, change)
    before = voice.interview_status(attempt)
    end(voice, attempt)
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, before)


@guards("newer_call")
@pytest.mark.parametrize("reason", [Reason.DECLINED, Reason.INVALID_NUMBER])
def test_late_proof_plans_no_call_back_after_a_newer_call(
    voice: Tenant, perform: Perform, now: TestClock, reason: Reason
) -> None:
    attempt = lose_the_end(voice, perform)
    voice.take(a_newer_call(voice, perform, now, attempt), Ended(reason=reason, ended_at=voice.now()))
    end(voice, attempt)
    assert (pending_times(voice, attempt), voice.interview_status(attempt)) == ([], InterviewStatus.FAILED)


@pytest.mark.parametrize("is_newer_first", [True, False])
def test_newest_named_time_counts_when_two_calls_are_proven_late(
    voice: Tenant, perform: Perform, now: TestClock, *, is_newer_first: bool
) -> None:
    attempt = lose_the_end(voice, perform)
    newer = a_newer_call(voice, perform, now, attempt)
    assert report(perform, newer, CALL_BACK, "2026-04-05T10:00:00") is None
    newer = voice.take(voice.attempt(newer.id), ProofMissing())
    for each in (newer, attempt) if is_newer_first else (attempt, newer):
        end(voice, each)
    assert pending_times(voice, attempt) == ["2026-04-05T08:00:00+00:00"]


# ---- a live call that was found late


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (FINISHED, InterviewStatus.COMPLETED),
        (SCREENED, InterviewStatus.FAILED),
        (TECHNICAL, InterviewStatus.FAILED),
    ],
)
def test_report_of_a_live_call_that_was_found_late_counts(
    voice: Tenant, perform: Perform, outcome: ConversationOutcome, status: InterviewStatus
) -> None:
    attempt = found_late(voice)
    assert report(perform, attempt, outcome) is None
    assert report(perform, attempt, outcome) is None, "the same again"
    proven = end(voice, attempt)
    assert (proven.reason, proven.outcome, booked(voice, attempt)) == (Reason.ANSWERED, outcome, 1)
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, status)


def test_time_named_in_a_call_that_was_found_late_is_kept(voice: Tenant, perform: Perform) -> None:
    attempt = found_late(voice)
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    end(voice, attempt)
    assert pending_times(voice, attempt) == [IN_UTC]


def test_ringing_call_that_was_found_late_takes_no_report(voice: Tenant, perform: Perform) -> None:
    lost = an_attempt_of_unknown_outcome(voice)
    assert code(report(perform, see_leg(voice, lost), SCREENED)) == "CALL_NOT_ANSWERED"
