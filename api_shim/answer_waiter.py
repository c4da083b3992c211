"""Requests that wait for a worker to apply their command, woken over Redis, and the reads that follow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from api_shim.thread_pools import MAX_S, ThreadPool, run_in_thread
from scheduler.clock import deadline_in, monotonic
from scheduler.domain.command import Command, CommandState
from scheduler.domain.principal import Principal
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.inbox import FoundOrError
from scheduler.use_cases.shared.access import found_command

_log = log(__name__)
_QUERY_EVERY_S = 5.0
"""Interval of queries for results whose notification was lost, for example because a worker died after its commit."""
_CHECK_EVERY_S = 0.25
"""Interval of local checks: requests are released this soon after a hint could not be sent. Needs no reply of Redis."""
_SILENCE_S = 1.0
"""After this long without a message the connection is pinged. The reply may take as long again."""
_CONNECT_AGAIN_S = 0.5
_CANCEL_AGAIN_S = 0.5
_REMEMBERED = 4096
"""Number of applied commands to remember, for requests that begin to wait after the notification."""


class AnswerWaiter:
    """One subscription and one periodic query for all waiting requests of a process. Belongs to one event loop.

    `hints_are_away`: whether Redis was unavailable for hints, so that workers do not know of the command.
    `which_answered`: returns the commands that are no longer waiting, in one query. May raise DatabaseAway.
    """

    def __init__(
        self,
        redis_url: str,
        channel: str,
        hints_are_away: Callable[[], bool],
        which_answered: Callable[[Sequence[UUID]], Awaitable[Collection[UUID]]],
    ) -> None:
        self._redis_url = redis_url
        self._channel = channel
        self._hints_are_away = hints_are_away
        self._which_answered = which_answered
        self._subscribed = asyncio.Event()
        self._query_now = asyncio.Event()
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
        self._answered: dict[UUID, None] = {}
        self._stops = False

    @property
    def is_away(self) -> bool:
        """True if Redis cannot deliver hints or notifications, so that waiting is useless."""
        return self._hints_are_away() or not self._subscribed.is_set()

    @property
    def is_off(self) -> bool:
        """True if requests are answered immediately instead of waiting."""
        return self._stops or self.is_away

    def let_go(self) -> None:
        """Query the results once more, then release every waiting request. Called before the process stops."""
        self._stops = True
        self._query_now.set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Run the subscription and the queries. Waits at most 1 s for Redis: the API also works without it."""
        tasks = [
            asyncio.create_task(self._keep_listening(), name="waiter"),
            asyncio.create_task(self._keep_looking(), name="lookups"),
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._subscribed.wait(), _SILENCE_S)
        try:
            yield
        finally:
            for task in tasks:
                await end_task(task)

    async def answer_to(self, command: Command, look: Callable[[], Awaitable[Command]], seconds: float) -> Command:
        """Wait until the command is applied and return it. Returns it unchanged after `seconds`, or without Redis.

        Notifications that came before the request began to wait are remembered, so none is missed. `look` reads the
        command from the database, after a notification and at the end of the wait. Its DatabaseAway is ignored: the
        command is accepted either way.
        """
        ends = monotonic() + seconds
        with self._waiting_for(command.id) as notified:
            while command.state is CommandState.WAITING:
                remaining = ends - monotonic()
                if remaining <= 0 or self.is_off:
                    break
                with contextlib.suppress(TimeoutError):
                    # Not `wait_for`: it starts a task for each wait.
                    async with asyncio.timeout(remaining):
                        await notified.wait()
                    notified.clear()
                    if command.id not in self._answered:
                        continue
                with contextlib.suppress(DatabaseAway):
                    command = await look()
        return command

    @contextlib.contextmanager
    def _waiting_for(self, command_id: UUID) -> Iterator[asyncio.Event]:
        notified = asyncio.Event()
        if command_id in self._answered:
            notified.set()
        events = self._waiting.setdefault(command_id, set())
        events.add(notified)
        try:
            yield notified
        finally:
            events.discard(notified)
            if not events:
                self._waiting.pop(command_id, None)

    async def _keep_looking(self) -> None:
        """Query all awaited commands every 5 s, and immediately when Redis becomes unavailable or available."""
        queried_at = monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._query_now.wait(), _CHECK_EVERY_S)
            if not (self._query_now.is_set() or self.is_off or monotonic() - queried_at >= _QUERY_EVERY_S):
                continue
            self._query_now.clear()
            queried_at = monotonic()
            try:
                if self._waiting:
                    for command_id in await self._which_answered(list(self._waiting)):
                        self._wake(command_id)
            except DatabaseAway:
                pass
            except Exception as error:  # noqa: BLE001 - the next query may succeed
                _log.warning("look_failed: The commands of waiting requests could not be queried.", exc_info=error)
            if self.is_off:
                self._wake_all()

    async def _keep_listening(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError) as error:
                self._lost(error)
            except Exception as error:  # noqa: BLE001 - the next connection may work
                _log.exception("subscription_failed: The Redis subscription failed with an unexpected error.")
                self._lost(error)
            await asyncio.sleep(_CONNECT_AGAIN_S)

    async def _listen(self) -> None:
        """Receive notifications until the connection breaks. The library must not retry: requests must be released."""
        redis = Redis.from_url(
            self._redis_url, socket_connect_timeout=_SILENCE_S, socket_timeout=_SILENCE_S, retry=Retry(NoBackoff(), 0)
        )
        async with redis, redis.pubsub() as subscription:
            await subscription.subscribe(self._channel)
            is_pinged = False
            while True:
                message = await subscription.get_message(timeout=_SILENCE_S)
                if message is None:
                    if is_pinged:
                        raise TimeoutError
                    await _ping(subscription)
                    is_pinged = True
                    continue
                is_pinged = False
                self._receive(message)

    def _receive(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._subscribed.set()
            self._query_now.set()
        if message["type"] != "message":
            return
        with contextlib.suppress(ValueError):  # ignore a message that is not an id
            self._wake(UUID(bytes.decode(message["data"], errors="replace")))

    def _wake(self, command_id: UUID) -> None:
        self._answered[command_id] = None
        if len(self._answered) > _REMEMBERED:
            del self._answered[next(iter(self._answered))]
        for notified in self._waiting.get(command_id, ()):
            notified.set()

    def _lost(self, error: Exception) -> None:
        if self._subscribed.is_set():
            _log.warning("waiting_off: Redis was unavailable, so requests do not wait for results.", exc_info=error)
        self._subscribed.clear()
        self._query_now.set()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for notified in events:
                notified.set()


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel a task repeatedly until it has ended.

    `asyncio.wait_for` and the Redis client can swallow a cancellation that coincides with the awaited event, and the
    server would never stop.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)


async def _ping(subscription: PubSub) -> None:
    await subscription.ping()


# --- Reads of commands by requests that have waited for them: one for all requests of a client at a time


_TURN_S = 0.25
"""Longest wait for the client's previous read, so that a connection that hangs delays only its own requests."""

_Found = Mapping[UUID, FoundOrError]
_Client = tuple[UUID, UUID | None]
"""Principal and company: PostgreSQL shows one transaction the rows of one client."""


@dataclass(kw_only=True, eq=False)
class _Read:
    command_ids: dict[UUID, None] = field(default_factory=dict)
    task: asyncio.Task[_Found]


class CommandReads:
    """Belongs to one event loop. `find_all` finds commands of a principal in one transaction.

    A worker applies commands together, so their notifications arrive together. Requests that are notified while the
    client's previous read runs share the next one. None waits for others to be notified.
    """

    def __init__(self, threads: ThreadPool, find_all: Callable[[Principal, Sequence[UUID]], _Found]) -> None:
        self._threads = threads
        self._find_all = find_all
        self._next: dict[_Client, _Read] = {}
        """Reads that have not begun."""
        self._latest: dict[_Client, asyncio.Task[_Found]] = {}

    async def find(self, principal: Principal, command_id: UUID) -> Command:
        """Find the command as of now. Raises the errors of `Submit.find`."""
        client = principal.id, principal.company_id
        read = self._next.get(client) or self._begin(client, principal)
        read.command_ids[command_id] = None
        found = await asyncio.shield(read.task)  # others may wait for it
        return found_command(found.get(command_id), str(command_id))

    def _begin(self, client: _Client, principal: Principal) -> _Read:
        # In a context of its own: deadline and trace id of the first request are not those of the others.
        running = self._run(client, principal, self._latest.get(client))
        task = asyncio.get_running_loop().create_task(running, name="command read", context=Context())
        task.add_done_callback(lambda _: self._ended(client, task))
        self._latest[client] = task
        read = self._next[client] = _Read(task=task)
        return read

    async def _run(self, client: _Client, principal: Principal, previous: asyncio.Task[_Found] | None) -> _Found:
        if previous is not None:
            await asyncio.wait([previous], timeout=_TURN_S)
        read = self._next.pop(client)
        with deadline_in(MAX_S):
            return await run_in_thread(self._threads, self._find_all, principal, list(read.command_ids))

    def _ended(self, client: _Client, task: asyncio.Task[_Found]) -> None:
        if self._latest.get(client) is task:
            del self._latest[client]
        if not task.cancelled():
            task.exception()  # requests raise it, unless all of them have given up
