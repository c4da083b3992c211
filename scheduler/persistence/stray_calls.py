"""Stray calls: calls at the carrier that must not exist and are ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import any_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.lifecycle import bounds
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import stray_calls


@dataclass(frozen=True, kw_only=True)
class StrayCall:
    call_sid: str
    attempt_id: UUID
    seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class LiveStrayCall(StrayCall):
    look_at: datetime
    """The time of the next poll."""


class StrayCalls(Store):
    def add(self, stray: StrayCall) -> None:
        """Add a call that is to be ended. A known one becomes due again."""
        self._connection.execute(
            insert(stray_calls)
            .values(**as_columns(stray, look_at=stray.seen_at))
            .on_conflict_do_update(index_elements=["call_sid"], set_={"look_at": stray.seen_at})
        )

    def live(self) -> Sequence[LiveStrayCall]:
        """Return the stray calls that have not provably ended, oldest first."""
        query = (
            select(*(stray_calls.c[each] for each in ("call_sid", "attempt_id", "seen_at", "look_at")))
            .where(stray_calls.c.look_at.is_not(None))
            .order_by(stray_calls.c.seen_at)
        )
        return self._all(partial(from_row, LiveStrayCall), query)

    def due_polls(self, now: datetime, hold_until: datetime, limit: int) -> list[StrayCall]:
        """Return the stray calls that are due. No other process polls for them until `hold_until`."""
        due = (
            select(stray_calls.c.call_sid)
            # A later instant was set by a wrong clock.
            .where(or_(stray_calls.c.look_at <= now, stray_calls.c.look_at > bounds.latest_stray_look(now)))
            .order_by(stray_calls.c.look_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = self._connection.execute(
            update(stray_calls)
            .where(stray_calls.c.call_sid == any_(func.array(due.scalar_subquery())))
            .values(look_at=hold_until)
            .returning(stray_calls.c.call_sid, stray_calls.c.attempt_id, stray_calls.c.seen_at)
        )
        return [from_row(StrayCall, row) for row in rows]

    def reschedule_poll(self, call_sid: str, look_at: datetime) -> None:
        """Poll the carrier again at `look_at`: the call has not provably ended."""
        self._connection.execute(update(stray_calls).where(stray_calls.c.call_sid == call_sid).values(look_at=look_at))

    def ended(self, call_sid: str) -> None:
        """Record that the call has ended. It is no longer polled."""
        self._connection.execute(update(stray_calls).where(stray_calls.c.call_sid == call_sid).values(look_at=None))
