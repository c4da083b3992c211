"""An agent: the template of an interview. It sets the focus, language, duration and caller number."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID


class AgentType(StrEnum):
    PHONE = "PHONE"
    ONLINE = "ONLINE"


class AgentFocus(StrEnum):
    GENERIC = "GENERIC"
    """The only focus that needs no job."""
    SCREENING = "SCREENING"
    OUTREACH = "OUTREACH"
    LANGUAGE_TEST = "LANGUAGE_TEST"


@dataclass(frozen=True, kw_only=True)
class NewAgent:
    """An agent as described by a request."""

    name: str = field(repr=False)
    type: AgentType
    focus: AgentFocus
    language: str
    duration: timedelta
    phone_number_id: UUID | None = None
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Agent:
    id: UUID
    company_id: UUID
    name: str | None
    """None in an answer that is replayed after the agent was deleted."""
    type: AgentType
    focus: AgentFocus
    language: str
    duration: timedelta
    phone_number_id: UUID | None = None
    caller_number: str | None = field(default=None, repr=False)
    """E.164: the company's phone number from which the agent calls."""
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Documented fields of the public API that no rule here uses, in wire form."""
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class PhoneNumber:
    """A number from which a company calls. Operators add it."""

    id: UUID
    company_id: UUID
    number: str = field(repr=False)
    """E.164."""
    number_type: str
    provider: str
    status: str
    capabilities: str
    custom: bool
    location: str | None
    created_at: datetime
    updated_at: datetime
