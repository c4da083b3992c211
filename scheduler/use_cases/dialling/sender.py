"""Calls out: one task for each claimed call, from its last look to the answer of its only POST."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from scheduler.carriers.interface import CallPlacer
from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import AnswerUnknown, CallOrder, CarrierAnswer, NeverTaken, Withheld
from scheduler.failpoints import failpoint
from scheduler.lifecycle.capacity import in_step, look_waits
from scheduler.lifecycle.policy import LOOKS_TOGETHER, SEND_SPAN
from scheduler.logs import log
from scheduler.use_cases.dialling.claim import ToSend
from scheduler.use_cases.dialling.look import LookFacts, LookLimit, LookQueries, Looks, PermittedOrder, PutBack
from scheduler.use_cases.dialling.permit import Permit
from scheduler.use_cases.dialling.record import Recorder
from scheduler.use_cases.dialling.room import Room
from scheduler.use_cases.dialling.watch import DatabaseThreads, LeaseAlarm, LookWatch, PostTimes

_log = log(__name__)


class Sender:
    """Sends claimed calls, and passes each answer to the recorder. Belongs to one event loop."""

    def __init__(
        self,
        looks: Looks,
        line: CallPlacer,
        threads: DatabaseThreads,
        now: Now,
        alarm: LeaseAlarm,
        room: Room,
        watch: LookWatch,
        recorder: Recorder,
    ) -> None:
        self._looks = looks
        self._line = line
        self._threads = threads
        self._now = now
        self._alarm = alarm
        self._room = room
        self._watch = watch
        self._recorder = recorder
        self._look_limit = LookLimit()
        self._look_queries = LookQueries(self._look_all)
        self.times = PostTimes()
        self.calls: set[asyncio.Task[None]] = set()

    def send(self, claimed: Sequence[ToSend]) -> None:
        """Begin to send these calls, each when it is its turn."""
        if not claimed:
            return
        now, instant = self._now(), asyncio.get_running_loop().time()
        send_at = in_step([each.send_at for each in claimed], now)
        for each, at, wait in zip(claimed, send_at, look_waits(send_at, now), strict=True):
            claim = each if each.send_at == at else replace(each, send_at=at)
            # Claimed calls are sent within a second. A longer wait comes from a clock that was set back.
            look_at = instant + min(wait, SEND_SPAN).total_seconds()
            if monotonic() >= claim.send_by:
                self._room.fell_behind()
                self._recorder.add(claim.attempt, Withheld(cause="TOO_SLOW"))
                continue
            self._room.fill(claim.attempt.id)
            self._alarm.hold(claim.attempt.id, claim.lease_ends)
            task = asyncio.create_task(self._call(claim, look_at))
            self.calls.add(task)
            task.add_done_callback(self.calls.discard)
        failpoint("dial.claimed")

    async def end(self) -> None:
        """Wait for all calls that were begun."""
        if self.calls:
            await asyncio.wait(self.calls)

    def is_in_doubt(self) -> bool:
        """Return True if the next POST may be lost like the latest ones. Notices an outage before the breaker can.

        True while an answer that will open the breaker is not recorded yet, or while at least two POSTs are in flight,
        the first for over a second, and none was answered since. A single hanging POST among answered ones is ignored.
        """
        return self._recorder.has_failures or self.times.are_unanswered()

    async def _call(self, claim: ToSend, look_at: float) -> None:
        """Dial one claimed call. Its last look begins at `look_at`, in the loop's time."""
        attempt = claim.attempt
        try:
            await asyncio.sleep(look_at - asyncio.get_running_loop().time())
            answer = await self.dial_once(claim)
            if answer is not None:
                self._recorder.add(attempt, answer, self.times.of(attempt.id))
        except Exception:  # noqa: BLE001 - the loop must go on for the other calls
            _log.exception(
                "dial_failed: an unexpected error stopped a dial, and the attempt will be settled",
                attempt_id=str(attempt.id),
            )
        finally:
            self.times.drop(attempt.id)
            self._alarm.drop(attempt.id)
            self._look_limit.end(attempt.id)
            self._room.free(attempt.id)

    async def dial_once(self, claim: ToSend) -> CarrierAnswer | None:
        """Send at most one POST. Return its answer or the reason for not sending. None: a last look gave it back."""
        attempt = claim.attempt
        permit = Permit(claim, lambda: self._look(attempt), self._alarm, self._now, partial(self._on_left, attempt.id))
        while order := await permit.order():
            if claim.send_at > self._now():
                wait = min(LOOKS_TOGETHER, claim.send_at - self._now())
                await asyncio.sleep(wait.total_seconds())
            if self.is_in_doubt():
                return Withheld(cause="CARRIER_IN_DOUBT")
            failpoint("dial.looked")
            answer = await self._place(attempt.id, order, permit)
            if not permit.has_refused:
                failpoint("dial.answered")
                return answer
        if permit.is_given_back:
            return None
        if permit.look_failed:
            return NeverTaken(cause="NOT_SENT")
        self._room.fell_behind()
        self._watch.are_too_slow(monotonic())
        return Withheld(cause="TOO_SLOW" if permit.is_too_late else "SLOW_LOOK")

    async def _place(self, attempt_id: UUID, order: CallOrder, permit: Permit) -> CarrierAnswer:
        with self.times.in_flight(attempt_id):
            answer = await self._line.place(order, permit)
        if not (permit.has_refused or isinstance(answer, Withheld | AnswerUnknown)):
            self.times.answered()
        return answer

    def _on_left(self, attempt_id: UUID, age: timedelta, could_ring_at: datetime) -> None:
        self.times.left(attempt_id, self._now() - could_ring_at)
        self._look_limit.sent(attempt_id, age)
        self._room.sent(attempt_id)

    async def _look(self, attempt: Attempt) -> PermittedOrder | None:
        await self._look_limit.begin(attempt.id)
        found = self._looks.verdict(attempt, await self._look_queries.of(attempt))
        if not isinstance(found, PutBack):
            return found
        await self._threads.run(lambda: self._looks.put_back(attempt, found))
        return None

    async def _look_all(self, attempts: Sequence[Attempt]) -> LookFacts:
        facts = await self._threads.run(lambda: self._looks.look_all(attempts))
        self._watch.took = facts.took
        return facts
