"""Reported conversations and late news of their calls: nothing is overruled, lost or done twice."""

from datetime import timedelta

import pytest

from scheduler.domain.attempt import (
    Attempt,
    AttemptState,
    ConversationOutcome,
    Decided,
    Decision,
    Ended,
    LegSeen,
    Placed,
    Progressed,
    ProofMissing,
    Reason,
)
from scheduler.domain.call import AnsweredBy, CallProgress, CallStatus
from scheduler.domain.command import (
    InvokeAttempt,
)
from scheduler.domain.interview import InterviewStatus
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    Tenant,
    a_number,
    a_placed_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
)
from tests.use_cases.conftest import Perform, answered, apply_news, change_now, end
from tests.use_cases.conversations.conftest import (
    CALL_BACK,
    SCREENED,
    TOMORROW_AT_SIX,
    booked,
    code,
    follower,
    report,
)


def test_late_proof_never_adds_an_attempt_for_a_report(voice: Tenant, perform: Perform) -> None:
    lost = an_attempt_of_unknown_outcome(voice)
    assert code(report(perform, lost, SCREENED)) == "CALL_NOT_ANSWERED"
    assert perform(InvokeAttempt(interview_id=lost.interview_id)).answer is not None
    apply_news(voice, lost, CallStatus.COMPLETED, duration=timedelta(seconds=30))
    proven = voice.attempt(lost.id)
    assert (proven.reason, proven.outcome_until) == (Reason.ANSWERED, None)
    assert code(report(perform, proven, CALL_BACK, TOMORROW_AT_SIX)) == "OUTCOME_REPORTED"
    states = [each.state for each in voice.attempts(lost.interview_id)]
    assert states.count(AttemptState.PENDING) == 0


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
    attempt = answered(voice)
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    voice.take(voice.attempt(attempt.id), ProofMissing())
    assert perform(InvokeAttempt(interview_id=attempt.interview_id)).answer is not None
    invoked = follower(voice, attempt)
    end(voice, attempt)
    assert (follower(voice, attempt), voice.attempt(attempt.id).reason) == (invoked, Reason.ANSWERED)
    assert voice.interview_status(attempt) is InterviewStatus.SCHEDULED


# ---- the voice server fails in a conversation that has reported


def lose_instructions(tenant: Tenant, attempt: Attempt) -> None:
    """The carrier requests the fallback of a call in progress."""
    tenant.take(tenant.attempt(attempt.id), Progressed(rank=CallProgress.ANSWERED, instructions_failed=True))


@guards("reported_outcome")
@pytest.mark.parametrize("is_reported_first", [True, False])
@pytest.mark.parametrize(
    ("outcome", "at", "status"),
    [
        (ConversationOutcome.FINISHED, None, InterviewStatus.COMPLETED),
        (ConversationOutcome.CALL_BACK, TOMORROW_AT_SIX, InterviewStatus.SCHEDULED),
        (ConversationOutcome.OPTED_OUT, None, InterviewStatus.CANCELLED),
        (ConversationOutcome.WRONG_PERSON, None, InterviewStatus.FAILED),
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
    next_one = follower(voice, attempt)
    due = None if next_one is None else next_one.due_at.isoformat()
    assert due == ("2026-04-03T16:00:00+00:00" if at else None)


@guards("instructions_failed")
@pytest.mark.parametrize("is_reported", [True, False])
def test_fallback_decides_without_a_report_that_knows_better(
    voice: Tenant, perform: Perform, *, is_reported: bool
) -> None:
    attempt = answered(voice)
    lose_instructions(voice, attempt)
    assert is_reported is False or report(perform, attempt, ConversationOutcome.TECHNICAL) is None
    assert end(voice, attempt).reason is Reason.INSTRUCTIONS_FAILED
    retry = follower(voice, attempt)
    assert retry is not None
    assert retry.due_at == voice.now() + timedelta(minutes=15)
    assert booked(voice, attempt) == 0


@guards("technical_outcome")
def test_technical_failure_is_no_verdict_of_a_machine(voice: Tenant, perform: Perform) -> None:
    attempt = voice.take(
        a_placed_attempt(voice), Progressed(rank=CallProgress.ANSWERED, answered_by=AnsweredBy.MACHINE)
    )
    assert report(perform, attempt, ConversationOutcome.TECHNICAL) is None
    assert end(voice, attempt).reason is Reason.ANSWERED


@pytest.mark.parametrize("is_live", [True, False])
def test_notified_failure_of_a_reported_call_is_noted(voice: Tenant, perform: Perform, *, is_live: bool) -> None:
    """The request for the fallback was lost, and a poll finds the error."""
    attempt = answered(voice)
    assert report(perform, attempt, ConversationOutcome.FINISHED) is None
    if not is_live:
        voice.take(voice.attempt(attempt.id), ProofMissing())
    apply_news(voice, attempt, CallStatus.COMPLETED, instructions_failed=True)
    ended = voice.attempt(attempt.id)
    assert (ended.reason, ended.instructions_failed) == (Reason.ANSWERED, True)


# ---- the end of a call back is lost


def lose_the_end(tenant: Tenant, perform: Perform) -> Attempt:
    """The person names a time during the call, whose end no news reports."""
    attempt = answered(tenant)
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    attempt = tenant.take(tenant.attempt(attempt.id), ProofMissing())
    assert (follower(tenant, attempt), tenant.interview_status(attempt)) == (None, InterviewStatus.FAILED)
    return attempt


@guards("late_call_back")
def test_named_time_is_kept_when_its_call_is_proven_late(voice: Tenant, perform: Perform) -> None:
    attempt = lose_the_end(voice, perform)
    end(voice, attempt)
    back = follower(voice, attempt)
    assert back is not None
    assert (back.state, back.due_at.isoformat()) == (AttemptState.PENDING, "2026-04-03T16:00:00+00:00")
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


@guards("decided_outcome")
@pytest.mark.parametrize("decision", [Decision.RANG, Decision.LEFT])
def test_late_proof_plans_no_call_back_after_a_decision(voice: Tenant, perform: Perform, decision: Decision) -> None:
    attempt = lose_the_end(voice, perform)
    voice.take(attempt, Decided(decision=decision, reason="the recording says so"))
    end(voice, attempt)
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, InterviewStatus.FAILED)


def a_newer_call(tenant: Tenant, perform: Perform, now: TestClock, earlier: Attempt) -> Attempt:
    """A call of the same interview that a client has invoked, after the gap of the line. It is answered."""
    now.move(timedelta(minutes=1))
    assert perform(InvokeAttempt(interview_id=earlier.interview_id)).answer is not None
    [pending] = [each for each in tenant.attempts(earlier.interview_id) if each.state is AttemptState.PENDING]
    now.move(timedelta(hours=2))
    [claim] = tenant.dial.claim([pending.id]).claimed
    placed = tenant.take(claim.attempt, Placed(call_sid=a_sid(), look_at=tenant.now()))
    return tenant.take(placed, Progressed(rank=CallProgress.ANSWERED))


def pending_times(tenant: Tenant, attempt: Attempt) -> list[str]:
    found = tenant.attempts(attempt.interview_id)
    return [each.due_at.isoformat() for each in found if each.state is AttemptState.PENDING]


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


def found_late(tenant: Tenant) -> Attempt:
    lost = an_attempt_of_unknown_outcome(tenant)
    return tenant.take(lost, LegSeen(call_sid=a_sid(), rank=CallProgress.ANSWERED, look_at=tenant.now()))


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (ConversationOutcome.FINISHED, InterviewStatus.COMPLETED),
        (SCREENED, InterviewStatus.FAILED),
        (ConversationOutcome.TECHNICAL, InterviewStatus.FAILED),
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
    assert pending_times(voice, attempt) == ["2026-04-03T16:00:00+00:00"]


def test_ringing_call_that_was_found_late_takes_no_report(voice: Tenant, perform: Perform) -> None:
    lost = an_attempt_of_unknown_outcome(voice)
    ringing = voice.take(lost, LegSeen(call_sid=a_sid(), rank=CallProgress.RINGING, look_at=voice.now()))
    assert code(report(perform, ringing, SCREENED)) == "CALL_NOT_ANSWERED"
