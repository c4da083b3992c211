"""What a request for an interview looks like, and the command that it becomes."""

from collections.abc import Iterator
from datetime import date
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field, StrictBool

from api_shim.schemas.fields import FieldError
from api_shim.schemas.sent import Day, Email, MayNameATime, Metadata, Name, PhoneNumber, Strict, ZoneName
from scheduler.domain.candidate import NewCandidate
from scheduler.domain.command import CreateInterview


class InlineCandidate(Strict):
    """A person who is not known here yet; at least one of email and phoneNumber."""

    first_name: Name = Field(examples=["Jana"], repr=False)
    last_name: Name = Field(examples=["Nováková"], repr=False)
    gdpr_expiry_date: Day = Field(
        examples=["2030-12-31"], description="The last day on which this person may be called; in the future."
    )
    email: Email | None = Field(None, examples=["jana@example.com"], repr=False)
    phone_number: PhoneNumber | None = Field(None, examples=["+421915123456"], repr=False)
    timezone: ZoneName | None = Field(
        None, examples=["Europe/Bratislava"], description="IANA name; decides over the phone number's zones."
    )

    def to_new_candidate(self) -> NewCandidate:
        return NewCandidate(
            first_name=self.first_name,
            last_name=self.last_name,
            gdpr_expiry_date=self.gdpr_expiry_date,
            email=self.email,
            phone_number=self.phone_number,
            timezone=self.timezone,
        )


class InterviewRequest(MayNameATime):
    """An interview: with whom, by which agent, and when. Without a time it is called as soon as allowed."""

    candidate_id: UUID | None = Field(None, description="A candidate of the company; or send `candidate`.")
    candidate: InlineCandidate | None = Field(None, description="A new candidate; or send `candidateId`.")
    agent_id: UUID
    expires_at: str | None = Field(None, description="After this nobody is called; default 7 days after due.")
    is_test: StrictBool = Field(False, description="Checked like any other and completed at once; nobody rings.")
    metadata: Metadata = Field(
        default_factory=dict, description="At most 10 KB, 5 levels, 50 keys.", examples=[{"ref": "A-17"}]
    )

    def contradictions(self) -> Iterator[FieldError]:
        if self.candidate_id is None and self.candidate is None:
            yield FieldError(field="candidate", code="MISSING_FIELD", message="Send candidate or candidateId.")
        if self.candidate_id is not None and self.candidate is not None:
            message = "Send either candidate or candidateId, not both."
            yield FieldError(field="candidateId", code="CONFLICTING_FIELDS", message=message)
        if self.candidate is not None and not (self.candidate.email or self.candidate.phone_number):
            message = "A candidate needs an email or a phoneNumber."
            yield FieldError(field="candidate", code="CONTACT_REQUIRED", message=message)
        yield from super().contradictions()

    def stale(self, today: date) -> Iterator[FieldError]:
        """What was right on another day."""
        if self.candidate is not None and self.candidate.gdpr_expiry_date <= today:
            message = "The consent must end in the future; send a later date, or call nobody."
            yield FieldError(field="candidate.gdprExpiryDate", code="NOT_IN_FUTURE", message=message)

    def to_command(self) -> CreateInterview:
        return CreateInterview(
            agent_id=self.agent_id,
            candidate_id=self.candidate_id,
            candidate=None if self.candidate is None else self.candidate.to_new_candidate(),
            scheduled_at=self.time_asked_for,
            expires_at=self.expires_at,
            is_test=self.is_test,
            metadata=self.metadata,
        )


EXAMPLES: dict[str, Example] = {
    "at a time": {
        "summary": "Somebody new, at nine in the morning on a clock that is 10:30 ahead of UTC",
        "value": {
            "candidate": {
                "firstName": "Jana",
                "lastName": "Nováková",
                "gdprExpiryDate": "2030-12-31",
                "phoneNumber": "+61870701234",
            },
            "agentId": "3f0c0f3e-8f1e-4b59-9d0b-3a8f0a4c1d11",
            "scheduledAt": "2026-04-02T09:00:00+10:30",
            "metadata": {"ref": "A-17"},
        },
    },
    "as soon as allowed": {
        "summary": "Somebody known, now or at the next opening",
        "value": {
            "candidateId": "9a1d2f5e-3c77-4c52-8a9b-5f0f7f3b2a10",
            "agentId": "3f0c0f3e-8f1e-4b59-9d0b-3a8f0a4c1d11",
        },
    },
}
