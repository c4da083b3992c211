"""Request bodies about interviews, and their conversion to commands."""

from collections.abc import Iterator
from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StrictBool

from scheduler.domain.command import CreateInterview, UpdateInterview
from scheduler.domain.interview import InterviewStatus
from scheduler.wire.field_errors import FieldError
from scheduler.wire.field_types import EXTERNAL_ID, NEW_EXTERNAL_ID, ExternalIdText, MayNameATime, Metadata


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


class InterviewOfKnown(InterviewTerms):
    """An interview whose candidate and agent already exist."""

    candidate_id: UUID
    agent_id: UUID

    def to_command(self) -> CreateInterview:
        return CreateInterview(
            agent_id=self.agent_id,
            candidate_id=self.candidate_id,
            job_id=self.job_id,
            scheduled_at=self.time_asked_for,
            time_name=self.time_name,
            expires_at=self.expires_at,
            is_test=self.is_test,
            metadata=self.metadata,
            external_id=self.external_id,
        )


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
        if all(getattr(self, name) is None for name in InterviewChange.model_fields):
            message = "Send at least one of scheduledAt, expiresAt, metadata, status and externalId."
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
