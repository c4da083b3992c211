"""Webhooks of partners: endpoints, deliveries, answers of receivers, and events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from uuid import UUID


class Outcome(Enum):
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    GONE = "GONE"
    """The receiver answered that it no longer exists. The webhook is disabled."""


class DisabledCause(Enum):
    """The reason for which a webhook gets no deliveries until its partner enables it again."""

    GONE = "GONE"
    """The receiver answered 410."""
    FAILING = "FAILING"
    """It has only failed for five days."""
    OPERATOR = "OPERATOR"
    """An operator disabled it."""
    KEY_REVOKED = "KEY_REVOKED"
    """The last key of its principal was revoked."""
    DELETED = "DELETED"
    """The partner deleted it. Only its old deliveries are left, until the purge has deleted them."""


class ErrorKind(Enum):
    """The cause of a failed delivery. It contains no text of the receiver, because that may be secret or forged."""

    URL_FORBIDDEN = "URL_FORBIDDEN"
    ADDRESS_FORBIDDEN = "ADDRESS_FORBIDDEN"
    """The name leads to an address that is not public."""
    NAME_UNKNOWN = "NAME_UNKNOWN"
    NOT_CONNECTED = "NOT_CONNECTED"
    TLS_FAILED = "TLS_FAILED"
    """The certificate is invalid, or the receiver does not speak TLS."""
    TIMEOUT = "TIMEOUT"
    CONNECTION_LOST = "CONNECTION_LOST"
    """The receiver closed the connection, or its answer is not HTTP."""
    REDIRECT = "REDIRECT"
    GONE = "GONE"
    THROTTLED = "THROTTLED"
    HTTP_ERROR = "HTTP_ERROR"


class NotSent(Exception):
    """This machine could not open a connection. The receiver has no part in it."""


@dataclass(frozen=True, kw_only=True)
class WebhookRequest:
    """One try to deliver a message to a receiver."""

    url: str
    message_id: str
    """The same for each try, so that a receiver can ignore repetitions."""
    body: str
    secrets: tuple[str, ...] = field(repr=False)
    """Each one signs. Two during a rotation."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The partner's headers. They may contain its credentials."""


@dataclass(frozen=True, kw_only=True)
class WebhookAnswer:
    """The outcome of one try. The body of the answer is not part of it."""

    outcome: Outcome
    status: int | None = None
    """The HTTP status, or None if there was no answer."""
    error_kind: ErrorKind | None = None
    """None if it was delivered."""
    retry_after: timedelta | None = None
    """The receiver wants no request before then."""
    milliseconds: int = 0


# --- A partner event: what a partner may learn about its interviews, calls and companies
# It holds ids, codes and times. `attempt.Event` is another word: an event of an attempt moves the attempt, and a
# partner event reports that it moved.


READ_WEBHOOKS = "read:webhooks"
"""The scope of the keys that may read partner events. As long as a company has no reader, none are written for it."""

SHORT_DEFERRAL = timedelta(minutes=1)
"""A call that is put off for less than this is not reported as rescheduled."""

EVENTS_A_BATCH = 200
"""Partner events that are numbered by one transaction."""


class EventType(StrEnum):
    INTERVIEW_SCHEDULED = "interview.scheduled"
    INTERVIEW_STARTED = "interview.started"
    INTERVIEW_COMPLETED = "interview.completed"
    INTERVIEW_FAILED = "interview.failed"
    INTERVIEW_CANCELLED = "interview.cancelled"
    ATTEMPT_SCHEDULED = "call_attempt.scheduled"
    ATTEMPT_RESCHEDULED = "call_attempt.rescheduled"
    ATTEMPT_STARTED = "call_attempt.started"
    ATTEMPT_ANSWERED = "call_attempt.answered"
    ATTEMPT_ENDED = "call_attempt.ended"
    ATTEMPT_RETRY_SCHEDULED = "call_attempt.retry_scheduled"
    ATTEMPT_CANCELLED = "call_attempt.cancelled"
    ATTEMPT_EXPIRED = "call_attempt.expired"
    ATTEMPT_UNKNOWN = "call_attempt.unknown"
    ATTEMPT_DECIDED = "call_attempt.decided"
    ATTEMPT_PROVEN = "call_attempt.proven"
    ATTEMPT_REPORTED = "call_attempt.reported"
    COMMAND_APPLIED = "command.applied"
    BATCH_COMPLETED = "batch.completed"
    COMPANY_PAUSED = "company.paused"
    COMPANY_RESUMED = "company.resumed"
    COMPANY_DELETED = "company.deleted"
    ENDPOINT_DISABLED = "endpoint.disabled"
    PING = "ping"
    """A partner tests an endpoint."""


OF_AN_OWNER = frozenset({EventType.PING, EventType.ENDPOINT_DISABLED})
"""Events about a webhook. Only the principal of the webhook reads them, not the other keys of its company."""


class MovedBy(StrEnum):
    """The cause of another due time."""

    REQUEST = "REQUEST"
    """A client moved the call."""
    SETTINGS = "SETTINGS"
    """Calling hours, a time zone, zone data or the number changed."""
    DEFERRAL = "DEFERRAL"
    """The call could not be made at its time, for example because the calling hours ended or the carrier was down."""


Data = Mapping[str, object]
"""Ids, states, codes and times, by the names of the public API. Values of JSON."""


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """A partner event before it is stored. Candidate, job and sequence are added when it is numbered."""

    type: EventType
    company_id: UUID
    occurred_at: datetime
    interview_id: UUID | None = None
    attempt_id: UUID | None = None
    data: Data


@dataclass(frozen=True, kw_only=True)
class OwnersEvent:
    """An event about a webhook, for its principal. The store of webhooks adds who reads it."""

    type: EventType
    data: Data


@dataclass(frozen=True, kw_only=True)
class PartnerEvent:
    """A stored and numbered partner event."""

    id: UUID
    type: EventType
    place: int
    """Its place in the order of all events. A reader continues after the last one that it has read."""
    sequence: int | None
    """Rises by one for each event of an interview. None for an event without an interview."""
    company_id: UUID | None
    """None: about a webhook of an ATS key, for all its companies."""
    interview_id: UUID | None
    attempt_id: UUID | None
    occurred_at: datetime
    data: Data


@dataclass(frozen=True, kw_only=True)
class EventFilter:
    """A filter for events. A field that is None does not filter."""

    types: frozenset[EventType] | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    delivery_success: bool | None = None
    """False: only events with a delivery to a webhook of the reader that waits or has failed. True: all others."""


@dataclass(frozen=True, kw_only=True)
class EventPage:
    """Events in their order, and the place to continue after."""

    events: tuple[PartnerEvent, ...]
    after: int
    has_more: bool
    """True if more places follow. Their events may not match the filter."""


# --- Webhooks: URLs of partners to which events are delivered


MOST_OF_A_KEY = 50
"""Webhooks that a key and its rotations can have."""


@dataclass(frozen=True, kw_only=True)
class NewEndpoint:
    """A webhook as a client requests it."""

    url: str
    events: tuple[EventType, ...]
    company_id: UUID | None = None
    name: str | None = None
    description: str | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    is_active: bool = True


@dataclass(frozen=True, kw_only=True)
class WebhookEndpoint:
    """A stored webhook, without its secrets and the values of its headers, which only deliveries need."""

    id: UUID
    principal_id: UUID
    api_key_id: UUID
    """The key that created it. Rotations of this key also see it."""
    company_id: UUID | None
    """None: all companies that the ATS key has created."""
    url: str | None
    """None in an answer that is repeated after the webhook was deleted. It may contain a password, as the texts."""
    name: str | None = None
    description: str | None = None
    header_names: tuple[str, ...] = ()
    events: tuple[EventType, ...]
    is_active: bool = True
    """False: the partner has paused it. No deliveries are made for new events, and waiting ones wait."""
    max_retries: int
    timeout_ms: int
    consecutive_failures: int = 0
    failing_since: datetime | None = None
    circuit_opened_at: datetime | None = None
    probe_at: datetime | None = None
    disabled_at: datetime | None = None
    """Set by Duecall, with the same effect as a pause."""
    disabled_cause: DisabledCause | None = None
    created_at: datetime
    updated_at: datetime
    signing_secret: str | None = field(default=None, repr=False)
    """In clear text, for the one answer that shows it. Never stored with the webhook."""

    @property
    def gets_deliveries(self) -> bool:
        return self.is_active and self.disabled_at is None


@dataclass(frozen=True, kw_only=True)
class EndpointTest:
    """A ping that was written to test a webhook."""

    id: UUID
    """The id of the event, and of its delivery."""
    company_id: UUID | None
    endpoint_id: UUID


@dataclass(frozen=True, kw_only=True)
class TestProgress:
    """The state of a test, as its delivery shows it."""

    __test__ = False  # for pytest, which would collect it

    is_over: bool
    is_delivered: bool
    last_status: int | None
    last_error_kind: ErrorKind | None
    last_ms: int | None


# --- Words of deliveries: one event for one endpoint, until its receiver has accepted it or its last try has failed


class DeliveryState(StrEnum):
    WAITING = "WAITING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    """The last try has failed. A partner can replay it."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A delivery, as far as a try changes it."""

    event_id: UUID
    endpoint_id: UUID
    type: EventType
    state: DeliveryState = DeliveryState.WAITING
    is_replay: bool
    tries: int
    send_at: datetime
    first_failed_at: datetime | None

    @property
    def is_apart(self) -> bool:
        """True for a replay and a test: they wait for no other delivery, and say nothing about the webhook's health.

        Otherwise, a partner that replays to a receiver under repair would have its webhook disabled.
        """
        return self.is_replay or self.type is EventType.PING


@dataclass(frozen=True, kw_only=True)
class Message:
    """The content of a delivery, and the webhook that receives it. Secrets and headers are encrypted."""

    occurred_at: datetime
    sequence: int | None
    company_id: UUID | None
    interview_id: UUID | None
    attempt_id: UUID | None
    data: Mapping[str, object]
    url: str = field(repr=False)
    headers: bytes | None = field(repr=False)
    secret: bytes = field(repr=False)
    old_secret: bytes | None = field(repr=False)
    old_secret_until: datetime | None


@dataclass(frozen=True, kw_only=True)
class ClaimedDelivery:
    """A delivery that this process sends. No other process does so before the end of its lease."""

    claim: UUID
    """Names this claim. Another claim or a replay has replaced it when the outcome is no longer wanted."""
    delivery: Delivery
    message: Message
    owner: UUID
    """The principal to which its endpoint belongs."""
    is_slow: bool
    """The last answer of its webhook was late."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A mail that a webhook was disabled, taken for one try."""

    endpoint_id: UUID
    company_id: UUID | None
    company_name: str | None = field(repr=False)
    locale: str | None
    """Of the company. It chooses the language of the mail."""
    email: str | None = field(repr=False)
    """The address of the company's owner. None: it has no owner, or the webhook belongs to an ATS."""
    disabled_at: datetime
    cause: str
    tries: int


@dataclass(frozen=True, kw_only=True)
class WaitingDeliveries:
    """Deliveries that wait to be sent, to webhooks that are active and not disabled."""

    count: int
    """Counted up to 10,001."""
    oldest_at: datetime | None
    """The time at which the oldest was due. Webhooks whose circuit is open are left out."""
