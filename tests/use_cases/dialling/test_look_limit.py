"""At most some calls are between their last look and their first byte. A hanging call delays no other."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

from scheduler.use_cases.dialling.look import AT_LEAST, AT_MOST, LookLimit

AN_HOUR = timedelta(hours=1)
IN_TIME, LATE = AN_HOUR / 2, AN_HOUR / 2 + timedelta.resolution


async def test_next_look_begins_when_a_call_was_sent() -> None:
    limit = LookLimit(AN_HOUR)
    ids = [uuid4() for _ in range(AT_LEAST)]
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
    for _ in range(AT_LEAST):
        await limit.begin(uuid4())
    async with asyncio.timeout(60):
        await limit.begin(uuid4())


async def test_repeated_look_counts_once() -> None:
    limit = LookLimit(AN_HOUR)
    mine = uuid4()
    for _ in range(AT_LEAST + 1):
        async with asyncio.timeout(60):
            await limit.begin(mine)
    limit.end(mine)
    limit.end(mine)
    for _ in range(AT_LEAST):
        async with asyncio.timeout(60):
            await limit.begin(uuid4())
    waiting = asyncio.create_task(limit.begin(uuid4()))
    await asyncio.wait([waiting], timeout=0.02)
    assert not waiting.done(), "two ends of one call free one place"
    waiting.cancel()


async def begun(limit: LookLimit) -> list[UUID]:
    """Begin looks until one has to wait. Return those that did not."""
    ids: list[UUID] = []
    while await begins(limit, each := uuid4()):
        ids.append(each)
    return ids


async def begins(limit: LookLimit, attempt_id: UUID) -> bool:
    """Begin a look if it need not wait."""
    beginning = asyncio.create_task(limit.begin(attempt_id))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if beginning.done():
        return True
    beginning.cancel()
    await asyncio.wait([beginning])
    return False


async def sent(limit: LookLimit, age: timedelta, calls: int = 1) -> None:
    for _ in range(calls):
        await limit.begin(each := uuid4())
        limit.sent(each, age)


async def test_limit_grows_with_calls_that_are_sent_in_time() -> None:
    limit = LookLimit(AN_HOUR)
    await sent(limit, IN_TIME)
    ids = await begun(limit)
    assert len(ids) == AT_LEAST + 1
    for each in ids:
        limit.end(each)
    await sent(limit, IN_TIME, calls=2 * AT_MOST)
    assert len(await begun(limit)) == AT_MOST


async def test_limit_shrinks_with_calls_that_are_sent_late() -> None:
    limit = LookLimit(AN_HOUR)
    await sent(limit, IN_TIME, calls=AT_MOST)
    await sent(limit, LATE)
    ids = await begun(limit)
    assert len(ids) == AT_MOST // 2
    for each in ids:
        limit.sent(each, LATE)
    assert len(await begun(limit)) == AT_LEAST


async def test_lowered_limit_also_counts_calls_that_look() -> None:
    limit = LookLimit(AN_HOUR)
    await sent(limit, IN_TIME, calls=AT_MOST)
    ids = await begun(limit)
    limit.sent(ids.pop(), LATE)
    while len(ids) >= AT_MOST // 2:
        assert not await begins(limit, uuid4())
        limit.end(ids.pop())
    assert await begins(limit, uuid4())


async def test_looks_that_became_too_old_lower_the_limit() -> None:
    limit = LookLimit(timedelta(seconds=2))
    await sent(limit, timedelta(), calls=AT_MOST)
    ids = await begun(limit)
    async with asyncio.timeout(60):
        await limit.begin(uuid4())
    assert len(ids) == AT_MOST
    assert len(await begun(limit)) < AT_MOST // 2


async def test_call_that_gives_up_leaves_its_place_to_others() -> None:
    limit = LookLimit(AN_HOUR)
    ids = await begun(limit)
    waiting = [asyncio.create_task(limit.begin(uuid4())) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    limit.end(ids[0])
    async with asyncio.timeout(60):
        await waiting[1]
    assert waiting[0].cancelled()
