"""A value that is expensive to compute and may be a few seconds old."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from scheduler.clock import monotonic

T = TypeVar("T")


class RecentValue(Generic[T]):
    """The last computed value, for requests within `max_age_s` after its computation began.

    Nothing else invalidates it. Requests that arrive during a computation wait for it and share its value. An error
    is raised to the request that computed, and the next request computes again: no older value hides it.
    """

    def __init__(self, max_age_s: float, ticks: Callable[[], float] = monotonic) -> None:
        self._max_age_s = max_age_s
        self._ticks = ticks
        self._lock = asyncio.Lock()
        self._last: tuple[float, T] | None = None

    async def get(self, compute: Callable[[], Awaitable[T]]) -> T:
        """Return the last value while it is recent, else that of `compute`. Raises the errors of `compute`."""
        async with self._lock:
            began = self._ticks()
            if self._last is None or began - self._last[0] >= self._max_age_s:
                self._last = (began, await compute())
            return self._last[1]
