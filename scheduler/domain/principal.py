"""Those who act: actors, principals with their API keys, and roles of operators."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

# --- Actors: the person or program behind an act, as text `kind:id`
# An actor is an id and never a person's name.


SYSTEM = "system:duecall"
"""An act of the installation itself, for example the keys that `duecall up` creates."""


OPERATOR = "operator"
"""An operator, as companies see one. Logins and machines of operators are not theirs to know."""
_LINK = "link:"
_KEY = "key:"
_OPERATORS = ("cli:", _LINK, "oidc:")


def seen_by_companies(actor: str) -> str:
    return OPERATOR if actor.startswith(_OPERATORS) else actor


def is_audited(actor: str) -> bool:
    """Return True for operators and API keys. The audit contains no acts of the carrier or of workers."""
    return actor.startswith((*_OPERATORS, _KEY))


def of_key(key_id: UUID) -> str:
    """Name the actor of a request with this API key."""
    return f"{_KEY}{key_id}"


def of_link(link_id: UUID) -> str:
    """Name the actor of an operator who signed in to the console with this link."""
    return f"{_LINK}{link_id}"


def link_of(actor: str) -> UUID | None:
    """Find the id of the sign-in link that an actor is known by, or None."""
    try:
        return UUID(actor.removeprefix(_LINK)) if actor.startswith(_LINK) else None
    except ValueError:
        return None


def of_cli(user: str, host: str) -> str:
    """Name the actor of a command of `duecall`: the user of the operating system, and the machine's name."""
    return f"cli:{user}@{host}"


# --- Roles of operators, in sessions of the console and in the claims of an identity provider


class OperatorRole(StrEnum):
    VIEWER = "viewer"
    """Sees every page and changes nothing."""
    OPERATOR = "operator"
    """Also pauses, resumes, retries and decides."""
    ADMIN = "admin"
    """Also revokes keys and drops commands."""

    def may(self, needed: "OperatorRole") -> bool:
        """Return True if this role includes the needed one."""
        return _RANKS.index(self) >= _RANKS.index(needed)


_RANKS = tuple(OperatorRole)


# --- A principal: an API key with its rotations, on whose behalf a request runs
# Every query of company data names one.


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


# --- An API key: its principal, its rate limits and its state


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
