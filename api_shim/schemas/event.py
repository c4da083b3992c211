"""Response schemas for events."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field, WithJsonSchema

from api_shim.schemas.envelope import answer
from scheduler.domain.webhook import EventPage, EventType, PartnerEvent
from scheduler.wire.field_types import Wire

_ABSENT = Field(exclude_if=lambda value: value is None)
Text = Annotated[str | None, WithJsonSchema({"type": "string"}), _ABSENT]
Id = Annotated[UUID | None, WithJsonSchema({"type": "string", "format": "uuid"}), _ABSENT]
Instant = Annotated[str | None, WithJsonSchema({"type": "string", "format": "date-time"}), _ABSENT]
Number = Annotated[int | None, WithJsonSchema({"type": "integer"}), _ABSENT]
"""Types of fields that are omitted when they do not apply."""


class EventData(Wire):
    """Ids, states, codes and times. Fields that do not apply are omitted. Read names and texts from the resources."""

    company_id: Annotated[
        Id, Field(description="Omitted for the ping of a webhook for all companies of an ATS key.")
    ] = None
    interview_id: Id = None
    call_attempt_id: Id = None
    candidate_id: Id = None
    job_id: Id = None
    external_id: Annotated[Text, Field(description="Your id of the interview, if it has one.")] = None
    command_id: Id = None
    status: Annotated[
        Text, Field(description="Status of the call attempt, the interview or the batch, or the result of the command.")
    ] = None
    reason_code: Annotated[Text, Field(description="Why it ended, or the error code of a refused command.")] = None
    outcome: Annotated[Text, Field(description="The outcome that the conversation of the call has reported.")] = None
    retry_number: Number = None
    next_attempt_id: Annotated[Id, Field(description="The call attempt that repeats this one.")] = None
    due_at: Annotated[Instant, Field(description="The new due time.")] = None
    timezone: Annotated[Text, Field(description="Time zones that decide about the call.")] = None
    by: Annotated[Text, Field(description="Cause of the new due time: REQUEST, SETTINGS or DEFERRAL.")] = None
    webhook_id: Annotated[Id, Field(description="The webhook that was tested or disabled.")] = None
    batch_id: Id = None
    applied: Annotated[Number, Field(description="Items of the batch that were applied.")] = None
    refused: Annotated[Number, Field(description="Items of the batch that were refused.")] = None
    cancelled: Annotated[Number, Field(description="Items of the batch that were cancelled.")] = None
    decision: Annotated[Text, Field(description="An operator's decision: RANG, DID_NOT_RING or LEFT.")] = None


class EventView(Wire):
    type: EventType
    event: EventType = Field(description="The same as `type`.")
    timestamp: datetime = Field(description="Time of the change.")
    delivery_id: UUID = Field(description="Id of the event, the same each time that it is read or delivered.")
    place: Annotated[
        Number,
        Field(
            description="Place in the order of all events. Send the last one as `after` to continue. Omitted in"
            " deliveries to webhooks."
        ),
    ] = None
    sequence: int | None = Field(
        description="Rises by one with each event of an interview. Null for events without an interview."
    )
    data: EventData

    @classmethod
    def of(cls, event: PartnerEvent) -> Self:
        ids = {
            "company_id": event.company_id,
            "interview_id": event.interview_id,
            "call_attempt_id": event.attempt_id,
        }
        return cls(
            type=event.type,
            event=event.type,
            timestamp=event.occurred_at,
            delivery_id=event.id,
            place=event.place,
            sequence=event.sequence,
            data=EventData.model_validate({**event.data, **ids}),
        )


class EventsView(Wire):
    """Oldest first."""

    items: list[EventView]
    after: int = Field(description="Send this as `after` to continue.")
    has_more: bool = Field(
        description="True if more events may follow now. With `types`, `from` or `to`, a page may have fewer items than"
        " `limit`, or none, although more follow."
    )

    @classmethod
    def of(cls, page: EventPage) -> Self:
        return cls(items=[EventView.of(each) for each in page.events], after=page.after, has_more=page.has_more)


EventAnswer = answer("EventAnswer", EventView, "An event.")
EventsAnswer = answer("EventsAnswer", EventsView, "Events, oldest first.")


EVENTS: dict[str, Example] = {
    "a busy line": {
        "summary": "A call that ended, and the last event that was read",
        "value": {
            "success": True,
            "data": {
                "items": [
                    {
                        "type": "call_attempt.ended",
                        "event": "call_attempt.ended",
                        "timestamp": "2026-04-02T07:00:24.120000Z",
                        "deliveryId": "019ac4a1-7f0e-7c55-8d0a-3a8f0a4c1d11",
                        "place": 1207,
                        "sequence": 5,
                        "data": {
                            "companyId": "0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55",
                            "interviewId": "019ac49f-0b6e-7f6a-9f5e-2b1c0d4e5f60",
                            "callAttemptId": "019ac49f-0b6e-7a11-8c2d-7e6f5a4b3c2d",
                            "candidateId": "019ac49e-93aa-7b5a-9078-2b73c86d8678",
                            "externalId": "application-4711",
                            "status": "FAILED",
                            "reasonCode": "BUSY",
                            "retryNumber": 0,
                        },
                    }
                ],
                "after": 1207,
                "hasMore": False,
            },
            "error": None,
            "timestamp": "2026-04-02T07:01:00Z",
            "traceId": "8d1f0c7e5b7a4e0c9a52d3c1f6b0a4e7",
        },
    }
}
