"""Calls back whose calls are proven late: nothing that was decided in the meantime is overruled."""

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.domain.attempt import ConversationOutcome, Decided, Decision, ProofMissing, Reason
from scheduler.domain.call import CallProgress, CallStatus
from scheduler.domain.command import (
    CancelAttempt,
    DecideOutcome,
    DeleteAttempt,
)
from scheduler.domain.interview import InterviewStatus
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.apply_batches import ApplyBatches
from scheduler.use_cases.resources.batches import Batches
from scheduler.use_cases.submit import Submit
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    ApiWriter,
    Reach,
    RecordingHints,
    Tenant,
    a_number,
    an_attempt_of_unknown_outcome,
)
from tests.use_cases.conftest import (
    Perform,
    answered,
    apply_news,
    candidate_of,
    end,
    performing,
    reads_notifications,
    see_leg,
)
from tests.use_cases.conversations.conftest import (
    CALL_BACK,
    FINISHED,
    IN_UTC,
    OPTED_OUT,
    TOMORROW_AT_SIX,
    WRONG_PERSON,
    a_newer_call,
    answered_late,
    booked,
    code,
    follower,
    found_late,
    invoked,
    lose_the_end,
    pending_times,
    placed,
    refusal_of,
    report,
)
from tests.use_cases.test_apply import a_wish
from tests.use_cases.test_apply_batches import cancel, stored

SHORT = timedelta(seconds=10)
LATENESS = pytest.mark.parametrize(
    "late",
    [
        pytest.param(timedelta(), marks=guards("late_call_back")),
        pytest.param(timedelta.resolution, marks=guards("named_time_over")),
    ],
)
"""Of late proof, after the time that the person named."""


@guards("decided_outcome")
@pytest.mark.parametrize("decision", [Decision.RANG, Decision.LEFT])
@pytest.mark.parametrize(
    "first",
    ["nothing", "ringing", pytest.param("fallback", marks=guards("reported_outcome")), "in progress", "short"],
)
def test_decision_that_no_call_follows_holds(voice: Tenant, perform: Perform, decision: Decision, first: str) -> None:
    """Whatever news precede the proof: they are late, or the operator did not know of the live call."""
    attempt = lose_the_end(voice, perform)
    voice.take(attempt, Decided(decision=decision, reason="the recording says so"))
    match first:
        case "fallback":
            apply_news(voice, attempt, CallStatus.ANSWERED, instructions_failed=True)
        case "ringing" | "in progress":
            rank = CallProgress.RINGING if first == "ringing" else CallProgress.ANSWERED
            see_leg(voice, voice.attempt(attempt.id), rank)
        case "short":
            apply_news(reads_notifications(voice), attempt, CallStatus.COMPLETED, duration=SHORT)
            assert voice.attempt(attempt.id).decision is decision
    end(voice, attempt)
    assert (voice.attempt(attempt.id).reason, booked(voice, attempt)) == (Reason.ANSWERED, 1)
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, InterviewStatus.FAILED)


def test_named_time_is_kept_after_a_wrong_decision(voice: Tenant, perform: Perform) -> None:
    """The operator decided that the phone did not ring. Then the call is found, and replaces the invoked one."""
    lost = an_attempt_of_unknown_outcome(voice)
    command = DecideOutcome(
        interview_id=lost.interview_id, attempt_id=lost.id, operator="jana", decision=Decision.DID_NOT_RING, reason="-"
    )
    assert refusal_of(perform(command)) is None
    seen = answered_late(voice, voice.attempt(lost.id))
    assert report(perform, seen, CALL_BACK, TOMORROW_AT_SIX) is None
    end(voice, seen)
    assert pending_times(voice, lost) == [IN_UTC]


@guards("repeated_conversation")
@pytest.mark.parametrize("outcome", [FINISHED, OPTED_OUT, WRONG_PERSON])
def test_call_whose_conversation_has_reported_is_not_repeated(
    voice: Tenant, perform: Perform, outcome: ConversationOutcome
) -> None:
    """An operator who finds no call at the carrier is wrong, and a new number would pass the last look."""
    attempt = answered(voice)
    assert report(perform, attempt, outcome) is None
    attempt = voice.take(voice.attempt(attempt.id), ProofMissing())
    command = DecideOutcome(
        interview_id=attempt.interview_id,
        attempt_id=attempt.id,
        operator="jana",
        decision=Decision.DID_NOT_RING,
        reason="-",
    )
    assert code(refusal_of(perform(command))) == "OUTCOME_REPORTED"
    assert (follower(voice, attempt), voice.attempt(attempt.id).decision) == (None, None)


@pytest.mark.parametrize("decision", [Decision.RANG, Decision.LEFT])
def test_decision_holds_against_a_report_after_the_late_end(
    voice: Tenant, perform: Perform, decision: Decision
) -> None:
    lost = voice.take(an_attempt_of_unknown_outcome(voice), Decided(decision=decision, reason="the recording says so"))
    attempt = answered_late(voice, lost)
    end(voice, attempt)
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    proven = voice.attempt(attempt.id)
    assert (proven.reason, proven.outcome) == (Reason.ANSWERED, CALL_BACK)
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, InterviewStatus.FAILED)


def test_cancelled_call_holds_against_a_report_after_a_late_end(voice: Tenant, perform: Perform) -> None:
    lost = an_attempt_of_unknown_outcome(voice)
    pending = invoked(voice, perform, lost)
    of_operator = CancelAttempt(interview_id=lost.interview_id, attempt_id=pending.id, operator="jana", reason="-")
    assert refusal_of(perform(of_operator)) is None
    attempt = answered_late(voice, lost)
    end(voice, attempt)
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    assert (pending_times(voice, lost), voice.interview_status(lost)) == ([], InterviewStatus.FAILED)


@LATENESS
def test_late_proof_keeps_no_named_time_that_is_over(
    voice: Tenant, perform: Perform, now: TestClock, late: timedelta
) -> None:
    attempt = lose_the_end(voice, perform)
    named = voice.attempt(attempt.id).call_back
    assert named is not None
    now.instant = named.earliest_at + late
    end(voice, attempt)
    kept = not late
    assert pending_times(voice, attempt) == ([named.earliest_at.isoformat()] if kept else [])
    assert voice.interview_status(attempt) is (InterviewStatus.SCHEDULED if kept else InterviewStatus.FAILED)


@guards("named_clock")
@LATENESS
def test_late_proof_judges_the_named_time_on_the_present_clock(
    voice: Tenant, perform: Perform, hints: RecordingHints, now: TestClock, late: timedelta
) -> None:
    attempt = lose_the_end(voice, perform)
    reach = Reach(phone_number=a_number(), timezone="Asia/Tokyo")
    ApiWriter(tenant=voice, hints=hints).change_reach(voice.principal, candidate_of(voice, attempt), reach)
    six_in_tokyo = datetime(2026, 4, 3, 9, tzinfo=UTC)
    now.instant = six_in_tokyo + late
    end(voice, attempt)
    assert pending_times(voice, attempt) == ([] if late else [six_in_tokyo.isoformat()])


@guards("cancelled_call", "newer_call")
@pytest.mark.parametrize("is_of_operator", [True, False])
def test_late_proof_plans_no_call_back_after_a_cancelled_call(
    voice: Tenant, perform: Perform, *, is_of_operator: bool
) -> None:
    attempt = lose_the_end(voice, perform)
    pending = invoked(voice, perform, attempt)
    of_operator = CancelAttempt(interview_id=attempt.interview_id, attempt_id=pending.id, operator="jana", reason="-")
    of_client = DeleteAttempt(interview_id=attempt.interview_id, attempt_id=pending.id)
    assert refusal_of(perform(of_operator if is_of_operator else of_client)) is None
    end(voice, attempt)
    assert pending_times(voice, attempt) == []


def test_late_proof_keeps_a_named_time_after_a_replaced_call(voice: Tenant, perform: Perform) -> None:
    """The invoked call was not cancelled by a person: the lost call was found, so it did not ring."""
    attempt = lose_the_end(voice, perform)
    invoked(voice, perform, attempt)
    answered_late(voice, voice.attempt(attempt.id))
    end(voice, attempt)
    assert pending_times(voice, attempt) == [IN_UTC]


@guards("batch_unproven")
@pytest.mark.parametrize(
    ("is_live", "is_over"),
    [(True, False), (False, False), pytest.param(True, True, marks=guards("late_report"))],
)
def test_late_proof_plans_no_call_back_of_a_cancelled_batch(
    voice: Tenant,
    perform: Perform,
    batches: Batches,
    hints: RecordingHints,
    now: TestClock,
    *,
    is_live: bool,
    is_over: bool,
) -> None:
    bulk = ApplyBatches(voice.context, hints)
    batch = stored(batches, voice, [a_wish(voice)])
    bulk.turn()
    [[attempt_id]] = voice.ask("SELECT id FROM attempts WHERE company_id = :id", id=voice.company_id)
    pending = voice.attempt(attempt_id)
    now.move(max(pending.due_at - now(), timedelta()))
    attempt = answered(voice, placed(voice, pending))
    assert is_live or report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    attempt = voice.take(voice.attempt(attempt_id), ProofMissing())
    if is_live:
        attempt = answered_late(voice, attempt)
    if is_over:  # its report comes after its end
        attempt = end(voice, attempt)
    assert voice.interview_status(attempt) is InterviewStatus.FAILED
    cancel(batches, voice, batch)
    assert not is_live or report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    end(voice, attempt)
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, InterviewStatus.CANCELLED)
    assert booked(voice, attempt) == 1


@pytest.mark.parametrize("is_live", [True, False])
def test_late_proof_calls_no_deleted_person_back(
    voice: Tenant, perform: Perform, hints: RecordingHints, *, is_live: bool
) -> None:
    attempt = lose_the_end(voice, perform)
    if is_live:
        answered_late(voice, attempt)
    ApiWriter(tenant=voice, hints=hints).delete_candidate(voice.principal, candidate_of(voice, attempt))
    end(voice, attempt)
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, InterviewStatus.FAILED)


# ---- short calls are over when they are proven late


def test_short_late_end_disturbs_no_invoked_call(voice: Tenant, perform: Perform) -> None:
    """The carrier's notifications are still to be read, but the call is not live."""
    for outcome in (CALL_BACK, None):
        attempt = lose_the_end(voice, perform) if outcome else an_attempt_of_unknown_outcome(voice)
        pending = invoked(voice, perform, attempt)
        apply_news(reads_notifications(voice), attempt, CallStatus.COMPLETED, duration=SHORT)
        assert follower(voice, attempt) == pending
        apply_news(
            reads_notifications(voice),
            attempt,
            CallStatus.COMPLETED,
            duration=SHORT,
            instructions_failed=outcome is None,
            token=None,
        )
        assert follower(voice, attempt) == pending
        assert voice.attempt(attempt.id).reason is (Reason.ANSWERED if outcome else Reason.INSTRUCTIONS_FAILED)
        assert voice.interview_status(attempt) is InterviewStatus.SCHEDULED


@guards("late_wait_alone", "successor")
def test_short_late_end_replaces_an_invoked_call_at_once(voice: Tenant, perform: Perform) -> None:
    """It would ring a person who has just spoken. Once the notifications are read, the call is known to be answered."""
    attempt = an_attempt_of_unknown_outcome(voice)
    invoked(voice, perform, attempt)
    apply_news(reads_notifications(voice), attempt, CallStatus.COMPLETED, duration=SHORT)
    apply_news(
        reads_notifications(voice), attempt, CallStatus.COMPLETED, duration=SHORT, instructions_failed=False, token=None
    )
    assert voice.attempt(attempt.id).reason is Reason.ANSWERED
    assert (pending_times(voice, attempt), voice.interview_status(attempt)) == ([], InterviewStatus.COMPLETED)


def test_report_after_a_short_late_end_has_it_polled_at_once(
    voice: Tenant, submit: Submit, hints: RecordingHints
) -> None:
    attempt = found_late(voice)
    read = {"duration": SHORT, "instructions_failed": False, "token": None}
    apply_news(reads_notifications(voice), attempt, CallStatus.COMPLETED, **read)
    assert voice.attempt(attempt.id).look_at == voice.now() + voice.policy.outcome_wait
    perform = performing(voice, submit, Apply(reads_notifications(voice).context, hints))
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    waiting = voice.attempt(attempt.id)
    assert (waiting.outcome, waiting.reason, waiting.look_at) == (CALL_BACK, Reason.OUTCOME_UNKNOWN, voice.now())
    apply_news(reads_notifications(voice), attempt, CallStatus.COMPLETED, **read)
    assert pending_times(voice, attempt) == [IN_UTC]


def test_short_late_end_raises_no_alarm_about_a_newer_call(voice: Tenant, perform: Perform, now: TestClock) -> None:
    attempt = lose_the_end(voice, perform)
    newer = a_newer_call(voice, perform, now, attempt)
    apply_news(reads_notifications(voice), attempt, CallStatus.COMPLETED, duration=SHORT)
    assert voice.line(newer)[0] == newer.id
    assert voice.attempt(attempt.id).look_at == now()
