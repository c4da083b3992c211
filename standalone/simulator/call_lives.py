"""The life of an accepted call: its pace, its turn, ringing, the answer and the end."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from standalone.simulator.callbacks import CallbackSender, is_subscribed
from standalone.simulator.calls import (
    CANCELED,
    ENDS,
    HUNG_UP,
    RANG_OUT,
    UNANSWERED,
    Call,
    Canceller,
    End,
    Order,
    Status,
    other_leg_of,
    token_of,
)
from standalone.simulator.faults import RefusedByTwilio, VoiceServer
from standalone.simulator.plans import CallbackFault, InstructionsFault, Journal, Plan

# --- Duration of the steps of a call: in real time, but no longer than by the carrier's clock


_CHECK_EVERY_S = 0.02
_JUMP = timedelta(milliseconds=200)
"""A clock that is this far ahead of real time was moved."""


class Pace:
    """Waits on a clock that runs, is stopped or is moved.

    On a running clock a step ends on time. On a stopped clock every step takes real time and has the same instant. If
    the clock is moved back, no step takes longer than planned. If it is moved ahead, later steps change, and steps that
    would have ended by then end at once when calls follow the clock.
    """

    def __init__(self, now: Callable[[], datetime], *, follows_clock: bool) -> None:
        self._now = now
        self._follows_clock = follows_clock
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, since: datetime, span: timedelta) -> None:
        """Wait until `span` has passed since `since` on the carrier's clock, or from now on in real time."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + span.total_seconds()
        while (left := min(end_s - loop.time(), (since + span - self._now()).total_seconds())) > 0:
            woken = loop.create_future()
            timer = loop.call_later(left, _wake, woken)
            self._waiting.add(woken)
            try:
                await woken
            finally:
                timer.cancel()
                self._waiting.discard(woken)

    async def watch(self) -> None:
        """Wake all waits when the clock is moved ahead. Runs until cancelled, if calls follow the clock."""
        loop = asyncio.get_running_loop()
        while self._follows_clock:
            checked_at, checked_s = self._now(), loop.time()
            await asyncio.sleep(_CHECK_EVERY_S)
            if self._now() - checked_at > timedelta(seconds=loop.time() - checked_s) + _JUMP:
                for woken in list(self._waiting):
                    _wake(woken)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


# --- The life of an accepted call: it waits for its turn, rings, is answered or not, and ends


_BEFORE_RINGING_S = 0.05
"""Time between dialling and the first ring, at most `ring_s`, so that a call with `ring_s` 0 is not delayed."""
MAX_QUEUE_S = 24 * 60 * 60
NO_INSTRUCTIONS = 11200
"""Twilio's code if the voice server did not answer."""

_STAMPED = {
    Status.INITIATED: "started_at",
    Status.RINGING: "rang_at",
    Status.IN_PROGRESS: "answered_at",
}


class CallLives:
    """The calls and the tasks that run them.

    A call does not depend on the request that placed it: closing that connection changes nothing. Each step waits from
    an instant that the call records, so a call that is restored after a kill continues where it was.
    """

    def __init__(
        self,
        *,
        account_sid: str,
        now: Callable[[], datetime],
        calls_per_second: float,
        speed: float,
        follows_clock: bool,
        journal: Journal,
        sender: CallbackSender,
        voice_server: VoiceServer,
    ) -> None:
        self._account_sid = account_sid
        self._now = now
        self._between_dials_s = 1 / calls_per_second
        self._speed = speed
        self._journal = journal
        self._sender = sender
        self._voice_server = voice_server
        self._pace = Pace(now, follows_clock=follows_clock)
        self._calls: dict[str, Call] = {}
        self._of_number: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._alive: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for kept in journal.kept("call"):
            self._hold(Call.model_validate(kept))
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._beside: set[asyncio.Task[None]] = set()
        self._to_be_accepted: set[asyncio.Task[None]] = set()
        self._next_turn_s = 0.0
        self._watch: asyncio.Task[None] | None = None

    def all(self, to: str | None = None) -> list[Call]:
        """List all calls and other legs, or those to one number, oldest first."""
        if to is None:
            return list(self._calls.values())
        return [self._calls[sid] for sid in self._of_number.get(to, ())]

    def find(self, sid: str) -> Call | None:
        return self._calls.get(sid)

    def get(self, sid: str) -> Call:
        if sid not in self._calls:
            raise RefusedByTwilio(20404)
        return self._calls[sid]

    def resume(self) -> None:
        self._watch = asyncio.create_task(self._pace.watch())
        for call in self.all():
            if not call.is_over:
                self._begin(call)

    async def stop(self) -> None:
        running = [
            *self._lives.values(),
            *self._beside,
            *self._to_be_accepted,
            *([self._watch] if self._watch else []),
        ]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def accept(self, order: Order, plan: Plan, attempt_of_number: int) -> Call:
        """Accept a call: from now on the phone will ring, whatever the request's answer is."""
        now = self._now()
        queued_s = self._take_turn(plan.queue_s)
        call = Call(
            sid=f"CA{uuid4().hex}",
            account_sid=self._account_sid,
            ordinal=len(self._calls) + 1,
            token=token_of(order.status_callback),
            attempt_of_number=attempt_of_number,
            order=order,
            outcome=plan.outcome,
            ring_s=plan.ring_s,
            talk_s=plan.talk_s,
            error_s=plan.error_s,
            verdict_s=plan.verdict_s,
            callbacks=plan.callbacks,
            instructions=plan.instructions,
            error_codes=plan.error_codes,
            listed=plan.listed,
            beside=next(iter(self._alive.get(order.to, ())), None),
            queue_time_ms=round(queued_s * 1000),
            accepted_at=now,
            dial_at=now + timedelta(seconds=queued_s),
            updated_at=now,
        )
        self._keep(call)
        if plan.other_leg is not None:
            self._keep(other_leg_of(call, plan.other_leg, sid=f"CA{uuid4().hex}", ordinal=call.ordinal + 1))
        self._begin(call)
        return call

    def accept_later(self, order: Order, plan: Plan, attempt_of_number: int) -> None:
        """Accept a call after the plan's delay, even if the client has closed the connection."""
        task = asyncio.create_task(self._accept_after_delay(order, plan, attempt_of_number))
        self._to_be_accepted.add(task)
        task.add_done_callback(self._to_be_accepted.discard)

    def cancel(self, sid: str) -> Call:
        """Cancel an unanswered call. Raises RefusedByTwilio for an answered one, which goes on."""
        call = self.get(sid)
        if call.status not in UNANSWERED:
            raise RefusedByTwilio(21220)
        return self._cut(call, CANCELED)

    def hang_up(self, sid: str) -> Call:
        """End a call in any state. An unanswered call ends as canceled."""
        call = self.get(sid)
        if call.is_over:
            raise RefusedByTwilio(21220)
        return self._cut(call, CANCELED if call.status in UNANSWERED else HUNG_UP)

    def change(self, sid: str, changes: dict[str, Any], *, instructs: bool) -> Call:
        """Change the status callback or time limit of a live call, or give instructions to an answered one."""
        call = self.get(sid)
        if call.is_over or (instructs and call.status in UNANSWERED):
            raise RefusedByTwilio(21220)
        order = call.order.model_copy(update=changes)
        return self._keep(call.model_copy(update={"order": order, "updated_at": self._now()}))

    def _take_turn(self, at_least_s: float) -> float:
        """Reserve the next turn under the account's calls per second, and return the seconds until then."""
        now_s = asyncio.get_running_loop().time()
        turn_s = max(now_s, self._next_turn_s)
        queued_s = max(turn_s - now_s, at_least_s)
        if queued_s > MAX_QUEUE_S:
            raise RefusedByTwilio(22005)
        self._next_turn_s = turn_s + self._between_dials_s
        return queued_s

    async def _accept_after_delay(self, order: Order, plan: Plan, attempt_of_number: int) -> None:
        await asyncio.sleep(plan.delay_s)
        self.accept(order, plan, attempt_of_number)

    def _begin(self, call: Call) -> None:
        task = asyncio.create_task(self._live(call.sid))
        self._lives[call.sid] = task
        task.add_done_callback(lambda _: self._lives.pop(call.sid, None))

    async def _live(self, sid: str) -> None:
        end = ENDS[self._calls[sid].outcome]
        await self._dial(sid)
        if end.rings:
            end = await self._ring(sid, end)
        if end.answered_by is not None:
            await self._talk(sid)
        self._end(self._calls[sid], end)

    async def _dial(self, sid: str) -> None:
        call = self._calls[sid]
        await self._pace.wait(call.accepted_at, call.dial_at - call.accepted_at)
        if self._calls[sid].status is Status.QUEUED:
            self._move(self._calls[sid], Status.INITIATED)
        await self._pass(self._calls[sid].started_at, min(_BEFORE_RINGING_S, call.ring_s))

    async def _ring(self, sid: str, end: End) -> End:
        """Ring until the callee decides or the caller's timeout passes, and return the end of the call."""
        if self._calls[sid].status is Status.INITIATED:
            self._move(self._calls[sid], Status.RINGING)
        call = self._calls[sid]
        rings_out = call.ring_s > call.order.timeout_s
        await self._pass(call.rang_at, min(call.ring_s, call.order.timeout_s))
        return RANG_OUT if rings_out else end

    async def _talk(self, sid: str) -> None:
        call = self._calls[sid]
        if call.status is Status.RINGING:
            call = self._obtain_instructions(self._answer(call))
        if call.order.is_async and call.answered_by is None:
            self._begin_verdict(call)
        lasts_s = call.talk_s if call.is_instructed is not False else min(call.talk_s, call.error_s)
        await self._pass(call.answered_at, min(lasts_s, call.order.time_limit_s))

    def _answer(self, call: Call) -> Call:
        by_detection = ENDS[call.outcome].answered_by or {}
        answered_by = None if call.order.is_async else by_detection.get(call.order.machine_detection or "")
        return self._move(call, Status.IN_PROGRESS, answered_by=answered_by)

    def _obtain_instructions(self, call: Call) -> Call:
        fault = call.instructions or (InstructionsFault.FALLBACK if self._voice_server.is_down else None)
        if fault is not None:
            return self._without_instructions(call, fault)
        if self._voice_server.is_requested:
            self._run_beside(self._request_instructions(call.sid))
            return call
        return self._keep(call.model_copy(update={"is_instructed": True}))

    async def _request_instructions(self, sid: str) -> None:
        has_some = await self._sender.has_instructions(self._calls[sid], at=self._now())
        call = self._calls[sid]
        if has_some:
            self._keep(call.model_copy(update={"is_instructed": True}))
        elif not call.is_over:
            self._without_instructions(call, InstructionsFault.FALLBACK)

    def _without_instructions(self, call: Call, fault: InstructionsFault) -> Call:
        """Request the fallback, which is lost with other callbacks. The call goes on: an error is played."""
        errors = (*call.error_codes, NO_INSTRUCTIONS)
        failed = self._keep(call.model_copy(update={"error_codes": errors, "is_instructed": False}))
        if fault is InstructionsFault.FALLBACK and call.callbacks is not CallbackFault.NONE:
            self._sender.request_fallback(failed, at=self._now())
        return failed

    def _begin_verdict(self, call: Call) -> None:
        if call.verdict_s is not None:
            self._run_beside(self._judge(call.sid, call.verdict_s))

    def _run_beside(self, work: Coroutine[None, None, None]) -> None:
        """Run a part of a call that does not delay its other parts, and may end after it."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _judge(self, sid: str, verdict_s: float) -> None:
        """Decide who answered while the call goes on, or after it. Only the verdict's own callback reports it."""
        await self._pass(self._calls[sid].answered_at, verdict_s)
        call = self._calls[sid]
        by_detection = ENDS[call.outcome].answered_by or {}
        answered_by = by_detection.get(call.order.machine_detection or "", "unknown")
        judged = self._keep(call.model_copy(update={"answered_by": answered_by, "updated_at": self._now()}))
        self._sender.tell_verdict(judged)

    def _cut(self, call: Call, end: End) -> Call:
        if call.sid in self._lives:
            self._lives[call.sid].cancel()
        return self._end(call, end, Canceller.CALLER)

    def _end(self, call: Call, end: End, canceller: Canceller = Canceller.CARRIER) -> Call:
        facts: dict[str, Any] = {"sip_code": end.sip_code}
        if end.status is Status.CANCELED:
            facts["cancelled_by"] = canceller
        if call.answered_at is not None:
            talked = max(self._now() - call.answered_at, timedelta(0))
            facts["duration_s"] = round(talked.total_seconds() * self._speed)
        return self._move(call, end.status, **facts)

    def _move(self, call: Call, status: Status, **facts: object) -> Call:
        """Store the change before its callback is sent, so that no callback is ahead of the ledger."""
        now = self._now()
        facts |= {"status": status, "updated_at": now, _STAMPED.get(status, "ended_at"): now}
        if is_subscribed(call, status):
            facts["events_sent"] = call.events_sent + 1
        moved = self._keep(call.model_copy(update=facts))
        self._sender.tell(moved, sequence_number=call.events_sent, at=now)
        return moved

    def _keep(self, call: Call) -> Call:
        self._journal.keep("call", call.sid, call)
        return self._hold(call)

    def _hold(self, call: Call) -> Call:
        self._calls[call.sid] = call
        self._of_number[call.order.to][call.sid] = None
        if not call.is_over:
            self._alive[call.order.to][call.sid] = None
        elif alive := self._alive.get(call.order.to):
            alive.pop(call.sid, None)
            if not alive:
                del self._alive[call.order.to]
        return call

    async def _pass(self, since: datetime | None, seconds: float) -> None:
        """Wait until this many seconds of the call have passed."""
        assert since is not None
        await self._pace.wait(since, timedelta(seconds=seconds / self._speed))
