"""Alarms: the kinds and their meanings, the ids that each is about, how often it was raised, and who is told."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

SUBJECTS = (
    "attempt_id",
    "interview_id",
    "invitation_id",
    "company_id",
    "command_id",
    "event_id",
    "key_id",
    "phone_number_id",
    "country",
    "batch_id",
    "table",
    "row_id",
)
"""Fields of a log line that identify an alarm's subject. Other fields are not kept."""

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
    """Derive the key of an alarm from the fields of its log line. A kind is stored in capitals, digits and `_` only."""
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


POSTED_WITHIN_S = 10.0
"""Limit for the whole exchange, so that a receiver that answers byte by byte cannot block a worker."""


class NotPosted(Exception):
    """The receiver did not accept the alarm. `status` is its HTTP status, or None if it sent none."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__()
        self.status = status


class AlarmReceiver(Protocol):
    """The receiver of posted alarms, as the use cases see it."""

    def post(self, alarm: KeptAlarm) -> None:
        """Post the alarm. Raises NotPosted."""
        ...


# --- Meanings of the kinds of alarms: a sentence for operators, and the section of docs/operations.md with the steps


OPERATIONS = "operations.md"
"""The page with a section for each kind."""
_CARRIER_HTTP = "CARRIER_HTTP_"
_UNKNOWN = "This version does not know the kind: a process of another version raised it."
_IMPOSSIBLE = "so the company is paused: another program may use the carrier account."

MEANINGS: Mapping[str, str] = {
    "ACCOUNT_LIMITED": "The carrier refused a call because its account is limited, for example a trial account.",
    "CALLER_RARELY_ANSWERED": "Calls from one of a company's numbers are answered less than half as often as usual.",
    "CALLER_REPUTATION": "Networks blocked calls from one of a company's numbers three times in a day.",
    "CARRIER_ACCOUNT_NOT_ACTIVE": "The carrier closed or suspended the account, so no call is placed.",
    "CARRIER_ANSWER_BROKE_OFF": "The carrier's answers to new calls are cut off, so all calls wait.",
    "CARRIER_CREATED_WITHOUT_A_NAME": "The carrier accepted a call without naming it, so all calls wait.",
    "CARRIER_CREDENTIALS": "The carrier rejects the credentials of the account, so no call is placed.",
    "CARRIER_FAILS_CALLER": "The carrier failed calls of one company, so that company's calls wait.",
    "CARRIER_NEVER_CONNECTED": "The carrier cannot be reached, so all calls wait.",
    "CARRIER_NO_ANSWER_IN_TIME": "The carrier does not answer new calls in time, so all calls wait.",
    "CARRIER_QUEUE_FULL": "The carrier's queue of calls is full, so all calls wait.",
    "CARRIER_REFUSES_CALLER": "The carrier account may not call from a company's number, so those calls wait.",
    "CARRIER_REFUSES_COUNTRY": "The carrier account may not call a country, so calls to it wait.",
    "CARRIER_THROTTLED": "The carrier received more calls per second than it allows, so all calls wait.",
    "CAUSE_LOST": "A call failed and its cause is unknown, so no retry follows.",
    "CLOCK_SKEW": "The clocks of a machine and of the database differ, so that machine places no calls.",
    "CLOCK_WAS_WRONG": "Times that were stored while a clock was wrong have been corrected.",
    "DATABASE_CHANGED": "The database was restored or replaced and may have forgotten calls, so all calls are paused.",
    "DATABASE_SLOW": "The database answers too slowly to check a call before it rings, so no call is placed.",
    "DEAF_WORKER": "A worker received nothing from Redis and was restarted.",
    "DIALLER_FAILED": "A dial worker ended by an unexpected error.",
    "LOCK_HELD": "Another transaction keeps a row locked, so calls wait for it.",
    "LOOP_STUCK": "An API process was blocked and exited.",
    "MAIL": "An invitation cannot be written safely because of the company's name.",
    "NEWS_FOR_AN_OLD_TOKEN": f"The carrier reported a call that an earlier try had placed, {_IMPOSSIBLE}",
    "NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED": f"The carrier reported a call that Duecall had not placed, {_IMPOSSIBLE}",
    "NO_MESSAGE": "Malformed messages were dropped from a queue: another program writes to Redis.",
    "NUMBER_BLOCKED": "The carrier blocks a number, so calls to it wait.",
    "ORDER_REFUSED": "The carrier refused a call because of our request, usually a URL that it rejects.",
    "OUTCOME_UNDECIDED": "The carrier's list of calls cannot be read, so outcomes of calls stay undecided.",
    "OUTCOME_UNKNOWN": "Nothing proved whether a call was placed. It is not retried, and an operator decides.",
    "OUT_OF_DESCRIPTORS": "A process can open no further file or connection, so its work waits.",
    "OUT_OF_MEMORY": "An API process ran out of memory and exited.",
    "PRICES": "A company's prices cannot be read, so it is billed at the default prices.",
    "PROBE_OVERDUE": "The carrier is down and no worker probes it, so all calls wait for Duecall itself.",
    "QUARANTINE": "A command or a callback failed five times. An operator retries or drops it.",
    "REDIS_EVICTS": "Redis deletes keys because its memory is full, so calls are late and commands may be lost.",
    "SETTINGS": "A company's settings cannot be read, so it is not called.",
    "THREAD_HUNG": "A thread made no step in its work for too long, so its process was restarted.",
    "TWO_CALLS_FOR_ONE_TOKEN": f"The carrier has two calls for one attempt, {_IMPOSSIBLE}",
    "TWO_CALLS_TO_ONE_NUMBER": f"Two calls to one number were in progress, {_IMPOSSIBLE}",
    "UNREADABLE_ROW": "This release cannot read a row, usually one of a later release. It is left out.",
    "UNRESOLVED": "The time of a call could not be computed again after a change, so the call keeps its time.",
    "VOICE_SERVER_DOWN": "The voice server gave answered calls no instructions, so all calls wait.",
    "WEBHOOK_KEY": "No key of WEBHOOK_KEY decrypts the secret of a webhook, so its deliveries wait.",
}

_ONLY_IN_THE_LOG = frozenset({"LOOP_STUCK", "OUT_OF_MEMORY"})
"""Last words of a process, which stores no more."""
KINDS = tuple(kind for kind in MEANINGS if kind not in _ONLY_IN_THE_LOG)
"""The kinds that are counted by their name. Others, as CARRIER_HTTP_500, count together."""

_SECTIONS = (
    (
        *("TWO_CALLS_TO_ONE_NUMBER", "TWO_CALLS_FOR_ONE_TOKEN", "NEWS_FOR_AN_OLD_TOKEN"),
        "NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED",
    ),
    ("CARRIER_CREDENTIALS", "CARRIER_ACCOUNT_NOT_ACTIVE"),
    (
        *("CARRIER_NEVER_CONNECTED", "CARRIER_THROTTLED", "CARRIER_QUEUE_FULL", "CARRIER_NO_ANSWER_IN_TIME"),
        *("CARRIER_ANSWER_BROKE_OFF", "CARRIER_CREATED_WITHOUT_A_NAME", _CARRIER_HTTP),
    ),
    ("CARRIER_REFUSES_COUNTRY", "CARRIER_REFUSES_CALLER"),
    ("ORDER_REFUSED", "ACCOUNT_LIMITED"),
    ("SETTINGS", "PRICES"),
    ("OUT_OF_MEMORY", "LOOP_STUCK"),
)
"""The kinds that share a section. Each other kind has its own."""
_ANCHORS = {kind: "--".join(kinds).lower() for kinds in _SECTIONS for kind in kinds}


def meaning_of(kind: str) -> str:
    """Describe alarms of this kind in one sentence."""
    if kind.startswith(_CARRIER_HTTP):
        return f"The carrier answers new calls with the HTTP status {kind.removeprefix(_CARRIER_HTTP)}, so calls wait."
    return MEANINGS.get(kind, _UNKNOWN)


def anchor_of(kind: str) -> str:
    """Name the anchor of the section with the steps."""
    if kind.startswith(_CARRIER_HTTP):
        return _ANCHORS[_CARRIER_HTTP]
    return _ANCHORS.get(kind, kind.lower() if kind in MEANINGS else "alarms")
