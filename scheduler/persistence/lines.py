"""Lines: whether a person's number is busy or free. One call at a time to a number, in the whole installation."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, and_, case, cast, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.domain.attempt import AttemptState
from scheduler.persistence.sets import among
from scheduler.persistence.tables import attempts, lines

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""Before every call. A new line on the present instant of a wrong clock would be free in an hour."""

_TAKE_ALL = text("""
    UPDATE lines SET attempt_id = mine.attempt_id
    FROM unnest(CAST(:hashes AS bytea[]), CAST(:ids AS uuid[])) AS mine (number_hash, attempt_id)
    WHERE lines.number_hash = mine.number_hash
""")


class Lines:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ensure(self, number_hash: bytes) -> None:
        """Make a line for this number if there is none, and keep it until we commit. A new one has always been free."""
        there = select(lines.c.number_hash).where(lines.c.number_hash == number_hash)
        # The weakest lock: it keeps the line from being forgotten, and nobody from claiming it. One that was forgotten
        # between the two statements is made anew.
        while True:
            self._connection.execute(
                insert(lines).values(number_hash=number_hash, free_at=_ALWAYS).on_conflict_do_nothing()
            )
            if self._connection.execute(there.with_for_update(read=True, key_share=True)).first() is not None:
                return

    def take_all(self, attempts_by_line: Mapping[bytes, UUID]) -> None:
        """Give each line to its attempt. Only for lines that `Attempts.lock_claimable` has locked."""
        self._connection.execute(_TAKE_ALL, {"hashes": list(attempts_by_line), "ids": list(attempts_by_line.values())})

    def hold(self, number_hash: bytes, attempt_id: UUID) -> bool:
        """The line is this attempt's, for a call that was seen late. False when another attempt has it."""
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
        """Nobody rang: the line is as free as it was."""
        self._connection.execute(update(lines).where(lines.c.attempt_id == attempt_id).values(attempt_id=None))

    def rest(self, attempt_id: UUID, interview_id: UUID | None, now: datetime, free_at: datetime) -> None:
        """The call is over: others wait until `free_at`; a retry of `interview_id` need not, None: all wait.

        All wait too for a line that was kept free of calls meanwhile, or rests after another interview's call, and no
        shorter than that.
        """
        another_s = or_(lines.c.interview_id.is_(None), lines.c.interview_id.is_distinct_from(interview_id))
        kept = and_(another_s, lines.c.free_at > now)
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

    # ---- forgetting

    def forget_free(self, number_hashes: Sequence[bytes], now: datetime) -> int:
        """Forget those of these lines that keep nobody from calling, and that nobody waits for."""
        free = (
            select(lines.c.number_hash)
            .where(among(lines.c.number_hash, number_hashes), lines.c.attempt_id.is_(None), lines.c.free_at <= now)
            .with_for_update(skip_locked=True)
        )
        hashes = self._connection.execute(free).scalars().all()
        # A second statement, after the lock: who waits for one of them has committed, and is seen, or finds it gone.
        waiting = (
            select(attempts.c.id)
            .where(attempts.c.number_hash == lines.c.number_hash, attempts.c.state == AttemptState.PENDING.value)
            .exists()
        )
        return self._connection.execute(delete(lines).where(among(lines.c.number_hash, hashes), ~waiting)).rowcount

    def forget_free_above(self, number_hash: bytes, free_before: datetime, limit: int) -> bytes | None:
        """The same for up to `limit` lines above this one that have been free since then.

        Up to which it came; None: to the end.
        """
        above = (
            select(lines.c.number_hash)
            .where(lines.c.number_hash > number_hash)
            .order_by(lines.c.number_hash)
            .limit(limit)
        )
        seen = self._connection.execute(above).scalars().all()
        self.forget_free(seen, free_before)
        return seen[-1] if len(seen) == limit else None
