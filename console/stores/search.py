"""Search: the rows that an id, a call's sid, a number or an external id names, for operators. No personal data."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import text

from scheduler.domain.attempt import AttemptState, Reason
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts


@dataclass(frozen=True, kw_only=True)
class FoundRow:
    """A row that was named."""

    kind: str
    """The resource: attempt, interview, company, candidate, job, command, key, webhook, event or batch."""
    id: UUID
    company_id: UUID | None
    interview_id: UUID | None
    """Of an attempt, a command or an event, and that of an interview."""


@dataclass(frozen=True, kw_only=True)
class FoundAttempt:
    """An attempt of a found row."""

    id: UUID
    interview_id: UUID
    candidate_id: UUID
    company_id: UUID
    company_name: str | None
    state: AttemptState
    reason: Reason | None
    due_at: datetime
    ended_at: datetime | None


_found = partial(from_row, FoundRow)


class Search(Store):
    def of_id(self, wanted: UUID) -> list[FoundRow]:
        """Find the rows with this id, of any kind.

        A key is found by its principal's id too, and a webhook by an event that was delivered to it.
        """
        return self._all(_found, _OF_ID, {"id": wanted})

    def of_call(self, call_sid: str) -> list[FoundRow]:
        """Find the attempts of a call at the carrier, including stray calls and calls that were never dialled."""
        return self._all(_found, _OF_CALL, {"call_sid": call_sid})

    def of_number(self, numbers: Sequence[str], number_hash: bytes, limit: int) -> list[FoundRow]:
        """Find the candidates with this number now, and the open attempts to it.

        `numbers` are its spellings, which are personal data.
        """
        values = {"numbers": list(numbers), "hash": number_hash, "limit": limit}
        return self._all(_found, _OF_NUMBER, values)

    def of_external_id(self, texts: Sequence[str], limit: int) -> list[FoundRow]:
        """Find the interviews, candidates and jobs of all companies with this external id, newest first.

        `texts` are its spellings, which may be personal data.
        """
        return self._all(_found, _OF_EXTERNAL_ID, {"texts": list(texts), "limit": limit})

    def attempts(
        self,
        attempt_ids: Sequence[UUID],
        interview_ids: Sequence[UUID],
        candidate_ids: Sequence[UUID],
        limit: int,
    ) -> list[FoundAttempt]:
        """Find these attempts, and those of these interviews and candidates, newest first."""
        values = {
            "ids": list(attempt_ids),
            "interview_ids": list(interview_ids),
            "candidate_ids": list(candidate_ids),
            "limit": limit,
        }
        return self._readable(attempts, partial(from_row, FoundAttempt), _ATTEMPTS, values)


_OF_ID = text("""
    SELECT 'attempt' AS kind, id, company_id, interview_id FROM attempts WHERE id = :id
    UNION ALL
    SELECT 'interview', id, company_id, id FROM interviews WHERE id = :id
    UNION ALL
    SELECT 'candidate', id, company_id, NULL FROM candidates WHERE id = :id
    UNION ALL
    SELECT 'company', id, id, NULL FROM companies WHERE id = :id
    UNION ALL
    SELECT 'command', id, company_id, interview_id FROM inbox WHERE id = :id
    UNION ALL
    SELECT 'batch', id, company_id, NULL FROM batches WHERE id = :id
    UNION ALL
    SELECT 'event', id, company_id, interview_id FROM events WHERE id = :id
    UNION ALL
    (SELECT 'webhook', w.id, w.company_id, NULL
     FROM webhook_endpoints w
     WHERE w.disabled_cause IS DISTINCT FROM 'DELETED'
       AND w.id = ANY (ARRAY (
           SELECT d.endpoint_id FROM webhook_deliveries d WHERE d.event_id = :id
           UNION ALL
           SELECT CAST(:id AS uuid)
       ))
     ORDER BY w.id LIMIT 20)
    UNION ALL
    (SELECT 'key', id, company_id, NULL FROM api_keys WHERE id = :id OR principal_id = :id ORDER BY id LIMIT 20)
""")

_OF_CALL = text("""
    SELECT 'attempt' AS kind, a.id, a.company_id, a.interview_id
    FROM attempts a
    WHERE a.id = ANY (ARRAY (
        SELECT id FROM attempts WHERE call_sid = :call_sid
        UNION
        SELECT attempt_id FROM stray_calls WHERE call_sid = :call_sid
    ))
""")

# The state of attempts is named because the indexes of numbers contain only pending and live calls.
_OF_NUMBER = text("""
    SELECT 'candidate' AS kind, c.id, c.company_id, CAST(NULL AS uuid) AS interview_id
    FROM candidates c
    WHERE c.id = ANY (ARRAY (SELECT candidates_of_number(CAST(:numbers AS text[]), :limit)))
    UNION ALL
    SELECT 'attempt', id, company_id, interview_id FROM attempts WHERE number_hash = :hash AND state = 'IN_PROGRESS'
    UNION ALL
    (SELECT 'attempt', id, company_id, interview_id FROM attempts WHERE number_hash = :hash AND state = 'PENDING'
     LIMIT :limit)
""")

_OF_EXTERNAL_ID = text("""
    SELECT kind, id, company_id, CASE WHEN kind = 'interview' THEN id END AS interview_id
    FROM resources_of_external_id(CAST(:texts AS text[]), :limit)
""")

_ATTEMPTS = text("""
    WITH of_interviews AS (
        SELECT id FROM interviews WHERE id = ANY (CAST(:interview_ids AS uuid[]))
        UNION
        SELECT id FROM interviews WHERE candidate_id = ANY (CAST(:candidate_ids AS uuid[]))
    ), wanted AS (
        SELECT id FROM attempts WHERE id = ANY (CAST(:ids AS uuid[]))
        UNION
        SELECT id FROM attempts WHERE interview_id = ANY (ARRAY (SELECT id FROM of_interviews))
    )
    SELECT a.id, a.interview_id, i.candidate_id, a.company_id, c.name AS company_name, a.state, a.reason, a.due_at,
           a.ended_at
    FROM attempts a
    JOIN interviews i ON i.id = a.interview_id
    JOIN companies c ON c.id = a.company_id
    WHERE a.id = ANY (ARRAY (SELECT id FROM wanted))
    ORDER BY a.created_at DESC, a.id DESC
    LIMIT :limit
""")
