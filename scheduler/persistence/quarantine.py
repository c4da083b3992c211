"""Quarantine: commands and callbacks that failed five times, with the place of the error and without their bodies."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import TypeAlias
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
    failures: int
    blocked: int
    """Later commands of the interview, which wait for a decision about this one. A callback blocks none."""


QuarantinePlace: TypeAlias = tuple[datetime, UUID]
"""The place of an item in the list: when it was received, and its id."""


class Quarantine(Store):
    def page(
        self,
        kind: QuarantineKind | None,
        after: QuarantinePlace | None,
        limit: int | None,
        company_id: UUID | None = None,
    ) -> Sequence[Quarantined]:
        """Return up to `limit` items in quarantine, oldest first, after this place. None: no limit, all companies."""
        received_at, after_id = after or (None, None)
        values = {
            "kind": kind and kind.value,
            "received_at": received_at,
            "after": after_id,
            "limit": limit,
            "company": company_id,
        }
        return self._all(_quarantined, _PAGE, values)

    def find(self, quarantined_id: UUID) -> Quarantined | None:
        return self._one(_quarantined, _FIND, {"id": quarantined_id})

    def lock(self, quarantined_id: UUID) -> Quarantined | None:
        """Lock a command or a callback if it is in quarantine, and return it."""
        # In a second statement: the lists are unions, which cannot be locked.
        for each in (_LOCK_COMMAND, _LOCK_CALLBACK):
            if self._is_any(each, {"id": quarantined_id}):
                return self.find(quarantined_id)
        return None


_quarantined = partial(from_row, Quarantined)
_COMMANDS = """
    SELECT i.id, 'command' AS kind, i.kind AS command, i.company_id, i.interview_id,
           quarantined_attempt(i.id) AS attempt_id,
           i.received_at, i.first_failed_at, i.quarantined_at, i.failed_with, i.failures,
           (SELECT count(*) FROM inbox later
            WHERE later.interview_id = i.interview_id AND later.seq > i.seq AND later.applied_at IS NULL) AS blocked
    FROM inbox i
    WHERE i.applied_at IS NULL AND i.quarantined_at IS NOT NULL
"""
_CALLBACKS = """
    SELECT e.id, 'callback' AS kind, CAST(NULL AS text) AS command, a.company_id, a.interview_id, a.id AS attempt_id,
           e.received_at, e.first_failed_at, e.quarantined_at, e.failed_with, e.failures, CAST(0 AS bigint) AS blocked
    FROM carrier_events e
    LEFT JOIN attempts a ON a.id = quarantined_call(e.id)
    WHERE e.heard_at IS NULL AND e.quarantined_at IS NOT NULL
"""
_FIND = text(f"{_COMMANDS} AND i.id = :id UNION ALL {_CALLBACKS} AND e.id = :id")
_PAGE = text(f"""
    {_COMMANDS}
      AND CAST(:kind AS text) IS DISTINCT FROM 'callback'
      AND (CAST(:company AS uuid) IS NULL OR i.company_id = :company)
      AND (CAST(:received_at AS timestamptz) IS NULL OR (i.received_at, i.id) > (:received_at, CAST(:after AS uuid)))
    UNION ALL {_CALLBACKS}
      AND CAST(:kind AS text) IS DISTINCT FROM 'command'
      AND (CAST(:company AS uuid) IS NULL OR a.company_id = :company)
      AND (CAST(:received_at AS timestamptz) IS NULL OR (e.received_at, e.id) > (:received_at, CAST(:after AS uuid)))
    ORDER BY received_at, id
    LIMIT CAST(:limit AS bigint)
""")
_LOCK_COMMAND = text("""
    SELECT id FROM inbox WHERE id = :id AND applied_at IS NULL AND quarantined_at IS NOT NULL FOR UPDATE
""")
_LOCK_CALLBACK = text("""
    SELECT id FROM carrier_events WHERE id = :id AND heard_at IS NULL AND quarantined_at IS NOT NULL FOR UPDATE
""")
