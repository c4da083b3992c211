"""Lines: a person's number, busy or free. One call at a time to a number, in the whole installation."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import and_, case, cast, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.domain.attempt import AttemptState
from scheduler.persistence.sql_any import among
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts, lines

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""An instant before every call. With the present instant of a wrong clock, a new line could be free only in an hour."""

_ASSIGN_ALL = text("""
    UPDATE lines SET attempt_id = given.attempt_id
    FROM unnest(CAST(:hashes AS bytea[]), CAST(:ids AS uuid[])) AS given (number_hash, attempt_id)
    WHERE lines.number_hash = given.number_hash
""")


class Lines(Store):
    def ensure(self, number_hash: bytes) -> None:
        """Create a free line for this number unless it exists, and keep it from being deleted until we commit."""
        line = select(lines.c.number_hash).where(lines.c.number_hash == number_hash)
        # The weakest lock: it blocks the deletion of the line and no claim. If the line was deleted between the two
        # statements, it is created again.
        while True:
            self._connection.execute(
                insert(lines).values(number_hash=number_hash, free_at=_ALWAYS).on_conflict_do_nothing()
            )
            if self._connection.execute(line.with_for_update(read=True, key_share=True)).first() is not None:
                return

    def take_all(self, attempts_by_line: Mapping[bytes, UUID]) -> None:
        """Assign each line to its attempt. Only for lines that `Attempts.lock_claimable` has locked."""
        self._connection.execute(
            _ASSIGN_ALL, {"hashes": list(attempts_by_line), "ids": list(attempts_by_line.values())}
        )

    def hold(self, number_hash: bytes, attempt_id: UUID) -> bool:
        """Assign the line to this attempt, for a call that was seen late. False if another attempt has it."""
        self.ensure(number_hash)
        row = self._connection.execute(
            update(lines)
            .where(
                lines.c.number_hash == number_hash,
                (lines.c.attempt_id.is_(None)) | (lines.c.attempt_id == attempt_id),
            )
            .values(attempt_id=attempt_id)
            .returning(lines.c.number_hash)
        ).one_or_none()
        return row is not None

    def give_back(self, attempt_id: UUID) -> None:
        """Free the line of an attempt that did not ring, without a gap."""
        self._connection.execute(update(lines).where(lines.c.attempt_id == attempt_id).values(attempt_id=None))

    def start_gap(self, attempt_id: UUID, interview_id: UUID | None, now: datetime, free_at: datetime) -> None:
        """Free the line after a call and start its gap: other interviews wait until `free_at`.

        Retries of `interview_id` need not wait. None: all wait. All wait, too, while the line is blocked for another
        reason (a stray call, or another interview's gap), and until the later one of both instants.
        """
        of_another = or_(lines.c.interview_id.is_(None), lines.c.interview_id.is_distinct_from(interview_id))
        blocked = and_(of_another, lines.c.free_at > now)
        self._connection.execute(
            update(lines)
            .where(lines.c.attempt_id == attempt_id)
            .values(
                attempt_id=None,
                interview_id=case((blocked, None), else_=cast(interview_id, lines.c.interview_id.type)),
                free_at=case((blocked, func.greatest(lines.c.free_at, free_at)), else_=free_at),
            )
        )

    def block_until(self, number_hash: bytes, free_at: datetime) -> None:
        """Block the line until `free_at`, also for retries, because a stray call to its number may be live."""
        self._connection.execute(
            update(lines)
            .where(lines.c.number_hash == number_hash)
            .values(interview_id=None, free_at=func.greatest(lines.c.free_at, free_at))
        )

    # ---- deleting

    def forget_free(self, number_hashes: Sequence[bytes], now: datetime) -> int:
        """Delete those of these lines that are free and that no pending attempt needs."""
        free = (
            select(lines.c.number_hash)
            .where(among(lines.c.number_hash, number_hashes), lines.c.attempt_id.is_(None), lines.c.free_at <= now)
            .with_for_update(skip_locked=True)
        )
        hashes = self._connection.execute(free).scalars().all()
        # A second statement, after the lock: it sees each attempt that needs a line. A later attempt creates its own.
        waiting = (
            select(attempts.c.id)
            .where(attempts.c.number_hash == lines.c.number_hash, attempts.c.state == AttemptState.PENDING.value)
            .exists()
        )
        return self._connection.execute(delete(lines).where(among(lines.c.number_hash, hashes), ~waiting)).rowcount

    def forget_free_above(self, number_hash: bytes, free_before: datetime, limit: int) -> bytes | None:
        """Delete up to `limit` free and unneeded lines above this one, like `forget_free`.

        Returns the last line that was checked. None at the end of the table.
        """
        above = (
            select(lines.c.number_hash)
            .where(lines.c.number_hash > number_hash)
            .order_by(lines.c.number_hash)
            .limit(limit)
        )
        hashes = self._connection.execute(above).scalars().all()
        self.forget_free(hashes, free_before)
        return hashes[-1] if len(hashes) == limit else None
