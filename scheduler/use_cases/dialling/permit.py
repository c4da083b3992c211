"""The permit of one call: a last look that is fresh enough until the bytes of its POST are sent.

Connecting may take seconds, and the process may be suspended at any time. So the permit is checked twice between look
and POST: once connected, when an old look is repeated, and right before the first byte.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from scheduler.clock import Now, monotonic
from scheduler.lifecycle.policy import LOOK_TO_END, LOOK_TO_SEND
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway
from scheduler.use_cases.dialling.claim import ToSend
from scheduler.use_cases.dialling.look import PermittedOrder
from scheduler.use_cases.dialling.watch import LeaseAlarm

_log = log(__name__)
LOOKS_PER_CALL = 3
Look = Callable[[], Awaitable[PermittedOrder | None]]


class Permit:
    """The gate (`carriers.interface.Gate`) of one call. `look` gives back an attempt that may not be called.

    `on_left` receives the age of the look when the call is sent, and since when the call could ring.
    """

    def __init__(
        self,
        claim: ToSend,
        look: Look,
        alarm: LeaseAlarm,
        now: Now,
        on_left: Callable[[timedelta, datetime], None] = lambda *_: None,
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
        if left_s <= 0:
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
        self._on_left(timedelta(seconds=monotonic() - self._order.looked), self._order.could_ring_at)

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
