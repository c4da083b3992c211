"""Attempts: lapsed leases, expiries, and polls and searches at the carrier."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, func, select, text, update

from scheduler.domain.attempt import Attempt, AttemptState, Phase
from scheduler.persistence.attempt_rows import attempt_of
from scheduler.persistence.store import Store, is_set
from scheduler.persistence.tables import attempt_tokens, attempts, inbox, interviews


class AttemptPolls(Store):
    def lapsed_leases(self, now: datetime, limit: int) -> list[Attempt]:
        """List attempts whose lease has ended without a record of an outcome, except locked ones."""
        query = (
            _with_free_interview()
            .where(attempts.c.phase == Phase.DIALLING.value, attempts.c.lease_until <= now)
            .order_by(attempts.c.lease_until)
        )
        return self._readable_some(attempts, attempt_of, query, limit)

    def to_expire(self, now: datetime, limit: int) -> list[Attempt]:
        """List pending attempts whose interview has expired, except locked ones.

        A command that was received before the expiry is applied first.
        """
        query = _with_free_interview().where(*_is_to_expire(now)).order_by(attempts.c.expires_at)
        return self._readable_some(attempts, attempt_of, query, limit)

    def is_to_expire(self, attempt_id: UUID, now: datetime) -> bool:
        """Return True if this attempt should expire now, like `to_expire`. The caller has locked the interview."""
        query = select(attempts.c.id).where(attempts.c.id == attempt_id, *_is_to_expire(now))
        return self._is_any(query)

    def due_polls(self, now: datetime, hold_until: datetime, limit: int) -> list[Attempt]:
        """Take attempts whose poll is due. No other process polls for them until `hold_until`."""
        return self._readable(attempts, attempt_of, _TAKE_POLLS, {"now": now, "hold_until": hold_until, "limit": limit})

    def reschedule_poll(
        self, attempt_id: UUID, epoch: int, poll_at: datetime, listed_at: datetime | None = None
    ) -> None:
        """Record a poll of the carrier, and the instant of the next one.

        `listed_at`: the request of a list that was read in full. None keeps the instant of the last one.
        """
        self._connection.execute(
            update(attempts)
            .where(attempts.c.id == attempt_id, attempts.c.epoch == epoch, is_set(attempts.c.look_at))
            .values(
                look_at=poll_at, looks=attempts.c.looks + 1, listed_at=func.coalesce(listed_at, attempts.c.listed_at)
            )
        )

    def hasten_poll(self, attempt: Attempt, now: datetime) -> None:
        """Let the carrier be polled now, unless the attempt has changed or is locked. Then there is news of it."""
        self._connection.execute(_HASTEN_POLL, {"id": attempt.id, "epoch": attempt.epoch, "now": now})

    def undecided(self, before: datetime) -> tuple[int, datetime | None]:
        """Count the attempts that became unknown at `before` or earlier, and return the instant of the oldest."""
        row = self._connection.execute(
            select(func.count(), func.min(attempts.c.unknown_at)).where(
                # For the index of attempts that are polled.
                attempts.c.look_at.is_not(None),
                attempts.c.phase == Phase.UNKNOWN.value,
                attempts.c.unknown_at <= before,
            )
        ).one()
        return row[0], row[1]

    def due_searches(self, now: datetime, hold_until: datetime, limit: int) -> list[Attempt]:
        """Take attempts without a known outcome whose call is to be searched for now.

        No other process searches for them until `hold_until`.
        """
        return self._readable(
            attempts, attempt_of, _TAKE_SEARCHES, {"now": now, "hold_until": hold_until, "limit": limit}
        )

    def reschedule_search(
        self, attempt_id: UUID, epoch: int, search_at: datetime | None, listed_at: datetime | None
    ) -> None:
        """Record an unsuccessful search of the list, and the instant of the next one, if any.

        `listed_at` as in `reschedule_poll`. The called number is deleted with the last search.
        """
        self._update(
            attempts,
            attempts.c.id == attempt_id,
            attempts.c.epoch == epoch,
            is_set(attempts.c.search_at),
            search_at=search_at,
            looks=attempts.c.looks + 1,
            listed_at=func.coalesce(listed_at, attempts.c.listed_at),
            **{"called_number": None} if search_at is None else {},
        )

    def forget_number_of_erased(self, attempt_id: UUID) -> None:
        """Delete the called number of the attempt if its candidate was erased."""
        self._connection.execute(_FORGET_NUMBER_OF_ERASED, {"id": attempt_id})

    def numbers_of(self, attempt_id: UUID) -> tuple[str | None, str | None]:
        """Read the number that was called and the caller id. Personal data."""
        row = self._connection.execute(_NUMBERS, {"id": attempt_id}).one()
        return row.called_number, row.caller_number

    def callers_of_pending(self) -> list[str]:
        """List the caller ids of all pending attempts."""
        return [row.caller_number for row in self._connection.execute(_CALLERS_OF_PENDING)]

    def pending_to(self, number_hash: bytes, caller: str) -> Attempt | None:
        """Find the earliest due pending attempt between these two numbers."""
        query = (
            select(attempts)
            .join(interviews, interviews.c.id == attempts.c.interview_id)
            .where(
                attempts.c.state == AttemptState.PENDING.value,
                attempts.c.number_hash == number_hash,
                interviews.c.caller_number == caller,
            )
            .order_by(attempts.c.due_at, attempts.c.id)
            .limit(1)
        )
        return self._one(attempt_of, query)

    def bound_sids(self, call_sids: Iterable[str]) -> frozenset[str]:
        """Find the carrier's calls that belong to an attempt, or did."""
        sids = list(call_sids)
        rows = self._connection.execute(
            select(attempts.c.call_sid)
            .where(attempts.c.call_sid.in_(sids))
            .union_all(select(attempt_tokens.c.closed_sid).where(attempt_tokens.c.closed_sid.in_(sids)))
        )
        return frozenset(row.call_sid for row in rows)


_CALLERS_OF_PENDING = text("""
    SELECT DISTINCT i.caller_number FROM attempts a JOIN interviews i ON i.id = a.interview_id
    WHERE a.state = 'PENDING' AND i.caller_number IS NOT NULL ORDER BY i.caller_number
""")


_TAKE_POLLS = text("""
    UPDATE attempts SET look_at = :hold_until
    WHERE id = ANY (ARRAY (
        SELECT id FROM attempts
        WHERE look_at <= :now
        ORDER BY look_at
        LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    ))
    RETURNING *
""")


_HASTEN_POLL = text("""
    UPDATE attempts SET look_at = :now
    WHERE id = (
        SELECT id FROM attempts WHERE id = :id AND epoch = :epoch AND look_at > :now FOR NO KEY UPDATE SKIP LOCKED
    )
""")


_TAKE_SEARCHES = text("""
    UPDATE attempts SET search_at = :hold_until
    WHERE id = ANY (ARRAY (
        SELECT id FROM attempts
        -- `coalesce` hides the reason from the index of unknown outcomes, most of which are searched for no longer.
        WHERE search_at <= :now AND state = 'FAILED' AND coalesce(reason, '') = 'OUTCOME_UNKNOWN' AND look_at IS NULL
        ORDER BY search_at
        LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    ))
    RETURNING *
""")


_FORGET_NUMBER_OF_ERASED = text("""
    UPDATE attempts SET called_number = NULL
    WHERE id = :id AND EXISTS (
        SELECT FROM interviews i JOIN candidates p ON p.id = i.candidate_id
        WHERE i.id = attempts.interview_id AND p.erased_at IS NOT NULL
    )
""")


_NUMBERS = text("""
    SELECT
        -- The previous version did not store the number. The candidate's is the same unless it has changed since.
        coalesce(a.called_number, CASE WHEN p.updated_at <= a.claimed_at THEN p.phone_number END) AS called_number,
        i.caller_number
    FROM attempts a
    JOIN interviews i ON i.id = a.interview_id
    JOIN candidates p ON p.id = i.candidate_id
    WHERE a.id = :id
""")


def _with_free_interview() -> Select[tuple[Any, ...]]:
    """Select attempts, and lock them with their interviews unless another transaction has locked either.

    Rows that a forgotten session keeps locked would otherwise be the first of every round, and each costs seconds.
    """
    return (
        select(attempts)
        .join(interviews, interviews.c.id == attempts.c.interview_id)
        .with_for_update(of=[attempts, interviews], key_share=True, skip_locked=True)
    )


def _is_to_expire(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Commands received before the expiry are applied first, however late. Quarantined commands do not delay it."""
    has_command = exists().where(
        inbox.c.interview_id == attempts.c.interview_id,
        inbox.c.received_at < attempts.c.expires_at,
        inbox.c.applied_at.is_(None),
        inbox.c.quarantined_at.is_(None),
    )
    return attempts.c.state == AttemptState.PENDING.value, attempts.c.expires_at <= now, ~has_command
