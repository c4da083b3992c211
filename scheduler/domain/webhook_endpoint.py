"""Webhooks: URLs of partners to which events are delivered."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from scheduler.domain.partner_event import EventType
from scheduler.domain.webhook import DisabledCause, ErrorKind

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
    """The key that created it. Rotations of this key see it, too."""
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
