"""The audit: acts of operators and API keys, with what they changed. It contains ids, states and limits, no names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID


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
        "acknowledgedAt",
        "billingSystem",
        "bound",
        "calls",
        "callsPerSecond",
        "concurrentCalls",
        "count",
        "decision",
        "events",
        "expiresAt",
        "fields",
        "filter",
        "keyKind",
        "kind",
        "known",
        "perHour",
        "perMinute",
        "pid",
        "prices",
        "principalId",
        "reason",
        "rotatedFrom",
        "scopes",
        "since",
        "state",
        "unmatched",
        "webhooks",
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
