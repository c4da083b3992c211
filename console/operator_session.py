"""Sessions of operators, and the links with which they sign in."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.domain.principal import OperatorRole

SESSION_LASTS = timedelta(hours=8)
LINK_LASTS = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class ConsoleSession:
    """A signed-in operator. The cookie's secret is not known here."""

    id: UUID
    actor: str
    """The operator, as `kind:id`: `link:…` of a sign-in link, `oidc:…` of an identity provider."""
    role: OperatorRole
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime
    """Accurate to the minute."""
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, kw_only=True)
class SignInLink:
    """A link that signs one operator in, once. Its secret is not known here."""

    id: UUID
    role: OperatorRole
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.used_at is None and now < self.expires_at
