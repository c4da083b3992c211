"""Work gets the API's threads in order, or the newest first in an overload, and a timeout loses no thread."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api_shim.thread_pools import ThreadPool, set_share

LONG_S = 30.0
IN_ORDER, NEWEST_FIRST = -math.inf, math.inf


@asynccontextmanager
async def busy_pool(newest_first_below_s: float) -> AsyncIterator[tuple[ThreadPool, threading.Event]]:
    """Yield a pool whose only thread is busy until the event is set."""
    pool, is_busy, end = (
        ThreadPool("test", 1, newest_first_below_s=newest_first_below_s),
        threading.Event(),
        threading.Event(),
    )

    def work() -> None:
        is_busy.set()
        end.wait(LONG_S)

    first = asyncio.create_task(pool.run(work, LONG_S))
    try:
        await asyncio.to_thread(is_busy.wait, LONG_S)
        yield pool, end
    finally:
        end.set()
        await first
        pool.close()


@pytest.mark.parametrize(
    ("newest_first_below_s", "order"),
    [(IN_ORDER, ["first", "second", "third"]), (NEWEST_FIRST, ["third", "second", "first"])],
)
async def test_newest_work_goes_first_in_an_overload(newest_first_below_s: float, order: list[str]) -> None:
    done: list[str] = []
    async with busy_pool(newest_first_below_s) as (pool, end):
        waiting = []
        for name in ("first", "second", "third"):
            waiting.append(asyncio.create_task(pool.run(lambda name=name: done.append(name), LONG_S)))  # type: ignore[misc]
            await asyncio.sleep(0)  # it takes its place before the next
        end.set()
        await asyncio.gather(*waiting)
    assert done == order


@pytest.mark.parametrize("newest_first_below_s", [IN_ORDER, NEWEST_FIRST])
async def test_timeout_while_waiting_leaves_the_thread_to_others(newest_first_below_s: float) -> None:
    async with busy_pool(newest_first_below_s) as (pool, end):
        served = asyncio.create_task(pool.run(lambda: "served", LONG_S))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await pool.run(lambda: "too late", 0.01)
        end.set()
        assert await served == "served"
        assert await pool.run(lambda: "served too", LONG_S) == "served too"


async def test_cancelled_at_its_turn_passes_the_thread_on() -> None:
    async with busy_pool(IN_ORDER) as (pool, end):
        cancelled = asyncio.create_task(pool.run(lambda: "never", LONG_S))
        await asyncio.sleep(0)
        served = asyncio.create_task(pool.run(lambda: "served", LONG_S))
        await asyncio.sleep(0)
        pool._free_thread()  # a second thread would have become free
        cancelled.cancel()
        end.set()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await served == "served"


async def test_order_of_arrival_holds_while_there_is_time() -> None:
    done: list[str] = []
    async with busy_pool(LONG_S / 2) as (pool, end):
        waiting = []
        for name in ("first", "second"):
            waiting.append(asyncio.create_task(pool.run(lambda name=name: done.append(name), LONG_S)))  # type: ignore[misc]
            await asyncio.sleep(0)
        end.set()
        await asyncio.gather(*waiting)
    assert done == ["first", "second"]


def set_apart(pool: ThreadPool, company: str, work: Callable[[], None]) -> asyncio.Task[None]:
    """Run work of a company, as one of its requests does."""

    async def request() -> None:
        set_share(company)
        await pool.run(work, LONG_S)

    return asyncio.create_task(request())


async def test_company_holds_at_most_half_of_a_pool_with_shares() -> None:
    pool, end = ThreadPool("test", 4, has_shares=True), threading.Event()
    begun, is_begun = list[str](), threading.Semaphore(0)

    def work(name: str) -> None:
        begun.append(name)
        is_begun.release()
        end.wait(LONG_S)

    flood = [set_apart(pool, "a", lambda: work("a")) for _ in range(20)]
    await asyncio.sleep(0)
    other = [set_apart(pool, "b", lambda: begun.append("b")) for _ in range(3)]
    await asyncio.gather(*other)
    for _ in range(2):  # a busy machine starts their threads later
        assert await asyncio.to_thread(is_begun.acquire, timeout=LONG_S)
    assert begun.count("a") == 2
    end.set()
    await asyncio.gather(*flood)
    assert begun.count("a") == 20
    pool.close()


async def test_companies_take_turns_in_a_pool_with_shares() -> None:
    """Two companies with much work use both threads. The single work of a third one is not behind all of theirs."""
    pool = _Noting("test", 2, has_shares=True)
    floods = [set_apart(pool, name, lambda: None) for name in "aacc" * 20]
    third = set_apart(pool, "b", lambda: None)
    await asyncio.gather(third, *floods)
    assert pool.turns.index("b") <= 6
    pool.close()


class _Noting(ThreadPool):
    """Notes the turns in their order. The threads may begin in another one."""

    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        self.turns: list[Hashable] = []

    async def _take_thread(self, loop: asyncio.AbstractEventLoop, company: Hashable | None, deadline: float) -> None:
        await super()._take_thread(loop, company, deadline)
        self.turns.append(company)
