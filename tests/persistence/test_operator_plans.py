"""Lists of operators' work read few rows by an index, as the role of the console, however many rows there are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from console.stores.resources import OperatedResources
from scheduler.domain.batch import BatchFilter
from scheduler.domain.delivery_history import DeliveryFilter, EndpointFilter, ReplayFilter
from scheduler.domain.principal import Verb
from scheduler.domain.resource import NEWEST_FIRST, KeysetSlice
from scheduler.domain.webhook import DeliveryState
from scheduler.persistence import schema
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import NOON, Seeded, seed
from tests.persistence.rows_read import rows_read
from tests.support.big_tables import add_answered_calls
from tests.support.separate_database import separate_database

BIG = frozenset(
    {
        *("attempts", "attempt_tokens", "carrier_events", "inbox", "alarms", "audit", "erasures"),
        *("webhook_endpoints", "webhook_deliveries", "events", "batches"),
    }
)
COUNT, FEW, ROWS = 20_000, 30, 51
SOME_ID = UUID(int=2**127)
AFTER = (NOON, SOME_ID)


@dataclass(frozen=True, kw_only=True)
class Big:
    """A database with many finished rows and a few that wait for an operator."""

    operator: Database
    one: Seeded


_ROWS = (
    f"""
    UPDATE attempts SET state = 'FAILED', reason = 'OUTCOME_UNKNOWN'
    WHERE id IN (SELECT id FROM attempts LIMIT {FEW})
    """,
    f"""
    UPDATE carrier_events SET heard_at = NULL, quarantined_at = now()
    WHERE id IN (SELECT id FROM carrier_events LIMIT {FEW})
    """,
    f"""
    INSERT INTO inbox (id, principal_id, company_id, request_hash, kind, interview_id, received_at, rung_at, applied_at,
                       answer, body, failures, quarantined_at)
    SELECT gen_random_uuid(), company_id, company_id, '', 'invoke_attempt', interview_id, created_at, created_at,
           CASE WHEN n > {FEW} THEN created_at END, CASE WHEN n > {FEW} THEN '{{}}'::jsonb END,
           CASE WHEN n <= {FEW} THEN '{{}}'::jsonb END, 5, CASE WHEN n <= {FEW} THEN created_at END
    FROM (SELECT *, row_number() OVER () AS n FROM attempts) AS of_attempts
    """,
    f"""
    INSERT INTO alarms (id, kind, subjects, first_seen_at, last_seen_at, count, acknowledged_at, acknowledged_by, tries)
    SELECT gen_random_uuid(), 'KIND_' || n %% 400, jsonb_build_object('attempt_id', n), now(), now(), 1,
           CASE WHEN n > {FEW} THEN now() END, CASE WHEN n > {FEW} THEN 'cli:ada@host' END, 0
    FROM generate_series(1, %(count)s) AS n
    """,
    """
    INSERT INTO audit (at, actor, verb, target_kind, target_id, company_id, before, after)
    SELECT now(), 'link:' || n %% 900, 'verb.' || n %% 700, 'key', gen_random_uuid(), gen_random_uuid(), '{}', '{}'
    FROM generate_series(1, %(count)s) AS n
    """,
    f"""
    INSERT INTO erasures (company_id, asked_at, rung_at, finished_at, erased)
    SELECT gen_random_uuid(), now() - n * interval '1 minute', now(), CASE WHEN n > {FEW} THEN now() END, '{{}}'
    FROM generate_series(1, %(count)s) AS n
    """,
    # Ids begin with the time, as those of the product.
    """
    INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,
                                   secret, created_at, updated_at)
    SELECT lpad(to_hex(n), 32, '0')::uuid, gen_random_uuid(), gen_random_uuid(),
           (SELECT id FROM companies WHERE n <= 20 LIMIT 1), 'https://example.com', '{}', 9, 15000, '', now(), now()
    FROM generate_series(1, %(count)s) AS n
    """,
    """
    INSERT INTO events (id, company_id, type, occurred_at, data, place)
    SELECT lpad(to_hex(n), 32, '0')::uuid, (SELECT id FROM companies LIMIT 1), 'ping',
           timestamptz '1970-01-01' + n * interval '1 minute', '{}', n
    FROM generate_series(1, %(count)s) AS n
    """,
    f"""
    INSERT INTO webhook_deliveries (event_id, endpoint_id, place, state, send_at, finished_at, created_at)
    SELECT e.id, lpad('7', 32, '0')::uuid, e.place, CASE WHEN e.place <= {FEW} THEN 'FAILED' ELSE 'DELIVERED' END,
           now(), now(), now()
    FROM events e
    """,
    f"""
    INSERT INTO batches (id, company_id, principal_id, key_id, state, total, applied, work_at, finished_at, created_at,
                         updated_at)
    SELECT gen_random_uuid(), (SELECT id FROM companies LIMIT 1), gen_random_uuid(), gen_random_uuid(),
           CASE WHEN n <= {FEW} THEN 'PAUSED' ELSE 'COMPLETED' END, 1, 1, now(), CASE WHEN n > {FEW} THEN now() END,
           now() - n * interval '1 second', now()
    FROM generate_series(1, %(count)s) AS n
    """,
    "VACUUM ANALYZE",
)
WEBHOOK, EPOCH = UUID(int=7), datetime(1970, 1, 1, tzinfo=UTC)
FAILED, HOUR = DeliveryFilter(state=DeliveryState.FAILED), ReplayFilter(since=EPOCH, until=EPOCH + timedelta(hours=1))
BATCHES = KeysetSlice(limit=ROWS, sort=NEWEST_FIRST)


@pytest.fixture(scope="module")
def big(postgres: EmbeddedPostgres, logins: schema.Logins) -> Iterator[Big]:
    with separate_database(postgres, logins) as made:
        one = seed(made.owner, NOON)
        add_answered_calls(made.url, one, NOON, COUNT, account_id=1)
        with psycopg.connect(made.url, autocommit=True) as connection:
            for statement in _ROWS:
                connection.execute(statement.encode(), {"count": COUNT} if "%(count)s" in statement else None)
        yield Big(operator=made.console, one=one)


READS: dict[str, Callable[[Stores, Seeded], object]] = {
    "unknown": lambda stores, _: stores.unknown_outcomes.page(None, ROWS),
    "unknown, next": lambda stores, _: stores.unknown_outcomes.page(None, ROWS, AFTER),
    "unknown of a company": lambda stores, one: stores.unknown_outcomes.page(one.company_id, ROWS),
    "one unknown": lambda stores, _: stores.unknown_outcomes.find(SOME_ID),
    "quarantine": lambda stores, _: stores.quarantine.page(None, None, ROWS),
    "quarantine, next": lambda stores, _: stores.quarantine.page(None, AFTER, ROWS),
    "quarantine of a company": lambda stores, one: stores.quarantine.page(None, None, ROWS, one.company_id),
    "one in quarantine": lambda stores, _: stores.quarantine.find(SOME_ID),
    "open alarms": lambda stores, _: stores.alarms.open(ROWS),
    "open alarms, next": lambda stores, _: stores.alarms.open(ROWS, None, AFTER),
    "open alarms of a kind": lambda stores, _: stores.alarms.open(ROWS, "KIND_7"),
    "open alarms of a company": lambda stores, _: stores.alarms.open(ROWS, company_id=SOME_ID),
    "acknowledged alarms of a company": lambda stores, _: stores.alarms.newest(
        ROWS, None, None, SOME_ID, acknowledged=True
    ),
    "alarms": lambda stores, _: stores.alarms.newest(ROWS),
    "acknowledged alarms, next": lambda stores, _: stores.alarms.newest(ROWS, None, SOME_ID, acknowledged=True),
    "alarms of a kind": lambda stores, _: stores.alarms.newest(ROWS, "KIND_7"),
    "alarms to acknowledge": lambda stores, _: stores.alarms.find_open(None, "KIND_7"),
    "erasures": lambda stores, _: stores.erasures.newest(ROWS),
    "erasures, next": lambda stores, _: stores.erasures.newest(ROWS, AFTER),
    "open erasures": lambda stores, _: stores.erasures.newest(ROWS, is_finished=False),
    "finished erasures": lambda stores, _: stores.erasures.newest(ROWS, is_finished=True),
    "audit": lambda stores, _: stores.audit.newest(AuditFilter(), None, ROWS),
    "audit, next": lambda stores, _: stores.audit.newest(AuditFilter(), 10_000, ROWS),
    "audit of an actor": lambda stores, _: stores.audit.newest(AuditFilter(actor="link:7"), None, ROWS),
    "audit of a kind": lambda stores, _: stores.audit.newest(AuditFilter(verb=Verb.PAUSE), None, ROWS),
    "webhooks": lambda stores, _: stores.webhook_overview.states(ROWS),
    "webhooks, next": lambda stores, _: stores.webhook_overview.states(ROWS, after=WEBHOOK),
    "webhooks of a company": lambda stores, one: stores.webhook_overview.states(
        ROWS, EndpointFilter(company_id=one.company_id)
    ),
    "number of webhooks": lambda stores, one: stores.webhook_overview.count_of_company(one.company_id),
    "one webhook": lambda stores, _: stores.webhook_overview.states(1, EndpointFilter(id=WEBHOOK)),
    "deliveries": lambda stores, _: stores.webhook_history.page(WEBHOOK, DeliveryFilter(), None, ROWS),
    "failed deliveries": lambda stores, _: stores.webhook_history.page(WEBHOOK, FAILED, None, ROWS),
    "number of failed deliveries": lambda stores, _: stores.webhook_overview.count_failed(WEBHOOK, HOUR),
    "batches": lambda stores, _: OperatedResources(stores.connection).batches(BatchFilter(), BATCHES),
    "batches of a company": lambda stores, one: OperatedResources(stores.connection).batches(
        BatchFilter(company_id=one.company_id), BATCHES
    ),
    "one batch": lambda stores, _: OperatedResources(stores.connection).batches(BatchFilter(id=SOME_ID), BATCHES),
    "audit about an id": lambda stores, _: stores.audit.newest(AuditFilter(concerns=SOME_ID), None, ROWS),
}


@pytest.mark.parametrize("name", READS)
def test_list_of_work_is_read_by_an_index(big: Big, name: str) -> None:
    read = rows_read(big.operator, big.operator.reading(), lambda stores: READS[name](stores, big.one), BIG)
    assert read <= 10 * ROWS
