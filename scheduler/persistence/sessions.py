"""The session of each new connection, with a deadline for all that waits, and the role and the rights of its login."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue, _WaitTimeout
from psycopg.rows import tuple_row
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect

from scheduler.clock import remaining_s
from scheduler.persistence.errors import DatabaseAway, WrongDatabase, WrongRole
from scheduler.persistence.rows import AnyRow, AnyValue
from scheduler.process import made_progress

# --- The newest revision of the schema, from the migrations' file names
# The API needs no other part of Alembic.


_VERSIONS = Path(__file__).parent / "migrations" / "versions"


def head() -> str:
    """Find the revision of this version's newest migration."""
    return max(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*.py"))


def is_ready(revision: str | None) -> bool:
    """Return True if this version can work with a database at that revision: its own, or one of a later version."""
    return revision is not None and revision >= head()


# --- Roles of database connections: each process refuses a login with another role than its own


_ROLE = """
    SELECT r.rolname,
           r.rolsuper OR r.rolbypassrls
               OR EXISTS (
                   SELECT FROM pg_class t WHERE t.oid = to_regclass('companies') AND pg_has_role(t.relowner, 'USAGE')
               )
               OR EXISTS (SELECT FROM pg_roles w WHERE w.rolname = 'duecall_worker' AND pg_has_role(w.oid, 'USAGE')),
           EXISTS (SELECT FROM pg_roles a WHERE a.rolname = 'duecall_api' AND pg_has_role(a.oid, 'USAGE'))
    FROM pg_roles r
    WHERE r.rolname = current_user AND to_regclass('companies') IS NOT NULL
"""
"""Our role, whether it sees every tenant's rows, and whether it is bound to a principal's rows.

No row in a database without tables.
"""


def require_bound(engine: Engine, *, bound: bool) -> None:
    """Refuse each connection whose role is not bound to its principal's rows, or with `bound` False, a bound role."""
    event.listen(engine, "connect", lambda connection, _: _refuse_wrong_role(connection, bound=bound))


def _refuse_wrong_role(connection: DBAPIConnection, *, bound: bool) -> None:
    cursor = connection.cursor()
    cursor.execute(_ROLE)
    row = cursor.fetchone()
    cursor.close()
    connection.rollback()
    if row is None:
        return
    role, sees_all, is_api = row
    if sees_all is not bound and (is_api or not bound):
        return
    connection.close()
    if bound:
        raise WrongRole(
            f"DATABASE_URL logs in as {role}, which sees {'every' if sees_all else 'no'} company's rows;"
            " the API needs a role that is bound by row-level security: CREATE ROLE api LOGIN PASSWORD '...' IN ROLE"
            " duecall_api. Workers and migrations have roles of their own: DATABASE_WORKER_URL, DATABASE_OWNER_URL."
        )
    raise WrongRole(
        f"workers and operators would log in as {role}, which is bound by row-level security and sees no row; set"
        " DATABASE_WORKER_URL to a role of their own: CREATE ROLE worker LOGIN PASSWORD '...' IN ROLE duecall_worker."
    )


# --- Roles, policies, grants and functions of the migrations, compared with a list in this folder
# `duecall db check` compares the list with the migrations, so that it cannot be out of date.


LIST = Path(__file__).with_name("access.txt")
_SHOWN = 3

FOUND = text("""
    WITH ours AS (
        SELECT oid, relname, relkind, relrowsecurity, relacl, relnamespace FROM pg_class
        WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('companies'))
    ), roles AS (
        SELECT oid, rolname FROM pg_roles WHERE CAST(rolname AS text) ^@ 'duecall_'
    )
    SELECT 'role ' || rolname FROM roles
    UNION ALL
    SELECT 'row-level security of ' || relname FROM ours WHERE relrowsecurity
    UNION ALL
    SELECT 'policy ' || polname || ' on ' || relname || ' for ' || CAST(polcmd AS text) || ' to '
        || (SELECT string_agg(rolname, ', ' ORDER BY rolname) FROM roles WHERE oid = ANY(polroles))
    FROM pg_policy JOIN ours ON ours.oid = polrelid
    UNION ALL
    SELECT 'trigger ' || tgname || ' on ' || relname
    FROM pg_trigger JOIN ours ON ours.oid = tgrelid WHERE NOT tgisinternal
    UNION ALL
    SELECT 'grant ' || privilege_type || ' on ' || relname || ' to ' || rolname
    FROM ours CROSS JOIN LATERAL aclexplode(relacl) JOIN roles ON roles.oid = grantee
    UNION ALL
    SELECT 'grant ' || privilege_type || ' on ' || relname || '.' || attname || ' to ' || rolname
    FROM ours JOIN pg_attribute ON attrelid = ours.oid CROSS JOIN LATERAL aclexplode(attacl)
    JOIN roles ON roles.oid = grantee
    UNION ALL
    SELECT 'function ' || proname || '(' || pg_get_function_identity_arguments(pg_proc.oid) || ')'
    FROM pg_proc WHERE pronamespace IN (SELECT relnamespace FROM ours)
    UNION ALL
    SELECT 'grant ' || privilege_type || ' on function ' || proname || ' to ' || rolname
    FROM pg_proc CROSS JOIN LATERAL aclexplode(proacl) JOIN roles ON roles.oid = grantee
    WHERE pronamespace IN (SELECT relnamespace FROM ours)
    UNION ALL
    SELECT DISTINCT 'grant ' || privilege_type || ' on the schema to ' || rolname
    FROM pg_namespace CROSS JOIN LATERAL aclexplode(nspacl)
    JOIN roles ON roles.oid = grantee OR (grantee = 0 AND privilege_type = 'USAGE')
    WHERE pg_namespace.oid IN (SELECT relnamespace FROM ours)
""")
"""One line for each. Every role of the database may read these catalogs.

USAGE on the schema may be granted to PUBLIC (grantee 0), as in each new database. A migrating role that does not own
the schema `public` cannot grant it to others.
"""


@lru_cache(maxsize=1)
def expected() -> frozenset[str]:
    """Read the lines of a database at this version's schema."""
    return frozenset(LIST.read_text(encoding="utf-8").splitlines())


def refuse_missing(found: Collection[str]) -> None:
    """Raise WrongDatabase, which names what is missing. More than the list is no error."""
    missing = sorted(expected() - frozenset(found))
    if missing:
        more = f", and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise WrongDatabase(
            f"The database lacks what its schema grants: {', '.join(missing[:_SHOWN])}{more}. It was restored without"
            " its roles, or changed by hand. Create the roles with `duecall db logins`, restore the dump once more into"
            " an empty database, and run `duecall db upgrade`."
        )


# --- The driver's connection, with a deadline on our side for everything that waits for the server
# The server's `statement_timeout` and TCP's limits do not apply when a proxy confirms bytes and never answers.


RV = TypeVar("RV")

STATEMENT_S = 5.0
"""The usual limit of a statement, by the server. Less when a request's deadline comes first."""
ALLOWANCE_S = 2.0
"""Time for the server's own error to arrive, before our side closes the connection."""
_INTERVAL_S = 0.1


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose statements, COMMIT and ROLLBACK end: at the statement's limit, plus `ALLOWANCE_S`.

    After that the connection is closed, which waits for nothing, and psycopg.OperationalError is raised.
    """

    statement_s = STATEMENT_S

    def wait(self, gen: PQGen[RV], interval: float = _INTERVAL_S, timeout: float | None = None) -> RV:
        if timeout is not None:  # a wait for notifications: it may end without one
            return super().wait(gen, interval, timeout)
        made_progress()
        within_s: float | None = None
        within_s = self._limit_s() + ALLOWANCE_S  # guard: statement_deadline
        try:
            return super().wait(gen, interval, within_s)
        except _WaitTimeout:
            # Its answer may still come, so no other statement may use this connection.
            self.pgconn.finish()  # guard: late_connection
            raise psycopg.OperationalError(_NO_ANSWER) from None

    def _limit_s(self) -> float:
        left = remaining_s()
        return self.statement_s if left is None or left > self.statement_s else max(0.0, left)


_NO_ANSWER = "the database did not answer in time; the connection is closed"


def _connect(
    _dialect: Dialect, _record: object, arguments: Sequence[Any], options: Mapping[str, Any]
) -> DBAPIConnection:
    """Open a connection. `connect_timeout` limits all of it, with the answers to its authentication."""
    return BoundedConnection.connect(*arguments, **options)  # type: ignore[return-value]


def make_engine(url: str, **options: Any) -> Engine:  # noqa: ANN401 - as SQLAlchemy takes them
    """Build an engine whose connections have a deadline on our side."""
    engine = create_engine(url, hide_parameters=True, **options)
    event.listen(engine, "do_connect", _connect)
    return engine


# --- The session of each new connection: version, limits, time zone and role
# They are in force, or it is refused. The limits are settings of the logins (`duecall db logins`), because poolers drop
# or refuse options of a connection. A direct connection without them sets them itself. Through a pooler that would
# change the sessions of others.


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

    Also raises it for an old server. A session pooler is accepted. Raises DatabaseAway.
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
