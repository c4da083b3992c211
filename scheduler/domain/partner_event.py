"""A partner event: what a partner may learn about its interviews, calls and companies. It holds ids, codes and times.

`attempt.Event` is another word: an event of an attempt moves the attempt, and a partner event reports that it moved.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

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
