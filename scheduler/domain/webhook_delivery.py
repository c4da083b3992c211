"""Words of deliveries: one event for one endpoint, until its receiver has accepted it or its last try has failed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from scheduler.domain.partner_event import EventType


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
    email: str | None = field(repr=False)
    """The address of the company's owner. None: it has no owner, or the webhook belongs to an ATS."""
    disabled_at: datetime
    cause: str
    tries: int


@dataclass(frozen=True, kw_only=True)
class WaitingDeliveries:
    """Deliveries that wait to be sent, without those of webhooks that are inactive or disabled."""

    count: int
    """Counted up to 10,001."""
    oldest_at: datetime | None
    """The time at which the oldest was due. Webhooks whose circuit is open are left out."""
