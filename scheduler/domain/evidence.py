"""The evidence of a call, which explains one call to a reader who was not there. It names no person and no number."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from scheduler.domain.attempt import Attempt
from scheduler.domain.explanation import HistoryEntry, Rule

# --- Seals: the hashes over the entries of a history, and the result of their check


class SealState(StrEnum):
    """The result of the check of a history."""

    WHOLE = "WHOLE"
    """Each entry is sealed, and each seal fits."""
    PARTLY_SEALED = "PARTLY_SEALED"
    """Each seal fits, but some entries lack a seal, or their predecessors were deleted or not read."""
    BROKEN = "BROKEN"
    """An entry, the schedule or a fact that an entry has set was changed, removed or added after it was written."""


class FaultKind(StrEnum):
    CHANGED = "CHANGED"
    """The entry does not fit its seal, or the entry before it does not."""
    REMOVED = "REMOVED"
    """The history lacks this entry."""
    ADDED = "ADDED"
    """The history has another entry with this number, or more entries than the attempt has had events."""
    SCHEDULE_CHANGED = "SCHEDULE_CHANGED"
    """The attempt's schedule is not the one of its last scheduling."""
    FACTS_CHANGED = "FACTS_CHANGED"
    """A fact in the attempt's row is not the one that this entry has set."""


@dataclass(frozen=True, kw_only=True)
class SealFault:
    kind: FaultKind
    number: int
    """The number of the entry, which counts from 0."""


@dataclass(frozen=True, kw_only=True)
class SealedEntry:
    """An entry of the history as it is stored. `number` is the attempt's epoch after the event, without gaps."""

    attempt_id: UUID
    number: int
    at: datetime
    event: str
    from_state: str
    to_state: str
    reason: str
    actor: str
    detail: Mapping[str, Any]
    seal: bytes | None = None
    """None for an entry of release 0.2.0 or earlier."""

    @property
    def happening(self) -> HistoryEntry:
        return HistoryEntry(
            at=self.at,
            event=self.event,
            from_state=self.from_state or None,
            to_state=self.to_state,
            reason=self.reason or None,
            actor=self.actor,
            detail=dict(self.detail),
        )


@dataclass(frozen=True, kw_only=True)
class SealCheck:
    """The result of a check. `faults` are in the order of their entries."""

    state: SealState
    faults: tuple[SealFault, ...]
    unsealed: tuple[int, ...]
    """Numbers of the entries whose content no seal proves."""


# --- The last look before a call


class LookResult(StrEnum):
    """The result of the last look before a call."""

    PASSED = "PASSED"
    """No rule blocked the call, so its request was sent to the carrier."""
    BLOCKED = "BLOCKED"
    """A rule blocked the call. Nothing was sent."""
    NOT_SENT = "NOT_SENT"
    """Nothing was sent, for a reason that concerns no rule, such as a slow machine."""
    NOT_RECORDED = "NOT_RECORDED"
    """The worker ended before it could record the look, the call had ended before that, or the record was changed."""


class RuleResult(StrEnum):
    PASSED = "PASSED"
    BLOCKED = "BLOCKED"
    NOT_RECORDED = "NOT_RECORDED"
    """Another rule blocked the call, and the results of the rules after it are not kept."""


@dataclass(frozen=True, kw_only=True)
class LookHours:
    """Calling hours of the company, as texts: the days on which they start, and their wall-clock times."""

    days: tuple[str, ...]
    start: str
    end: str


@dataclass(frozen=True, kw_only=True)
class LookRecord:
    """The facts by which a last look permitted a call, as they were then."""

    at: datetime
    leave_by: datetime
    """The last instant at which the call was allowed to leave."""
    utc_offsets: Mapping[str, timedelta]
    """By zone, or by the offset itself. All of them had to be open."""
    hours: tuple[LookHours, ...]
    """Those that start on the day before, the day or the day after, on any of the clocks."""
    room: timedelta
    """How long the hours had to stay open for the call to ring."""
    consent_until: date
    country: str | None
    tzdata_version: str
    form: int
    """The form of the record, which tells the rules that were checked."""


@dataclass(frozen=True, kw_only=True)
class LastLook:
    claimed_at: datetime
    result: LookResult
    cause: str | None
    """Why nothing was sent: the first rule that blocked the call, or another reason."""
    rules: tuple[tuple[Rule, RuleResult], ...]
    """In the order of the checks. Empty if nothing about them is recorded."""
    record: LookRecord | None


# --- The evidence


@dataclass(frozen=True, kw_only=True)
class CallbackReceipt:
    """The receipt of a genuine callback of the carrier. Its form was deleted when it was processed."""

    received_at: datetime
    processed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class StoredConsent:
    until: date
    person_erased: bool


@dataclass(frozen=True, kw_only=True)
class EvidenceEntry:
    """An entry of the history. `number` counts the events of the attempt from 0."""

    number: int
    happening: HistoryEntry
    is_sealed: bool


@dataclass(frozen=True, kw_only=True)
class Evidence:
    attempt: Attempt
    read_at: datetime
    consent: StoredConsent
    last_look: LastLook | None
    """None: no worker has claimed the attempt, or its history is no longer kept."""
    callbacks: tuple[CallbackReceipt, ...]
    entries: tuple[EvidenceEntry, ...]
    is_cut: bool
    """Earlier entries are stored, and not shown."""
    seals: SealCheck
