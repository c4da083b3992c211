"""Request and response schemas for batches and their dry run."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field

from api_shim.schemas.envelope import CursorPage, ErrorView, answer, page, place_text
from api_shim.schemas.requested_calls import EXAMPLES
from scheduler.domain.batch import Batch, BatchItem, BatchState, DryRun, DueHour, ItemPage, ItemState, RefusedItems
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import InterviewStatus
from scheduler.timing.time_texts import offset_text
from scheduler.wire.batches import MOST_ITEMS, MOST_LINES
from scheduler.wire.field_types import Wire


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


BatchAnswer = answer("BatchAnswer", BatchView, "A batch.")
BatchPage = page("BatchPage", CursorPage, BatchView, "Batches, newest first.")
BatchesAnswer = answer("BatchesAnswer", BatchPage, "A page of batches.")


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


ItemsAnswer = answer("ItemsAnswer", ItemPageView, "A page of items of a batch.")


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


# --- Response schemas for a dry run of a batch


class RefusedItemsView(Wire):
    """Items that would be refused with the same error. Their messages differ at most in numbers, such as times."""

    code: str = Field(examples=["OUTSIDE_CALL_TIME_INTERVAL"])
    field: str | None = Field(description="The field of an item that is wrong, if it is one.")
    message: str = Field(description="The message of the first of these items, without its position and `details`.")
    count: int = Field(description="All of these items.")
    indexes: list[int] = Field(
        description="The first 100 of these items, from 0. In NDJSON, the number of the line less one."
    )

    @classmethod
    def of(cls, refused: RefusedItems, indexes: Sequence[int]) -> Self:
        return cls.view_of(refused, indexes=[indexes[place] for place in refused.first])


class DueHourView(Wire):
    """Calls that would become due within one hour, on the same clock."""

    begins_at: datetime = Field(description="The beginning of the hour.")
    timezone: str = Field(
        description="The zones whose calling hours decide, separated by commas, or the offset of the requested times."
    )
    calls: int

    @classmethod
    def of(cls, hour: DueHour) -> Self:
        timezone = ", ".join(hour.zones) if hour.offset is None else offset_text(hour.offset)
        return cls(begins_at=hour.begins, timezone=timezone, calls=hour.calls)


class DryRunView(Wire):
    """The answers that the items of a batch would get now. Nothing was stored."""

    total: int = Field(description="Items that were sent.")
    accepted: int = Field(description="Items that would create an interview.")
    existing: int = Field(
        description="Items whose `externalId` and content an interview has already. They would create nothing."
    )
    calls: int = Field(description="Accepted items that would place a call. ONLINE and test interviews place none.")
    refused: list[RefusedItemsView] = Field(description="Most frequent first.")
    repeated_numbers: int = Field(
        description="Calls to a number that an earlier item calls too. They are placed one after the other."
    )
    numbers_with_calls: int = Field(
        description="Calls to a number that the company is calling, or has a pending call to."
    )
    first_due_at: datetime | None = Field(description="When the first call would become due. Null without a call.")
    last_due_at: datetime | None = Field(description="When the last call would become due. Null without a call.")
    last_start_at: datetime | None = Field(
        description="When the last of these calls would start for the first time, at the present pace and limits of"
        " account and company. All pending calls of the account count, with their calling hours: also retries that are"
        " scheduled already. Retries that follow later, of these calls or of others, and later requests do not count."
        " Null without a call that can start, while `waitsFor` is not null, and before the first worker has started."
    )
    expired: int = Field(description="Calls that would expire before their turn.")
    waits_for: Rule | None = Field(description="A pause or an outage that prevents all calls now. Its end is unknown.")
    call_seconds: float | None = Field(
        description="The mean duration of the calls that ended last. `lastStartAt` assumes such durations. Null if too"
        " few have ended. Then `lastStartAt` follows only from the calls that may start each second, not from"
        " those at once."
    )
    due: list[DueHourView] = Field(description="Calls by hour and zone, in the order of time.")

    @classmethod
    def of(cls, run: DryRun, indexes: Sequence[int]) -> Self:
        """`indexes` has the index of each item. A blank line has an index, and no item."""
        return cls.view_of(
            run,
            refused=[RefusedItemsView.of(each, indexes) for each in run.refused],
            due=[DueHourView.of(each) for each in run.due],
            call_seconds=None if run.call_lasts is None else run.call_lasts.total_seconds(),
        )


DryRunAnswer = answer("DryRunAnswer", DryRunView, "The result of a dry run.")
