"""May this person be called, then? The question, and how it is answered."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field

from api_shim.schemas.envelope import Answer, ErrorView
from api_shim.schemas.interview import ScheduleView
from scheduler.domain.explanation import CallTimeAnswer, CallTimeQuestion
from scheduler.domain.schedule import ScheduleWarning
from scheduler.wire.base import Wire
from scheduler.wire.fields import FieldError
from scheduler.wire.sent import A_TIME, PhoneNumber, Strict, ZoneName


class CallTimeRequest(Strict):
    """Whom, and when; exactly one of phoneNumber and candidateId. Without a time: as soon as allowed."""

    phone_number: PhoneNumber | None = Field(None, examples=["+421915123456"], repr=False)
    candidate_id: UUID | None = Field(None, description="A candidate of the company.")
    timezone: ZoneName | None = Field(
        None, examples=["Europe/Bratislava"], description="IANA name; as a candidate's own, decides over the number's."
    )
    scheduled_at: Annotated[str | None, A_TIME] = None

    def contradictions(self) -> Iterator[FieldError]:
        """What is wrong between fields that are each right."""
        if self.phone_number is None and self.candidate_id is None:
            yield FieldError(field="phoneNumber", code="MISSING_FIELD", message="Send phoneNumber or candidateId.")
        if self.phone_number is not None and self.candidate_id is not None:
            message = "Send either phoneNumber or candidateId, not both."
            yield FieldError(field="candidateId", code="CONFLICTING_FIELDS", message=message)

    def to_question(self) -> CallTimeQuestion:
        return CallTimeQuestion(
            candidate_id=self.candidate_id,
            phone_number=self.phone_number,
            timezone=self.timezone,
            scheduled_at=self.scheduled_at,
        )


class CallTimeView(Wire):
    """What an interview with these would be answered; nothing was made."""

    allowed: bool
    refusal: ErrorView | None = Field(description="The error that an interview would be refused with.")
    schedule: ScheduleView | None = Field(description="Null when it would be refused.")
    warnings: list[ScheduleWarning]
    next_possible_at: datetime | None = Field(
        description="When it would be due; of a refused time, the next one that is allowed, where there is one."
    )

    @classmethod
    def of(cls, answer: CallTimeAnswer) -> Self:
        refusal, schedule = answer.refusal, answer.schedule
        return cls(
            allowed=refusal is None,
            refusal=None
            if refusal is None
            else ErrorView(code=refusal.code, message=refusal.message, details=refusal.details or None),
            schedule=None if schedule is None else ScheduleView.of(schedule, schedule.due_at),
            warnings=list(answer.warnings),
            next_possible_at=answer.next_possible_at,
        )


class CallTimeAnswered(Answer[CallTimeView]):
    """Whether, and when."""


QUESTIONS: dict[str, Example] = {
    "a number, a time": {
        "summary": "May this number be called at nine in the evening?",
        "value": {"phoneNumber": "+421915123456", "scheduledAt": "2026-04-02T21:00:00+02:00"},
    },
    "a candidate, now": {
        "summary": "When may this candidate be called next?",
        "value": {"candidateId": "9a1d2f5e-3c77-4c52-8a9b-5f0f7f3b2a10"},
    },
}
