"""Statements of events, webhooks and batches read few rows by an index, however many there are.

Each is run as the role that runs it in production. One webhook has a long backlog, and many rows are of others.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from scheduler.domain.batch import ItemState
from scheduler.domain.delivery_history import SENT_AT_ONCE, DeliveryFilter, EventReceiver, ReplayFilter
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.resource import COUNTED_UP_TO, NEWEST_FIRST, KeysetSlice
from scheduler.domain.webhook import ClaimedDelivery, DeliveryState, EventFilter, EventType, NewEvent
from scheduler.persistence import schema
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules.webhooks import room
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import NOON, Seeded, seed
from tests.persistence.rows_read import rows_read
from tests.support.big_tables import new_id_sql
from tests.support.separate_database import separate_database

EVENTS, COMPANIES, ITEMS = 30_000, 1_000, 1_000
BATCHES = 20
SCANNED_OF_EVENTS = 5_000
SCANNED_OF_DELIVERIES = 1_000
BIG = frozenset({"events", "webhook_deliveries", "batch_items", "companies", "api_keys"})
STARTED = NOON - timedelta(seconds=EVENTS)
LIMIT = 20
ROOM = room(32, [(uuid4(), False)] * 16, unrecorded=0)
"""One owner has no room left."""


@dataclass(frozen=True, kw_only=True)
class Partners:
    """Partners with many events, seen as the API, the workers, the metrics and the operators see them."""

    owner: Database
    api: Database
    worker: Database
    console: Database
    one: Seeded
    """The company with most events."""
    small: Seeded
    """A company with one event in a thousand, and without a webhook of its own."""
    ats_id: UUID
    healthy: UUID
    """An endpoint that has received all, but for the newest hundred and one failed delivery in a thousand."""
    dead: UUID
    """An endpoint for which everything waits."""
    of_ats: UUID
    """An endpoint of the ATS, for the events of all its companies. A tenth of its deliveries is replayed."""
    removed: UUID
    finished: UUID
    """A finished batch."""
    running: UUID

    def principal(self, kind: KeyKind) -> Principal:
        is_ats = kind is KeyKind.ATS
        return Principal(
            id=self.ats_id if is_ats else self.one.company_id,
            key_id=uuid4(),
            kind=kind,
            company_id=None if is_ats else self.one.company_id,
            scopes=frozenset(),
        )

    def receiver(self, endpoint_id: UUID) -> EventReceiver:
        with self.owner.reading() as stores:
            found = stores.webhook_history.receiver(endpoint_id, None)
        assert found is not None
        return found


_AT = "(%(now)s::timestamptz - (%(events)s - n) * interval '1 second')"
_FILL = (
    "SET session_replication_role = replica",
    """
    INSERT INTO companies (id, name, settings, ats_principal_id, calls_per_second, concurrent_calls, next_slot_at,
                           created_at, updated_at)
    SELECT gen_random_uuid(), 'Acme', settings, CASE WHEN n %% 2 = 0 THEN %(ats)s::uuid END, 1, 1, %(now)s, %(now)s,
           %(now)s
    FROM companies, generate_series(1, %(companies)s) n WHERE id = %(one)s
    """,
    "UPDATE companies SET ats_principal_id = %(ats)s WHERE id IN (%(one)s, %(small)s)",
    """
    INSERT INTO api_keys (id, principal_id, kind, company_id, name, key_hash, scopes, per_minute, per_hour,
                          created_at, updated_at)
    SELECT gen_random_uuid(), id, 'REGULAR', id, 'a key', sha256(id::text::bytea),
           CASE WHEN random() < 0.5 THEN ARRAY['read:webhooks'] ELSE ARRAY['read:companies'] END, 1, 1, %(now)s, %(now)s
    FROM companies
    """,
    """
    INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,
                                   secret, consecutive_failures, failing_since, circuit_opened_at, probe_at,
                                   disabled_at, disabled_cause, is_active, created_at, updated_at)
    SELECT e.id, e.principal_id, gen_random_uuid(), e.company_id, '',
           ARRAY['interview.scheduled', 'call_attempt.ended'], 3, 1000, '', coalesce(f.failures, 0), f.at, f.at,
           f.at + interval '30 seconds', r.at, r.cause, r.at IS NULL, %(now)s, %(now)s
    FROM (VALUES (%(healthy)s::uuid, %(one)s::uuid, %(one)s::uuid), (%(dead)s, %(one)s, %(one)s),
                 (%(of_ats)s, %(ats)s, NULL), (%(removed)s, %(one)s, %(one)s)) AS e (id, principal_id, company_id)
    LEFT JOIN (VALUES (%(dead)s::uuid, 10, %(now)s::timestamptz)) AS f (id, failures, at) USING (id)
    LEFT JOIN (VALUES (%(removed)s::uuid, %(now)s::timestamptz, 'DELETED')) AS r (id, at, cause) USING (id)
    """,
    """
    INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,
                                   secret, created_at, updated_at)
    SELECT gen_random_uuid(), id, id, id, '', ARRAY['interview.scheduled'], 3, 1000, '', %(now)s, %(now)s
    FROM companies WHERE id NOT IN (%(one)s, %(small)s)
    """,
    f"""
    CREATE TEMPORARY TABLE made AS
    SELECT n, {new_id_sql(_AT)} AS id, {_AT} AS at, CASE WHEN n %% 2 = 1 THEN 'interview.scheduled' ELSE
           'call_attempt.ended' END AS type, 1 + n %% 2 AS sequence, md5((n / 2)::text)::uuid AS interview,
           CASE WHEN n %% 1000 = 0 THEN %(small)s::uuid WHEN n %% 3 > 0 THEN %(one)s ELSE
           (ARRAY (SELECT c.id FROM companies c WHERE c.id NOT IN (%(one)s, %(small)s) ORDER BY c.id))
               [1 + n %% %(companies)s] END AS company
    FROM generate_series(1, %(events)s) n
    """,
    """
    INSERT INTO events (id, company_id, ats_principal_id, interview_id, type, occurred_at, data, place, sequence)
    SELECT m.id, m.company, c.ats_principal_id, m.interview, m.type, m.at, '{}', m.n, m.sequence
    FROM made m JOIN companies c ON c.id = m.company
    ORDER BY m.n
    """,
    "SELECT setval('event_places', %(events)s)",
    """
    INSERT INTO events (id, company_id, ats_principal_id, interview_id, type, occurred_at, data)
    SELECT gen_random_uuid(), m.company, c.ats_principal_id, m.interview, m.type, %(now)s, '{}'
    FROM made m JOIN companies c ON c.id = m.company WHERE m.n > %(events)s * 9 / 10
    ORDER BY m.n
    """,
    "INSERT INTO interview_sequences (interview_id, last) SELECT interview, count(*) FROM made GROUP BY interview",
    """
    INSERT INTO webhook_deliveries (event_id, endpoint_id, place, interview_id, sequence, state, send_at, created_at,
                                    last_tried_at, last_error_kind, finished_at)
    SELECT d.id, d.endpoint, d.n, d.interview, d.sequence, d.state, d.at, d.at,
           CASE WHEN d.state <> 'WAITING' THEN d.at END, CASE WHEN d.state = 'FAILED' THEN 'TIMEOUT' END,
           CASE WHEN d.state <> 'WAITING' THEN d.at END
    FROM (SELECT m.*, w.id AS endpoint,
                 CASE WHEN w.id = %(dead)s OR m.n > %(events)s - 100 AND w.id = %(healthy)s THEN 'WAITING'
                      WHEN m.n %% 1000 = 1 THEN 'FAILED' ELSE 'DELIVERED' END AS state
          FROM made m JOIN companies c ON c.id = m.company
          JOIN webhook_endpoints w ON w.company_id = m.company OR w.principal_id = c.ats_principal_id
          WHERE m.type = ANY (w.events)) d
    """,
    """
    UPDATE webhook_deliveries SET state = 'WAITING', is_replay = true, finished_at = NULL
    WHERE endpoint_id = %(of_ats)s AND place %% 10 = 0
    """,
    """
    INSERT INTO batches (id, company_id, principal_id, key_id, state, total, applied, work_at, finished_at, created_at,
                         updated_at)
    SELECT CASE n WHEN 1 THEN %(finished)s::uuid WHEN 2 THEN %(running)s ELSE gen_random_uuid() END,
           CASE WHEN n < 6 THEN %(one)s::uuid ELSE %(small)s END, %(one)s, %(one)s,
           CASE n WHEN 2 THEN 'RUNNING' WHEN 3 THEN 'PAUSED' ELSE 'COMPLETED' END, %(items)s,
           CASE WHEN n IN (2, 3) THEN 0 ELSE %(items)s END, %(now)s - interval '1 minute',
           CASE WHEN n NOT IN (2, 3) THEN %(now)s::timestamptz END, %(now)s - n * interval '1 hour', %(now)s
    FROM generate_series(1, %(batches)s) n
    """,
    """
    INSERT INTO batch_items (batch_id, index, company_id, state, body, interview_id, failures)
    SELECT b.id, n, b.company_id, s.state, CASE s.state WHEN 'WAITING' THEN '{}'::jsonb END,
           CASE s.state WHEN 'APPLIED' THEN gen_random_uuid() END, 0
    FROM batches b CROSS JOIN generate_series(0, %(items)s - 1) n
    CROSS JOIN LATERAL (SELECT CASE WHEN b.finished_at IS NULL AND n > 100 THEN 'WAITING' ELSE 'APPLIED' END AS state) s
    """,
    "DROP TABLE made",
    "VACUUM ANALYZE",
)


@pytest.fixture(scope="module")
def partners(postgres: EmbeddedPostgres, logins: schema.Logins) -> Iterator[Partners]:
    with separate_database(postgres, logins) as made:
        names = ("ats_id", "healthy", "dead", "of_ats", "removed", "finished", "running")
        ids = {name: uuid4() for name in names}
        one, small = seed(made.owner, NOON), seed(made.owner, NOON)
        values: dict[str, Any] = {
            **ids,
            "ats": ids["ats_id"],
            "one": one.company_id,
            "small": small.company_id,
            "now": NOON,
            "events": EVENTS,
            "companies": COMPANIES,
            "items": ITEMS,
            "batches": BATCHES,
        }
        with psycopg.connect(made.url, autocommit=True) as connection:
            for statement in _FILL:
                connection.execute(statement.encode(), values if "%(" in statement else None)
        yield Partners(
            owner=made.owner, api=made.api, worker=made.worker, console=made.console, one=one, small=small, **ids
        )


Act = Callable[[Stores, Partners], object]

EVENT_FILTERS: dict[str, tuple[EventFilter, int]] = {
    "all": (EventFilter(), 3 * LIMIT),
    "of a frequent type": (EventFilter(types=frozenset({EventType.INTERVIEW_SCHEDULED})), 2 * SCANNED_OF_EVENTS),
    "of a type without events": (EventFilter(types=frozenset({EventType.PING})), 2 * SCANNED_OF_EVENTS),
    "of a period": (
        EventFilter(since=NOON - timedelta(minutes=30), until=NOON - timedelta(minutes=20)),
        2 * 12 * 60,
    ),
    "of a period without events": (EventFilter(since=NOON + timedelta(days=1)), 200),
    # A plan with bitmaps counts each event and each of its three deliveries in the index and in the table.
    "delivered": (EventFilter(delivery_success=True), 2 * (1 + 3) * SCANNED_OF_EVENTS),
    "not delivered": (EventFilter(delivery_success=False), 3 * SCANNED_OF_EVENTS),
    "not delivered, of a period": (
        EventFilter(delivery_success=False, since=NOON - timedelta(minutes=30), until=NOON - timedelta(minutes=20)),
        4 * 12 * 60,
    ),
}


def _of_company(company_id: UUID, wanted: EventFilter, after: int) -> Act:
    return lambda stores, _: stores.events.page(company_id, wanted, after, LIMIT, company_id)


def _of_ats(wanted: EventFilter, after: int) -> Act:
    return lambda stores, partners: stores.events.page(None, wanted, after, LIMIT, partners.ats_id)


@pytest.mark.parametrize("after", [0, EVENTS // 2])
@pytest.mark.parametrize("name", EVENT_FILTERS)
def test_page_of_events_reads_an_index(partners: Partners, name: str, after: int) -> None:
    wanted, most = EVENT_FILTERS[name]
    reading = partners.api.reading(partners.principal(KeyKind.REGULAR))
    assert _read(partners.api, reading, partners, _of_company(partners.one.company_id, wanted, after)) <= most
    small = replace(partners.principal(KeyKind.REGULAR), company_id=partners.small.company_id)
    reading = partners.api.reading(small)
    assert _read(partners.api, reading, partners, _of_company(partners.small.company_id, wanted, after)) <= most
    reading = partners.api.reading(partners.principal(KeyKind.ATS))
    assert _read(partners.api, reading, partners, _of_ats(wanted, after)) <= most


def _read(
    database: Database, opened: AbstractContextManager[Stores], partners: Partners, act: Act, big: frozenset[str] = BIG
) -> int:
    return rows_read(database, opened, lambda stores: act(stores, partners), big)


DELIVERY_FILTERS: dict[str, tuple[DeliveryFilter, int]] = {
    "all": (DeliveryFilter(), 3 * LIMIT),
    "failed": (DeliveryFilter(state=DeliveryState.FAILED), 2 * SCANNED_OF_DELIVERIES),
    "waiting": (DeliveryFilter(state=DeliveryState.WAITING), 2 * SCANNED_OF_DELIVERIES),
    "of a type without events": (DeliveryFilter(types=frozenset({EventType.PING})), 2 * SCANNED_OF_DELIVERIES),
    "of a period": (
        DeliveryFilter(since=NOON - timedelta(minutes=30), until=NOON - timedelta(minutes=20)),
        2 * 12 * 60,
    ),
    "of a period without events": (DeliveryFilter(since=NOON + timedelta(days=1)), 200),
}


def _deliveries(endpoint_id: UUID, wanted: DeliveryFilter, before: int | None) -> Act:
    def act(stores: Stores, _: Partners) -> None:
        assert stores.webhook_history.receiver(endpoint_id, None)
        stores.webhook_history.page(endpoint_id, wanted, before, LIMIT)

    return act


@pytest.mark.parametrize("name", DELIVERY_FILTERS)
def test_page_of_deliveries_reads_an_index(partners: Partners, name: str) -> None:
    wanted, most = DELIVERY_FILTERS[name]
    for kind, endpoint_id in (
        (KeyKind.REGULAR, partners.healthy),
        (KeyKind.REGULAR, partners.dead),
        (KeyKind.ATS, partners.of_ats),
    ):
        for before in (None, EVENTS // 2):
            act = _deliveries(endpoint_id, wanted, before)
            assert _read(partners.api, partners.api.reading(partners.principal(kind)), partners, act) <= most


REPLAYS: dict[str, tuple[ReplayFilter, int]] = {
    "all": (ReplayFilter(since=STARTED), 2 * SCANNED_OF_EVENTS),
    "of a period": (
        ReplayFilter(since=NOON - timedelta(minutes=30), until=NOON - timedelta(minutes=20)),
        5 * 12 * 60,
    ),
    "failed": (ReplayFilter(since=STARTED, only_failed=True), 3 * SCANNED_OF_EVENTS),
    "of a type without events": (
        ReplayFilter(since=STARTED, types=frozenset({EventType.PING})),
        2 * SCANNED_OF_EVENTS,
    ),
}


def _replay(to: EventReceiver, wanted: ReplayFilter) -> Act:
    def act(stores: Stores, _: Partners) -> None:
        assert stores.webhook_history.receiver(to.id, None) == to
        stores.webhook_history.replay(to, wanted, 0, 50, NOON)

    return act


@pytest.mark.parametrize("name", REPLAYS)
def test_replay_of_a_range_reads_an_index(partners: Partners, name: str) -> None:
    wanted, most = REPLAYS[name]
    for kind, endpoint_id in (
        (KeyKind.REGULAR, partners.healthy),
        (KeyKind.REGULAR, partners.dead),
        (KeyKind.ATS, partners.of_ats),
    ):
        act = _replay(partners.receiver(endpoint_id), wanted)
        assert _read(partners.api, partners.api.transaction(partners.principal(kind)), partners, act) <= most


def _note(stores: Stores, partners: Partners) -> None:
    """Write events of companies with and without a reader."""
    stores.events.note(
        NewEvent(type=EventType.INTERVIEW_SCHEDULED, company_id=each, occurred_at=NOON, data={})
        for each in (partners.one.company_id, partners.small.company_id, uuid4())
    )


def _claim(stores: Stores, partners: Partners) -> None:
    """Claim deliveries, and lock them to record their results."""
    assert stores.webhook_deliveries.lock_to_claim(NOON, ROOM), "it sets how the transaction reads"
    found = stores.webhook_deliveries.sendable_of([partners.healthy, partners.dead], NOON)
    claims = [
        ClaimedDelivery(claim=uuid4(), delivery=each.delivery, message=each.message, owner=uuid4(), is_slow=False)
        for each in found
    ]
    assert len(claims) >= LIMIT / 4
    probes = dict.fromkeys((partners.healthy, partners.dead))
    assert len(stores.webhook_deliveries.claim(claims, probes, NOON)) == len(claims)
    assert len(stores.webhook_deliveries.lock_endpoints([partners.healthy, partners.dead])) == len(probes)
    assert len(stores.webhook_deliveries.lock_claimed(claims)) == len(claims)


STEPS: dict[str, tuple[Act, int]] = {
    "new events": (_note, 30),
    "work of the clock": (lambda stores, _: stores.webhook_deliveries.work(NOON), 20),
    "endpoints to claim": (lambda stores, _: stores.webhook_deliveries.lock_to_claim(NOON, ROOM), 20),
    "claim": (_claim, 400),
    "backlog without later tries": (lambda stores, big: stores.webhook_history.send_waiting(big.dead, NOON), 10),
    "later tries": (
        lambda stores, big: stores.webhook_history.send_waiting(big.dead, STARTED),
        3 * SENT_AT_ONCE,
    ),
    "due deliveries and a wrong clock": (lambda stores, _: stores.corrections.hasten_deliveries(NOON, 100), 10),
    "numbering": (lambda stores, _: stores.events.number(20, NOON), 10 * 20),
    "next batch": (lambda stores, _: stores.batches.next_work(NOON, 25), 60),
    "items of a batch": (lambda stores, big: stores.batches.lock_items(big.running, list(range(200, 225))), 60),
    "purge of events": (lambda stores, _: stores.events.forget(STARTED + timedelta(minutes=5), 20), 10 * 20),
    "purge of endpoints": (lambda stores, _: stores.webhook_endpoints.forget_removed(20), 5 * 20),
    "batches that are paused for long": (lambda stores, _: stores.batches.lock_forgotten(NOON, 20), 0),
    "purge of batches": (lambda stores, _: stores.batches.forget(NOON + timedelta(days=1), 20), 5 * 20),
    "waiting items of a cancelled batch": (lambda stores, big: stores.batches.cancel_waiting(big.finished), 0),
    "interviews of a cancelled batch": (lambda stores, big: stores.batches.interviews_to_cancel(big.running, 20), 40),
}


@pytest.mark.parametrize("name", STEPS)
def test_step_with_events_or_batches_reads_an_index(partners: Partners, name: str) -> None:
    act, most = STEPS[name]
    assert _read(partners.worker, partners.worker.transaction(), partners, act) <= most


def test_deliveries_are_counted_by_an_index(partners: Partners) -> None:
    def act(stores: Stores, _: Partners) -> object:
        return stores.webhook_deliveries.waiting(NOON)

    assert _read(partners.api, partners.api.counting(), partners, act) <= COUNTED_UP_TO + 200


def test_list_of_webhooks_reads_an_index(partners: Partners) -> None:
    """Up to the maximum of each count, and the newest undelivered ones among which the last failure is searched."""

    def act(stores: Stores, _: Partners) -> object:
        return stores.webhook_overview.states(1_000)

    read = _read(partners.owner, partners.owner.reading(), partners, act)
    assert read <= COUNTED_UP_TO + EVENTS // 10 + 5 * SCANNED_OF_DELIVERIES


@pytest.mark.parametrize("state", [None, *ItemState])
def test_page_of_items_reads_an_index(partners: Partners, state: ItemState | None) -> None:
    def act(stores: Stores, big: Partners) -> object:
        return stores.batches.items(big.finished, state, 100, LIMIT)

    principal = partners.principal(KeyKind.REGULAR)
    assert _read(partners.api, partners.api.reading(principal), partners, act) <= 2 * LIMIT


def test_page_of_batches_reads_no_items(partners: Partners) -> None:
    def act(stores: Stores, big: Partners) -> object:
        return stores.batches.page(big.one.company_id, KeysetSlice(limit=LIMIT, sort=NEWEST_FIRST))

    principal = partners.principal(KeyKind.REGULAR)
    assert _read(partners.api, partners.api.reading(principal), partners, act) == 0
