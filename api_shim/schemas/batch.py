"""Request and response schemas for batches."""

import json
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field

from api_shim.schemas.create_interview import EXAMPLES
from api_shim.schemas.envelope import Answer, CursorPage, ErrorView
from scheduler.domain.batch import Batch, BatchItem, BatchState, ItemPage, ItemState
from scheduler.wire.batches import MOST_ITEMS, MOST_LINES
from scheduler.wire.camel_model import Wire


class BatchCounts(Wire):
    """Items by their status."""

    waiting: int
    applied: int
    refused: int
    cancelled: int


class BatchView(Wire):
    id: UUID
    company_id: UUID
    name: str | None
    status: BatchState = Field(
        description="ACCEPTED: stored. RUNNING: interviews are being created. PAUSED: no further ones are created."
        " COMPLETED: no item is waiting. CANCELLED: waiting items and pending calls were cancelled."
    )
    total: int
    counts: BatchCounts
    first_due_at: datetime | None = Field(
        description="The earliest due time of the calls that were created, as of their creation."
    )
    expected_done_at: datetime | None = Field(
        description="The time at which the last item will have been applied, at the pace so far. Null while that is"
        " unknown, and for a batch that is not RUNNING. It says nothing about when the calls start."
    )
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = Field(
        description="Null while an item is waiting, or while pending calls of a cancelled batch are being cancelled."
    )

    @classmethod
    def of(cls, batch: Batch, now: datetime | None = None) -> Self:
        return cls.view_of(
            batch,
            status=batch.state,
            counts=BatchCounts.view_of(batch),
            expected_done_at=None if now is None else batch.expected_done_at(now),
        )


class BatchAnswer(Answer[BatchView]):
    """A batch."""


class BatchPage(CursorPage[BatchView]):
    """Batches, newest first."""


class BatchesAnswer(Answer[BatchPage]):
    """A page of batches."""


class ItemView(Wire):
    index: int = Field(description="From 0. In NDJSON, the number of the line less one.")
    status: ItemState
    external_id: str | None = Field(
        description="The `externalId` of the item. For an applied item, the present one of its interview."
    )
    error: ErrorView | None = Field(description="The error that `POST /interviews` returns for this item.")
    interview_id: UUID | None
    existed: bool = Field(
        description="True if an earlier request with the same `externalId` and the same content had created the"
        " interview."
    )

    @classmethod
    def of(cls, item: BatchItem) -> Self:
        return cls.view_of(item, status=item.state, error=None if item.error is None else ErrorView.of(item.error))


class ItemPagination(Wire):
    limit: int
    has_next_page: bool
    next_cursor: str | None = Field(description="Send it as `cursor`, with the same `state`, to get the next page.")


class ItemPageView(Wire):
    """Items in their order."""

    items: list[ItemView]
    pagination: ItemPagination

    @classmethod
    def of(cls, page: ItemPage) -> Self:
        pagination = ItemPagination(
            limit=page.limit,
            has_next_page=page.after is not None,
            next_cursor=None if page.after is None else str(page.after),
        )
        return cls(items=[ItemView.of(each) for each in page.items], pagination=pagination)


class ItemsAnswer(Answer[ItemPageView]):
    """A page of items of a batch."""


_EXAMPLE = EXAMPLES["at a time"]["value"]
_BODY: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["items"],
    "properties": {
        "name": {"type": ["string", "null"], "minLength": 1, "maxLength": 100, "pattern": r"^[ -~]*[!-~][ -~]*$"},
        "dryRun": {"type": "boolean", "default": False, "description": "Only check the items, and store nothing."},
        "items": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_ITEMS,
            "description": "Bodies of `POST /interviews`. One that is invalid is refused alone.",
            "items": {"$ref": "#/components/schemas/InterviewRequest"},
        },
    },
}
_JSON: dict[str, Example] = {
    "two people": {"summary": "A batch of two interviews", "value": {"name": "Spring", "items": [_EXAMPLE, _EXAMPLE]}}
}
_NDJSON: dict[str, Example] = {
    "two lines": {"summary": "A batch of two interviews", "value": f"{json.dumps(_EXAMPLE)}\n" * 2}
}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": _BODY, "examples": _JSON},
        "application/x-ndjson": {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": f"One body of `POST /interviews` a line, up to {MOST_LINES:,} lines.",
            },
            "examples": _NDJSON,
        },
    },
}
"""Described by hand, because the framework must not read this body: it is parsed in a thread."""
