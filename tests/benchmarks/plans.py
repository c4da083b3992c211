"""Cost of the frequent statements when a million attempts are pending.

    python -m tests.benchmarks.plans

It uses a temporary PostgreSQL. Each statement is captured from the store that sends it, explained with its own
parameters, and rolled back. The time is the median of several runs, as measured by PostgreSQL.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import Connection, event

from scheduler.domain.company import CallLimits
from scheduler.hashing import Hasher
from scheduler.lifecycle.policy import RELEASE_AHEAD, RELEASE_SPAN
from scheduler.local.postgres import EmbeddedPostgres
from scheduler.persistence import schema
from scheduler.persistence.database import Database
from scheduler.persistence.json_columns import schedule_as_json
from scheduler.persistence.stores import Stores
from tests.conftest import TestClock, seed
from tests.support.builders import Tenant, a_schedule, a_tenant

PENDING = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
DUE = 10_000
COMPANIES = 20
RUNS = 7
BAR_MS = 50.0
"""Limit for statements that run each second, or for each batch of calls."""
LIMITS = CallLimits(concurrent_calls=100_000, calls_per_second=1000.0)
NOW = datetime(2027, 4, 1, 10, 0, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Found:
    milliseconds: float
    rows: int
    from_end_to_end: frozenset[str]
    """Tables with a sequential scan."""


def fill(url: str, tenants: list[Tenant]) -> None:
    """Create the attempts: 10,000 of the first company are due, the others become due within thirty days."""
    form = Jsonb(schedule_as_json(a_schedule(NOW)))
    with psycopg.connect(url) as connection:
        # Skip checks of foreign keys: the rows are consistent by construction.
        connection.execute("SET session_replication_role = replica")
        for place, tenant in enumerate(tenants):
            ids = {"company": tenant.company_id, "agent": tenant.agent_id}
            size = {"count": PENDING // len(tenants), "due": DUE if place == 0 else 0}
            for statement in _FILL:
                connection.execute(statement.encode(), {**ids, **size, "now": NOW, "form": form})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


_FILL = (
    """
    INSERT INTO candidates (id, company_id, first_name, last_name, phone_number, gdpr_expiry_date,
                            created_at, updated_at)
    VALUES (%(company)s, %(company)s, 'Ada', 'Byron', '+421915000000', '2099-12-31', %(now)s, %(now)s)
    """,
    """
    CREATE TEMPORARY TABLE made ON COMMIT DROP AS
    SELECT gen_random_uuid() AS id, gen_random_uuid() AS interview, sha256(gen_random_uuid()::text::bytea) AS line,
           CASE WHEN n <= %(due)s THEN %(now)s - n * interval '1 second'
                ELSE %(now)s + random() * interval '30 days' + interval '1 minute' END AS due_at
    FROM generate_series(1, %(count)s) AS n
    """,
    """
    INSERT INTO interviews (id, company_id, candidate_id, agent_id, type, focus, duration, caller_number, status,
                            is_test, metadata, expires_at, created_at, updated_at)
    SELECT interview, %(company)s, %(company)s, %(agent)s, 'PHONE', 'GENERIC', '10 minutes', '+421221020001',
           'SCHEDULED', false, '{}', due_at + interval '7 days', %(now)s, %(now)s
    FROM made
    """,
    "INSERT INTO lines (number_hash, free_at) SELECT line, %(now)s - interval '1 day' FROM made",
    """
    INSERT INTO attempts (id, interview_id, company_id, chain_id, retry_number, manual, state, due_at, expires_at,
                          schedule, warnings, number_hash, epoch, heard_rank, looks, not_placed, created_at, updated_at)
    SELECT id, interview, %(company)s, id, 0, random() < 0.7, 'PENDING', due_at, due_at + interval '7 days', %(form)s,
           '{}', line, 0, -1, 0, 0, %(now)s, %(now)s
    FROM made
    """,
    "DROP TABLE made",
)


@contextmanager
def undone(connection: Connection) -> Iterator[None]:
    nested = connection.begin_nested()
    yield
    nested.rollback()


def explained(connection: Connection, act: Callable[[Stores], object]) -> Found:
    """Return the total cost of the statements of `act`."""
    sent: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _x: object, _many: object) -> None:
        if "SAVEPOINT" not in statement:
            sent.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    with undone(connection):
        act(Stores(connection, None))
    event.remove(connection, "before_cursor_execute", note)
    runs = []
    for _ in range(RUNS):
        with undone(connection):
            runs.append([_explained(connection, *each) for each in sent])
    return Found(
        milliseconds=statistics.median(
            sum(each["Planning Time"] + each["Execution Time"] for each in run) for run in runs
        ),
        rows=sum(round(each["Plan"]["Actual Rows"]) for each in runs[0]),
        from_end_to_end=frozenset(table for each in runs[0] for table in _read_whole(each["Plan"])),
    )


def _explained(connection: Connection, statement: str, parameters: Any) -> dict[str, Any]:
    cursor = connection.connection.cursor()
    cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
    [(explanation,)] = cursor.fetchall()
    [plan] = json.loads(explanation) if isinstance(explanation, str) else explanation
    return dict(plan)


def _read_whole(plan: dict[str, Any]) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan":
        yield str(plan["Relation Name"])
    for below in plan.get("Plans", ()):
        yield from _read_whole(below)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder), durable=False) as postgres:
        schema.upgrade(postgres.url)
        database, now = Database(postgres.url), TestClock(NOW)
        tenants = [
            a_tenant(database, seed(database, NOW, limits=LIMITS), Hasher("a pepper"), now) for _ in range(COMPANIES)
        ]
        begun = time.monotonic()
        fill(postgres.url, tenants)
        took = time.monotonic() - begun
        print(
            f"{PENDING} pending attempts of {COMPANIES} companies, {DUE} of one company due, created in {took:.0f} s",
            flush=True,
        )
        tell(database, tenants)
        database.close()


def tell(database: Database, tenants: list[Tenant]) -> None:
    busy = tenants[0].company_id
    with database._engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        stores = Stores(connection, None)
        ids = list(stores.attempt_release.release(NOW, NOW + RELEASE_SPAN, 750))
        page = stores.attempts.open_of_company(busy, None, None, 25_000)[-1].interview_id
        asked: tuple[tuple[str, float | None, Callable[[Stores], object]], ...] = (
            (
                "release: the next 500 of 10,000",
                BAR_MS,
                lambda s: s.attempt_release.release(NOW, NOW + RELEASE_SPAN, 500),
            ),
            (
                "release: 500, early ones too",
                BAR_MS,
                lambda s: s.attempt_release.release(NOW, NOW + RELEASE_SPAN, 500, early=40, due_by=NOW + RELEASE_AHEAD),
            ),
            ("release: count of released", BAR_MS, lambda s: s.attempt_release.released(NOW)),
            ("release: next due time", BAR_MS, lambda s: s.attempt_release.next_due(NOW)),
            ("claim: lock the companies of 50", BAR_MS, lambda s: s.companies.lock_for_claim(ids[:50])),
            ("claim: facts for 50", BAR_MS, lambda s: s.attempt_claims.facts(1, ids[:50], [busy])),
            ("claim: lock 50", BAR_MS, lambda s: s.attempt_claims.lock_claimable(ids[:50], NOW)),
            ("claim: lock 750, the maximum", BAR_MS, lambda s: s.attempt_claims.lock_claimable(ids, NOW)),
            ("claim: callees of 50", BAR_MS, lambda s: s.attempt_claims.callees(ids[:50])),
            ("last looks of 50", BAR_MS, lambda s: s.attempt_claims.look_all(ids[:50])),
            ("settle: expired attempts", BAR_MS, lambda s: s.attempt_polls.to_expire(NOW, 100)),
            ("settle: lapsed leases", BAR_MS, lambda s: s.attempt_polls.lapsed_leases(NOW, 100)),
            ("settle: due polls", BAR_MS, lambda s: s.attempt_polls.due_polls(NOW, NOW + timedelta(seconds=10), 100)),
            ("settings changed: the first 100", BAR_MS, lambda s: s.attempts.open_of_company(busy, None, None, 100)),
            (
                "settings changed: 100 from the middle",
                BAR_MS,
                lambda s: s.attempts.open_of_company(busy, None, page, 100),
            ),
            ("a candidate changed", BAR_MS, lambda s: s.attempts.open_of_company(busy, UUID(int=0), None, 100)),
            ("status: the counts", None, lambda s: s.attempt_counts.counts(NOW, NOW)),
        )
        print(f"\n  {'':<40}{'median ms':>10}{'rows':>8}   sequential scans")
        for name, bar, act in asked:
            found = explained(connection, act)
            verdict = "" if bar is None or found.milliseconds <= bar else f"   MISSED: more than {bar:.0f} ms"
            whole = ", ".join(sorted(found.from_end_to_end)) or "-"
            print(f"  {name:<40}{found.milliseconds:>10.1f}{found.rows:>8}   {whole}{verdict}", flush=True)
        connection.rollback()


if __name__ == "__main__":
    main()
