"""Resources that a request writes directly, and the client's own ids of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from scheduler.domain.batch import Batch
from scheduler.domain.company import Company
from scheduler.domain.delivery_history import Replay
from scheduler.domain.interview import Agent, Candidate, Job
from scheduler.domain.webhook import EndpointTest, WebhookEndpoint

# --- An external id: the client's own id of a resource, unique among the company's resources of that kind


LONGEST_EXTERNAL_ID = 255
"""Characters."""


class ExternalKind(StrEnum):
    """A kind of resource that may have an external id."""

    CANDIDATE = "candidate"
    JOB = "job"
    INTERVIEW = "interview"


@dataclass(frozen=True, kw_only=True)
class ExternalId:
    kind: ExternalKind
    company_id: UUID
    text: str = field(repr=False)
    """The client's text, which may be personal data."""


@dataclass(frozen=True, kw_only=True)
class Identified:
    """The resource that has an external id."""

    id: UUID
    content_hash: bytes | None = field(default=None, repr=False)
    """Hash of the request that created it. None: it was created without an external id, or its person was erased."""


# --- A record: a resource that a request writes directly, without a worker


Resource = Company | Job | Candidate | Agent | WebhookEndpoint | EndpointTest | Replay | Batch

Changes = Mapping[str, Any]
"""New values by the field names of the record. Omitted fields keep their value."""
