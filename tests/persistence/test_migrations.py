"""Every migration can be applied and reverted on a real database."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, make_url, text

from scheduler.persistence import schema
from scheduler.persistence.database import with_driver
from scheduler.persistence.errors import SchemaNotMade
from scheduler.persistence.json_columns import pack
from scheduler.persistence.sessions import head
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import NOON, wait_until

CATALOG = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'public'
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "functions": """
        SELECT proname, prosecdef, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """,
    "row level security": """
        SELECT relname, relrowsecurity, relforcerowsecurity
        FROM pg_class WHERE relnamespace = 'public'::regnamespace
    """,
    "policies": "SELECT tablename, policyname, cmd, roles::text, qual, with_check FROM pg_policies",
    "rights": """
        SELECT grantee, table_name, column_name, privilege_type
        FROM information_schema.column_privileges WHERE table_schema = 'public' AND grantee LIKE 'duecall\\_%'
    """,
}
A_CANDIDATE = """
    INSERT INTO candidates (id, company_id, first_name, last_name, email, gdpr_expiry_date, created_at, updated_at)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'Jana', 'Nova', 'jana@example.com', '2030-01-31', now(), now())
"""
OWN_TABLE = "alembic_version"
"""Alembic's own table, which stays after all migrations are reverted."""


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
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations").replace("%", "%%"))
    return config


def test_head_is_the_newest_migration(config: Config) -> None:
    assert head() == ScriptDirectory.from_config(config).get_current_head()


def test_each_migration_is_completely_reversible(connection: Connection, config: Config) -> None:
    revisions = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    before = {"base": _catalog(connection)}
    for revision in revisions:
        command.upgrade(config, revision)
        before[revision] = _catalog(connection)
    head = before[revisions[-1]]
    for revision in [*revisions[-2::-1], "base"]:
        command.downgrade(config, revision)
        assert _catalog(connection) == before[revision], f"at {revision}"
    command.upgrade(config, "head")
    assert _catalog(connection) == head
    assert len(head["columns"]) > 100
    assert before["base"]["columns"] == []


def test_migration_keeps_working_with_previous_workers(connection: Connection, config: Config) -> None:
    """They read and write each old column as before, and do not use new ones."""
    revisions = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    before: dict[tuple[str, str], tuple[str, str, object]] = {}
    for revision in revisions:
        command.upgrade(config, revision)
        after = {(row[0], row[1]): row[2:] for row in connection.execute(text(CATALOG["columns"]))}
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


def test_migrations_make_and_drop_no_extension(connection: Connection, config: Config) -> None:
    """An extension may be used by other programs, and a hosted server may keep it in a schema of its own."""
    connection.execute(text("CREATE SCHEMA extensions"))
    connection.execute(text("CREATE EXTENSION pg_trgm SCHEMA extensions"))
    connection.commit()
    extensions = text("SELECT extname FROM pg_extension ORDER BY 1")
    before = connection.execute(extensions).scalars().all()
    connection.commit()
    for change, revision in ((command.upgrade, "head"), (command.downgrade, "0013"), (command.upgrade, "head")):
        change(config, revision)
        assert connection.execute(extensions).scalars().all() == before == ["pg_trgm", "plpgsql"]
        connection.commit()


@pytest.mark.parametrize(
    ("first", "second"), [("attempts", "interviews"), ("attempts", "candidates"), ("candidates", "attempts")]
)
def test_indexes_of_lists_do_not_deadlock_with_workers(
    connection: Connection, config: Config, first: str, second: str
) -> None:
    """A transaction that has written to one table may write to the next, while the migration waits for the first."""
    command.upgrade(config, "0013")
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
    command.upgrade(config, "0013")
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
    command.upgrade(config, "0013")
    before, url = _catalog(connection), _url_of(connection)
    with psycopg.connect(url) as worker:
        worker.execute("UPDATE candidates SET created_at = created_at")
        with pytest.raises(SchemaNotMade, match=r"could not be locked .* Pause calling \(duecall pause --all\)"):
            schema.upgrade(url)
    assert _catalog(connection) == before


def test_downgrade_unpacks_stored_answers(connection: Connection, config: Config) -> None:
    """The previous version reads answers as JSON, and returns them for 30 days."""
    command.upgrade(config, "0015")
    packed, plain, interview_id = uuid4(), uuid4(), uuid4()
    snapshot = {"interview": {"id": str(interview_id)}, "attempts": [{"reason": None}]}
    for command_id, content in ((packed, pack(snapshot, (interview_id, None))), (plain, b"")):
        values = {"id": command_id, "interview": interview_id, "packed": content, "now": NOON}
        connection.execute(text(_ANSWERED), values)
    connection.commit()
    command.downgrade(config, "0014")
    answers = {row.id: row.answer for row in connection.execute(text("SELECT id, answer FROM inbox"))}
    assert answers == {packed: {"attempt_id": "a", "snapshot": snapshot}, plain: {"attempt_id": "a"}}


_ANSWERED = """
    INSERT INTO inbox (id, principal_id, request_hash, kind, interview_id, received_at, rung_at, applied_at, answer,
                       packed_snapshot, failures)
    VALUES (:id, :id, '', 'create_interview', :interview, :now, :now, :now, '{"attempt_id": "a"}', :packed, 0)
"""


def test_downgrade_loses_no_accepted_cancellation(connection: Connection, config: Config) -> None:
    """Only workers of this version apply it. Without it, the phone would ring."""
    command.upgrade(config, "head")
    of_client, of_operator = uuid4(), uuid4()
    for command_id, kind in ((of_client, "delete_attempt"), (of_operator, "cancel_attempt")):
        connection.execute(text(_WAITING), {"id": command_id, "kind": kind, "now": NOON})
    connection.commit()
    with pytest.raises(SchemaNotMade, match="1 calls that operators have cancelled wait"):
        command.downgrade(config, "0020")
    connection.rollback()
    assert set(connection.execute(text("SELECT id FROM inbox")).scalars()) == {of_client, of_operator}
    connection.execute(text("UPDATE inbox SET applied_at = received_at, body = NULL, answer = '{}'"))
    connection.commit()
    command.downgrade(config, "0020")
    assert set(connection.execute(text("SELECT id FROM inbox")).scalars()) == {of_client}


_WAITING = """
    INSERT INTO inbox (id, principal_id, request_hash, kind, interview_id, received_at, rung_at, body,
                       packed_snapshot, failures)
    VALUES (:id, :id, '', :kind, :id, :now, :now, '{}', '', 0)
"""


def _url_of(connection: Connection) -> str:
    return connection.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


def _wait_for_lock_of(table: str, observer: psycopg.Connection) -> None:
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    wait_until(lambda: observer.execute(waiting, [table]).fetchone(), says="the migration waits")


def _catalog(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return the contents of the catalog, in an order that does not depend on its history."""
    told = {
        name: sorted((tuple(row) for row in connection.execute(text(query)) if OWN_TABLE not in str(row)), key=repr)
        for name, query in CATALOG.items()
    }
    arrows = connection.execute(text("SELECT to_regclass('arrows')")).scalar_one()
    told["arrows"] = [] if arrows is None else sorted(tuple(row) for row in connection.execute(text("TABLE arrows")))
    connection.commit()
    return told
