"""Threads for questions that block. Each kind of question has its own, so that one kind cannot use up another's."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

from api_shim import out_of_memory

T = TypeVar("T")

_Question = tuple[Future[Any], Context, Callable[[], Any]]


class ThreadPool:
    """A fixed number of threads, all started at once. Lives in one event loop.

    No thread is started later: a loop that starts one waits for it, and without memory it waits permanently. A request
    that gives up leaves its thread occupied until that thread has returned, so at most `count` of them ever wait for a
    database that hangs.
    """

    def __init__(self, name: str, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._answer, name=f"{name} {n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    async def run(self, question: Callable[[], T], seconds: float) -> T:
        """Return the answer of `question`, or raise its error. Raises TimeoutError after so many seconds.

        A question that has not begun by then never begins. One that has begun runs on; its answer is dropped.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            await self._free.acquire()
            answer: Future[T] = Future()
            answer.add_done_callback(lambda _: self._leave(loop))
            self._questions.put((answer, copy_context(), question))
            return await asyncio.wrap_future(answer)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and no request waits any longer
            loop.call_soon_threadsafe(self._free.release)

    def close(self) -> None:
        """Let each thread end after what it is doing; none is waited for."""
        for _ in self._threads:
            self._questions.put(None)

    def _answer(self) -> None:
        while (asked := self._questions.get()) is not None:
            answer, context, question = asked
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                found = context.run(question)
            except BaseException as error:  # noqa: BLE001 - the request that asked raises it
                out_of_memory.end_if(error)
                answer.set_exception(error)
            else:
                answer.set_result(found)
            del asked, answer, context, question  # an idle thread keeps nothing of a request
