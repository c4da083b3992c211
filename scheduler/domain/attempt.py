"""An attempt: one try to reach one person by phone. Its states, its events and its end reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from scheduler.domain.call import AnsweredBy, CallProgress, MachineDetection, Schedule, ScheduleWarning


class AttemptState(StrEnum):
    PENDING = "PENDING"
    """Waits for its time. The phone has certainly not rung yet."""
    IN_PROGRESS = "IN_PROGRESS"
    """Claimed. The phone may be ringing, and the dialler or the carrier owes news of it."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Phase(StrEnum):
    """The phase of an attempt that is `IN_PROGRESS`. In any other state it is None."""

    DIALLING = "DIALLING"
    """A dialler holds the attempt until `lease_until` and may send its single POST."""
    PLACED = "PLACED"
    """The carrier has returned the call's sid and will report its end."""
    UNKNOWN = "UNKNOWN"
    """The answer to the POST was lost, so the carrier is polled. The attempt is never dialled again automatically."""


class Reason(StrEnum):
    """The reason for the end of an attempt."""

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
    """A machine or a fax answered the call."""
    DECLINED = "DECLINED"
    BLOCKED_BY_NETWORK = "BLOCKED_BY_NETWORK"
    """A network on the way blocked the call because of the caller id. The person has not declined it."""
    INVALID_NUMBER = "INVALID_NUMBER"
    UNREACHABLE = "UNREACHABLE"
    """The carrier knows no way to the number now. This may be an outage, or the number does not exist."""
    INSTRUCTIONS_FAILED = "INSTRUCTIONS_FAILED"
    """The call was answered, but the voice server gave the carrier no instructions for it."""
    CARRIER_ERROR = "CARRIER_ERROR"
    CANCELLED_AT_CARRIER = "CANCELLED_AT_CARRIER"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    """There is no proof whether the phone rang. Only a person may decide to call again."""


class Decision(StrEnum):
    """An operator's decision about an attempt whose outcome is unknown."""

    RANG = "RANG"
    """The phone rang, for example according to the carrier's console. No call follows."""
    DID_NOT_RING = "DID_NOT_RING"
    """The phone did not ring, so the interview is invoked again."""
    LEFT = "LEFT"
    """The attempt stays as it is. No call follows."""


class ConversationOutcome(StrEnum):
    """The outcome of an answered call, as its conversation has reported it."""

    FINISHED = "FINISHED"
    """The conversation took place. Also without a report in time."""
    CALL_BACK = "CALL_BACK"
    """The person named another time, at which the next attempt of the chain is due."""
    SCREENED = "SCREENED"
    """An assistant answered for the person."""
    HUNG_UP_EARLY = "HUNG_UP_EARLY"
    """The person hung up before the conversation."""
    TECHNICAL = "TECHNICAL"
    """The conversation failed for a technical reason."""
    WRONG_PERSON = "WRONG_PERSON"
    """The number is not the candidate's. The candidate is never called at it again."""
    OPTED_OUT = "OPTED_OUT"
    """The person asks for no further calls. The company never calls the number again."""


class HangUpCause(StrEnum):
    """The reason for ending an accepted call at the carrier."""

    QUEUED_PAST_CLOSING = "QUEUED_PAST_CLOSING"
    """The call would leave the carrier's queue when this person may no longer be called."""
    COMPANY_DELETED = "COMPANY_DELETED"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One row of the schedule. Instants are aware UTC.

    `epoch` increases with each event. A dialler or a poll writes its result only if the epoch is still the one that it
    read.
    """

    id: UUID
    interview_id: UUID
    company_id: UUID
    chain_id: UUID
    """The id of the first attempt in its chain of retries, possibly its own."""
    retry_number: int
    manual: bool
    """True for an attempt created by an invoke. It is first among its company's due attempts."""
    state: AttemptState
    schedule: Schedule
    due_at: datetime
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    number_hash: bytes | None = field(default=None, repr=False)
    """Keyed hash of the number whose line it takes. None for a test, which takes no line."""
    called_number: str | None = field(default=None, repr=False)
    """E.164, for polls of the carrier. Set from the claim until the call has ended and is no longer searched for."""
    warnings: tuple[ScheduleWarning, ...] = ()
    phase: Phase | None = None
    reason: Reason | None = None
    released_until: datetime | None = None
    epoch: int = 0
    token: str | None = field(default=None, repr=False)
    claimed_at: datetime | None = None
    lease_until: datetime | None = None
    call_sid: str | None = None
    heard_rank: CallProgress = CallProgress.NOTHING
    unknown_at: datetime | None = None
    look_at: datetime | None = None
    """The time of the next poll for missing news."""
    listed_at: datetime | None = None
    """The start of the last poll whose list of calls was returned in full."""
    search_at: datetime | None = None
    """The next search of the carrier's list for the call, after the outcome was given up."""
    looks: int = 0
    not_placed: int = 0
    """How often in a row the carrier did not accept it. Uses up no retry."""
    machine_detection: MachineDetection | None = None
    """The mode of its company at the claim. The order asks for no more. None: claimed by an earlier version."""
    answered_by: AnsweredBy | None = None
    duration: timedelta | None = None
    hung_up_at: datetime | None = None
    """The end of the call. Set while it waits for the verdict of machine detection, its notifications or a report."""
    ended_at: datetime | None = None
    hang_up: HangUpCause | None = None
    """Set while the carrier must end the call."""
    sip_code: int | None = None
    """Set while a failed call waits for the cause in its notifications: the SIP code of its callback, 0 for none."""
    cause_is_lost: bool = False
    """The call failed for an unknown cause, because its last callback was lost. No automatic retry follows."""
    instructions_failed: bool = False
    """The voice server gave the answered call no instructions, so no conversation took place."""
    deleted_at: datetime | None = None
    """No longer listed, but still counted."""
    decision: Decision | None = None
    """An operator's decision about its unknown outcome. A call that is found afterwards removes it."""
    decided_at: datetime | None = None
    history_seal: bytes | None = field(default=None, repr=False)
    """The closing seal of its history. None: no entry has a seal."""
    outcome: ConversationOutcome | None = None
    """Reported by the conversation of an answered call, or assumed after the wait for its report."""
    outcome_at: datetime | None = None
    outcome_note: str | None = field(default=None, repr=False)
    """Words of the voice server about the conversation. Personal data."""
    outcome_until: datetime | None = None
    """The interview of this answered call stays open until its outcome is reported, or until then."""
    call_back: Schedule | None = None
    """The time that the person named. With `CALL_BACK` only."""
    call_backs: int = 0
    """How many of its predecessors in the chain ended with a time that the person named. They used up no retry."""


class Event:
    """An event of an attempt. `name` identifies it in the history and in `lifecycle.state_machine`."""

    name: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class OfPost(Event):
    """An event that may follow from the answer to the POST."""

    look: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    """What the last look before the POST has found, as `lifecycle.look_records` writes it. None: not known here."""


@dataclass(frozen=True, kw_only=True)
class Created(Event):
    name: ClassVar[str] = "created"


@dataclass(frozen=True, kw_only=True)
class CreatedAsTest(Event):
    name: ClassVar[str] = "created_as_test"


@dataclass(frozen=True, kw_only=True)
class Claimed(Event):
    """A dialler has claimed the attempt and its line, and may send the single POST until `lease_until`."""

    name: ClassVar[str] = "claimed"
    token: str = field(repr=False)
    lease_until: datetime
    machine_detection: MachineDetection | None = None


@dataclass(frozen=True, kw_only=True)
class Deferred(Event):
    """The last look forbade the call. Nothing was sent."""

    name: ClassVar[str] = "deferred"
    due_at: datetime
    cause: str


@dataclass(frozen=True, kw_only=True)
class NotPlaced(OfPost):
    """The carrier did not accept the call: the phone did not ring, and no retry is used up."""

    name: ClassVar[str] = "not_placed"
    due_at: datetime
    cause: str


@dataclass(frozen=True, kw_only=True)
class Placed(OfPost):
    """The carrier has returned the call's sid."""

    name: ClassVar[str] = "placed"
    call_sid: str
    look_at: datetime


@dataclass(frozen=True, kw_only=True)
class AnswerLost(OfPost):
    """It is unknown whether the carrier accepted the call."""

    name: ClassVar[str] = "answer_lost"
    look_at: datetime
    cause: str


@dataclass(frozen=True, kw_only=True)
class Progressed(OfPost):
    """The call has progressed but not ended."""

    name: ClassVar[str] = "progressed"
    rank: CallProgress
    answered_by: AnsweredBy | None = None
    instructions_failed: bool | None = None
    """True if the carrier got no instructions from the voice server, and requested ours instead."""


@dataclass(frozen=True, kw_only=True)
class VerdictHeard(OfPost):
    """Asynchronous machine detection has decided who answered a call that was connected before."""

    name: ClassVar[str] = "verdict_heard"
    answered_by: AnsweredBy


@dataclass(frozen=True, kw_only=True)
class VerdictAwaited(OfPost):
    """An answered call has ended before the verdict of its asynchronous machine detection. At `look_at` it is polled.

    Without a verdict it then counts as answered by a person. Also of a call whose end was proven late: of a short one,
    until its notifications are read, and of one that was found live, until its conversation has reported an outcome.
    """

    name: ClassVar[str] = "verdict_awaited"
    call_sid: str
    look_at: datetime
    duration: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class CauseAwaited(OfPost):
    """A call has failed. At `look_at` it is polled, because only its notifications may name the cause."""

    name: ClassVar[str] = "cause_awaited"
    sip_code: int
    """As in `Attempt`."""
    look_at: datetime


@dataclass(frozen=True, kw_only=True)
class Ended(OfPost):
    """The call has ended, and the carrier has reported how."""

    name: ClassVar[str] = "ended"
    reason: Reason
    ended_at: datetime
    answered_by: AnsweredBy | None = None
    instructions_failed: bool | None = None
    """True if this news was the first that said so, also if the conversation reported an outcome nevertheless."""
    duration: timedelta | None = None
    cause_is_known: bool = True
    """False if the call failed and a poll returned no cause. It may be a cause after which no retry is allowed."""


@dataclass(frozen=True, kw_only=True)
class ProofMissing(Event):
    """The carrier was polled long enough without proof of the outcome.

    `search_at` is the next search of its list, in which the call may still appear. None: the call must have ended.
    """

    name: ClassVar[str] = "proof_missing"
    search_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Proven(Event):
    """Late proof of the outcome of an attempt that was given up as unknown."""

    name: ClassVar[str] = "proven"
    reason: Reason
    call_sid: str
    ended_at: datetime
    answered_by: AnsweredBy | None = None
    instructions_failed: bool | None = None
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
    note: str | None = None
    """The words of the operator who cancelled it."""


@dataclass(frozen=True, kw_only=True)
class Rescheduled(Event):
    """A client moved the attempt to another time."""

    name: ClassVar[str] = "rescheduled"
    schedule: Schedule
    expires_at: datetime
    warnings: tuple[ScheduleWarning, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MovedBySettings(Event):
    """Hours, time zones, zone data or the number changed, and with them the time of the attempt."""

    name: ClassVar[str] = "moved_by_settings"
    schedule: Schedule
    due_at: datetime
    number_hash: bytes | None = field(default=None, repr=False)
    cause: str | None = None
    """Set if neither a setting nor the number changed: `tzdata 2026e to 2026f`."""


@dataclass(frozen=True, kw_only=True)
class ExpiryMoved(Event):
    """A client changed the expiry of its interview."""

    name: ClassVar[str] = "expiry_moved"
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class HangUpWanted(Event):
    """The carrier must end the call, and will report the outcome."""

    name: ClassVar[str] = "hang_up_wanted"
    cause: HangUpCause


@dataclass(frozen=True, kw_only=True)
class NeverDialled(Event):
    """The carrier accepted the call and then proved that it never dialled. No retry is used up."""

    name: ClassVar[str] = "never_dialled"
    due_at: datetime
    call_sid: str


@dataclass(frozen=True, kw_only=True)
class LegSeen(Event):
    """A call of an attempt with unknown outcome was found in progress. Its line is held until the call ends."""

    name: ClassVar[str] = "leg_seen"
    call_sid: str
    rank: CallProgress
    look_at: datetime
    answered_by: AnsweredBy | None = None
    instructions_failed: bool | None = None
    """As of `Progressed`."""


@dataclass(frozen=True, kw_only=True)
class Decided(Event):
    """An operator has decided about the unknown outcome. Late proof still replaces it."""

    name: ClassVar[str] = "decided"
    decision: Decision
    reason: str


@dataclass(frozen=True, kw_only=True)
class Reported(Event):
    """The conversation has reported its outcome, during the call or while its interview waits for the report."""

    name: ClassVar[str] = "reported"
    outcome: ConversationOutcome
    outcome_note: str | None = field(default=None, repr=False)
    call_back: Schedule | None = None


@dataclass(frozen=True, kw_only=True)
class OutcomeAwaited(Event):
    """A call of a company that can report outcomes was answered and has ended without a report."""

    name: ClassVar[str] = "outcome_awaited"
    until: datetime


@dataclass(frozen=True, kw_only=True)
class NotReported(Event):
    """No outcome was reported in time, so the conversation counts as finished."""

    name: ClassVar[str] = "not_reported"


@dataclass(frozen=True, kw_only=True)
class Deleted(Event):
    """A client removed a finished attempt from all lists. Its state does not change."""

    name: ClassVar[str] = "deleted"


@dataclass(frozen=True, kw_only=True)
class CompanyAttemptFilter:
    """A filter for the attempts of a company. A field that is None or empty does not filter."""

    interview_id: UUID | None = None
    candidate_id: UUID | None = None
    external_id: str | None = field(default=None, repr=False)
    """That of the interview."""
    states: frozenset[AttemptState] = frozenset()
