"""Carrier accounts: pace and limit of calls, in a row that every claim locks first."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import bindparam, case, cast, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.domain.attempt import AttemptState, Phase
from scheduler.domain.company import CallLimits
from scheduler.lifecycle.backoffs import Backoffs
from scheduler.lifecycle.breaker import Breaker
from scheduler.persistence.backoffs import CarrierBackoffs
from scheduler.persistence.connection import Fixed
from scheduler.persistence.rows import AnyRow, as_columns, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts, carrier_accounts, carrier_backoffs

DATABASE_NOW = """
    SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS server,
           d.oid || '/' || 'attempts'::regclass::oid || '/' || a.xmin AS copy
    FROM pg_control_system(), pg_database d, arrows a
    WHERE d.datname = current_database()
      AND (a.event, a.from_state, a.to_state, a.reason) = ('claimed', 'PENDING', 'IN_PROGRESS', '')
"""
"""The name of the database of this connection, as `DatabaseName`."""
_DATABASE_NOW = text(DATABASE_NOW)
_NEWEST_CLAIMS = 50
_CLAIMED_HERE = text("""
    SELECT EXISTS (
        SELECT
        FROM (SELECT attempt_id, xmin FROM attempt_tokens ORDER BY claimed_at DESC LIMIT :newest) t
        JOIN attempt_history claimed ON claimed.attempt_id = t.attempt_id AND claimed.event = 'claimed'
        JOIN attempt_history made ON made.attempt_id = t.attempt_id AND made.event = 'created'
        WHERE claimed.xmin = t.xmin AND made.xmin <> t.xmin
    )
""")
_ACCOUNTS = select(carrier_accounts, carrier_accounts.c.down_cause.label("cause"))
_ACCOUNT = _ACCOUNTS.where(carrier_accounts.c.id == bindparam("id"))
_ALL = Fixed(_ACCOUNTS.order_by(carrier_accounts.c.id))
_GET = Fixed(_ACCOUNT)
_LOCK = Fixed(_ACCOUNT.with_for_update(key_share=True))
_HAS_BACKOFFS = select(carrier_backoffs.c.id).where(carrier_backoffs.c.account_id == carrier_accounts.c.id).exists()
_IS_IN_TROUBLE = Fixed(
    select((carrier_accounts.c.failures > 0) | _HAS_BACKOFFS).where(carrier_accounts.c.id == bindparam("id"))
)
_CALLS_AT_ONCE = Fixed(
    select(attempts.c.account_id, func.count().label("calls"))
    .where(attempts.c.state == AttemptState.IN_PROGRESS.value)
    .group_by(attempts.c.account_id)
)


@dataclass(frozen=True, kw_only=True)
class DatabaseName:
    """The identity of the database of a connection."""

    server: str
    """The cluster and its timeline: changed by a failover, and by a restore to a point in time."""
    copy: str
    """The copy of the database within that server: changed by every restore of a dump.

    It consists of the oid of the database (a restore into a new database, CREATE DATABASE ... TEMPLATE), the oid of a
    table (a restore that drops and creates the tables) and the transaction that wrote a row which never changes (a
    restore of rows into the tables that exist). Renaming, VACUUM FULL, REINDEX and our migrations keep all three.
    """


@dataclass(frozen=True, kw_only=True)
class CarrierAccount:
    id: int
    calls_per_second: float
    max_calls: int
    next_slot_at: datetime
    pause_reason: str | None
    """The reason why an operator paused all calls. None if they are not paused."""
    breaker: Breaker
    backoffs: Backoffs
    """Scopes whose orders wait separately. Mostly empty."""
    claimed_on: str | None
    """The server on which calls were last claimed, as `DatabaseName.server`.

    None before the first claim on an account that an earlier version created.
    """
    claimed_copy: str | None
    """The copy of the database, as `DatabaseName.copy`. None also after claims of a version that did not store it."""

    @property
    def paused(self) -> bool:
        return self.pause_reason is not None

    def is_to_be_asked(self, now: datetime) -> bool:
        """Return True if it is time to probe the carrier: it is down, or fails the orders of one scope."""
        if self.breaker.is_down:
            return self.breaker.is_to_be_asked(now)
        return any(each.is_to_be_asked(now) for each in self.backoffs.values())


class CarrierAccounts(Store):
    def as_set(self, account_sid: str, calls_per_second: float, max_calls: int) -> int | None:
        """Find the id of the account if it exists with exactly these limits."""
        account_id: int | None = self._connection.execute(
            select(carrier_accounts.c.id).where(
                carrier_accounts.c.account_sid == account_sid,
                carrier_accounts.c.calls_per_second == calls_per_second,
                carrier_accounts.c.max_calls == max_calls,
            )
        ).scalar_one_or_none()
        return account_id

    def ensure(self, account_sid: str, calls_per_second: float, max_calls: int, now: datetime) -> int:
        """Create the account, or update its limits, and return its id."""
        id_of_account = select(carrier_accounts.c.id).where(carrier_accounts.c.account_sid == account_sid)
        account_id: int | None = self._connection.execute(id_of_account).scalar_one_or_none()
        limits = {"calls_per_second": calls_per_second, "max_calls": max_calls, "updated_at": now}
        if account_id is not None:
            self._update(
                carrier_accounts,
                carrier_accounts.c.id == account_id,
                (carrier_accounts.c.calls_per_second != calls_per_second) | (carrier_accounts.c.max_calls != max_calls),
                **limits,
            )
            return account_id
        present = self.database_now()
        new = {
            "account_sid": account_sid,
            "calls_per_second": calls_per_second,
            "max_calls": max_calls,
            "next_slot_at": now,
            "claimed_on": present.server,
            "claimed_copy": present.copy,
            "created_at": now,
            "updated_at": now,
        }
        next_id = func.coalesce(func.max(carrier_accounts.c.id), 0) + 1
        typed = (cast(value, carrier_accounts.c[name].type) for name, value in new.items())
        self._connection.execute(
            insert(carrier_accounts).from_select(["id", *new], select(next_id, *typed)).on_conflict_do_nothing()
        )
        new_id: int = self._connection.execute(id_of_account).scalar_one()
        return new_id

    def get(self, account_id: int) -> CarrierAccount:
        return self.with_backoffs(self._account(account_id, lock=False))

    def lock(self, account_id: int) -> CarrierAccount:
        """Lock the account: no other claim gets a slot of it until we commit."""
        return self.with_backoffs(self.lock_without_backoffs(account_id))

    def highest_limits(self) -> CallLimits | None:
        """Read the highest limits of the accounts. None before a worker has stored one."""
        query = select(func.max(carrier_accounts.c.max_calls), func.max(carrier_accounts.c.calls_per_second))
        places, pace = self._connection.execute(query).one()
        return None if places is None else CallLimits(concurrent_calls=places, calls_per_second=float(pace))

    def lock_without_backoffs(self, account_id: int) -> CarrierAccount:
        """Lock the account. Its back-offs are not read."""
        return self._account(account_id, lock=True)

    def with_backoffs(self, account: CarrierAccount) -> CarrierAccount:
        """Add its back-offs to the account.

        In a second statement, after a lock: whichever transaction changed them has committed.
        """
        return replace(account, backoffs=CarrierBackoffs(self._connection).of(account.id))

    def _account(self, account_id: int, *, lock: bool) -> CarrierAccount:
        return _account(self._connection.execute(_LOCK if lock else _GET, {"id": account_id}).one())

    def database_now(self) -> DatabaseName:
        """Name the database of this connection.

        The timeline comes from the current WAL file: the control file shows it only after the next checkpoint.
        """
        return from_row(DatabaseName, self._connection.execute(_DATABASE_NOW).one())

    def has_claimed_here(self) -> bool:
        """Return True if this copy of the database made one of its newest claims itself.

        A claim writes a token and a history row in one transaction, and another one created the attempt. A
        restore loads all rows in one transaction, or these two rows in different ones.
        """
        return bool(self._connection.execute(_CLAIMED_HERE, {"newest": _NEWEST_CLAIMS}).scalar_one())

    def claims_on(self, account_id: int, database: DatabaseName) -> None:
        self._connection.execute(
            update(carrier_accounts)
            .where(carrier_accounts.c.id == account_id)
            .values(claimed_on=database.server, claimed_copy=database.copy)
        )

    def calls_at_once(self) -> Mapping[int, int]:
        """Count the calls in progress by account. Accounts without calls are omitted.

        From the attempts, so that an outcome never touches the account's row.
        """
        return {row.account_id: row.calls for row in self._connection.execute(_CALLS_AT_ONCE)}

    def calls_being_placed(self, account_id: int, tried_since: datetime | None = None) -> int:
        """Count the calls that are claimed and have no answer yet, and placed ones that were claimed from then on."""
        is_counted = attempts.c.phase == Phase.DIALLING.value
        if tried_since is not None:
            is_counted |= (attempts.c.phase == Phase.PLACED.value) & (attempts.c.claimed_at >= tried_since)
        return self._count(
            select(func.count())
            .select_from(attempts)
            .where(
                attempts.c.state == AttemptState.IN_PROGRESS.value,
                attempts.c.account_id == account_id,
                is_counted,
            )
        )

    def set_breaker(self, account_id: int, breaker: Breaker, now: datetime) -> None:
        """Save the breaker. The account counts as changed only when the breaker opens, waits again or closes.

        Lateness is measured from the last change. A counted failure blocks no call, so it excuses no delay.
        """
        self._update(
            carrier_accounts,
            carrier_accounts.c.id == account_id,
            **as_columns(breaker, without={"cause"}),
            down_cause=breaker.cause,
            updated_at=case(
                (carrier_accounts.c.down_until.is_distinct_from(breaker.down_until), now),
                else_=carrier_accounts.c.updated_at,
            ),
        )

    def is_in_trouble(self, account_id: int) -> bool:
        """True if failures of any company's orders are counted against the carrier."""
        return bool(self._connection.execute(_IS_IN_TROUBLE, {"id": account_id}).scalar_one())

    def lock_all(self) -> bool:
        """Lock all accounts without their values. False: no account exists."""
        query = select(carrier_accounts.c.id).order_by(carrier_accounts.c.id)
        return self._is_any(query.with_for_update(key_share=True))

    def pause(self, reason: str, now: datetime) -> bool:
        """Stop all claims once committed. False: an existing pause keeps its original reason."""
        is_open = carrier_accounts.c.paused_at.is_(None)
        return self._update(carrier_accounts, is_open, paused_at=now, pause_reason=reason, updated_at=now) > 0

    def pause_of_all(self) -> tuple[str, datetime] | None:
        """Read the reason and the time of the pause of all calls. None: they are not paused."""
        return self._one(
            lambda row: (row.pause_reason, row.paused_at),
            select(carrier_accounts.c.pause_reason, carrier_accounts.c.paused_at)
            .where(carrier_accounts.c.paused_at.is_not(None))
            .order_by(carrier_accounts.c.id)
            .limit(1),
        )

    def resume(self, now: datetime) -> None:
        """End the pause and accept this database for claims: the operator has reconciled what it does not know.

        An empty name instead would accept a dump that is made before the next claim.
        """
        present = self.database_now()
        self._update(
            carrier_accounts,
            carrier_accounts.c.paused_at.is_not(None),
            paused_at=None,
            pause_reason=None,
            claimed_on=present.server,
            claimed_copy=present.copy,
            updated_at=now,
        )

    def all(self) -> list[CarrierAccount]:
        """List all accounts without their back-offs: the counting role may not read caller ids."""
        return self._all(_account, _ALL)


def _account(row: AnyRow) -> CarrierAccount:
    """Read an account without its back-offs."""
    return from_row(
        CarrierAccount,
        row,
        calls_per_second=float(row.calls_per_second),
        breaker=from_row(Breaker, row),
        backoffs={},
    )
