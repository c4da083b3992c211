"""What becomes of an accepted call: it waits its turn, rings, is taken or not, and ends."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

from scheduler.carriers.simulator.callbacks import Postman, is_subscribed
from scheduler.carriers.simulator.calls import (
    CANCELED,
    ENDS,
    HUNG_UP,
    RANG_OUT,
    UNANSWERED,
    Call,
    End,
    Status,
)
from scheduler.carriers.simulator.journal import Journal
from scheduler.carriers.simulator.order import Order, token_of
from scheduler.carriers.simulator.plans import Plan
from scheduler.carriers.simulator.refusals import RefusedByTwilio

BEFORE_RINGING = timedelta(milliseconds=50)
"""Between dialling and the first ring."""
LONGEST_QUEUE_S = 24 * 60 * 60

_STAMPED = {
    Status.INITIATED: "started_at",
    Status.RINGING: "rang_at",
    Status.IN_PROGRESS: "answered_at",
}


class Exchange:
    """The calls and their lives.

    A life belongs to the exchange and not to the request that began it: whoever hangs up on the request
    changes nothing. Each step waits until an instant that the call itself records, so a call restored after a
    kill goes on where it was.
    """

    def __init__(
        self,
        *,
        account_sid: str,
        now: Callable[[], datetime],
        calls_per_second: float,
        speed: float,
        journal: Journal,
        postman: Postman,
    ) -> None:
        self._account_sid = account_sid
        self._now = now
        self._between_dials_s = 1 / calls_per_second
        self._speed = speed
        self._journal = journal
        self._postman = postman
        restored = (Call.model_validate(kept) for kept in journal.kept("call"))
        self._calls = {call.sid: call for call in restored}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._to_be_accepted: set[asyncio.Task[None]] = set()
        self._next_turn_s = 0.0

    def all(self) -> list[Call]:
        """Oldest first."""
        return list(self._calls.values())

    def get(self, sid: str) -> Call:
        if sid not in self._calls:
            raise RefusedByTwilio(20404)
        return self._calls[sid]

    def resume(self) -> None:
        for call in self.all():
            if not call.is_over:
                self._begin(call)

    async def stop(self) -> None:
        under_way = [*self._lives.values(), *self._to_be_accepted]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def accept(self, order: Order, plan: Plan, attempt_of_number: int) -> Call:
        """From here on the phone will ring, whatever the caller is told."""
        now = self._now()
        queued_s = self._take_turn()
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
            callbacks=plan.callbacks,
            queue_time_ms=round(queued_s * 1000),
            accepted_at=now,
            dial_at=now + timedelta(seconds=queued_s),
            updated_at=now,
        )
        self._keep(call)
        self._begin(call)
        return call

    def accept_later(self, order: Order, plan: Plan, attempt_of_number: int) -> None:
        """Accepts after the plan's delay, whoever is still there to be told."""
        task = asyncio.create_task(self._accept_after_delay(order, plan, attempt_of_number))
        self._to_be_accepted.add(task)
        task.add_done_callback(self._to_be_accepted.discard)

    def cancel(self, sid: str) -> Call:
        """Stops a call that nobody has answered yet; one that was answered goes on."""
        call = self.get(sid)
        if call.status not in UNANSWERED:
            raise RefusedByTwilio(21220)
        return self._cut(call, CANCELED)

    def hang_up(self, sid: str) -> Call:
        """Ends a call wherever it is; one that nobody has answered yet ends as canceled."""
        call = self.get(sid)
        if call.is_over:
            raise RefusedByTwilio(21220)
        return self._cut(call, CANCELED if call.status in UNANSWERED else HUNG_UP)

    def redirect(self, sid: str, changes: dict[str, str]) -> Call:
        """Other instructions or another status callback for a call that is alive."""
        call = self.get(sid)
        if call.is_over:
            raise RefusedByTwilio(21220)
        order = call.order.model_copy(update=changes)
        return self._keep(call.model_copy(update={"order": order, "updated_at": self._now()}))

    def _take_turn(self) -> float:
        """How long the next call waits for its turn under the account's calls per second."""
        now_s = asyncio.get_running_loop().time()
        turn_s = max(now_s, self._next_turn_s)
        if turn_s - now_s > LONGEST_QUEUE_S:
            raise RefusedByTwilio(22005)
        self._next_turn_s = turn_s + self._between_dials_s
        return turn_s - now_s

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
        await self._until(self._calls[sid].dial_at)
        if self._calls[sid].status is Status.QUEUED:
            self._move(self._calls[sid], Status.INITIATED)
        await self._until(self._since(self._calls[sid].started_at, BEFORE_RINGING))

    async def _ring(self, sid: str, end: End) -> End:
        """Rings until the callee decides or the caller's patience ends; returns how it will end."""
        if self._calls[sid].status is Status.INITIATED:
            self._move(self._calls[sid], Status.RINGING)
        call = self._calls[sid]
        rings_out = call.ring_s > call.order.timeout_s
        ring_s = min(call.ring_s, call.order.timeout_s)
        await self._until(self._since(call.rang_at, timedelta(seconds=ring_s)))
        return RANG_OUT if rings_out else end

    async def _talk(self, sid: str) -> None:
        call = self._calls[sid]
        if call.status is Status.RINGING:
            call = self._answer(call)
        talk_s = min(call.talk_s, call.order.time_limit_s)
        await self._until(self._since(call.answered_at, timedelta(seconds=talk_s)))

    def _answer(self, call: Call) -> Call:
        by_detection = ENDS[call.outcome].answered_by or {}
        answered_by = by_detection.get(call.order.machine_detection or "")
        return self._move(call, Status.IN_PROGRESS, answered_by=answered_by)

    def _cut(self, call: Call, end: End) -> Call:
        if call.sid in self._lives:
            self._lives[call.sid].cancel()
        return self._end(call, end)

    def _end(self, call: Call, end: End) -> Call:
        talked = None if call.answered_at is None else self._now() - call.answered_at
        duration_s = None if talked is None else round(talked.total_seconds() * self._speed)
        return self._move(call, end.status, sip_code=end.sip_code, duration_s=duration_s)

    def _move(self, call: Call, status: Status, **facts: object) -> Call:
        """Kept first, told afterwards: a callback never knows more than the ledger."""
        now = self._now()
        facts |= {"status": status, "updated_at": now, _STAMPED.get(status, "ended_at"): now}
        if is_subscribed(call, status):
            facts["events_sent"] = call.events_sent + 1
        moved = self._keep(call.model_copy(update=facts))
        self._postman.tell(moved, sequence_number=call.events_sent, at=now)
        return moved

    def _keep(self, call: Call) -> Call:
        self._journal.keep("call", call.sid, call)
        self._calls[call.sid] = call
        return call

    def _since(self, at: datetime | None, span: timedelta) -> datetime:
        assert at is not None
        return at + span / self._speed

    async def _until(self, at: datetime) -> None:
        await asyncio.sleep(max(0.0, (at - self._now()).total_seconds()))
