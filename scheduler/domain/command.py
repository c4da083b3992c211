"""A command: a client's request for a change. It is stored before it is answered, and a worker applies it once."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypedDict
from uuid import UUID

from scheduler.domain.attempt import ConversationOutcome, Decision
from scheduler.domain.interview import InterviewStatus, NewAgent, NewCandidate, NewJob
from scheduler.domain.refusals import Refused


class CommandKind(StrEnum):
    CREATE_INTERVIEW = "create_interview"
    UPDATE_INTERVIEW = "update_interview"
    DELETE_INTERVIEW = "delete_interview"
    INVOKE_ATTEMPT = "invoke_attempt"
    RESCHEDULE_ATTEMPT = "reschedule_attempt"
    DELETE_ATTEMPT = "delete_attempt"

    # Given by voice servers only.
    REPORT_OUTCOME = "report_outcome"

    # Given by operators only.
    DECIDE_OUTCOME = "decide_outcome"
    CANCEL_ATTEMPT = "cancel_attempt"

    # Applied by the API itself. The inbox stores them only for their idempotency key, already answered.
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
    CREATE_WEBHOOK = "create_webhook"
    UPDATE_WEBHOOK = "update_webhook"
    DELETE_WEBHOOK = "delete_webhook"
    TEST_WEBHOOK = "test_webhook"
    RESET_WEBHOOK_CIRCUIT = "reset_webhook_circuit"
    ROTATE_WEBHOOK = "rotate_webhook_secret"
    REPLAY_DELIVERY = "replay_delivery"
    REPLAY_DELIVERIES = "replay_deliveries"
    CREATE_BATCH = "create_batch"
    PAUSE_BATCH = "pause_batch"
    RESUME_BATCH = "resume_batch"
    CANCEL_BATCH = "cancel_batch"


OF_OPERATORS = frozenset({CommandKind.DECIDE_OUTCOME, CommandKind.CANCEL_ATTEMPT})
"""The kinds of operators' commands. No client waits for their answers."""


class CommandState(StrEnum):
    WAITING = "WAITING"
    APPLIED = "APPLIED"
    QUARANTINED = "QUARANTINED"
    """Failed five times for an unknown reason. It blocks further commands of its own interview only."""


TimeName = Literal["scheduledAt", "scheduleTime", "callBackAt"]
"""The field name that the client used for a time. Refusals of the time use the same name."""


@dataclass(frozen=True, kw_only=True)
class CreateInterview:
    """Create an interview, and for a phone agent its first attempt."""

    agent_id: UUID | None = None
    agent: NewAgent | None = None
    candidate_id: UUID | None = None
    candidate: NewCandidate | None = None
    job_id: UUID | None = None
    job: NewJob | None = None
    scheduled_at: str | None = None
    """The client's text. It is parsed once, when the command is applied."""
    time_name: TimeName = "scheduledAt"
    expires_at: str | None = None
    is_test: bool = False
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    external_id: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError unless there is one agent and one candidate, each known or new, and at most one job."""
        required = ((self.agent_id, self.agent), (self.candidate_id, self.candidate))
        if any((known is None) == (new is None) for known, new in required) or None not in (self.job_id, self.job):
            raise ValueError("an interview has one agent, one candidate and at most one job")


@dataclass(frozen=True, kw_only=True)
class UpdateInterview:
    """Change some fields of an interview. A field that is None keeps its value."""

    interview_id: UUID
    scheduled_at: str | None = None
    """The client's text. It moves an ONLINE interview, or the pending attempt of a PHONE interview."""
    time_name: TimeName = "scheduledAt"
    expires_at: str | None = None
    metadata: dict[str, Any] | None = field(default=None, repr=False)
    """Merged into the stored metadata. A value of None removes its key."""
    status: InterviewStatus | None = None
    """COMPLETED or CANCELLED. Only for an ONLINE interview."""
    external_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class DeleteInterview:
    """Delete an interview and cancel its pending attempt. A call in progress is not interrupted."""

    interview_id: UUID


@dataclass(frozen=True, kw_only=True)
class InvokeAttempt:
    """Call again: create a new attempt with a new chain of retries. A pending attempt is replaced."""

    interview_id: UUID
    scheduled_at: str | None = None
    time_name: TimeName = "scheduledAt"


@dataclass(frozen=True, kw_only=True)
class RescheduleAttempt:
    """Move a pending attempt to another time. It keeps its id."""

    interview_id: UUID
    attempt_id: UUID
    scheduled_at: str
    if_match: str | None = None
    """The client's header. It is evaluated when the command is applied."""


@dataclass(frozen=True, kw_only=True)
class DeleteAttempt:
    """Remove an attempt from all lists. A pending attempt is also cancelled."""

    interview_id: UUID
    attempt_id: UUID
    if_match: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReportOutcome:
    """Record the outcome of an answered call, and create the attempt that follows from it."""

    interview_id: UUID
    attempt_id: UUID
    outcome: ConversationOutcome
    call_back_at: str | None = None
    """The client's text. With `CALL_BACK` only."""
    note: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class DecideOutcome:
    """Record an operator's decision about an attempt whose outcome is unknown. `DID_NOT_RING` also calls again."""

    interview_id: UUID
    attempt_id: UUID
    decision: Decision
    reason: str
    operator: str
    """The actor in the history, in place of an API key."""


@dataclass(frozen=True, kw_only=True)
class CancelAttempt:
    """Cancel an attempt for an operator, if it is still pending. Clients still see it, with the operator's reason."""

    interview_id: UUID
    attempt_id: UUID
    reason: str
    operator: str
    """The actor in the history, in place of an API key."""


Request = (
    CreateInterview
    | UpdateInterview
    | DeleteInterview
    | InvokeAttempt
    | RescheduleAttempt
    | DeleteAttempt
    | ReportOutcome
    | DecideOutcome
    | CancelAttempt
)
"""The request of a command, one class per kind."""

KIND_OF: dict[type[Request], CommandKind] = {
    CreateInterview: CommandKind.CREATE_INTERVIEW,
    UpdateInterview: CommandKind.UPDATE_INTERVIEW,
    DeleteInterview: CommandKind.DELETE_INTERVIEW,
    InvokeAttempt: CommandKind.INVOKE_ATTEMPT,
    RescheduleAttempt: CommandKind.RESCHEDULE_ATTEMPT,
    DeleteAttempt: CommandKind.DELETE_ATTEMPT,
    ReportOutcome: CommandKind.REPORT_OUTCOME,
    DecideOutcome: CommandKind.DECIDE_OUTCOME,
    CancelAttempt: CommandKind.CANCEL_ATTEMPT,
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The refusal of a command: an error of `domain.refusals` in a form that can be stored."""

    family: str
    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of a command: a refusal, or the resource right after the command was applied.

    `snapshot` is an `InterviewStory`, company, job, candidate, agent or webhook as JSON, without metadata and external
    id. It contains no name, title, number, address or secret, and is None for commands without a resource in their
    answer.
    `attempt_id` is the attempt that the command was about, `etag` the state to which it was moved. `existed` means that
    an earlier request had created the resource with this external id. None instead of False is not stored.
    """

    refusal: Refusal | None = None
    snapshot: dict[str, Any] | None = None
    attempt_id: UUID | None = None
    etag: str | None = None
    existed: Literal[True] | None = None


class RequestHashes(TypedDict):
    """The hashes of one request, as the fields of `Command` of these names."""

    request_hash: bytes
    former_hash: bytes


@dataclass(frozen=True, kw_only=True)
class Command:
    """A row of the inbox. Times are evaluated as of `received_at`."""

    id: UUID
    kind: CommandKind
    principal_id: UUID
    company_id: UUID | None
    """None for a command that creates or deletes a company."""
    idempotency_key: str | None
    request_hash: bytes = field(repr=False)
    """Keyed. Rows of an earlier version have `former_hash` here for up to 30 days."""
    received_at: datetime
    former_hash: bytes = field(default=b"", repr=False)
    """The hash without a key. Never stored, only compared with rows of an earlier version."""
    key_id: UUID | None = None
    """The principal's key that sent it. None for commands stored by the previous version."""
    body: dict[str, Any] | None = field(default=None, repr=False)
    """Removed after the command was applied."""
    interview_id: UUID | None = None
    """None while the interview does not exist yet."""
    applied_at: datetime | None = None
    answer: Answer | None = None
    failures: int = 0
    quarantined_at: datetime | None = None
    awaited_until: datetime | None = None
    """The request that sent it may return its answer until then. None if no request waits, or the wait has ended."""

    def is_of_request(self, request_hash: bytes, former_hash: bytes) -> bool:
        """Return True if this stored command is of the request with these hashes."""
        return self.request_hash in {request_hash, former_hash}

    @property
    def is_refused(self) -> bool:
        return self.answer is not None and self.answer.refusal is not None

    @property
    def is_refused_while_awaited(self) -> bool:
        """True if the refusal may be the response of the request that waits. If it is not, a partner event follows."""
        if self.applied_at is None or self.awaited_until is None:
            return False
        return self.is_refused and self.applied_at < self.awaited_until

    @property
    def state(self) -> CommandState:
        if self.applied_at is not None:
            return CommandState.APPLIED
        return CommandState.QUARANTINED if self.quarantined_at is not None else CommandState.WAITING


def refusal_of(refused: Refused) -> Refusal:
    """Convert an error to a form that can be stored. Its family determines the HTTP status of the answer."""
    family = next(parent.__name__ for parent in type(refused).__mro__ if Refused in parent.__bases__)
    return Refusal(family=family, code=refused.code, message=refused.message, details=refused.details)
