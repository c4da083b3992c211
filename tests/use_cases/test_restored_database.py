"""A database that was restored from a dump has forgotten calls, and claims nothing until an operator resumes it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, make_url

from scheduler.hashing import Hasher
from scheduler.persistence import schema
from scheduler.persistence.database import Database, with_driver
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.operations.pauses import Pauses
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import RecordingHints, Tenant, a_claimed_attempt, a_pending_attempt, a_tenant
from tests.support.dumps import dump, restore

CHANGED = "ALARM: DATABASE_CHANGED"
Options = tuple[str, ...]


@dataclass
class Server:
    """The server of all tests, where a test makes databases of its own."""

    url: str
    names: list[str]

    def url_of(self, name: str) -> str:
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def change(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def create(self, *, template: str | None = None) -> str:
        """The name of a new database."""
        name = f"restored_{uuid4().hex}"
        self.change(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        self.names.append(name)
        return name

    def rename(self, name: str) -> str:
        other = f"renamed_{uuid4().hex}"
        self.change(f"ALTER DATABASE {name} RENAME TO {other}")
        self.names.append(other)
        return other

    def drop_all(self) -> None:
        for name in self.names:
            self.change(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def server(postgres: EmbeddedPostgres) -> Iterator[Server]:
    server = Server(postgres.url, [])
    yield server
    server.drop_all()


@dataclass
class Installation:
    """An installation that has claimed a call, and has another call to claim."""

    server: Server
    name: str
    tenant: Tenant
    waiting: UUID

    def reopen(self, name: str | None = None) -> Tenant:
        """Connect to the database of that name, as processes do that are started after a restore."""
        self.close()
        self.name = name or self.name
        self.tenant = replace(self.tenant, database=Database(self.url))
        return self.tenant

    def restore_elsewhere(self, folder: Path, of_the_dump: Options = (), of_the_restore: Options = ()) -> None:
        """Dump the database, restore it as a new one, and connect to that."""
        dump(self.url, folder / "dump", *of_the_dump)
        restored = self.server.create()
        restore(self.server.url_of(restored), folder / "dump", *of_the_restore)
        self.reopen(restored)

    def close(self) -> None:
        self.tenant.database.close()

    @property
    def url(self) -> str:
        return self.server.url_of(self.name)

    def claims(self) -> bool:
        """Check that the waiting call is claimed. If not, all calling is paused because of the database."""
        claimed = self.tenant.dial.claim([self.waiting]).claimed
        assert self.tenant.ask("SELECT pause_reason FROM carrier_accounts") == [(None if claimed else CHANGED,)]
        return bool(claimed)

    def forget_the_copy(self) -> None:
        """Leave the row as the release before wrote it: it knew the server and its timeline only."""
        self.tenant.change("UPDATE carrier_accounts SET claimed_copy = NULL")


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The name of a database at this release's schema without rows. A copy takes a tenth of the CPU of an upgrade."""
    server = Server(postgres.url, [])
    name = server.create()
    schema.upgrade(server.url_of(name))
    yield name
    server.drop_all()


@pytest.fixture
def new_installation(server: Server, template: str, hasher: Hasher, now: TestClock) -> Iterator[Installation]:
    """No call was claimed in it yet."""
    name = server.create(template=template)
    database = Database(server.url_of(name))
    tenant = a_tenant(database, seed(database, now()), hasher, now)
    installation = Installation(server, name, tenant, a_pending_attempt(tenant).id)
    yield installation
    installation.close()


@pytest.fixture
def installation(new_installation: Installation) -> Installation:
    a_claimed_attempt(new_installation.tenant)
    return new_installation


def empty(tenant: Tenant) -> None:
    """Remove every row, as an operator does before rows alone are restored."""
    tables = [name for (name,) in tenant.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    tenant.change(f"TRUNCATE {', '.join(tables)}")


def test_dump_restored_into_a_new_database_stops_dialling(installation: Installation, tmp_path: Path) -> None:
    installation.restore_elsewhere(tmp_path)
    assert not installation.claims()
    assert not installation.claims()
    Pauses(installation.tenant.database, installation.tenant.now).resume(None)
    assert installation.claims()


def test_events_after_a_restore_follow_those_it_forgot(
    installation: Installation, tmp_path: Path, now: TestClock
) -> None:
    """A partner that continues after the last place that it has read misses no event of the time after the restore."""

    def last_place(events: int) -> int:
        tenant = installation.tenant
        for _ in range(events):
            row = {"id": uuid4(), "company_id": tenant.company_id, "type": "company.paused"}
            tenant.insert("events", **row, occurred_at=now(), data="{}")
        NumberEvents(tenant.database, RecordingHints(), now).all()
        [[place]] = tenant.ask("SELECT max(place) FROM events")
        return int(place)

    last_place(1)
    dump(installation.url, tmp_path / "dump")
    read = last_place(300)
    now.move(timedelta(minutes=1))
    restored = installation.server.create()
    restore(installation.server.url_of(restored), tmp_path / "dump")
    installation.reopen(restored)
    assert last_place(1) > read


def test_dump_restored_over_its_own_database_stops_dialling(installation: Installation, tmp_path: Path) -> None:
    dump(installation.url, tmp_path / "dump")
    installation.close()
    restore(installation.url, tmp_path / "dump", "--clean", "--if-exists")
    installation.reopen()
    assert not installation.claims()


@pytest.mark.parametrize("options", [(), ("--single-transaction",)])
def test_rows_restored_into_the_same_tables_stop_dialling(
    installation: Installation, tmp_path: Path, options: Options
) -> None:
    dump(installation.url, tmp_path / "dump")
    empty(installation.tenant)
    installation.close()
    restore(installation.url, tmp_path / "dump", "--data-only", "--disable-triggers", *options)
    installation.reopen()
    assert not installation.claims()


def test_dump_made_before_the_first_claim_stops_dialling(new_installation: Installation, tmp_path: Path) -> None:
    """Calls that were placed after the dump are forgotten, although no call had been claimed before it."""
    new_installation.restore_elsewhere(tmp_path)
    assert not new_installation.claims()


def test_dump_made_right_after_a_resume_stops_dialling(installation: Installation, tmp_path: Path) -> None:
    pauses = Pauses(installation.tenant.database, installation.tenant.now)
    pauses.pause(None, "a look at the carrier")
    pauses.resume(None)
    installation.restore_elsewhere(tmp_path)
    assert not installation.claims()


@guards("database", "database_copy")
def test_copy_by_template_stops_dialling(installation: Installation) -> None:
    installation.close()
    installation.reopen(installation.server.create(template=installation.name))
    assert not installation.claims()


UPKEEP = (
    *(b"VACUUM FULL", b"VACUUM FREEZE", b"ANALYZE", b"REINDEX TABLE attempts", b"CLUSTER attempts USING pk_attempts"),
    b"ALTER TABLE attempts ADD COLUMN of_a_later_release text DEFAULT 'x'",
)


def test_upkeep_of_the_same_database_stops_nothing(installation: Installation) -> None:
    """A pause would last until an operator ends it, so one claim tells of all statements before it."""
    with psycopg.connect(installation.url, autocommit=True) as connection:
        for statement in UPKEEP:
            connection.execute(statement)
    assert installation.claims()


def test_renamed_database_stops_nothing(installation: Installation) -> None:
    installation.close()
    installation.reopen(installation.server.rename(installation.name))
    assert installation.claims()


def test_migrations_keep_the_identity_of_the_database(server: Server) -> None:
    name = server.create()
    engine = create_engine(with_driver(server.url_of(name)))
    with engine.connect() as connection:
        config = Config(attributes={"connection": connection})
        folder = Path(schema.__file__).parent / "migrations"
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        command.upgrade(config, "0013")
    engine.dispose()
    database = Database(server.url_of(name))
    with database.transaction() as stores:
        before = stores.carrier_accounts.database_now()
    schema.upgrade(server.url_of(name))
    with database.transaction() as stores:
        assert stores.carrier_accounts.database_now() == before
    database.close()


def test_upgraded_installation_claims_and_stores_its_copy(installation: Installation) -> None:
    """The release before wrote the server and its timeline only; its own claims prove that nothing was restored."""
    [[known]] = installation.tenant.ask("SELECT claimed_copy FROM carrier_accounts")
    installation.forget_the_copy()
    assert installation.claims()
    assert installation.tenant.ask("SELECT claimed_copy FROM carrier_accounts") == [(known,)]


@pytest.mark.parametrize(
    ("of_the_dump", "of_the_restore"),
    [
        pytest.param((), (), id="in turn", marks=guards("database", "database_copy", "database_upgrade")),
        pytest.param((), ("--single-transaction",), id="in one transaction"),
        pytest.param(("--inserts",), (), id="row by row"),
    ],
)
def test_dump_of_the_previous_release_stops_dialling(
    installation: Installation, tmp_path: Path, of_the_dump: Options, of_the_restore: Options
) -> None:
    """It names the same server and no copy, just as an upgraded installation does."""
    installation.forget_the_copy()
    installation.restore_elsewhere(tmp_path, of_the_dump, of_the_restore)
    assert not installation.claims()


def test_worker_of_the_previous_release_claims_next_to_a_new_one(installation: Installation) -> None:
    """It compares `claimed_on` with the server and its timeline, as this statement does, and knows no other column."""
    same = installation.tenant.ask("""
        SELECT claimed_on = system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
        FROM carrier_accounts, pg_control_system()
    """)
    assert same == [(True,)]
