"""Migrations upgrade a real database, with the rows and next to the processes of the release before."""

import hashlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, make_url, text

from scheduler.domain.attempt import AttemptState, Phase
from scheduler.lifecycle.state_machine import ARROWS
from scheduler.persistence import schema
from scheduler.persistence.database import Database, with_driver
from scheduler.persistence.errors import SchemaNotMade
from scheduler.persistence.sessions import head
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import wait_until

COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position
"""
RELEASED = {
    "of_0_1_0/indexes.py": "8b36cc72abcffb52",
    "of_0_1_0/rights.py": "0d73c053311a3ed2",
    "of_0_1_0/tables.py": "03d253eecba30cda",
    "of_0_2_0/functions.py": "a518d793c4f2b2ba",
    "of_0_2_0/rights.py": "025e92bdc9ea6ebc",
    "of_0_2_0/tables.py": "924374c329b23bf6",
    "steps.py": "4d675622bf88fa68",
    "versions/0013_version_0_1_0.py": "1d5271cdb14a4226",
    "versions/0034_version_0_2_0.py": "15e9ae3f3a38524a",
}
"""The digest of each file of a migration that a release contains. It is never edited: a new migration changes it."""
MIGRATIONS = Path(schema.__file__).parent / "migrations"
OF_0_1_0 = "0013"
ROWS_OF_0_1_0 = (Path(__file__).parent / "rows_of_0_1_0.sql").read_text(encoding="utf-8")
A_CANDIDATE = """
    INSERT INTO candidates (id, company_id, first_name, last_name, email, gdpr_expiry_date, created_at, updated_at)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'Jana', 'Nova', 'jana@example.com', '2030-01-31', now(), now())
"""


@pytest.fixture
def connection(postgres: EmbeddedPostgres) -> Iterator[Connection]:
    """A connection to an empty database, on the server of all tests."""
    name = f"migrated_{uuid4().hex}"
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
        url = make_url(with_driver(postgres.url)).set(database=name)
        engine = create_engine(url)
        with engine.connect() as connection:
            yield connection
        engine.dispose()
        server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def test_head_is_the_newest_migration(config: Config) -> None:
    assert head() == ScriptDirectory.from_config(config).get_current_head()


def test_draft_has_the_number_after_the_newest(
    connection: Connection, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    command.upgrade(config, "head")
    monkeypatch.setattr(schema, "_MIGRATIONS", copy)
    schema.draft(connection.engine.url.render_as_string(hide_password=False), "a column")
    [drafted] = copy.glob(f"versions/{int(head()) + 1:04}_a_column.py")
    text_of_it = drafted.read_text(encoding="utf-8")
    assert f"down_revision = '{head()}'" in text_of_it
    assert "no migration leads back" in text_of_it


def test_released_migrations_are_unchanged() -> None:
    found = {name: hashlib.sha256((MIGRATIONS / name).read_bytes()).hexdigest()[:16] for name in RELEASED}
    assert found == RELEASED


def test_upgrade_from_0_1_0_keeps_every_row(connection: Connection, config: Config) -> None:
    """The rows are of release 0.1.0 itself, with attempts in each phase. New columns have their defaults."""
    command.upgrade(config, OF_0_1_0)
    connection.exec_driver_sql(ROWS_OF_0_1_0)
    before = _rows(connection)
    defaults = _defaults(connection)
    assert sorted(name for name, rows in before.items() if not rows) == []
    command.upgrade(config, "head")
    after = _rows(connection)
    added = _defaults(connection)
    for table, rows in before.items():
        new = {
            column: default for (of, column), default in added.items() if of == table and (of, column) not in defaults
        }
        expected = [{**row, **new} for row in rows]
        assert [row for row in after[table] if row not in [*expected, *ADDED.get(table, [])]] == [], table
        assert [row for row in expected if row not in after[table]] == [], table


ADDED = {
    "arrows": [
        {"event": each.event, "from_state": each.source or "", "to_state": each.target, "reason": each.reason or ""}
        for each in ARROWS
    ]
}
"""Rows that later migrations add to tables of 0.1.0."""


def _rows(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    tables = {row[0] for row in connection.execute(text(COLUMNS))} - {"alembic_version"}
    rows = {
        table: list(connection.execute(text(f"SELECT to_jsonb(t) FROM {table} t")).scalars())
        for table in sorted(tables)
    }
    connection.commit()
    return rows


def _defaults(connection: Connection) -> dict[tuple[str, str], Any]:
    """Return the value of each column in a row that was written before the column existed."""
    found = {
        (table, column): None
        if default is None
        else connection.execute(text(f"SELECT to_jsonb({default})")).scalar_one()
        for table, column, _, _, default in connection.execute(text(COLUMNS)).all()
        if default is None or "nextval" not in default
    }
    connection.commit()
    return found


def test_attempts_of_0_1_0_are_read(connection: Connection, config: Config) -> None:
    command.upgrade(config, OF_0_1_0)
    connection.exec_driver_sql(ROWS_OF_0_1_0)
    connection.commit()
    command.upgrade(config, "head")
    ids = connection.execute(text("SELECT id FROM attempts")).scalars().all()
    connection.commit()
    database = Database(_url_of(connection), pool_size=1, bound=False)
    with database.transaction() as stores:
        phases = {(found.state, found.phase) for each in ids if (found := stores.attempts.find(each))}
    database.close()
    assert phases == {
        (AttemptState.PENDING, None),
        *((AttemptState.IN_PROGRESS, phase) for phase in (Phase.DIALLING, Phase.PLACED, Phase.UNKNOWN)),
        (AttemptState.FAILED, None),
    }


def test_no_migration_leads_back(connection: Connection, config: Config) -> None:
    """It would lose data. The previous release works on this schema."""
    command.upgrade(config, "head")
    with pytest.raises(SchemaNotMade, match="no migration leads back"):
        command.downgrade(config, OF_0_1_0)
    connection.rollback()
    assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == head()


def test_migration_keeps_working_with_previous_workers(connection: Connection, config: Config) -> None:
    """They read and write each old column as before, and do not use new ones."""
    revisions = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    before: dict[tuple[str, str], tuple[str, str, object]] = {}
    for revision in revisions:
        command.upgrade(config, revision)
        after = {(row[0], row[1]): row[2:] for row in connection.execute(text(COLUMNS))}
        connection.commit()
        tables = {table for table, _ in before}
        for column, (kind, may_be_null, _) in before.items():
            assert column in after, f"{revision} drops {column}"
            assert after[column][0] == kind, f"{revision} changes what {column} holds"
            assert (may_be_null, after[column][1]) != ("YES", "NO"), (
                f"{revision} wants {column}, which they may leave out"
            )
        for (table, name), (_, may_be_null, default) in after.items():
            if table in tables and (table, name) not in before:
                assert may_be_null == "YES" or default is not None, f"{revision} wants {table}.{name}, unknown to them"
        before = after


def test_migrations_make_no_extension(connection: Connection, config: Config) -> None:
    """An extension may be used by other programs, and a hosted server may keep it in a schema of its own."""
    connection.execute(text("CREATE SCHEMA extensions"))
    connection.execute(text("CREATE EXTENSION pg_trgm SCHEMA extensions"))
    connection.commit()
    extensions = text("SELECT extname FROM pg_extension ORDER BY 1")
    before = connection.execute(extensions).scalars().all()
    connection.commit()
    command.upgrade(config, "head")
    assert connection.execute(extensions).scalars().all() == before == ["pg_trgm", "plpgsql"]


@pytest.mark.parametrize(
    ("first", "second"), [("attempts", "interviews"), ("attempts", "candidates"), ("candidates", "attempts")]
)
def test_indexes_of_lists_do_not_deadlock_with_workers(
    connection: Connection, config: Config, first: str, second: str
) -> None:
    """A transaction that has written to one table may write to the next, while the migration waits for the first."""
    command.upgrade(config, OF_0_1_0)
    url = _url_of(connection)
    with ThreadPoolExecutor(1) as executor, psycopg.connect(url) as worker, psycopg.connect(url) as observer:
        observer.autocommit = True
        # On a busy machine, this side might look for a deadlock before the migration has given its locks back.
        worker.execute("SET deadlock_timeout = '20s'")
        worker.execute(f"UPDATE {first} SET created_at = created_at".encode())
        migrated = executor.submit(command.upgrade, config, "head")
        _wait_for_lock_of(first, observer)
        worker.execute(f"UPDATE {second} SET created_at = created_at".encode())
        worker.commit()
        migrated.result(timeout=60)


def test_index_is_built_on_a_table_of_another_owner(connection: Connection, config: Config) -> None:
    """PostgreSQL computes the index's keys as the owner of the table, who need not be the migrating role."""
    command.upgrade(config, OF_0_1_0)
    owner = f"owner_{uuid4().hex}"
    connection.execute(text(f"CREATE ROLE {owner}"))
    connection.execute(text(f"ALTER TABLE candidates OWNER TO {owner}"))
    connection.execute(text("SET LOCAL session_replication_role = replica"))  # a candidate without a company
    connection.execute(text(A_CANDIDATE))
    connection.commit()
    try:
        command.upgrade(config, "head")
        indexes = connection.execute(text("SELECT indexname FROM pg_indexes WHERE tablename = 'candidates'"))
        assert "ix_candidates_search" in indexes.scalars().all()
    finally:
        connection.rollback()
        connection.execute(text(f"REASSIGN OWNED BY {owner} TO CURRENT_USER"))
        connection.execute(text(f"DROP ROLE {owner}"))
        connection.commit()


def test_upgrade_says_that_tables_are_in_use(connection: Connection, config: Config) -> None:
    command.upgrade(config, OF_0_1_0)
    url = _url_of(connection)
    with psycopg.connect(url) as worker:
        worker.execute("UPDATE candidates SET created_at = created_at")
        with pytest.raises(SchemaNotMade, match=r"could not be locked .* Pause calling \(duecall pause --all\)"):
            schema.upgrade(url)
    assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == OF_0_1_0


def _url_of(connection: Connection) -> str:
    return connection.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


def _wait_for_lock_of(table: str, observer: psycopg.Connection) -> None:
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    wait_until(lambda: observer.execute(waiting, [table]).fetchone(), says="the migration waits")
