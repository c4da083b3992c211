"""A batch: many requests for interviews, stored together and applied one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from scheduler.domain.command import Refusal
from scheduler.domain.interview import InterviewStatus

ITEMS_A_TRANSACTION = 100
"""Items that are applied together."""
MOST_FAILURES = 5
"""An item that has failed this often for an unknown reason is refused."""


class BatchState(StrEnum):
    ACCEPTED = "ACCEPTED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    """No further interviews are created. Calls of those that exist go on."""
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


class ItemState(StrEnum):
    WAITING = "WAITING"
    APPLIED = "APPLIED"
    """Its interview exists."""
    REFUSED = "REFUSED"
    CANCELLED = "CANCELLED"
    """The batch was cancelled before the item was applied."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch without its items."""

    id: UUID
    company_id: UUID
    principal_id: UUID
    key_id: UUID
    """The key that sent it, which the history of its interviews names."""
    name: str | None = field(default=None, repr=False)
    state: BatchState
    total: int
    applied: int = 0
    existing: int = 0
    """Applied items whose interview an earlier request had created."""
    refused: int = 0
    cancelled: int = 0
    in_progress: int | None = None
    """Calls of its interviews that are in progress, as of the read. Never stored. None: they were not counted."""
    first_due_at: datetime | None = None
    """The earliest due time of its interviews, as of their creation."""
    started_at: datetime | None = None
    """The time at which the first item was applied."""
    created_at: datetime
    """The time of receipt. Requested times are judged as of this instant."""
    updated_at: datetime
    finished_at: datetime | None = None
    """The time from which nothing more happens to its items. None while a worker cancels calls of a cancelled batch."""

    @property
    def waiting(self) -> int:
        return self.total - self.applied - self.refused - self.cancelled

    def expected_done_at(self, now: datetime) -> datetime | None:
        """Return when the last item will have been applied, at the pace so far. None: unknown, or it is not applied."""
        done = self.applied + self.refused
        if self.state is not BatchState.RUNNING or self.started_at is None or self.updated_at <= self.started_at:
            return None
        pace = done / (self.updated_at - self.started_at).total_seconds()
        return now + timedelta(seconds=self.waiting / pace) if pace else None


@dataclass(frozen=True, kw_only=True)
class OperatedBatch:
    """A batch as operators see it: without its name, which is a client's text."""

    batch: Batch
    company_name: str | None = field(repr=False)
    company_deleted: bool


@dataclass(frozen=True, kw_only=True)
class BatchFilter:
    """A filter for batches. A field that is None does not filter."""

    id: UUID | None = None
    company_id: UUID | None = None
    state: BatchState | None = None


@dataclass(frozen=True, kw_only=True)
class WaitingBatches:
    """Batches of all companies that are neither finished nor paused."""

    count: int
    items: int
    oldest_at: datetime | None
    still_since: datetime | None
    """The last progress of the company that has made none for longest. Its batches are applied one after the other."""


@dataclass(frozen=True, kw_only=True)
class BatchItem:
    """An item as clients see it: without its body, which is deleted as soon as it is applied, refused or cancelled."""

    index: int
    state: ItemState
    external_id: str | None = field(default=None, repr=False)
    error: Refusal | None = None
    interview_id: UUID | None = None
    interview_status: InterviewStatus | None = None
    """That of now. None for a deleted interview."""
    existed: bool = False
    """True if an earlier request had created the interview with this external id."""


@dataclass(frozen=True, kw_only=True)
class WaitingItem:
    """An item that is being applied."""

    index: int
    body: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ItemPage:
    """Items in the order of the batch, and the index to continue after. None: nothing follows."""

    items: tuple[BatchItem, ...]
    limit: int
    after: int | None
