"""A call at the carrier: our order, the carrier's answer, and its later news of the call."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum


class CallStatus(StrEnum):
    """The status of a call, translated from the carrier's words."""

    QUEUED = "QUEUED"
    DIALLED = "DIALLED"
    RINGING = "RINGING"
    ANSWERED = "ANSWERED"
    COMPLETED = "COMPLETED"
    BUSY = "BUSY"
    NO_ANSWER = "NO_ANSWER"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class CallProgress(IntEnum):
    """The progress of a call. News of a lower rank than the known one is old and changes nothing."""

    NOTHING = -1
    QUEUED = 0
    DIALLED = 1
    RINGING = 2
    ANSWERED = 3
    OVER = 4


RANKS = {
    CallStatus.QUEUED: CallProgress.QUEUED,
    CallStatus.DIALLED: CallProgress.DIALLED,
    CallStatus.RINGING: CallProgress.RINGING,
    CallStatus.ANSWERED: CallProgress.ANSWERED,
    CallStatus.COMPLETED: CallProgress.OVER,
    CallStatus.BUSY: CallProgress.OVER,
    CallStatus.NO_ANSWER: CallProgress.OVER,
    CallStatus.FAILED: CallProgress.OVER,
    CallStatus.CANCELLED: CallProgress.OVER,
}


class AnsweredBy(StrEnum):
    PERSON = "PERSON"
    MACHINE = "MACHINE"
    FAX = "FAX"
    UNKNOWN = "UNKNOWN"
    """The carrier could not decide. Counts as a person."""


class FailureCause(StrEnum):
    """The cause of a failed call, from the carrier's answer to a poll."""

    NUMBER = "NUMBER"
    """The number itself cannot be called."""
    CARRIER = "CARRIER"
    """The carrier or our account there, not the number or the person."""


@dataclass(frozen=True, kw_only=True)
class CallNews:
    """One report of the carrier about a call, from a callback or a poll.

    `sip_code` is the final response (RFC 3261), if any. `duration` counts from the answer.
    """

    call_sid: str
    status: CallStatus
    token: str | None = None
    """From the callback's URL. None if the call was polled by its sid."""
    answered_by: AnsweredBy | None = None
    sip_code: int | None = None
    cause: FailureCause | None = None
    """For a failed call, if a poll returned it. Callbacks contain a `sip_code` instead."""
    duration: timedelta | None = None
    started: bool | None = None
    """Whether the carrier has begun to dial it. None: not part of this report."""
    to: str | None = field(default=None, repr=False)
    """The number called. None: not part of this report."""

    @property
    def rank(self) -> CallProgress:
        return RANKS[self.status]

    @property
    def is_about_queue(self) -> bool:
        """True for a call that waits in the carrier's queue, or may have been removed from it."""
        return self.status in {CallStatus.QUEUED, CallStatus.CANCELLED}


@dataclass(frozen=True, kw_only=True)
class ListedCall:
    """A call from the carrier's list, which contains no tokens."""

    news: CallNews
    created_at: datetime
    """Aware UTC, whole seconds."""


@dataclass(frozen=True, kw_only=True)
class CallOrder:
    """The content of an attempt's single POST."""

    to: str = field(repr=False)
    caller: str = field(repr=False)
    token: str = field(repr=False)
    ring_timeout: timedelta
    time_limit: timedelta
    machine_detection: bool


class CarrierAnswer:
    """The result of an attempt's single POST."""


@dataclass(frozen=True, kw_only=True)
class Accepted(CarrierAnswer):
    """The carrier accepted the call and returned its sid."""

    call_sid: str
    queue_time: timedelta = timedelta(0)


@dataclass(frozen=True, kw_only=True)
class NeverTaken(CarrierAnswer):
    """The POST certainly did not reach the carrier, or the carrier certainly did not accept it."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class Withheld(CarrierAnswer):
    """The POST was not sent, for a reason of our own that is unrelated to the carrier."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class NumberRefused(CarrierAnswer):
    """The carrier permanently refuses this number."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class AnswerUnknown(CarrierAnswer):
    """It is unknown whether the carrier accepted the call. Every result that is not certain is this one."""

    cause: str
