"""Resources of clients: the client's own ids of them, their changes, and pages of their lists."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID

from scheduler.domain.batch import Batch
from scheduler.domain.company import Company
from scheduler.domain.delivery_history import Replay
from scheduler.domain.interview import Agent, Candidate, Job
from scheduler.domain.webhook import EndpointTest, WebhookEndpoint

# --- An external id: the client's own id of a resource, unique among the company's resources of that kind


LONGEST_EXTERNAL_ID = 255
"""Characters."""


class ExternalKind(StrEnum):
    """A kind of resource that may have an external id."""

    CANDIDATE = "candidate"
    JOB = "job"
    INTERVIEW = "interview"


@dataclass(frozen=True, kw_only=True)
class ExternalId:
    kind: ExternalKind
    company_id: UUID
    text: str = field(repr=False)
    """The client's text, which may be personal data."""


@dataclass(frozen=True, kw_only=True)
class Identified:
    """The resource that has an external id."""

    id: UUID
    content_hash: bytes | None = field(default=None, repr=False)
    """Hash of the request that created it. None: it was created without an external id, or its person was erased."""


# --- A record: a resource that a request writes directly, without a worker


Resource = Company | Job | Candidate | Agent | WebhookEndpoint | EndpointTest | Replay | Batch

Changes = Mapping[str, Any]
"""New values by the field names of the record. Omitted fields keep their value."""


# --- Pages of a list: by number, stable while nothing is added, or by cursor, stable while rows are added too


T = TypeVar("T")
U = TypeVar("U")

COUNTED_UP_TO = 10_000
"""Longest list whose items are all counted. Counting a million rows takes longer than reading a page of them."""


class SortField(StrEnum):
    """The instant by which a list is sorted."""

    CREATED_AT = "createdAt"
    UPDATED_AT = "updatedAt"
    SCHEDULED_AT = "scheduledAt"


@dataclass(frozen=True, kw_only=True)
class Sort:
    """The order of a list. Rows of one instant are sorted by their ids, in the same direction."""

    by: SortField
    descending: bool


NEWEST_FIRST = Sort(by=SortField.CREATED_AT, descending=True)


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The place in a list after which a page begins: that of a row, which may have been deleted since."""

    sort: Sort
    at: datetime
    id: UUID


@dataclass(frozen=True, kw_only=True)
class Span:
    """Instants from `since` until before `until`. None: without such a bound."""

    since: datetime | None = None
    until: datetime | None = None

    def __bool__(self) -> bool:
        return self.since is not None or self.until is not None


@dataclass(frozen=True, kw_only=True)
class Spans:
    """The spans in which the instants of each row of a list lie."""

    created: Span = field(default_factory=Span)
    updated: Span = field(default_factory=Span)
    scheduled: Span = field(default_factory=Span)

    def of(self, by: SortField) -> Span:
        return {
            SortField.CREATED_AT: self.created,
            SortField.UPDATED_AT: self.updated,
            SortField.SCHEDULED_AT: self.scheduled,
        }[by]

    def __bool__(self) -> bool:
        return bool(self.created or self.updated or self.scheduled)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The requested page, counted from 1, and the page size."""

    page: int
    limit: int

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.limit


@dataclass(frozen=True, kw_only=True)
class KeysetSlice:
    """The requested rows of a list that is not counted: those after a cursor, or the first ones."""

    limit: int
    sort: Sort
    after: Cursor | None = None
    spans: Spans = field(default_factory=Spans)


@dataclass(frozen=True, kw_only=True)
class Listed(Generic[T]):
    """One page, with the total number of items."""

    items: tuple[T, ...]
    total: int
    """Exact up to COUNTED_UP_TO, and on the last page. Otherwise an estimate: the number of items that certainly exist.

    An estimate covers this page, and one item after it if another page follows.
    """
    total_is_estimate: bool = False
    asked: Slice
    next: Cursor | None = None
    """The end of this page in the same list by cursor. None: nothing follows."""

    def map(self, change: Callable[[T], U]) -> "Listed[U]":
        """Build the same page of other items."""
        return Listed(
            items=tuple(change(each) for each in self.items),
            total=self.total,
            total_is_estimate=self.total_is_estimate,
            asked=self.asked,
            next=self.next,
        )


@dataclass(frozen=True, kw_only=True)
class KeysetPage(Generic[T]):
    """Rows of a list that is not counted."""

    items: tuple[T, ...]
    """May be fewer than requested, or none, although others follow: the search looks at a limited number of rows."""
    next: Cursor | None
    """None: nothing follows."""
    asked: KeysetSlice

    def map(self, change: Callable[[T], U]) -> "KeysetPage[U]":
        """Build the same page with other items."""
        return KeysetPage(items=tuple(change(each) for each in self.items), next=self.next, asked=self.asked)
