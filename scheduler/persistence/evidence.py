"""The evidence of a call: the stored history of an attempt with its seals, and the other parts of the document."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import text

from scheduler.domain.evidence import CallbackReceipt, SealedEntry
from scheduler.domain.explanation import HistoryEntry
from scheduler.persistence.rows import AnyRow, from_row
from scheduler.persistence.store import Store
from scheduler.rules.history_seals import shown_detail

MOST_ENTRIES = 1000
"""Earlier entries of a history are not shown. A call has about twenty."""
MOST_CALLBACKS = 100
"""More callbacks of an attempt are not shown. A call has about five."""
_DEEPEST = 20
"""Values in a detail that are nested more deeply are shown as text. Duecall writes six levels."""
_LISTED = text("""
    SELECT a.id
    FROM attempts a
    JOIN interviews i ON i.id = a.interview_id
    WHERE a.id = :id AND a.company_id = :company_id AND a.deleted_at IS NULL AND i.deleted_at IS NULL
""")
_STORED = text("""
    SELECT a.epoch AS last_number, a.history_seal AS closing_seal, a.schedule,
           p.gdpr_expiry_date AS consent_until, p.erased_at IS NOT NULL AS person_erased
    FROM attempts a
    JOIN interviews i ON i.id = a.interview_id
    JOIN candidates p ON p.id = i.candidate_id
    WHERE a.id = :id
""")
# A time or a detail that cannot be read was changed. The seal of the entry does not fit then, whatever stands for it.
_HISTORY = text("""
    SELECT attempt_id, epoch AS number, event, from_state, to_state, reason, actor, seal,
           least(greatest(at, '0001-01-02 00:00+00'), '9999-12-30 00:00+00') AS at,
           CAST(detail AS text) AS detail
    FROM attempt_history
    WHERE attempt_id = :id
    ORDER BY id DESC
    LIMIT :limit
""")
_CALLBACKS = text("""
    SELECT e.received_at, e.heard_at AS processed_at
    FROM attempt_tokens t
    JOIN carrier_events e ON e.token = t.token
    WHERE t.attempt_id = :id
    ORDER BY e.received_at, e.id
    LIMIT :limit
""")


@dataclass(frozen=True, kw_only=True)
class StoredEvidence:
    """The parts of an evidence in the rows of an attempt, its interview and its candidate."""

    last_number: int
    closing_seal: bytes | None = field(repr=False)
    schedule: Mapping[str, Any] = field(repr=False)
    """In its stored form."""
    consent_until: date
    person_erased: bool


@dataclass(frozen=True, kw_only=True)
class StoredHistory:
    entries: Sequence[SealedEntry]
    """Oldest first."""
    is_cut: bool
    """Earlier entries are stored and were not read."""

    @property
    def happenings(self) -> Sequence[HistoryEntry]:
        """The entries without what only the evidence shows."""
        return [replace(each.happening, detail=shown_detail(each.detail)) for each in self.entries]


class EvidenceRows(Store):
    def is_listed(self, company_id: UUID, attempt_id: UUID) -> bool:
        """Return True if the company has that attempt, and neither it nor its interview was deleted."""
        return self._is_any(_LISTED, {"company_id": company_id, "id": attempt_id})

    def stored(self, attempt_id: UUID) -> StoredEvidence:
        """Read what belongs to an existing attempt."""
        return from_row(StoredEvidence, self._connection.execute(_STORED, {"id": attempt_id}).one())

    def history(self, attempt_id: UUID) -> StoredHistory:
        """Read the newest entries of the history as they are stored."""
        newest = self._all(_entry, _HISTORY, {"id": attempt_id, "limit": MOST_ENTRIES + 1})
        return StoredHistory(entries=newest[:MOST_ENTRIES][::-1], is_cut=len(newest) > MOST_ENTRIES)

    def callbacks(self, attempt_id: UUID) -> Sequence[CallbackReceipt]:
        """List the receipts of the attempt's callbacks, oldest first. They are kept for 30 days."""
        return self._all(partial(from_row, CallbackReceipt), _CALLBACKS, {"id": attempt_id, "limit": MOST_CALLBACKS})


def _entry(row: AnyRow) -> SealedEntry:
    return from_row(SealedEntry, row, detail=_detail(row.detail))


def _detail(stored: str) -> Mapping[str, Any]:
    """Read a detail. Duecall writes objects only, so anything else was changed, and is shown in an object.

    It is shown as text if no response can contain it, as an infinite number, or if it has more digits than are read.
    """
    try:
        found = json.loads(stored)
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError):
        return {"": stored}
    if not isinstance(found, dict) or _is_deeper(found, _DEEPEST):
        return {"": stored}
    return found


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_is_deeper(each, levels - 1) for each in inner)
