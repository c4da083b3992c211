"""Effects of an outcome: a retry, an end, a late call, a call in the carrier's queue."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from scheduler.domain import attempt as events
from scheduler.domain.attempt import Attempt, AttemptState, HangUpCause, Phase, Reason
from scheduler.domain.call import (
    Accepted,
    AnswerUnknown,
    CallOrder,
    CallProgress,
    CallStatus,
    MachineDetection,
    NeverTaken,
)
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.policy import ASK_EVERY, MAX_QUEUE
from scheduler.lifecycle.retries import MOST_ATTEMPTS
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.counts import Counts
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.effects import InvariantViolated
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    ALWAYS,
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    add_replaced_attempts,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
    of_company,
)
from tests.support.servers import SimulatedCarrier
from tests.use_cases.conftest import (
    FOR_HOURS,
    Calls,
    an_ended_attempt,
    apply_news,
    breaker_of,
    finish,
    is_claimed,
    pause_reason,
    see_leg,
    with_account,
)

A_SECOND = timedelta(seconds=1)
TwoCalls = tuple[Attempt, str]
"""An attempt, and the sid of the second call that was placed for it."""


def states(tenant: Tenant, attempt: Attempt) -> list[tuple[AttemptState, Reason | None]]:
    return [(each.state, each.reason) for each in tenant.attempts(attempt.interview_id)]


def let_interviews_go_on(tenant: Tenant) -> None:
    tenant.change("UPDATE interviews SET status = 'SCHEDULED', finished_at = NULL")


# ---- retries


def test_unlimited_consent_permits_a_retry(retrying: Tenant, explain: Explain) -> None:
    """The calendar's last day means "never" and has no following midnight."""
    attempt = a_placed_attempt(retrying)
    retrying.change("UPDATE candidates SET gdpr_expiry_date = :until", until=date.max)
    finish(retrying, attempt)
    first, retry = retrying.attempts(attempt.interview_id)
    assert (first.reason, retry.state) == (Reason.BUSY, AttemptState.PENDING)
    assert explain.explanation_of(retry.id).blocks
    retrying.change("UPDATE attempts SET due_at = :now WHERE state = 'PENDING'", now=retrying.now())
    retrying.change("UPDATE lines SET free_at = :now", now=retrying.now())
    retrying.dial.claim([retry.id])
    assert retrying.dial.last_look(retrying.attempt(retry.id)) is not None


def test_busy_number_is_retried_and_the_interview_goes_on(retrying: Tenant) -> None:
    first = an_ended_attempt(retrying)
    _, retry = retrying.attempts(first.interview_id)
    assert (retry.state, retry.retry_number, retry.chain_id) == (AttemptState.PENDING, 1, first.chain_id)
    assert retry.due_at == retrying.now() + timedelta(minutes=15)
    assert (retry.manual, retry.schedule.requested) == (False, None)
    assert (retry.schedule.clock, retry.expires_at) == (first.schedule.clock, first.expires_at)
    assert retry.number_hash == first.number_hash
    assert retrying.interview_status(first) is InterviewStatus.SCHEDULED
    assert retrying.history(retry.id) == ["created"]


@pytest.mark.parametrize("earlier", [MOST_ATTEMPTS - 1, MOST_ATTEMPTS - 2])
def test_retry_keeps_the_limit_of_attempts(retrying: Tenant, earlier: int) -> None:
    """The chain of the last attempt ends as if no retry followed."""
    placed = a_placed_attempt(retrying)
    add_replaced_attempts(retrying, placed, earlier)
    finish(retrying, placed)
    assert len(retrying.attempts(placed.interview_id)) == MOST_ATTEMPTS
    expected = InterviewStatus.FAILED if earlier == MOST_ATTEMPTS - 1 else InterviewStatus.SCHEDULED
    assert retrying.interview_status(placed) is expected


@pytest.mark.parametrize("is_known", [False, True])
def test_failure_without_a_cause_raises_an_alarm(retrying: Tenant, *, is_known: bool) -> None:
    attempt = a_placed_attempt(retrying)
    with capture_logs() as logs:
        ended = events.Ended(reason=Reason.CARRIER_ERROR, ended_at=retrying.now(), cause_is_known=is_known)
        retrying.take(attempt, ended)
    alarms = [line["attempt_id"] for line in logs if line.get("alarm") == "CAUSE_LOST"]
    assert alarms == ([] if is_known else [str(attempt.id)])
    [counted] = [each for each in Counts(retrying.context).attempts() if each.company_id == retrying.company_id]
    assert counted.cause_lost == len(alarms)
    assert len(states(retrying, attempt)) == 2 - len(alarms), "only a failure with a cause is retried"


def test_undecided_attempts_are_counted_once_overdue(tenant: Tenant, now: TestClock) -> None:
    counts = Counts(tenant.context)
    an_unknown_attempt(tenant)
    now.move(tenant.policy.settle)
    assert [(each.asked_for, each.undecided) for each in counts.attempts() if each.asked_for] == [(1, 0)]
    now.move(timedelta(minutes=1))
    assert [(each.asked_for, each.undecided) for each in counts.attempts() if each.asked_for] == [(1, 1)]


def test_chain_ends_after_its_last_retry(retrying: Tenant, now: TestClock) -> None:
    last = a_placed_attempt(retrying)
    for _ in range(4):
        finish(retrying, last, Reason.CARRIER_ERROR)
        last = retrying.attempts(last.interview_id)[-1]
        if last.state is not AttemptState.PENDING:
            break
        now.move(last.due_at - now())
        [claim] = retrying.dial.claim([last.id]).claimed
        retrying.dial.record([(claim.attempt, Accepted(call_sid=a_sid()))])
        last = retrying.attempt(last.id)
    assert [each.retry_number for each in retrying.attempts(last.interview_id)] == [0, 1, 2, 3]
    assert retrying.interview_status(last) is InterviewStatus.FAILED


def test_retry_calls_the_candidates_changed_number(retrying: Tenant) -> None:
    placed = a_placed_attempt(retrying)
    new = a_number()
    retrying.change("UPDATE candidates SET phone_number = :number", number=new)
    finish(retrying, placed)
    retry = retrying.attempts(placed.interview_id)[1]
    assert retry.number_hash == retrying.hasher.number(new)


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param("UPDATE companies SET deleted_at = :at", id="the company was deleted"),
        pytest.param("UPDATE interviews SET deleted_at = :at", id="the interview was deleted"),
        pytest.param("UPDATE interviews SET status = 'CANCELLED', finished_at = :at", id="it was cancelled"),
        pytest.param("UPDATE interviews SET expires_at = :at", id="it has expired"),
        pytest.param(
            "UPDATE candidates SET erased_at = :at, first_name = NULL, last_name = NULL, email = NULL,"
            " phone_number = NULL",
            id="the candidate was erased",
        ),
    ],
)
def test_no_retry_is_made_when(retrying: Tenant, meanwhile: str) -> None:
    placed = a_placed_attempt(retrying)
    retrying.change(meanwhile, at=retrying.now())
    finish(retrying, placed)
    assert len(retrying.attempts(placed.interview_id)) == 1


def test_called_number_is_stored_only_during_the_call(tenant: Tenant) -> None:
    number = a_number()
    placed = a_placed_attempt(tenant, number)
    assert placed.called_number == number
    assert number not in repr(placed)
    assert finish(tenant, placed).called_number is None
    assert tenant.take(a_claimed_attempt(tenant)).called_number is not None
    back = a_claimed_attempt(tenant)
    tenant.dial.give_back(back, "A_TEST")
    assert tenant.attempt(back.id).called_number is None


# ---- late proof


def proven(tenant: Tenant, attempt: Attempt, reason: Reason) -> Attempt:
    sid = attempt.call_sid or a_sid()
    return tenant.take(attempt, events.Proven(reason=reason, call_sid=sid, ended_at=tenant.now()))


def test_gap_runs_from_the_end_of_a_call_known_only_by_its_end(tenant: Tenant, now: TestClock) -> None:
    number = a_number()
    unknown = an_attempt_of_unknown_outcome(tenant, number)
    other = a_pending_attempt(tenant, number)
    now.move(tenant.policy.line_gap)
    proven(tenant, unknown, Reason.ANSWERED)
    assert tenant.line(unknown) == (None, unknown.interview_id, now() + tenant.policy.line_gap)
    assert not is_claimed(tenant, other)
    now.move(tenant.policy.line_gap)
    assert is_claimed(tenant, other)


def test_gap_after_a_late_proof_applies_to_its_own_interview(tenant: Tenant, now: TestClock) -> None:
    number = a_number()
    unknown = an_attempt_of_unknown_outcome(tenant, number)
    now.move(tenant.policy.line_gap)
    an_ended_attempt(tenant, number)
    now.move(timedelta(seconds=5))
    proven(tenant, unknown, Reason.BUSY)
    again = a_pending_attempt(tenant, number, interview_id=unknown.interview_id)
    assert not is_claimed(tenant, again), "another interview's call ended five seconds ago"
    now.move(tenant.policy.line_gap)
    assert is_claimed(tenant, again)


def test_unsent_claim_waits_for_the_gap_after_a_late_proof(tenant: Tenant, now: TestClock) -> None:
    number = a_number()
    unknown = an_attempt_of_unknown_outcome(tenant, number)
    now.move(tenant.policy.line_gap)
    other = a_pending_attempt(tenant, number)
    [claim] = tenant.dial.claim([other.id]).claimed
    assert tenant.dial.last_look(claim.attempt) is not None
    proven(tenant, unknown, Reason.BUSY)
    assert tenant.dial.last_look(claim.attempt) is None
    now.move(tenant.policy.line_gap)
    assert is_claimed(tenant, other)


def test_late_proof_takes_no_line_from_its_current_call(tenant: Tenant, now: TestClock) -> None:
    number = a_number()
    unknown = an_attempt_of_unknown_outcome(tenant, number)
    now.move(tenant.policy.line_gap)
    other = a_claimed_attempt(tenant, number)
    proven(tenant, unknown, Reason.BUSY)
    assert tenant.line(other)[0] == other.id


def proven_answered(tenant: Tenant, attempt: Attempt) -> Attempt:
    return proven(tenant, attempt, Reason.ANSWERED)


@guards("successor")
@pytest.mark.parametrize("happens", [see_leg, proven_answered])
def test_pending_successor_of_a_call_that_rang_is_cancelled(
    tenant: Tenant, happens: Callable[[Tenant, Attempt], Attempt]
) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    successor = a_pending_attempt(tenant, a_number(), interview_id=unknown.interview_id)
    happens(tenant, unknown)
    assert tenant.attempt(successor.id).reason is Reason.REPLACED


def test_returned_successor_of_an_answered_call_is_replaced(tenant: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    let_interviews_go_on(tenant)
    successor = a_claimed_attempt(tenant, a_number(), interview_id=unknown.interview_id)
    proven(tenant, unknown, Reason.ANSWERED)
    assert tenant.dial.last_look(successor) is None
    assert tenant.attempt(successor.id).reason is Reason.REPLACED, "the candidate was not deleted"
    assert tenant.interview_status(unknown) is InterviewStatus.COMPLETED


def test_successor_goes_on_when_the_call_is_proven_failed(tenant: Tenant) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    let_interviews_go_on(tenant)
    successor = a_pending_attempt(tenant, a_number(), interview_id=unknown.interview_id)
    assert proven(tenant, unknown, Reason.BUSY).reason is Reason.BUSY
    assert tenant.attempt(successor.id) == successor
    assert tenant.interview_status(unknown) is InterviewStatus.SCHEDULED


@pytest.mark.parametrize("is_invoked", [False, True])
def test_late_proof_of_a_failure_is_not_retried(retrying: Tenant, *, is_invoked: bool) -> None:
    """After an invoke the interview goes on, so only the earlier end of the attempt forbids the retry."""
    unknown = an_attempt_of_unknown_outcome(retrying)
    if is_invoked:
        let_interviews_go_on(retrying)
    proven(retrying, unknown, Reason.BUSY)
    assert states(retrying, unknown) == [(AttemptState.FAILED, Reason.BUSY)]
    assert retrying.interview_status(unknown) is InterviewStatus.FAILED


@guards("late_line")
def test_late_call_to_a_number_being_called_raises_an_alarm(tenant: Tenant, now: TestClock) -> None:
    number = a_number()
    unknown = an_attempt_of_unknown_outcome(tenant, number)
    now.move(tenant.policy.line_gap)
    calling = a_claimed_attempt(tenant, number)
    with pytest.raises(InvariantViolated) as alarmed:
        see_leg(tenant, unknown)
    assert alarmed.value.alarm.cause == "TWO_CALLS_TO_ONE_NUMBER"
    assert alarmed.value.alarm.stray_sid is not None, "it was not answered, so it is ended"
    assert tenant.attempt(unknown.id) == unknown, "nothing was written"
    assert tenant.line(calling)[0] == calling.id


# ---- stray calls


def test_second_call_of_a_claim_is_ended_and_pauses_the_company(
    tenant: Tenant, settle: Settle, calls: Calls, hear_news: Any
) -> None:
    mine = a_placed_attempt(tenant)
    second = second_call(calls, mine, ring_s=30)
    hear_news(mine, CallStatus.RINGING, second)
    assert pause_reason(tenant) == "ALARM: TWO_CALLS_FOR_ONE_TOKEN"
    settle.round()
    assert [ring["status"] for ring in calls.carrier.rings(mine.called_number)] == ["canceled"]
    assert tenant.attempt(mine.id) == mine


def test_second_call_unknown_to_the_carrier_is_polled_on(
    tenant: Tenant, settle: Settle, hear_news: Any, now: TestClock
) -> None:
    mine = a_placed_attempt(tenant)
    hear_news(mine, CallStatus.QUEUED, a_sid())
    settle.round()
    assert look_at(tenant) == now() + ASK_EVERY, "that it knows of none proves nothing"
    now.move(timedelta(minutes=10))
    settle.round()
    assert look_at(tenant) == now() + timedelta(minutes=1), "less often, as time goes by"
    assert line_rests_until(tenant, mine) == now() + timedelta(minutes=1) + tenant.policy.line_gap
    now.move(MAX_QUEUE + tenant.policy.ring_timeout + tenant.policy.max_call)
    settle.round()
    assert look_at(tenant) is None


def test_finished_second_call_is_polled_again_after_new_news(
    tenant: Tenant, settle: Settle, calls: Calls, hear_news: Any
) -> None:
    mine = a_placed_attempt(tenant)
    second = second_call(calls, mine, ring_s=30)
    hear_news(mine, CallStatus.QUEUED, second)
    settle.round()
    assert look_at(tenant) is None, "it was cancelled"
    hear_news(mine, CallStatus.RINGING, second)
    assert look_at(tenant) == tenant.now()


@pytest.fixture
def two_calls(tenant: Tenant, calls: Calls, hear_news: Any) -> TwoCalls:
    """An attempt whose carrier rang twice, and both were answered: the second call goes on."""
    mine = tenant.take(a_placed_attempt(tenant), events.Progressed(rank=CallProgress.ANSWERED))
    second = second_call(calls, mine, ring_s=0, talk_s=FOR_HOURS)
    calls.wait_for(second, "in-progress")
    hear_news(mine, CallStatus.ANSWERED, second)
    return mine, second


def test_answered_second_call_blocks_its_number_and_a_gap_after(
    tenant: Tenant, other: Tenant, settle: Settle, release: Release, calls: Calls, now: TestClock, two_calls: TwoCalls
) -> None:
    mine, second = two_calls
    theirs, elsewhere = a_pending_attempt(other, mine.called_number), a_pending_attempt(other)
    finish(tenant, mine, Reason.NO_ANSWER)
    for _ in range(12):
        now.move(timedelta(minutes=5))
        settle.round()
        assert not is_claimed(other, theirs)
    assert calls.carrier.rings(mine.called_number)[0]["status"] == "in-progress", "a conversation is not cut off"
    assert release.round(resends=False).released == 1, "the other number"
    settle._queries.hang_up(second)
    now.move(timedelta(minutes=10))
    settle.round()
    assert look_at(tenant) is None
    now.move(tenant.policy.line_gap - A_SECOND)
    assert not is_claimed(other, theirs)
    now.move(A_SECOND)
    claimed = other.dial.claim([theirs.id, elsewhere.id]).claimed
    assert {each.attempt.id for each in claimed} == {theirs.id, elsewhere.id}


def test_answered_second_call_blocks_the_same_interviews_retry(
    tenant: Tenant, pauses: Pauses, settle: Settle, now: TestClock, two_calls: TwoCalls
) -> None:
    mine, _ = two_calls
    finish(tenant, mine, Reason.NO_ANSWER)
    let_interviews_go_on(tenant)
    again = a_pending_attempt(tenant, mine.called_number, interview_id=mine.interview_id)
    pauses.resume(tenant.company_id)
    assert not is_claimed(tenant, again)
    now.move(timedelta(minutes=9))
    settle.round()
    now.move(timedelta(minutes=9))
    assert not is_claimed(tenant, again)


def test_second_call_of_unknown_state_blocks_its_number(
    tenant: Tenant, settle: Settle, carrier: SimulatedCarrier, now: TestClock, two_calls: TwoCalls
) -> None:
    mine, _ = two_calls
    carrier.down("503")
    try:
        for _ in range(3):
            now.move(timedelta(minutes=9))
            settle.round()
            assert line_rests_until(tenant, mine) > now() + tenant.policy.line_gap
    finally:
        carrier.up()


def test_claimed_call_is_not_sent_after_a_second_call_is_seen(tenant: Tenant, other: Tenant, hear_news: Any) -> None:
    number = a_number()
    mine = an_ended_attempt(tenant, number)
    tenant.change("UPDATE lines SET free_at = :now", now=tenant.now())
    theirs = a_claimed_attempt(other, number)
    assert other.dial.last_look(theirs) is not None
    hear_news(mine, CallStatus.ANSWERED, a_sid())
    assert other.dial.last_look(theirs) is None
    back = other.attempt(theirs.id)
    assert (back.state, other.history(theirs.id)[-1]) == (AttemptState.PENDING, "deferred")
    assert not is_claimed(other, theirs)


def look_at(tenant: Tenant) -> datetime | None:
    [[found]] = tenant.ask("SELECT look_at FROM stray_calls")
    return found if isinstance(found, datetime) else None


def line_rests_until(tenant: Tenant, attempt: Attempt) -> datetime:
    _, interview_id, free_at = tenant.line(attempt)
    assert interview_id is None, "also a retry of its interview waits"
    return free_at


@pytest.fixture
def hear_news(tenant: Tenant) -> Any:
    """Apply news of the attempt's call, or of another one."""

    def heard(attempt: Attempt, status: CallStatus, call_sid: str | None = None, **fields: Any) -> None:
        sid = call_sid or attempt.call_sid
        assert sid is not None
        own = {"call_sid": sid, "token": attempt.token}
        try:
            apply_news(tenant, attempt, status, **(own | fields))
        except InvariantViolated as alarmed:
            tenant.effects.pause_for_alarm(alarmed)

    return heard


# ---- the carrier's queue


def second_call(calls: Calls, attempt: Attempt, **plan: Any) -> str:
    """Place another call for the claim of this attempt. Return its sid."""
    calls.carrier.plan(to=attempt.called_number, callbacks="none", **plan)
    return post(calls, attempt).call_sid


def post(calls: Calls, attempt: Attempt) -> Accepted:
    """Send a POST for this attempt, whatever its state."""
    assert attempt.called_number is not None
    assert attempt.token is not None
    order = CallOrder(
        to=attempt.called_number,
        caller=calls.tenant.caller,
        token=attempt.token,
        ring_timeout=timedelta(seconds=30),
        time_limit=timedelta(minutes=5),
        machine_detection=MachineDetection.SYNC,
    )
    return calls.place(order)


CLOSING_SOON = datetime(2026, 4, 2, 17, 59, tzinfo=UTC)
"""A minute before eight in the evening in Bratislava."""
MIDNIGHT = datetime(2026, 4, 2, 22, 0, tzinfo=UTC)
"""In Bratislava."""


def test_call_with_too_long_a_queue_time_is_cancelled_for_free(
    tenant: Tenant, settle: Settle, calls: Calls, now: TestClock
) -> None:
    now.instant = CLOSING_SOON
    mine = a_claimed_attempt(tenant)
    calls.carrier.plan(to=mine.called_number, queue_s=60, callbacks="none")
    answer = post(calls, mine)
    assert tenant.dial.record([(mine, answer)]) == [answer.call_sid], "the dialler cancels it at once"
    wanted = tenant.attempt(mine.id)
    assert (wanted.phase, wanted.hang_up) == (Phase.PLACED, HangUpCause.QUEUED_PAST_CLOSING)
    settle.round()
    back = tenant.attempt(mine.id)
    assert (back.state, back.call_sid, back.hang_up) == (AttemptState.PENDING, None, None)
    assert back.due_at.isoformat() == "2026-04-03T06:00:00+00:00", "eight the next morning"
    assert back.retry_number == 0
    assert tenant.history(mine.id) == ["created", "claimed", "placed", "hang_up_wanted", "never_dialled"]
    assert [ring["rang_at"] for ring in calls.carrier.rings(mine.called_number)] == [None]


def test_call_whose_turn_comes_in_time_stays_in_the_queue(tenant: Tenant, calls: Calls) -> None:
    mine = a_claimed_attempt(tenant)
    calls.carrier.plan(to=mine.called_number, queue_s=60, callbacks="none")
    assert tenant.dial.record([(mine, post(calls, mine))]) == []
    assert tenant.attempt(mine.id).hang_up is None


@pytest.mark.parametrize(
    ("wishes", "ends"),
    [
        pytest.param({"consent_until": date(2026, 4, 2)}, Reason.CONSENT_EXPIRED, id="the consent is over"),
        pytest.param({"expires_at": MIDNIGHT}, Reason.EXPIRED, id="the interview has expired"),
    ],
)
def test_queued_call_is_cancelled_when_at_its_turn(
    tenant: Tenant, settle: Settle, hear_news: Any, now: TestClock, wishes: dict[str, Any], ends: Reason
) -> None:
    always = of_company(tenant, seed(tenant.database, now(), intervals=ALWAYS))
    now.instant = MIDNIGHT - A_SECOND
    mine = a_claimed_attempt(always, **wishes)
    assert always.dial.last_look(mine) is not None
    sid = a_sid()
    assert always.dial.record([(mine, Accepted(call_sid=sid, queue_time=A_SECOND))]) == [sid], "it is taken out"
    mine = always.attempt(mine.id)
    now.move(2 * A_SECOND)
    hear_news(mine, CallStatus.CANCELLED, started=False)
    settle.round()
    assert always.attempt(mine.id).reason is ends


@pytest.fixture
def queued(retrying: Tenant, now: TestClock) -> Attempt:
    """An attempt whose call waits in the carrier's queue until it closes for the day."""
    now.instant = CLOSING_SOON
    mine = a_claimed_attempt(retrying)
    retrying.dial.record([(mine, Accepted(call_sid=a_sid(), queue_time=timedelta(seconds=60)))])
    return retrying.attempt(mine.id)


def test_callback_alone_does_not_prove_a_call_never_dialled(tenant: Tenant, queued: Attempt, hear_news: Any) -> None:
    hear_news(queued, CallStatus.CANCELLED)
    assert tenant.attempt(queued.id).state is AttemptState.IN_PROGRESS


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        pytest.param(CallStatus.DIALLED, {}, id="dialled"),
        pytest.param(CallStatus.RINGING, {}, id="ringing"),
        pytest.param(CallStatus.CANCELLED, {"started": True}, id="started"),
    ],
)
def test_cancelled_call_that_was_dialled_is_never_retried(
    retrying: Tenant, queued: Attempt, hear_news: Any, status: CallStatus, fields: dict[str, bool]
) -> None:
    hear_news(queued, status, **fields)
    hear_news(queued, CallStatus.CANCELLED, started=False)
    assert states(retrying, queued) == [(AttemptState.FAILED, Reason.CANCELLED_AT_CARRIER)]


def test_call_answered_before_its_cancellation_goes_on(tenant: Tenant, queued: Attempt, hear_news: Any) -> None:
    hear_news(queued, CallStatus.ANSWERED)
    hear_news(queued, CallStatus.COMPLETED)
    assert tenant.attempt(queued.id).reason is Reason.ANSWERED


def test_late_news_of_a_call_never_dialled_is_ignored(tenant: Tenant, queued: Attempt, hear_news: Any) -> None:
    hear_news(queued, CallStatus.CANCELLED, started=False)
    assert tenant.attempt(queued.id).state is AttemptState.PENDING
    with tenant.database.transaction() as stores:
        claim = stores.carrier_events.claim_of(queued.token or "")
    assert claim is not None
    assert claim.closed_sid == queued.call_sid


def test_call_found_in_the_queue_after_closing_is_cancelled(tenant: Tenant, now: TestClock, hear_news: Any) -> None:
    now.instant = CLOSING_SOON
    mine = an_unknown_attempt(tenant)
    now.move(timedelta(minutes=1))
    hear_news(mine, CallStatus.QUEUED, a_sid(), token=None)
    assert tenant.attempt(mine.id).hang_up is HangUpCause.QUEUED_PAST_CLOSING


def test_queued_call_is_polled_before_it_rings_after_closing(
    tenant: Tenant, settle: Settle, calls: Calls, now: TestClock
) -> None:
    closes = CLOSING_SOON + timedelta(minutes=1)
    now.instant = CLOSING_SOON - timedelta(minutes=30)
    mine = a_claimed_attempt(tenant)
    calls.carrier.plan(to=mine.called_number, queue_s=3600, callbacks="none")
    answer = replace(post(calls, mine), queue_time=timedelta(0))
    assert tenant.dial.record([(mine, answer)]) == [], "the carrier named no long queue"
    while (look_at := tenant.attempt(mine.id).look_at) is not None:
        assert look_at < closes - tenant.policy.ring_timeout
        now.instant = look_at
        settle.round()
    assert tenant.attempt(mine.id).state is AttemptState.PENDING
    assert [ring["rang_at"] for ring in calls.carrier.rings(mine.called_number)] == [None]


# ---- a carrier that takes nothing


@pytest.fixture
def due(tenant: Tenant) -> list[UUID]:
    """Eight due attempts, five of which were claimed and never taken by the carrier, which is down since."""
    due = [a_pending_attempt(tenant).id for _ in range(8)]
    failed = tenant.dial.claim(due[:5]).claimed
    tenant.dial.record([(each.attempt, NeverTaken(cause="NEVER_CONNECTED")) for each in failed])
    return due


@guards("breaker")
def test_claims_wait_until_the_carrier_answers_a_probe(
    tenant: Tenant, now: TestClock, release: Release, hints: RecordingHints, explain: Explain, due: list[UUID]
) -> None:
    assert breaker_of(tenant).is_down
    assert release.round(resends=False).released == 0
    assert hints.rings == [], "its time has not come"
    assert {tenant.attempt(each).state for each in due} == {AttemptState.PENDING}
    for _ in range(3):
        now.move(timedelta(minutes=5))
        hints.rings.clear()
        assert release.round(resends=False).released == 0
        assert hints.rings == [(tasks.SETTLE, ())], "settle polls it"
        assert tenant.dial.claim(due).claimed == ()
    [block] = explain.explanation_of(due[-1]).blocks
    assert (block.rule, block.until) == (Rule.CARRIER_DOWN, None), "the time of its answer is unknown"


def test_answered_probe_permits_one_call_and_its_success_all(
    tenant: Tenant, now: TestClock, release: Release, settle: Settle, due: list[UUID]
) -> None:
    settle.round()
    assert breaker_of(tenant).is_down, "it is not asked before its time"
    now.move(timedelta(seconds=5))
    settle.round()
    assert breaker_of(tenant).is_on_trial
    assert release.round(resends=False).released == 1
    [probe] = tenant.dial.claim(due).claimed
    assert tenant.dial.claim(due).claimed == (), "one at a time"
    tenant.dial.record([(probe.attempt, Accepted(call_sid=a_sid()))])
    assert not breaker_of(tenant).is_on_trial
    assert len(tenant.dial.claim(due).claimed) == 7


@pytest.mark.parametrize("in_one_record", [False, True])
def test_success_of_an_earlier_call_keeps_the_breaker_open(tenant: Tenant, *, in_one_record: bool) -> None:
    first, second = a_claimed_attempt(tenant), a_claimed_attempt(tenant)
    answers = [(first, AnswerUnknown(cause="HTTP_503")), (second, Accepted(call_sid=a_sid()))]
    for record in [answers] if in_one_record else [answers[:1], answers[1:]]:
        tenant.dial.record(record)
    assert breaker_of(tenant).is_down
    assert tenant.attempt(second.id).phase is Phase.PLACED


def test_breaker_of_one_account_does_not_affect_another(tenant: Tenant) -> None:
    tenant.dial.record([(a_claimed_attempt(tenant), NeverTaken(cause="CREDENTIALS"))])
    assert breaker_of(tenant).is_down
    assert not breaker_of(with_account(tenant, "AC" + "9" * 32)).is_down
