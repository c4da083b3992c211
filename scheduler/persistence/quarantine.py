"""Quarantine: commands and callbacks that failed five times, with the place of the error and without their bodies."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from uuid import UUID

from sqlalchemy import text

from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store


class QuarantineKind(StrEnum):
    COMMAND = "command"
    CALLBACK = "callback"


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A command or a callback in quarantine."""

    id: UUID
    kind: QuarantineKind
    command: str | None
    """The kind of a command."""
    company_id: UUID | None
    interview_id: UUID | None
    attempt_id: UUID | None
    """None if a command names none, and after the attempt of a callback was erased."""
    received_at: datetime
    first_failed_at: datetime | None
    """None for a failure that a process of the previous version has counted."""
    quarantined_at: datetime
    """The time of the last failure."""
    failed_with: str | None
    """The type of the last error, and the line that raised it."""


class Quarantine(Store):
    def all(self) -> Sequence[Quarantined]:
        """Return everything in quarantine, oldest first."""
        return self._all(partial(from_row, Quarantined), _ALL)


_ALL = text("""
    SELECT id, 'command' AS kind, kind AS command, company_id, interview_id,
           CAST(body ->> 'attempt_id' AS uuid) AS attempt_id,
           received_at, first_failed_at, quarantined_at, failed_with
    FROM inbox
    WHERE applied_at IS NULL AND quarantined_at IS NOT NULL
    UNION ALL
    SELECT e.id, 'callback', NULL, a.company_id, a.interview_id, a.id,
           e.received_at, e.first_failed_at, e.quarantined_at, e.failed_with
    FROM carrier_events e
    LEFT JOIN attempt_tokens t ON t.token = e.token
    LEFT JOIN attempts a ON a.id = t.attempt_id
    WHERE e.heard_at IS NULL AND e.quarantined_at IS NOT NULL
    ORDER BY received_at, id
""")
