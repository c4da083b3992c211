"""Response schemas for the voice server, which talks in a call that it knows by its token."""

from datetime import datetime
from typing import Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field

from api_shim.schemas.company import Intervals
from api_shim.schemas.envelope import answer
from api_shim.schemas.interview import ScheduleView
from scheduler.domain.attempt import AttemptState, ConversationOutcome, Reason
from scheduler.domain.call import AnsweredBy, MachineDetection
from scheduler.domain.conversation import Conversation
from scheduler.domain.interview import AgentFocus
from scheduler.timing.time_texts import intervals_as_json
from scheduler.wire.field_types import Wire


class ConversationSettingsView(Wire):
    """The settings of the company that matter in a conversation."""

    timezone: str | None
    locale: str | None
    call_time_intervals: Intervals = Field(description="The person may be called at these times, on their clock.")


class ConversationView(Wire):
    """A call, as its voice server sees it. It contains nothing about the person but an id."""

    call_attempt_id: UUID
    interview_id: UUID
    company_id: UUID
    candidate_id: UUID
    agent_id: UUID
    job_id: UUID | None
    focus: AgentFocus
    longest_seconds: int = Field(description="The agent's duration. The carrier ends the call two minutes after it.")
    status: AttemptState
    reason_code: Reason | None
    machine_detection: MachineDetection | None = Field(description="The mode of machine detection of this call.")
    answered_by: AnsweredBy | None = Field(
        description="Who answered, once machine detection has decided. With `ASYNC` this may be some seconds after the"
        " answer: a voice server that must know asks again."
    )
    outcome: ConversationOutcome | None
    retry_number: int
    scheduled_at: datetime
    called_at: datetime | None
    ended_at: datetime | None
    schedule: ScheduleView
    settings: ConversationSettingsView

    @classmethod
    def of(cls, conversation: Conversation) -> Self:
        attempt, settings = conversation.attempt, conversation.settings
        return cls.view_of(
            conversation,
            call_attempt_id=attempt.id,
            interview_id=attempt.interview_id,
            company_id=attempt.company_id,
            longest_seconds=int(conversation.longest.total_seconds()),
            status=attempt.state,
            reason_code=attempt.reason,
            machine_detection=attempt.machine_detection,
            answered_by=attempt.answered_by,
            outcome=attempt.outcome,
            retry_number=attempt.retry_number,
            scheduled_at=attempt.due_at,
            called_at=attempt.claimed_at,
            ended_at=attempt.ended_at,
            schedule=ScheduleView.of(attempt.schedule, attempt.due_at),
            settings=ConversationSettingsView.view_of(
                settings, call_time_intervals=intervals_as_json(settings.intervals)
            ),
        )


ConversationAnswer = answer("ConversationAnswer", ConversationView, "A call and its settings.")


class OutcomeView(Wire):
    """A stored report."""

    call_attempt_id: UUID
    interview_id: UUID
    outcome: ConversationOutcome
    reported_at: datetime
    call_back_at: datetime | None = Field(description="When the next call is due. Only after CALL_BACK.")


OutcomeAnswer = answer("OutcomeAnswer", OutcomeView, "A stored report.")

REPORTS: dict[str, Example] = {
    "finished": {"summary": "The conversation took place", "value": {"outcome": "FINISHED"}},
    "call back": {
        "summary": "The person asks to be called at six in the evening",
        "value": {"outcome": "CALL_BACK", "callBackAt": "2026-04-02T18:00:00"},
    },
}
