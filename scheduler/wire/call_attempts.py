"""What may be asked of call attempts, and the commands that it becomes."""

from typing import Annotated
from uuid import UUID

from scheduler.domain.command import InvokeAttempt, RescheduleAttempt
from scheduler.wire.sent import A_TIME, MayNameATime, Strict


class CallRequest(MayNameATime):
    """One more call. Without a time it rings as soon as allowed."""

    def to_command(self, interview_id: UUID) -> InvokeAttempt:
        return InvokeAttempt(interview_id=interview_id, scheduled_at=self.time_asked_for, time_name=self.time_name)


class CallMove(Strict):
    """Another time for an attempt that waits."""

    scheduled_at: Annotated[str, A_TIME]

    def to_command(self, interview_id: UUID, attempt_id: UUID, if_match: str | None) -> RescheduleAttempt:
        return RescheduleAttempt(
            interview_id=interview_id, attempt_id=attempt_id, scheduled_at=self.scheduled_at, if_match=if_match
        )
