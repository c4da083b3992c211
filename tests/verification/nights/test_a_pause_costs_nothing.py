"""Pauses: thousands of due calls that may not be placed cause no writes and do not hurry the clock."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.release import Release, Round
from scheduler.use_cases.shared import hints as tasks
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import TestClock, wait_until
from tests.support import exhaustive
from tests.support.builders import RecordingHints, Tenant
from tests.support.separate_database import separate_database
from tests.support.servers import SimulatedCarrier
from tests.verification.world.bulk_attempts import bulk_attempts
from tests.verification.world.moved_clock import a_clock, a_worker_hand, settling

THOUSANDS = exhaustive.cases(10_000, 2_500)
ROUNDS = 60
A_ROUND = timedelta(seconds=31)
"""Longer than a release is valid, so that a useless release would be repeated in each round."""
LOOK_EVERY_S = 1.0
SOME = 50

_OTHER_BACKENDS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True)
class Writes:
    rows: int
    wal_bytes: int


def writes_so_far(url: str) -> Writes:
    """Return PostgreSQL's own counts. Close the writing connections first: a backend reports when it ends.

    Closing a connection does not wait for the end of its backend, so this does.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        wait_until(
            lambda: not connection.execute(_OTHER_BACKENDS).fetchall(), seconds=60, says="all other backends ended"
        )
        [row] = connection.execute(
            "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint,"
            " (pg_current_wal_lsn() - '0/0')::bigint FROM pg_stat_user_tables"
        ).fetchall()
    return Writes(*row)


@pytest.fixture
def postgres_url(postgres: EmbeddedPostgres, logins: Logins) -> Iterator[str]:
    """A database in which no server of other tests has a connection."""
    with without_autovacuum(postgres.url), separate_database(postgres, logins) as own:
        yield own.url


@contextmanager
def without_autovacuum(url: str) -> Iterator[None]:
    """Let the server write nothing by itself: its log also contains what autovacuum does in other databases."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET autovacuum = off")
        admin.execute("SELECT pg_reload_conf()")
        running = "SELECT FROM pg_stat_activity WHERE backend_type LIKE 'autovacuum%'"
        wait_until(lambda: not admin.execute(running).fetchall(), seconds=60, says="autovacuum has ended")
        try:
            yield
        finally:
            admin.execute("ALTER SYSTEM RESET autovacuum")
            admin.execute("SELECT pg_reload_conf()")


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    with closing(Database(postgres_url)) as database:
        yield database


@pytest.fixture
def crowd(postgres_url: str, tenant: Tenant) -> list[UUID]:
    ids = bulk_attempts(postgres_url, tenant, THOUSANDS, due_at=tenant.now())
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE, FREEZE)")
    return ids


def live_through(url: str, now: TestClock, carrier: SimulatedCarrier, usual: Tenant) -> Iterator[float]:
    """Run everything that looks periodically, in rounds, and yield the seconds that each release took."""
    tenant, hints = replace(usual, database=Database(url)), RecordingHints()
    release = Release(tenant.context, hints, tenant.account_id)
    with settling(carrier.account(), tenant) as settle:
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            done = release.round(resends=True)
            yield time.perf_counter() - begun
            assert done == Round(released=0, more=False, next_due=None)
            settle.round()
            now.move(A_ROUND)
    assert hints.rung == []
    tenant.database.close()


@pytest.mark.parametrize("everything", [False, True], ids=["one company is paused", "everything is paused"])
def test_paused_calls_cause_no_writes_and_ring_after_resume(
    postgres_url: str,
    tenant: Tenant,
    crowd: list[UUID],
    now: TestClock,
    carrier: SimulatedCarrier,
    release: Release,
    hints: RecordingHints,
    everything: bool,
    aloud: Callable[[str], None],
) -> None:
    pauses = Pauses(tenant.database, now)
    paused = None if everything else tenant.company_id
    pauses.pause(paused, "a test")
    tenant.database.close()
    before = writes_so_far(postgres_url)
    took = list(live_through(postgres_url, now, carrier, tenant))
    after = writes_so_far(postgres_url)
    aloud(
        f"  {ROUNDS} rounds over {len(crowd)} due calls: {after.rows - before.rows} rows and"
        f" {(after.wal_bytes - before.wal_bytes) / 1024:.0f} kB of log written;"
        f" a release of nothing took {1000 * statistics.median(took):.1f} ms"
    )
    assert after.rows == before.rows
    assert after.wal_bytes - before.wal_bytes < ROUNDS * 1024, "more than the server writes by itself"

    pauses.resume(paused)
    assert release.round(resends=False).released > SOME
    with a_worker_hand(tenant, now, release, hints, TwilioCallPlacer(carrier.account(), tenant.policy)) as hand:
        hand.dial(hints.ids(tasks.DIAL)[:SOME])
    assert len(carrier.rings()) == SOME
    tenant.database.close()
    assert writes_so_far(postgres_url).rows > after.rows + SOME, "the count must include a write"


def test_paused_due_calls_do_not_hurry_the_clock(
    broker: None, postgres_url: str, tenant: Tenant, release: Release, now: TestClock
) -> None:
    bulk_attempts(postgres_url, tenant, 10, due_at=now())
    Pauses(tenant.database, now).pause(tenant.company_id, "a test")
    clock = a_clock(release)
    for _ in range(3):
        assert clock._work() == LOOK_EVERY_S
        now.move(A_ROUND)


def test_paused_call_wakes_the_clock_only_once(
    broker: None, postgres_url: str, tenant: Tenant, release: Release, now: TestClock
) -> None:
    bulk_attempts(postgres_url, tenant, 1, due_at=now() + timedelta(milliseconds=300))
    Pauses(tenant.database, now).pause(tenant.company_id, "a test")
    clock = a_clock(release)
    assert clock._work() == pytest.approx(0.3)
    now.move(timedelta(milliseconds=300))
    assert clock._work() == LOOK_EVERY_S
