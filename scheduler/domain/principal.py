"""A principal: an API key with its rotations, on whose behalf a request runs. Every query of company data names one."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class KeyKind(StrEnum):
    REGULAR = "REGULAR"
    """Has access to exactly one company."""
    ATS = "ATS"
    """Has access to every company that it created."""


OPERATORS = UUID(int=0)
"""The principal id of commands that operators give. No API key has it."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    id: UUID
    kind: KeyKind
    key_id: UUID
    scopes: frozenset[str]
    company_id: UUID | None = None
    """The company of a regular key."""
