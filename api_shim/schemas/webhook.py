"""Response schemas for webhooks, deliveries and replays."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field

from api_shim.schemas.envelope import CursorPage, Page, answer, page
from scheduler.domain.delivery_history import DeliveryHistory, DeliveryTry, ListedDelivery, Replay
from scheduler.domain.webhook import DeliveryState, EndpointTest, ErrorKind, EventType, TestProgress, WebhookEndpoint
from scheduler.rules.webhooks import MOST_KEPT
from scheduler.wire.field_types import Wire


class HeaderView(Wire):
    name: str
    is_masked: Literal[True] = Field(description="The value is stored encrypted and never shown.")


class WebhookView(Wire):
    id: UUID
    api_key_id: UUID = Field(description="The key that created it. Only it and its rotations can change the webhook.")
    company_id: UUID | None = Field(description="Null: events of all companies of an ATS key.")
    url: str | None = Field(description="Null in a response that is repeated after the webhook was deleted.")
    name: str | None = Field(description="Your name of the webhook.")
    description: str | None = Field(description="Your notes about the webhook.")
    headers: list[HeaderView] = Field(description="Your headers of each delivery, without their values.")
    events: list[EventType] = Field(description="The types that are delivered.")
    is_active: bool = Field(description="False: no deliveries. It was paused by you, or disabled (`disabledAt`).")
    max_retries: int = Field(description="Tries after the first one, within about three days. Always 9.")
    timeout_ms: int = Field(description="Milliseconds that an answer may take. Always 15,000.")
    consecutive_failures: int = Field(
        description="Failed tries of all deliveries since the last success, without replays and tests."
    )
    circuit_opened_at: datetime | None = Field(
        description="Set after ten failures in a row. One delivery a minute is sent until one succeeds."
    )
    disabled_at: datetime | None = Field(
        description="Set when Duecall or an operator disabled the webhook, null while it is paused. Set `isActive` to"
        " true to enable it again."
    )
    disabled_cause: Literal["GONE", "FAILING", "OPERATOR", "KEY_REVOKED"] | None = Field(
        description="GONE: its receiver answered 410. FAILING: all deliveries failed for five days. OPERATOR: an"
        " operator disabled it. KEY_REVOKED: the last key with access was revoked."
    )
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, endpoint: WebhookEndpoint) -> Self:
        return cls.view_of(
            endpoint,
            headers=[HeaderView(name=name, is_masked=True) for name in endpoint.header_names],
            is_active=endpoint.gets_deliveries,
            disabled_cause=None if endpoint.disabled_cause is None else endpoint.disabled_cause.value,
        )


class NewSecretView(WebhookView):
    """A webhook with its new secret."""

    signing_secret: str | None = Field(
        description="Verifies the signatures of deliveries. Shown only here. Null in a repeated response: if you have"
        " lost it, send `POST /webhooks/{webhookId}/rotate-secret`.",
        examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD2BK4vBLzjHI="],
    )


class WebhookTestView(Wire):
    """The result of a test."""

    success: bool = Field(
        description="True if the receiver accepted the ping with a status from 200 to 299. The `success` of the whole"
        " response says only that the test was carried out."
    )
    delivery_id: UUID = Field(description="Also in the body of the ping, and in its header `webhook-id`.")
    http_status: int | None = Field(description="Null without an answer.")
    duration_ms: int | None = Field(description="Milliseconds until the result was known. Null while it is unknown.")
    message: str = Field(description="The result as a sentence.")

    @classmethod
    def of(cls, test: EndpointTest, progress: TestProgress | None) -> Self:
        """Show a test. `progress` is None if it could not be read."""
        is_over = progress is not None and progress.is_over
        return cls(
            success=progress is not None and progress.is_delivered,
            delivery_id=test.id,
            http_status=progress.last_status if progress is not None and is_over else None,
            duration_ms=progress.last_ms if progress is not None and is_over else None,
            message=_message(progress) if progress is not None and is_over else _NOT_SENT,
        )


_NOT_SENT = "The ping was stored, and is not sent yet. Its delivery shows the result."
_NO_ANSWER: Mapping[ErrorKind, str] = {
    ErrorKind.URL_FORBIDDEN: "The URL is not allowed. Change it.",
    ErrorKind.ADDRESS_FORBIDDEN: "The host of the URL has no public address.",
    ErrorKind.NAME_UNKNOWN: "The host of the URL was not found.",
    ErrorKind.NOT_CONNECTED: "No connection to the host and port of the URL. Does the receiver run?",
    ErrorKind.TLS_FAILED: "No secure connection was possible. Check the certificate.",
    ErrorKind.TIMEOUT: "The receiver did not answer in time.",
    ErrorKind.CONNECTION_LOST: "The connection was closed before an answer, or the answer is not HTTP.",
}


def _message(progress: TestProgress) -> str:
    if progress.is_delivered:
        return f"The receiver answered {progress.last_status}."
    kind = progress.last_error_kind
    if kind is ErrorKind.REDIRECT:
        return f"Your receiver answered {progress.last_status}. Redirects are not followed: set the new URL."
    if kind is not None and kind in _NO_ANSWER:
        return _NO_ANSWER[kind]
    return f"Your receiver answered {progress.last_status}. Only 200 to 299 is success: see its log."


WebhookAnswer = answer("WebhookAnswer", WebhookView, "A webhook.")
NewSecretAnswer = answer("NewSecretAnswer", NewSecretView, "A webhook with its new secret.")
WebhookTestAnswer = answer("WebhookTestAnswer", WebhookTestView, "The result of a test.")
WebhookPage = page("WebhookPage", Page, WebhookView, "Webhooks, newest first.")
WebhooksAnswer = answer("WebhooksAnswer", WebhookPage, "A page of webhooks.")


WEBHOOKS: dict[str, Example] = {
    "a webhook": {
        "summary": "Two types of events, with a header of your own",
        "value": {
            "url": "https://hooks.example.com/duecall",
            "events": ["interview.completed", "call_attempt.ended"],
            "name": "Our ATS",
            "headers": [{"name": "X-Tenant", "value": "north"}],
        },
    }
}
WEBHOOK_CHANGES: dict[str, Example] = {
    "pause it": {"summary": "Pause the webhook", "value": {"isActive": False}},
    "another URL": {"summary": "Another URL", "value": {"url": "https://hooks.example.com/v2"}},
}


# --- Response schemas for deliveries to webhooks and their replays


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


DeliveryAnswer = answer("DeliveryAnswer", DeliveryHistoryView, "A delivery to a webhook, with its tries.")
DeliveryPage = page("DeliveryPage", CursorPage, DeliveryView, "Newest event first.")
DeliveriesAnswer = answer("DeliveriesAnswer", DeliveryPage, "Deliveries to a webhook.")


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


ReplayAnswer = answer("ReplayAnswer", ReplayView, "Deliveries were replayed.")


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
