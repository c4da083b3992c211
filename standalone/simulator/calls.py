"""Calls of the simulated carrier: the form of an order, and that of a call in Twilio's API."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel, ConfigDict

from standalone.simulator.faults import RefusedByTwilio
from standalone.simulator.plans import CallbackFault, InstructionsFault, OtherLeg, Outcome

# --- Orders: the form of a request to place a call, parsed and validated


Form = Mapping[str, Sequence[str]]

CALLBACK_EVENTS = ("initiated", "ringing", "answered", "completed")
MACHINE_DETECTIONS = ("Enable", "DetectMessageEnd")
DEFAULT_TIMEOUT_S = 60
MAX_TIMEOUT_S = 600
DEFAULT_TIME_LIMIT_S = 4 * 60 * 60
MAX_TIME_LIMIT_S = 24 * 60 * 60

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_WRITTEN_BETWEEN_DIGITS = str.maketrans("", "", " -.()")
_HTTP_METHODS = ("GET", "POST")


class Order(BaseModel):
    """A valid order for a call. Documented fields without an effect here are accepted and ignored."""

    model_config = ConfigDict(frozen=True)

    to: str
    from_: str
    timeout_s: int
    time_limit_s: int
    status_callback: str | None
    status_callback_method: str
    events: tuple[str, ...]
    """The subscribed callback events."""
    machine_detection: str | None
    instructions_url: str | None = None
    fallback_url: str | None = None
    """Requested if the voice server gives no instructions."""
    fallback_method: str = "POST"
    verdict_callback: str | None = None
    """Receives the verdict of asynchronous machine detection."""
    is_async: bool = False
    """Machine detection goes on during the call."""


def read_form(content_type: str, body: bytes) -> Form:
    """Parse a URL-encoded body, with repeated fields in order. A body of another type has no fields."""
    if not content_type.lower().startswith("application/x-www-form-urlencoded"):
        return {}
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)


def field(form: Form, name: str) -> str | None:
    """Read the first value of a field. An empty field counts as missing."""
    return next(iter(form.get(name, ())), "").strip() or None


def token_of(status_callback: str | None) -> str | None:
    """Read the last segment of the callback URL's path, with which the caller names the attempt."""
    if status_callback is None:
        return None
    return urlsplit(status_callback).path.rstrip("/").rpartition("/")[2] or None


def read_order(form: Form) -> Order:
    """Parse an order. Raises RefusedByTwilio with the code for the first invalid field."""
    to = _number(field(form, "To"), missing=21201, invalid=21211)
    from_ = _number(field(form, "From"), missing=21213, invalid=21212)
    _check_instructions(form)
    _check_tuning(form)
    for name in ("Method", "FallbackMethod", "StatusCallbackMethod", "RecordingStatusCallbackMethod"):
        _method(form, name)
    # With an application, its settings replace the callback fields of the request.
    callbacks = {} if field(form, "ApplicationSid") else form
    return Order(
        to=to,
        from_=from_,
        timeout_s=_seconds(form, "Timeout", default=DEFAULT_TIMEOUT_S, longest=MAX_TIMEOUT_S, invalid=21208),
        time_limit_s=_time_limit(form),
        status_callback=_url(callbacks, "StatusCallback", invalid=21609),
        status_callback_method=_method(callbacks, "StatusCallbackMethod"),
        events=_events(callbacks),
        machine_detection=_machine_detection(form),
        instructions_url=field(form, "Url"),
        fallback_url=_url(form, "FallbackUrl", invalid=21205),
        fallback_method=_method(form, "FallbackMethod"),
        verdict_callback=_url(form, "AsyncAmdStatusCallback", invalid=21207),
        is_async=_machine_detection(form) is not None and field(form, "AsyncAmd") == "true",
    )


def read_changes(form: Form) -> dict[str, Any]:
    """Parse an update of a live call: the changes to its order."""
    changes: dict[str, Any] = {}
    if url := _url(form, "StatusCallback", invalid=21609):
        changes["status_callback"] = url
    if field(form, "StatusCallbackMethod"):
        changes["status_callback_method"] = _method(form, "StatusCallbackMethod")
    if field(form, "TimeLimit"):
        changes["time_limit_s"] = _time_limit(form)
    return changes


def gives_instructions(form: Form) -> bool:
    """Check that an update contains instructions, which need an answered call."""
    return field(form, "Url") is not None or field(form, "Twiml") is not None


def _number(text: str | None, *, missing: int, invalid: int) -> str:
    if text is None:
        raise RefusedByTwilio(missing)
    number = text.translate(_WRITTEN_BETWEEN_DIGITS)
    if not _E164.fullmatch(number):
        raise RefusedByTwilio(invalid)
    return number


def _check_instructions(form: Form) -> None:
    if field(form, "Url"):
        _url(form, "Url", invalid=21205)
        return
    if not (field(form, "Twiml") or field(form, "ApplicationSid")):
        raise RefusedByTwilio(21205, message="Url, Twiml or ApplicationSid is required")


def _url(form: Form, name: str, *, invalid: int) -> str | None:
    url = field(form, name)
    if url is None:
        return None
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise RefusedByTwilio(invalid) from error
    # Twilio permits no underscore in a host.
    if parts.scheme not in {"http", "https"} or not parts.hostname or "_" in parts.hostname:
        raise RefusedByTwilio(invalid)
    return url


def _method(form: Form, name: str) -> str:
    method = (field(form, name) or "POST").upper()
    if method not in _HTTP_METHODS:
        raise RefusedByTwilio(20001, message=f"Invalid parameter: {name} must be GET or POST")
    return method


def _seconds(form: Form, name: str, *, default: int, longest: int, invalid: int) -> int:
    text = field(form, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= longest):
        raise RefusedByTwilio(invalid)
    return int(text)


def _time_limit(form: Form) -> int:
    return _seconds(form, "TimeLimit", default=DEFAULT_TIME_LIMIT_S, longest=MAX_TIME_LIMIT_S, invalid=20001)


def _events(form: Form) -> tuple[str, ...]:
    """Parse the events, one for each field. Like Twilio, use only the first of several names in one field."""
    values = form.get("StatusCallbackEvent")
    if not values:
        return ("completed",)
    names = {value.split()[0] for value in values if value.split()}
    return tuple(event for event in CALLBACK_EVENTS if event in names)


_TUNING = {
    "MachineDetectionTimeout": (3, 59),
    "MachineDetectionSpeechThreshold": (1000, 6000),
    "MachineDetectionSpeechEndThreshold": (500, 5000),
    "MachineDetectionSilenceTimeout": (2000, 10_000),
}
"""The range of each time of machine detection, as documented."""


def _check_tuning(form: Form) -> None:
    for name, (least, most) in _TUNING.items():
        text = field(form, name)
        if text is not None and not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise RefusedByTwilio(21207)
    if field(form, "AsyncAmd") not in {None, "true", "false"}:
        raise RefusedByTwilio(21207)
    _method(form, "AsyncAmdStatusCallbackMethod")


def _machine_detection(form: Form) -> str | None:
    detection = field(form, "MachineDetection")
    return detection if detection in MACHINE_DETECTIONS else None


# --- Calls of the simulated carrier, and their form in Twilio's API


API_VERSION = "2010-04-01"

_SUBRESOURCES = {
    "events": "Events",
    "notifications": "Notifications",
    "payments": "Payments",
    "recordings": "Recordings",
    "siprec": "Siprec",
    "streams": "Streams",
    "transcriptions": "Transcriptions",
    "user_defined_message_subscriptions": "UserDefinedMessageSubscriptions",
    "user_defined_messages": "UserDefinedMessages",
}


class Status(StrEnum):
    QUEUED = "queued"
    """Accepted. It waits for its turn under the account's calls per second."""
    INITIATED = "initiated"
    """Dialled. The phone does not ring yet."""
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"
    CANCELED = "canceled"


class Canceller(StrEnum):
    """The side that cancelled an unanswered call."""

    CALLER = "caller"
    CARRIER = "carrier"


ORDERED = "outbound-api"
"""The direction of a call that a request has placed."""
UNANSWERED = frozenset({Status.QUEUED, Status.INITIATED, Status.RINGING})
ALIVE = UNANSWERED | {Status.IN_PROGRESS}


class End(NamedTuple):
    """The end of a call in the carrier's terms."""

    status: Status
    sip_code: int
    rings: bool = True
    answered_by: dict[str, str] | None = None
    """By kind of machine detection. None for unanswered calls."""


PERSON = {"Enable": "human", "DetectMessageEnd": "human"}
VOICEMAIL = {"Enable": "machine_start", "DetectMessageEnd": "machine_end_beep"}
FAX = {"Enable": "fax", "DetectMessageEnd": "fax"}
UNKNOWN = {"Enable": "unknown", "DetectMessageEnd": "unknown"}

ENDS = {
    Outcome.ANSWERED: End(Status.COMPLETED, 200, answered_by=PERSON),
    Outcome.ANSWERED_UNKNOWN: End(Status.COMPLETED, 200, answered_by=UNKNOWN),
    Outcome.VOICEMAIL: End(Status.COMPLETED, 200, answered_by=VOICEMAIL),
    Outcome.FAX: End(Status.COMPLETED, 200, answered_by=FAX),
    Outcome.BUSY: End(Status.BUSY, 486),
    Outcome.NO_ANSWER: End(Status.NO_ANSWER, 487),
    Outcome.DECLINED: End(Status.FAILED, 603),
    Outcome.INVALID_NUMBER: End(Status.FAILED, 404, rings=False),
    Outcome.FAILED: End(Status.FAILED, 503, rings=False),
    Outcome.CANCELED_BEFORE_RINGING: End(Status.CANCELED, 487, rings=False),
    Outcome.CANCELED_RINGING: End(Status.CANCELED, 487),
}
RANG_OUT = End(Status.NO_ANSWER, 487)
CANCELED = End(Status.CANCELED, 487)
HUNG_UP = End(Status.COMPLETED, 200)


class Call(BaseModel):
    """A call to one phone: its order, its plan and its state."""

    model_config = ConfigDict(frozen=True)

    sid: str
    account_sid: str
    ordinal: int
    """The nth call that this carrier accepted."""
    token: str | None
    attempt_of_number: int
    order: Order
    outcome: Outcome
    ring_s: float
    talk_s: float
    error_s: float = 4.0
    verdict_s: float | None = 1.0
    callbacks: CallbackFault | None
    instructions: InstructionsFault | None = None
    error_codes: tuple[int, ...] = ()
    """Named by its notifications once it has ended."""
    listed: bool = True
    """False: lists do not show it, but it can be queried by its SID."""
    beside: str | None = None
    """The sid of another call to this number that was alive when this one was accepted."""
    direction: str = ORDERED
    parent_call_sid: str | None = None

    status: Status = Status.QUEUED
    queue_time_ms: int
    accepted_at: datetime
    dial_at: datetime
    """The instant of its turn."""
    started_at: datetime | None = None
    rang_at: datetime | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    updated_at: datetime
    duration_s: int | None = None
    """Only of an answered call that has ended."""
    answered_by: str | None = None
    is_instructed: bool | None = None
    """False if the voice server gave the answered call no instructions. None for unanswered calls."""
    sip_code: int | None = None
    cancelled_by: Canceller | None = None
    events_sent: int = 0

    @property
    def is_over(self) -> bool:
        return self.status not in ALIVE

    @property
    def is_ordered(self) -> bool:
        """Placed by a request. Only lists and queries show other legs."""
        return self.direction == ORDERED

    @property
    def shown_status(self) -> Status:
        """The status in resources and lists. Only callbacks use `initiated`."""
        return Status.QUEUED if self.status is Status.INITIATED else self.status


def other_leg_of(call: Call, direction: OtherLeg, *, sid: str, ordinal: int) -> Call:
    """Build a finished leg between the call's two numbers that no request has placed."""
    return call.model_copy(
        update={
            "sid": sid,
            "ordinal": ordinal,
            "token": None,
            "direction": str(direction),
            "parent_call_sid": call.sid if direction is OtherLeg.DIALLED else None,
            "status": Status.COMPLETED,
            "started_at": call.accepted_at,
            "ended_at": call.accepted_at,
            "duration_s": 0,
            "error_codes": (),
            "beside": None,
        }
    )


def rfc2822(at: datetime | None) -> str | None:
    """Format an instant in whole seconds, like all of Twilio's times."""
    return None if at is None else _written(at.replace(microsecond=0))


@lru_cache(maxsize=1024)
def _written(at: datetime) -> str:
    return format_datetime(at)


@lru_cache(maxsize=1024)
def _number_sid(number: str) -> str:
    return f"PN{uuid5(NAMESPACE_URL, 'tel:' + number).hex}"


def as_resource(call: Call) -> dict[str, Any]:
    """Write the call with exactly Twilio's fields. The token is not among them."""
    account = f"/{API_VERSION}/Accounts/{call.account_sid}"
    return {
        "sid": call.sid,
        "date_created": rfc2822(call.accepted_at),
        "date_updated": rfc2822(call.updated_at),
        "parent_call_sid": call.parent_call_sid,
        "account_sid": call.account_sid,
        "to": call.order.to,
        "to_formatted": _formatted(call.order.to),
        "from": call.order.from_,
        "from_formatted": _formatted(call.order.from_),
        "phone_number_sid": _number_sid(call.order.from_),
        "status": call.shown_status,
        "start_time": rfc2822(call.started_at),
        "end_time": rfc2822(call.ended_at),
        "duration": None if call.duration_s is None else str(call.duration_s),
        "price": None,
        "price_unit": "USD",
        "direction": call.direction,
        "answered_by": call.answered_by,
        "api_version": API_VERSION,
        "forwarded_from": None,
        "group_sid": None,
        "caller_name": None,
        "queue_time": str(call.queue_time_ms),
        "trunk_sid": None,
        "uri": f"{account}/Calls/{call.sid}.json",
        "subresource_uris": {
            name: f"{account}/Calls/{call.sid}/{folder}.json" for name, folder in _SUBRESOURCES.items()
        },
    }


def notifications_of(call: Call) -> list[dict[str, Any]]:
    """List the call's notifications with the fields of Twilio's list. None before the call has ended."""
    return [_notification(call, code) for code in call.error_codes] if call.is_over else []


def _notification(call: Call, code: int) -> dict[str, Any]:
    sid = f"NO{uuid5(NAMESPACE_URL, f'{call.sid}/{code}').hex}"
    is_of_instructions = call.is_instructed is False and code == call.error_codes[-1]
    return {
        "account_sid": call.account_sid,
        "api_version": API_VERSION,
        "call_sid": call.sid,
        "date_created": rfc2822(call.ended_at),
        "date_updated": rfc2822(call.ended_at),
        "error_code": str(code),
        "log": "0",
        "message_date": rfc2822(call.ended_at),
        "message_text": f"error {code}",
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "request_method": "POST",
        "request_url": (call.order.instructions_url if is_of_instructions else call.order.status_callback) or "",
        "sid": sid,
        "uri": f"/{API_VERSION}/Accounts/{call.account_sid}/Calls/{call.sid}/Notifications/{sid}.json",
    }


def _formatted(number: str) -> str:
    """Format North American numbers in their national style, others in E.164."""
    if len(number) == len("+12125550100") and number.startswith("+1"):
        return f"({number[2:5]}) {number[5:8]}-{number[8:]}"
    return number
