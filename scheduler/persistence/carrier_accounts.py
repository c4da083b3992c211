"""The carrier account: its pace and its room, in one row that every claim locks first."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, cast, func, select, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.domain.attempt import AttemptState
from scheduler.persistence.tables import attempts, carrier_accounts


@dataclass(frozen=True, kw_only=True)
class CarrierAccount:
    id: int
    calls_per_second: float
    max_calls: int
    next_slot_at: datetime
    paused: bool


class CarrierAccounts:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

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
            paused=row.paused_at is not None,
        )

    def calls_at_once(self, account_id: int) -> int:
        """Counted from the attempts, so that an outcome never touches the account's row."""
        count: int = self._connection.execute(
            select(func.count())
            .select_from(attempts)
            .where(attempts.c.state == AttemptState.IN_PROGRESS.value, attempts.c.account_id == account_id)
        ).scalar_one()
        return count

    def take_slots(self, account_id: int, next_slot_at: datetime) -> None:
        self._connection.execute(
            update(carrier_accounts).where(carrier_accounts.c.id == account_id).values(next_slot_at=next_slot_at)
        )
