"""Owners of companies, and the invitations of owners who are not known yet."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    OWNER = "OWNER"
    """One per company."""
    ADMIN = "ADMIN"
    """A former owner, after another person became the owner."""


@dataclass(frozen=True, kw_only=True)
class User:
    """A person who has accepted an invitation."""

    id: UUID
    email: str = field(repr=False)
    """In canonical form; see `rules.email_addresses`."""
    name: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A user as the owner of a company."""

    user: User
    company_id: UUID
    company_name: str | None


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """A request by mail to become the owner of a company. A company has at most one open invitation."""

    id: UUID
    company_id: UUID
    email: str = field(repr=False)
    expires_at: datetime
    accepted_at: datetime | None = None
    revoked_at: datetime | None = None
    tries: int = 0
    """Number of mails started. It identifies the latest try when the result of one is recorded."""

    def is_open(self, now: datetime) -> bool:
        """Return whether it can be accepted."""
        return self.accepted_at is None and self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, kw_only=True)
class Mails:
    """The unsent mails of a company's open invitation."""

    company_id: UUID
    tries: int
    """Number of mails started but not sent. 0: not tried yet."""
    try_at: datetime | None
    """The time of the next try. None: the mail server refused the mail permanently, so there is no further try."""
