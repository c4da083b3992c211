"""A principal: who is asking. A key with its rotations; every query about company data names one."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class KeyKind(StrEnum):
    REGULAR = "REGULAR"
    """Reaches exactly one company."""
    ATS = "ATS"
    """Reaches every company that it created."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    id: UUID
    kind: KeyKind
    key_id: UUID
    scopes: frozenset[str]
    company_id: UUID | None = None
    """The one company of a regular key."""
