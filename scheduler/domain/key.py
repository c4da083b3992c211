"""An API key: its principal, its rate limits and its state."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from scheduler.domain.principal import Principal

MAX_NAME = 100
"""Characters. Companies see the name of a key in the history of their calls."""

PER_MINUTE = 60
"""Requests, unless the key has a rate limit of its own."""
PER_HOUR = 2000
"""The same."""


class KeyState(StrEnum):
    ACTIVE = "ACTIVE"
    """Grants its scopes."""
    SUSPENDED = "SUSPENDED"
    """Grants nothing until an operator resumes it. Its caller gets API_KEY_SUSPENDED."""
    EXPIRED = "EXPIRED"
    """Past its expiry. Its caller gets the same answer as for an unknown key."""
    REVOKED = "REVOKED"
    """Permanently invalid. Its caller gets the same answer as for an unknown key."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A stored key. Its secret is not known here."""

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
    """Accurate to the minute."""

    def state(self, now: datetime) -> KeyState:
        if self.revoked_at is not None:
            return KeyState.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return KeyState.EXPIRED
        return KeyState.ACTIVE if self.suspended_at is None else KeyState.SUSPENDED
