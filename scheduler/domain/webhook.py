"""Words of webhooks: the request to the receiver of a partner, and the meaning of its answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum


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
    """Of the partner. They may contain its credentials."""


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
