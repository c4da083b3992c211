"""An API key: whose it is, how often it may ask, and whether it opens anything."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from scheduler.domain.principal import Principal

LONGEST_NAME = 100
"""Characters. The companies that a key acts for read its name in what has happened to their calls."""


class KeyState(StrEnum):
    ACTIVE = "ACTIVE"
    """It opens what its scopes say."""
    SUSPENDED = "SUSPENDED"
    """Until an operator resumes it, it opens nothing, and whoever has it is told so."""
    EXPIRED = "EXPIRED"
    """Its time is over; to whoever has it, it was never there."""
    REVOKED = "REVOKED"
    """For ever; to whoever has it, it was never there."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as it stands. Of its secret nothing is known but that there is one."""

    principal: Principal
    name: str
    per_minute: int
    per_hour: int
    created_at: datetime
    expires_at: datetime | None = None
    suspended_at: datetime | None = None
    suspend_reason: str | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the minute."""

    def state(self, now: datetime) -> KeyState:
        if self.revoked_at is not None:
            return KeyState.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return KeyState.EXPIRED
        return KeyState.ACTIVE if self.suspended_at is None else KeyState.SUSPENDED
