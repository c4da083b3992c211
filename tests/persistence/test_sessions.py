"""Sessions of connections: limits and roles are in force, also through a pooler, or the connection is refused."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import psycopg
import pytest
from sqlalchemy import make_url, text

from scheduler.persistence import schema, sessions
from scheduler.persistence.database import Database
from scheduler.persistence.errors import WrongDatabase, WrongRole
from scheduler.persistence.schema import Logins
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.architecture.guards import guards
from tests.support.pgbouncer import PgBouncer, needs_pgbouncer, pgbouncer
from tests.support.servers import a_door

PLAIN = ("plain_worker", "plain_operator")
"""Logins that were created by hand, without `duecall db logins`."""
LIMITS = text(
    "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
    " current_setting('idle_in_transaction_session_timeout'), current_setting('TimeZone')"
)


def _as_user(url: str, name: str) -> str:
    return make_url(url).set(username=name, password="made by hand").render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def by_hand(postgres: EmbeddedPostgres, logins: Logins) -> Iterator[dict[str, str]]:
    with psycopg.connect(postgres.url, autocommit=True) as owner:
        for name in PLAIN:
            group = name.replace("plain", "duecall")
            owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'made by hand' IN ROLE {group}".encode())
        yield {name: _as_user(postgres.url, name) for name in PLAIN}
        for name in PLAIN:
            owner.execute(f"DROP ROLE {name}".encode())


def _urls(postgres: EmbeddedPostgres, logins: Logins, by_hand: dict[str, str]) -> list[str]:
    assert logins.operator is not None
    return [postgres.url, logins.api, logins.worker, logins.operator, *by_hand.values()]


@pytest.fixture(scope="module")
def pooled(postgres: EmbeddedPostgres, logins: Logins, by_hand: dict[str, str]) -> Iterator[PgBouncer]:
    with pgbouncer(_urls(postgres, logins, by_hand), "transaction") as bouncer:
        yield bouncer


@contextmanager
def _database(url: str, *, operates: bool = False) -> Iterator[Database]:
    with closing(Database(url, pool_size=4, operates=operates)) as database:
        yield database


def _limits(database: Database) -> tuple[str, ...]:
    with database.reading() as stores:
        return tuple(stores.connection.execute(LIMITS).one())


IN_FORCE = ("5s", "2s", "10s", "UTC")


def test_limits_are_in_force_on_direct_connections(by_hand: dict[str, str], logins: Logins) -> None:
    for url in (by_hand["plain_worker"], logins.worker):
        with _database(url) as database:
            assert _limits(database) == IN_FORCE


@needs_pgbouncer
def test_limits_are_in_force_through_a_pooler(pooled: PgBouncer, logins: Logins) -> None:
    for url in (logins.api, logins.worker):
        with _database(pooled.url_of(url)) as database:
            assert _limits(database) == IN_FORCE


@needs_pgbouncer
@guards("session_limits")
def test_login_without_limits_is_refused_through_a_pooler(pooled: PgBouncer, by_hand: dict[str, str]) -> None:
    expected = r"plain_worker has no statement_timeout .* `duecall db logins` .* ALTER ROLE plain_worker SET"
    with _database(pooled.url_of(by_hand["plain_worker"])) as database, pytest.raises(WrongDatabase, match=expected):
        database.check_start()


@needs_pgbouncer
def test_console_has_its_role_through_a_pooler(pooled: PgBouncer, logins: Logins, by_hand: dict[str, str]) -> None:
    assert logins.operator is not None
    with _database(pooled.url_of(logins.operator), operates=True) as database, database.counting() as stores:
        assert stores.connection.execute(text("SELECT current_user")).scalar_one() == "duecall_counter"
    by_itself = pooled.url_of(by_hand["plain_operator"])
    with (
        _database(by_itself, operates=True) as database,
        pytest.raises(WrongRole, match=r"plain_operator has no .* role"),
    ):
        database.check_start()


@needs_pgbouncer
def test_statements_are_answered_by_any_session(pooled: PgBouncer, logins: Logins) -> None:
    """The driver prepares a statement that it has sent five times. The pooler gives the next one another session."""
    together = threading.Barrier(4)

    def asked(number: int) -> list[int]:
        found = []
        for _ in range(20):
            with database.reading() as stores:
                together.wait(timeout=20)
                found.append(stores.connection.execute(text("SELECT :number + 1"), {"number": number}).scalar_one())
        return found

    with _database(pooled.url_of(logins.worker)) as database, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(asked, range(4))) == [[number + 1] * 20 for number in range(4)]


@needs_pgbouncer
@pytest.mark.parametrize("setting", ["DATABASE_LISTEN_URL", "DATABASE_OWNER_URL"])
def test_transaction_pooler_is_refused_where_sessions_count(
    setting: str, pooled: PgBouncer, postgres: EmbeddedPostgres
) -> None:
    sessions.refuse_transaction_pooler(postgres.url, setting)
    with pytest.raises(WrongDatabase, match=rf"^{setting} leads through a transaction pooler"):
        sessions.refuse_transaction_pooler(pooled.url_of(postgres.url), setting)


@needs_pgbouncer
def test_upgrade_through_a_transaction_pooler_is_refused(pooled: PgBouncer, postgres: EmbeddedPostgres) -> None:
    with pytest.raises(WrongDatabase, match="DATABASE_OWNER_URL"):
        schema.upgrade(pooled.url_of(postgres.url))


@needs_pgbouncer
def test_session_pooler_is_accepted(postgres: EmbeddedPostgres, logins: Logins, by_hand: dict[str, str]) -> None:
    with pgbouncer(_urls(postgres, logins, by_hand), "session") as bouncer:
        sessions.refuse_transaction_pooler(bouncer.url_of(postgres.url), "DATABASE_LISTEN_URL")


def test_older_server_is_refused_with_both_versions(postgres: EmbeddedPostgres) -> None:
    with _claiming_to_be_older(postgres.url) as url:
        with _database(url) as database, pytest.raises(WrongDatabase, match=r"needs PostgreSQL 15 or newer, .* 14\."):
            database.check_start()
        with pytest.raises(WrongDatabase, match=r"needs PostgreSQL 15 or newer, .* 14\."):
            schema.upgrade(url)


@contextmanager
def _claiming_to_be_older(url: str) -> Iterator[str]:
    """Yield a URL of the same server, which says that it is PostgreSQL 14."""
    with psycopg.connect(url) as connection:
        major = connection.info.server_version // 10_000
    older = (f"server_version\0{major}".encode(), b"server_version\x0014")
    with a_door() as door, ThreadPoolExecutor() as threads:

        def forward(source: socket.socket, target: socket.socket) -> None:
            with suppress(OSError):
                while some := source.recv(65_536):
                    target.sendall(some.replace(*older))
                target.shutdown(socket.SHUT_RDWR)

        def serve(client: socket.socket) -> None:
            with client, socket.create_connection(("127.0.0.1", make_url(url).port or 0)) as server:
                back = threads.submit(forward, server, client)
                forward(client, server)
                back.result()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threads.submit(serve, door.accept()[0])

        threads.submit(accept)
        yield make_url(url).set(port=door.getsockname()[1]).render_as_string(hide_password=False)
        door.shutdown(socket.SHUT_RDWR)
