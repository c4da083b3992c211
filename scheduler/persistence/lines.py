"""Lines: whether a person's number is busy or free. One call at a time to a number, in the whole installation."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, and_, case, cast, func, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.persistence.tables import lines


class Lines:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ensure(self, number_hash: bytes, now: datetime) -> None:
        """There is a line for this number; a new one is free."""
        self._connection.execute(insert(lines).values(number_hash=number_hash, free_at=now).on_conflict_do_nothing())

    def take(self, number_hash: bytes, attempt_id: UUID) -> None:
        """The line is this attempt's. Only for a line that `Attempts.lock_claimable` has locked."""
        self._connection.execute(update(lines).where(lines.c.number_hash == number_hash).values(attempt_id=attempt_id))

    def hold(self, number_hash: bytes, attempt_id: UUID) -> bool:
        """The line is this attempt's, for a call that was seen late. False when another attempt has it."""
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
        """Nobody rang: the line is as free as it was."""
        self._connection.execute(update(lines).where(lines.c.attempt_id == attempt_id).values(attempt_id=None))

    def rest(self, attempt_id: UUID, interview_id: UUID | None, now: datetime, free_at: datetime) -> None:
        """The call is over: others wait until `free_at`; a retry of `interview_id` need not, None: all wait.

        All wait too for a line that was kept free of calls meanwhile, and no shorter than that.
        """
        kept = and_(lines.c.interview_id.is_(None), lines.c.free_at > now)
        self._connection.execute(
            update(lines)
            .where(lines.c.attempt_id == attempt_id)
            .values(
                attempt_id=None,
                interview_id=case((kept, None), else_=cast(interview_id, lines.c.interview_id.type)),
                free_at=case((kept, func.greatest(lines.c.free_at, free_at)), else_=free_at),
            )
        )

    def keep_free(self, number_hash: bytes, free_at: datetime) -> None:
        """A call to this number is on that no attempt has: nobody's begins before `free_at`, no retry's either."""
        self._connection.execute(
            update(lines)
            .where(lines.c.number_hash == number_hash)
            .values(interview_id=None, free_at=func.greatest(lines.c.free_at, free_at))
        )
