"""A value that is computed at most once in a while, however many requests ask for it."""

import asyncio

import pytest

from api_shim.http_metrics import RecentValue


class Ticks:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


class Counter:
    """Counts how often it was asked, and fails once if told so."""

    def __init__(self) -> None:
        self.count = 0
        self.fails = False

    async def __call__(self) -> int:
        await asyncio.sleep(0)  # other requests may run now
        self.count += 1
        if self.fails:
            raise OSError("the database is away")
        return self.count


async def test_value_is_computed_again_only_when_outdated() -> None:
    ticks, counter = Ticks(), Counter()
    recent = RecentValue[int](5.0, ticks)
    assert await recent.get(counter) == 1
    ticks.at += 4.9
    assert await recent.get(counter) == 1
    ticks.at += 0.1
    assert await recent.get(counter) == 2


async def test_concurrent_requests_share_one_computation() -> None:
    counter = Counter()
    recent = RecentValue[int](5.0, Ticks())
    assert await asyncio.gather(*(recent.get(counter) for _ in range(10))) == [1] * 10


async def test_failure_is_raised_and_not_kept() -> None:
    ticks, counter = Ticks(), Counter()
    recent = RecentValue[int](5.0, ticks)
    assert await recent.get(counter) == 1
    ticks.at += 5
    counter.fails = True
    with pytest.raises(OSError, match="away"):
        await recent.get(counter)
    counter.fails = False
    assert await recent.get(counter) == 3


async def test_cancelled_computation_leaves_it_to_the_next() -> None:
    counter = Counter()
    recent = RecentValue[int](5.0, Ticks())
    first = asyncio.create_task(recent.get(counter))
    second = asyncio.create_task(recent.get(counter))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1
