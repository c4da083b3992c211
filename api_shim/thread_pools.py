"""Thread pools for blocking work. Each kind of work has its own pool, so that one kind cannot exhaust another's."""

import asyncio
import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

from api_shim import out_of_memory
from scheduler.clock import monotonic

T = TypeVar("T")

OVERLOAD_S = 3.0
"""Half a request's deadline. A request with less time left can hardly be answered."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Job:
    work: Callable[[], Any]
    context: Context
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[Any]
    is_taken: threading.Lock = field(default_factory=threading.Lock)
    """Acquired by the thread that begins the work, or by the request that gives it up. Never released."""


class ThreadPool:
    """A fixed number of threads, all started at once. Belongs to one event loop.

    No thread is started later: starting one blocks the loop, and without memory it blocks permanently. After a request
    times out, its thread stays occupied until the work returns, so at most `count` threads wait for a hanging database.

    Work gets threads in the order of its arrival. With `newest_first_below_s`, the newest goes first while the oldest
    has less time left than that: in an overload the order of arrival gives each request its thread shortly before its
    deadline, so that nearly all work is wasted and repeated.
    """

    def __init__(self, name: str, count: int, *, newest_first_below_s: float = -math.inf) -> None:
        self.count = count
        self._free = count
        self._newest_first_below_s = newest_first_below_s
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        """The deadline on the monotonic clock, and what is set when a thread is free. Oldest first."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{name} {n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Run `work` in a thread and return its result. Raises its error, or TimeoutError after `seconds`.

        Work that has not begun by then never begins. Work that has begun runs on and its result is dropped.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            await self._take_thread(loop, monotonic() + seconds)
            result: asyncio.Future[T] = loop.create_future()
            job = _Job(work=work, context=copy_context(), loop=loop, result=result)
            self._jobs.put(job)
            try:
                return await result
            except asyncio.CancelledError:
                if job.is_taken.acquire(blocking=False):
                    self._free_thread()
                raise

    async def _take_thread(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._free:
            self._free -= 1
            return
        turn = loop.create_future()
        self._waiting.append((deadline, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it got a thread at the moment of its timeout
                self._free_thread()
            raise

    def _free_thread(self) -> None:
        while self._waiting:
            deadline, turn = self._waiting[0]
            if not turn.done() and deadline - monotonic() < self._newest_first_below_s:
                _, turn = self._waiting.pop()
            else:
                self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

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
                value = job.context.run(job.work)
            except BaseException as raised:  # noqa: BLE001 - the request raises it
                out_of_memory.end_if(raised)
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed, and no request waits any longer
                # One call for the result and the thread: each call wakes the loop.
                job.loop.call_soon_threadsafe(self._end, job.result, value, error)
            del job, value, error  # an idle thread keeps no data of a request

    def _end(self, result: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
        self._free_thread()
        if result.done():  # the request has given up
            return
        if error is None:
            result.set_result(value)
        else:
            result.set_exception(error)
