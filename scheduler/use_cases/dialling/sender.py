"""Calls out: one task for each claimed call, from its last look to the answer of its only POST."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import UUID

from scheduler.carriers.interface import CallPlacer
from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import AnswerUnknown, CallOrder, CarrierAnswer, NeverTaken, Withheld
from scheduler.failpoints import failpoint
from scheduler.lifecycle.capacity import in_step, look_waits
from scheduler.lifecycle.policy import LOOK_TO_END, LOOK_TO_SEND, LOOKS_TOGETHER, SEND_SPAN
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway
from scheduler.use_cases.dialling.claim import ToSend
from scheduler.use_cases.dialling.claimer import Room
from scheduler.use_cases.dialling.look import LookFacts, LookLimit, LookQueries, Looks, PermittedOrder, PutBack
from scheduler.use_cases.dialling.record import Recorder
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
            if monotonic() >= claim.send_by:  # guard: late_claim
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

    async def _place(self, attempt_id: UUID, order: CallOrder, permit: "Permit") -> CarrierAnswer:
        with self.times.in_flight(attempt_id):
            answer = await self._line.place(order, permit)
        if not (permit.has_refused or isinstance(answer, Withheld | AnswerUnknown)):
            self.times.answered()
        return answer

    def _on_left(self, attempt_id: UUID, order: PermittedOrder) -> None:
        self.times.left(attempt_id, self._now() - order.could_ring_at, order.look)
        self._look_limit.end(attempt_id)
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


# --- The permit of one call: a last look that is fresh enough until the bytes of its POST are sent
# Connecting may take seconds, and the process may be suspended at any time. So the permit is checked twice between look
# and POST: once connected, when an old look is repeated, and right before the first byte.


LOOKS_PER_CALL = 3
Look = Callable[[], Awaitable[PermittedOrder | None]]


class Permit:
    """The gate (`carriers.interface.Gate`) of one call. `look` gives back an attempt that may not be called.

    `on_left` receives the order when the call is sent.
    """

    def __init__(
        self,
        claim: ToSend,
        look: Look,
        alarm: LeaseAlarm,
        now: Now,
        on_left: Callable[[PermittedOrder], None] = lambda _: None,
    ) -> None:
        self._claim = claim
        self._look = look
        self._alarm = alarm
        self._now = now
        self._on_left = on_left
        self._looks_left = LOOKS_PER_CALL
        self._order: PermittedOrder | None = None
        self.is_given_back = False
        """A look gave the attempt back, or found that it belongs to another worker. Nothing is left to do."""
        self.is_too_late = False
        """The claim's time for sending is over. The attempt must be given back while its lease lasts."""
        self.has_refused = False
        """True if the most recent POST was stopped before its first byte."""
        self.look_failed = False
        """A look raised an error. Nothing was sent, and the attempt must be given back."""

    async def order(self) -> PermittedOrder | None:
        """Obtain the order to send now. None: it was given back, a look failed, or no look was fresh enough."""
        self.has_refused = False
        if self.is_given_back or self.look_failed or self.is_too_late:
            return None
        while self._order is None or not self.is_fresh():
            if self._looks_left == 0:
                return None
            self._looks_left -= 1
            if not await self._looks_again():
                return None
        return self._order

    async def _looks_again(self) -> bool:
        left_s = self._claim.send_by - monotonic()
        if left_s <= 0:  # guard: send_by
            self.is_too_late = True
            return False
        try:
            # Limited, because a look that hangs until the lease ends would end the process.
            async with asyncio.timeout(left_s):
                self._order = await self._look()
        except TimeoutError:
            self.is_too_late = True
        except DatabaseAway:
            self.look_failed = True
        except Exception:  # noqa: BLE001 - logged; nothing was sent, and the loop goes on for the other calls
            _log.exception(
                "last_look_failed: an unexpected error stopped a last look, and the attempt goes back to PENDING",
                attempt_id=str(self._claim.attempt.id),
            )
            self.look_failed = True
        else:
            self.is_given_back = self._order is None
        return not (self.look_failed or self.is_given_back or self.is_too_late)

    async def connected(self) -> bool:
        """Look again if connecting took too long. An order that has changed since is not sent."""
        before = self._order
        may_go_on = before is not None and await self.order() == before
        self.has_refused = not may_go_on
        return may_go_on

    def may_leave(self) -> bool:
        """Check once more with the kernel's timer running, so that a freeze after the check ends the process."""
        order = self._order
        if order is None:
            return False
        good_for = min(LOOK_TO_END, order.leave_by - order.looked_at).total_seconds()
        ends = min(self._claim.lease_ends, order.looked + good_for)
        self._alarm.hold(self._claim.attempt.id, ends)  # guard: frozen_unsent
        self.has_refused = not self.is_fresh()
        if self.has_refused:
            self._alarm.hold(self._claim.attempt.id, self._claim.lease_ends)
        return not self.has_refused

    def left(self) -> None:
        """Set the timer back to the lease: it must not end the process while the answer is on its way."""
        self._alarm.hold(self._claim.attempt.id, self._claim.lease_ends)
        assert self._order is not None
        self._on_left(self._order)

    def is_fresh(self) -> bool:
        """Check both clocks: in a paused virtual machine the monotonic clock stops, and later the wall clock jumps."""
        order = self._order
        assert order is not None
        good_for = (
            LOOK_TO_SEND,
            order.leave_by - order.looked_at,  # guard: leave_by
        )
        ages = (
            timedelta(seconds=monotonic() - order.looked),  # guard: look_age
            self._now() - order.looked_at,  # guard: look_age_by_wall
        )
        return max(ages) <= min(good_for)
