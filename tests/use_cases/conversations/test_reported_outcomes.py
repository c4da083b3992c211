"""Outcomes that conversations report: what follows, and that at most one attempt does."""

from datetime import timedelta

import pytest

from scheduler.domain.attempt import AttemptState, ConversationOutcome, Reason
from scheduler.domain.call import AnsweredBy, CalleeClock, CallStatus, TimezoneSource
from scheduler.domain.command import (
    DeleteAttempt,
    DeleteInterview,
    InvokeAttempt,
    UpdateInterview,
)
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.conversations import MOST_CALL_BACKS
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.settle import Settle
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    ApiWriter,
    Reach,
    RecordingHints,
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_voice_key,
)
from tests.use_cases.conftest import Perform, answered, candidate_of, end
from tests.use_cases.conversations.conftest import (
    CALL_BACK,
    FINISHED,
    IN_UTC,
    SCREENED,
    TECHNICAL,
    TOMORROW_AT_SIX,
    booked,
    code,
    follower,
    placed,
    refusal_of,
    report,
    reporting,
)

IN_NEW_YORK = Reach(phone_number="+12125550123", timezone=None)
IN_KOLKATA = CalleeClock(source=TimezoneSource.ZONE, zones=("Asia/Kolkata",))


# ---- without a report


def test_without_a_voice_key_an_answered_call_completes_at_once(retrying: Tenant, other: Tenant) -> None:
    a_voice_key(other)
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
    invoke = InvokeAttempt(interview_id=ended.interview_id)
    assert code(refusal_of(perform(invoke))) == "CALL_ATTEMPT_IN_PROGRESS"
    assert follower(voice, ended) is None


# ---- reports


@pytest.mark.parametrize("is_live", [True, False])
@pytest.mark.parametrize(
    ("outcome", "delay"),
    [
        (SCREENED, timedelta(hours=4)),
        (ConversationOutcome.HUNG_UP_EARLY, timedelta(hours=2)),
        (TECHNICAL, timedelta(minutes=5)),
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
    assert back.due_at.isoformat() == IN_UTC
    assert (back.schedule.requested, back.chain_id) == (TOMORROW_AT_SIX, attempt.chain_id)
    assert (back.retry_number, back.call_backs) == (1, 1)
    assert voice.interview_status(attempt) is InterviewStatus.SCHEDULED


def test_no_stored_answer_has_the_number_of_a_call_back(voice: Tenant, perform: Perform) -> None:
    """The facts about a number stay in the row of the attempt."""
    attempt = end(voice, answered(voice))
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    called_back = voice.attempt(attempt.id).call_back
    assert called_back is not None
    assert called_back.number is not None
    command = perform(UpdateInterview(interview_id=attempt.interview_id, metadata={"a": "b"}))
    [[answer]] = voice.ask("SELECT answer FROM inbox WHERE id = :id", id=command.id)
    [stored] = [each for each in answer["snapshot"]["attempts"] if "call_back" in each]
    assert "due_at" in stored["call_back"]
    assert "number" not in stored["call_back"]


@guards("call_backs")
def test_chain_has_three_call_backs_and_keeps_its_retries(voice: Tenant, perform: Perform, now: TestClock) -> None:
    attempt = answered(voice)
    for _ in range(MOST_CALL_BACKS):
        at = (voice.now() + timedelta(minutes=30)).isoformat()
        assert report(perform, attempt, CALL_BACK, at) is None
        end(voice, attempt)
        back = voice.attempts(attempt.interview_id)[-1]
        now.move(back.due_at - now())
        attempt = answered(voice, placed(voice, back))
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
    request = reporting(attempt, CALL_BACK, TOMORROW_AT_SIX)
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


@guards("report_before_answer", "report_waits_an_hour")
def test_report_before_the_answer_is_refused(voice: Tenant, perform: Perform) -> None:
    ringing = a_placed_attempt(voice)
    assert code(report(perform, ringing, SCREENED)) == "CALL_NOT_ANSWERED"
    assert voice.attempt(ringing.id) == ringing


@pytest.mark.parametrize("status", [CallStatus.BUSY, CallStatus.NO_ANSWER])
def test_call_that_no_person_answered_has_no_outcome(voice: Tenant, perform: Perform, status: CallStatus) -> None:
    attempt = end(voice, a_placed_attempt(voice), status)
    assert code(report(perform, attempt, SCREENED)) == "CALL_NOT_ANSWERED"
    assert follower(voice, attempt) is not None


@pytest.mark.parametrize("outcome", [FINISHED, pytest.param(TECHNICAL, marks=guards("technical_outcome"))])
def test_report_decides_before_the_carriers_verdict_of_a_machine(
    voice: Tenant, perform: Perform, outcome: ConversationOutcome
) -> None:
    attempt = answered(voice, answered_by=AnsweredBy.MACHINE)
    assert report(perform, attempt, outcome) is None
    assert end(voice, attempt).reason is Reason.ANSWERED


# ---- what else happens to the interview


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


@guards("named_clock")
@pytest.mark.parametrize("reach", [Reach(phone_number=a_number(), timezone="America/New_York"), IN_NEW_YORK])
def test_named_time_is_kept_on_a_clock_that_changes_in_the_call(
    voice: Tenant, perform: Perform, hints: RecordingHints, reach: Reach
) -> None:
    """As that of a pending attempt, which is scheduled again."""
    attempt = answered(voice)
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    ApiWriter(tenant=voice, hints=hints).change_reach(voice.principal, candidate_of(voice, attempt), reach)
    end(voice, attempt)
    back = follower(voice, attempt)
    assert back is not None
    assert back.due_at.isoformat() == "2026-04-03T22:00:00+00:00", "six in the evening in New York"
    assert (back.schedule.requested, back.schedule.clock.zones) == (TOMORROW_AT_SIX, ("America/New_York",))


@pytest.mark.parametrize(
    ("at", "due"),
    [
        pytest.param(TOMORROW_AT_SIX, "2026-04-03T12:30:00+00:00", marks=guards("chain_zone")),
        pytest.param(f"{TOMORROW_AT_SIX}[u-ca=iso8601]", "2026-04-03T12:30:00+00:00", marks=guards("chain_zone")),
        (f"{TOMORROW_AT_SIX}[Europe/Bratislava]", "2026-04-03T16:00:00+00:00"),
        (f"{TOMORROW_AT_SIX}+02:00", "2026-04-03T16:00:00+00:00"),
        ("2026-04-03T16:00:00Z", "2026-04-03T16:00:00+00:00"),
    ],
)
def test_named_time_is_on_the_zone_that_a_client_named(voice: Tenant, perform: Perform, at: str, due: str) -> None:
    """The voice server sees that clock, and not that of the number."""
    attempt = answered(voice, a_placed_attempt(voice, clock=IN_KOLKATA))
    assert report(perform, attempt, CALL_BACK, at) is None
    assert report(perform, attempt, CALL_BACK, at) is None, "the same again"
    end(voice, attempt)
    back = follower(voice, attempt)
    assert back is not None
    assert back.due_at.isoformat() == due


@guards("chain_zone")
def test_impossible_time_is_judged_on_the_zone_of_the_chain(voice: Tenant, perform: Perform) -> None:
    attempt = answered(voice, a_placed_attempt(voice, clock=IN_KOLKATA))
    assert code(report(perform, attempt, CALL_BACK, "at six")) == "INVALID_DATE_FORMAT"
    refusal = report(perform, attempt, CALL_BACK, "2026-04-03T21:00:00")
    assert refusal is not None
    assert refusal.details["nextAllowedScheduledAt"] == "2026-04-04T08:00:00[Asia/Kolkata]"
    assert report(perform, attempt, CALL_BACK, refusal.details["nextAllowedScheduledAt"]) is None


@guards("one_follows")
def test_report_adds_no_attempt_next_to_an_open_one(voice: Tenant, perform: Perform) -> None:
    """No rule leads to this. An open attempt in the interview must still never get a second one."""
    attempt = end(voice, answered(voice))
    open_one = a_pending_attempt(voice, interview_id=attempt.interview_id)
    assert report(perform, attempt, SCREENED) is None
    assert follower(voice, attempt) == open_one
    assert voice.interview_status(attempt) is InterviewStatus.SCHEDULED
