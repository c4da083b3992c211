"""An attempt: one try to reach one person by phone. Its states, what can happen to it, and how it may end."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from scheduler.domain.call import AnsweredBy, Rank
from scheduler.domain.schedule import Schedule, ScheduleWarning


class AttemptState(StrEnum):
    PENDING = "PENDING"
    """Waits for its time; nobody may have rung yet."""
    IN_PROGRESS = "IN_PROGRESS"
    """Claimed: the phone may be ringing, and somebody owes us news of it."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Phase(StrEnum):
    """What `IN_PROGRESS` means just now; an attempt in any other state has none."""

    DIALLING = "DIALLING"
    """A dialler holds it until `lease_until` and may send its one POST."""
    PLACED = "PLACED"
    """The carrier named the call; it owes us how it ended."""
    UNKNOWN = "UNKNOWN"
    """The POST's answer was lost; the carrier is asked. It is never dialled again by itself."""


class Reason(StrEnum):
    """Why an attempt is in the end that it is in."""

    ANSWERED = "ANSWERED"
    TEST = "TEST"
    CANCELLED_BY_USER = "CANCELLED_BY_USER"
    REPLACED = "REPLACED"
    INTERVIEW_DELETED = "INTERVIEW_DELETED"
    CANDIDATE_DELETED = "CANDIDATE_DELETED"
    COMPANY_DELETED = "COMPANY_DELETED"
    EXPIRED = "EXPIRED"
    CONSENT_EXPIRED = "CONSENT_EXPIRED"
    BUSY = "BUSY"
    NO_ANSWER = "NO_ANSWER"
    VOICEMAIL = "VOICEMAIL"
    """A machine or a fax took the call."""
    DECLINED = "DECLINED"
    INVALID_NUMBER = "INVALID_NUMBER"
    CARRIER_ERROR = "CARRIER_ERROR"
    CANCELLED_AT_CARRIER = "CANCELLED_AT_CARRIER"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    """Nothing proves whether it rang. Only a person may decide to call again."""


class HangUpCause(StrEnum):
    """Why a call that the carrier has taken is to be ended there."""

    QUEUED_PAST_CLOSING = "QUEUED_PAST_CLOSING"
    """Its turn in the carrier's queue comes when this person may be rung no more."""
    COMPANY_DELETED = "COMPANY_DELETED"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One row of the schedule. Instants are aware UTC.

    `epoch` rises with each event. Whoever claimed it, or asked the carrier about it, names the epoch that it knew;
    when something else has happened since, it writes nothing.
    """

    id: UUID
    interview_id: UUID
    company_id: UUID
    chain_id: UUID
    """The first attempt of its chain of retries, itself included."""
    retry_number: int
    manual: bool
    """Asked for by an invoke. Goes first among its company's due attempts. First attempts and retries are not."""
    state: AttemptState
    schedule: Schedule
    due_at: datetime
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    number_hash: bytes | None = field(default=None, repr=False)
    """Keyed hash of the number whose line it takes; None for a test, which takes none."""
    called_number: str | None = field(default=None, repr=False)
    """E.164, from the claim until the call is over and is no longer searched for: the carrier is asked by it."""
    warnings: tuple[ScheduleWarning, ...] = ()
    phase: Phase | None = None
    reason: Reason | None = None
    released_until: datetime | None = None
    epoch: int = 0
    token: str | None = field(default=None, repr=False)
    claimed_at: datetime | None = None
    lease_until: datetime | None = None
    call_sid: str | None = None
    heard_rank: Rank = Rank.NOTHING
    unknown_at: datetime | None = None
    look_at: datetime | None = None
    """When the carrier is asked next for what it owes us."""
    listed_at: datetime | None = None
    """When the carrier was last asked for a list of calls that it then returned in full."""
    search_at: datetime | None = None
    """When the carrier's list is searched next for the call of an attempt whose outcome was given up."""
    looks: int = 0
    not_placed: int = 0
    """How often in a row the carrier never took it; spends no retry."""
    answered_by: AnsweredBy | None = None
    duration: timedelta | None = None
    ended_at: datetime | None = None
    hang_up: HangUpCause | None = None
    """The carrier is asked to end its call, until it has."""
    cause_is_lost: bool = False
    """It failed, and nothing says why: the callback that would have told was lost. No retry follows by itself."""
    deleted_at: datetime | None = None
    """Listed no more; it goes on counting."""


class Event:
    """Something that happened to an attempt. `name` is its word in the history and in `lifecycle.state_machine`."""

    name: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class Created(Event):
    name: ClassVar[str] = "created"


@dataclass(frozen=True, kw_only=True)
class CreatedAsTest(Event):
    name: ClassVar[str] = "created_as_test"


@dataclass(frozen=True, kw_only=True)
class Claimed(Event):
    """A dialler holds it: the line is taken, and its one POST may be sent until `lease_until`."""

    name: ClassVar[str] = "claimed"
    token: str = field(repr=False)
    lease_until: datetime


@dataclass(frozen=True, kw_only=True)
class Deferred(Event):
    """The last look said no; nothing was sent."""

    name: ClassVar[str] = "deferred"
    due_at: datetime
    cause: str


@dataclass(frozen=True, kw_only=True)
class NotPlaced(Event):
    """The carrier never took it: nobody rang, nothing is spent."""

    name: ClassVar[str] = "not_placed"
    due_at: datetime
    cause: str


@dataclass(frozen=True, kw_only=True)
class Placed(Event):
    """The carrier has named the call."""

    name: ClassVar[str] = "placed"
    call_sid: str
    look_at: datetime


@dataclass(frozen=True, kw_only=True)
class AnswerLost(Event):
    """Nobody knows whether the carrier took it."""

    name: ClassVar[str] = "answer_lost"
    look_at: datetime
    cause: str


@dataclass(frozen=True, kw_only=True)
class Progressed(Event):
    """The carrier says that the call has come further, not that it is over."""

    name: ClassVar[str] = "progressed"
    rank: Rank
    answered_by: AnsweredBy | None = None


@dataclass(frozen=True, kw_only=True)
class Ended(Event):
    """The call is over, and the carrier has said how."""

    name: ClassVar[str] = "ended"
    reason: Reason
    ended_at: datetime
    answered_by: AnsweredBy | None = None
    duration: timedelta | None = None
    cause_is_known: bool = True
    """False: it failed, and the carrier names no cause when it is asked; it may be one after which nobody is called."""


@dataclass(frozen=True, kw_only=True)
class ProofMissing(Event):
    """The carrier was asked long enough and proved nothing.

    `search_at`: when its list is searched next for the call, which may still be found; None: the call must be over.
    """

    name: ClassVar[str] = "proof_missing"
    search_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Proven(Event):
    """Late proof of how an attempt of unknown outcome had ended."""

    name: ClassVar[str] = "proven"
    reason: Reason
    call_sid: str
    ended_at: datetime
    answered_by: AnsweredBy | None = None
    duration: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class Expired(Event):
    name: ClassVar[str] = "expired"


@dataclass(frozen=True, kw_only=True)
class ConsentEnded(Event):
    name: ClassVar[str] = "consent_ended"


@dataclass(frozen=True, kw_only=True)
class Cancelled(Event):
    name: ClassVar[str] = "cancelled"
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Rescheduled(Event):
    """Somebody moved it to another time; it is still the same attempt."""

    name: ClassVar[str] = "rescheduled"
    schedule: Schedule
    expires_at: datetime
    warnings: tuple[ScheduleWarning, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MovedBySettings(Event):
    """Hours, zones, zone data or the number changed, and with them the time at which it may ring."""

    name: ClassVar[str] = "moved_by_settings"
    schedule: Schedule
    due_at: datetime
    number_hash: bytes | None = field(default=None, repr=False)
    cause: str | None = None
    """What changed, if it was not a setting or the number: `tzdata 2026e to 2026f`."""


@dataclass(frozen=True, kw_only=True)
class ExpiryMoved(Event):
    """Somebody gave its interview another end."""

    name: ClassVar[str] = "expiry_moved"
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class HangUpWanted(Event):
    """The carrier is to end its call; what becomes of it the carrier will say."""

    name: ClassVar[str] = "hang_up_wanted"
    cause: HangUpCause


@dataclass(frozen=True, kw_only=True)
class NeverDialled(Event):
    """The carrier took it and has proven that it never began to dial: nobody rang, nothing is spent."""

    name: ClassVar[str] = "never_dialled"
    due_at: datetime
    call_sid: str


@dataclass(frozen=True, kw_only=True)
class LegSeen(Event):
    """An attempt of unknown outcome has a call after all, and it is not over: its line is held until it is."""

    name: ClassVar[str] = "leg_seen"
    call_sid: str
    rank: Rank
    look_at: datetime
    answered_by: AnsweredBy | None = None


@dataclass(frozen=True, kw_only=True)
class Deleted(Event):
    """Somebody wants to see it no more. It is over, and stays what it is."""

    name: ClassVar[str] = "deleted"
