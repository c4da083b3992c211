"""An external id: the client's own id of a resource, unique among the company's resources of that kind."""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

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
