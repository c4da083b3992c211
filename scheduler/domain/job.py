"""A job: the position that candidates are assigned to and that an interview is about, unless its focus is GENERIC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


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
