"""Requests that wait until a worker has answered their command: woken over Redis, and by a rare look at the rows."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from scheduler.clock import monotonic
from scheduler.domain.command import Command, CommandState
from scheduler.logs import log
from scheduler.persistence.database import DatabaseAway

_log = log(__name__)
_LOOK_EVERY_S = 5.0
"""For news that was lost although Redis works: a worker died between its commit and the news, for example."""
_LOOK_AROUND_EVERY_S = 0.25
"""How soon a request is released after the doorbell found Redis away; this needs no answer from Redis."""
_SILENCE_S = 1.0
"""After so long without a word Redis is asked whether it is there; it has as long again to say so."""
_CONNECT_AGAIN_S = 0.5
_CANCEL_AGAIN_S = 0.5
_REMEMBERED = 4096
"""So many answered commands are remembered, for those that ask after the news has come."""


class AnswerWaiter:
    """One subscription and one look for all requests of a process that wait. Lives in one event loop.

    `bell_is_away`: the doorbell found Redis away, so that no worker was told.
    `which_answered`: returns those of the commands that are no longer waiting, in one query; may raise DatabaseAway.
    """

    def __init__(
        self,
        redis_url: str,
        channel: str,
        bell_is_away: Callable[[], bool],
        which_answered: Callable[[Sequence[UUID]], Awaitable[Collection[UUID]]],
    ) -> None:
        self._redis_url = redis_url
        self._channel = channel
        self._bell_is_away = bell_is_away
        self._which_answered = which_answered
        self._subscribed = asyncio.Event()
        self._look_now = asyncio.Event()
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
        self._answered: dict[UUID, None] = {}
        self._stops = False

    @property
    def is_away(self) -> bool:
        """Redis would not tell us of an answer, or was not told of the command: nobody should wait."""
        return self._bell_is_away() or not self._subscribed.is_set()

    @property
    def keeps_nobody(self) -> bool:
        """Who asks now is let go at once."""
        return self._stops or self.is_away

    def let_go(self) -> None:
        """The process is about to stop: look at the rows once more, then release every request that waits."""
        self._stops = True
        self._look_now.set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listens from now on. Waits for Redis a moment, not for ever: without it everything is accepted too."""
        tasks = [
            asyncio.create_task(self._keep_listening(), name="waiter"),
            asyncio.create_task(self._keep_looking(), name="lookout"),
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._subscribed.wait(), _SILENCE_S)
        try:
            yield
        finally:
            for task in tasks:
                await end_task(task)

    async def answer_to(self, command: Command, look: Callable[[], Awaitable[Command]], seconds: float) -> Command:
        """The command once it is no longer waiting; as it was, when `seconds` are over or nobody is kept.

        Nothing that is published is missed: news that came before anybody asked is remembered. `look` gives the
        command as its row says; that the database is away then takes nothing back, so it is no error here. It is asked
        once there is an answer, and at the end of the wait.
        """
        ends = monotonic() + seconds
        with self._told_of(command.id) as told:
            while command.state is CommandState.WAITING:
                remaining = ends - monotonic()
                if remaining <= 0 or self.keeps_nobody:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(told.wait(), remaining)
                    told.clear()
                    if command.id not in self._answered:
                        continue
                with contextlib.suppress(DatabaseAway):
                    command = await look()
        return command

    @contextlib.contextmanager
    def _told_of(self, command_id: UUID) -> Iterator[asyncio.Event]:
        told = asyncio.Event()
        if command_id in self._answered:
            told.set()
        others = self._waiting.setdefault(command_id, set())
        others.add(told)
        try:
            yield told
        finally:
            others.discard(told)
            if not others:
                self._waiting.pop(command_id, None)

    async def _keep_looking(self) -> None:
        """Look at the rows of all that wait: every 5 s, and at once when Redis went away or is back."""
        looked_at = monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), _LOOK_AROUND_EVERY_S)
            if not (self._look_now.is_set() or self.keeps_nobody or monotonic() - looked_at >= _LOOK_EVERY_S):
                continue
            self._look_now.clear()
            looked_at = monotonic()
            try:
                if self._waiting:
                    for command_id in await self._which_answered(list(self._waiting)):
                        self._wake(command_id)
            except DatabaseAway:
                pass
            except Exception as error:  # noqa: BLE001 - the next look may be better
                _log.warning("look_failed: Requests that wait could not be looked up.", exc_info=error)
            if self.keeps_nobody:
                self._wake_all()

    async def _keep_listening(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError) as error:
                self._lost(error)
            except Exception as error:  # noqa: BLE001 - whatever it was, the next connection may be better
                _log.exception("the subscription stumbled")
                self._lost(error)
            await asyncio.sleep(_CONNECT_AGAIN_S)

    async def _listen(self) -> None:
        """Hear until the connection breaks. No retries of the library's own: we must know when it is gone."""
        redis = Redis.from_url(
            self._redis_url,
            socket_connect_timeout=_SILENCE_S,
            socket_timeout=_SILENCE_S,
            retry=Retry(NoBackoff(), 0),
        )
        async with redis, redis.pubsub() as subscription:
            await subscription.subscribe(self._channel)
            asked = False
            while True:
                message = await subscription.get_message(timeout=_SILENCE_S)
                if message is None:
                    if asked:
                        raise TimeoutError
                    await _ask_whether_it_is_there(subscription)
                    asked = True
                    continue
                asked = False
                self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._subscribed.set()
            self._look_now.set()
        if message["type"] != "message":
            return
        with contextlib.suppress(ValueError):  # a word that is no id wakes nobody
            self._wake(UUID(bytes.decode(message["data"], errors="replace")))

    def _wake(self, command_id: UUID) -> None:
        self._answered[command_id] = None
        if len(self._answered) > _REMEMBERED:
            del self._answered[next(iter(self._answered))]
        for told in self._waiting.get(command_id, ()):
            told.set()

    def _lost(self, error: Exception) -> None:
        if self._subscribed.is_set():
            _log.warning("Redis is away; commands are accepted and not waited for", exc_info=error)
        self._subscribed.clear()
        self._look_now.set()

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for told in waiting:
                told.set()


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended.

    Once is not enough: a cancellation that comes together with what the task waits for can be swallowed there, by
    `asyncio.wait_for` or by the Redis client, and the server would never stop.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)


async def _ask_whether_it_is_there(subscription: PubSub) -> None:
    await subscription.ping()
