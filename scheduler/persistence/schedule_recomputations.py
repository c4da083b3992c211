"""Recomputations of schedules: changes after which pending attempts are resolved again, and their progress."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, all_, any_, bindparam, func, literal, or_, select, update

from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.call import Schedule
from scheduler.lifecycle.policy import latest_recomputation
from scheduler.persistence.attempt_rows import attempt_of
from scheduler.persistence.connection import Fixed, given_instant
from scheduler.persistence.json_columns import schedule_as_json
from scheduler.persistence.quarantine import instants, is_from_the_future
from scheduler.persistence.rows import from_row, known_unreadable
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts, interviews, recomputations


@dataclass(frozen=True, kw_only=True)
class Recomputation:
    """Hours, zones or a number of a company, or of one of its candidates, have changed."""

    id: int
    company_id: UUID
    candidate_id: UUID | None
    after_interview_id: UUID | None
    """Interviews up to this id are done, in the pass of `after_in_last_pass`."""
    after_in_last_pass: bool | None
    asked_at: datetime
    is_last_pass: bool

    @property
    def after(self) -> UUID | None:
        """The id of the last interview that is done in this pass."""
        # A worker of the previous version begins the last pass without resetting our place.
        return self.after_interview_id if self.after_in_last_pass is self.is_last_pass else None


class ScheduleRecomputations(Store):
    def note_schedule(self, attempt_id: UUID, schedule: Schedule) -> None:
        """Replace the schedule of an attempt that the caller has locked, without an event."""
        self._update(attempts, attempts.c.id == attempt_id, schedule=schedule_as_json(schedule))

    def ask(self, company_id: UUID, candidate_id: UUID | None, now: datetime) -> None:
        """Have pending attempts of a company, or of one of its candidates, resolved again.

        If a change already waits for the same attempts, it is repeated instead of adding another one. A change that a
        worker has locked is left alone, because waiting for it here could be a deadlock.
        """
        waiting = (
            select(recomputations.c.id)
            .where(
                recomputations.c.company_id == company_id,
                recomputations.c.candidate_id.is_not_distinct_from(candidate_id),
            )
            .order_by(recomputations.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        coalesced = self._connection.execute(
            update(recomputations)
            .where(recomputations.c.id == any_(func.array(waiting.scalar_subquery())))
            # It continues, and is then repeated from the first attempt. If it restarted at once, it would never end
            # while settings are changed repeatedly.
            .values(is_last_pass=False, after_in_last_pass=False, asked_at=now, not_before=now, rung_at=now)
            .returning(recomputations.c.id)
        ).all()
        if coalesced:
            return
        self._insert(
            recomputations,
            company_id=company_id,
            candidate_id=candidate_id,
            is_last_pass=False,
            not_before=now,
            asked_at=now,
            rung_at=now,
        )

    def lock_next(self, now: datetime) -> Recomputation | None:
        """Lock the change that has waited longest, among due changes that no other worker has locked."""
        values = {"now": now, "latest_recomputation": latest_recomputation(now)}
        return self._one(partial(from_row, Recomputation), _LOCK_NEXT, values)

    def came_to(self, change: Recomputation, interview_id: UUID, now: datetime) -> None:
        """Record that interviews up to that id are done. The change then comes after those of other companies."""
        self._connection.execute(
            update(recomputations)
            .where(recomputations.c.id == change.id)
            .values(after_interview_id=interview_id, after_in_last_pass=change.is_last_pass, not_before=now)
        )

    def put_off(self, recomputation_id: int, not_before: datetime) -> None:
        """Continue the change at `not_before`, from where it is."""
        self._update(recomputations, recomputations.c.id == recomputation_id, not_before=not_before)

    def once_more(self, recomputation_id: int, not_before: datetime) -> None:
        """Begin the last pass over all attempts, at `not_before`."""
        self._connection.execute(
            update(recomputations)
            .where(recomputations.c.id == recomputation_id)
            .values(after_id=None, after_interview_id=None, is_last_pass=True, not_before=not_before)
        )

    def done(self, recomputation_id: int) -> None:
        self._delete(recomputations, recomputations.c.id == recomputation_id)

    def ring_waiting(self, rung_before: datetime, now: datetime) -> bool:
        """Return True if a hint is to be sent again for a waiting change, and record it as sent now."""
        values = instants(rung_before, now) | {"latest_recomputation": latest_recomputation(now)}
        return bool(self._connection.execute(_RING_WAITING, values).all())

    def has_older_zone_data(self, version: str) -> bool:
        """Return True if a pending attempt was resolved with zone data older than `version`."""
        return self._is_any(_HAS_OLDER_ZONE_DATA, {"version": version})

    def lock_older_zone_data(self, version: str, limit: int) -> list[Attempt]:
        """Lock up to `limit` pending attempts that were resolved with zone data older than `version`.

        Their interviews are locked too. An attempt that another transaction has locked is left for later.
        """
        older = _OLDER_ZONE_DATA.join(interviews, interviews.c.id == attempts.c.interview_id)
        free = older.with_for_update(of=[attempts, interviews], key_share=True, skip_locked=True)
        # Their ids first: with all columns, PostgreSQL may prefer to sort the rows to reading them in order.
        unreadable = attempts.c.id != all_(literal(known_unreadable(attempts.name), ARRAY(Uuid)))
        ids = self._connection.execute(free.where(unreadable).limit(limit), {"version": version}).scalars()
        return self._readable(attempts, attempt_of, select(attempts).where(attempts.c.id.in_(ids)))

    def note_zone_data(self, attempt_ids: Sequence[UUID], version: str) -> None:
        """Record that these pending attempts were checked against zone data of `version`."""
        outdated = (
            select(attempts.c.id)
            .where(
                attempts.c.id.in_(attempt_ids),
                attempts.c.state == AttemptState.PENDING.value,
                _zone_data < version,
            )
            .with_for_update(skip_locked=True, key_share=True)
        )
        self._update(
            attempts,
            attempts.c.id == any_(func.array(outdated.scalar_subquery())),
            schedule=attempts.c.schedule.op("||")(func.jsonb_build_object("tzdata_version", version)),
        )


# Changes that are due. A later time than workers set was written by a wrong clock and counts as due.
_MAY_BEGIN = or_(
    recomputations.c.not_before <= given_instant("now"),
    recomputations.c.not_before > given_instant("latest_recomputation"),
)
_LOCK_NEXT = Fixed(
    select(recomputations)
    .where(_MAY_BEGIN)
    .order_by(recomputations.c.not_before, recomputations.c.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_WAITING = (
    select(recomputations.c.id)
    .where(
        or_(recomputations.c.rung_at <= given_instant("rung_before"), is_from_the_future(recomputations)),
        _MAY_BEGIN,
    )
    .with_for_update(skip_locked=True)
)
_RING_WAITING = Fixed(
    update(recomputations)
    .where(recomputations.c.id == any_(func.array(_WAITING.scalar_subquery())))
    .values(rung_at=given_instant("now"))
    .returning(recomputations.c.id)
)

_zone_data = attempts.c.schedule["tzdata_version"].astext
"""Versions of the tz database sort by name: 2026a, 2026b, ... 2027a."""


_OLDER_ZONE_DATA = (
    select(attempts.c.id)
    .where(attempts.c.state == AttemptState.PENDING.value, _zone_data < bindparam("version"))
    .order_by(_zone_data)
)
_HAS_OLDER_ZONE_DATA = Fixed(_OLDER_ZONE_DATA.limit(1))
