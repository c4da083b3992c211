"""Those who act: actors, principals with their API keys, and roles of operators; and the audit of their acts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any
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


VOICE = "voice"
"""The scope of a voice server: it finds its call by the call's token, and reports the outcome."""
MAX_NAME = 100
"""Characters. Companies see the name of a key in the history of their calls."""

PER_MINUTE = 60
"""Requests, unless the key has a rate limit of its own."""
PER_HOUR = 2000
"""The same."""
VOICE_PER_MINUTE = 600
"""Requests with a key whose only scope is `voice`, unless it has a rate limit of its own.

A voice server sends three requests for each answered call, and a refused one loses the instructions or the report of a
person. So this is 200 answered calls a minute.
"""
VOICE_PER_HOUR = 60 * VOICE_PER_MINUTE
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


# --- The audit: acts of operators and API keys, with what they changed. It contains ids, states and limits, no names


class Verb(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    CREATE_KEY = "key.create"
    ROTATE_KEY = "key.rotate"
    SUSPEND_KEY = "key.suspend"
    RESUME_KEY = "key.resume"
    REVOKE_KEY = "key.revoke"
    CHANGE_LIMITS = "company.change_limits"
    CHANGE_CEILING = "company.change_ceiling"
    CHANGE_BILLING = "company.change_billing"
    DELETE_COMPANY = "company.delete"
    ADD_NUMBER = "number.add"
    RETRY_COMMAND = "command.retry"
    DROP_COMMAND = "command.drop"
    RETRY_CALLBACK = "callback.retry"
    DROP_CALLBACK = "callback.drop"
    DECIDE_OUTCOME = "outcome.decide"
    CANCEL_ATTEMPTS = "attempt.cancel"
    END_DATABASE_SESSION = "database_session.end"
    RETRY_CARRIER = "carrier.retry"
    ACKNOWLEDGE_ALARM = "alarm.acknowledge"
    RECONCILE = "reconcile"
    ACCEPT_SETTINGS = "settings.accept"
    CREATE_WEBHOOK = "webhook.create"
    CHANGE_WEBHOOK = "webhook.change"
    ROTATE_WEBHOOK = "webhook.rotate_secret"
    RESET_WEBHOOK = "webhook.reset"
    DELETE_WEBHOOK = "webhook.delete"
    REPLAY_DELIVERIES = "webhook.replay"
    DISABLE_WEBHOOK = "webhook.disable"
    ENABLE_WEBHOOK = "webhook.enable"


class TargetKind(StrEnum):
    ALL = "all"
    """The whole installation."""
    COMPANY = "company"
    KEY = "key"
    COMMAND = "command"
    CALLBACK = "callback"
    ATTEMPT = "attempt"
    ALARM = "alarm"
    NUMBER = "number"
    WEBHOOK = "webhook"


FIELDS = frozenset(
    {
        # of keys
        *("keyKind", "principalId", "rotatedFrom", "scopes", "expiresAt", "perMinute", "perHour"),
        # of companies and webhooks
        *("callsPerSecond", "concurrentCalls", "billingSystem", "prices", "webhooks", "events", "fields"),
        # of alarms, commands, calls and what was found
        *("kind", "state", "reason", "decision", "since", "acknowledgedAt", "filter"),
        *("count", "calls", "known", "bound", "unmatched", "pid"),
    }
)
"""Fields that `before` and `after` may have. None of them can hold a person's data."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """One act upon one target. Raises ValueError for a field that is not in FIELDS."""

    verb: Verb
    target_kind: TargetKind
    target_id: UUID | None = None
    company_id: UUID | None = None
    reason: str | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted({*self.before, *self.after} - FIELDS)
        if unknown:
            raise ValueError(f"the audit has no field {', '.join(unknown)}")


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """A stored act."""

    id: int
    """In the order of the acts."""
    at: datetime
    actor: str
    verb: str
    target_kind: str
    target_id: str | None
    company_id: UUID | None
    reason: str | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    trace_id: str | None

    @property
    def target(self) -> str:
        return self.target_kind if self.target_id is None else f"{self.target_kind}:{self.target_id}"


def as_stored(value: object) -> object:
    """Convert a value of `before` or `after` to its JSON form."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case UUID():
            return str(value)
        case Enum():
            return value.value
        case set() | frozenset() | list() | tuple():
            each = [as_stored(item) for item in value]
            return sorted(each, key=str) if isinstance(value, set | frozenset) else each
        case Mapping():
            return {str(name): as_stored(item) for name, item in value.items()}
        case None | bool() | int() | float() | str():
            return value
    return str(value)
