"""The conversation of an answered call, as the voice server sees it."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from scheduler.domain.attempt import Attempt
from scheduler.domain.company import CompanySettings
from scheduler.domain.interview import AgentFocus


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A call that its token names, without the person: the key may not be allowed to read candidates."""

    attempt: Attempt
    candidate_id: UUID
    agent_id: UUID
    job_id: UUID | None
    focus: AgentFocus
    longest: timedelta
    """The agent's duration."""
    settings: CompanySettings
