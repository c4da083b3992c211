"""An explanation: the rules that block an attempt now, the clock that decides, and the attempt's history."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from scheduler.domain.attempt import Attempt
from scheduler.domain.call import Schedule, ScheduleWarning
from scheduler.domain.command import Refusal


class Rule(StrEnum):
    """A rule that can block an attempt, in the order in which the dialler checks them."""

    ACCOUNT_PAUSED = "ACCOUNT_PAUSED"
    """An operator has paused all calls."""
    CARRIER_DOWN = "CARRIER_DOWN"
    """The carrier accepts no calls. It is tried again periodically."""
    VOICE_SERVER_DOWN = "VOICE_SERVER_DOWN"
    """The voice server gives answered calls no instructions. It is probed periodically, then one call is tried."""
    CARRIER_REFUSES_COUNTRY = "CARRIER_REFUSES_COUNTRY"
    """The carrier account may not call the number's country. A call is tried again periodically."""
    CARRIER_REFUSES_CALLER = "CARRIER_REFUSES_CALLER"
    """The carrier account may not call from the company's number. A call is tried again periodically."""
    CARRIER_FAILS_CALLER = "CARRIER_FAILS_CALLER"
    """The carrier fails the company's calls from this number, but accepts those of other companies."""
    COMPANY_PAUSED = "COMPANY_PAUSED"
    COMPANY_DELETED = "COMPANY_DELETED"
    INTERVIEW_OVER = "INTERVIEW_OVER"
    """The interview was deleted or cancelled after the attempt was claimed."""
    COMMAND_WAITING = "COMMAND_WAITING"
    """A command for the interview was accepted but not applied yet."""
    EXPIRED = "EXPIRED"
    NUMBER_MISSING = "NUMBER_MISSING"
    """The candidate no longer has a number that may be called."""
    NUMBER_NOT_ALLOWED = "NUMBER_NOT_ALLOWED"
    """The company no longer allows calls to that country, or numbers of this kind are never called."""
    WRONG_NUMBER = "WRONG_NUMBER"
    """A conversation has reported that the number is not the candidate's."""
    OPTED_OUT = "OPTED_OUT"
    """A conversation has reported that the person at this number asks for no further calls of the company."""
    TIMEZONE_UNKNOWN = "TIMEZONE_UNKNOWN"
    CONSENT_EXPIRED = "CONSENT_EXPIRED"
    NOT_DUE = "NOT_DUE"
    WINDOW_CLOSED = "WINDOW_CLOSED"
    NUMBER_BUSY = "NUMBER_BUSY"
    """Another call to this number is in progress, or ended a short time ago."""
    COMPANY_LIMIT = "COMPANY_LIMIT"
    """The company has reached its limit of concurrent calls."""
    ACCOUNT_LIMIT = "ACCOUNT_LIMIT"


PACE = "PACE"
"""Due attempts wait for the rate of company or account. Counted like a rule, but it blocks no attempt for itself."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A rule that blocks the attempt now."""

    rule: Rule
    until: datetime | None = None
    """Aware UTC; None if the end is unknown."""
    detail: str = ""
    """A sentence for people, without phone numbers or names."""


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """A row of an attempt's history: event, time and actor."""

    at: datetime
    event: str
    from_state: str | None
    to_state: str
    reason: str | None
    actor: str
    """`key:` and a key's id, or one of the stops (dial, carrier, settle, settings).

    The previous version stored the key's principal instead.
    """
    key_name: str | None = None
    """The name of the key. None if the actor is no key, or if the reader may not see the name."""
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The explanation of one attempt. `blocks` are in the dialler's order; without any, it may ring now."""

    attempt: Attempt
    waits_for: str
    next_possible_at: datetime | None
    """The first instant at which it may ring, as far as known. None for a finished attempt, or if the end of a block is
    unknown."""
    blocks: tuple[Block, ...]
    happenings: tuple[HistoryEntry, ...]


@dataclass(frozen=True, kw_only=True)
class CallTimeQuestion:
    """The question whether a candidate, or a number, may be called at a time."""

    candidate_id: UUID | None = None
    phone_number: str | None = field(default=None, repr=False)
    timezone: str | None = None
    scheduled_at: str | None = None
    """The client's text. None means as soon as allowed."""


@dataclass(frozen=True, kw_only=True)
class CallTimeAnswer:
    """The answer that an interview with these values would get. Nothing is created."""

    refusal: Refusal | None = None
    schedule: Schedule | None = None
    """None if it would be refused."""
    warnings: tuple[ScheduleWarning, ...] = ()
    next_possible_at: datetime | None = None
    """The next allowed time after a refused one, if any."""
