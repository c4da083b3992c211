"""Calls that look at about the same time share one query. A failure or a hanging query affects no other call."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION
from scheduler.persistence.errors import DatabaseAway
from scheduler.use_cases.dialling.look import LookFacts, LookQueries, PermittedOrder, PutBack
from tests.conftest import TestClock
from tests.support.builders import Tenant, a_claimed_attempt
from tests.support.statements import statements_of
from tests.use_cases.conftest import wait_for_a_lock
from tests.verification.world.bulk_attempts import bulk_attempts


class Queries:
    """The product's query, with its calls. Each waits until the test lets it go on."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self.seen: list[Sequence[Attempt]] = []
        self.begun = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.fails = False

    async def __call__(self, attempts: Sequence[Attempt]) -> LookFacts:
        self.seen.append(attempts)
        self.begun.set()
        await self.may_answer.wait()
        if self.fails:
            raise DatabaseAway("a test")
        return self._tenant.dial.look_all(attempts)


async def test_calls_that_look_together_share_a_query(tenant: Tenant) -> None:
    queries = Queries(tenant)
    queries.may_answer.set()
    looks = LookQueries(queries)
    mine = [a_claimed_attempt(tenant) for _ in range(3)]
    facts = await asyncio.gather(*(looks.of(each) for each in mine))
    assert queries.seen == [mine]
    for attempt, found in zip(mine, facts, strict=True):
        order = tenant.dial.verdict(attempt, found)
        assert isinstance(order, PermittedOrder)
        assert (order.to, order.token) == (attempt.called_number, attempt.token)


async def test_calls_that_look_during_a_query_share_the_next(tenant: Tenant) -> None:
    """An answer that was read before a call asked would be too old for it."""
    queries = Queries(tenant)
    looks = LookQueries(queries)
    first, *later = [a_claimed_attempt(tenant) for _ in range(3)]
    looking = [asyncio.create_task(looks.of(first))]
    await queries.begun.wait()
    looking += [asyncio.create_task(looks.of(each)) for each in later]
    await asyncio.sleep(0)
    assert queries.seen == [[first]]
    queries.may_answer.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*looking)
    assert queries.seen == [[first], later]


async def test_hanging_query_delays_no_other_look(tenant: Tenant) -> None:
    queries = Queries(tenant)
    looks = LookQueries(queries)
    hanging = asyncio.create_task(looks.of(a_claimed_attempt(tenant)))
    await queries.begun.wait()
    queries.may_answer = asyncio.Event()
    queries.may_answer.set()
    async with asyncio.timeout(60):
        await looks.of(a_claimed_attempt(tenant))
    assert not hanging.done()
    hanging.cancel()


async def test_call_that_gives_up_does_not_end_the_look_of_others(tenant: Tenant) -> None:
    queries = Queries(tenant)
    looks = LookQueries(queries)
    mine = [a_claimed_attempt(tenant) for _ in range(2)]
    gives_up, waits = [asyncio.create_task(looks.of(each)) for each in mine]
    await queries.begun.wait()
    gives_up.cancel()
    queries.may_answer.set()
    async with asyncio.timeout(60):
        assert mine[1].id in (await waits).rows


async def test_failed_query_permits_none_of_its_calls(tenant: Tenant) -> None:
    queries = Queries(tenant)
    queries.fails = True
    queries.may_answer.set()
    looks = LookQueries(queries)
    looking = [asyncio.create_task(looks.of(a_claimed_attempt(tenant))) for _ in range(2)]
    for each in looking:
        with pytest.raises(DatabaseAway):
            await each
    queries.fails = False
    assert (await looks.of(mine := a_claimed_attempt(tenant))).rows.keys() == {mine.id}


# ---- the query


def test_age_of_a_look_counts_from_before_its_query(tenant: Tenant, now: TestClock, postgres_url: str) -> None:
    """While the query waits, what it will read may already be old: the age must not begin with the answer."""
    mine = a_claimed_attempt(tenant)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE companies IN ACCESS EXCLUSIVE MODE")
        looking = pool.submit(tenant.dial.look_all, [mine])
        wait_for_a_lock(tenant)
        waiting, waiting_at = monotonic(), now()
        now.move(timedelta(seconds=1))
        other.rollback()
        facts = looking.result(timeout=60)
    assert facts.looked <= waiting
    assert facts.looked_at <= waiting_at


@pytest.mark.parametrize("number", [1, 10, AT_MOST_A_TRANSACTION])
def test_last_looks_are_one_statement(tenant: Tenant, postgres_url: str, number: int) -> None:
    ids = bulk_attempts(postgres_url, tenant, number, due_at=tenant.now())
    mine = [each.attempt for each in tenant.dial.claim(ids).claimed]
    with statements_of(tenant.database) as sent:
        facts = tenant.dial.look_all(mine)
    assert len(sent) == 1
    assert facts.rows.keys() == {each.id for each in mine}


def test_unreadable_row_fails_only_its_own_call(tenant: Tenant, other: Tenant) -> None:
    bad, good = a_claimed_attempt(other), a_claimed_attempt(tenant)
    tenant.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=other.company_id)
    facts = tenant.dial.look_all([bad, good])
    assert isinstance(tenant.dial.verdict(good, facts), PermittedOrder)
    with pytest.raises(KeyError):
        tenant.dial.verdict(bad, facts)


def test_each_look_is_judged_by_its_own_row(tenant: Tenant, other: Tenant, now: TestClock) -> None:
    mine, theirs = a_claimed_attempt(tenant), a_claimed_attempt(other)
    tenant.change(
        "UPDATE companies SET paused_at = :at, pause_reason = 'a test' WHERE id = :id", at=now(), id=other.company_id
    )
    facts = tenant.dial.look_all([mine, theirs])
    assert isinstance(tenant.dial.verdict(mine, facts), PermittedOrder)
    assert isinstance(tenant.dial.verdict(theirs, facts), PutBack)
    assert tenant.dial.verdict(replace(mine, epoch=mine.epoch + 1), facts) is None
    assert tenant.dial.verdict(replace(mine, id=uuid4()), facts) is None, "no row, so it is not ours"
