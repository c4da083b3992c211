"""Queries of last looks: calls that look at about the same time share one query.

A query for each call would cost a round trip a call, which is most of the cost of a look.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from scheduler.domain.attempt import Attempt
from scheduler.use_cases.dialling.last_look import LookFacts

_WAIT_S = 0.02
"""The longest wait for a running query. A hanging query must not delay the looks of other calls."""
Query = Callable[[Sequence[Attempt]], Awaitable[LookFacts]]


class LookQueries:
    """Collects the calls that look while a query is running, and looks for all of them in the next one.

    A single call waits for no other. `LookLimit` bounds the size of a query. Belongs to one event loop.
    """

    def __init__(self, query: Query) -> None:
        self._query = query
        self._attempts: list[Attempt] = []
        self._next: asyncio.Task[LookFacts] | None = None
        """The query for `_attempts`, not yet sent. None without attempts."""
        self._running: set[asyncio.Task[LookFacts]] = set()

    async def of(self, attempt: Attempt) -> LookFacts:
        """Return facts that are read after this call. Raises the error of the query, which all its calls receive."""
        self._attempts.append(attempt)
        if self._next is None:
            self._next = asyncio.create_task(self._run())
        # A call that gives up must not cancel the query of the others.
        return await asyncio.shield(self._next)

    async def _run(self) -> LookFacts:
        if self._running:
            await asyncio.wait(self._running, timeout=_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        query, attempts = self._next, self._attempts
        assert query is not None
        self._next, self._attempts = None, []
        self._running.add(query)
        try:
            return await self._query(attempts)
        finally:
            self._running.discard(query)
