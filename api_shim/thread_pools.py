"""Thread pools for blocking work. Each kind of work has its own pool, so that one kind cannot exhaust another's."""

import asyncio
import contextlib
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from api_shim import process
from scheduler.clock import monotonic, remaining_s
from scheduler.persistence.errors import Commit, CommitInDoubt, DatabaseAway
from scheduler.process import watching

P = ParamSpec("P")
T = TypeVar("T")

MAX_S = 6.0
"""Deadline of a request, counted from when its body was received. It is longer than the statement timeout of 5 s: if it
expires, the database is unresponsive."""
OVERLOAD_S = 3.0
"""Half a request's deadline. A request with less time left can hardly be answered."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Job:
    work: Callable[[], Any]
    context: Context
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[Any]
    company: Hashable | None
    is_taken: threading.Lock = field(default_factory=threading.Lock)
    """Acquired by the thread that begins the work, or by the request that gives it up. Never released."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Turn:
    """A request that waits for a thread."""

    deadline: float
    """On the monotonic clock."""
    has_thread: asyncio.Future[None]


_share: ContextVar[Hashable | None] = ContextVar("share", default=None)


def set_share(share: Hashable) -> None:
    """Count the threads of this task, and of all work that it starts later, as those of this company."""
    _share.set(share)


def share() -> Hashable | None:
    """Name the company whose threads this task uses, or None for work of no company."""
    return _share.get()


class ThreadPool:
    """A fixed number of threads, all started at once. Belongs to one event loop.

    No thread is started later: starting one blocks the loop, and without memory it blocks permanently. After a request
    times out, its thread stays occupied until the work returns, so at most `count` threads wait for a hanging database.

    With `has_shares` one company holds at most half of the threads, and a free thread goes to the waiting company that
    got one longest ago. So the load of a company delays no other one by more than the work that others have begun.

    Work of a company gets threads in the order of its arrival. With `newest_first_below_s`, the newest goes first while
    the oldest has less time left than that: in an overload the order of arrival gives each request its thread shortly
    before its deadline, so that nearly all work is wasted and repeated.
    """

    def __init__(
        self, name: str, count: int, *, newest_first_below_s: float = -math.inf, has_shares: bool = False
    ) -> None:
        self.name = name
        self.count = count
        self._free = count
        self._most_of_one = max(1, count // 2) if has_shares else count
        self._newest_first_below_s = newest_first_below_s
        self._held: Counter[Hashable] = Counter()
        """Threads by company. Work of no company may use all."""
        self._waiting: dict[Hashable, deque[_Turn]] = {}
        """By company, each with the oldest first. The company that got a thread longest ago comes first."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{name} {n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Run `work` in a thread and return its result. Raises its error, or TimeoutError after `seconds`.

        Work that has not begun by then never begins. Work that has begun runs on and its result is dropped.
        """
        loop, company = asyncio.get_running_loop(), share()
        async with asyncio.timeout(seconds):
            await self._take_thread(loop, company, monotonic() + seconds)
            result: asyncio.Future[T] = loop.create_future()
            job = _Job(work=work, context=copy_context(), loop=loop, result=result, company=company)
            self._jobs.put(job)
            try:
                return await result
            except asyncio.CancelledError:
                if job.is_taken.acquire(blocking=False):
                    self._free_thread(company)
                raise

    async def _take_thread(self, loop: asyncio.AbstractEventLoop, company: Hashable | None, deadline: float) -> None:
        if self._free and self._may_take(company):
            self._free -= 1
            self._held[company] += 1
            return
        turn = _Turn(deadline=deadline, has_thread=loop.create_future())
        self._waiting.setdefault(company, deque()).append(turn)
        try:
            await turn.has_thread
        except asyncio.CancelledError:
            if not turn.has_thread.cancelled():  # it got a thread at the moment of its timeout
                self._free_thread(company)
            raise

    def _may_take(self, company: Hashable | None) -> bool:
        return company is None or self._held[company] < self._most_of_one

    def _free_thread(self, company: Hashable | None = None) -> None:
        self._free += 1
        self._held[company] -= 1
        if self._held[company] <= 0:
            del self._held[company]
        for waiting in list(self._waiting):
            if self._may_take(waiting) and self._give_thread(waiting):
                return

    def _give_thread(self, company: Hashable | None) -> bool:
        """Give a free thread to a request of this company. False: all have given up."""
        turns = self._waiting.pop(company)
        while turns:
            is_late = turns[0].deadline - monotonic() < self._newest_first_below_s
            turn = turns.pop() if is_late and not turns[0].has_thread.done() else turns.popleft()
            if not turn.has_thread.done():
                turn.has_thread.set_result(None)
                self._free -= 1
                self._held[company] += 1
                if turns:
                    self._waiting[company] = turns  # behind the other companies
                return True
        return False

    def close(self) -> None:
        """Let each thread end after its current work, without waiting for any."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.is_taken.acquire(blocking=False):
                continue
            value = error = None
            try:
                with watching(self.name):
                    value = job.context.run(job.work)
            except BaseException as raised:  # noqa: BLE001 - the request raises it
                process.end_if(raised)
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed, and no request waits any longer
                # One call for the result and the thread: each call wakes the loop.
                job.loop.call_soon_threadsafe(self._end, job, value, error)
            del job, value, error  # an idle thread keeps no data of a request

    def _end(self, job: _Job, value: object, error: BaseException | None) -> None:
        self._free_thread(job.company)
        result = job.result
        if result.done():  # the request has given up
            return
        if error is None:
            result.set_result(value)
        else:
            result.set_exception(error)


# --- The pools of an API process, and use cases that run in their threads until the deadline of the request


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


async def run_in_thread(pool: ThreadPool, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a use case in one of these threads. Raises its errors, and DatabaseAway at the deadline."""
    try:
        return await pool.run(partial(verb, *args, **kwargs), _left_s())
    except TimeoutError as timeout:
        raise DatabaseAway("silence") from timeout


async def run_write(pool: ThreadPool, commit: Commit, write: Callable[[], T]) -> T:
    """Run a use case that writes in one of these threads. `write` must pass `commit` to its transaction.

    Raises its errors, DatabaseAway if it is certain that nothing was or will be committed, and CommitInDoubt.
    """
    try:
        return await run_in_thread(pool, write)
    except DatabaseAway as away:
        if isinstance(away.__cause__, TimeoutError) and not commit.give_up():
            raise CommitInDoubt("silence") from away
        raise


def _left_s() -> float:
    left = remaining_s()
    return MAX_S if left is None else left
