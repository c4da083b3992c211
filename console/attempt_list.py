"""Lists of attempts for operators: which attempts a list has, its rows, and the place where a page ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from scheduler.domain.attempt import AttemptState, Decision, Phase, Reason
from scheduler.domain.schedule import Schedule


class ListState(StrEnum):
    """The states of attempts as operators see them."""

    DUE = "due"
    WAITING = "waiting"
    """Pending, and not due yet."""
    PENDING = "pending"
    """Due or waiting."""
    IN_PROGRESS = "in-progress"
    FINISHED = "finished"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    COMPLETED_OR_FAILED = "completed-or-failed"
    COMPLETED_OR_CANCELLED = "completed-or-cancelled"
    FAILED_OR_CANCELLED = "failed-or-cancelled"
    UNKNOWN = "unknown"
    """Ended with an unknown outcome about which no operator has decided yet."""


PENDING_STATES = frozenset({ListState.DUE, ListState.WAITING, ListState.PENDING})
END_STATES: Mapping[ListState, Sequence[AttemptState]] = {
    ListState.FINISHED: (AttemptState.COMPLETED, AttemptState.FAILED, AttemptState.CANCELLED),
    ListState.COMPLETED: (AttemptState.COMPLETED,),
    ListState.FAILED: (AttemptState.FAILED,),
    ListState.CANCELLED: (AttemptState.CANCELLED,),
    ListState.COMPLETED_OR_FAILED: (AttemptState.COMPLETED, AttemptState.FAILED),
    ListState.COMPLETED_OR_CANCELLED: (AttemptState.COMPLETED, AttemptState.CANCELLED),
    ListState.FAILED_OR_CANCELLED: (AttemptState.FAILED, AttemptState.CANCELLED),
}


class ListOrder(StrEnum):
    DUE_TIME = "due time"
    """Pending attempts, or finished ones of one company in a range of due times, the first one that is due first."""
    INTERVIEW = "interview"
    """All attempts of one company, the newest interview first."""
    END = "end"
    """Finished attempts, the last one that ended first."""
    NEWEST = "newest"
    """The newest attempt first."""


@dataclass(frozen=True, kw_only=True)
class AttemptFilter:
    """Conditions that all attempts of a list meet. None matches all."""

    state: ListState | None = None
    rule: str | None = None
    """The first rule that holds the attempt, or PACE. Only of due attempts."""
    company_id: UUID | None = None
    zone: str | None = None
    """A canonical IANA name of the callee's zones, or an offset like +10:30. Only of pending attempts."""
    due_from: datetime | None = None
    """The first instant of a range. Only of pending or finished attempts."""
    due_to: datetime | None = None
    """The first instant after the range."""
    created_from: datetime | None = None
    """The first instant of a range of creations. Only of one company."""
    created_to: datetime | None = None
    """The first instant after the range."""
    changed_from: datetime | None = None
    """The earliest last change. Only of one company."""
    reason: Reason | None = None
    """The end reason. Only of finished attempts."""
    cause_lost: bool = False
    """Only attempts that failed without a known cause."""

    @property
    def is_pending(self) -> bool:
        return self.state in PENDING_STATES

    @property
    def is_ended(self) -> bool:
        return self.state in END_STATES

    @property
    def has_history(self) -> bool:
        """True with a condition on creation or change, which no index serves."""
        return self.created_from is not None or self.created_to is not None or self.changed_from is not None

    @property
    def is_short(self) -> bool:
        """True for a list that is short, because the carrier or an operator ends each of its attempts."""
        return self.cause_lost or self.state in {ListState.IN_PROGRESS, ListState.UNKNOWN}

    @property
    def order(self) -> ListOrder:
        if self.is_pending:
            return ListOrder.DUE_TIME
        if self.is_short:
            return ListOrder.NEWEST
        if self.company_id is not None:
            has_range = self.due_from is not None or self.due_to is not None
            return ListOrder.DUE_TIME if self.is_ended and has_range else ListOrder.INTERVIEW
        return ListOrder.NEWEST if self.state is None else ListOrder.END


@dataclass(frozen=True, kw_only=True)
class ListedAttempt:
    """A row of a list, without personal data."""

    id: UUID
    interview_id: UUID
    company_id: UUID
    company_name: str
    state: AttemptState
    phase: Phase | None
    reason: Reason | None
    cause_is_lost: bool
    decision: Decision | None
    retry_number: int
    manual: bool
    due_at: datetime
    created_at: datetime
    ended_at: datetime | None
    deleted_at: datetime | None
    schedule: Schedule
    command_waits: bool
    """A command for its interview was accepted and not applied yet."""
    rule: str | None
    """The first rule that holds a due attempt, or PACE. None without such a rule, and for all other attempts."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place in a list, after which the next page begins."""

    attempt_id: UUID
    at: datetime | None = None
    """The due time in a list of pending attempts, the creation of the interview in the list of one company."""
    interview_id: UUID | None = None
    event_id: int | None = None
    """The event that ended the attempt, in a list by ends."""


@dataclass(frozen=True, kw_only=True)
class FoundAttempt:
    """An attempt that meets a filter."""

    id: UUID
    company_id: UUID
    due_at: datetime
    rule: str | None = None


@dataclass(frozen=True, kw_only=True)
class FoundPart:
    """One part of a list."""

    attempts: Sequence[FoundAttempt]
    next: Place | None
    """None: nothing follows."""
    is_cut: bool = False
    """The search ended before the part was full, because it had looked at as many rows as one part may."""
