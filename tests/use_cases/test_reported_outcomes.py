"""Outcomes that conversations report: what follows, and that at most one attempt does."""

from datetime import timedelta

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Progressed, ProofMissing, Reason
from scheduler.domain.call import Accepted, AnsweredBy, CallProgress, CallStatus
from scheduler.domain.command import (
    Command,
    DeleteAttempt,
    DeleteInterview,
    InvokeAttempt,
    Refusal,
    ReportOutcome,
    Request,
)
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.conversations import MOST_CALL_BACKS
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.submit import Submit
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
)
from tests.use_cases.conftest import Perform, a_voice_key, answered, apply_news, end

FINISHED, CALL_BACK, SCREENED = (
    ConversationOutcome.FINISHED,
    ConversationOutcome.CALL_BACK,
    ConversationOutcome.SCREENED,
)
TOMORROW_AT_SIX = "2026-04-03T18:00:00"


@pytest.fixture
def perform(voice: Tenant, submit: Submit, apply: Apply) -> Perform:
    """Submit a request of the company, apply it, and return the command with its answer."""

    def performed(request: Request) -> Command:
        command = submit.command(voice.principal, None, request, idempotency_key=None, request_hash=b"hash").command
        apply.command(command.id)
        return submit.find(voice.principal, str(command.id))

    return performed


def report(
    perform: Perform, attempt: Attempt, outcome: ConversationOutcome, call_back_at: str | None = None
) -> Refusal | None:
    request = ReportOutcome(
        interview_id=attempt.interview_id, attempt_id=attempt.id, outcome=outcome, call_back_at=call_back_at
    )
    answer = perform(request).answer
    assert answer is not None
    return answer.refusal


def code(refusal: Refusal | None) -> str | None:
    return None if refusal is None else refusal.code


def follower(tenant: Tenant, attempt: Attempt) -> Attempt | None:
    """The attempt after this one, of which there is at most one."""
    later = [each for each in tenant.attempts(attempt.interview_id) if each.id != attempt.id]
    assert len(later) <= 1
    return later[0] if later else None


def booked(tenant: Tenant, attempt: Attempt) -> int:
    return int(tenant.ask("SELECT count(*) FROM usage WHERE attempt_id = :id", id=attempt.id)[0][0])


# ---- without a report


def test_without_a_voice_key_an_answered_call_completes_at_once(retrying: Tenant) -> None:
    a_voice_key(Tenant(**{**vars(retrying), "company_id": seed(retrying.database, retrying.now()).company_id}))
    ended = end(retrying, answered(retrying))
    assert retrying.interview_status(ended) is InterviewStatus.COMPLETED
    assert (ended.outcome, ended.outcome_until) == (None, None)
    assert retrying.history(ended.id) == ["created", "claimed", "placed", "progressed", "ended"]


@guards("awaited_with_a_key")
@pytest.mark.parametrize("column", ["revoked_at", "suspended_at", "expires_at"])
def test_a_key_that_may_not_report_makes_no_interview_wait(voice: Tenant, column: str) -> None:
    voice.change(f"UPDATE api_keys SET {column} = :now WHERE name = 'voice'", now=voice.now())
    assert voice.interview_status(end(voice, answered(voice))) is InterviewStatus.COMPLETED


def test_interview_waits_for_the_outcome_and_is_then_completed(
    voice: Tenant, settle: Settle, now: TestClock, explain: Explain
) -> None:
    ended = end(voice, answered(voice))
    assert (ended.state, ended.reason, booked(voice, ended)) == (AttemptState.COMPLETED, Reason.ANSWERED, 1)
    assert voice.interview_status(ended) is InterviewStatus.SCHEDULED
    assert explain.explanation_of(ended.id).waits_for == "the outcome of the conversation"
    now.move(voice.policy.outcome_wait - timedelta(seconds=1))
    settle.round()
    assert voice.interview_status(ended) is InterviewStatus.SCHEDULED
    now.move(timedelta(seconds=1))
    settle.round()
    settle.round()
    ended = voice.attempt(ended.id)
    assert voice.interview_status(ended) is InterviewStatus.COMPLETED
    assert (ended.outcome, ended.outcome_until, booked(voice, ended)) == (FINISHED, None, 1)
    assert voice.history(ended.id)[-3:] == ["ended", "outcome_awaited", "not_reported"]


@guards("awaited_outcome")
def test_interview_is_not_invoked_while_its_outcome_is_awaited(voice: Tenant, perform: Perform) -> None:
    ended = end(voice, answered(voice))
    answer = perform(InvokeAttempt(interview_id=ended.interview_id)).answer
    assert answer is not None
    assert code(answer.refusal) == "CALL_ATTEMPT_IN_PROGRESS"
    assert follower(voice, ended) is None


# ---- reports


@pytest.mark.parametrize("is_live", [True, False])
@pytest.mark.parametrize(
    ("outcome", "delay"),
    [
        (ConversationOutcome.SCREENED, timedelta(hours=4)),
        (ConversationOutcome.HUNG_UP_EARLY, timedelta(hours=2)),
        (ConversationOutcome.TECHNICAL, timedelta(minutes=5)),
    ],
)
def test_conversation_that_failed_is_retried(
    voice: Tenant, perform: Perform, outcome: ConversationOutcome, delay: timedelta, *, is_live: bool
) -> None:
    attempt = answered(voice)
    attempt = attempt if is_live else end(voice, attempt)
    assert report(perform, attempt, outcome) is None
    if is_live:
        assert follower(voice, attempt) is None, "nothing follows before the end of the call"
        end(voice, attempt)
    retry = follower(voice, attempt)
    assert retry is not None
    assert (retry.state, retry.retry_number, retry.call_backs) == (AttemptState.PENDING, 1, 0)
    ended = voice.attempt(attempt.id)
    assert ended.ended_at is not None
    assert retry.due_at == ended.ended_at + delay
    assert (ended.state, ended.reason, ended.outcome) == (AttemptState.COMPLETED, Reason.ANSWERED, outcome)
    assert voice.interview_status(attempt) is InterviewStatus.SCHEDULED
    assert booked(voice, attempt) == 1


@pytest.mark.parametrize("is_live", [True, False])
def test_finished_conversation_completes_its_interview(voice: Tenant, perform: Perform, *, is_live: bool) -> None:
    attempt = answered(voice)
    attempt = attempt if is_live else end(voice, attempt)
    assert report(perform, attempt, FINISHED) is None
    attempt = end(voice, attempt) if is_live else attempt
    assert voice.interview_status(attempt) is InterviewStatus.COMPLETED
    assert (follower(voice, attempt), booked(voice, attempt)) == (None, 1)


@pytest.mark.parametrize("is_live", [True, False])
def test_person_is_called_back_at_the_time_on_their_clock(voice: Tenant, perform: Perform, *, is_live: bool) -> None:
    attempt = answered(voice)
    attempt = attempt if is_live else end(voice, attempt)
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    attempt = end(voice, attempt) if is_live else attempt
    back = follower(voice, attempt)
    assert back is not None
    assert back.due_at.isoformat() == "2026-04-03T16:00:00+00:00", "six in the evening in Bratislava"
    assert (back.schedule.requested, back.chain_id) == (TOMORROW_AT_SIX, attempt.chain_id)
    assert (back.retry_number, back.call_backs) == (1, 1)
    assert voice.interview_status(attempt) is InterviewStatus.SCHEDULED


@guards("call_backs")
def test_chain_has_three_call_backs_and_keeps_its_retries(voice: Tenant, perform: Perform, now: TestClock) -> None:
    attempt = answered(voice)
    for _ in range(MOST_CALL_BACKS):
        at = (voice.now() + timedelta(minutes=30)).isoformat()
        assert report(perform, attempt, CALL_BACK, at) is None
        end(voice, attempt)
        back = voice.attempts(attempt.interview_id)[-1]
        now.move(back.due_at - now())
        [claim] = voice.dial.claim([back.id]).claimed
        voice.dial.record([(claim.attempt, Accepted(call_sid=a_sid()))])
        attempt = answered(voice, voice.attempt(back.id))
    assert code(report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX)) == "TOO_MANY_CALL_BACKS"
    assert report(perform, attempt, SCREENED) is None
    end(voice, attempt)
    retry = voice.attempts(attempt.interview_id)[-1]
    assert (retry.state, retry.retry_number, retry.call_backs) == (AttemptState.PENDING, 4, 3)


@pytest.mark.parametrize(
    ("at", "refused_with"),
    [
        ("2026-04-03T21:00:00", "OUTSIDE_CALL_TIME_INTERVAL"),
        ("2026-04-01T12:00:00", "SCHEDULE_IN_PAST"),
        ("2026-06-03T12:00:00", "SCHEDULE_TOO_FAR"),
        ("at six", "INVALID_DATE_FORMAT"),
    ],
)
def test_impossible_time_is_refused_and_changes_nothing(
    voice: Tenant, perform: Perform, at: str, refused_with: str
) -> None:
    attempt = answered(voice)
    refusal = report(perform, attempt, CALL_BACK, at)
    assert refusal is not None
    assert refusal.code == refused_with
    if refused_with == "OUTSIDE_CALL_TIME_INTERVAL":
        assert refusal.details["nextAllowedScheduledAt"] == "2026-04-04T08:00:00"
        assert report(perform, attempt, CALL_BACK, refusal.details["nextAllowedScheduledAt"]) is None
    else:
        assert voice.attempt(attempt.id) == attempt


def test_default_expiry_moves_with_a_call_back(voice: Tenant, perform: Perform) -> None:
    attempt = answered(voice)
    in_two_weeks = "2026-04-16T12:00:00"
    assert report(perform, attempt, CALL_BACK, in_two_weeks) is None
    end(voice, attempt)
    back = follower(voice, attempt)
    assert back is not None
    assert back.expires_at == back.due_at + timedelta(days=7)


def test_explicit_expiry_refuses_a_call_back_after_it(voice: Tenant, perform: Perform) -> None:
    attempt = answered(voice)
    voice.change("UPDATE interviews SET expires_by_default = false")
    assert code(report(perform, attempt, CALL_BACK, "2026-04-16T12:00:00")) == "NO_OPENING_BEFORE_EXPIRY"


def test_same_report_again_gets_the_first_answer(voice: Tenant, perform: Perform, now: TestClock) -> None:
    attempt = answered(voice)
    request = ReportOutcome(
        interview_id=attempt.interview_id, attempt_id=attempt.id, outcome=CALL_BACK, call_back_at=TOMORROW_AT_SIX
    )
    first = perform(request).answer
    now.move(timedelta(seconds=20))
    assert perform(request).answer == first
    end(voice, attempt)
    assert perform(request).answer == first
    assert follower(voice, attempt) is not None


def test_another_report_is_refused_with_the_first(voice: Tenant, perform: Perform) -> None:
    attempt = answered(voice)
    assert report(perform, attempt, SCREENED) is None
    refusal = report(perform, attempt, FINISHED)
    assert (code(refusal), refusal and refusal.details["outcome"]) == ("OUTCOME_REPORTED", "SCREENED")
    end(voice, attempt)
    assert code(report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX)) == "OUTCOME_REPORTED"


def test_report_after_the_wait_is_only_the_assumed_one(
    voice: Tenant, perform: Perform, settle: Settle, now: TestClock
) -> None:
    attempt = end(voice, answered(voice))
    now.move(voice.policy.outcome_wait)
    settle.round()
    assert report(perform, attempt, FINISHED) is None
    refusal = report(perform, attempt, SCREENED)
    assert (code(refusal), refusal and refusal.details["outcome"]) == ("OUTCOME_REPORTED", "FINISHED")
    assert follower(voice, attempt) is None


@guards("report_before_answer")
def test_report_before_the_answer_is_refused(voice: Tenant, perform: Perform) -> None:
    ringing = a_placed_attempt(voice)
    assert code(report(perform, ringing, SCREENED)) == "CALL_NOT_ANSWERED"
    assert voice.attempt(ringing.id) == ringing


@pytest.mark.parametrize("status", [CallStatus.BUSY, CallStatus.NO_ANSWER])
def test_call_that_no_person_answered_has_no_outcome(voice: Tenant, perform: Perform, status: CallStatus) -> None:
    attempt = end(voice, a_placed_attempt(voice), status)
    assert code(report(perform, attempt, SCREENED)) == "CALL_NOT_ANSWERED"
    assert follower(voice, attempt) is not None


@guards("reported_outcome")
def test_report_decides_before_the_carriers_verdict_of_a_machine(voice: Tenant, perform: Perform) -> None:
    attempt = voice.take(
        a_placed_attempt(voice), Progressed(rank=CallProgress.ANSWERED, answered_by=AnsweredBy.MACHINE)
    )
    assert report(perform, attempt, FINISHED) is None
    assert end(voice, attempt).reason is Reason.ANSWERED


# ---- what else happens to the interview


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


def test_report_of_a_deleted_interview_or_attempt_is_refused(
    voice: Tenant, perform: Perform, settle: Settle, now: TestClock
) -> None:
    first, second = (end(voice, answered(voice)) for _ in range(2))
    perform(DeleteInterview(interview_id=first.interview_id))
    perform(DeleteAttempt(interview_id=second.interview_id, attempt_id=second.id))
    for each in (first, second):
        assert code(report(perform, each, SCREENED)) == "RESOURCE_NOT_FOUND"
    now.move(voice.policy.outcome_wait)
    settle.round()
    assert voice.interview_status(first) is InterviewStatus.CANCELLED
    assert voice.interview_status(second) is InterviewStatus.COMPLETED
    assert follower(voice, first) is follower(voice, second) is None


def test_report_of_a_cancelled_interview_is_only_stored(voice: Tenant, perform: Perform) -> None:
    attempt = end(voice, answered(voice))
    voice.change("UPDATE interviews SET status = 'CANCELLED', finished_at = :now", now=voice.now())
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, InterviewStatus.CANCELLED)


def test_interview_fails_if_its_call_back_became_impossible(voice: Tenant, perform: Perform) -> None:
    attempt = answered(voice)
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    voice.change("UPDATE candidates SET gdpr_expiry_date = '2026-04-02'")
    end(voice, attempt)
    assert (follower(voice, attempt), voice.interview_status(attempt)) == (None, InterviewStatus.FAILED)


def test_call_that_outlasts_the_named_time_is_followed_at_once(voice: Tenant, perform: Perform, now: TestClock) -> None:
    attempt = answered(voice)
    soon = (voice.now() + timedelta(minutes=1)).isoformat()
    assert report(perform, attempt, CALL_BACK, soon) is None
    now.move(timedelta(minutes=5))
    end(voice, attempt)
    back = follower(voice, attempt)
    assert back is not None
    assert back.due_at == voice.now()


@guards("one_follows")
def test_report_adds_no_attempt_next_to_an_open_one(voice: Tenant, perform: Perform) -> None:
    """No rule leads to this. An open attempt in the interview must still never get a second one."""
    attempt = end(voice, answered(voice))
    open_one = a_pending_attempt(voice, interview_id=attempt.interview_id)
    assert report(perform, attempt, SCREENED) is None
    assert follower(voice, attempt) == open_one
    assert voice.interview_status(attempt) is InterviewStatus.SCHEDULED


# ---- news after the end


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


# ---- numbers that are not called again


WRONG_PERSON, OPTED_OUT = ConversationOutcome.WRONG_PERSON, ConversationOutcome.OPTED_OUT


def another_interview(tenant: Tenant, attempt: Attempt) -> Attempt:
    """A call to the same candidate in another interview, due after the gap of the line."""
    other = a_pending_attempt(tenant, a_number(), due_at=tenant.now() + timedelta(hours=1))
    tenant.change(
        "UPDATE interviews SET candidate_id = (SELECT candidate_id FROM interviews WHERE id = :like) WHERE id = :id",
        like=attempt.interview_id,
        id=other.interview_id,
    )
    tenant.change("UPDATE attempts SET number_hash = :hash WHERE id = :id", hash=attempt.number_hash, id=other.id)
    return tenant.attempt(other.id)


def another_candidate(tenant: Tenant, attempt: Attempt) -> Attempt:
    """A call to another candidate with the same number."""
    [[number]] = tenant.ask(
        "SELECT phone_number FROM candidates p JOIN interviews i ON i.candidate_id = p.id WHERE i.id = :id",
        id=attempt.interview_id,
    )
    return a_pending_attempt(tenant, number, due_at=tenant.now() + timedelta(hours=1))


def blocked_by(explain: Explain, attempt: Attempt) -> list[Rule]:
    return [each.rule for each in explain.explanation_of(attempt.id).blocks]


@guards("look_refused")
@pytest.mark.parametrize("is_live", [True, False])
@pytest.mark.parametrize(
    ("outcome", "rule", "status"),
    [
        (WRONG_PERSON, Rule.WRONG_NUMBER, InterviewStatus.FAILED),
        (OPTED_OUT, Rule.OPTED_OUT, InterviewStatus.CANCELLED),
    ],
)
def test_number_is_not_called_again(
    voice: Tenant,
    perform: Perform,
    explain: Explain,
    now: TestClock,
    outcome: ConversationOutcome,
    rule: Rule,
    status: InterviewStatus,
    *,
    is_live: bool,
) -> None:
    attempt = answered(voice)
    attempt = attempt if is_live else end(voice, attempt)
    other, stranger = another_interview(voice, attempt), another_candidate(voice, attempt)
    assert rule not in blocked_by(explain, other)
    assert report(perform, attempt, outcome) is None
    attempt = end(voice, attempt) if is_live else attempt
    assert (voice.interview_status(attempt), follower(voice, attempt)) == (status, None)
    assert booked(voice, attempt) == 1
    assert rule in blocked_by(explain, other)
    assert (rule in blocked_by(explain, stranger)) is (outcome is OPTED_OUT)
    now.move(timedelta(hours=2))
    for each in (other, stranger):
        is_refused = each is other or outcome is OPTED_OUT
        [claim] = voice.dial.claim([each.id]).claimed
        assert (voice.dial.last_look(claim.attempt) is None) is is_refused
        if is_refused:
            held = voice.attempt(each.id)
            assert (held.state, held.due_at) == (AttemptState.PENDING, now() + timedelta(days=1))


def test_refusal_of_a_number_does_not_concern_others(
    voice: Tenant, perform: Perform, explain: Explain, other: Tenant
) -> None:
    """Another company may call the number, and the candidate may be called at another number."""
    attempt = answered(voice)
    moved = another_interview(voice, attempt)
    voice.change("UPDATE attempts SET number_hash = :hash WHERE id = :id", hash=b"another", id=moved.id)
    assert report(perform, attempt, OPTED_OUT) is None
    foreign = another_candidate(other, attempt)
    for each in (moved, foreign):
        assert Rule.OPTED_OUT not in blocked_by(explain, each)


@pytest.mark.parametrize(
    ("outcome", "status", "state"),
    [
        # It rings once the candidate has another number.
        pytest.param(WRONG_PERSON, InterviewStatus.SCHEDULED, AttemptState.PENDING, id="wrong person"),
        pytest.param(OPTED_OUT, InterviewStatus.CANCELLED, AttemptState.CANCELLED, id="opted out"),
    ],
)
def test_late_callback_of_a_refused_number_rings_no_phone(
    voice: Tenant,
    perform: Perform,
    now: TestClock,
    outcome: ConversationOutcome,
    status: InterviewStatus,
    state: AttemptState,
) -> None:
    """The end of the call is lost, and a client invokes another one before the end is proven."""
    attempt = answered(voice)
    assert report(perform, attempt, outcome) is None
    voice.take(voice.attempt(attempt.id), ProofMissing())
    assert follower(voice, attempt) is None
    perform(InvokeAttempt(interview_id=attempt.interview_id))
    invoked = follower(voice, attempt)
    assert invoked is not None
    now.move(timedelta(hours=2))
    [claim] = voice.dial.claim([invoked.id]).claimed
    assert voice.dial.last_look(claim.attempt) is None
    end(voice, voice.attempt(attempt.id))
    assert (voice.interview_status(attempt), voice.attempt(invoked.id).state) == (status, state)
    assert booked(voice, attempt) == 1
    now.move(timedelta(days=1))
    for held in voice.dial.claim([invoked.id]).claimed:
        assert voice.dial.last_look(held.attempt) is None
