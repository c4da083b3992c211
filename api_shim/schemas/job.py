"""Request and response schemas for jobs."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field, StringConstraints, field_validator

from api_shim.schemas.agent import CefrLevel
from api_shim.schemas.envelope import CursorPage, answer, page
from scheduler.domain.interview import Job, JobStatus, NewJob
from scheduler.domain.resource import Changes
from scheduler.wire.field_types import (
    EXTERNAL_ID,
    NEW_EXTERNAL_ID,
    CountryCode,
    ExternalIdText,
    Metadata,
    Strict,
    Wire,
    left_out,
    named,
    new_of,
    without_nulls,
)

MAX_SKILLS = 10

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=5, max_length=200)]
Description = Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=5000)]
Skill = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=5000)]
Url = Annotated[str, StringConstraints(max_length=2048, pattern=r"^https?://[^\s]+$")]


class Education(StrEnum):
    PRIMARY_EDUCATION = "PRIMARY_EDUCATION"
    SECONDARY_SCHOOL_STUDENT = "SECONDARY_SCHOOL_STUDENT"
    SECONDARY_WITHOUT_DIPLOMA = "SECONDARY_WITHOUT_DIPLOMA"
    SECONDARY_WITH_DIPLOMA = "SECONDARY_WITH_DIPLOMA"
    POST_SECONDARY_VOCATIONAL = "POST_SECONDARY_VOCATIONAL"
    UNIVERSITY_STUDENT = "UNIVERSITY_STUDENT"
    BACHELOR_LEVEL = "BACHELOR_LEVEL"
    MASTER_LEVEL = "MASTER_LEVEL"
    POSTGRADUATE = "POSTGRADUATE"


class Experience(StrEnum):
    NO_EXPERIENCE = "NO_EXPERIENCE"
    LESS_THAN_1_YEAR = "LESS_THAN_1_YEAR"
    ONE_TO_3_YEARS = "ONE_TO_3_YEARS"
    THREE_TO_5_YEARS = "THREE_TO_5_YEARS"
    FIVE_TO_10_YEARS = "FIVE_TO_10_YEARS"
    MORE_THAN_10_YEARS = "MORE_THAN_10_YEARS"


class ContractType(StrEnum):
    FULL_TIME = "FULL_TIME"
    PART_TIME = "PART_TIME"
    CONTRACT = "CONTRACT"
    TEMPORARY = "TEMPORARY"
    INTERNSHIP = "INTERNSHIP"


class WorkMode(StrEnum):
    ONSITE = "ONSITE"
    REMOTE = "REMOTE"
    HYBRID = "HYBRID"


class SalaryPeriod(StrEnum):
    HOURLY = "HOURLY"
    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    YEARLY = "YEARLY"


class LanguageRequirement(Strict):
    language: Word = Field(examples=["EN"])
    proficiency: CefrLevel


class JobLocation(Strict):
    work_mode: WorkMode | None = None
    street: Word | None = None
    city: Word | None = None
    postal_code: Annotated[str, StringConstraints(max_length=20)] | None = None
    country_code: CountryCode | None = None


class Salary(Strict):
    min: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = Field(None, examples=["EUR"])
    period: SalaryPeriod | None = None


class _JobDetails(Strict):
    """Fields that are stored and returned but not used by Duecall. Null clears a field."""

    job_url: Url | None = None
    description_url: Url | None = None
    benefits: Text | None = None
    required_skills: Annotated[list[Skill], Field(max_length=MAX_SKILLS)] | None = None
    nice_to_have_skills: Annotated[list[Skill], Field(max_length=MAX_SKILLS)] | None = None
    language_requirements: Annotated[list[LanguageRequirement], Field(max_length=5)] | None = None
    education: Annotated[list[Education], Field(max_length=len(Education))] | None = None
    experience: Experience | None = None
    contract_type: ContractType | None = None
    location: JobLocation | None = None
    salary: Salary | None = None

    @property
    def details(self) -> dict[str, Any]:
        """The fields that were sent, in their wire form."""
        sent = _JobDetails.model_fields.keys() & self.model_fields_set
        return self.model_dump(mode="json", by_alias=True, include=sent, exclude_unset=True)


class JobRequest(_JobDetails):
    """A job. Candidates are assigned to it with their `jobIds`."""

    title: Title = Field(examples=["Warehouse operator"])
    description: Description = Field(examples=["Picks and packs, in three shifts."])
    status: JobStatus = Field(JobStatus.OPEN, description="An interview that names no job uses only an OPEN job.")
    metadata: Metadata = Field(default_factory=dict)
    external_id: Annotated[ExternalIdText | None, EXTERNAL_ID] = None

    def to_new_job(self) -> NewJob:
        return new_of(NewJob, self, details=without_nulls(self.details))


class JobChange(_JobDetails):
    """Fields to change. Omitted fields keep their value."""

    title: Title = Field(default_factory=left_out)
    description: Description = Field(default_factory=left_out)
    status: JobStatus = Field(default_factory=left_out)
    work_mode: WorkMode | None = Field(None, description="Same as `location.workMode`.")
    metadata: Metadata | None = Field(None, description="Merged into the existing metadata. Null removes a key.")
    external_id: Annotated[ExternalIdText | None, NEW_EXTERNAL_ID] = None

    def to_changes(self) -> Changes:
        details = self.details
        if "work_mode" in self.model_fields_set:
            mode = None if self.work_mode is None else self.work_mode.value
            details = {**details, "location": {**(details.get("location") or {}), "workMode": mode}}
        return {**named(self, "title", "description", "status", "metadata", "external_id"), "details": details}


class JobView(Wire):
    id: UUID
    company_id: UUID
    title: str | None = Field(description="Null in a response that is repeated after the job was deleted.")
    description: str | None
    status: JobStatus
    job_url: str | None
    description_url: str | None
    benefits: str | None
    required_skills: list[str]
    nice_to_have_skills: list[str]
    language_requirements: list[LanguageRequirement]
    education: list[Education]
    experience: Experience | None
    contract_type: ContractType | None
    location: JobLocation | None
    salary: Salary | None
    metadata: dict[str, Any]
    external_id: str | None = Field(description="Your own id of the job.")
    created_at: datetime
    updated_at: datetime

    @field_validator("required_skills", "nice_to_have_skills", "language_requirements", "education", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        return [] if value is None else value

    @classmethod
    def of(cls, job: Job) -> Self:
        details = _JobDetails.model_validate(dict(job.details))
        return cls.view_of(job, **dict(details))


JobAnswer = answer("JobAnswer", JobView, "A job.")
JobPage = page("JobPage", CursorPage, JobView, "Jobs.")
JobsAnswer = answer("JobsAnswer", JobPage, "A page of jobs.")


JOBS: dict[str, Example] = {
    "a job": {
        "summary": "A job for interviews",
        "value": {
            "title": "Warehouse operator",
            "description": "Picks and packs, in three shifts.",
            "status": "OPEN",
            "requiredSkills": ["forklift licence"],
            "location": {"workMode": "ONSITE", "city": "Trnava", "countryCode": "SK"},
        },
    },
}
JOB_CHANGES: dict[str, Example] = {
    "close it": {"summary": "Close the job", "value": {"status": "CLOSED"}},
}
