"""A database that confirms bytes and never answers, as behind a proxy or pooler that hangs: every wait ends."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from scheduler.clock import deadline_in
from scheduler.persistence import schema, sessions
from scheduler.persistence.database import FINDS_OUT, Database
from scheduler.persistence.errors import Commit, CommitInDoubt, DatabaseAway, Outcome
from scheduler.persistence.sessions import ALLOWANCE_S, STATEMENT_S, BoundedConnection
from tests.architecture.guards import guards
from tests.conftest import Seeded, wait_until
from tests.persistence.test_commits import is_commit, job_exists, settled, write
from tests.support.servers import Wire, wired

SHORT_S = 0.2
"""What the request's deadline leaves, so that a test need not wait for the usual limit."""


@pytest.fixture
def over_wire(postgres_url: str) -> Iterator[tuple[Wire, Database]]:
    with wired(postgres_url) as (wire, url):
        database = Database(url, pool_size=1)
        database.check_start()
        yield wire, database
        database.close()


@pytest.mark.parametrize(
    "silent", ["dead", pytest.param("mute_after", marks=guards("statement_deadline", "late_connection"))]
)
def test_statement_ends_when_the_server_is_silent(
    over_wire: tuple[Wire, Database], silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, database = over_wire
    monkeypatch.setattr(BoundedConnection, "statement_s", 600.0)  # only the deadline of the request ends it
    setattr(wire, silent, lambda sent: b"SELECT 7" in sent)
    # Long enough that a busy machine sends the statement within it: otherwise the wait for a connection ends.
    error = error_of(lambda: ask(database, 7), deadline_s=10 * SHORT_S)
    assert isinstance(error, DatabaseAway)
    assert "did not answer in time" in str(error), "the server, which closes idle connections, did not end it"
    assert ask(database, 8) == 8, "the next transaction has another connection"


def test_statement_without_a_request_ends_at_its_own_limit(
    over_wire: tuple[Wire, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, database = over_wire
    monkeypatch.setattr(BoundedConnection, "statement_s", 1.0)
    wire.dead = lambda sent: b"SELECT 7" in sent
    error = error_of(lambda: ask(database, 7), deadline_s=None)
    assert isinstance(error, DatabaseAway)
    assert "did not answer in time" in str(error)


@pytest.mark.parametrize("begins", ["transaction", "reading", "statement", "lookup", "counting"])
def test_first_statement_ends_when_the_server_is_silent(over_wire: tuple[Wire, Database], begins: str) -> None:
    wire, database = over_wire
    wire.dead = lambda _: True

    def ask_first() -> None:
        with getattr(database, begins)() as stores:
            stores.connection.execute(text("SELECT 7"))

    assert isinstance(error_of(ask_first), DatabaseAway)


def test_silence_after_commit_is_a_commit_in_doubt(
    over_wire: tuple[Wire, Database], database: Database, seeded: Seeded
) -> None:
    """As after a cut, where `test_commits` also has the commit that never arrives."""
    wire, cut = over_wire
    commit = Commit()
    wire.mute_after = is_commit
    written: list[Any] = []

    def write_it() -> None:
        with ExitStack() as opened:
            written.append(write(opened.enter_context(cut.transaction(commit=commit)), seeded))
            with deadline_in(1):  # a busy machine sends the COMMIT by then
                opened.close()

    assert isinstance(error_of(write_it, deadline_s=None), CommitInDoubt)
    wait_until(lambda: settled(database, commit), seconds=60, says="PostgreSQL has finished it")
    assert commit.transaction_id is not None
    assert database.outcome_of(commit.transaction_id) is Outcome.COMMITTED
    assert job_exists(database, written[0])


def test_rollback_ends_when_the_server_is_silent(over_wire: tuple[Wire, Database]) -> None:
    wire, database = over_wire

    def fail() -> None:
        with database.transaction():
            wire.dead = lambda _: True
            raise ValueError

    assert isinstance(error_of(fail), ValueError | DatabaseAway)
    wire.dead = lambda _: False
    assert ask(database, 8) == 8


def test_checkout_ends_when_new_connections_are_silent(over_wire: tuple[Wire, Database]) -> None:
    wire, database = over_wire
    wire.dead = lambda _: True  # also the first byte of a connection
    for _ in range(2):  # the second one needs a new connection
        assert isinstance(error_of(lambda: ask(database, 7)), DatabaseAway)
    wire.dead = lambda _: False
    assert ask(database, 8) == 8


def test_all_connections_of_the_pool_survive_a_silence(over_wire: tuple[Wire, Database]) -> None:
    wire, database = over_wire
    wire.dead = lambda _: True
    threads = [threading.Thread(target=quietly(partial(ask, database, 7)), daemon=True) for _ in range(12)]
    for thread in threads:
        thread.start()
    wait_until(lambda: not any(thread.is_alive() for thread in threads), seconds=60, says="every thread has ended")
    wire.dead = lambda _: False
    assert [ask(database, number) for number in range(8)] == list(range(8))


@guards("statement_deadline", "late_connection")
def test_late_answer_is_not_read_by_the_next_statement(postgres_url: str) -> None:
    with BoundedConnection.connect(postgres_url, autocommit=True) as connection:
        connection.execute("SET statement_timeout = 0")
        process = connection.info.backend_pid
        with deadline_in(0), pytest.raises(psycopg.OperationalError, match="did not answer in time"):
            connection.execute("SELECT 7, pg_sleep(60)")
        assert connection.closed
    with psycopg.connect(postgres_url) as other:  # otherwise it sleeps on, and other tests look for one that does
        other.execute("SELECT pg_terminate_backend(%s, 60000)", [process])


def test_slow_answer_within_the_limit_is_not_cut(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "ALLOWANCE_S", 30.0)
    with BoundedConnection.connect(postgres_url, autocommit=True) as connection, deadline_in(0):
        assert connection.execute("SELECT 7, pg_sleep(0.5)").fetchone() == (7, "")


def test_listening_connection_ends_when_it_is_silent(postgres_url: str) -> None:
    with wired(postgres_url) as (wire, url):
        wire.dead = lambda sent: b"LISTEN" in sent

        def listen() -> None:
            with BoundedConnection.connect(url, autocommit=True, **FINDS_OUT) as connection:  # type: ignore[arg-type]
                connection.execute("LISTEN due")

        assert isinstance(error_of(listen), psycopg.OperationalError)


def test_migration_has_a_longer_limit_and_ends_too(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert schema.STATEMENT_S > STATEMENT_S
    monkeypatch.setattr(schema, "STATEMENT_S", 0.2)
    with wired(postgres_url) as (wire, url):
        wire.dead = lambda sent: b"pg_advisory_lock" in sent
        assert isinstance(error_of(lambda: schema.upgrade(url), deadline_s=None), DatabaseAway)


def error_of(
    work: Callable[[], object], *, deadline_s: float | None = SHORT_S, seconds: float = STATEMENT_S + ALLOWANCE_S + 30
) -> BaseException | None:
    """Return the error of `work`, which must end within `seconds`. It runs in a thread of its own, as it may hang."""
    errors: list[BaseException | None] = []

    def run() -> None:
        try:
            if deadline_s is None:
                work()
            else:
                with deadline_in(deadline_s):
                    work()
            errors.append(None)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threading.Thread(target=run, daemon=True).start()
    wait_until(lambda: errors, seconds=seconds, says="the work has ended")
    return errors[0]


def quietly(work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        with suppress(DatabaseAway):
            work()

    return run


def ask(database: Database, number: int) -> Any:
    with database.transaction() as stores:
        return stores.connection.execute(text(f"SELECT {number}")).scalar_one()
