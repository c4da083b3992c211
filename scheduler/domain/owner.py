"""Owners: the person whom a company belongs to, and the invitation of one who is not known yet."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    OWNER = "OWNER"
    """One a company."""
    ADMIN = "ADMIN"
    """What an owner becomes when somebody else is named."""


@dataclass(frozen=True, kw_only=True)
class User:
    """A person who has accepted an invitation."""

    id: UUID
    email: str = field(repr=False)
    """In its one spelling; see `lifecycle.email_addresses`."""
    name: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A person as the owner of a company."""

    user: User
    company_id: UUID
    company_name: str | None


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """A person was asked by mail to become the owner of a company; at most one a company is not ended."""

    id: UUID
    company_id: UUID
    email: str = field(repr=False)
    expires_at: datetime
    accepted_at: datetime | None = None
    revoked_at: datetime | None = None
    tries: int = 0
    """How often a mail was begun; it names the newest try to whoever records what became of one."""

    def is_open(self, now: datetime) -> bool:
        """Whether it can be accepted."""
        return self.accepted_at is None and self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, kw_only=True)
class Mails:
    """How the mails of one company's open invitation stand. Only those that were not sent are told of."""

    company_id: UUID
    tries: int
    """Mails that were begun and not sent; 0: it has not been tried yet."""
    try_at: datetime | None
    """When it is tried again; None: the mail server refused it for good, and nobody tries."""
