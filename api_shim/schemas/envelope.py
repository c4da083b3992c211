"""Envelope of every JSON response, its pages and their cursors, and the responses for accepted commands."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar
from uuid import UUID

from pydantic import Field, create_model

from scheduler.domain.command import CommandKind, CommandState, Refusal
from scheduler.domain.resource import COUNTED_UP_TO, Cursor, KeysetPage, Listed, Sort, SortField
from scheduler.hashing import fingerprint
from scheduler.wire.field_types import Wire

# --- Cursors of lists as opaque texts. A cursor holds an instant and an id, and grants no access to rows


_NO_FILTERS = frozenset({"cursor", "limit", "page", "sort"})
"""Parameters that may change from page to page. The cursor itself contains the order."""
_DIRECTIONS = {"asc": False, "desc": True}
LONGEST = 300
_PLACES = 2**63


class WrongCursor(Exception):
    """The text is no cursor of this list."""


def list_name(name: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Build the name of a list with these query parameters, which its cursors contain.

    A cursor that is sent with other filters would return a mixture of two lists.
    """
    filters = sorted(each for each in parameters if each[0] not in _NO_FILTERS)
    if not filters:
        return name
    texts = [text.encode() for each in filters for text in each]
    return f"{name}.{fingerprint(*texts).hex()[:16]}"


def sort_text(sort: Sort) -> str:
    """Write the order in the form of the parameter `sort`."""
    return f"{sort.by.value}:{'desc' if sort.descending else 'asc'}"


def sort_in(text: str) -> Sort:
    """Read the parameter `sort`. Raises ValueError."""
    by, _, direction = text.partition(":")
    if direction not in _DIRECTIONS:
        raise ValueError(text)
    return Sort(by=SortField(by), descending=_DIRECTIONS[direction])


def cursor_text(name: str, cursor: Cursor) -> str:
    """Build the cursor of the list with this name, in the form that `cursor_in` reads."""
    text = f"{name} {sort_text(cursor.sort)} {cursor.at.astimezone(UTC).isoformat()} {cursor.id}"
    return urlsafe_b64encode(text.encode("ascii")).decode("ascii").rstrip("=")


def cursor_in(name: str, text: str) -> Cursor:
    """Read a cursor of the list with this name. Raises WrongCursor."""
    try:
        content = urlsafe_b64decode((text + "=" * (-len(text) % 4)).encode("ascii")).decode("ascii")
        found, sort, at, row_id = content.split(" ")
        cursor = Cursor(sort=sort_in(sort), at=datetime.fromisoformat(at), id=UUID(row_id))
        # Only texts of `cursor_text`: an instant without an offset, for example, has no meaning to PostgreSQL.
        is_ours = found == name and cursor_text(name, cursor) == text
    except (ValueError, OverflowError):
        is_ours = False
    if not is_ours:
        raise WrongCursor
    return cursor


def place_text(name: str, place: int) -> str:
    """Build the cursor of the list with this name, whose rows have places, in the form that `place_in` reads."""
    return urlsafe_b64encode(f"{name} {place}".encode("ascii")).decode("ascii").rstrip("=")


def place_in(name: str, text: str) -> int:
    """Read a cursor of the list with this name. Raises WrongCursor."""
    try:
        content = urlsafe_b64decode((text + "=" * (-len(text) % 4)).encode("ascii")).decode("ascii")
        found, digits = content.split(" ")
        place = int(digits)
        # Only texts of `place_text` with a place that PostgreSQL can store.
        is_ours = found == name and place_text(name, place) == text and 0 <= place < _PLACES
    except ValueError:
        is_ours = False
    if not is_ours:
        raise WrongCursor
    return place


# --- Envelope of every JSON response, and the responses for accepted commands


T = TypeVar("T")
V = TypeVar("V")


class ErrorView(Wire):
    code: str = Field(examples=["VALIDATION_ERROR"])
    message: str
    details: dict[str, Any] | None = None

    @classmethod
    def of(cls, refusal: Refusal) -> Self:
        return cls.view_of(refusal, details=refusal.details or None)


TraceId = Annotated[
    str,
    Field(
        description="Identifies this request in the server's logs. Also in the header `X-Trace-Id`.",
        examples=["8d1f0c7e5b7a4e0c9a52d3c1f6b0a4e7"],
    ),
]


class Answer(Wire, Generic[T]):
    success: Literal[True] = True
    data: T
    error: None = None
    timestamp: datetime
    trace_id: TraceId


def answer(name: str, data: Any, description: str) -> type[Answer[Any]]:  # noqa: ANN401 - a type
    """Declare the response with this data, by the name and the description that the document shows."""
    declared: type[Answer[Any]] = create_model(name, __base__=_of(Answer, data), __doc__=description)
    return declared


def page(name: str, kind: type[Wire], items: type[Wire], description: str) -> type[Wire]:
    """Declare a page of these items, by the name and the description that the document shows."""
    declared: type[Wire] = create_model(name, __base__=_of(kind, items), __doc__=description)
    return declared


def _of(generic: type[Wire], parameter: Any) -> Any:  # noqa: ANN401 - types
    return generic[parameter]  # type: ignore[index]


DoneAnswer = answer("DoneAnswer", Literal[True], "The request was carried out.")


class ErrorAnswer(Wire):
    success: Literal[False] = False
    data: None = None
    error: ErrorView
    timestamp: datetime
    trace_id: TraceId


class Pagination(Wire):
    page: int
    limit: int
    total: int = Field(description="Number of items. Exact unless `totalIsEstimate`.")
    total_is_estimate: bool = Field(
        description=f"True for more than {COUNTED_UP_TO:,} items, except on the last page. There are then at least"
        " `total` items, and later pages may show a larger `total`. `hasNextPage` is always exact."
    )
    total_pages: int
    has_next_page: bool
    has_previous_page: bool

    @classmethod
    def of(cls, listed: Listed[Any]) -> Self:
        part, total = listed.asked, listed.total
        total_pages = -(-total // part.limit)
        return cls.view_of(
            part,
            total=total,
            total_is_estimate=listed.total_is_estimate,
            total_pages=total_pages,
            has_next_page=part.page < total_pages,
            has_previous_page=part.page > 1,
        )


class Page(Wire, Generic[T]):
    """Newest first."""

    items: list[T]
    pagination: Pagination

    @classmethod
    def of(cls, listed: Listed[V], view: Callable[[V], T]) -> Self:
        return cls(items=[view(each) for each in listed.items], pagination=Pagination.of(listed))


class CursorPagination(Wire):
    page: int | None = Field(description="Null for a list that is read by cursors.")
    limit: int
    total: int | None = Field(
        description="Number of items. Exact unless `totalIsEstimate`. Null for a list that is read by cursors."
    )
    total_is_estimate: bool = Field(
        description=f"True for more than {COUNTED_UP_TO:,} items, except on the last page. There are then at least"
        " `total` items, and later pages may show a larger `total`."
    )
    total_pages: int | None = Field(description="Null for a list that is read by cursors.")
    has_next_page: bool = Field(
        description="True if `nextCursor` is not null, or if a page with the next number exists."
    )
    has_previous_page: bool
    next_cursor: str | None = Field(
        description="Send it as `cursor`, with the same filters, to get the next page. Null: nothing follows. A page"
        " can have fewer than `limit` items, or none, although others follow, because a filter looks at a limited"
        " number of rows for each page."
    )

    @classmethod
    def uncounted(cls, limit: int, end: str | None, *, is_first: bool) -> Self:
        """Show a page of a list that is read by cursors. `end`: the cursor of the next one."""
        return cls(
            page=None,
            limit=limit,
            total=None,
            total_is_estimate=False,
            total_pages=None,
            has_next_page=end is not None,
            has_previous_page=not is_first,
            next_cursor=end,
        )


class CursorPage(Wire, Generic[T]):
    """Items in the requested order."""

    items: list[T]
    pagination: CursorPagination

    @classmethod
    def of(cls, name: str, listed: Listed[V] | KeysetPage[V], view: Callable[[V], T]) -> Self:
        """Show a list by the name that its cursors contain."""
        end = None if listed.next is None else cursor_text(name, listed.next)
        items = [view(each) for each in listed.items]
        if isinstance(listed, Listed):
            counted = Pagination.of(listed)
            return cls(items=items, pagination=CursorPagination.view_of(counted, next_cursor=end))
        is_first = listed.asked.after is None
        return cls(items=items, pagination=CursorPagination.uncounted(listed.asked.limit, end, is_first=is_first))


# --- Response schemas for accepted commands


class WaitingView(Wire):
    """A command that was accepted and stored, and is not applied yet."""

    id: UUID
    status: CommandState


WaitingAnswer = answer(
    "WaitingAnswer", WaitingView, "The command was accepted. Poll the URL in the `Location` header for its result."
)


class WrittenView(Wire):
    """A resource that the API wrote itself. Its own URL has its current state."""

    id: UUID
    company_id: UUID | None = Field(description="Company of the resource. Null for a company itself.")


class CommandView(Wire):
    id: UUID
    kind: CommandKind
    status: CommandState
    received_at: datetime
    applied_at: datetime | None
    status_code: int | None = Field(description="HTTP status that was returned for the command, or would have been.")
    result: dict[str, Any] | bool | None = Field(
        description="The `data` or the `error` of that response, or null if it has no body. For a company, job,"
        " candidate, agent or webhook that was created or changed, only its `id` and `companyId`. Its own URL has its"
        " state."
    )


CommandAnswer = answer("CommandAnswer", CommandView, "A command.")
