"""An agent: the template of an interview. Who talks, about what, for how long, from which number."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID


class AgentType(StrEnum):
    PHONE = "PHONE"
    ONLINE = "ONLINE"


class AgentFocus(StrEnum):
    GENERIC = "GENERIC"
    """Needs no job."""
    SCREENING = "SCREENING"
    OUTREACH = "OUTREACH"
    LANGUAGE_TEST = "LANGUAGE_TEST"


@dataclass(frozen=True, kw_only=True)
class Agent:
    id: UUID
    company_id: UUID
    name: str
    type: AgentType
    focus: AgentFocus
    language: str
    duration: timedelta
    caller_number: str | None = field(default=None, repr=False)
    """E.164; the company's phone number that it calls from."""
    created_at: datetime
    updated_at: datetime
