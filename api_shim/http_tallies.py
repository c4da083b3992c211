"""Counts of requests: kept in memory for some seconds, and then added to the tallies, so that no request waits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from scheduler.logs import log
from scheduler.persistence.errors import CommitInDoubt
from scheduler.rules.tallies import HTTP_REQUESTS, HTTP_SECONDS, ONE, OTHER, Amount, Key, folded, key_of, seconds_of

_log = log(__name__)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ADDED_EVERY_S = 3.0
Add = Callable[[Mapping[Key, Amount]], Awaitable[None]]


class HttpTallies:
    """The requests of one process, by route. Used in the event loop only."""

    def __init__(self) -> None:
        self._amounts: dict[Key, Amount] = {}
        self._has_failed = False

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. `route` is the template of its path, never the path, which clients choose."""
        label = f"{method if method in _METHODS else OTHER} {route}"
        for key, amount in (
            (key_of(HTTP_REQUESTS, label, str(status)), ONE),
            (key_of(HTTP_SECONDS, label), seconds_of(HTTP_SECONDS, seconds)),
        ):
            self._amounts[key] = self._amounts[key] + amount if key in self._amounts else amount

    @contextlib.asynccontextmanager
    async def adding(self, add: Add) -> AsyncIterator[None]:
        """Pass the counts to `add` every few seconds, and once more at the end."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._add_until(stop, add), name="tallies")
        try:
            yield
        finally:
            # Not cancelled: a write that has begun would be added again, or lost.
            stop.set()
            await task
            await self.add_now(add)

    async def _add_until(self, stop: asyncio.Event, add: Add) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), ADDED_EVERY_S)
            await self.add_now(add)

    async def add_now(self, add: Add) -> None:
        """Pass the counts to `add` now. After an error they are kept, unless they may have been stored."""
        amounts, self._amounts = self._amounts, {}
        if not amounts:
            return
        try:
            await add(amounts)
        except CommitInDoubt:
            _log.warning("requests_not_counted: it is unknown whether the counts of requests were stored")
        except Exception as error:  # noqa: BLE001 - no request waits for it, and the next one adds them
            self._amounts = folded([*amounts.items(), *self._amounts.items()])
            if not self._has_failed:
                _log.warning("requests_counted_later: the counts of requests could not be stored yet", exc_info=error)
            self._has_failed = True
        else:
            self._has_failed = False
