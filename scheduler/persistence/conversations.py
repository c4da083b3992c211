"""Conversations: the call that a token names."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import text

from scheduler.domain.attempt import Attempt
from scheduler.lifecycle.conversations import NumberRefusal
from scheduler.persistence.attempt_rows import attempt_of
from scheduler.persistence.rows import from_row, known_unreadable
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts, interviews

# The token of an earlier claim, which became no call, names none. An attempt that returned to PENDING keeps its token.
_OF_TOKEN = text("""
    SELECT a.*
    FROM attempt_tokens t
    JOIN attempts a ON a.id = t.attempt_id AND a.token = t.token
    JOIN interviews i ON i.id = a.interview_id
    WHERE t.token = :token
      AND a.state <> 'PENDING'
      AND (:with_deleted OR (a.deleted_at IS NULL AND i.deleted_at IS NULL))  -- guard: deleted_call
      AND (
          -- A call that was found after its outcome was given up is live.
          a.ended_at IS NULL OR a.look_at IS NOT NULL OR a.ended_at > :ended_after
          -- It may be live although nothing is heard of it.
          OR (a.reason = 'OUTCOME_UNKNOWN' AND a.claimed_at > :claimed_after)  -- guard: unknown_end
      )
""")

# An instant that no rule can have produced was written by a wrong clock, and does not delay the interview.
_OVERDUE = text("""
    SELECT a.id, a.interview_id, a.company_id
    FROM attempts a
    WHERE (a.outcome_until <= :now OR a.outcome_until > :latest)
      -- A report that was accepted in time is applied first.
      AND NOT EXISTS (
          SELECT FROM inbox c
          WHERE c.interview_id = a.interview_id AND c.applied_at IS NULL AND c.quarantined_at IS NULL
      )
      AND a.id <> ALL (CAST(:left_out AS uuid[]))  -- guard: failed_wait
      -- They would stay the first.
      AND a.id <> ALL (CAST(:unreadable AS uuid[]))  -- guard: unreadable_wait
      AND a.interview_id <> ALL (CAST(:unreadable_interviews AS uuid[]))
    ORDER BY a.outcome_until
    LIMIT :limit
""")


_TO_BE_PROVEN = text("""
    SELECT DISTINCT a.interview_id
    FROM attempts a
    WHERE a.interview_id = ANY (CAST(:ids AS uuid[])) AND a.reason = 'OUTCOME_UNKNOWN' AND a.decided_at IS NULL
      AND coalesce(a.outcome, 'CALL_BACK') = 'CALL_BACK'
""")


_REFUSALS = text("""
    SELECT a.interview_id, a.outcome, a.outcome_at, a.number_hash
    FROM attempts a
    WHERE a.interview_id = ANY (CAST(:ids AS uuid[])) AND a.outcome IN ('OPTED_OUT', 'WRONG_PERSON')
""")


_FORGET_NOTES = text("""
    UPDATE attempts SET outcome_note = NULL
    WHERE id = ANY (ARRAY (
        SELECT a.id
        FROM interviews i
        JOIN attempts a ON a.interview_id = i.id
        WHERE i.candidate_id = :candidate_id AND a.outcome_note IS NOT NULL
        LIMIT :limit
    ))
""")
NOTES_AT_ONCE = 1000
"""Notes that are deleted in one transaction."""


@dataclass(frozen=True, kw_only=True)
class OverdueOutcome:
    """An attempt whose outcome was not reported in time."""

    interview_id: UUID
    company_id: UUID


class Conversations(Store):
    def attempt_of_token(
        self, token: str, *, ended_after: datetime, claimed_after: datetime, with_deleted: bool = False
    ) -> Attempt | None:
        """Find the attempt whose call has this token, unless it ended at `ended_after` or earlier.

        If the end is unknown, it was claimed after `claimed_after`. A deleted attempt, or one of a deleted interview,
        is found only `with_deleted`.
        """
        values = {
            "token": token,
            "ended_after": ended_after,
            "claimed_after": claimed_after,
            "with_deleted": with_deleted,
        }
        return self._one(attempt_of, _OF_TOKEN, values)

    def overdue(
        self, now: datetime, latest: datetime, limit: int, left_out: Collection[UUID] = ()
    ) -> dict[UUID, OverdueOutcome]:
        """List attempts whose outcome was not reported in time, except `left_out` and rows known to be unreadable.

        `latest` is the latest instant that the rules can produce.
        """
        values = {
            "now": now,
            "latest": latest,
            "limit": limit,
            "left_out": list(left_out),
            "unreadable": known_unreadable(attempts.name),
            "unreadable_interviews": known_unreadable(interviews.name),
        }
        rows = self._connection.execute(_OVERDUE, values)
        return {row.id: OverdueOutcome(interview_id=row.interview_id, company_id=row.company_id) for row in rows}

    def to_be_proven(self, interview_ids: Collection[UUID]) -> set[UUID]:
        """Find the interviews whose calls may still be proven late, so that a call at a named time may follow."""
        found = self._connection.execute(_TO_BE_PROVEN, {"ids": list(interview_ids)})
        return set(found.scalars())

    def refusals_of(self, interview_ids: Collection[UUID]) -> Sequence[NumberRefusal]:
        """List the refusals that conversations of these interviews have reported, also of deleted attempts."""
        return self._all(partial(from_row, NumberRefusal), _REFUSALS, {"ids": list(interview_ids)})

    def forget_notes(self, candidate_id: UUID) -> bool:
        """Delete up to `NOTES_AT_ONCE` notes of reports about an erased person. False: more may be left."""
        forgotten = self._connection.execute(_FORGET_NOTES, {"candidate_id": candidate_id, "limit": NOTES_AT_ONCE})
        return forgotten.rowcount < NOTES_AT_ONCE
