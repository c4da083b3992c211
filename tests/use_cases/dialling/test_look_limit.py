"""At most some calls are between their last look and their first byte. A hanging call delays no other."""

import asyncio
from datetime import timedelta
from uuid import uuid4

from scheduler.use_cases.dialling.look import AT_ONCE, LookLimit

AN_HOUR = timedelta(hours=1)


async def test_next_look_begins_when_a_call_was_sent() -> None:
    limit = LookLimit(AN_HOUR)
    ids = [uuid4() for _ in range(AT_ONCE)]
    for each in ids:
        await limit.begin(each)
    waiting = asyncio.create_task(limit.begin(uuid4()))
    await asyncio.wait([waiting], timeout=0.02)
    assert not waiting.done()
    limit.end(ids[0])
    async with asyncio.timeout(60):
        await waiting


async def test_connecting_call_does_not_delay_other_looks() -> None:
    limit = LookLimit()
    for _ in range(AT_ONCE):
        await limit.begin(uuid4())
    async with asyncio.timeout(60):
        await limit.begin(uuid4())


async def test_repeated_look_counts_once() -> None:
    limit = LookLimit(AN_HOUR)
    mine = uuid4()
    for _ in range(AT_ONCE + 1):
        async with asyncio.timeout(60):
            await limit.begin(mine)
    limit.end(mine)
    limit.end(mine)
    for _ in range(AT_ONCE):
        async with asyncio.timeout(60):
            await limit.begin(uuid4())
    waiting = asyncio.create_task(limit.begin(uuid4()))
    await asyncio.wait([waiting], timeout=0.02)
    assert not waiting.done(), "two ends of one call free one place"
    waiting.cancel()


async def test_call_that_gives_up_leaves_its_place_to_others() -> None:
    limit = LookLimit(AN_HOUR)
    ids = [uuid4() for _ in range(AT_ONCE)]
    for each in ids:
        await limit.begin(each)
    waiting = [asyncio.create_task(limit.begin(uuid4())) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    limit.end(ids[0])
    async with asyncio.timeout(60):
        await waiting[1]
    assert waiting[0].cancelled()
