"""What may be asked of call attempts, and the commands that it becomes."""

from typing import Annotated
from uuid import UUID

from fastapi.openapi.models import Example

from api_shim.schemas.sent import A_TIME, MayNameATime, Strict
from scheduler.domain.command import InvokeAttempt, RescheduleAttempt


class CallRequest(MayNameATime):
    """One more call. Without a time it rings as soon as allowed."""

    def to_command(self, interview_id: UUID) -> InvokeAttempt:
        return InvokeAttempt(interview_id=interview_id, scheduled_at=self.time_asked_for)


class CallMove(Strict):
    """Another time for an attempt that waits."""

    scheduled_at: Annotated[str, A_TIME]

    def to_command(self, interview_id: UUID, attempt_id: UUID, if_match: str | None) -> RescheduleAttempt:
        return RescheduleAttempt(
            interview_id=interview_id, attempt_id=attempt_id, scheduled_at=self.scheduled_at, if_match=if_match
        )


CALLS: dict[str, Example] = {
    "as soon as allowed": {"summary": "Now, or at the next opening", "value": {}},
    "at a time": {
        "summary": "At nine in the morning on a clock that is 10:30 ahead of UTC",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
}
MOVES: dict[str, Example] = {
    "to a time": {
        "summary": "To nine in the morning on a clock that is 10:30 ahead of UTC",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
}
