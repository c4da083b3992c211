"""What may be asked of interviews, and the commands that it becomes."""

from collections.abc import Iterator
from typing import Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StrictBool

from scheduler.domain.command import CreateInterview, UpdateInterview
from scheduler.domain.interview import InterviewStatus
from scheduler.wire.fields import FieldError
from scheduler.wire.sent import MayNameATime, Metadata


class InterviewTerms(MayNameATime):
    """Of any interview that is asked for, whoever it is with. Without a time: as soon as allowed."""

    job_id: UUID | None = Field(
        None,
        description="A job that the candidate is assigned to, OPEN or CLOSED; somebody new is assigned to it. An agent"
        " of focus GENERIC needs none. Any other takes the candidate's one OPEN job when none is named.",
    )
    expires_at: str | None = Field(None, description="After this nobody is called; default 7 days after due.")
    is_test: StrictBool = Field(False, description="Checked like any other and completed at once; nobody rings.")
    metadata: Metadata = Field(
        default_factory=dict, description="At most 10 KB, 5 levels, 50 keys.", examples=[{"ref": "A-17"}]
    )


class InterviewOfKnown(InterviewTerms):
    """An interview of which everybody is known here already."""

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
        )


class InterviewChange(MayNameATime):
    """What shall be otherwise; what is left out, or null, stays. At least one field."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    expires_at: str | None = Field(None, description="After this nobody is called.")
    metadata: Metadata | None = Field(
        None,
        description="Merged into what is there; null removes a key. At most 10 KB, 5 levels, 50 keys.",
        examples=[{"ref": "A-18"}],
    )
    status: Literal["COMPLETED", "CANCELLED"] | None = Field(
        None, description="Only of an ONLINE interview; a PHONE interview's follows from its calls."
    )

    def contradictions(self) -> Iterator[FieldError]:
        if all(getattr(self, name) is None for name in InterviewChange.model_fields):
            message = "Send at least one of scheduledAt, expiresAt, metadata and status."
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
        )
