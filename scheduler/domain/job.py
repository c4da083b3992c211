"""A job: what a candidate is considered for, and what an interview that is not GENERIC is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class JobStatus(StrEnum):
    OPEN = "OPEN"
    """A candidate who is assigned to it is considered for it now."""
    CLOSED = "CLOSED"


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job as a request describes one."""

    title: str = field(repr=False)
    description: str = field(repr=False)
    status: JobStatus = JobStatus.OPEN
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Job:
    id: UUID
    company_id: UUID
    title: str | None = field(repr=False)
    """None once it was deleted; so is the description."""
    description: str | None = field(repr=False)
    status: JobStatus
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the public API documents of a job and no rule here asks, in its wire form."""
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    created_at: datetime
    updated_at: datetime
