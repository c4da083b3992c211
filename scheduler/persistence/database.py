"""How a transaction is opened, and the stores that it carries. Nobody else opens one."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from scheduler.clock import Now, machine_now, monotonic
from scheduler.domain.principal import Principal
from scheduler.lifecycle.policy import MAX_CLOCK_SKEW
from scheduler.logs import log
from scheduler.persistence.agents import Agents
from scheduler.persistence.attempts import Attempts
from scheduler.persistence.candidates import Candidates
from scheduler.persistence.carrier_accounts import CarrierAccounts
from scheduler.persistence.carrier_events import CarrierEvents
from scheduler.persistence.companies import Companies
from scheduler.persistence.erasures import Erasures
from scheduler.persistence.inbox import Inbox
from scheduler.persistence.interviews import Interviews
from scheduler.persistence.jobs import Jobs
from scheduler.persistence.keys import Keys
from scheduler.persistence.lines import Lines
from scheduler.persistence.owners import Invitations, Memberships, Users
from scheduler.persistence.phone_numbers import PhoneNumbers
from scheduler.persistence.reresolutions import Reresolutions
from scheduler.persistence.retention import Retention
from scheduler.persistence.stray_calls import StrayCalls
from scheduler.persistence.usage import Usage

_log = log(__name__)
_ASK_FOR_THE_TIME_EVERY_S = 60.0
_ASK_AGAIN_AFTER_S = 1.0

_ON_BEHALF_OF = text(
    "SELECT set_config('duecall.principal_id', :principal_id, true),"
    " set_config('duecall.company_id', :company_id, true)"
)

_COUNTING = text("SET LOCAL ROLE duecall_counter")

_STANDING = """
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
"""Who we are, whether we see every tenant's rows, whether those of a principal; nothing where no migration has run."""

DUE_CHANNEL = "duecall_due"
"""Notified when something became due at once, so that nobody waits for the clock's next look."""


FINDS_OUT = {
    "connect_timeout": 3,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""When a connection whose other end is gone without a word is given up: 10 s after what was sent and not confirmed, or
after 25 s of silence."""


class DatabaseAway(Exception):
    """The database cannot be reached, or the connection broke; nothing was promised to anybody."""


class WrongRole(Exception):
    """The role of the database is not the one for what it is used for; nothing was asked by it."""


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The stores of one transaction, one a noun."""

    connection: Connection
    agents: Agents
    attempts: Attempts
    candidates: Candidates
    carrier_accounts: CarrierAccounts
    carrier_events: CarrierEvents
    companies: Companies
    erasures: Erasures
    inbox: Inbox
    interviews: Interviews
    invitations: Invitations
    jobs: Jobs
    keys: Keys
    lines: Lines
    memberships: Memberships
    phone_numbers: PhoneNumbers
    reresolutions: Reresolutions
    retention: Retention
    stray_calls: StrayCalls
    usage: Usage
    users: Users

    @classmethod
    def of(cls, connection: Connection) -> "Stores":
        return cls(
            connection=connection,
            agents=Agents(connection),
            attempts=Attempts(connection),
            candidates=Candidates(connection),
            carrier_accounts=CarrierAccounts(connection),
            carrier_events=CarrierEvents(connection),
            companies=Companies(connection),
            erasures=Erasures(connection),
            inbox=Inbox(connection),
            interviews=Interviews(connection),
            invitations=Invitations(connection),
            jobs=Jobs(connection),
            keys=Keys(connection),
            lines=Lines(connection),
            memberships=Memberships(connection),
            phone_numbers=PhoneNumbers(connection),
            reresolutions=Reresolutions(connection),
            retention=Retention(connection),
            stray_calls=StrayCalls(connection),
            usage=Usage(connection),
            users=Users(connection),
        )

    def act_for_company(self, company_id: UUID) -> None:
        """From now on, and until we commit, PostgreSQL shows what belongs to this company, whoever asks.

        For those who have no key and proved by something else that they may.
        """
        self.connection.execute(_ON_BEHALF_OF, {"principal_id": "", "company_id": str(company_id)})

    def notify_due(self) -> None:
        """Wake the clock when this commits."""
        self.connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": DUE_CHANNEL})


class Database:
    """A pool of connections for one role.

    Statements end after 5 s, waits for a lock after 2 s, an idle transaction after 10 s: nothing here may hold a row
    for longer than a caller waits. Values are never quoted in an error.

    `bound` True: only a role that sees no more than its principal's rows will do; False: only one that sees all rows,
    since whoever sees none would do nothing and say nothing; None: any. Otherwise everything raises WrongRole.
    """

    def __init__(self, url: str, *, pool_size: int = 8, machine: Now = machine_now, bound: bool | None = None) -> None:
        self._machine = machine
        self._asked_at: float | None = None
        self._is_right = False
        self._engine = create_engine(
            with_driver(url),
            pool_size=pool_size,
            max_overflow=4,
            pool_timeout=3,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                **FINDS_OUT,
                "application_name": "duecall",
                "options": "-c statement_timeout=5000 -c lock_timeout=2000"
                " -c idle_in_transaction_session_timeout=10000 -c timezone=UTC",
            },
        )

        if bound is not None:
            event.listen(self._engine, "connect", lambda connection, _: _refuse_wrong_role(connection, bound=bound))

    @contextmanager
    def transaction(self, principal: Principal | None = None) -> Iterator[Stores]:
        """One transaction; leaving by an error rolls it back. Raises DatabaseAway when the connection fails.

        `principal` is whose request it is; PostgreSQL is told, so that it can keep everybody else's rows from it.
        A commit whose answer was lost raises DatabaseAway too: whoever needs to know re-reads its own token.
        """
        with _translated(), self._engine.begin() as connection:
            if principal is not None:
                connection.execute(_ON_BEHALF_OF, _settings_of(principal))
            yield Stores.of(connection)

    @contextmanager
    def statement(self) -> Iterator[Stores]:
        """Stores for one statement that only reads: one round trip, without BEGIN and COMMIT. Raises as `transaction`.

        The pool has tested the connection before this returns, so that a caller can time the statement alone.
        """
        with _translated(), self._engine.connect() as connection:
            yield Stores.of(connection.execution_options(isolation_level="AUTOCOMMIT"))

    @contextmanager
    def counting(self) -> Iterator[Stores]:
        """Like `transaction`, for numbers over all companies; columns that tell of somebody cannot be read in it."""
        with self.transaction() as stores:
            stores.connection.execute(_COUNTING)
            yield stores

    def check_role(self) -> None:
        """Raise WrongRole now rather than at the first question. A database that is away is asked later."""
        with suppress(DatabaseAway), self.transaction():
            pass

    def clock_is_right(self) -> bool:
        """Whether this machine's clock and the database's differ by no more than 2 s. Raises DatabaseAway.

        Asked anew each minute, and each second while it is wrong. Whoever's clock is wrong releases, claims and settles
        nothing: its `now` would be in every row that it writes. Offsets are left out on both sides.
        """
        good_for = _ASK_FOR_THE_TIME_EVERY_S if self._is_right else _ASK_AGAIN_AFTER_S
        if self._asked_at is None or monotonic() - self._asked_at >= good_for:
            with self.transaction() as stores:
                before = self._machine()
                theirs: datetime = stores.connection.execute(text("SELECT clock_timestamp()")).scalar_one()
                after = self._machine()
            # Wrong only when no delay between the two looks at our clock could explain it.
            self._is_right = before - MAX_CLOCK_SKEW <= theirs <= after + MAX_CLOCK_SKEW
            self._asked_at = monotonic()
            if not self._is_right:
                _log.error("this machine's clock is wrong; nothing is dialled here", alarm="CLOCK_SKEW")
        return self._is_right

    def schema_revision(self) -> str | None:
        """The migration that the database stands at; None for an empty one. Raises DatabaseAway."""
        try:
            with self._engine.connect() as connection:
                there = connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar_one()
                if not there:
                    return None
                revision: str | None = connection.execute(
                    text("SELECT version_num FROM alembic_version")
                ).scalar_one_or_none()
                return revision
        except (OperationalError, PoolTimeoutError) as error:
            raise DatabaseAway(reason_of(error)) from error

    def close(self) -> None:
        self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    """Raise the driver's errors as DatabaseAway where nothing was promised."""
    try:
        yield
    except (OperationalError, PoolTimeoutError) as error:
        raise DatabaseAway(reason_of(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseAway(reason_of(error)) from error
        raise


def with_driver(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if scheme in {"postgresql", "postgres"}:
        return f"postgresql+psycopg{separator}{rest}"
    return url


def _settings_of(principal: Principal) -> dict[str, str]:
    company_id = principal.company_id
    return {"principal_id": str(principal.id), "company_id": "" if company_id is None else str(company_id)}


def _refuse_wrong_role(connection: DBAPIConnection, *, bound: bool) -> None:
    cursor = connection.cursor()
    cursor.execute(_STANDING)
    standing = cursor.fetchone()
    cursor.close()
    connection.rollback()
    if standing is None:
        return
    role, sees_all, is_api = standing
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


def reason_of(error: Exception) -> str:
    """Why, in a line: what libpq says of a connection, which names host, database and role; else the kind alone.

    What the server says may quote what was stored, and comes with a code.
    """
    original = getattr(error, "orig", None) or error
    if isinstance(original, psycopg.OperationalError) and original.sqlstate is None and str(original):
        return str(original).splitlines()[0].removeprefix("connection failed: ").strip()
    return type(original).__name__
