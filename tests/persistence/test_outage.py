"""The cause of an outage of the database is logged once per change, and never with a secret."""

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from structlog.testing import capture_logs

from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway, Outage
from scheduler.persistence.schema import Logins
from tests.support.servers import a_closed_port

Lines = Sequence[MutableMapping[str, Any]]
SECRET = "the-wrong-password"


def changed(url: str, **parts: Any) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)


def fail(database: Database) -> None:
    with pytest.raises(DatabaseAway), database.reading():
        pass


def causes(lines: Lines) -> list[str]:
    return [line["cause"] for line in lines if line["event"].startswith("database_unreachable")]


@contextmanager
def no_connection_allowed(postgres_url: str, role: str) -> Iterator[None]:
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0".encode())
        try:
            yield
        finally:
            server.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1".encode())


def test_wrong_password_is_logged_once_without_it(logins: Logins) -> None:
    database = Database(changed(logins.api, password=SECRET), pool_size=1)
    with capture_logs() as lines:
        for _ in range(3):
            fail(database)
    [cause] = causes(lines)
    assert "password authentication failed" in cause
    assert SECRET not in str(lines)
    database.close()


def test_too_many_connections_are_logged(postgres_url: str, logins: Logins) -> None:
    database = Database(logins.api, pool_size=1)
    with no_connection_allowed(postgres_url, "api"), capture_logs() as lines:
        fail(database)
    assert ["too many connections" in cause for cause in causes(lines)] == [True]
    database.close()


def test_server_that_is_away_is_logged_until_it_answers(logins: Logins, postgres_url: str) -> None:
    port = int(a_closed_port().rpartition(":")[2])
    away = Database(changed(postgres_url, port=port), pool_size=1)
    with capture_logs() as lines:
        fail(away)
    assert "Connection refused" in causes(lines)[0]
    database = Database(logins.api, pool_size=1)
    with no_connection_allowed(postgres_url, "api"), capture_logs() as lines:
        fail(database)
    with capture_logs() as lines:
        for _ in range(2):
            with database.reading():
                pass
    assert [line["event"].partition(":")[0] for line in lines] == ["database_reached"]
    for each in (away, database):
        each.close()


def test_each_change_of_the_cause_is_logged() -> None:
    outage = Outage("postgresql://api:secret@host/duecall")
    with capture_logs() as lines:
        for cause in ("refused", "refused", "too many secret", "too many secret", "refused"):
            outage.saw(cause)
    assert causes(lines) == ["refused", "too many ***"], "a cause that comes back within a minute is not repeated"


def test_database_that_comes_and_goes_is_not_logged_each_time() -> None:
    outage = Outage("postgresql://api:secret@host/duecall")
    with capture_logs() as lines:
        for _ in range(5):
            outage.saw("refused")
            outage.ended()
    assert causes(lines) == ["refused"]
