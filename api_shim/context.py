"""What one API process holds while it runs, and how a route asks the use cases without stopping the others."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar, cast
from uuid import UUID

from starlette.requests import HTTPConnection

from api_shim.answer_waiter import AnswerWaiter
from api_shim.rate_limits import RateLimits
from api_shim.thread_pools import ThreadPool
from scheduler.assembly import ApiUseCases
from scheduler.deadline import deadline_in, remaining_s
from scheduler.domain.key import Key
from scheduler.logs import log
from scheduler.persistence.commits import Commit, Outcome
from scheduler.persistence.database import CommitInDoubt, DatabaseAway
from workers.presence import Presence

P = ParamSpec("P")
T = TypeVar("T")

_log = log(__name__)
MAX_S = 6.0
"""A request's deadline, counted from when its body was received. A statement ends after 5 s, so a request that has no
answer by then speaks to a database that is frozen."""
DOUBT_S = 3.0
"""So long a commit in doubt is asked about, after the deadline too: the client gets a certain answer, if possible."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5


@dataclass(frozen=True, kw_only=True)
class ThreadPools:
    """The threads of one API process, by what they are for; `assembly.doors` has the connections of each.

    Carriers, health checks and key checks must get their answers however many requests wait or come without a key.
    """

    requests: ThreadPool
    """Requests with a valid key. As many as the database keeps connections: more would only wait for one."""
    keys: ThreadPool
    callbacks: ThreadPool
    health: ThreadPool
    strangers: ThreadPool
    """Requests that need no key: metrics and invitations."""
    lookout: ThreadPool
    """Answers that requests wait for, and commits in doubt."""

    @classmethod
    def open(cls) -> "ThreadPools":
        return cls(
            requests=ThreadPool("requests", 8),
            keys=ThreadPool("keys", 2),
            callbacks=ThreadPool("callbacks", 3),
            health=ThreadPool("health", 1),
            strangers=ThreadPool("strangers", 2),
            lookout=ThreadPool("lookout", 2),
        )

    def close(self) -> None:
        for places in (self.requests, self.keys, self.callbacks, self.health, self.strangers, self.lookout):
            places.close()


@dataclass(frozen=True, kw_only=True)
class AppContext:
    """Made once, inside the event loop that serves."""

    doors: ApiUseCases
    waiter: AnswerWaiter
    schema_head: str | None
    """The migration that this release was made for."""
    rooms: ThreadPools
    rate_limits: RateLimits
    presence: Presence
    """Which workers and clocks are live."""
    instance: str | None = None
    """Which `duecall up` runs it, if one does."""
    notes: dict[UUID, asyncio.Task[None]] = field(default_factory=dict)
    """What is being written down of each key, while nobody waits for it."""

    async def ask(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask a use case that changes nothing. Raises what it raises; DatabaseAway at the deadline."""
        return await asked(self.rooms.requests, verb, *args, **kwargs)

    async def write(self, commit: Commit, write: Callable[[], T]) -> T:
        """Have a use case write. `write` must pass `commit` to its transaction.

        Raises what it raises; DatabaseAway when it is certain that nothing was and will be committed; CommitInDoubt.
        """
        return await written(self.rooms.requests, commit, write)

    async def outcome(self, commit: Commit) -> Outcome:
        """Ask how a commit in doubt ended, over another connection, until that is certain; for 3 s at most."""
        if commit.transaction_id is None:
            return Outcome.UNKNOWN
        pause = _FIRST_PAUSE_S
        with deadline_in(DOUBT_S):
            while (left := remaining_s()) is not None and left > 0:
                try:
                    outcome = await asked(self.rooms.lookout, self.doors.lookout.outcome_of, commit.transaction_id)
                except DatabaseAway:
                    outcome = Outcome.UNKNOWN
                if outcome is not Outcome.UNKNOWN:
                    return outcome
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
        return Outcome.UNKNOWN

    def note_use(self, key: Key) -> None:
        """Write down that the key is used, if that is news; off the request's path."""
        key_id = key.principal.key_id
        if key_id not in self.notes and self.doors.keys.is_news(key):
            self.notes[key_id] = asyncio.create_task(self._write_use(key), name="note")

    async def _write_use(self, key: Key) -> None:
        try:
            with deadline_in(MAX_S):
                await asked(self.rooms.keys, self.doors.keys.used, key.principal)
        except Exception as error:  # noqa: BLE001 - nobody asked for it, and the next use writes it again
            _log.warning("that a key was used could not be written", exc_info=error)
        finally:
            del self.notes[key.principal.key_id]


async def asked(places: ThreadPool, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Ask a use case in one of these threads. Raises what it raises; DatabaseAway at the deadline."""
    try:
        return await places.run(partial(verb, *args, **kwargs), _left_s())
    except TimeoutError as silence:
        raise DatabaseAway("silence") from silence


async def written(places: ThreadPool, commit: Commit, write: Callable[[], T]) -> T:
    """Have a use case write in one of these threads; see `AppContext.write`."""
    try:
        return await asked(places, write)
    except DatabaseAway as away:
        if isinstance(away.__cause__, TimeoutError) and not commit.give_up():
            raise CommitInDoubt("silence") from away
        raise


def _left_s() -> float:
    left = remaining_s()
    return MAX_S if left is None else left


def app_context(connection: HTTPConnection) -> AppContext:
    """The house that this request came into."""
    return cast("AppContext", connection.app.state.app_context)
