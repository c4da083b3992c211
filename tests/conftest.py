"""Fixtures of all tests: real servers, an empty database at this release's schema, a seeded company.

The servers are private ones, started once for all tests and stopped at their end. `DATABASE_URL` and `REDIS_URL` are
ignored, because a test must never empty a database in use.
"""

import gc
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import hypothesis
import psycopg
import pytest
import structlog
import whenever
from redis import Redis
from sqlalchemy import QueuePool
from xdist.scheduler import LoadScopeScheduling

from scheduler.clock import clock
from scheduler.domain.call import MachineDetection
from scheduler.domain.company import CallLimits, Company, CompanySettings, RetryPolicy
from scheduler.domain.interview import Agent, AgentFocus, AgentType
from scheduler.hashing import Hasher
from scheduler.persistence import schema, sessions
from scheduler.persistence.database import Database
from scheduler.settings import settings as of_this_process
from standalone.valkey_and_postgres import EmbeddedPostgres, EmbeddedValkey
from tests.support.builders import RecordingHints, Tenant, a_tenant
from workers.app import app

T = TypeVar("T")
CALLER = "+421221020001"
# Everywhere as in CI: the same examples in each run, and no limits of time, which a busy machine exceeds.
hypothesis.settings.load_profile("ci")
# In tests that do not configure logs: the usual renderer formats each exception with the variables of all frames, which
# takes a second of CPU.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


def wait_until(what: Callable[[], T | None], *, seconds: float = 20.0, says: str = "it came true") -> T:
    """Return the first truthy value of `what()`. Fails after the given seconds."""
    began = time.monotonic()
    pause_s = _FIRST_PAUSE_S
    while True:
        value = what()
        if value:
            return value
        waited_s = time.monotonic() - began
        if waited_s > seconds:
            pytest.fail(f"waited {seconds} s and never: {says}; last seen: {value!r}")
        _NEVER.wait(pause_s)
        pause_s = min(2 * pause_s, max(_SHORT_PAUSE_S, _PART_OF_THE_WAIT * waited_s), _LONGEST_PAUSE_S)


_NEVER = threading.Event()
_FIRST_PAUSE_S, _SHORT_PAUSE_S, _LONGEST_PAUSE_S, _PART_OF_THE_WAIT = 0.001, 0.02, 0.1, 0.05
"""Seconds between two checks of a condition, growing: most conditions come true within 3 ms. After 0.4 s a pause is a
twentieth of the wait so far, because the checks of a whole system take CPU from it. A wait ends by its condition.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that start whole systems last, so that quick failures show first."""
    items.sort(key=lambda item: "acceptance" in item.path.parts)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let garbage collection skip the collected tests and imported modules. They live until the process ends."""
    gc.collect()
    gc.freeze()


_ONE_AFTER_THE_OTHER = {
    "whole systems": {"acceptance"},
    "many processes": {"crash", "races", "test_fairness.py", "test_what_is_spent_before_it_is_known.py"},
    "starts": {"test_cli_readme.py", "test_cli_starting.py", "test_proof.py"},
    "lists": {"test_plans.py", "test_filtered_lists.py"},
    "source code": {"architecture"},
    "waiting systems": {
        *("test_black_hole.py", "test_carrier_outage.py", "test_changed_calls.py", "test_deaf_workers.py"),
        *("test_killed_processes.py", "test_lost_uplink.py"),
    },
    "generated client": {"client"},
}
"""Groups of files and folders. The tests of a group run in one process. A file of two groups belongs to the later one.

Tests of whole systems, of many processes and of starts race with time itself, or mostly wait. These groups may run next
to each other: a whole system waits for most of its time, so it disturbs a race with time less than other tests do. The
tests of lists, of source code and of the client share what takes seconds of CPU to make.
"""
_LONG_FILES = (
    *("test_console_browser.py", "test_a_carrier_that_is_down.py", "test_release_holds.py", "test_silent_server.py"),
    *("test_fuzz.py", "test_twilio.py", "test_intake_commits_in_doubt.py", "test_intake_many_waiting.py"),
    *("test_intake_outages.py", "test_fork_server.py", "test_simulator.py", "test_restored_database.py"),
    *("test_machine.py", "test_a_year_of_nights.py", "test_new_calls.py", "test_forecast_of_calendar.py"),
    *("test_arrows.py", "test_workers_on_redis.py", "test_lock_conflicts.py", "test_hot_statements.py"),
)
"""Files that take longest, the longest first. A long file that is given last would keep all other processes waiting."""


class _Turns(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Give the next group or file to a free process: groups first, then long files, then those with most tests.

    The tests of a file share what its fixtures make, so they run in one process.

    The marker `xdist_group` would do the same, but this pytest ignores it.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        groups = [name for name, places in _ONE_AFTER_THE_OTHER.items() if places & set(file.split("/"))]
        return groups[-1] if groups else file

    def _assign_work_unit(self, node: Any) -> None:
        # xdist gives large units first. The tests of a small one may take longer, and all processes wait for the last.
        units = {unit.rpartition("/")[2]: unit for unit in self.workqueue}
        first = next((units[name] for name in (*_ONE_AFTER_THE_OTHER, *_LONG_FILES) if name in units), None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two processes for each processor: while two or three wait for other processes, the others use the processors."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Turns:
    return _Turns(config, log)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A test id that is equal in every process. Parallel processes share out the tests by it."""
    if isinstance(val, str) and _A_UUID.search(val):
        return _A_UUID.sub("a uuid", val)
    return None


_A_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def zones_of_the_wheel() -> Iterator[None]:
    """Let `whenever` read the zones of the wheel that the product reads."""
    before = whenever.get_tzpath()
    whenever.reset_tzpath(())
    yield
    whenever.reset_tzpath(before)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False)
    url = server.start()
    schema.upgrade(url)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def logins(postgres: EmbeddedPostgres) -> schema.Logins:
    """URLs of the shared database for the API's and the workers' roles. `postgres_url` is the superuser's."""
    return schema.make_logins(postgres.url)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def broker(valkey: EmbeddedValkey) -> None:
    """The broker of the Celery application, whose address it reads once, at its first use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", valkey.url)
        of_this_process.cache_clear()
        assert app.conf.broker_url == valkey.url
    of_this_process.cache_clear()


@pytest.fixture(scope="session")
def cleaning(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """A connection with the function `pg_temp.empty()`, which deletes all rows except the table of arrows."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        # As a replica, PostgreSQL does not check foreign keys, so the order of deletion does not matter.
        connection.execute("SET session_replication_role = replica")
        tables = [
            name
            for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            if name not in {"arrows", "alembic_version"}
        ]
        # A few rows each: TRUNCATE would create the files of each table again, which takes twenty times as long. A
        # function keeps the plans of its statements.
        # Counted at once: tests that count written rows would otherwise see these counts arrive later.
        empty = "; ".join((*(f"DELETE FROM {table}" for table in tables), "PERFORM pg_stat_force_next_flush()"))
        connection.execute(
            f"CREATE FUNCTION pg_temp.empty() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {empty}; END $$".encode()
        )
        yield connection


@pytest.fixture(scope="session")
def cleaner(cleaning: psycopg.Connection) -> Callable[[], object]:
    """Delete all rows of the shared database except the table of arrows."""
    return lambda: cleaning.execute("SELECT pg_temp.empty()")


@pytest.fixture
def postgres_url(
    postgres: EmbeddedPostgres, cleaning: psycopg.Connection, cleaner: Callable[[], object]
) -> Iterator[str]:
    """A database at this release's schema, empty except for the table of arrows."""
    cleaner()
    yield postgres.url
    # A process of the next test may start first, and would refuse the database of an installation with other settings.
    cleaning.execute("DELETE FROM installation_marks")


@pytest.fixture(scope="session")
def valkey_client(valkey: EmbeddedValkey) -> Iterator[Redis]:
    with Redis.from_url(valkey.url) as client:
        yield client


@pytest.fixture
def redis_url(valkey: EmbeddedValkey, valkey_client: Redis) -> str:
    """A Valkey without a key: no message waits and no rate limit is used."""
    valkey_client.flushall()
    return valkey.url


@pytest.fixture
def hasher() -> Hasher:
    return Hasher("a pepper for tests")


class TestClock:
    """A clock that shows `instant` until a test moves it."""

    __test__ = False

    def __init__(self, instant: datetime) -> None:
        self.instant = instant

    def __call__(self) -> datetime:
        return self.instant

    def move(self, span: timedelta) -> None:
        self.instant += span


NOON = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
"""A Thursday; noon in London and 14:00 in Bratislava, where summer time has begun."""


@pytest.fixture
def now() -> TestClock:
    return TestClock(NOON)


_AS_NEW = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();"
    " DISCARD TEMP; DISCARD SEQUENCES"
)
"""DISCARD ALL without the prepared statements, which the driver manages itself."""


@pytest.fixture(scope="session")
def the_database(postgres: EmbeddedPostgres) -> Iterator[Database]:
    """One pool for all tests, because connecting takes longer than most tests."""
    database = Database(postgres.url, history_key=Hasher("a pepper for tests").history_key())
    yield database
    database.close()


@pytest.fixture
def database(postgres_url: str, the_database: Database) -> Iterator[Database]:
    """An empty database without open connections. Each connection is reset between tests."""
    yield the_database
    pool = the_database._engine.pool
    assert isinstance(pool, QueuePool)
    wait_until(lambda: pool.checkedout() == 0, says="every connection is given back")
    idle = [pool.connect() for _ in range(pool.checkedin())]
    for each in idle:
        connection = each.driver_connection
        assert isinstance(connection, psycopg.Connection)
        connection.execute(_AS_NEW)
        sessions.check(connection)
        each.close()


@dataclass(frozen=True, kw_only=True)
class Seeded:
    company_id: UUID
    agent_id: UUID
    phone_number_id: UUID


def seed(database: Database, instant: datetime, **settings: object) -> Seeded:
    """A company with a phone agent, and with limits and retries that do not get in a test's way."""
    defaults: dict[str, object] = {
        "limits": CallLimits(concurrent_calls=1000, calls_per_second=1000.0),
        "retry_policy": RetryPolicy(max_retries=0),
        # The carrier of most tests reports who answered with its status, and no verdict of its own.
        "machine_detection": MachineDetection.SYNC,
    }
    company = Company(
        id=uuid4(),
        name="Acme",
        settings=CompanySettings(**{**defaults, **settings}),  # type: ignore[arg-type]
        created_at=instant,
        updated_at=instant,
    )
    agent = Agent(
        id=uuid4(),
        company_id=company.id,
        name="Generic",
        type=AgentType.PHONE,
        focus=AgentFocus.GENERIC,
        language="EN",
        duration=timedelta(minutes=10),
        created_at=instant,
        updated_at=instant,
    )
    with database.transaction() as stores:
        stores.companies.add(company)
        number_id = stores.phone_numbers.add(uuid4(), company.id, CALLER, instant)
        stores.agents.add(replace(agent, phone_number_id=number_id))
    return Seeded(company_id=company.id, agent_id=agent.id, phone_number_id=number_id)


@pytest.fixture
def seeded(database: Database, now: TestClock) -> Seeded:
    return seed(database, now())


@pytest.fixture
def tenant(database: Database, seeded: Seeded, hasher: Hasher, now: TestClock) -> Tenant:
    return a_tenant(database, seeded, hasher, now)


@pytest.fixture
def hints() -> RecordingHints:
    return RecordingHints()


real_now = clock(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def aloud(capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a figure even if all tests pass."""

    def say(line: str) -> None:
        with capfd.disabled():
            print(f"\n{line}", flush=True)

    return say
