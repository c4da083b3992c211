"""An explanation: what keeps an attempt from ringing now, whose clock decides, and what has happened so far."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from scheduler.domain.attempt import Attempt
from scheduler.domain.command import Refusal
from scheduler.domain.schedule import Schedule, ScheduleWarning


class Rule(StrEnum):
    """What may keep an attempt from ringing, in the order in which the dialler asks."""

    ACCOUNT_PAUSED = "ACCOUNT_PAUSED"
    """An operator has stopped everything."""
    CARRIER_DOWN = "CARRIER_DOWN"
    """The carrier takes no calls; it is tried again from time to time."""
    CARRIER_REFUSES_COUNTRY = "CARRIER_REFUSES_COUNTRY"
    """The carrier account may not call the number's country; it is tried again from time to time."""
    CARRIER_REFUSES_CALLER = "CARRIER_REFUSES_CALLER"
    """The carrier account may not call from the company's number; it is tried again from time to time."""
    CARRIER_FAILS_CALLER = "CARRIER_FAILS_CALLER"
    """The carrier has failed the company's calls from this number, and takes others'."""
    COMPANY_PAUSED = "COMPANY_PAUSED"
    COMPANY_DELETED = "COMPANY_DELETED"
    INTERVIEW_OVER = "INTERVIEW_OVER"
    """The interview was deleted or cancelled while the attempt was on its way."""
    COMMAND_WAITING = "COMMAND_WAITING"
    """A command was accepted for the interview and is not applied yet."""
    EXPIRED = "EXPIRED"
    NUMBER_MISSING = "NUMBER_MISSING"
    """The candidate has no number that may be called any more."""
    NUMBER_NOT_ALLOWED = "NUMBER_NOT_ALLOWED"
    """The company allows calls to that country no more, or nobody calls such numbers."""
    TIMEZONE_UNKNOWN = "TIMEZONE_UNKNOWN"
    CONSENT_EXPIRED = "CONSENT_EXPIRED"
    NOT_DUE = "NOT_DUE"
    WINDOW_CLOSED = "WINDOW_CLOSED"
    NUMBER_BUSY = "NUMBER_BUSY"
    """Another call to this number is in progress, or was a short while ago."""
    COMPANY_LIMIT = "COMPANY_LIMIT"
    """The company has as many calls in progress as it may have at once."""
    ACCOUNT_LIMIT = "ACCOUNT_LIMIT"


@dataclass(frozen=True, kw_only=True)
class Block:
    """One rule that says no now."""

    rule: Rule
    until: datetime | None = None
    """Aware UTC; None when nobody can say how long."""
    detail: str = ""
    """A sentence for a person; no number, no name."""


@dataclass(frozen=True, kw_only=True)
class Happening:
    """A row of an attempt's history: what happened, when, and who did it."""

    at: datetime
    event: str
    from_state: str | None
    to_state: str
    reason: str | None
    actor: str
    """`key:` and a key's id, or one of the stops (dial, carrier, settle, settings).

    The release before named the key's principal instead.
    """
    key_name: str | None = None
    """What whoever made the key called it; None for what no key did, and where it is not the reader's to know."""
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why an attempt stands as it does. `blocks` are in the order in which the dialler asks; empty: it may ring now."""

    attempt: Attempt
    waits_for: str
    next_possible_at: datetime | None
    """The first instant at which it may ring as far as can be told; None when it is over, or nobody can tell: what
    keeps it has no end that is known."""
    blocks: tuple[Block, ...]
    happenings: tuple[Happening, ...]


@dataclass(frozen=True, kw_only=True)
class CallTimeQuestion:
    """May this number be called, then? Either a candidate of the company or a number is named."""

    candidate_id: UUID | None = None
    phone_number: str | None = field(default=None, repr=False)
    timezone: str | None = None
    scheduled_at: str | None = None
    """The text as it was sent; None asks for as soon as allowed."""


@dataclass(frozen=True, kw_only=True)
class CallTimeAnswer:
    """What an interview with these would be answered, nothing being created."""

    refusal: Refusal | None = None
    schedule: Schedule | None = None
    """None when it would be refused."""
    warnings: tuple[ScheduleWarning, ...] = ()
    next_possible_at: datetime | None = None
    """Of a refused time: the next one that is allowed, where there is one."""
