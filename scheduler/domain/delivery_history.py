"""The history of deliveries: what was sent to a webhook of a partner, and which of it is sent again."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from scheduler.domain.webhook import DeliveryState, EventType

REPLAYED_A_BATCH = 200
"""Deliveries that one statement replays."""
BATCHES_A_REPLAY = 10
"""Batches of one replay. A longer one is continued by the client."""

SENT_AT_ONCE = 1_000
"""Waiting deliveries whose next try a reset of the webhook advances to now. The others keep their times."""


@dataclass(frozen=True, kw_only=True)
class ListedDelivery:
    """An event for an endpoint, with the outcome of the last try."""

    event_id: UUID
    """Also its id for the partner: the same at each try and each replay."""
    endpoint_id: UUID
    type: EventType
    occurred_at: datetime
    place: int
    interview_id: UUID | None
    sequence: int | None
    state: DeliveryState
    is_replay: bool
    tries: int
    send_at: datetime
    """The next try, while it is waiting."""
    last_tried_at: datetime | None
    last_status: int | None
    last_error_kind: str | None
    last_ms: int | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class DeliveryTry:
    """One request to the receiver. Nothing of its answer but the status."""

    tried_at: datetime
    """The time of its result."""
    status: int | None
    error_kind: str | None
    milliseconds: int


@dataclass(frozen=True, kw_only=True)
class DeliveryHistory(ListedDelivery):
    """A delivery with its newest tries, those of its replays included, oldest first."""

    history: tuple[DeliveryTry, ...]


@dataclass(frozen=True, kw_only=True)
class DeliveryFilter:
    """A filter for deliveries. A field that is None does not filter. The times are those of the events."""

    state: DeliveryState | None = None
    types: frozenset[EventType] | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""


@dataclass(frozen=True, kw_only=True)
class DeliveryPage:
    """Deliveries of an endpoint, newest first. May be few or none although others follow."""

    deliveries: tuple[ListedDelivery, ...]
    before: int | None
    """The place before which the next page begins. None: nothing follows."""


@dataclass(frozen=True, kw_only=True)
class EventReceiver:
    """An endpoint, as far as it decides which events it wants."""

    id: UUID
    principal_id: UUID
    company_id: UUID | None
    """None: all companies that the ATS key of the principal has created."""
    events: tuple[str, ...]
    """The types that it wants."""


@dataclass(frozen=True, kw_only=True)
class ReplayFilter:
    """The deliveries to replay. The times are those of the events."""

    since: datetime
    until: datetime | None = None
    """Exclusive."""
    types: frozenset[EventType] | None = None
    only_failed: bool = False


@dataclass(frozen=True, kw_only=True)
class ReplayedBatch:
    """The result of one batch of a replay."""

    replayed: int
    after: int
    """The place to continue after."""
    has_more: bool


@dataclass(frozen=True, kw_only=True)
class Replay(ReplayedBatch):
    """The result of a replay of several deliveries. `has_more`: the range has others, which are not replayed yet."""

    id: UUID
    """The webhook's."""


class EndpointStatus(StrEnum):
    """States of an endpoint, which decide if deliveries to it are sent."""

    ACTIVE = "active"
    CIRCUIT_OPEN = "circuit-open"
    """One a minute is sent, as a probe."""
    PAUSED = "paused"
    """Its partner has paused it."""
    DISABLED = "disabled"


@dataclass(frozen=True, kw_only=True)
class EndpointFilter:
    """A filter for webhooks. A field that is None does not filter."""

    id: UUID | None = None
    company_id: UUID | None = None
    """Webhooks that receive events of this company, also its ATS's webhooks for all companies."""
    status: EndpointStatus | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointState:
    """A webhook as operators see it. Only the origin of its URL is shown: the rest may contain a password."""

    id: UUID
    principal_id: UUID
    company_id: UUID | None
    company_name: str | None = field(repr=False)
    origin: str | None = field(repr=False)
    """Scheme, host and port of its URL."""
    is_active: bool
    disabled_at: datetime | None
    disabled_cause: str | None
    consecutive_failures: int
    failing_since: datetime | None
    circuit_opened_at: datetime | None
    waiting: int
    """Counted up to `COUNTED_UP_TO`, and one more if there are others."""
    oldest_waiting_at: datetime | None
    last_failed_at: datetime | None
    last_status: int | None
    last_error_kind: str | None
    created_at: datetime

    @property
    def status(self) -> EndpointStatus:
        if self.disabled_at is not None:
            return EndpointStatus.DISABLED
        if not self.is_active:
            return EndpointStatus.PAUSED
        return EndpointStatus.ACTIVE if self.circuit_opened_at is None else EndpointStatus.CIRCUIT_OPEN
