"""The carrier account: its pace and its room, in one row that every claim locks first."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, cast, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.domain.attempt import AttemptState, Phase
from scheduler.lifecycle.breaker import Breaker
from scheduler.persistence.tables import attempts, carrier_accounts

_DATABASE_NOW = text("""
    SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()
""")


@dataclass(frozen=True, kw_only=True)
class CarrierAccount:
    id: int
    calls_per_second: float
    max_calls: int
    next_slot_at: datetime
    pause_reason: str | None
    """Why an operator stopped everything; None while nobody has."""
    breaker: Breaker
    claimed_on: str | None
    """The database on which calls were claimed last, as `database_now` names it; None before the first."""

    @property
    def paused(self) -> bool:
        return self.pause_reason is not None


class CarrierAccounts:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def as_set(self, account_sid: str, calls_per_second: float, max_calls: int) -> int | None:
        """The id of the account, if it is there and may do just that."""
        found: int | None = self._connection.execute(
            select(carrier_accounts.c.id).where(
                carrier_accounts.c.account_sid == account_sid,
                carrier_accounts.c.calls_per_second == calls_per_second,
                carrier_accounts.c.max_calls == max_calls,
            )
        ).scalar_one_or_none()
        return found

    def ensure(self, account_sid: str, calls_per_second: float, max_calls: int, now: datetime) -> int:
        """The id of the account; made, or set to what the settings say it may do."""
        account_id: int | None = self._connection.execute(
            select(carrier_accounts.c.id).where(carrier_accounts.c.account_sid == account_sid)
        ).scalar_one_or_none()
        limits = {"calls_per_second": calls_per_second, "max_calls": max_calls, "updated_at": now}
        if account_id is not None:
            self._connection.execute(
                update(carrier_accounts)
                .where(
                    carrier_accounts.c.id == account_id,
                    (carrier_accounts.c.calls_per_second != calls_per_second)
                    | (carrier_accounts.c.max_calls != max_calls),
                )
                .values(**limits)
            )
            return account_id
        self._connection.execute(
            insert(carrier_accounts)
            .from_select(
                [
                    "id",
                    "account_sid",
                    "calls_per_second",
                    "max_calls",
                    "next_slot_at",
                    "created_at",
                    "updated_at",
                ],
                select(
                    func.coalesce(func.max(carrier_accounts.c.id), 0) + 1,
                    cast(account_sid, carrier_accounts.c.account_sid.type),
                    cast(calls_per_second, carrier_accounts.c.calls_per_second.type),
                    cast(max_calls, carrier_accounts.c.max_calls.type),
                    cast(now, carrier_accounts.c.next_slot_at.type),
                    cast(now, carrier_accounts.c.created_at.type),
                    cast(now, carrier_accounts.c.updated_at.type),
                ),
            )
            .on_conflict_do_nothing()
        )
        found: int = self._connection.execute(
            select(carrier_accounts.c.id).where(carrier_accounts.c.account_sid == account_sid)
        ).scalar_one()
        return found

    def get(self, account_id: int) -> CarrierAccount:
        return self._account(account_id, lock=False)

    def lock(self, account_id: int) -> CarrierAccount:
        """The account; no other claim gets a slot of it until we commit."""
        return self._account(account_id, lock=True)

    def _account(self, account_id: int, *, lock: bool) -> CarrierAccount:
        query = select(carrier_accounts).where(carrier_accounts.c.id == account_id)
        row = self._connection.execute(query.with_for_update(key_share=True) if lock else query).one()
        return CarrierAccount(
            id=row.id,
            calls_per_second=float(row.calls_per_second),
            max_calls=row.max_calls,
            next_slot_at=row.next_slot_at,
            pause_reason=row.pause_reason,
            breaker=Breaker(
                failures=row.failures,
                down_until=row.down_until,
                answered_at=row.answered_at,
                cause=row.down_cause,
            ),
            claimed_on=row.claimed_on,
        )

    def database_now(self) -> str:
        """Which database this is, in which of its lives: another one after a restore or a failover.

        The timeline is the one that is written on: the control file tells it only after the next checkpoint.
        """
        name: str = self._connection.execute(_DATABASE_NOW).scalar_one()
        return name

    def claims_on(self, account_id: int, database: str) -> None:
        self._connection.execute(
            update(carrier_accounts).where(carrier_accounts.c.id == account_id).values(claimed_on=database)
        )

    def calls_at_once(self, account_id: int) -> int:
        """Counted from the attempts, so that an outcome never touches the account's row."""
        count: int = self._connection.execute(
            select(func.count())
            .select_from(attempts)
            .where(attempts.c.state == AttemptState.IN_PROGRESS.value, attempts.c.account_id == account_id)
        ).scalar_one()
        return count

    def calls_being_placed(self, account_id: int) -> int:
        """How many calls are claimed and have no answer yet."""
        count: int = self._connection.execute(
            select(func.count())
            .select_from(attempts)
            .where(attempts.c.phase == Phase.DIALLING.value, attempts.c.account_id == account_id)
        ).scalar_one()
        return count

    def set_breaker(self, account_id: int, breaker: Breaker, now: datetime) -> None:
        self._connection.execute(
            update(carrier_accounts)
            .where(carrier_accounts.c.id == account_id)
            .values(
                failures=breaker.failures,
                down_until=breaker.down_until,
                answered_at=breaker.answered_at,
                down_cause=breaker.cause,
                updated_at=now,
            )
        )

    def close_breaker(self, account_id: int, now: datetime) -> bool:
        """The carrier took a call. False, and the row is not touched, when nothing was held against it.

        Nor while it is down: such a call was sent before, and what followed it was lost.
        """
        row = self._connection.execute(
            update(carrier_accounts)
            .where(
                carrier_accounts.c.id == account_id,
                carrier_accounts.c.failures > 0,
                # As `Breaker.is_down` says.
                carrier_accounts.c.down_until.is_(None)
                | (carrier_accounts.c.answered_at >= carrier_accounts.c.down_until),
            )
            .values(failures=0, down_until=None, answered_at=None, down_cause=None, updated_at=now)
            .returning(carrier_accounts.c.id)
        ).one_or_none()
        return row is not None

    def pause(self, reason: str, now: datetime) -> None:
        """From the commit on nothing is claimed, for whomever. A pause that stands keeps its first reason."""
        self._connection.execute(
            update(carrier_accounts)
            .where(carrier_accounts.c.paused_at.is_(None))
            .values(paused_at=now, pause_reason=reason, updated_at=now)
        )

    def resume(self, now: datetime) -> None:
        self._connection.execute(
            update(carrier_accounts)
            .where(carrier_accounts.c.paused_at.is_not(None))
            # Whoever lets it go on has seen to what this database does not know.
            .values(paused_at=None, pause_reason=None, claimed_on=None, updated_at=now)
        )

    def all(self) -> list[CarrierAccount]:
        rows = self._connection.execute(select(carrier_accounts.c.id).order_by(carrier_accounts.c.id))
        return [self.get(row.id) for row in rows]

    def take_slots(self, account_id: int, next_slot_at: datetime) -> None:
        self._connection.execute(
            update(carrier_accounts).where(carrier_accounts.c.id == account_id).values(next_slot_at=next_slot_at)
        )
