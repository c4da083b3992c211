"""Alarms for operators, who list and acknowledge them. They are stored by `use_cases/shared/alarms.py`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.actor import SYSTEM
from scheduler.domain.alarm import KeptAlarm
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.refusals import NotFound
from scheduler.persistence.alarms import AlarmPlace
from scheduler.persistence.database import Database
from scheduler.rules import pause_reasons

SHOWN = 1000
"""The most alarms that are listed."""
_NONE_UNCHANGED = (
    "Each alarm that the form showed was acknowledged meanwhile or occurred again, so none was acknowledged now. Read"
    " the effects again before you send it."
)


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
