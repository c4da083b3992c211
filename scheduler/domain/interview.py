"""An interview: the conversation that a company wants to have, and the attempts to bring it about."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from scheduler.domain.agent import AgentFocus, AgentType
from scheduler.domain.attempt import Attempt, AttemptState


class InterviewStatus(StrEnum):
    SCHEDULED = "SCHEDULED"
    """May still be called, also when no attempt waits."""
    IN_PROGRESS = "IN_PROGRESS"
    """Its attempt is. Read from the attempt, never stored."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    """The last attempt failed and no retry follows."""
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, kw_only=True)
class Interview:
    """What was asked for. Type, focus, duration and caller id were copied from the agent when it was made."""

    id: UUID
    company_id: UUID
    candidate_id: UUID
    agent_id: UUID
    job_id: UUID | None = None
    """What it is about; it stays when the job is deleted."""
    type: AgentType
    focus: AgentFocus
    duration: timedelta
    caller_number: str | None = field(default=None, repr=False)
    status: InterviewStatus
    is_test: bool = False
    expires_at: datetime
    expires_by_default: bool = True
    """Nobody named `expires_at`: it is a span after the chain's first due time, and moves with that."""
    scheduled_at: datetime | None = None
    """When an ONLINE interview shall be; a PHONE interview's time is its attempt's."""
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    deleted_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class InterviewFilter:
    """Which interviews of a list are asked for; None where it does not matter."""

    candidate_id: UUID | None = None
    agent_id: UUID | None = None
    job_id: UUID | None = None
    status: InterviewStatus | None = None
    """As it is shown, IN_PROGRESS too."""


@dataclass(frozen=True, kw_only=True)
class InterviewStory:
    """An interview with its attempts, oldest first; those that were deleted are not among them."""

    interview: Interview
    attempts: tuple[Attempt, ...]

    @property
    def status(self) -> InterviewStatus:
        if any(attempt.state is AttemptState.IN_PROGRESS for attempt in self.attempts):
            return InterviewStatus.IN_PROGRESS
        return self.interview.status
