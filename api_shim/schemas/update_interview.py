"""What a change of an interview looks like, and the command that it becomes."""

from collections.abc import Iterator
from typing import Literal
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import ConfigDict, Field

from api_shim.schemas.fields import FieldError
from api_shim.schemas.sent import MayNameATime, Metadata
from scheduler.domain.command import UpdateInterview
from scheduler.domain.interview import InterviewStatus


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
        if all(value is None for _, value in self):
            message = "Send at least one of scheduledAt, expiresAt, metadata and status."
            yield FieldError(field="", code="NOTHING_TO_CHANGE", message=message)
        yield from super().contradictions()

    def to_command(self, interview_id: UUID) -> UpdateInterview:
        return UpdateInterview(
            interview_id=interview_id,
            scheduled_at=self.time_asked_for,
            expires_at=self.expires_at,
            metadata=self.metadata,
            status=None if self.status is None else InterviewStatus(self.status),
        )


CHANGES: dict[str, Example] = {
    "move it": {
        "summary": "To another time; of a PHONE interview this moves the attempt that waits",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
    "change the metadata": {
        "summary": "One key gets another value, the others stay; null would remove it",
        "value": {"metadata": {"ref": "A-18"}},
    },
    "end an online one": {
        "summary": "An ONLINE interview has taken place",
        "value": {"status": "COMPLETED"},
    },
}
