"""Lines: whether a person's number is busy or free. One call at a time to a number, in the whole installation."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, update
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

    def rest(self, attempt_id: UUID, interview_id: UUID | None, free_at: datetime) -> None:
        """The call is over: others wait until `free_at`; a retry of `interview_id` need not, None: all wait."""
        self._connection.execute(
            update(lines)
            .where(lines.c.attempt_id == attempt_id)
            .values(attempt_id=None, interview_id=interview_id, free_at=free_at)
        )
