"""An interview: the candidate who is called, the agent that is its template, the job it is for, and its status."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from scheduler.domain.attempt import Attempt, AttemptState

# --- A candidate: the person who is called. All fields are personal data and stay out of messages and logs


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


# --- An agent: the template of an interview. It sets the focus, language, duration and caller number


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


# --- A job: the position that candidates are assigned to and that an interview is about, unless its focus is GENERIC


class JobStatus(StrEnum):
    OPEN = "OPEN"
    """Its candidates are currently considered for it."""
    CLOSED = "CLOSED"


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job as described by a request."""

    title: str = field(repr=False)
    description: str = field(repr=False)
    status: JobStatus = JobStatus.OPEN
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    external_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """A filter for lists of jobs. A field that is None or empty does not filter."""

    statuses: frozenset[JobStatus] = frozenset()
    external_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Job:
    id: UUID
    company_id: UUID
    title: str | None = field(repr=False)
    """None after the job was deleted, like the description."""
    description: str | None = field(repr=False)
    status: JobStatus
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Documented fields of the public API that no rule here uses, in wire form."""
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    external_id: str | None = field(default=None, repr=False)
    """The client's own id of this job. Deleted with the job."""
    created_at: datetime
    updated_at: datetime


# --- An interview: the conversation that a company wants with a candidate, and the attempts to have it


class InterviewStatus(StrEnum):
    SCHEDULED = "SCHEDULED"
    """Calls are still possible, even if no attempt is pending."""
    IN_PROGRESS = "IN_PROGRESS"
    """An attempt is in progress. Derived from the attempt, never stored."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    """The last attempt failed and no retry follows."""
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, kw_only=True)
class Interview:
    """A requested interview. Type, focus, duration and caller id are copied from the agent at creation."""

    id: UUID
    company_id: UUID
    candidate_id: UUID
    agent_id: UUID
    job_id: UUID | None = None
    """Kept when the job is deleted."""
    type: AgentType
    focus: AgentFocus
    duration: timedelta
    caller_number: str | None = field(default=None, repr=False)
    status: InterviewStatus
    is_test: bool = False
    expires_at: datetime
    expires_by_default: bool = True
    """True if the client sent no `expires_at`. Then it is a span after the chain's first due time and moves with it."""
    scheduled_at: datetime | None = None
    """The time of an ONLINE interview. The time of a PHONE interview is that of its attempt."""
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    deleted_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    external_id: str | None = field(default=None, repr=False)
    """The client's own id of this interview. Another interview may have it once this one is deleted."""


@dataclass(frozen=True, kw_only=True)
class InterviewFilter:
    """A filter for lists of interviews. A field that is None or empty does not filter."""

    candidate_id: UUID | None = None
    agent_id: UUID | None = None
    job_id: UUID | None = None
    statuses: frozenset[InterviewStatus] = frozenset()
    """The displayed statuses, which can be IN_PROGRESS. Empty: all."""
    external_id: str | None = field(default=None, repr=False)


SHOWN_ATTEMPTS = 20
"""An interview is shown with its newest attempts, this many at most."""


@dataclass(frozen=True, kw_only=True)
class InterviewStory:
    """An interview with its newest attempts, oldest first, without deleted attempts."""

    interview: Interview
    attempts: tuple[Attempt, ...]
    """At most `SHOWN_ATTEMPTS`."""
    attempts_total: int | None = None
    """All attempts that are not deleted, if there may be more than these."""

    @property
    def total(self) -> int:
        return len(self.attempts) if self.attempts_total is None else self.attempts_total

    @property
    def status(self) -> InterviewStatus:
        if any(attempt.state is AttemptState.IN_PROGRESS for attempt in self.attempts):
            return InterviewStatus.IN_PROGRESS
        return self.interview.status
