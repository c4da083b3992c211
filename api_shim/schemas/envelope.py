"""The one shape of every JSON answer."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

T = TypeVar("T")


class Wire(BaseModel):
    """camelCase on the wire, snake_case inside."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )


class ErrorView(Wire):
    code: str = Field(examples=["VALIDATION_ERROR"])
    message: str
    details: dict[str, Any] | None = None


TraceId = Annotated[
    str,
    Field(
        description="Names this request in our logs; also in the header X-Trace-Id.",
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
    """It was done."""


class ErrorAnswer(Wire):
    success: Literal[False] = False
    data: None = None
    error: ErrorView
    timestamp: datetime
    trace_id: TraceId


class Pagination(Wire):
    page: int
    limit: int
    total: int
    total_pages: int
    has_next_page: bool
    has_previous_page: bool


class Page(Wire, Generic[T]):
    """Newest first."""

    items: list[T]
    pagination: Pagination
