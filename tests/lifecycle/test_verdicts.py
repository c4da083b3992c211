"""Verdicts of asynchronous machine detection lead to one end, in whatever order the callbacks of a call arrive.

DUECALL_EXHAUSTIVE=all python -m pytest tests/lifecycle/test_verdicts.py     # `make proof`: 10,000 calls a verdict
"""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import permutations

import pytest

from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.domain.attempt import (
    Attempt,
    AttemptState,
    Claimed,
    ConversationOutcome,
    Event,
    HangUpCause,
    Placed,
    ProofMissing,
    Reason,
)
from scheduler.domain.call import AnsweredBy, CallNews, CallProgress, CallStatus, MachineDetection
from scheduler.lifecycle import decisions, settling
from scheduler.lifecycle.decisions import Alarm, AskTheCarrier
from scheduler.lifecycle.policy import SLACK, VERDICT_WAIT, Policy
from scheduler.lifecycle.state_machine import evolve, is_busy
from tests.architecture.guards import guards
from tests.conftest import NOON, TestClock
from tests.lifecycle.lifecycle_setup import a_callee, pending
from tests.support.servers import ACCOUNT_SID
from tests.verification.carrier.scripted import ACCOUNT

WHOLE = bool(os.environ.get("DUECALL_EXHAUSTIVE"))
CALLS = 10_000 if WHOLE else 300
SID = f"CA{7:032x}"
POLICY = Policy()
CALLBACKS = TwilioCallbacks(ACCOUNT)
STATUSES = ("queued", "initiated", "ringing", "in-progress", "completed")
VERDICT = "verdict"
SIX = (*STATUSES, VERDICT)
ENDS: Mapping[str, tuple[Reason, AnsweredBy]] = {
    "human": (Reason.ANSWERED, AnsweredBy.PERSON),
    "unknown": (Reason.ANSWERED, AnsweredBy.UNKNOWN),
    "machine_start": (Reason.VOICEMAIL, AnsweredBy.MACHINE),
    "fax": (Reason.VOICEMAIL, AnsweredBy.FAX),
}
_A_MOMENT = timedelta(milliseconds=200)


@dataclass
class Call:
    """A call without stores: what its callbacks and polls lead to is decided and kept here."""

    attempt: Attempt
    now: TestClock = field(default_factory=lambda: TestClock(NOON))
    ends: list[Event] = field(default_factory=list)

    def hears(self, *callbacks: str, verdict: str = "human") -> "Call":
        for name in callbacks:
            self.now.move(_A_MOMENT)
            self.takes(CALLBACKS.read("token", a_form(name, verdict)))
        return self

    def takes(self, news: CallNews) -> None:
        events = decisions.on_news(self.attempt, news, a_callee(), self.now(), POLICY)
        assert not isinstance(events, Alarm | AskTheCarrier), events
        for event in events:
            self.attempt = evolve(self.attempt, event, self.now())
            self.ends += [event] if event.name in {"ended", "proven"} else []

    def is_polled(self, answered_by: AnsweredBy | None = None) -> "Call":
        """Wait for the next poll. The carrier shows a completed call."""
        assert self.attempt.look_at is not None
        self.now.instant = max(self.now(), self.attempt.look_at)
        self.takes(polled(answered_by))
        return self

    @property
    def end(self) -> tuple[object, ...]:
        """Everything that follows from the call and is kept, except instants."""
        attempt = self.attempt
        return (
            *(attempt.state, attempt.reason, attempt.answered_by, attempt.duration, attempt.heard_rank),
            *(attempt.phase, attempt.look_at, attempt.hung_up_at, attempt.call_sid, len(self.ends)),
        )


def a_form(name: str, verdict: str) -> dict[str, str]:
    whose = {"CallSid": SID, "AccountSid": ACCOUNT_SID}
    if name == VERDICT:
        return whose | {"AnsweredBy": verdict, "MachineDetectionDuration": "2150"}
    return whose | {"CallStatus": name} | ({"CallDuration": "31"} if name == "completed" else {})


def polled(answered_by: AnsweredBy | None = None) -> CallNews:
    duration = timedelta(seconds=31)
    return CallNews(call_sid=SID, status=CallStatus.COMPLETED, answered_by=answered_by, duration=duration)


def a_call(mode: MachineDetection | None = MachineDetection.ASYNC, *, is_placed: bool = True) -> Call:
    claimed = Claimed(token="token", lease_until=NOON + POLICY.lease, machine_detection=mode)
    call = Call(evolve(pending(), claimed, NOON))
    if is_placed:
        call.attempt = evolve(call.attempt, Placed(call_sid=SID, look_at=NOON + timedelta(minutes=1)), NOON)
    return call


def a_given_up_call() -> Call:
    call = a_call(is_placed=False)
    call.attempt = evolve(call.attempt, ProofMissing(search_at=NOON + timedelta(minutes=1)), NOON)
    return call


def expected(verdict: str) -> tuple[object, ...]:
    reason, answered_by = ENDS[verdict]
    state = AttemptState.COMPLETED if reason is Reason.ANSWERED else AttemptState.FAILED
    return state, reason, answered_by, timedelta(seconds=31), CallProgress.OVER, None, None, None, SID, 1


@pytest.mark.parametrize("verdict", ENDS)
@pytest.mark.parametrize("is_placed", [True, False], ids=["placed", "answer to the POST not recorded"])
def test_verdict_ends_a_call_the_same_in_every_order(verdict: str, *, is_placed: bool) -> None:
    orders = list(permutations(SIX))
    assert len(orders) == 720
    ends = {a_call(is_placed=is_placed).hears(*order, verdict=verdict).end for order in orders}
    assert ends == {expected(verdict)}


@pytest.mark.parametrize("verdict", ENDS)
def test_late_proof_with_a_verdict_is_the_same_in_every_order(verdict: str) -> None:
    ends = {a_given_up_call().hears(*order, verdict=verdict).end for order in permutations(SIX)}
    assert ends == {expected(verdict)}


@pytest.mark.parametrize("verdict", ENDS)
def test_verdict_ends_calls_the_same_after_any_callbacks(verdict: str) -> None:
    dice = random.Random(int(os.environ.get("DUECALL_SEED") or 20))
    for _ in range(CALLS):
        told = [*SIX, *dice.choices(SIX, k=dice.randrange(4))]
        dice.shuffle(told)
        lost = dice.sample(STATUSES[:4], k=dice.randrange(4))
        heard = [name for name in told if name not in lost]
        call = a_call(is_placed=dice.random() < 0.8)
        assert call.hears(*heard, verdict=verdict).end == expected(verdict), heard


# ---- a verdict that does not come


@pytest.mark.parametrize("found", [None, *AnsweredBy])
def test_end_without_a_verdict_waits_for_one_poll(found: AnsweredBy | None) -> None:
    """The carrier's record may name who answered. Without a name it was a person."""
    call = a_call().hears(*STATUSES)
    assert (call.attempt.state, call.attempt.heard_rank) == (AttemptState.IN_PROGRESS, CallProgress.OVER)
    assert is_busy(call.attempt), "the line is held until the end is decided"
    assert call.attempt.look_at == call.now() + VERDICT_WAIT
    hung_up_at = call.now()
    by_machine = found in {AnsweredBy.MACHINE, AnsweredBy.FAX}
    call.is_polled(found)
    assert call.attempt.reason is (Reason.VOICEMAIL if by_machine else Reason.ANSWERED)
    assert (call.attempt.answered_by, call.attempt.ended_at, len(call.ends)) == (found, hung_up_at, 1)


def test_end_is_not_decided_before_the_wait_is_over() -> None:
    call = a_call().hears(*STATUSES)
    for _ in range(3):
        call.hears("completed", "in-progress")
        call.takes(polled())
    assert call.ends == []
    call.now.instant = NOON + VERDICT_WAIT - timedelta.resolution
    call.takes(polled())
    assert call.ends == []


def test_later_verdict_changes_nothing() -> None:
    call = a_call().hears(*STATUSES).is_polled()
    before = call.attempt
    assert call.hears(VERDICT, verdict="machine_start").attempt == before


@guards("verdict_without_carrier")
def test_end_needs_no_answer_of_the_carrier() -> None:
    call = a_call().hears(*STATUSES)
    call.now.move(VERDICT_WAIT)
    repeated = settling.on_no_answer(call.attempt, call.now(), POLICY)
    assert isinstance(repeated, CallNews)
    call.takes(repeated)
    assert (call.attempt.reason, call.attempt.duration) == (Reason.ANSWERED, timedelta(seconds=31))


def test_wait_that_a_wrong_clock_began_is_over() -> None:
    call = a_call().hears(*STATUSES)
    call.attempt = replace(call.attempt, hung_up_at=call.now() + SLACK + timedelta(seconds=1))
    call.takes(polled())
    assert (call.attempt.reason, call.attempt.ended_at) == (Reason.ANSWERED, call.now())


# ---- calls that owe no verdict


@pytest.mark.parametrize("mode", [MachineDetection.OFF, MachineDetection.SYNC, None], ids=str)
def test_call_without_asynchronous_detection_ends_at_once(mode: MachineDetection | None) -> None:
    assert a_call(mode).hears(*STATUSES).attempt.reason is Reason.ANSWERED


def test_unanswered_call_awaits_no_verdict() -> None:
    for status, reason in (("busy", Reason.BUSY), ("no-answer", Reason.NO_ANSWER)):
        assert a_call().hears("ringing", status).attempt.reason is reason
    assert a_call().hears("ringing", "failed").attempt.hung_up_at is None


def test_call_that_we_end_awaits_no_verdict() -> None:
    call = a_call()
    call.attempt = replace(call.attempt, hang_up=HangUpCause.COMPANY_DELETED)
    assert call.hears(*STATUSES).attempt.reason is Reason.ANSWERED


def test_status_that_names_who_answered_needs_no_verdict() -> None:
    call = a_call().hears(*STATUSES[:4])
    call.takes(polled(AnsweredBy.MACHINE))
    assert call.attempt.reason is Reason.VOICEMAIL


def test_report_during_the_wait_counts_more_than_the_verdict() -> None:
    call = a_call().hears(*STATUSES)
    call.attempt = replace(call.attempt, outcome=ConversationOutcome.FINISHED)
    assert call.hears(VERDICT, verdict="machine_start").attempt.reason is Reason.ANSWERED


def test_first_verdict_counts() -> None:
    call = a_call().hears("in-progress", VERDICT, verdict="human").hears(VERDICT, verdict="machine_start")
    assert call.hears("completed").attempt.reason is Reason.ANSWERED


def test_wait_that_an_earlier_version_ended_is_no_wait() -> None:
    """A worker of version 0.2.0 ends the attempt at once, and does not know the column."""
    ended = replace(a_call().hears(*STATUSES).is_polled().attempt, hung_up_at=NOON)
    call = Call(ended)
    call.hears(VERDICT, verdict="machine_start")
    assert call.attempt == ended
