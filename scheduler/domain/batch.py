"""A batch of requests for interviews, and the dry run of one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from scheduler.domain.command import Refusal
from scheduler.domain.explanation import Rule
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
        """Estimate when the last item will be applied, at the pace so far. None: unknown, or it is not applied."""
        done = self.applied + self.refused
        if self.state is not BatchState.RUNNING or self.started_at is None or self.updated_at <= self.started_at:
            return None
        pace = done / (self.updated_at - self.started_at).total_seconds()
        return now + timedelta(seconds=self.waiting / pace) if pace else None


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


# --- Dry run: how requests for interviews would be answered, and when their calls would start
# Nothing is created.


@dataclass(frozen=True, kw_only=True)
class RefusedItems:
    """Items that would be refused with the same code about the same field, in messages that differ in numbers only."""

    code: str
    field: str | None
    message: str
    """That of the first of them, without position and details. It quotes no personal data."""
    count: int
    first: tuple[int, ...]
    """The places of the first of them among all items, from 0."""


@dataclass(frozen=True, kw_only=True)
class DueHour:
    """Calls that would become due within one hour, on the same clock."""

    begins: datetime
    """Aware UTC, a whole hour."""
    zones: tuple[str, ...]
    offset: timedelta | None
    """In place of zones, if a request named an offset."""
    calls: int


@dataclass(frozen=True, kw_only=True)
class DryRun:
    total: int
    accepted: int
    """Items that would create an interview."""
    existing: int
    """Items whose external id and content an interview has already. They would create nothing."""
    calls: int
    """Accepted items with a call: those of phone agents that are no tests."""
    refused: tuple[RefusedItems, ...]
    """Most frequent first."""
    repeated_numbers: int
    """Calls to a number that an earlier item calls too. They start one after the other."""
    numbers_with_calls: int
    """Calls to a number with a call of the company that is pending or in progress now."""
    due: tuple[DueHour, ...]
    """In the order of time."""
    first_due_at: datetime | None
    last_due_at: datetime | None
    last_start_at: datetime | None
    """The start of the last call at the present paces, after the calls that wait already. Without retries.

    None without a call that starts, while `waits_for` prevents all calls, and before the first worker has started.
    """
    expired: int
    """Calls that would expire before their turn."""
    waits_for: Rule | None
    """The pause or outage that prevents all calls now. Its end is unknown."""
    call_lasts: timedelta | None
    """The mean duration of calls. None if too few have ended: then `last_start_at` follows only from the paces."""
