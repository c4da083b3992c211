"""Changed fragments of open pages, as server-sent events. One poller a process, however many browsers watch."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from console.stores.sessions import ConsoleSession
from scheduler.clock import monotonic
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway

_log = log(__name__)
POLL_EVERY_S = 1.5
"""A change is on every open page within 2 s: this interval, a poll and its way to the browser."""
_KEEP_ALIVE_S = 15.0
"""A stream without events sends a comment after this time, so that a vanished browser is noticed."""
MOST_STREAMS = 100
MOST_OF_AN_OPERATOR = 5
"""Streams of one operator, so that others keep theirs. A browser opens six connections to a host over HTTP/1.1, and
needs one of them for pages."""
_AWAY = 503
Fragments: TypeAlias = Mapping[str, str]
"""HTML by the id of the element that contains it."""


@dataclass(frozen=True, kw_only=True)
class Polled:
    """One poll: all fragments, and the sessions that are valid."""

    fragments: Fragments
    session_ids: frozenset[UUID]


@dataclass(eq=False)
class Live:
    """Polls while at least one stream is open."""

    poll: Callable[[], Awaitable[Polled]]
    every_s: float = POLL_EVERY_S
    _streams: Counter[str] = field(default_factory=Counter)
    """Numbers of open streams by the actors of their operators."""
    _last: Polled | None = None
    _number: int = 0
    """Of the last poll. A stream that waits for the next one cannot miss it."""
    _is_stopped: bool = False
    _task: asyncio.Task[None] | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @contextmanager
    def place(self, actor: str) -> Iterator[bool]:
        """Take a place for one stream of an operator and free it at the end. False: the operator or all have the most.

        By actor, because an operator may sign in again for another session. The place is taken at once: a stream begins
        later, so requests of the same instant would all find it free.
        """
        if self._streams.total() >= MOST_STREAMS or self._streams[actor] >= MOST_OF_AN_OPERATOR:
            yield False
            return
        self._streams[actor] += 1
        try:
            yield True
        finally:
            self._streams -= Counter((actor,))  # removes a number that becomes zero
            if not self._streams and self._task is not None:
                self._task.cancel()
                self._task = None

    async def stream(self, session_id: UUID) -> AsyncIterator[bytes]:
        """Yield all fragments first, then each that changes. Ends with the session, and when the process stops.

        Only inside `place`.
        """
        if self._task is None or self._task.done():
            self._last = None  # of an earlier stream
            self._task = asyncio.create_task(self._poll_on(), name="console poller")
        seen: dict[str, str] = {}
        # A poll that began before this may not know the session yet: neither the last one, nor the one that runs now.
        knows_from = self._number + 2
        sent_at = monotonic()
        while not self._is_stopped:
            self._raise_failure()
            polled, number = self._last, self._number
            if polled is not None and session_id in polled.session_ids:
                knows_from = 0
            elif polled is not None and number >= knows_from:
                yield _event("signed-out", "")
                return
            fragments = {} if polled is None else polled.fragments
            for name, html in fragments.items() - seen.items():
                seen[name], sent_at = html, monotonic()
                yield _event(name, html)
            if monotonic() - sent_at >= _KEEP_ALIVE_S:
                sent_at = monotonic()
                yield b": still connected\n\n"
            await self._next(number)

    def stop(self) -> None:
        """End every stream, because the server waits for them before it closes."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()

    def _raise_failure(self) -> None:
        """Raise the error of a poller that has ended. The browser connects again, which starts another one."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def _next(self, number: int) -> None:
        """Wait for the poll after this one, or for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * self.every_s), self._changed:
                await self._changed.wait_for(lambda: self._number != number or self._is_stopped)

    async def _poll_on(self) -> None:
        try:
            while not self._is_stopped:
                await self._poll_once()
                await asyncio.sleep(self.every_s)
        finally:
            await self._tell()

    async def _poll_once(self) -> None:
        try:
            self._last = await self.poll()
        except DatabaseAway:
            _log.warning("console_poll_failed: The counts could not be read; pages keep the last ones.")
            return
        self._number += 1
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class LiveResponse(StreamingResponse):
    """The stream of a session, or a 503 while all places, or those of its operator, are taken."""

    def __init__(self, live: Live, session: ConsoleSession) -> None:
        super().__init__(live.stream(session.id), media_type="text/event-stream")
        self._live = live
        self._actor = session.actor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._live.place(self._actor) as is_free:
            if is_free:
                await super().__call__(scope, receive, send)
            else:
                await Response("Too many pages of the console are open.", _AWAY)(scope, receive, send)


def _event(name: str, html: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in html.splitlines() or [""])
    return f"event: {name}\n{lines}\n".encode()
