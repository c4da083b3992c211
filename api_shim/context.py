"""The resources of one API process, and the threads in which routes run use cases."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar, cast
from uuid import UUID

from starlette.requests import HTTPConnection

from api_shim.answer_waiter import AnswerWaiter
from api_shim.assembly import ApiUseCases
from api_shim.batch_body import Uploads
from api_shim.http_metrics import RecentValue
from api_shim.rate_limits import RateLimits
from api_shim.thread_pools import OVERLOAD_S, ThreadPool
from scheduler.clock import deadline_in, remaining_s
from scheduler.domain.command import Command
from scheduler.domain.principal import Key, Principal
from scheduler.logs import log
from scheduler.persistence.carrier_events import NewCarrierEvent
from scheduler.persistence.errors import Commit, CommitInDoubt, DatabaseAway, Outcome
from workers.liveness import Presence

P = ParamSpec("P")
T = TypeVar("T")

_log = log(__name__)
MAX_S = 6.0
"""Deadline of a request, counted from when its body was received. It is longer than the statement timeout of 5 s: if it
expires, the database is unresponsive."""
DOUBT_S = 3.0
"""Time to determine the outcome of a commit in doubt, after the deadline too: the client needs a certain answer."""
COUNTED_EVERY_S = 5.0
"""Shortest time between two counts for `/metrics` in one process, however many clients read it."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5


@dataclass(frozen=True, kw_only=True)
class ThreadPools:
    """The threads of one API process, by purpose. `ApiUseCases` has the database connections of each.

    Carrier callbacks, health checks and key checks must be served however many requests wait or have no key.
    """

    requests: ThreadPool
    """Requests with a valid key. One thread per database connection: more would only wait for a connection."""
    batches: ThreadPool
    """Bodies of batches are read one after the other for each company: one can take seconds and half a gigabyte."""
    keys: ThreadPool
    callbacks: ThreadPool
    health: ThreadPool
    without_key: ThreadPool
    """Requests that need no key: metrics and invitations."""
    lookups: ThreadPool
    """Queries for results that requests wait for, and for commits in doubt."""

    @classmethod
    def open(cls) -> "ThreadPools":
        return cls(
            requests=ThreadPool("requests", 8, newest_first_below_s=OVERLOAD_S, has_shares=True),
            batches=ThreadPool("batches", 2, has_shares=True),
            keys=ThreadPool("keys", 2, newest_first_below_s=OVERLOAD_S),
            callbacks=ThreadPool("callbacks", 3),
            health=ThreadPool("health", 1),
            without_key=ThreadPool("without key", 2),
            lookups=ThreadPool("lookups", 2),
        )

    def close(self) -> None:
        for pool in (
            self.requests,
            self.batches,
            self.keys,
            self.callbacks,
            self.health,
            self.without_key,
            self.lookups,
        ):
            pool.close()


@dataclass(frozen=True, kw_only=True)
class AppContext:
    """The resources of one API process. Created once, inside the event loop that serves."""

    use_cases: ApiUseCases
    waiter: AnswerWaiter
    schema_head: str
    """The migration that this version needs."""
    threads: ThreadPools
    store_callback: Callable[[NewCarrierEvent], Awaitable[None]]
    """See `CallbackBatches.store`."""
    find_command: Callable[[Principal, UUID], Awaitable[Command]]
    """See `CommandReads.find`."""
    rate_limits: RateLimits
    presence: Presence
    """Reports which workers and clocks are live."""
    uploads: Uploads = field(default_factory=Uploads)
    instance: str | None = None
    """Id of the `duecall up` that runs this process, if any."""
    counted: RecentValue[bytes] = field(default_factory=lambda: RecentValue(COUNTED_EVERY_S))
    """The rendered counts of `/metrics`, over all companies."""
    reached: set[tuple[UUID, UUID]] = field(default_factory=set)
    """ATS principals with companies that they have created, as far as this process knows. Neither changes."""
    notes: dict[UUID, asyncio.Task[None]] = field(default_factory=dict)
    """Background tasks that store the last use of a key, by key id."""

    async def ask(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a use case that changes nothing. Raises its errors, and DatabaseAway at the deadline."""
        return await run_in_thread(self.threads.requests, verb, *args, **kwargs)

    async def write(self, commit: Commit, write: Callable[[], T]) -> T:
        """Run a use case that writes. `write` must pass `commit` to its transaction.

        Raises its errors, DatabaseAway if it is certain that nothing was or will be committed, and CommitInDoubt.
        """
        return await run_write(self.threads.requests, commit, write)

    async def outcome(self, commit: Commit) -> Outcome:
        """Determine over another connection how a commit in doubt ended, for at most 3 s."""
        if commit.transaction_id is None:
            return Outcome.UNKNOWN
        pause = _FIRST_PAUSE_S
        with deadline_in(DOUBT_S):
            while (left := remaining_s()) is not None and left > 0:
                try:
                    outcome = await run_in_thread(
                        self.threads.lookups, self.use_cases.command_lookup.outcome_of, commit.transaction_id
                    )
                except DatabaseAway:
                    outcome = Outcome.UNKNOWN
                if outcome is not Outcome.UNKNOWN:
                    return outcome
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
        return Outcome.UNKNOWN

    def note_use(self, key: Key) -> None:
        """Store in the background that the key was used, if the stored time is too old."""
        key_id = key.principal.key_id
        if key_id not in self.notes and self.use_cases.keys.must_record_use(key):
            self.notes[key_id] = asyncio.create_task(self._write_use(key), name="note")

    async def _write_use(self, key: Key) -> None:
        try:
            with deadline_in(MAX_S):
                await run_in_thread(self.threads.keys, self.use_cases.keys.used, key.principal)
        except Exception as error:  # noqa: BLE001 - no request waits for it, and the next use tries again
            _log.warning("key_use_not_stored: The last use of an API key could not be stored.", exc_info=error)
        finally:
            del self.notes[key.principal.key_id]


async def run_in_thread(pool: ThreadPool, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a use case in one of these threads. Raises its errors, and DatabaseAway at the deadline."""
    try:
        return await pool.run(partial(verb, *args, **kwargs), _left_s())
    except TimeoutError as timeout:
        raise DatabaseAway("silence") from timeout


async def run_write(pool: ThreadPool, commit: Commit, write: Callable[[], T]) -> T:
    """Run a use case that writes in one of these threads. See `AppContext.write`."""
    try:
        return await run_in_thread(pool, write)
    except DatabaseAway as away:
        if isinstance(away.__cause__, TimeoutError) and not commit.give_up():
            raise CommitInDoubt("silence") from away
        raise


def _left_s() -> float:
    left = remaining_s()
    return MAX_S if left is None else left


def app_context(connection: HTTPConnection) -> AppContext:
    """Get the resources of the process that serves this request."""
    return cast("AppContext", connection.app.state.app_context)
