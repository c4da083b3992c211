"""Request and response schemas for checking a call time."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field

from api_shim.schemas.envelope import Answer, ErrorView
from api_shim.schemas.interview import ScheduleView
from scheduler.domain.call import ScheduleWarning
from scheduler.domain.explanation import CallTimeAnswer, CallTimeQuestion
from scheduler.wire.field_types import A_TIME, PhoneNumber, Strict, Wire, ZoneName
from scheduler.wire.named_fields import FieldError


class CallTimeRequest(Strict):
    """The person and the time. Send either phoneNumber or candidateId. Without a time: as soon as allowed."""

    phone_number: PhoneNumber | None = Field(None, examples=["+421915123456"], repr=False)
    candidate_id: UUID | None = Field(None, description="A candidate of the company.")
    timezone: ZoneName | None = Field(
        None, examples=["Europe/Bratislava"], description="IANA name. Overrides the number's time zones."
    )
    scheduled_at: Annotated[str | None, A_TIME] = None

    def contradictions(self) -> Iterator[FieldError]:
        """Yield errors between fields that are valid on their own."""
        if self.phone_number is None and self.candidate_id is None:
            yield FieldError(field="phoneNumber", code="MISSING_FIELD", message="Send phoneNumber or candidateId.")
        if self.phone_number is not None and self.candidate_id is not None:
            message = "Send either phoneNumber or candidateId, not both."
            yield FieldError(field="candidateId", code="CONFLICTING_FIELDS", message=message)

    def to_question(self) -> CallTimeQuestion:
        return CallTimeQuestion(**dict(self))


class CallTimeView(Wire):
    """The answer that an interview with this person and time would get. Nothing was created."""

    allowed: bool
    refusal: ErrorView | None = Field(description="The error with which the interview would be rejected.")
    schedule: ScheduleView | None = Field(description="Null if the interview would be rejected.")
    warnings: list[ScheduleWarning]
    next_possible_at: datetime | None = Field(
        description="When the call would be due. For a rejected time: the next allowed time, if there is one."
    )

    @classmethod
    def of(cls, answer: CallTimeAnswer) -> Self:
        refusal, schedule = answer.refusal, answer.schedule
        return cls.view_of(
            answer,
            allowed=refusal is None,
            refusal=None if refusal is None else ErrorView.of(refusal),
            schedule=None if schedule is None else ScheduleView.of(schedule, schedule.due_at),
        )


class CallTimeAnswered(Answer[CallTimeView]):
    """The result of a call time check."""


QUESTIONS: dict[str, Example] = {
    "a number, a time": {
        "summary": "Check whether a number may be called at nine in the evening",
        "value": {"phoneNumber": "+421915123456", "scheduledAt": "2026-04-02T21:00:00+02:00"},
    },
    "a candidate, now": {
        "summary": "Check when a candidate may be called next",
        "value": {"candidateId": "9a1d2f5e-3c77-4c52-8a9b-5f0f7f3b2a10"},
    },
}
