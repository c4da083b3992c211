"""A candidate: the person who is called. All fields are personal data and stay out of messages and logs."""

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

MAX_JOBS = 50
"""Maximum number of jobs per candidate."""


class CandidateStatus(StrEnum):
    APPLIED = "APPLIED"
    IN_PROCESS = "IN_PROCESS"
    REJECTED = "REJECTED"
    ACCEPTED = "ACCEPTED"


@dataclass(frozen=True, kw_only=True)
class NewCandidate:
    """A candidate as described by a request."""

    first_name: str = field(repr=False)
    last_name: str = field(repr=False)
    gdpr_expiry_date: date
    email: str | None = field(default=None, repr=False)
    phone_number: str | None = field(default=None, repr=False)
    timezone: str | None = None
    status: CandidateStatus = CandidateStatus.APPLIED
    job_ids: tuple[UUID, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    external_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    id: UUID
    company_id: UUID
    first_name: str | None = field(repr=False)
    """None after the person was erased, like last name, e-mail address, number and time zone."""
    last_name: str | None = field(repr=False)
    gdpr_expiry_date: date
    """The last day on which this person may be called. It ends at midnight on the callee's clock."""
    email: str | None = field(default=None, repr=False)
    phone_number: str | None = field(default=None, repr=False)
    """E.164."""
    timezone: str | None = None
    status: CandidateStatus = CandidateStatus.APPLIED
    job_ids: tuple[UUID, ...] = ()
    """The jobs that this person is assigned to, oldest assignment first."""
    interview_count: int = 0
    """Number of this person's interviews, without deleted ones."""
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    external_id: str | None = field(default=None, repr=False)
    """The client's own id of this person. Deleted when the person is erased."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class CandidateFilter:
    """A filter for lists of candidates. A field that is None or empty does not filter."""

    job_id: UUID | None = None
    statuses: frozenset[CandidateStatus] = frozenset()
    search: str | None = None
    """A part of a name or e-mail address, in any case."""
    external_id: str | None = field(default=None, repr=False)
