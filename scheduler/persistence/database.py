"""Transactions and the stores that they carry. No other module opens a transaction."""

import re
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from threading import Lock
from typing import TypeVar
from uuid import UUID

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from scheduler.clock import Now, machine_now, monotonic, remaining_s
from scheduler.domain.principal import Principal
from scheduler.logs import log
from scheduler.persistence import sessions
from scheduler.persistence.connection import begin
from scheduler.persistence.errors import (
    ClockWrong,
    Commit,
    CommitInDoubt,
    DatabaseAway,
    GivenUp,
    LockTaken,
    Outage,
    Outcome,
    SchemaNotReady,
    StatementFailed,
)
from scheduler.persistence.sessions import STATEMENT_S, head, is_ready, make_engine
from scheduler.persistence.stores import CheckedClock, Stores
from scheduler.rules import operators
from scheduler.rules.operators import Comparison

T = TypeVar("T")
_log = log(__name__)

LOCK_S = 2.0
"""The usual limit of a wait for a lock. Less when a request's deadline comes first."""
BATCH_LOCK_S = 0.2
"""The limit of a wait for a lock in a transaction for many items: it holds the rows of all while it waits for one."""
_ANSWER_S = 0.5
"""Time before its deadline at which a request stops waiting for locks, so that it can still be answered."""

_STATUS = text("SELECT pg_xact_status(CAST(:transaction_id AS xid8))")

_COUNTING = "; SET LOCAL ROLE duecall_counter"

FINDS_OUT = {
    "connect_timeout": 3,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""Give up a connection whose other end has vanished: 10 s after unconfirmed data, or after 25 s without traffic."""


_MAX_OVERFLOW = 4
"""Connections that may be opened in addition to the pool's."""

_CONFLICTS = frozenset({"55P03", "40P01"})
"""SQLSTATE of a lock timeout and of a deadlock."""
_FAILED = re.compile(r"57014|54\w{3}|55\w{3}|58\w{3}")
"""SQLSTATEs of a statement that the server could not complete: timeout, limits, states of objects, damaged files."""


class Database:
    """A pool of connections for one role.

    A statement ends after 5 s, a wait for a lock after 2 s, an idle transaction after 10 s, so that no row is locked
    for longer than a caller waits. On our side, whatever waits for the server ends 2 s after these limits, and its
    connection is closed (`sessions.BoundedConnection`). Errors never quote values.

    `bound` True: the role must be bound to its principal's rows. False: it must see all rows, because a role that sees
    none would do nothing without an error. None: any role. With another role every method raises WrongRole, and
    WrongDatabase through a pooler without these limits, or with a server that is too old.
    `operates` True: every connection runs as `duecall_operator`, which can read no personal data.
    `logs_outages` False: the caller reports why the database is away.
    `history_key` seals the history of attempts. None: for a process that writes no attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 8,
        machine: Now = machine_now,
        bound: bool | None = None,
        operates: bool = False,
        logs_outages: bool = True,
        history_key: bytes | None = None,
    ) -> None:
        self.reads_numbers = not operates
        """False: this role may not read phone numbers."""
        self._machine = machine
        self._history_key = history_key
        self._is_wrong = False
        self._log_lock = Lock()
        self._outage = Outage(with_driver(url), is_logged=logs_outages)
        self._max_connections = pool_size + _MAX_OVERFLOW
        self._engine = make_engine(
            with_driver(url),
            # We send BEGIN ourselves, in one message with the query for the time.
            isolation_level="AUTOCOMMIT",
            # No `pool_pre_ping`: it costs a round trip each time. `_begun` and `statement` replace closed connections.
            pool_size=pool_size,
            max_overflow=_MAX_OVERFLOW,
            pool_timeout=3,
            connect_args={**FINDS_OUT, "application_name": "duecall"},
        )
        sessions.check_each(self._engine, operates=operates)
        if bound is not None and not operates:
            sessions.require_bound(self._engine, bound=bound)

    @contextmanager
    def transaction(
        self,
        principal: Principal | None = None,
        *,
        corrected: bool = False,
        commit: Commit | None = None,
        lock_s: float = LOCK_S,
    ) -> Iterator[Stores]:
        """Open a transaction that may write times. Leaving by an error rolls it back.

        Raises LockTaken when another transaction held a row for longer than `lock_s`, or in a deadlock.

        `principal` is the sender of the request. PostgreSQL hides all other tenants' rows from the transaction.
        `corrected`: on a wrong clock, times are corrected by the database's clock. Only for facts that no other
        process can write, such as the outcome of a claim. `commit` is for a caller that must know how the transaction
        ended: the caller can forbid the commit, and receives the id for `outcome_of`. After the request's deadline
        nothing is committed.

        Raises ClockWrong when this machine's clock is wrong, and DatabaseAway when the connection fails: then nothing
        was written. Raises CommitInDoubt when the answer to COMMIT was lost.
        """
        is_leaving = False
        try:
            begins = partial(_begin, principal=principal, commit=commit, lock_s=lock_s)
            with self._begun(begins) as (connection, comparison):
                clock = CheckedClock(comparison=comparison, machine=self._machine, is_corrected=corrected)
                is_right = self._check_clock(clock.ahead())
                if not is_right and not corrected:
                    raise ClockWrong  # guard: clock
                yield Stores(connection, clock, self._history_key)
                # After the deadline the client has received a 503, so nothing may change.
                _must_be_in_time()  # guard: deadline
                if commit is not None:
                    commit.send()  # guard: given_up
                is_leaving = True
        except GivenUp as given_up:
            raise DatabaseAway(_TOO_SLOW) from given_up
        except DatabaseAway as away:
            if is_leaving and _is_lost(away.__cause__):
                raise CommitInDoubt(*away.args) from away  # guard: commit_in_doubt
            raise

    @contextmanager
    def reading(self, principal: Principal | None = None) -> Iterator[Stores]:
        """Open a transaction in which PostgreSQL refuses every write, on whatever clock. Raises DatabaseAway."""
        with self._begun(partial(_begin_reading, principal=principal)) as (connection, _):
            yield Stores(connection, None)

    @contextmanager
    def statement(self) -> Iterator[Stores]:
        """Stores for one statement that only reads: one round trip, without BEGIN and COMMIT. Raises as `reading`.

        The connection is open before this returns, so that a caller can time the statement alone.
        """
        with _translated(self._outage), self._engine.connect() as connection:
            for _ in range(self._max_connections):
                if not _is_closed_by_server(connection):
                    break
                connection.invalidate()  # the next check takes another one, or a new one
            yield Stores(connection, None)

    @contextmanager
    def lookup(self) -> Iterator[Stores]:
        """Stores for one statement that only reads, without a principal. One round trip unless the deadline is near.

        Raises as `reading`.
        """
        left = remaining_s()
        is_usual = left is None or left >= STATEMENT_S
        # Shorter timeouts than the connection's own need a transaction.
        with self.statement() if is_usual else self.reading() as stores:
            yield stores

    @contextmanager
    def _begun(self, begins: Callable[[Connection], T]) -> Iterator[tuple[Connection, T]]:
        """Open a transaction with the message of `begins`, and commit it at the end.

        If the server has closed the pooled connection, this message fails before anything was executed, so it is sent
        once more over a new connection. SQLAlchemy then drops all older connections of the pool. No later statement is
        ever repeated.
        """
        with _translated(self._outage), self._engine.connect() as connection:
            _must_be_in_time()
            try:
                begun = begins(connection)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                connection.rollback()  # forgets the closed connection
                _must_be_in_time()
                begun = begins(connection)
            yield connection, begun
            connection.commit()

    def outcome_of(self, transaction_id: str) -> Outcome:
        """Look up the end of a transaction that had a `Commit`. Raises DatabaseAway.

        UNKNOWN while it is in progress: its COMMIT may be on its way.
        """
        try:
            with self.reading() as stores:
                status = stores.connection.execute(_STATUS, {"transaction_id": transaction_id}).scalar_one()
        except DBAPIError:  # the id is above this server's newest: it is another server, or was restored
            return Outcome.UNKNOWN
        return _OUTCOMES.get(status, Outcome.UNKNOWN)

    @contextmanager
    def counting(self) -> Iterator[Stores]:
        """Like `reading`, for numbers over all companies. Columns with personal data cannot be read in it."""
        with self._begun(partial(_begin_reading, principal=None, then=_COUNTING)) as (connection, _):
            yield Stores(connection, None)

    def check_start(self) -> None:
        """Raise WrongRole or SchemaNotReady now rather than at the first statement, and see `check_access`.

        Raises DatabaseAway.
        """
        revision = self.schema_revision()
        if not is_ready(revision):
            raise SchemaNotReady(revision)  # guard: schema_not_ready
        self.check_access()

    def check_access(self) -> None:
        """Raise WrongDatabase if roles, policies or grants of this version's schema are missing. Raises DatabaseAway.

        Another version's schema is not compared.
        """
        if self.schema_revision() == head():
            with self.statement() as stores:
                sessions.refuse_missing(stores.connection.execute(sessions.FOUND).scalars())  # guard: access

    def prove(self) -> None:
        """Raise an error unless transactions of this process work now: its role, the schema and its clock."""
        self.check_start()
        with self.transaction():
            pass

    def clock_is_right(self) -> bool:
        """Return True if this machine's clock and the database's differ by at most 2 s. Raises DatabaseAway.

        Every transaction that writes compares them by itself. DUECALL_CLOCK_OFFSET_S is left out on both sides.
        """
        try:
            with self.transaction():
                return True
        except ClockWrong:
            return False

    def ahead(self, comparison: Comparison) -> timedelta:
        """Measure how far this machine's clock is ahead, by a comparison made just now. A change is logged."""
        ahead = comparison.ahead(self._machine(), monotonic())
        self._check_clock(ahead)
        return ahead

    def _check_clock(self, ahead: timedelta) -> bool:
        """Return True if a clock that is `ahead` by this much is right. A change is logged."""
        is_wrong = operators.is_wrong(ahead)
        with self._log_lock:
            changed, self._is_wrong = is_wrong != self._is_wrong, is_wrong
        if changed and is_wrong:
            _log.error(
                "clock_wrong: this machine's clock differs from the database's; this process writes and dials nothing",
                alarm="CLOCK_SKEW",
                seconds=round(ahead.total_seconds(), 1),
            )
        elif changed:
            _log.info("clock_right: this machine's clock agrees with the database's again")
        return not is_wrong

    def schema_revision(self) -> str | None:
        """Read the newest migration of the database. None for an empty one. Raises DatabaseAway."""
        with self.statement() as stores:
            exists = stores.connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar_one()
            if not exists:
                return None
            revision: str | None = stores.connection.execute(
                text("SELECT version_num FROM alembic_version")
            ).scalar_one_or_none()
            return revision

    def close(self) -> None:
        self._engine.dispose()


def concerns_no_item(error: Exception) -> bool:
    """Return True if the error says nothing about what was to be done.

    For a statement within a transaction. At the transaction's end the same errors become DatabaseAway.
    """
    return isinstance(error, DatabaseAway | OperationalError | PoolTimeoutError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def is_conflict(error: Exception) -> bool:
    """Return True for a lock timeout or a deadlock, the errors that become LockTaken at the transaction's end."""
    return _state_of(error) in _CONFLICTS


def _state_of(error: Exception) -> str | None:
    state: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state


@contextmanager
def _translated(outage: Outage) -> Iterator[None]:
    """Translate the driver's errors to DatabaseAway and its kinds LockTaken and StatementFailed."""
    try:
        yield
        outage.ended()
    except (OperationalError, PoolTimeoutError) as error:
        if _state_of(error) in _CONFLICTS:  # guard: lock_taken
            raise LockTaken("another transaction holds a row that is needed") from error
        if _FAILED.fullmatch(_state_of(error) or ""):
            raise StatementFailed(reason_of(error)) from error
        outage.saw(reason_of(error))
        raise DatabaseAway(reason_of(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            outage.saw(reason_of(error))
            raise DatabaseAway(reason_of(error)) from error
        raise


def _is_closed_by_server(connection: Connection) -> bool:
    """Return True if there is anything to read: an idle connection receives nothing but its end.

    Without a round trip. A connection that the server closes at this moment may seem open.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    if driver.closed:
        return True
    poll = select.poll()
    poll.register(driver.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def with_driver(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if scheme in {"postgresql", "postgres"}:
        return f"postgresql+psycopg{separator}{rest}"
    return url


_TOO_SLOW = "the request's deadline has passed"
_OUTCOMES = {"committed": Outcome.COMMITTED, "aborted": Outcome.ABORTED}


def _must_be_in_time() -> None:
    left = remaining_s()
    if left is not None and left <= 0:
        raise DatabaseAway(_TOO_SLOW)


def may_wait_again() -> bool:
    """Return True if the request has time for another wait for a lock, and for an answer after it."""
    left = remaining_s()
    return left is not None and left > LOCK_S + _ANSWER_S


def _begin(connection: Connection, *, principal: Principal | None, commit: Commit | None, lock_s: float) -> Comparison:
    """Begin a transaction, and compare this machine's clock with the database's.

    One message to the server, because each round trip costs. Statements before BEGIN in the same message belong to the
    transaction. This statement and the last look may read the database's clock: they compare it with ours.
    """
    identified = "" if commit is None else ", CAST(pg_current_xact_id() AS text) AS transaction_id"
    columns = f"clock_timestamp() AS database_clock{identified}{_settings(principal, lock_s)}"
    asked_at = monotonic()
    row = begin(connection, f"SELECT {columns}; BEGIN").one()
    answered_at = monotonic()
    if commit is not None:
        commit.transaction_id = row.transaction_id
    return Comparison(database_clock=row.database_clock, asked_at=asked_at, answered_at=answered_at)


def _begin_reading(connection: Connection, *, principal: Principal | None, then: str = "") -> None:
    settings = _settings(principal, LOCK_S)
    begin(connection, (f"SELECT NULL{settings}; BEGIN READ ONLY" if settings else "BEGIN READ ONLY") + then)


def _settings(principal: Principal | None, lock_s: float) -> str:
    """Build the SQL columns that set principal and timeouts for one transaction.

    Empty without a principal and with the usual timeouts.
    """
    left = remaining_s()
    if principal is None and lock_s == LOCK_S and (left is None or left >= STATEMENT_S):
        return ""
    values = {
        "duecall.principal_id": "" if principal is None else _literal(principal.id),
        "duecall.company_id": "" if principal is None else _literal(principal.company_id),
        "statement_timeout": _milliseconds(STATEMENT_S, left),
        "lock_timeout": _milliseconds(lock_s, left),
    }
    return "".join(
        f", set_config('{name}', '{value}', true) AS {name.removeprefix('duecall.')}" for name, value in values.items()
    )


def _literal(value: UUID | None) -> str:
    """Format an id from its number. Unlike the text of an object that is no UUID, it cannot contain a quote."""
    return "" if value is None else str(UUID(int=value.int))


def _milliseconds(usual_s: float, left_s: float | None) -> str:
    """Format a timeout for PostgreSQL, to which 0 means no limit."""
    return str(max(1, int(1000 * (usual_s if left_s is None else min(usual_s, left_s)))))


def _is_lost(error: BaseException | None) -> bool:
    """Return True if the connection failed, False if the server rejected the statement.

    A pooler that has lost the server reports it with a state of class 08.
    """
    state = _state_of(error) if isinstance(error, DBAPIError) else ""
    return isinstance(error, DBAPIError) and (error.connection_invalidated or (state or "08").startswith("08"))


def reason_of(error: Exception) -> str:
    """Describe the reason in one line: libpq's message about a connection, else only the type of the error.

    libpq names host, database and role. A message of the server has an SQLSTATE and may quote stored values.
    """
    original = getattr(error, "orig", None) or error
    if isinstance(original, psycopg.OperationalError) and original.sqlstate is None and str(original):
        return str(original).splitlines()[0].removeprefix("connection failed: ").strip()
    return type(original).__name__
