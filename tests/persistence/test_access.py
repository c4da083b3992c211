"""Missing roles, policies and grants are noticed by `db upgrade` and by the start of each process."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from scheduler.persistence import schema, sessions
from scheduler.persistence.errors import WrongDatabase
from scheduler.persistence.schema import Logins
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.architecture.guards import guards
from tests.support.separate_database import SeparateDatabase, separate_database


@pytest.fixture
def own(postgres: EmbeddedPostgres, logins: Logins) -> Iterator[SeparateDatabase]:
    with separate_database(postgres, logins) as own:
        yield own


LOSSES = {
    "DROP POLICY own_seen ON attempts": "policy own_seen on attempts",
    "ALTER TABLE attempts DISABLE ROW LEVEL SECURITY": "row-level security of attempts",
    "REVOKE UPDATE ON attempts FROM duecall_worker": "grant UPDATE on attempts to duecall_worker",
    "REVOKE EXECUTE ON FUNCTION open_transactions() FROM duecall_worker": (
        "grant EXECUTE on function open_transactions to duecall_worker"
    ),
    "DROP FUNCTION open_transactions()": r"function open_transactions\(\)",
}


@pytest.mark.parametrize("loss", LOSSES)
@guards("access", "access_at_upgrade")
def test_missing_grant_is_named_at_each_start(loss: str, own: SeparateDatabase) -> None:
    own.worker.check_access()
    with psycopg.connect(own.url, autocommit=True) as connection:
        connection.execute(loss.encode())
    for database in (own.worker, own.api, own.console):
        with pytest.raises(WrongDatabase, match=LOSSES[loss]):
            database.check_access()
    with pytest.raises(WrongDatabase, match=LOSSES[loss]):
        schema.upgrade(own.url)
    with pytest.raises(WrongDatabase, match=LOSSES[loss]):
        own.worker.check_start()


@guards("access_at_upgrade")
def test_upgrade_names_a_schema_that_no_grant_opens(own: SeparateDatabase) -> None:
    with psycopg.connect(own.url, autocommit=True) as connection:
        connection.execute("REVOKE USAGE ON SCHEMA public FROM duecall_worker")
        schema.upgrade(own.url)  # PUBLIC may use it
        own.worker.check_access()
        connection.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(WrongDatabase, match=r"grants: grant USAGE on the schema to duecall_worker\. It was"):
        schema.upgrade(own.url)


def test_upgrade_without_grants_ends_with_one_line(own: SeparateDatabase) -> None:
    with psycopg.connect(own.url, autocommit=True) as connection:
        connection.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM duecall_api, duecall_worker")
    environment = {**os.environ, "DATABASE_URL": own.url}
    command = [sys.executable, "-m", "scheduler", "db", "upgrade"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "The database lacks what its schema grants: grant " in done.stderr
    assert "Traceback" not in done.stderr


def test_more_grants_than_ours_are_no_error(own: SeparateDatabase) -> None:
    with psycopg.connect(own.url, autocommit=True) as connection:
        connection.execute("GRANT TRUNCATE ON jobs TO duecall_worker")
    own.worker.check_access()
    schema.upgrade(own.url)


def test_schema_of_another_release_is_not_compared(own: SeparateDatabase) -> None:
    with psycopg.connect(own.url, autocommit=True) as connection:
        connection.execute("DROP FUNCTION open_transactions()")
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    own.worker.check_access()


def test_roles_are_part_of_the_list() -> None:
    roles = {"duecall_api", "duecall_worker", "duecall_operator", "duecall_counter"}
    assert {f"role {name}" for name in roles} <= sessions.expected()
