"""The limit on calls that are between the start of their last look and their first byte.

Looks share the processor with the event loop that sends. Without a limit, on a busy processor, looks are made faster
than calls are sent, and each look is too old before its call is sent.
"""

import asyncio
from datetime import timedelta
from uuid import UUID

from scheduler.lifecycle.policy import LOOK_TO_SEND

AT_ONCE = 6
"""A higher limit makes each look older without sending more. A lower limit sends less if the database is far away."""


class LookLimit:
    """Lets `AT_ONCE` calls at a time look and be sent. Belongs to one event loop."""

    def __init__(self, good_for: timedelta = LOOK_TO_SEND) -> None:
        self._good_for_s = good_for.total_seconds()
        self._free = asyncio.Semaphore(AT_ONCE)
        self._begun: dict[UUID, asyncio.TimerHandle] = {}

    async def begin(self, attempt_id: UUID) -> None:
        """Wait until this call may look. It counts until `end`, but no longer than a look is valid."""
        self.end(attempt_id)
        await self._free.acquire()
        # A slow connection must not delay other calls: its look is repeated once it is connected.
        end_at = asyncio.get_running_loop().call_later(self._good_for_s, self.end, attempt_id)
        self._begun[attempt_id] = end_at

    def end(self, attempt_id: UUID) -> None:
        """Free the place of a call that was sent or will not be sent."""
        end_at = self._begun.pop(attempt_id, None)
        if end_at is not None:
            end_at.cancel()
            self._free.release()
