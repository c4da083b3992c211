"""The limit on calls that are between the start of their last look and their first byte.

Looks share the processor with the event loop that sends. Without a limit, on a busy processor, looks are made faster
than calls are sent, and each look is too old before its call is sent.
"""

import asyncio
from collections import deque
from datetime import timedelta
from uuid import UUID

from scheduler.lifecycle.policy import LOOK_TO_SEND

AT_LEAST = 6
"""The limit at the start and on a slow machine. A lower limit sends less if the database is far away."""
AT_MOST = 50
"""Calls that look together share a query, whose cost per call is negligible at this size.

A higher limit would only make each look older: the last of 50 calls waits until the other 49 are sent.
"""


class LookLimit:
    """Lets some calls at a time look and be sent: as many as leave well before their looks are too old.

    The limit grows by one with each call that is sent in half of the validity of its look, and is halved by each later
    one. So looks are not made faster than calls are sent. Belongs to one event loop.
    """

    def __init__(self, good_for: timedelta = LOOK_TO_SEND) -> None:
        self._good_for = good_for
        self._at_once = AT_LEAST
        self._waiting: deque[tuple[UUID, asyncio.Future[None]]] = deque()
        self._begun: dict[UUID, asyncio.TimerHandle] = {}

    async def begin(self, attempt_id: UUID) -> None:
        """Wait until this call may look. It counts until `end`, but no longer than a look is valid."""
        self.end(attempt_id)
        if not self._waiting and len(self._begun) < self._at_once:
            self._begin(attempt_id)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((attempt_id, turn))
        self._give_places()
        try:
            await turn
        except asyncio.CancelledError:
            self.end(attempt_id)
            raise

    def sent(self, attempt_id: UUID, age: timedelta) -> None:
        """Free the place of a call that was sent, and fit the limit to the age of its look."""
        if age > self._good_for / 2:
            self._lower()
        else:
            self._at_once = min(self._at_once + 1, AT_MOST)
        self.end(attempt_id)

    def end(self, attempt_id: UUID) -> None:
        """Free the place of a call that was sent or will not be sent."""
        end_at = self._begun.pop(attempt_id, None)
        if end_at is not None:
            end_at.cancel()
            self._give_places()

    def _give_places(self) -> None:
        while self._waiting and len(self._begun) < self._at_once:
            attempt_id, turn = self._waiting.popleft()
            if not turn.done():  # it is done if its call has given up
                self._begin(attempt_id)
                turn.set_result(None)

    def _begin(self, attempt_id: UUID) -> None:
        # A slow connection must not delay other calls: its look is repeated once it is connected.
        after_s = self._good_for.total_seconds()
        self._begun[attempt_id] = asyncio.get_running_loop().call_later(after_s, self._expire, attempt_id)

    def _expire(self, attempt_id: UUID) -> None:
        self._lower()
        self.end(attempt_id)

    def _lower(self) -> None:
        self._at_once = max(AT_LEAST, self._at_once // 2)
