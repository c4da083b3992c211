"""Statements that the driver executes itself, with the errors and rows of the others."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import bindparam, literal, select, text
from sqlalchemy.exc import DBAPIError, MultipleResultsFound, NoResultFound, PendingRollbackError, ProgrammingError

from scheduler.persistence.connection import Fixed
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.tables import companies
from tests.conftest import wait_until
from tests.support.statements import statements_of

_DOUBLED = Fixed(select((bindparam("number", type_=companies.c.concurrent_calls.type) * 2).label("doubled")))
_END = text("SELECT pg_terminate_backend(pg_backend_pid())")
_BACKEND = text("SELECT pg_backend_pid()")
_SLEEPS = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
_PREPARED_AFTER = 5
"""The driver prepares a statement at its sixth execution over a connection."""
_NUMBERS = text("SELECT n FROM generate_series(1, :count) AS n")


def test_fixed_statement_has_new_values_each_time(database: Database) -> None:
    with database.reading() as stores:
        assert [stores.connection.execute(_DOUBLED, {"number": n}).one().doubled for n in (1, 2)] == [2, 4]


def test_fixed_statement_without_a_value_is_an_error(database: Database) -> None:
    with pytest.raises(ProgrammingError), database.reading() as stores:
        stores.connection.execute(_DOUBLED)


def test_rows_are_counted_before_one_is_returned(database: Database) -> None:
    with database.reading() as stores:
        none, one, two = (stores.connection.execute(_NUMBERS, {"count": count}) for count in (0, 1, 2))
        assert (none.first(), one.one().n, two.scalars(), two.rowcount) == (None, 1, [1, 2], 2)
        assert (none.one_or_none(), none.scalar_one_or_none(), one.scalar_one()) == (None, None, 1)
        with pytest.raises(NoResultFound):
            none.one()
        for read in (two.one, two.one_or_none, two.scalar_one):
            with pytest.raises(MultipleResultsFound):
                read()


def test_columns_of_the_same_name_have_only_their_places(database: Database) -> None:
    with database.reading() as stores:
        row = stores.connection.execute(text("SELECT 1 AS n, 2 AS n, 3 AS other")).one()
        assert (tuple(row), row.other) == ((1, 2, 3), 3)
        with pytest.raises(AttributeError):
            _ = row.n


def test_percent_sign_in_a_text_is_no_parameter(database: Database) -> None:
    with database.reading() as stores:
        assert stores.connection.execute(text("SELECT 'a' LIKE '%' AS matches")).one().matches


def test_joined_writes_keep_text_that_resembles_a_parameter(database: Database) -> None:
    note = "INSERT INTO notes SELECT '(a)s %%(b)s', %(number)s::int"
    with database.transaction() as stores:
        stores.connection.execute(text("CREATE TEMPORARY TABLE notes (said text, number int) ON COMMIT DROP"))
        connection = stores.connection._connection
        with statements_of(database) as sent, connection.joining():
            connection.write("one", note, {"number": 1})
            connection.write("two", note, {"number": 2})
        notes = connection.execute(text("SELECT said, number FROM notes")).all()
    assert len(sent) == 1
    assert sorted(notes) == [("(a)s %(b)s", 1), ("(a)s %(b)s", 2)]


def test_indentation_and_comments_are_not_sent(database: Database) -> None:
    """The driver parses long texts again for each execution."""
    indented = text("""
        SELECT 1 AS one,
               -- why
               2 AS two  -- guard: nothing
    """)
    with statements_of(database) as sent, database.reading() as stores:
        assert stores.connection.execute(indented).one() == (1, 2)
    assert sent[1:] == ["SELECT 1 AS one,\n2 AS two  -- guard: nothing"]


def test_error_is_of_the_same_kind_as_for_other_statements(database: Database) -> None:
    for statement in (text("SELECT 1 / (:n - 1)"), select(literal(1) / (literal(1) - 1))):
        with pytest.raises(DBAPIError) as caught, database.reading() as stores:
            stores.connection.execute(statement, {"n": 1})
        assert not caught.value.connection_invalidated
        assert getattr(caught.value.orig, "sqlstate", None) == "22012"


def test_error_never_quotes_a_value(database: Database) -> None:
    with pytest.raises(DBAPIError) as caught, database.reading() as stores:
        stores.connection.execute(text("SELECT CAST(:number AS bigint), nowhere"), {"number": "+421915123456"})
    assert "421915123456" not in str(caught.value)


def test_lost_connection_is_away_and_replaced(database: Database) -> None:
    with pytest.raises(DatabaseAway), database.reading() as stores:
        stores.connection.execute(_END)
    with database.reading() as stores:
        assert stores.connection.execute(_DOUBLED, {"number": 3}).scalar_one() == 6


def test_lost_connection_is_not_replaced_within_a_transaction(database: Database) -> None:
    with suppress(ZeroDivisionError), database.reading() as stores:
        with pytest.raises(DBAPIError) as caught:
            stores.connection.execute(_END)
        assert caught.value.connection_invalidated
        with pytest.raises(PendingRollbackError):
            stores.connection.execute(_DOUBLED, {"number": 3})
        raise ZeroDivisionError  # a commit would fail


def test_closed_connection_is_an_error_of_the_same_kind(database: Database) -> None:
    with suppress(ZeroDivisionError), database.reading() as stores:
        driver = stores.connection._connection._connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.close()
        with pytest.raises(DBAPIError) as caught:
            stores.connection.execute(_DOUBLED, {"number": 3})
        assert caught.value.connection_invalidated
        raise ZeroDivisionError  # a commit would fail


def test_value_that_cannot_be_sent_does_not_end_the_transaction(database: Database) -> None:
    """Otherwise one unreadable item would fail all others of its batch."""
    with database.reading() as stores:
        mine = stores.connection.execute(_BACKEND).scalar_one()
        with pytest.raises(UnicodeEncodeError):
            stores.connection.execute(text("SELECT CAST(:name AS text) AS name"), {"name": "\ud800"})
        assert stores.connection.execute(_BACKEND).scalar_one() == mine


def test_statement_prepared_before_a_migration_fails_once(database: Database, postgres_url: str) -> None:
    """PostgreSQL never executes it again on that connection, which a running worker would keep."""
    everything, one_connection = text("SELECT * FROM growing"), Database(postgres_url, pool_size=1)

    def read() -> int:
        with one_connection.statement() as stores:
            return len(stores.connection.execute(everything).one())

    try:
        with database.transaction() as stores:
            stores.connection.execute(text("CREATE TABLE growing AS SELECT 1 AS n"))
        assert {read() for _ in range(_PREPARED_AFTER + 1)} == {1}
        with database.transaction() as stores:
            stores.connection.execute(text("ALTER TABLE growing ADD COLUMN later text"))
        with pytest.raises(DatabaseAway):
            read()
        assert read() == 2
    finally:
        one_connection.close()
        with database.transaction() as stores:
            stores.connection.execute(text("DROP TABLE IF EXISTS growing"))


def test_interrupted_statement_gives_up_its_connection(database: Database, postgres_url: str) -> None:
    """The next transaction would read the answer to the interrupted statement."""

    def end(*_: object) -> None:
        raise SystemExit

    def interrupt(pid: int) -> None:
        with psycopg.connect(postgres_url, autocommit=True) as other:
            wait_until(lambda: other.execute(_SLEEPS, [pid]).fetchone(), says="the statement runs")
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, end)
    try:
        with ThreadPoolExecutor(1) as another, suppress(SystemExit), database.reading() as stores:
            mine = stores.connection.execute(_BACKEND).scalar_one()
            interrupted = another.submit(interrupt, mine)
            stores.connection.execute(text("SELECT pg_sleep(60)"))
            pytest.fail("the statement was not interrupted")
        interrupted.result()
    finally:
        signal.signal(signal.SIGALRM, before)
    with database.reading() as stores:
        assert stores.connection.execute(_BACKEND).scalar_one() != mine


def test_each_statement_is_seen_by_listeners(database: Database) -> None:
    with statements_of(database) as sent, database.reading() as stores:
        stores.connection.execute(_NUMBERS, {"count": 1})
        stores.connection.execute(_DOUBLED, {"number": 1})
    assert [each.split()[0] for each in sent] == ["BEGIN", "SELECT", "SELECT"]


def test_loss_of_one_connection_drops_the_older_ones(postgres_url: str) -> None:
    """The server has probably closed them too, and each would fail a transaction."""
    database = Database(postgres_url, pool_size=2)
    with database.reading() as one, database.reading() as two:
        older = {each.connection.execute(_BACKEND).scalar_one() for each in (one, two)}
    with pytest.raises(DatabaseAway), database.reading() as stores:
        stores.connection.execute(_END)
    with database.reading() as one, database.reading() as two:
        newer = {each.connection.execute(_BACKEND).scalar_one() for each in (one, two)}
    database.close()
    assert not older & newer
