"""A command: what somebody asked to be done. Durable before it is answered, applied by a worker, once."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from scheduler.domain.agent import NewAgent
from scheduler.domain.candidate import NewCandidate
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.job import NewJob
from scheduler.domain.refusals import Refused


class CommandKind(StrEnum):
    CREATE_INTERVIEW = "create_interview"
    UPDATE_INTERVIEW = "update_interview"
    DELETE_INTERVIEW = "delete_interview"
    INVOKE_ATTEMPT = "invoke_attempt"
    RESCHEDULE_ATTEMPT = "reschedule_attempt"
    DELETE_ATTEMPT = "delete_attempt"

    # Applied by the API itself: they are in the inbox for their idempotency key alone, and answered.
    CREATE_COMPANY = "create_company"
    UPDATE_COMPANY = "update_company"
    DELETE_COMPANY = "delete_company"
    CREATE_JOB = "create_job"
    UPDATE_JOB = "update_job"
    DELETE_JOB = "delete_job"
    CREATE_CANDIDATE = "create_candidate"
    UPDATE_CANDIDATE = "update_candidate"
    DELETE_CANDIDATE = "delete_candidate"
    CREATE_AGENT = "create_agent"
    UPDATE_AGENT = "update_agent"
    DELETE_AGENT = "delete_agent"


class CommandState(StrEnum):
    WAITING = "WAITING"
    APPLIED = "APPLIED"
    QUARANTINED = "QUARANTINED"
    """Failed five times for no known reason; it holds its own interview and no other."""


TimeName = Literal["scheduledAt", "scheduleTime"]
"""The name under which a time was sent; a refusal of the time names it so."""


@dataclass(frozen=True, kw_only=True)
class CreateInterview:
    """Make an interview, and for a phone agent its first attempt."""

    agent_id: UUID | None = None
    agent: NewAgent | None = None
    candidate_id: UUID | None = None
    candidate: NewCandidate | None = None
    job_id: UUID | None = None
    job: NewJob | None = None
    scheduled_at: str | None = None
    """The text as it was sent; it is read once, when the command is applied."""
    time_name: TimeName = "scheduledAt"
    expires_at: str | None = None
    is_test: bool = False
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError unless it names one agent and one candidate, each known or new, and at most one job."""
        needed = ((self.agent_id, self.agent), (self.candidate_id, self.candidate))
        if any((known is None) == (new is None) for known, new in needed) or None not in (self.job_id, self.job):
            raise ValueError("an interview has one agent, one candidate and at most one job")


@dataclass(frozen=True, kw_only=True)
class UpdateInterview:
    """Change what is named; None leaves a thing as it is."""

    interview_id: UUID
    scheduled_at: str | None = None
    """The text as it was sent; moves an ONLINE interview, or the pending attempt of a PHONE one."""
    time_name: TimeName = "scheduledAt"
    expires_at: str | None = None
    metadata: dict[str, Any] | None = field(default=None, repr=False)
    """Merged into what is there; a value of None removes its key."""
    status: InterviewStatus | None = None
    """COMPLETED or CANCELLED, and only of an ONLINE interview."""


@dataclass(frozen=True, kw_only=True)
class DeleteInterview:
    """Call no more for it, and forget it; a live call runs to its end."""

    interview_id: UUID


@dataclass(frozen=True, kw_only=True)
class InvokeAttempt:
    """Call once more: a new attempt, and a new chain of retries. A pending one is replaced."""

    interview_id: UUID
    scheduled_at: str | None = None
    time_name: TimeName = "scheduledAt"


@dataclass(frozen=True, kw_only=True)
class RescheduleAttempt:
    """Move a pending attempt; its id stays."""

    interview_id: UUID
    attempt_id: UUID
    scheduled_at: str
    if_match: str | None = None
    """The header as it was sent; judged when the command is applied."""


@dataclass(frozen=True, kw_only=True)
class DeleteAttempt:
    """Cancel it when it is pending; it is listed no more."""

    interview_id: UUID
    attempt_id: UUID
    if_match: str | None = None


Request = CreateInterview | UpdateInterview | DeleteInterview | InvokeAttempt | RescheduleAttempt | DeleteAttempt
"""What a command may ask for; its kind says which of them."""

KIND_OF: dict[type[Request], CommandKind] = {
    CreateInterview: CommandKind.CREATE_INTERVIEW,
    UpdateInterview: CommandKind.UPDATE_INTERVIEW,
    DeleteInterview: CommandKind.DELETE_INTERVIEW,
    InvokeAttempt: CommandKind.INVOKE_ATTEMPT,
    RescheduleAttempt: CommandKind.RESCHEDULE_ATTEMPT,
    DeleteAttempt: CommandKind.DELETE_ATTEMPT,
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a command was not done; what `domain.refusals` says, in a form that can be stored."""

    family: str
    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a command: a refusal, or the resource as it stood when the command was applied.

    `snapshot` is an `InterviewStory`, company, job, candidate or agent as JSON, without metadata; it holds no name,
    title, number or address. It is None where the answer says no more than that it was done. `attempt_id` is the
    attempt that the command was about, and `etag` names the state that it was moved to.
    """

    refusal: Refusal | None = None
    snapshot: dict[str, Any] | None = None
    attempt_id: UUID | None = None
    etag: str | None = None


@dataclass(frozen=True, kw_only=True)
class Command:
    """A row of the inbox. Times are judged as of `received_at`."""

    id: UUID
    kind: CommandKind
    principal_id: UUID
    company_id: UUID | None
    """None for what makes or deletes a company."""
    idempotency_key: str | None
    request_hash: bytes = field(repr=False)
    received_at: datetime
    key_id: UUID | None = None
    """Which of the principal's keys sent it; the release before did not keep it."""
    body: dict[str, Any] | None = field(default=None, repr=False)
    """Gone once the command is applied."""
    interview_id: UUID | None = None
    """The interview that it is about; None while it does not exist yet."""
    applied_at: datetime | None = None
    answer: Answer | None = None
    failures: int = 0
    quarantined_at: datetime | None = None

    @property
    def state(self) -> CommandState:
        if self.applied_at is not None:
            return CommandState.APPLIED
        return CommandState.QUARANTINED if self.quarantined_at is not None else CommandState.WAITING


def refusal_of(refused: Refused) -> Refusal:
    """The refusal in a form that can be stored: its family decides the status when it is told."""
    family = next(parent.__name__ for parent in type(refused).__mro__ if Refused in parent.__bases__)
    return Refusal(family=family, code=refused.code, message=refused.message, details=refused.details)
