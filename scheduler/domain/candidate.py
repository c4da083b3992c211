"""A candidate: the person whose phone rings. Everything here is personal data and stays out of messages and logs."""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, kw_only=True)
class NewCandidate:
    """A person as a request describes one."""

    first_name: str = field(repr=False)
    last_name: str = field(repr=False)
    gdpr_expiry_date: date
    email: str | None = field(default=None, repr=False)
    phone_number: str | None = field(default=None, repr=False)
    timezone: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    id: UUID
    company_id: UUID
    first_name: str = field(repr=False)
    last_name: str = field(repr=False)
    gdpr_expiry_date: date
    """The last day on which this person may be called; it ends at midnight on the callee's clock."""
    email: str | None = field(default=None, repr=False)
    phone_number: str | None = field(default=None, repr=False)
    """E.164."""
    timezone: str | None = None
    created_at: datetime
    updated_at: datetime
