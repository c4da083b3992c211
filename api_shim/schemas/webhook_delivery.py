"""Response schemas for deliveries to webhooks and their replays."""

from datetime import datetime
from typing import Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field

from api_shim.schemas.envelope import Answer, CursorPage
from scheduler.domain.delivery_history import DeliveryHistory, DeliveryTry, ListedDelivery, Replay
from scheduler.domain.partner_event import EventType
from scheduler.domain.webhook import ErrorKind
from scheduler.domain.webhook_delivery import DeliveryState
from scheduler.rules.webhook_tries import MOST_KEPT
from scheduler.wire.camel_model import Wire


class DeliveryView(Wire):
    """An event for a webhook, with the outcome of the last try. Nothing of the receiver's answer but its status."""

    delivery_id: UUID = Field(description="Id of the event, the same at each try and each replay.")
    type: EventType
    timestamp: datetime = Field(description="Time of the event.")
    state: DeliveryState = Field(description="FAILED: all ten tries have failed, or the only one of a test.")
    tries: int = Field(description="Requests that were sent, since the last replay if there was one.")
    next_try_at: datetime | None = Field(
        description="The earliest time of the next try. Null unless `state` is WAITING. Nothing is sent while the"
        " webhook is not active."
    )
    last_tried_at: datetime | None = Field(description="Null before the first try.")
    last_status: int | None = Field(description="HTTP status of the last answer, or null without an answer.")
    last_error_kind: ErrorKind | None = Field(description="Why the last try failed. Null if it did not.")
    duration_ms: int | None = Field(description="Milliseconds that the last try took.")
    created_at: datetime = Field(description="Time at which the delivery was made, about a second after the event.")
    finished_at: datetime | None = Field(description="Null while `state` is WAITING.")
    is_replay: bool = Field(description="True for a replay. It waits for no other delivery. False for a test (`ping`).")
    interview_id: UUID | None = Field(description="Null for an event without an interview.")
    sequence: int | None = Field(description="Of the event in its interview. Null for an event without an interview.")

    @classmethod
    def of(cls, delivery: ListedDelivery) -> Self:
        return cls.view_of(delivery, **_shown(delivery))


class DeliveryTryView(Wire):
    """A request to the receiver. Nothing of its answer but the status."""

    tried_at: datetime = Field(description="Time of the result.")
    status: int | None = Field(description="HTTP status of the answer, or null without an answer.")
    error_kind: ErrorKind | None = Field(description="Why the try failed. Null if it did not.")
    duration_ms: int = Field(description="Milliseconds that the try took.")

    @classmethod
    def of(cls, made: DeliveryTry) -> Self:
        return cls.view_of(made, duration_ms=made.milliseconds)


class DeliveryHistoryView(DeliveryView):
    """An event for a webhook, with its tries."""

    history: list[DeliveryTryView] = Field(
        description=f"The newest {MOST_KEPT} tries, oldest first, those of replays included. Tries made before this"
        " field existed are missing."
    )

    @classmethod
    def with_tries(cls, delivery: DeliveryHistory) -> Self:
        history = [DeliveryTryView.of(each) for each in delivery.history]
        return cls.view_of(delivery, **_shown(delivery), history=history)


def _shown(delivery: ListedDelivery) -> dict[str, object]:
    return {
        "delivery_id": delivery.event_id,
        "timestamp": delivery.occurred_at,
        "next_try_at": delivery.send_at if delivery.state is DeliveryState.WAITING else None,
        "duration_ms": delivery.last_ms,
        "is_replay": delivery.is_replay and delivery.type is not EventType.PING,
    }


class DeliveryAnswer(Answer[DeliveryHistoryView]):
    """A delivery to a webhook, with its tries."""


class DeliveryPage(CursorPage[DeliveryView]):
    """Newest event first."""


class DeliveriesAnswer(Answer[DeliveryPage]):
    """Deliveries to a webhook."""


class ReplayView(Wire):
    replayed: int = Field(description="Deliveries that are sent again now, or for the first time.")
    after: int = Field(description="Send this as `after` to continue.")
    has_more: bool = Field(
        description="True if the range may have further deliveries. Send the same request with `after`, and with"
        " another Idempotency-Key, until this is false."
    )

    @classmethod
    def of(cls, replay: Replay) -> Self:
        return cls.view_of(replay)


class ReplayAnswer(Answer[ReplayView]):
    """Deliveries were replayed."""


DELIVERIES: dict[str, Example] = {
    "a retry": {
        "summary": "A delivery that failed once and is tried again",
        "value": {
            "success": True,
            "data": {
                "items": [
                    {
                        "deliveryId": "019ac4a1-7f0e-7c55-8d0a-3a8f0a4c1d11",
                        "type": "call_attempt.ended",
                        "timestamp": "2026-04-02T07:00:24.120000Z",
                        "state": "WAITING",
                        "tries": 1,
                        "nextTryAt": "2026-04-02T07:00:30.020000Z",
                        "lastTriedAt": "2026-04-02T07:00:25.020000Z",
                        "lastStatus": 500,
                        "lastErrorKind": "HTTP_ERROR",
                        "durationMs": 31,
                        "createdAt": "2026-04-02T07:00:24.870000Z",
                        "finishedAt": None,
                        "isReplay": False,
                        "interviewId": "019ac49f-0b6e-7f6a-9f5e-2b1c0d4e5f60",
                        "sequence": 5,
                    }
                ],
                "pagination": {
                    "limit": 20,
                    "page": None,
                    "total": None,
                    "totalIsEstimate": False,
                    "totalPages": None,
                    "hasNextPage": False,
                    "hasPreviousPage": False,
                    "nextCursor": None,
                },
            },
            "error": None,
            "timestamp": "2026-04-02T07:00:26Z",
            "traceId": "8d1f0c7e5b7a4e0c9a52d3c1f6b0a4e7",
        },
    }
}
REPLAYS: dict[str, Example] = {
    "all of an hour": {
        "summary": "Every event of an hour",
        "value": {"from": "2026-04-02T07:00:00Z", "to": "2026-04-02T08:00:00Z"},
    },
    "failed ones": {
        "summary": "What has failed since a time",
        "value": {"from": "2026-04-02T07:00:00Z", "onlyFailed": True},
    },
    "some types": {
        "summary": "Two types",
        "value": {"from": "2026-04-02T07:00:00Z", "types": ["interview.completed", "interview.failed"]},
    },
}
