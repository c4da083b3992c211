"""A call: its schedule, our order to the carrier, the carrier's answer, and its later news."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

# --- Its schedule: the requested time, and the clock on which it was evaluated


class TimezoneSource(StrEnum):
    OFFSET = "OFFSET"
    """A numeric offset in the request."""
    ZONE = "ZONE"
    """A named zone in the request."""
    CANDIDATE = "CANDIDATE"
    PHONE_NUMBER = "PHONE_NUMBER"
    COMPANY = "COMPANY"


class ScheduleWarning(StrEnum):
    OFFSET_DIFFERS_FROM_PHONE_NUMBER = "OFFSET_DIFFERS_FROM_PHONE_NUMBER"
    CANDIDATE_HAS_OPEN_INTERVIEW = "CANDIDATE_HAS_OPEN_INTERVIEW"
    MOVED_BY_SETTINGS = "MOVED_BY_SETTINGS"


@dataclass(frozen=True, kw_only=True)
class CalleeClock:
    """The wall clock that decides: either one offset, or zones that must all be open.

    Exactly one of the two is set. `zones` are canonical IANA names, sorted, without duplicates.
    """

    source: TimezoneSource
    offset: timedelta | None = None
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NumberFacts:
    """Facts about the callee's number that decide about its calls, for readers who may not read its digits."""

    country: str | None
    """ISO 3166 alpha-2. None for numbers without a country (+800)."""
    never_called: str | None = None
    """The kind of a number that is never called, or None."""
    zones: tuple[str, ...] | None = None
    """The zones of the number. None if they are those of the schedule's clock, or if no rule needs them."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The requested time and its interpretation, stored with the attempt as evidence."""

    requested: str | None
    """The client's text, or None."""
    clock: CalleeClock
    due_at: datetime
    """Aware UTC: the first instant at which this attempt may be dialled."""
    earliest_at: datetime
    """Aware UTC: the start of the search for an opening. Equal to `due_at` if the client named that instant."""
    tzdata_version: str
    number: NumberFacts | None = None
    """None in rows of the previous version."""


# --- The call at the carrier


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


class MachineDetection(StrEnum):
    """The moment at which the carrier decides who has answered, a person or a machine."""

    OFF = "OFF"
    SYNC = "SYNC"
    """Before the call gets its instructions. The person waits in silence until then."""
    ASYNC = "ASYNC"
    """While the call goes on. Its verdict is news of its own, and may come after the end of the call."""


_ASKED_FOR = tuple(MachineDetection)


def least_detection(*modes: MachineDetection) -> MachineDetection:
    """Return the mode that asks the least of the carrier."""
    return min(modes, key=_ASKED_FOR.index)


@dataclass(frozen=True, kw_only=True)
class DetectionTuning:
    """The times of machine detection. None: the carrier's default."""

    timeout: timedelta | None = None
    """Without a result by then, it is unknown who has answered."""
    speech_threshold: timedelta | None = None
    """Longer speech is a machine's."""
    speech_end_threshold: timedelta | None = None
    """Speech has ended after this silence."""
    silence_timeout: timedelta | None = None
    """After this initial silence it is unknown who has answered."""


class AnsweredBy(StrEnum):
    PERSON = "PERSON"
    MACHINE = "MACHINE"
    FAX = "FAX"
    UNKNOWN = "UNKNOWN"
    """The carrier could not decide. Counts as a person."""


class FailureCause(StrEnum):
    """The cause of a failed call, from the carrier's answer to a poll."""

    BLOCKED = "BLOCKED"
    """A network on the way blocked the call because of the caller id."""
    NUMBER = "NUMBER"
    """The number itself cannot be called."""
    UNREACHABLE = "UNREACHABLE"
    """The carrier knows no way to the number now: an outage, or an invalid number."""
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
    instructions_failed: bool | None = None
    """True if the voice server gave the answered call no instructions. None: not part of this report."""

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
    machine_detection: MachineDetection = MachineDetection.OFF
    detection_tuning: DetectionTuning = field(default_factory=DetectionTuning)


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
    """The carrier refuses this number."""

    cause: str
    may_be_outage: bool = False
    """True if the same answer is given while no network can reach a valid number."""


@dataclass(frozen=True, kw_only=True)
class AnswerUnknown(CarrierAnswer):
    """It is unknown whether the carrier accepted the call. Every result that is not certain is this one."""

    cause: str
