"""The session of each new connection: version, limits, time zone and role. They are in force, or it is refused.

The limits are settings of the logins (`duecall db logins`), because poolers drop or refuse options of a connection. A
direct connection without them sets them itself. Through a pooler that would change the sessions of others.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue
from psycopg.rows import tuple_row
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from scheduler.persistence.bounded_connection import BoundedConnection
from scheduler.persistence.errors import DatabaseAway, WrongDatabase, WrongRole
from scheduler.persistence.rows import AnyRow, AnyValue

OPERATOR = "duecall_operator"
"""The role of the operators' console: it reads all companies, in columns without personal data."""

LIMITS = {
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
    "TimeZone": "UTC",
}
"""Settings on which transactions rely, as PostgreSQL writes them."""

_OLDEST_VERSION = 15
_A_MAJOR_VERSION = 10_000
_ROUNDS = 3
"""Times that a pooler is asked: another client may take the session that the answer depends on."""

_NO_OPERATOR = (
    f"The console needs a login that may run as {OPERATOR}: set DATABASE_OPERATOR_URL and run `duecall db logins`, or"
    f" CREATE ROLE console LOGIN PASSWORD '...' IN ROLE {OPERATOR}. `duecall db upgrade` creates the role."
)


def check_each(engine: Engine, *, operates: bool) -> None:
    """Check each new connection of the engine. With `operates` it must run as OPERATOR."""
    event.listen(engine, "connect", lambda connection, _: _check_new(connection, operates=operates))


def _check_new(connection: DBAPIConnection, *, operates: bool) -> None:
    # SQLAlchemy's own wrapper, as its events pass it on.
    driver = getattr(connection, "driver_connection", connection)
    assert isinstance(driver, psycopg.Connection)
    try:
        check(driver, operates=operates)
    except BaseException:
        driver.close()
        raise


def check(driver: psycopg.Connection[AnyRow], *, operates: bool = False) -> None:
    """Make sure that the session has our limits, and with `operates` the role OPERATOR. Nothing stays open.

    Raises WrongDatabase and its kind WrongRole.
    """
    refuse_old(driver)
    wanted = {**LIMITS, "role": OPERATOR} if operates else LIMITS
    settings = ", ".join(f"current_setting('{name}')" for name in wanted)
    pid, login, *found = _row(driver, f"SELECT pg_backend_pid(), session_user, {settings}")
    missing = {name: value for (name, value), now in zip(wanted.items(), found, strict=True) if now != value}
    if pid != driver.info.backend_pid:
        driver.prepare_threshold = None  # the next transaction's session does not have the statements of this one
        _refuse_missing(missing, login)  # guard: session_limits
    elif missing:
        _set(driver, missing)


def _refuse_missing(missing: dict[str, str], login: str) -> None:
    if missing:
        by_hand = "; ".join(f"ALTER ROLE {login} SET {name} = '{value}'" for name, value in missing.items())
        raise (WrongRole if "role" in missing else WrongDatabase)(
            f"A connection pooler is between Duecall and PostgreSQL, and {login} has no {' and no '.join(missing)} of"
            f" its own. Run `duecall db logins` over a direct DATABASE_OWNER_URL, or: {by_hand}. Then let the pooler"
            " reconnect."
        )


def _set(driver: psycopg.Connection[AnyRow], missing: dict[str, str]) -> None:
    """Set what is missing, for the rest of this session."""
    settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in missing.items())
    try:
        _row(driver, f"SELECT {settings}")
    except (InsufficientPrivilege, InvalidParameterValue) as error:
        raise WrongRole(_NO_OPERATOR) from error


def _row(driver: psycopg.Connection[AnyRow], query: str) -> AnyValue:
    with driver.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(query.encode(), prepare=False).fetchone()
    driver.commit()
    return row


def refuse_old(driver: psycopg.Connection[AnyRow]) -> None:
    """Raise WrongDatabase for a server that is older than Duecall needs."""
    if driver.info.server_version < _OLDEST_VERSION * _A_MAJOR_VERSION:
        version = driver.info.parameter_status("server_version")
        raise WrongDatabase(f"Duecall needs PostgreSQL {_OLDEST_VERSION} or newer, and this server is {version}.")


def refuse_transaction_pooler(url: str, setting: str) -> None:
    """Raise WrongDatabase if this URL leads through a pooler that gives each transaction another session.

    Raises it for an old server, too. A session pooler is accepted. Raises DatabaseAway.
    """
    try:
        with _connected(url) as ours:
            refuse_old(ours)
            if _pid(ours) != ours.info.backend_pid and any(_shares_its_session(ours, url) for _ in range(_ROUNDS)):
                raise WrongDatabase(
                    f"{setting} leads through a transaction pooler, which keeps no LISTEN and no lock of a session. Set"
                    f" {setting} to PostgreSQL itself, or to a pool in session mode."
                )
    except psycopg.Error as error:
        raise DatabaseAway(str(error).splitlines()[0] if error.sqlstate is None else type(error).__name__) from error


def _shares_its_session(ours: psycopg.Connection[AnyRow], url: str) -> bool:
    """Return True if another connection gets the session of `ours`, although `ours` is still open."""
    before = _pid(ours)
    with _connected(url) as other:
        other.execute("BEGIN")
        return _pid(other) == before or _pid(ours) != before


def _pid(driver: psycopg.Connection[AnyRow]) -> int:
    return int(driver.execute("SELECT pg_backend_pid()").fetchone()[0])  # type: ignore[index]


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[AnyRow]]:
    with BoundedConnection.connect(url, autocommit=True, connect_timeout=5, prepare_threshold=None) as connection:
        yield connection
