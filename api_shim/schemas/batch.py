"""Request and response schemas for batches."""

import json
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field

from api_shim.cursors import place_text
from api_shim.schemas.create_interview import EXAMPLES
from api_shim.schemas.envelope import Answer, CursorPage, ErrorView
from scheduler.domain.batch import Batch, BatchItem, BatchState, ItemPage, ItemState
from scheduler.domain.interview import InterviewStatus
from scheduler.wire.batches import MOST_ITEMS, MOST_LINES
from scheduler.wire.camel_model import Wire


class BatchCounts(Wire):
    """Items by their status. Their sum, without `existing` and `inProgress`, is `total`."""

    waiting: int = Field(description="Stored, and not applied yet.")
    applied: int = Field(description="With an interview, those of `existing` included.")
    existing: int = Field(
        description="Applied items whose `externalId` and content an interview had already. They created nothing."
    )
    refused: int = Field(description="With an error.")
    cancelled: int = Field(description="Cancelled with the batch before they were applied.")
    in_progress: int | None = Field(
        description="Calls in progress of the interviews that the batch has created. After a cancellation these run to"
        " their end. Counted by `GET /batches/{id}` and by its `DELETE`, null elsewhere.",
    )


class BatchView(Wire):
    id: UUID
    company_id: UUID
    name: str | None = Field(description="Your name of the batch.")
    status: BatchState = Field(
        description="ACCEPTED: stored. RUNNING: interviews are being created. PAUSED: no further ones are created."
        " COMPLETED: no item is waiting. CANCELLED: waiting items and pending calls were cancelled."
    )
    total: int = Field(description="Items that were sent.")
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
    interview_id: UUID | None = Field(description="Null unless `status` is APPLIED.")
    interview_status: InterviewStatus | None = Field(
        description="The present status of the interview. Null without one, and if it was deleted."
    )
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
    next_cursor: str | None = Field(description="Send it as `cursor`, with the same `status`, to get the next page.")


class ItemPageView(Wire):
    """Items in their order."""

    items: list[ItemView]
    pagination: ItemPagination

    @classmethod
    def of(cls, name: str, page: ItemPage) -> Self:
        """Show a page of a list by the name that its cursors contain."""
        pagination = ItemPagination(
            limit=page.limit,
            has_next_page=page.after is not None,
            next_cursor=None if page.after is None else place_text(name, page.after),
        )
        return cls(items=[ItemView.of(each) for each in page.items], pagination=pagination)


class ItemsAnswer(Answer[ItemPageView]):
    """A page of items of a batch."""


_EXAMPLE: Any = EXAMPLES["at a time"]["value"]
_PEOPLE = [
    {**_EXAMPLE, "externalId": external_id, "candidate": {**_EXAMPLE["candidate"], "phoneNumber": number}}
    for external_id, number in (("row-1", "+61870701234"), ("row-2", "+61870701235"))
]
SCHEMAS: dict[str, Any] = {
    "BatchRequest": {
        "title": "BatchRequest",
        "description": "Many interviews. Each one is created as by a request of its own.",
        "type": "object",
        "additionalProperties": False,
        "required": ["items"],
        "properties": {
            "name": {
                "type": ["string", "null"],
                "title": "Name",
                "minLength": 1,
                "maxLength": 100,
                "pattern": r"^[ -~]*[!-~][ -~]*$",
                "description": "Your name of the batch.",
            },
            "dryRun": {
                "type": "boolean",
                "title": "Dryrun",
                "default": False,
                "description": "Only check the items, and store nothing.",
            },
            "items": {
                "type": "array",
                "title": "Items",
                "minItems": 1,
                "maxItems": MOST_ITEMS,
                "description": "Bodies of `POST /interviews`, at most 64 KiB each. An invalid one is refused alone.",
                "items": {"$ref": "#/components/schemas/InterviewRequest"},
            },
        },
    }
}
"""Components of the document that the framework does not know, because `REQUEST_BODY` is described by hand."""
_JSON: dict[str, Example] = {
    "two people": {"summary": "A batch of two interviews", "value": {"name": "Spring", "items": _PEOPLE}},
    "dry run": {"summary": "Only check two interviews", "value": {"dryRun": True, "items": _PEOPLE}},
}
_NDJSON: dict[str, Example] = {
    "two lines": {
        "summary": "A batch of two interviews, one on each line",
        "value": "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in _PEOPLE),
    }
}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/BatchRequest"}, "examples": _JSON},
        "application/x-ndjson": {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": f"NDJSON: one body of `POST /interviews` on each line, in UTF-8, up to {MOST_LINES:,}"
                " lines and 64 KiB a line. `name` and `dryRun` are query parameters.",
            },
            "examples": _NDJSON,
        },
    },
}
"""Described by hand, because the framework must not read this body: it is parsed in a thread."""
