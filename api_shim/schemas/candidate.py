"""Request and response schemas for candidates."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field

from api_shim.schemas.envelope import CursorPage, answer, page
from scheduler.domain.interview import MAX_JOBS, Candidate, CandidateStatus, NewCandidate
from scheduler.domain.resource import Changes
from scheduler.wire.field_types import (
    EXTERNAL_ID,
    NEW_EXTERNAL_ID,
    Day,
    Email,
    ExternalIdText,
    Metadata,
    Name,
    PhoneNumber,
    Strict,
    Wire,
    ZoneName,
    left_out,
    named,
    new_of,
)
from scheduler.wire.named_fields import FieldError

_CONSENT = "The last day on which this person may be called. Must be in the future."
_ZONE = "IANA name. Overrides the time zones of the phone number."
JobIds = Annotated[list[UUID], Field(min_length=1, max_length=MAX_JOBS)]


class Person(Strict):
    """The person in every request that creates a candidate."""

    first_name: Name = Field(examples=["Jana"], repr=False)
    last_name: Name = Field(examples=["Nováková"], repr=False)
    gdpr_expiry_date: Day = Field(examples=["2030-12-31"], description=_CONSENT)
    email: Email | None = Field(None, examples=["jana@example.com"], repr=False)
    phone_number: PhoneNumber | None = Field(None, examples=["+421915123456"], repr=False)
    timezone: ZoneName | None = Field(None, examples=["Europe/Bratislava"], description=_ZONE)
    external_id: Annotated[ExternalIdText | None, EXTERNAL_ID] = None

    def to_new_candidate(self) -> NewCandidate:
        return new_of(NewCandidate, self)


class CandidateRequest(Person):
    """A person who may be called. At least one of `email` and `phoneNumber` is required."""

    job_ids: JobIds | None = Field(None, description="The jobs that the candidate is assigned to.")
    job_id: UUID | None = Field(
        None, description="A single job. Ignored if `jobIds` is sent.", json_schema_extra={"deprecated": True}
    )
    status: CandidateStatus = CandidateStatus.APPLIED
    metadata: Metadata = Field(default_factory=dict)

    def contradictions(self, today: date) -> Iterator[FieldError]:
        if self.email is None and self.phone_number is None:
            message = "A candidate needs an e-mail address (email) or a phone number (phoneNumber)."
            yield FieldError(field="email", code="CONTACT_REQUIRED", message=message)
        yield from not_in_future(self.gdpr_expiry_date, today)

    def to_new_candidate(self) -> NewCandidate:
        return new_of(NewCandidate, self, job_ids=_jobs(self.job_ids, self.job_id))


class CandidateChange(Strict):
    """Fields to change. Omitted fields keep their value, null clears a field. Pending calls use the new number."""

    first_name: Name = Field(default_factory=left_out, repr=False)
    last_name: Name = Field(default_factory=left_out, repr=False)
    gdpr_expiry_date: Day = Field(default_factory=left_out, description=_CONSENT)
    email: Email | None = Field(None, repr=False)
    phone_number: PhoneNumber | None = Field(None, repr=False)
    timezone: ZoneName | None = Field(None, description=_ZONE)
    job_ids: Annotated[list[UUID], Field(max_length=MAX_JOBS)] | None = Field(
        None, description="Replaces all assigned jobs."
    )
    job_id: UUID | None = Field(
        None, description="A single job. Ignored if `jobIds` is sent.", json_schema_extra={"deprecated": True}
    )
    status: CandidateStatus = Field(default_factory=left_out)
    metadata: Metadata | None = Field(None, description="Merged into the existing metadata. Null removes a key.")
    external_id: Annotated[ExternalIdText | None, NEW_EXTERNAL_ID] = None

    def contradictions(self, today: date) -> Iterator[FieldError]:
        if "gdpr_expiry_date" in self.model_fields_set:
            yield from not_in_future(self.gdpr_expiry_date, today)

    def to_changes(self) -> Changes:
        of_jobs = {"job_ids", "job_id"}
        changes = named(self, *(name for name in type(self).model_fields if name not in of_jobs))
        if not of_jobs & self.model_fields_set:
            return changes
        return {**changes, "job_ids": _jobs(self.job_ids, self.job_id)}


def not_in_future(day: date, today: date, field: str = "gdprExpiryDate") -> Iterator[FieldError]:
    """Yield an error if consent has ended."""
    if day <= today:
        message = "gdprExpiryDate must be in the future, for example 2030-01-31."
        yield FieldError(field=field, code="NOT_IN_FUTURE", message=message)


def _jobs(several: list[UUID] | None, one: UUID | None) -> tuple[UUID, ...]:
    if several is not None:
        return tuple(several)
    return () if one is None else (one,)


class Links(Wire):
    interviews: str
    analyses: None = Field(default=None, description="Always null: Duecall makes no analyses.")


class CandidateView(Wire):
    id: UUID
    company_id: UUID
    first_name: str | None = Field(description="Null after the candidate was erased, like all personal data.")
    last_name: str | None
    email: str | None
    phone_number: str | None
    timezone: str | None
    gdpr_expiry_date: date
    status: CandidateStatus
    job_id: UUID | None = Field(description="The first of `jobIds`.", json_schema_extra={"deprecated": True})
    job_ids: list[UUID]
    overall_rating: None = Field(default=None, description="Always null: Duecall does not rate candidates.")
    analysis_count: int = Field(default=0, description="Always 0: Duecall does not analyse candidates.")
    interview_count: int
    links: Links
    metadata: dict[str, Any]
    external_id: str | None = Field(description="Your own id of the candidate. Null after the candidate was erased.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        return cls.view_of(
            candidate,
            job_id=candidate.job_ids[0] if candidate.job_ids else None,
            links=Links(interviews=f"/interviews?candidateId={candidate.id}"),
        )


CandidateAnswer = answer("CandidateAnswer", CandidateView, "A candidate.")
CandidatePage = page("CandidatePage", CursorPage, CandidateView, "Candidates.")
CandidatesAnswer = answer("CandidatesAnswer", CandidatePage, "A page of candidates.")


CANDIDATES: dict[str, Example] = {
    "a person": {
        "summary": "A candidate with a phone number and the last day of consent",
        "value": {
            "firstName": "Jana",
            "lastName": "Nováková",
            "gdprExpiryDate": "2030-12-31",
            "phoneNumber": "+421915123456",
            "timezone": "Europe/Bratislava",
        },
    },
}
CANDIDATE_CHANGES: dict[str, Example] = {
    "another number": {
        "summary": "A new number, which pending calls use with its time zone",
        "value": {"phoneNumber": "+61870701234", "timezone": None},
    },
}
