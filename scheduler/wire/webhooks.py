"""Webhooks as clients send them."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, StringConstraints
from pydantic_core import PydanticCustomError, PydanticKnownError

from scheduler.domain.resource import Changes
from scheduler.domain.webhook import EventType, NewEndpoint
from scheduler.rules import webhook_urls
from scheduler.rules.webhook_urls import LONGEST_NAME, LONGEST_VALUE, MOST, name_fault, repeated, value_fault
from scheduler.wire.field_types import Strict, left_out, named, printable
from scheduler.wire.named_fields import OURS, FieldError

EVENT_TYPES = tuple(each.value for each in EventType)
_LONGEST_NAME = 255
_NOT_TEXT: Literal["string_type"] = "string_type"
_LONGEST_DESCRIPTION = 1000


def _without(find: Callable[[str], tuple[str, str] | None]) -> AfterValidator:
    """Refuse a text in which `find` finds an error."""

    def check(text: str) -> str:
        if fault := find(text):
            code, message = fault
            raise PydanticCustomError(OURS + code.lower(), message)
        return text

    return AfterValidator(check)


def _event_type(name: object) -> object:
    """Convert a name before pydantic does, whose error for a wrong one is not ours."""
    if not isinstance(name, str):
        raise PydanticKnownError(_NOT_TEXT)
    if name not in EVENT_TYPES:
        message = f"This event does not exist. Events are {', '.join(EVENT_TYPES)}."
        raise PydanticCustomError(OURS + "unknown_event", message)
    return EventType(name)


Url = Annotated[
    str,
    # Whether http is allowed depends on the settings, see `contradictions`.
    _without(partial(webhook_urls.fault, https_only=False)),
    Field(
        description="The address that deliveries are posted to. In production it begins with `https://`. The port is"
        f" {webhook_urls.HTTPS_PORT}, or {webhook_urls.LOWEST_PORT} or higher, and the host leads to a public address."
        " It contains no user, password or fragment.",
        json_schema_extra={"format": "uri", "maxLength": webhook_urls.LONGEST},
        examples=["https://hooks.example.com/duecall"],
    ),
]
EventName = Annotated[EventType, BeforeValidator(_event_type)]
"""In the document it is the `EventType` of events, so that generated clients have one."""
WebhookName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=_LONGEST_NAME), AfterValidator(printable)
]
Description = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=_LONGEST_DESCRIPTION),
    AfterValidator(printable),
]
EventTypes = Annotated[
    list[EventName],
    Field(
        min_length=1,
        max_length=len(EVENT_TYPES),
        description="The types that are delivered, each once.",
        json_schema_extra={"uniqueItems": True},
        examples=[["interview.completed", "call_attempt.ended"]],
    ),
]


class Header(Strict):
    """A header that is added to each delivery. It is stored encrypted, and responses show only its name."""

    name: Annotated[
        str,
        _without(name_fault),
        Field(
            description=f"1 to {LONGEST_NAME} letters, digits and hyphens. Headers that Duecall or HTTP"
            " itself sets are rejected: `Host`, `Content-*`, `webhook-*`, `Proxy-*` and those of the connection.",
            examples=["X-Tenant"],
        ),
    ]
    value: Annotated[
        str,
        _without(value_fault),
        Field(
            repr=False,
            description=f"1 to {LONGEST_VALUE:,} visible ASCII characters, without spaces at its ends.",
            examples=["north"],
        ),
    ]


def _array_of_headers(headers: object) -> object:
    if not isinstance(headers, list):
        raise PydanticCustomError(OURS + "wrong_type", "This must be an array of {name, value}.")
    return headers


Headers = Annotated[
    list[Header],
    BeforeValidator(_array_of_headers),
    Field(max_length=MOST, description="Headers that are added to each delivery. No name occurs twice."),
]
_COMPANY = (
    "Events of this company only. Null or omitted: a regular key gets those of its company, an ATS key those of all its"
    " companies."
)
_NAME, _DESCRIPTION = "Your name of the webhook.", "Your notes about the webhook."
_CLEARED = " Null clears it."
Ignored = Annotated[
    StrictInt | None,
    Field(description="A field of the public API, which is accepted and ignored. The value is the same for all."),
]


class CreateWebhook(Strict):
    """A webhook that events are delivered to."""

    url: Url
    events: EventTypes
    company_id: Annotated[UUID | None, Field(description=_COMPANY)] = None
    name: Annotated[WebhookName | None, Field(description=_NAME)] = None
    description: Annotated[Description | None, Field(description=_DESCRIPTION)] = None
    headers: Headers = Field(default_factory=list)
    is_active: Annotated[
        StrictBool, Field(description="False creates a paused webhook: no deliveries are made for new events.")
    ] = True
    max_retries: Ignored = None
    timeout_ms: Ignored = None

    def to_new_endpoint(self) -> NewEndpoint:
        return NewEndpoint(
            url=self.url,
            events=tuple(self.events),
            company_id=self.company_id,
            name=self.name,
            description=self.description,
            headers=_values(self.headers),
            is_active=self.is_active,
        )


class UpdateWebhook(Strict):
    """Fields to change. Omitted fields keep their value. `headers` and `events` are replaced as a whole."""

    url: Url = Field(default_factory=left_out)
    events: EventTypes = Field(default_factory=left_out)
    name: Annotated[WebhookName | None, Field(description=_NAME + _CLEARED)] = None
    description: Annotated[Description | None, Field(description=_DESCRIPTION + _CLEARED)] = None
    headers: Headers = Field(default_factory=left_out)
    is_active: StrictBool = Field(
        default_factory=left_out,
        description="False pauses the webhook: no deliveries are made for new events, and waiting ones wait. True also"
        " enables a webhook that Duecall or an operator has disabled.",
    )
    max_retries: Ignored = None
    timeout_ms: Ignored = None

    def to_changes(self) -> Changes:
        """Collect the new values by the fields of `NewEndpoint`."""
        changes = dict(named(self, "url", "events", "name", "description", "headers", "is_active"))
        if "events" in changes:
            changes["events"] = tuple(changes["events"])
        if "headers" in changes:
            changes["headers"] = _values(changes["headers"])
        return changes


def _values(headers: list[Header]) -> dict[str, str]:
    return {header.name: header.value for header in headers}


def contradictions(body: CreateWebhook | UpdateWebhook, *, https_only: bool) -> Iterator[FieldError]:
    """Yield the errors that depend on other fields or on the settings. Fields that were left out are None."""
    if body.url:
        fault = webhook_urls.fault(body.url, https_only=https_only)
        if fault := fault or webhook_urls.address_fault(body.url, allow_loopback=not https_only):
            yield FieldError(field="url", code=fault[0], message=fault[1])
    for place in repeated(header.name for header in body.headers or []):
        message = "This header occurs twice; remove one of them. The case of letters makes no difference."
        yield FieldError(field=f"headers.{place}.name", code="REPEATED_HEADER", message=message)
    for place, event in enumerate(body.events or []):
        if event in body.events[:place]:
            yield FieldError(field=f"events.{place}", code="REPEATED_EVENT", message="Remove the repeated event.")
