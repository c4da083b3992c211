"""Alarms as they are kept: the kind, the ids that it is about, and how often it was raised until it is acknowledged."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

SUBJECTS = (
    "attempt_id",
    "interview_id",
    "invitation_id",
    "company_id",
    "command_id",
    "event_id",
    "key_id",
    "country",
    "batch_id",
    "table",
    "row_id",
)
"""Fields of a log line that identify an alarm's subject. Other fields are not kept."""

KINDS = (
    "ACCOUNT_LIMITED",
    "CARRIER_ACCOUNT_NOT_ACTIVE",
    "CARRIER_ANSWER_BROKE_OFF",
    "CARRIER_CREATED_WITHOUT_A_NAME",
    "CARRIER_CREDENTIALS",
    "CARRIER_FAILS_CALLER",
    "CARRIER_NEVER_CONNECTED",
    "CARRIER_NO_ANSWER_IN_TIME",
    "CARRIER_QUEUE_FULL",
    "CARRIER_REFUSES_CALLER",
    "CARRIER_REFUSES_COUNTRY",
    "CARRIER_THROTTLED",
    "CAUSE_LOST",
    "CLOCK_SKEW",
    "CLOCK_WAS_WRONG",
    "DATABASE_CHANGED",
    "DATABASE_SLOW",
    "DEAF_WORKER",
    "DIALLER_FAILED",
    "LOCK_HELD",
    "MAIL",
    "NEWS_FOR_AN_OLD_TOKEN",
    "NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED",
    "NO_MESSAGE",
    "ORDER_REFUSED",
    "OUTCOME_UNDECIDED",
    "OUTCOME_UNKNOWN",
    "OUT_OF_DESCRIPTORS",
    "PRICES",
    "PROBE_OVERDUE",
    "QUARANTINE",
    "REDIS_EVICTS",
    "SETTINGS",
    "THREAD_HUNG",
    "TWO_CALLS_FOR_ONE_TOKEN",
    "TWO_CALLS_TO_ONE_NUMBER",
    "UNREADABLE_ROW",
    "UNRESOLVED",
    "WEBHOOK_KEY",
)
"""The kinds that are counted by their name, see docs/operations.md. Others, as CARRIER_HTTP_500, count together."""

_LONGEST_KIND = 80
_LONGEST_SUBJECT = 40
_OTHER = re.compile(r"[^A-Z0-9_]+")


@dataclass(frozen=True, kw_only=True)
class AlarmKey:
    """An alarm is open at most once per key."""

    kind: str
    subjects: tuple[tuple[str, str], ...] = ()
    """Names and ids, in the order of SUBJECTS."""


def key_of(kind: str, fields: Mapping[str, object]) -> AlarmKey:
    """Return the key of an alarm from the fields of its log line. A kind is stored in capitals, digits and `_` only."""
    subjects = tuple((name, str(fields[name])[:_LONGEST_SUBJECT]) for name in SUBJECTS if fields.get(name) is not None)
    return AlarmKey(kind=_OTHER.sub("_", kind.upper())[:_LONGEST_KIND] or "UNNAMED", subjects=subjects)


@dataclass(frozen=True, kw_only=True)
class RaisedAlarm:
    """Occurrences of one alarm that are to be stored."""

    key: AlarmKey
    count: int = 1
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class KeptAlarm:
    """A stored alarm. It is open until an operator acknowledges it."""

    id: UUID
    kind: str
    subjects: Mapping[str, str] = field(default_factory=dict)
    first_seen_at: datetime
    last_seen_at: datetime
    count: int
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    note: str | None = None
    tries: int = 0
    """Tries to post it to the webhook."""
    post_at: datetime | None = None
    """Time of the next try. None if it was posted, acknowledged or given up."""
    posted_at: datetime | None = None
