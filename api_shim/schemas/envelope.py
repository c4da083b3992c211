"""Envelope of every JSON response."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import Field

from scheduler.domain.command import Refusal
from scheduler.domain.pagination import COUNTED_UP_TO, Listed
from scheduler.wire.camel_model import Wire

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


class DoneAnswer(Answer[Literal[True]]):
    """The request was carried out."""


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


class Page(Wire, Generic[T]):
    """Newest first."""

    items: list[T]
    pagination: Pagination

    @classmethod
    def of(cls, listed: Listed[V], view: Callable[[V], T]) -> Self:
        part, total = listed.asked, listed.total
        total_pages = -(-total // part.limit)
        return cls(
            items=[view(each) for each in listed.items],
            pagination=Pagination.view_of(
                part,
                total=total,
                total_is_estimate=listed.total_is_estimate,
                total_pages=total_pages,
                has_next_page=part.page < total_pages,
                has_previous_page=part.page > 1,
            ),
        )
