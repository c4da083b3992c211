"""Reresolutions: whose pending attempts are to be looked at anew, and how far that has come."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, any_, delete, func, insert, or_, select, update

from scheduler.lifecycle import bounds
from scheduler.persistence.reminders import is_from_the_future
from scheduler.persistence.tables import reresolutions


@dataclass(frozen=True, kw_only=True)
class Reresolution:
    """Hours, zones or a number of a company, or of one of its candidates, have changed."""

    id: int
    company_id: UUID
    candidate_id: UUID | None
    after_id: UUID | None
    """Attempts up to this id are done."""
    asked_at: datetime
    is_last_pass: bool


class Reresolutions:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ask(self, company_id: UUID, candidate_id: UUID | None, now: datetime) -> None:
        """Have pending attempts of a company, or of one of its candidates, resolved again.

        A change that already waits for the same attempts is started over instead: what it has still to do is done
        once. One that a worker holds is left alone, because waiting for it here could be a deadlock.
        """
        waiting = (
            select(reresolutions.c.id)
            .where(
                reresolutions.c.company_id == company_id,
                reresolutions.c.candidate_id.is_not_distinct_from(candidate_id),
            )
            .order_by(reresolutions.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        coalesced = self._connection.execute(
            update(reresolutions)
            .where(reresolutions.c.id == any_(func.array(waiting.scalar_subquery())))
            # It goes on from where it is, and then once more from the first attempt. Starting over at once would keep
            # it from ever coming to its end while settings are changed again and again.
            .values(is_last_pass=False, asked_at=now, not_before=now, rung_at=now)
            .returning(reresolutions.c.id)
        ).all()
        if coalesced:
            return
        self._connection.execute(
            insert(reresolutions).values(
                company_id=company_id,
                candidate_id=candidate_id,
                is_last_pass=False,
                not_before=now,
                asked_at=now,
                rung_at=now,
            )
        )

    def lock_next(self, now: datetime) -> Reresolution | None:
        """The change that has waited longest, among those whose time has come and that no other worker is at."""
        row = self._connection.execute(
            select(reresolutions)
            .where(_may_begin(now))
            .order_by(reresolutions.c.not_before, reresolutions.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            return None
        return Reresolution(
            id=row.id,
            company_id=row.company_id,
            candidate_id=row.candidate_id,
            after_id=row.after_id,
            asked_at=row.asked_at,
            is_last_pass=row.is_last_pass,
        )

    def came_to(self, reresolution_id: int, after_id: UUID, now: datetime) -> None:
        """Attempts up to that id are done. The change goes behind those of other companies."""
        self._connection.execute(
            update(reresolutions).where(reresolutions.c.id == reresolution_id).values(after_id=after_id, not_before=now)
        )

    def put_off(self, reresolution_id: int, not_before: datetime) -> None:
        """It is tried again then, from where it is."""
        self._connection.execute(
            update(reresolutions).where(reresolutions.c.id == reresolution_id).values(not_before=not_before)
        )

    def once_more(self, reresolution_id: int, not_before: datetime) -> None:
        """From the first attempt on, for the last time, then."""
        self._connection.execute(
            update(reresolutions)
            .where(reresolutions.c.id == reresolution_id)
            .values(after_id=None, is_last_pass=True, not_before=not_before)
        )

    def done(self, reresolution_id: int) -> None:
        self._connection.execute(delete(reresolutions).where(reresolutions.c.id == reresolution_id))

    def ring_waiting(self, rung_before: datetime, now: datetime) -> bool:
        """Whether one waits that nobody was rung for lately; it counts as rung for now."""
        waiting = (
            select(reresolutions.c.id)
            .where(or_(reresolutions.c.rung_at <= rung_before, is_from_the_future(reresolutions, now)), _may_begin(now))
            .with_for_update(skip_locked=True)
        )
        rows = self._connection.execute(
            update(reresolutions)
            .where(reresolutions.c.id == any_(func.array(waiting.scalar_subquery())))
            .values(rung_at=now)
            .returning(reresolutions.c.id)
        ).all()
        return bool(rows)


def _may_begin(now: datetime) -> ColumnElement[bool]:
    """Whether its time has come. A later one than a worker sets was written by a wrong clock, and counts as come."""
    return or_(reresolutions.c.not_before <= now, reresolutions.c.not_before > bounds.latest_recomputation(now))
