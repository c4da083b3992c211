"""Request bodies about call attempts, and their conversion to commands."""

from typing import Annotated
from uuid import UUID

from scheduler.domain.command import InvokeAttempt, RescheduleAttempt
from scheduler.wire.field_types import A_TIME, MayNameATime, Strict


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
