"""Calls of the simulated carrier, and their form in Twilio's API."""

from datetime import datetime
from email.utils import format_datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel, ConfigDict

from standalone.simulator.call_orders import Order
from standalone.simulator.plans import CallbackFault, Outcome

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
    callbacks: CallbackFault | None
    error_codes: tuple[int, ...] = ()
    """Named by its notifications once it has ended."""
    listed: bool = True
    """False: lists do not show it, but it can be queried by its SID."""
    beside: str | None = None
    """The sid of another call to this number that was alive when this one was accepted."""

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
    sip_code: int | None = None
    cancelled_by: Canceller | None = None
    events_sent: int = 0

    @property
    def is_over(self) -> bool:
        return self.status not in ALIVE

    @property
    def shown_status(self) -> Status:
        """The status in resources and lists. Only callbacks use `initiated`."""
        return Status.QUEUED if self.status is Status.INITIATED else self.status


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
    """Return exactly Twilio's fields of the call. The token is not among them."""
    account = f"/{API_VERSION}/Accounts/{call.account_sid}"
    return {
        "sid": call.sid,
        "date_created": rfc2822(call.accepted_at),
        "date_updated": rfc2822(call.updated_at),
        "parent_call_sid": None,
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
        "direction": "outbound-api",
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
    """Return the call's notifications with the fields of Twilio's list. None before the call has ended."""
    return [_notification(call, code) for code in call.error_codes] if call.is_over else []


def _notification(call: Call, code: int) -> dict[str, Any]:
    sid = f"NO{uuid5(NAMESPACE_URL, f'{call.sid}/{code}').hex}"
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
        "request_url": call.order.status_callback or "",
        "sid": sid,
        "uri": f"/{API_VERSION}/Accounts/{call.account_sid}/Calls/{call.sid}/Notifications/{sid}.json",
    }


def _formatted(number: str) -> str:
    """Format North American numbers in their national style, others in E.164."""
    if len(number) == len("+12125550100") and number.startswith("+1"):
        return f"({number[2:5]}) {number[5:8]}-{number[8:]}"
    return number
