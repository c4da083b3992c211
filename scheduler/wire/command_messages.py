"""Bodies of command messages: the values that HTTP sends in URL, headers and body. Resources are named by id only."""

from collections.abc import Mapping
from typing import Annotated, Any, Protocol
from uuid import UUID

from pydantic import AfterValidator, ValidationError
from pydantic_core import PydanticCustomError

from scheduler.domain import command as commands
from scheduler.domain.command import CommandKind
from scheduler.rules.resources import IF_MATCH
from scheduler.wire.field_types import MayNameATime, Strict
from scheduler.wire.json_values import is_too_deep, refuse_unstorable, too_deep
from scheduler.wire.named_fields import OURS, field_errors, invalid_fields, refuse_any
from scheduler.wire.requests import CallMove, CallRequest, InterviewChange, InterviewOfKnown


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
