"""Alarms: they are stored when they are raised, and an operator lists and acknowledges them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now, monotonic
from scheduler.domain.actor import SYSTEM
from scheduler.domain.alarm import AlarmKey, KeptAlarm, RaisedAlarm, key_of
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.refusals import NotFound
from scheduler.persistence.alarms import AlarmPlace
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules import pause_reasons

SHOWN = 1000
"""The most alarms that are listed."""
_NONE_UNCHANGED = (
    "Each alarm that the form showed was acknowledged meanwhile or occurred again, so none was acknowledged now. Read"
    " the effects again before you send it."
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Occurrences of one alarm in this process, with their times on its monotonic clock."""

    count: int
    first: float
    last: float

    def and_also(self, other: "Seen") -> "Seen":
        """Return the occurrences of both."""
        return Seen(count=self.count + other.count, first=min(self.first, other.first), last=max(self.last, other.last))


class AlarmStore:
    """Stores the alarms of a process. For each role: a process that may store alarms need not see any."""

    def __init__(self, database: Database, now: Now, *, monotonic: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._now = now
        self._monotonic = monotonic

    def store(self, seen: Mapping[AlarmKey, Seen]) -> None:
        """Store alarms in one short transaction, also on a wrong clock. Raises DatabaseAway.

        An alarm that waited for the database keeps the time at which it was raised.
        """
        with self._database.transaction(corrected=True) as stores:
            now, instant = stores.instant(self._now), self._monotonic()
            stores.alarms.raise_all(
                [
                    RaisedAlarm(
                        key=key,
                        count=each.count,
                        first_seen_at=now - timedelta(seconds=max(0.0, instant - each.first)),
                        last_seen_at=now - timedelta(seconds=max(0.0, instant - each.last)),
                    )
                    for key, each in seen.items()
                ],
                now,
            )

    def close(self) -> None:
        """Close the connection. The next alarm opens another one."""
        self._database.close()


class Alarms:
    """Alarms for operators."""

    def __init__(self, database: Database, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    def open(
        self,
        kind: str | None = None,
        after: AlarmPlace | None = None,
        limit: int = SHOWN,
        company_id: UUID | None = None,
    ) -> Sequence[KeptAlarm]:
        """Return open alarms, the last seen first. `after`: only those that follow this place. Raises DatabaseAway.

        `company_id`: only those that name this company.
        """
        with self._database.reading() as stores:
            return stores.alarms.open(limit, kind, after, company_id)

    def all(
        self,
        kind: str | None = None,
        before: UUID | None = None,
        limit: int = SHOWN,
        company_id: UUID | None = None,
        *,
        acknowledged: bool = False,
    ) -> Sequence[KeptAlarm]:
        """Return open and acknowledged alarms, or only these, newest first. `before`: only older ones than this alarm.

        `company_id`: only those that name this company. Raises DatabaseAway.
        """
        with self._database.reading() as stores:
            return stores.alarms.newest(limit, kind, before, company_id, acknowledged=acknowledged)

    def to_acknowledge(self, alarm_id: UUID | None, kind: str | None) -> Sequence[KeptAlarm]:
        """Return the alarms that `acknowledge` would close now. Raises NotFound without any, DatabaseAway."""
        with self._database.reading() as stores:
            return _found(stores.alarms.find_open(alarm_id, kind))

    def count_open(self) -> Mapping[str, int]:
        """Count the open alarms by kind. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return stores.alarms.count_open()

    def acknowledge(
        self,
        alarm_id: UUID | None,
        *,
        kind: str | None = None,
        note: str | None = None,
        until: AlarmPlace | None = None,
    ) -> Sequence[KeptAlarm]:
        """Close an alarm, or all open alarms of a kind. The next occurrence opens another one. Return what was closed.

        `until`: leave those open that are newer than the alarm of this id, or were seen after this time.
        Raises NotFound if no such alarm is open, InvalidPauseReason for the note, DatabaseAway.
        """
        note = pause_reasons.optional(note)
        with self._database.transaction() as stores:
            closed = stores.alarms.lock_open(alarm_id, kind, until)
            if not closed and until is not None:
                raise NotFound(_NONE_UNCHANGED, resourceType="alarm")
            _found(closed)
            now = stores.instant(self._now)
            stores.alarms.acknowledge([each.id for each in closed], self._actor, note, now)
            stores.audit.add(self._actor, [_acknowledged(each, note, now) for each in closed], now)
            return closed


def raise_in(stores: Stores, kind: str, now: datetime, **subjects: UUID) -> None:
    """Store an alarm in the transaction of its cause.

    The log line of that alarm says `is_stored=True`, so that the alarm is not counted twice.
    """
    key = key_of(kind, subjects)
    stores.alarms.raise_all([RaisedAlarm(key=key, first_seen_at=now, last_seen_at=now)], now)


def _found(alarms: Sequence[KeptAlarm]) -> Sequence[KeptAlarm]:
    if not alarms:
        raise NotFound(
            "No such alarm is open: it was acknowledged before, or the id or the kind is wrong. The page Alarms and"
            " `duecall alarms list` have the open ones.",
            resourceType="alarm",
        )
    return alarms


def _acknowledged(alarm: KeptAlarm, note: str | None, now: datetime) -> Act:
    company_id = alarm.subjects.get("company_id")
    return Act(
        verb=Verb.ACKNOWLEDGE_ALARM,
        target_kind=TargetKind.ALARM,
        target_id=alarm.id,
        company_id=None if company_id is None else UUID(company_id),
        reason=note,
        before={"kind": alarm.kind, "count": alarm.count},
        after={"acknowledgedAt": now},
    )
