"""A call, as the carrier knows it: what we order, what it answers, what it says of it later."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum


class CallStatus(StrEnum):
    """What a carrier says of a call, in our words."""

    QUEUED = "QUEUED"
    DIALLED = "DIALLED"
    RINGING = "RINGING"
    ANSWERED = "ANSWERED"
    COMPLETED = "COMPLETED"
    BUSY = "BUSY"
    NO_ANSWER = "NO_ANSWER"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Rank(IntEnum):
    """How far a call has come. News of a lower rank than what is known is old and changes nothing."""

    NOTHING = -1
    QUEUED = 0
    DIALLED = 1
    RINGING = 2
    ANSWERED = 3
    OVER = 4


RANKS = {
    CallStatus.QUEUED: Rank.QUEUED,
    CallStatus.DIALLED: Rank.DIALLED,
    CallStatus.RINGING: Rank.RINGING,
    CallStatus.ANSWERED: Rank.ANSWERED,
    CallStatus.COMPLETED: Rank.OVER,
    CallStatus.BUSY: Rank.OVER,
    CallStatus.NO_ANSWER: Rank.OVER,
    CallStatus.FAILED: Rank.OVER,
    CallStatus.CANCELLED: Rank.OVER,
}


class AnsweredBy(StrEnum):
    PERSON = "PERSON"
    MACHINE = "MACHINE"
    FAX = "FAX"
    UNKNOWN = "UNKNOWN"
    """The carrier could not tell; counts as a person."""


class FailureCause(StrEnum):
    """Why a call failed, as the carrier says when it is asked."""

    NUMBER = "NUMBER"
    """The number itself cannot be called."""
    CARRIER = "CARRIER"
    """The carrier or our account at it; neither the number nor the person."""


@dataclass(frozen=True, kw_only=True)
class CallNews:
    """One thing that the carrier said of a call, by a callback or when asked.

    `sip_code` is RFC 3261's final response, where there was one; `duration` counts from the answer.
    """

    call_sid: str
    status: CallStatus
    token: str | None = None
    """From the callback's address; None when we asked for the call by its sid."""
    answered_by: AnsweredBy | None = None
    sip_code: int | None = None
    cause: FailureCause | None = None
    """Of a failed call, when the carrier named it on being asked; callbacks bring a `sip_code` instead."""
    duration: timedelta | None = None
    started: bool | None = None
    """Whether the carrier has begun to dial it; None: this news does not say."""
    to: str | None = field(default=None, repr=False)
    """The number called; None: this news does not say."""

    @property
    def rank(self) -> Rank:
        return RANKS[self.status]


@dataclass(frozen=True, kw_only=True)
class ListedCall:
    """A call as the carrier lists it. Its list carries no token."""

    news: CallNews
    created_at: datetime
    """Aware UTC, whole seconds."""


@dataclass(frozen=True, kw_only=True)
class CallOrder:
    """The one POST of one attempt."""

    to: str = field(repr=False)
    caller: str = field(repr=False)
    token: str = field(repr=False)
    ring_timeout: timedelta
    time_limit: timedelta
    machine_detection: bool


class CarrierAnswer:
    """What came of the one POST."""


@dataclass(frozen=True, kw_only=True)
class Accepted(CarrierAnswer):
    """The carrier took it and named the call."""

    call_sid: str
    queue_time: timedelta = timedelta(0)


@dataclass(frozen=True, kw_only=True)
class NeverTaken(CarrierAnswer):
    """It certainly did not reach the carrier, or the carrier certainly did not take it."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class Withheld(CarrierAnswer):
    """We did not send it, for a reason of our own that says nothing about the carrier."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class NumberRefused(CarrierAnswer):
    """The carrier refuses this number for good."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class AnswerUnknown(CarrierAnswer):
    """Nobody can tell whether the carrier took it. Everything that is not surely one of the others is this."""

    cause: str
