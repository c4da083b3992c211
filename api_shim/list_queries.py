"""Query parameters of lists: filters, order and pages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal, get_args

from fastapi import Depends, Query, Request
from pydantic import StringConstraints

from api_shim.openapi import IfSent
from api_shim.request_input import PageQuery
from api_shim.schemas.envelope import LONGEST, WrongCursor, cursor_in, list_name, place_in, sort_in, sort_text
from scheduler.domain.resource import NEWEST_FIRST, Cursor, KeysetSlice, Slice, Sort, SortField, Span, Spans
from scheduler.domain.webhook import EventType
from scheduler.wire.field_types import Instant
from scheduler.wire.named_fields import FieldError, invalid_fields, refuse_any

OLDEST_CHANGE_FIRST = Sort(by=SortField.UPDATED_AT, descending=False)
EARLIEST_FIRST = Sort(by=SortField.SCHEDULED_AT, descending=False)
LATEST_FIRST = Sort(by=SortField.SCHEDULED_AT, descending=True)

RecordSort = Literal["createdAt:asc", "createdAt:desc", "updatedAt:asc", "updatedAt:desc"]
InterviewSort = Literal[
    "createdAt:asc", "createdAt:desc", "updatedAt:asc", "updatedAt:desc", "scheduledAt:asc", "scheduledAt:desc"
]
AttemptSort = Literal["scheduledAt:asc", "scheduledAt:desc"]
LISTS_BY_CURSOR = (
    "Newest first, unless `sort` or a filter says otherwise. Lists without a filter by time, `sort` or several statuses"
    " have numbered pages and a total. All others are read by `cursor`."
)

CursorText = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]


@dataclass(frozen=True, kw_only=True)
class ListQuery:
    """The requested part of a list: the parameters that lists of all resources have."""

    part: Slice
    cursor: str | None
    sort: str | None
    spans: Spans
    sorts: Sequence[str]
    """The orders that the list has."""
    parameters: Sequence[tuple[str, str]] = field(repr=False)
    """All query parameters as they were sent."""

    def name_of(self, name: str) -> str:
        """Build the name of the list in its cursors, with its filters."""
        return list_name(name, self.parameters)

    def keyset(self, name: str, default: Sort = NEWEST_FIRST, *, by_change: bool = True) -> KeysetSlice:
        """Choose the rows to read from the list with this name. Raises InvalidFields.

        `by_change`: the list can be sorted by its last changes, and is if they are a filter.
        """
        refuse_any(self._wrong_spans())
        asked = None if self.sort is None else sort_in(self.sort)
        after = self._cursor(name, asked)
        return KeysetSlice(
            limit=self.part.limit,
            sort=after.sort if after is not None else asked or self._usual(default, by_change=by_change),
            after=after,
            spans=self.spans,
        )

    def slice_or_keyset(self, name: str, *, has_one_status: bool) -> Slice | KeysetSlice:
        """Choose the numbered page of a list without further filters, otherwise as `keyset`. Raises InvalidFields."""
        if has_one_status and self.cursor is None and self.sort is None and not self.spans:
            return self.part
        return self.keyset(name)

    def _usual(self, default: Sort, *, by_change: bool) -> Sort:
        if by_change and self.spans.updated:
            return OLDEST_CHANGE_FIRST
        return EARLIEST_FIRST if self.spans.scheduled else default

    def _cursor(self, name: str, asked: Sort | None) -> Cursor | None:
        if self.part.page > 1:
            message = "A list with these parameters has no numbered pages. Send the `nextCursor` of the page before."
            refuse_any([FieldError(field="page", code="CURSOR_REQUIRED", message=message)])
        if self.cursor is None:
            return None
        try:
            cursor = cursor_in(self.name_of(name), self.cursor)
        except WrongCursor:
            cursor = None
        # A client can encode any cursor.
        if cursor is None or asked not in (None, cursor.sort) or sort_text(cursor.sort) not in self.sorts:
            message = "Send a `nextCursor` of this list unchanged, with the same filters and the same sort."
            refuse_any([FieldError(field="cursor", code="INVALID_CURSOR", message=message)])
        return cursor

    def _wrong_spans(self) -> Iterator[FieldError]:
        for span, start, end in (
            (self.spans.created, "createdFrom", "createdTo"),
            (self.spans.scheduled, "scheduledFrom", "scheduledTo"),
        ):
            if span.since is not None and span.until is not None and span.until <= span.since:
                message = f"{end} must be later than {start}; it is the first instant after the range."
                yield FieldError(field=end, code="INVALID_RANGE", message=message)


def place_of(name: str, cursor: str | None) -> int | None:
    """Read the place in a cursor of the list with this name. Raises InvalidFields."""
    if cursor is None:
        return None
    try:
        return place_in(name, cursor)
    except WrongCursor:
        message = "Send a `nextCursor` of this list unchanged, with the same filters."
        raise invalid_fields([FieldError(field="cursor", code="INVALID_CURSOR", message=message)]) from None


async def _parameters(request: Request) -> Sequence[tuple[str, str]]:
    return request.query_params.multi_items()


async def _history(
    created_from: Annotated[
        IfSent[Instant], Query(alias="createdFrom", description="Only items created at this time or later.")
    ] = None,
    created_to: Annotated[
        IfSent[Instant], Query(alias="createdTo", description="Only items created before this time.")
    ] = None,
    updated_since: Annotated[
        IfSent[Instant],
        Query(
            alias="updatedSince",
            description="Only items whose `updatedAt` is this time or later. A change becomes visible up to a minute"
            " after its `updatedAt`: to follow changes, ask again from a minute before the newest one that you have.",
        ),
    ] = None,
) -> Spans:
    return Spans(created=Span(since=created_from, until=created_to), updated=Span(since=updated_since))


async def _scheduled(
    scheduled_from: Annotated[
        IfSent[Instant],
        Query(alias="scheduledFrom", description="Only items whose `scheduledAt` is this time or later."),
    ] = None,
    scheduled_to: Annotated[
        IfSent[Instant], Query(alias="scheduledTo", description="Only items whose `scheduledAt` is before this time.")
    ] = None,
) -> Span:
    return Span(since=scheduled_from, until=scheduled_to)


PlaceQuery = Annotated[
    IfSent[CursorText], Query(description="The `nextCursor` of the page before, with the same filters.")
]
_Cursor = Annotated[
    IfSent[CursorText],
    Query(description="The `nextCursor` of the page before. Rows that are added meanwhile move no other row."),
]
_Parameters = Annotated[Sequence[tuple[str, str]], Depends(_parameters)]
_History = Annotated[Spans, Depends(_history)]
_Scheduled = Annotated[Span, Depends(_scheduled)]


async def _record_list(
    part: PageQuery,
    parameters: _Parameters,
    spans: _History,
    cursor: _Cursor = None,
    sort: Annotated[
        IfSent[RecordSort],
        Query(
            description="Order of the list. Default: `updatedAt:asc` with `updatedSince`, otherwise `createdAt:desc`."
        ),
    ] = None,
) -> ListQuery:
    return ListQuery(
        part=part, cursor=cursor, sort=sort, spans=spans, sorts=get_args(RecordSort), parameters=parameters
    )


async def _interview_list(
    part: PageQuery,
    parameters: _Parameters,
    spans: _History,
    scheduled: _Scheduled,
    cursor: _Cursor = None,
    sort: Annotated[
        IfSent[InterviewSort],
        Query(
            description="Order of the list. Default: `updatedAt:asc` with `updatedSince`, `scheduledAt:asc` with"
            " `scheduledFrom` or `scheduledTo`, otherwise `createdAt:desc`."
        ),
    ] = None,
) -> ListQuery:
    spans = Spans(created=spans.created, updated=spans.updated, scheduled=scheduled)
    return ListQuery(
        part=part, cursor=cursor, sort=sort, spans=spans, sorts=get_args(InterviewSort), parameters=parameters
    )


async def _attempt_list(
    parameters: _Parameters,
    spans: _History,
    scheduled: _Scheduled,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: _Cursor = None,
    sort: Annotated[
        IfSent[AttemptSort],
        Query(
            description="Order of the list. Default: `scheduledAt:asc` with `scheduledFrom` or `scheduledTo`, otherwise"
            " `scheduledAt:desc`."
        ),
    ] = None,
) -> ListQuery:
    spans = Spans(created=spans.created, updated=spans.updated, scheduled=scheduled)
    return ListQuery(
        part=Slice(page=1, limit=limit),
        cursor=cursor,
        sort=sort,
        spans=spans,
        sorts=get_args(AttemptSort),
        parameters=parameters,
    )


async def _batch_list(
    parameters: _Parameters, limit: Annotated[int, Query(ge=1, le=100)] = 20, cursor: _Cursor = None
) -> ListQuery:
    part, newest_first = Slice(page=1, limit=limit), sort_text(NEWEST_FIRST)
    return ListQuery(part=part, cursor=cursor, sort=None, spans=Spans(), sorts=(newest_first,), parameters=parameters)


BatchList = Annotated[ListQuery, Depends(_batch_list)]
RecordList = Annotated[ListQuery, Depends(_record_list)]
InterviewList = Annotated[ListQuery, Depends(_interview_list)]
AttemptList = Annotated[ListQuery, Depends(_attempt_list)]


# --- Query parameters of lists of events and of their deliveries


async def _types(
    types: Annotated[
        IfSent[str], Query(description="Only these types, separated by commas.", examples=["interview.completed"])
    ] = None,
) -> frozenset[EventType] | None:
    if types is None:
        return None
    names = {name.strip() for name in types.split(",")}
    if not names <= {each.value for each in EventType}:
        message = f"A type does not exist. Separate types by commas. They are {', '.join(EventType)}."
        raise invalid_fields([FieldError(field="types", code="INVALID_VALUE", message=message)])
    return frozenset(EventType(name) for name in names)


async def _period(
    since: Annotated[
        IfSent[Instant], Query(alias="from", description="Only events from this time on, with Z or an offset.")
    ] = None,
    until: Annotated[
        IfSent[Instant], Query(alias="to", description="Only events before this time, with Z or an offset.")
    ] = None,
) -> tuple[datetime | None, datetime | None]:
    if since is not None and until is not None and until <= since:
        message = "to must be later than from; it is the first instant after the range."
        raise invalid_fields([FieldError(field="to", code="INVALID_RANGE", message=message)])
    return since, until


EventTypes = Annotated[frozenset[EventType] | None, Depends(_types)]
EventPeriod = Annotated[tuple[datetime | None, datetime | None], Depends(_period)]
"""Both ends."""
