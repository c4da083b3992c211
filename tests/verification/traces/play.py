"""Player of traces, and a call that the pure decisions alone take through its life."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.domain.attempt import Attempt, Claimed, Event, LegSeen, Phase, Progressed, ProofMissing
from scheduler.domain.call import Accepted, AnswerUnknown, CallNews, CallOrder, MachineDetection
from scheduler.lifecycle import decisions, settling
from scheduler.lifecycle.call_reasons import names_no_cause
from scheduler.lifecycle.decisions import Alarm, AskTheCarrier
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.state_machine import arrow_of, evolve, is_busy
from tests.conftest import NOON, TestClock
from tests.lifecycle.lifecycle_setup import a_callee, pending
from tests.verification.carrier.scripted import ACCOUNT, ENDS, Callback, ScriptedCarrier, carrier_queries
from tests.verification.traces.trace import Answered, Kind, Outcome, Poll, Told, Trace

FOR_YEARS = timedelta(days=3650)
POLICY = Policy(short_call=timedelta())
CALLBACKS = TwilioCallbacks(ACCOUNT)
_A_MOMENT = timedelta(seconds=1)
"""Time between two events."""
_QUESTIONS = 20
"""Number of polls after which a call must be finished."""


@dataclass
class Play(ABC):
    now: TestClock
    carrier: ScriptedCarrier

    @abstractmethod
    def tell(self, callback: Callback, *, twice: bool) -> None:
        """Deliver a callback. Its hint may arrive twice."""

    @abstractmethod
    def record(self, sid: str | None) -> None:
        """Record the answer to the POST. Without a SID the outcome is unknown."""

    @abstractmethod
    def give_up(self) -> None:
        """Let the time for a proof pass."""

    @abstractmethod
    def ask(self) -> bool:
        """Wait for the next poll and run it. Return False when the attempt no longer waits for the carrier."""

    def play(self, kind: Kind, trace: Trace, order: CallOrder) -> str:
        """Ring, follow the trace, poll until the call is finished, and return its SID."""
        sid = self.carrier.ring(order, self.now(), is_listed=not kind.given_up).sid
        if kind.given_up:
            self.record(None)
            self.give_up()
        for place, step in enumerate(trace):
            self.now.move(_A_MOMENT)
            match step:
                case Told():
                    self._comes_to(sid, kind, step.way)
                    callback = self.carrier.callbacks[step.way]
                    if step.is_distinct:
                        callback = replace(callback, form=(*callback.form, ("Addition", str(place))))
                    self.tell(callback, twice=step.is_distinct)
                case Poll():
                    self._comes_to(sid, kind, step.way)
                    self.ask()
                case Answered():
                    self.record(None if step.is_lost else sid)
        self._comes_to(sid, kind, kind.last)
        for _ in range(_QUESTIONS):
            if not self.ask():
                break
        return sid

    def _comes_to(self, sid: str, kind: Kind, way: int) -> None:
        """Advance the call to this status change, never back."""
        while len(self.carrier.callbacks) <= way:
            change = ENDS[kind.end][len(self.carrier.callbacks)]
            self.carrier.goes_on(self.carrier.legs[sid], change, self.now())


@dataclass
class PureCall(Play):
    """A call without stores: what happens to its attempt is decided and kept here."""

    attempt: Attempt = field(default_factory=lambda: pending(expires_at=NOON + FOR_YEARS))
    arrows: list[tuple[Any, ...]] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)

    def take(self, *events: Event) -> None:
        for event in events:
            arrow = arrow_of(self.attempt, event)
            self.arrows.append((arrow.event, arrow.source, arrow.target, arrow.reason or ""))
            if isinstance(event, Progressed | LegSeen):
                self.ranks.append(event.rank)
            self.attempt = evolve(self.attempt, event, self.now())

    def ended(self, kind: Kind, trace: Trace) -> Outcome:
        """Play a trace, and return its end."""
        order = CallOrder(
            to="+421915123456",
            caller="+421221000000",
            token="a token",
            ring_timeout=POLICY.ring_timeout,
            time_limit=POLICY.max_call,
            machine_detection=MachineDetection.SYNC,
        )
        self.take(Claimed(token=order.token, lease_until=self.now() + POLICY.lease))
        sid, attempt = self.play(kind, trace, order), self.attempt
        return Outcome(
            state=attempt.state,
            reason=attempt.reason,
            answered_by=attempt.answered_by,
            duration=attempt.duration,
            heard_rank=attempt.heard_rank,
            is_expected=any((attempt.phase, attempt.look_at, attempt.lease_until, attempt.hang_up)),
            is_the_right_call=attempt.call_sid == sid,
            last_arrow=self.arrows[-1],
            times_ended=sum(event in {"ended", "proven"} for event, *_ in self.arrows),
            went_back=self.ranks != sorted(set(self.ranks)),
        )

    def tell(self, callback: Callback, *, twice: bool) -> None:
        for _ in range(2 if twice else 1):
            self._hear(CALLBACKS.read(callback.token, dict(callback.form)))

    def _hear(self, news: CallNews) -> None:
        events = decisions.on_news(self.attempt, news, a_callee(), self.now(), POLICY)
        assert not isinstance(events, Alarm | AskTheCarrier), events
        self.take(*events)

    def record(self, sid: str | None) -> None:
        answer = AnswerUnknown(cause="A_TRACE") if sid is None else Accepted(call_sid=sid)
        if self.attempt.phase is Phase.DIALLING:  # otherwise news or the end of the lease came first
            self.take(*decisions.on_answer(self.attempt, answer, a_callee(), self.now(), POLICY))

    def give_up(self) -> None:
        self.now.move(POLICY.settle)
        self.take(ProofMissing())

    def ask(self) -> bool:
        if not is_busy(self.attempt):
            return False
        due_at = self.attempt.lease_until if self.attempt.phase is Phase.DIALLING else self.attempt.look_at
        assert due_at is not None
        self.now.instant = max(self.now(), due_at)
        lost = settling.on_lapsed_lease(self.attempt, self.now())
        if lost is not None:
            self.take(lost)
        news = self._polled()
        looks, look_at = self.attempt.looks + 1, settling.next_poll_at(self.attempt, self.now())
        self.attempt = replace(self.attempt, looks=looks, look_at=look_at)
        if news is not None:
            self._hear(news)
        return True

    def _polled(self) -> CallNews | None:
        queries = carrier_queries(self.carrier, self.now)
        if self.attempt.phase is not Phase.UNKNOWN:
            return queries.fetch(str(self.attempt.call_sid))
        [leg] = self.carrier.legs.values()
        begins, ends = settling.listing_span(self.attempt, POLICY)
        listed = queries.listed(to=leg.to, caller=leg.caller, created_from=begins, created_until=ends)
        found = settling.on_listing(self.attempt, listed, self.now(), POLICY)
        if not isinstance(found, CallNews):
            return None
        return queries.fetch(leg.sid) if names_no_cause(found) else found
