"""Requests about interviews, attempts and replays, from HTTP or as messages, and their conversion to commands."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StrictInt, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from scheduler.domain import command as commands
from scheduler.domain.attempt import ConversationOutcome
from scheduler.domain.command import (
    CommandKind,
    CreateInterview,
    InvokeAttempt,
    ReportOutcome,
    RescheduleAttempt,
    UpdateInterview,
)
from scheduler.domain.delivery_history import ReplayFilter
from scheduler.domain.interview import InterviewStatus, NewAgent, NewCandidate, NewJob
from scheduler.domain.webhook import EventType
from scheduler.rules.resources import IF_MATCH
from scheduler.wire.field_types import (
    A_TIME,
    EXTERNAL_ID,
    NEW_EXTERNAL_ID,
    ExternalIdText,
    Instant,
    MayNameATime,
    Metadata,
    Strict,
)
from scheduler.wire.json_values import is_too_deep, refuse_unstorable, too_deep
from scheduler.wire.named_fields import OURS, FieldError, field_errors, invalid_fields, refuse_any

# --- Request bodies about call attempts, and their conversion to commands


class CallRequest(MayNameATime):
    """Another call. Without a time, it is placed as soon as allowed."""

    def to_command(self, interview_id: UUID) -> InvokeAttempt:
        return InvokeAttempt(interview_id=interview_id, scheduled_at=self.time_asked_for, time_name=self.time_name)


class CallMove(Strict):
    """A new time for a pending call attempt."""

    scheduled_at: Annotated[str, A_TIME]

    def to_command(self, interview_id: UUID, attempt_id: UUID, if_match: str | None) -> RescheduleAttempt:
        return RescheduleAttempt(
            interview_id=interview_id, attempt_id=attempt_id, scheduled_at=self.scheduled_at, if_match=if_match
        )


LONGEST_NOTE = 1000
"""Characters."""


class OutcomeReport(Strict):
    """The outcome of a conversation. `callBackAt` is required with CALL_BACK, and allowed with no other outcome."""

    outcome: ConversationOutcome
    call_back_at: Annotated[
        str | None,
        Field(
            examples=["2026-04-03T18:00:00"],
            description="The time that the person named, written like `scheduledAt`. Without an offset and a zone it is"
            " a time on the callee's clock.",
        ),
    ] = None
    note: Annotated[
        str | None,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_NOTE),
        Field(
            examples=["Prefers mornings."],
            description="Words about the conversation, for readers of the attempt (`outcomeNote`). Deleted with the"
            " candidate, and in no event or evidence.",
        ),
    ] = None

    def contradictions(self) -> Iterator[FieldError]:
        """Yield the errors between fields that are valid by themselves."""
        if (self.outcome is ConversationOutcome.CALL_BACK) == (self.call_back_at is not None):
            return
        if self.call_back_at is None:
            message = "CALL_BACK needs the time that the person named; add callBackAt."
            yield FieldError(field="callBackAt", code="MISSING_FIELD", message=message)
        else:
            message = "callBackAt needs the outcome CALL_BACK; remove it, or change the outcome."
            yield FieldError(field="callBackAt", code="CONFLICTING_FIELDS", message=message)

    def to_command(self, interview_id: UUID, attempt_id: UUID) -> ReportOutcome:
        return ReportOutcome(
            interview_id=interview_id,
            attempt_id=attempt_id,
            outcome=self.outcome,
            call_back_at=self.call_back_at,
            note=self.note,
        )


# --- Request bodies about interviews, and their conversion to commands


class InterviewTerms(MayNameATime):
    """Fields of every request for an interview. Without a time, the call is placed as soon as allowed."""

    job_id: UUID | None = Field(
        None,
        description="A job that the candidate is assigned to, OPEN or CLOSED. A new candidate is assigned to it. An"
        " agent with focus GENERIC needs no job. With any other focus the default is the candidate's only OPEN job.",
    )
    expires_at: str | None = Field(
        None, description="No call is placed after this time. Default: 7 days after the call is due."
    )
    is_test: StrictBool = Field(
        False, description="Validate the interview and complete it immediately, without placing a call."
    )
    metadata: Metadata = Field(
        default_factory=dict, description="At most 10 KB, 5 levels, 50 keys.", examples=[{"ref": "A-17"}]
    )
    external_id: Annotated[ExternalIdText | None, EXTERNAL_ID] = None

    def command_for(
        self,
        *,
        candidate_id: UUID | None,
        agent_id: UUID | None,
        job_id: UUID | None,
        candidate: NewCandidate | None = None,
        agent: NewAgent | None = None,
        job: NewJob | None = None,
    ) -> CreateInterview:
        """Build the command with these terms, for known or new resources."""
        return CreateInterview(
            agent_id=agent_id,
            agent=agent,
            candidate_id=candidate_id,
            candidate=candidate,
            job_id=job_id,
            job=job,
            scheduled_at=self.time_asked_for,
            time_name=self.time_name,
            expires_at=self.expires_at,
            is_test=self.is_test,
            metadata=self.metadata,
            external_id=self.external_id,
        )


class InterviewOfKnown(InterviewTerms):
    """An interview whose candidate and agent already exist."""

    candidate_id: UUID
    agent_id: UUID

    def to_command(self) -> CreateInterview:
        return self.command_for(candidate_id=self.candidate_id, agent_id=self.agent_id, job_id=self.job_id)


class InterviewChange(MayNameATime):
    """Fields to change. Omitted and null fields keep their value. At least one field is required."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    expires_at: str | None = Field(None, description="No call is placed after this time.")
    metadata: Metadata | None = Field(
        None,
        description="Merged into the stored metadata; null removes a key. At most 10 KB, 5 levels, 50 keys.",
        examples=[{"ref": "A-18"}],
    )
    status: Literal["COMPLETED", "CANCELLED"] | None = Field(
        None, description="Only for ONLINE interviews. The status of a PHONE interview follows from its calls."
    )
    external_id: Annotated[ExternalIdText | None, NEW_EXTERNAL_ID] = None

    def contradictions(self) -> Iterator[FieldError]:
        names = InterviewChange.model_fields
        if all(getattr(self, name) is None for name in names):
            *others, last = (to_camel(name) for name in names if name != "schedule_time")
            message = f"Send at least one of {', '.join(others)} and {last}."
            yield FieldError(field="", code="NOTHING_TO_CHANGE", message=message)
        yield from super().contradictions()

    def to_command(self, interview_id: UUID) -> UpdateInterview:
        return UpdateInterview(
            interview_id=interview_id,
            scheduled_at=self.time_asked_for,
            time_name=self.time_name,
            expires_at=self.expires_at,
            metadata=self.metadata,
            status=None if self.status is None else InterviewStatus(self.status),
            external_id=self.external_id,
        )


# --- Request body of a replay, and its conversion to a filter


_MAX_PLACE = 2**63 - 1


class ReplayRequest(Strict):
    """The range of a replay, by the times of the events."""

    since: Annotated[Instant, Field(alias="from", description="The first instant of the range.")]
    until: Annotated[
        Instant | None, Field(alias="to", description="The first instant after the range. Default: none.")
    ] = None
    types: Annotated[
        list[EventType] | None, Field(min_length=1, max_length=50, description="Only these types. Default: all.")
    ] = None
    only_failed: Annotated[
        StrictBool,
        Field(
            description="Only deliveries that have failed. Otherwise also those that were delivered, and events that"
            " occurred while the webhook was not active, or before it was created."
        ),
    ] = False
    after: Annotated[
        StrictInt, Field(ge=0, le=_MAX_PLACE, description="The `after` of the replay that this one continues.")
    ] = 0

    def contradictions(self) -> Iterator[FieldError]:
        """Yield the errors between fields that are valid by themselves."""
        if self.until is not None and self.until <= self.since:
            message = "to must be later than from; it is the first instant after the range."
            yield FieldError(field="to", code="INVALID_RANGE", message=message)

    def to_filter(self) -> ReplayFilter:
        types = None if self.types is None else frozenset(self.types)
        return ReplayFilter(since=self.since, until=self.until, types=types, only_failed=self.only_failed)


# --- Bodies of command messages: the values that HTTP sends in URL, headers and body, with resources named by id only


def _condition(if_match: str) -> str:
    if not IF_MATCH.fullmatch(if_match):
        message = 'Send * or a comma-separated list of ETags in double quotes, such as "12".'
        raise PydanticCustomError(OURS + "invalid_if_match", message)
    return if_match


class _OfCompany(Strict):
    company_id: UUID | None = None
    """Required with an ATS key; a regular key belongs to one company."""


class _OfInterview(_OfCompany):
    interview_id: UUID


class _OfAttempt(_OfInterview):
    attempt_id: UUID
    if_match: Annotated[str, AfterValidator(_condition)] | None = None


class Message(Protocol):
    """A parsed message body."""

    @property
    def company_id(self) -> UUID | None: ...

    def to_request(self) -> commands.Request:
        """Build the command's request."""
        ...


class _CreateInterview(InterviewOfKnown, _OfCompany):
    def to_request(self) -> commands.Request:
        return self.to_command()


class _UpdateInterview(InterviewChange, _OfInterview):
    def to_request(self) -> commands.Request:
        return self.to_command(self.interview_id)


class _DeleteInterview(_OfInterview):
    def to_request(self) -> commands.Request:
        return commands.DeleteInterview(interview_id=self.interview_id)


class _InvokeAttempt(CallRequest, _OfInterview):
    def to_request(self) -> commands.Request:
        return self.to_command(self.interview_id)


class _RescheduleAttempt(CallMove, _OfAttempt):
    def to_request(self) -> commands.Request:
        return self.to_command(self.interview_id, self.attempt_id, self.if_match)


class _DeleteAttempt(_OfAttempt):
    def to_request(self) -> commands.Request:
        return commands.DeleteAttempt(
            interview_id=self.interview_id, attempt_id=self.attempt_id, if_match=self.if_match
        )


_BODIES: Mapping[
    CommandKind,
    type[_CreateInterview | _UpdateInterview | _DeleteInterview | _InvokeAttempt | _RescheduleAttempt | _DeleteAttempt],
] = {
    CommandKind.CREATE_INTERVIEW: _CreateInterview,
    CommandKind.UPDATE_INTERVIEW: _UpdateInterview,
    CommandKind.DELETE_INTERVIEW: _DeleteInterview,
    CommandKind.INVOKE_ATTEMPT: _InvokeAttempt,
    CommandKind.RESCHEDULE_ATTEMPT: _RescheduleAttempt,
    CommandKind.DELETE_ATTEMPT: _DeleteAttempt,
}
KINDS = frozenset(_BODIES)
"""The kinds of commands that a message may contain; every other write needs HTTP."""


def read(kind: CommandKind, body: Any) -> Message:  # noqa: ANN401 - the message may contain anything
    """Parse the body of a message of one of `KINDS`. Raises InvalidFields."""
    if is_too_deep(body):
        raise invalid_fields([too_deep()])
    refuse_unstorable(body)
    try:
        message = _BODIES[kind].model_validate(body)
    except ValidationError as error:
        raise invalid_fields(field_errors(error.errors())) from None
    if isinstance(message, MayNameATime):
        refuse_any(message.contradictions())
    return message
