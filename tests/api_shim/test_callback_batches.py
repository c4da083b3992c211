"""Callbacks of concurrent requests share one transaction. Each request has its own deadline and result."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError

from api_shim.routes.carrier import GATHER_S, GATHER_UNDER_LOAD_S, LARGEST_BATCH, CallbackBatches, gather_s
from api_shim.thread_pools import ThreadPool
from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.clock import deadline_in
from scheduler.hashing import Hasher
from scheduler.persistence.carrier_events import NewCarrierEvent
from scheduler.persistence.database import Database
from scheduler.persistence.errors import CommitInDoubt, DatabaseAway, LockTaken
from scheduler.persistence.schema import Logins
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.shared import hints as tasks
from tests.api_shim.carrier_callbacks import changed, path_of, sign, token_of
from tests.api_shim.intake import PUBLIC_URL
from tests.conftest import Seeded, TestClock
from tests.support.builders import RecordingHints, Tenant, a_placed_attempt, a_tenant
from tests.support.servers import ACCOUNT_SID, SimulatedCarrier

LONG_S = 30.0
OF_A_BATCH = ["SELECT clock_timestamp()", "INSERT INTO carrier_events"]
"""The beginnings of a batch's statements, before the driver's COMMIT. Little time would add one that sets timeouts."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Batches that are stored with the API's database role."""

    hear: Hear
    database: Database
    hints: RecordingHints
    token: str
    batches: CallbackBatches
    threads: ThreadPool
    may_begin: threading.Event
    """While it is cleared, no thread begins to store its batch."""
    begun: threading.Semaphore
    """Released by each thread that has a batch."""

    def callback(self, number: int = 0, token: str | None = None, **fields: str) -> NewCarrierEvent:
        token = self.token if token is None else token
        form = changed(SequenceNumber=str(number), **fields)
        return self.hear.genuine(token, path_of(token), form, sign(path_of(token), form))

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=LONG_S)

    @contextmanager
    def held(self) -> Iterator[None]:
        self.may_begin.clear()
        try:
            yield
        finally:
            self.may_begin.set()


@pytest.fixture
def tenant(database: Database, seeded: Seeded, hasher: Hasher, now: TestClock) -> Tenant:
    return a_tenant(database, seeded, hasher, now, account_sid=ACCOUNT_SID)


@pytest.fixture
async def storage(logins: Logins, tenant: Tenant) -> AsyncIterator[Storage]:
    """One thread, so that a second batch waits for the first one."""
    database, threads = Database(logins.api, bound=True), ThreadPool("test", 1)
    database.check_start()
    hints, may_begin, begun = RecordingHints(), threading.Event(), threading.Semaphore(0)
    callbacks = TwilioCallbacks(SimulatedCarrier(url="http://carrier.example").account(public_url=PUBLIC_URL))
    hear = Hear(replace(tenant.context, database=database), hints, callbacks)
    may_begin.set()

    def store(events: Sequence[NewCarrierEvent]) -> None:
        begun.release()
        assert may_begin.wait(LONG_S)
        hear.store(events)

    batches = CallbackBatches(threads, store)
    yield Storage(
        hear=hear,
        database=database,
        hints=hints,
        token=token_of(a_placed_attempt(tenant)),
        batches=batches,
        threads=threads,
        may_begin=may_begin,
        begun=begun,
    )
    may_begin.set()
    await batches.finish()
    threads.close()
    database.close()


@contextmanager
def statements(storage: Storage) -> Iterator[list[str]]:
    """The statements that store callbacks. Those of another API in this process do not count."""
    seen: list[str] = []

    def note(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if connection.engine is storage.database._engine:
            seen.append(" ".join(statement.split()))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def stored(tenant: Tenant) -> int:
    return int(tenant.ask("SELECT count(*) FROM carrier_events")[0][0])


async def store_all(storage: Storage, callbacks: Sequence[NewCarrierEvent]) -> list[BaseException | None]:
    """Store each in a request of its own. Return the error of each."""
    return await asyncio.gather(*(storage.batches.store(each) for each in callbacks), return_exceptions=True)


@pytest.mark.parametrize("count", [1, LARGEST_BATCH])
async def test_concurrent_callbacks_share_one_transaction(storage: Storage, tenant: Tenant, count: int) -> None:
    callbacks = [storage.callback(number) for number in range(count)]
    with statements(storage) as seen, deadline_in(LONG_S):
        assert await store_all(storage, callbacks) == [None] * count
    assert [each[: len(begins)] for each, begins in zip(seen, OF_A_BATCH, strict=True)] == OF_A_BATCH
    assert stored(tenant) == count
    assert storage.hints.rings == [(tasks.HEAR, tuple(each.id for each in callbacks))]
    ids = {row.id for row in tenant.ask("SELECT id FROM carrier_events WHERE raw->>'CallStatus' = 'ringing'")}
    assert ids == {each.id for each in callbacks}


async def test_callbacks_beyond_the_largest_batch_are_in_the_next(storage: Storage, tenant: Tenant) -> None:
    callbacks = [storage.callback(number) for number in range(LARGEST_BATCH + 1)]
    with statements(storage) as seen, deadline_in(LONG_S):
        assert await store_all(storage, callbacks) == [None] * len(callbacks)
    assert len(seen) == 2 * len(OF_A_BATCH)
    assert sorted(len(ids) for _, ids in storage.hints.rings) == [1, LARGEST_BATCH]
    assert stored(tenant) == len(callbacks)


async def test_callbacks_gather_while_every_thread_is_busy(storage: Storage, tenant: Tenant) -> None:
    with storage.held():
        first = asyncio.create_task(storage.batches.store(storage.callback(0)))
        await storage.has_begun()
        waiting = [asyncio.create_task(storage.batches.store(storage.callback(1)))]
        await asyncio.sleep(0)  # it opens a batch
        assert storage.batches._open is not None
        await storage.batches._open[0].is_ready.wait()  # its time for gathering is over
        waiting += [asyncio.create_task(storage.batches.store(storage.callback(number))) for number in (2, 3)]
        await asyncio.sleep(0)  # they join it
    await asyncio.gather(first, *waiting)
    assert [len(ids) for _, ids in storage.hints.rings] == [1, 3]
    assert stored(tenant) == 4


@pytest.mark.parametrize(
    ("last_batch", "seconds"),
    [(0, GATHER_S), (1, GATHER_S), (2, GATHER_UNDER_LOAD_S), (LARGEST_BATCH, GATHER_UNDER_LOAD_S)],
)
def test_batch_gathers_longer_after_one_of_several(last_batch: int, seconds: float) -> None:
    assert gather_s(last_batch) == seconds
    assert GATHER_S < GATHER_UNDER_LOAD_S


@pytest.mark.parametrize(("count", "seconds"), [(1, GATHER_S), (2, GATHER_UNDER_LOAD_S)])
async def test_size_of_a_batch_determines_the_next_wait(storage: Storage, count: int, seconds: float) -> None:
    assert await store_all(storage, [storage.callback(number) for number in range(count)]) == [None] * count
    following = asyncio.create_task(storage.batches.store(storage.callback(count)))
    await asyncio.sleep(0)  # it opens a batch
    assert storage.batches._open is not None
    assert storage.batches._open[0].gathers_s == seconds
    await following


async def test_duplicates_in_a_batch_are_stored_once(storage: Storage, tenant: Tenant) -> None:
    callbacks = [storage.callback(number) for number in (1, 2, 1, 1)]
    assert await store_all(storage, callbacks) == [None] * 4
    assert stored(tenant) == 2
    [(_, ids)] = storage.hints.rings
    assert len(ids) == 2
    assert await store_all(storage, [storage.callback(1), storage.callback(2)]) == [None] * 2
    assert (stored(tenant), len(storage.hints.rings)) == (2, 1), "a batch without a new callback sends no hint"


async def test_batch_is_inserted_in_one_order(storage: Storage, tenant: Tenant) -> None:
    """Otherwise two batches with the same callbacks would wait for each other."""
    assert await store_all(storage, [storage.callback(number) for number in range(20)]) == [None] * 20
    inserted = [row.fingerprint for row in tenant.ask("SELECT fingerprint FROM carrier_events ORDER BY ctid")]
    assert inserted == sorted(inserted)


async def test_callback_that_cannot_be_stored_fails_alone(storage: Storage, tenant: Tenant) -> None:
    poison = replace(storage.callback(2), raw={"NewThing": "\0"})
    first, failed, last = await store_all(storage, [storage.callback(1), poison, storage.callback(3)])
    assert (first, last) == (None, None)
    assert isinstance(failed, DBAPIError)
    assert {row[0] for row in tenant.ask("SELECT raw->>'SequenceNumber' FROM carrier_events")} == {"1", "3"}
    assert sorted(len(ids) for _, ids in storage.hints.rings) == [1, 1]


async def test_callback_whose_row_is_locked_fails_alone(storage: Storage, tenant: Tenant, postgres_url: str) -> None:
    """Another API process is storing the same callback, and was stopped before its commit."""
    locked = storage.callback(1)
    with psycopg.connect(postgres_url) as session:
        session.execute(
            "INSERT INTO carrier_events (id, token, fingerprint, raw, received_at, rung_at)"
            " VALUES (gen_random_uuid(), %s, %s, '{}', %s, %s)",
            [locked.token, locked.fingerprint, tenant.now(), tenant.now()],
        )
        with deadline_in(LONG_S):
            failed, other = await store_all(storage, [locked, storage.callback(2)])
        session.rollback()
    assert isinstance(failed, LockTaken)
    assert other is None
    assert [row[0] for row in tenant.ask("SELECT raw->>'SequenceNumber' FROM carrier_events")] == ["2"]


async def test_unknown_tokens_are_answered_and_not_stored(storage: Storage, tenant: Tenant) -> None:
    unknown, known = storage.callback(1, token="unknown"), storage.callback(2)
    assert await store_all(storage, [unknown]) == [None]
    assert storage.hints.rings == []
    assert await store_all(storage, [unknown, known]) == [None, None]
    assert [row.id for row in tenant.ask("SELECT id FROM carrier_events")] == [known.id]
    [(_, ids)] = storage.hints.rings
    hear = Hear(tenant.context, RecordingHints(), storage.hear._callbacks)
    for event_id in ids:
        hear.event(event_id)  # a hint for an event that was not stored finds nothing
    assert tenant.ask("SELECT count(heard_at) FROM carrier_events") == [(1,)]


async def test_request_that_gives_up_in_time_is_not_stored(storage: Storage, tenant: Tenant) -> None:
    with storage.held():
        first = asyncio.create_task(storage.batches.store(storage.callback(0)))
        await storage.has_begun()
        patient = asyncio.create_task(storage.batches.store(storage.callback(1)))
        with deadline_in(0.01), pytest.raises(DatabaseAway) as given_up:
            await storage.batches.store(storage.callback(2))
        assert not isinstance(given_up.value, CommitInDoubt)
    await asyncio.gather(first, patient)
    assert {row[0] for row in tenant.ask("SELECT raw->>'SequenceNumber' FROM carrier_events")} == {"0", "1"}


async def test_batch_without_requests_opens_no_transaction(storage: Storage) -> None:
    with storage.held():
        first = asyncio.create_task(storage.batches.store(storage.callback(0)))
        await storage.has_begun()
        with deadline_in(0.01), pytest.raises(DatabaseAway):
            await storage.batches.store(storage.callback(1))
    with statements(storage) as seen:
        await first
        await storage.batches.finish()
    assert sum("BEGIN" in each for each in seen) == 1


async def test_request_that_gives_up_late_leaves_the_others(storage: Storage, tenant: Tenant) -> None:
    with storage.held():
        patient = asyncio.create_task(storage.batches.store(storage.callback(1)))
        with deadline_in(3.0):
            hasty = asyncio.create_task(storage.batches.store(storage.callback(2)))
        await storage.has_begun()
        with pytest.raises(CommitInDoubt):
            await hasty
    await patient
    assert stored(tenant) == 2, "they may have been stored, and were"


async def test_nothing_is_committed_after_the_last_deadline(storage: Storage, tenant: Tenant) -> None:
    with storage.held(), deadline_in(3.0):
        assert [type(each) for each in await store_all(storage, [storage.callback(1), storage.callback(2)])] == [
            CommitInDoubt,
            CommitInDoubt,
        ]
    await storage.batches.finish()
    await storage.threads.run(lambda: None, LONG_S)  # the thread has ended its work
    assert stored(tenant) == 0


@pytest.mark.parametrize("has_begun", [False, True], ids=["gathering", "being stored"])
async def test_cancelled_requests_are_stored_before_the_end(storage: Storage, tenant: Tenant, has_begun: bool) -> None:
    """The server cancels requests that are still open some time after a stop signal."""
    with storage.held():
        requests = [asyncio.create_task(storage.batches.store(storage.callback(number))) for number in range(3)]
        await (storage.has_begun() if has_begun else asyncio.sleep(0))
        for each in requests:
            each.cancel()
        await asyncio.wait(requests)
    await storage.batches.finish()
    assert all(each.cancelled() for each in requests)
    assert (stored(tenant), len(storage.hints.rings)) == (3, 1)


async def test_database_away_is_the_error_of_each_request(tenant: Tenant, storage: Storage) -> None:
    away = Database("postgresql://api@127.0.0.1:9/nothing")
    hear = Hear(replace(tenant.context, database=away), storage.hints, storage.hear._callbacks)
    batches = CallbackBatches(storage.threads, hear.store)
    callbacks = [storage.callback(number) for number in range(3)]
    errors = await asyncio.gather(*(batches.store(each) for each in callbacks), return_exceptions=True)
    away.close()
    assert [type(each) for each in errors] == [DatabaseAway] * 3
    assert await store_all(storage, callbacks) == [None] * 3
    assert stored(tenant) == 3
