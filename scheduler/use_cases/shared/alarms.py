"""Alarms: raised, listed and acknowledged, and posted to a webhook. The audit of operators and API keys."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from scheduler.clock import Now, monotonic
from scheduler.domain.alarm import POSTED_WITHIN_S, AlarmKey, AlarmReceiver, KeptAlarm, NotPosted, RaisedAlarm, key_of
from scheduler.domain.principal import Act, AuditEntry, TargetKind, Verb, link_of
from scheduler.domain.refusals import NotFound
from scheduler.logs import log
from scheduler.persistence.alarms import AlarmPlace, AuditFilter
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules import operators
from scheduler.rules.operators import try_again_at
from scheduler.use_cases.shared.access import OperatorUseCase
from scheduler.use_cases.shared.hints import take_turn

# --- Alarms when they are raised: stored in the transaction of their cause, or by the process that logged them


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Occurrences of one alarm in this process, with their times on its monotonic clock."""

    count: int
    first: float
    last: float

    def and_also(self, other: "Seen") -> "Seen":
        """Add the occurrences of both."""
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


def raise_in(stores: Stores, kind: str, now: datetime, **subjects: UUID) -> None:
    """Store an alarm in the transaction of its cause.

    The log line of that alarm has `is_stored=True`, so that the alarm is not counted twice.
    """
    raise_each_in(stores, kind, now, [subjects])


def raise_each_in(stores: Stores, kind: str, now: datetime, each_about: Iterable[Mapping[str, UUID]]) -> None:
    """Store alarms of one kind like `raise_in`, in one statement. The same subjects twice count twice."""
    counts = Counter(key_of(kind, subjects) for subjects in each_about)
    raised = [RaisedAlarm(key=key, count=count, first_seen_at=now, last_seen_at=now) for key, count in counts.items()]
    stores.alarms.raise_all(raised, now)


# --- Alarms for operators, who list and acknowledge them


SHOWN = 1000
"""The most alarms that are listed."""
_NONE_UNCHANGED = (
    "Each alarm that the form showed was acknowledged meanwhile or occurred again, so none was acknowledged now. Read"
    " the effects again before you send it."
)


class Alarms(OperatorUseCase):
    """Alarms for operators."""

    def open(
        self,
        kind: str | None = None,
        after: AlarmPlace | None = None,
        limit: int = SHOWN,
        company_id: UUID | None = None,
    ) -> Sequence[KeptAlarm]:
        """List open alarms, the last seen first. `after`: only alarms after this place. Raises DatabaseAway.

        `company_id`: only alarms that name this company.
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
        """List open and acknowledged alarms, or only these, newest first. `before`: only older ones than this alarm.

        `company_id`: only alarms that name this company. Raises DatabaseAway.
        """
        with self._database.reading() as stores:
            return stores.alarms.newest(limit, kind, before, company_id, acknowledged=acknowledged)

    def to_acknowledge(self, alarm_id: UUID | None, kind: str | None) -> Sequence[KeptAlarm]:
        """List the alarms that `acknowledge` would close now. Raises NotFound without any, DatabaseAway."""
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
        note = operators.optional(note)
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


# --- Alarm posts: each new alarm is posted to the operator's webhook, and again with a back-off until it is accepted


_log = log(__name__)
_HOLD = timedelta(seconds=6 * POSTED_WITHIN_S)
"""Time for one try. After a crash within it the alarm is posted again."""
_TURN_S = 5.0
"""Further alarms wait for the next sweep."""


class AlarmPosts:
    """Posts open alarms. Any number of processes may run it at once, with one thread in each.

    Without a receiver nothing is posted, and alarms wait: an operator who sets one later gets those that are open.
    """

    def __init__(self, database: Database, receiver: AlarmReceiver | None, now: Now) -> None:
        self._database = database
        self._receiver = receiver
        self._now = now
        self._alone = threading.Lock()

    def send(self) -> None:
        """Post alarms that are due until none is left, or the receiver accepts none. Raises DatabaseAway."""
        if self._receiver is not None:
            take_turn(partial(self._post_next, self._receiver), alone=self._alone, seconds=_TURN_S)

    def _post_next(self, receiver: AlarmReceiver) -> bool:
        """Post the next alarm and record the outcome. False: none is due, or it was not accepted."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            alarm = stores.alarms.take_to_post(now, now + _HOLD)
        if alarm is None:
            return False
        try:
            receiver.post(alarm)
        except NotPosted as error:
            self._not_posted(alarm, error)
            return False
        with self._database.transaction() as stores:
            stores.alarms.posted(alarm.id, stores.instant(self._now))
        return True

    def _not_posted(self, alarm: KeptAlarm, error: NotPosted) -> None:
        with self._database.transaction() as stores:
            again_at = try_again_at(alarm.tries, stores.instant(self._now))
            stores.alarms.not_posted(alarm.id, again_at)
        # No alarm: it could not be posted either.
        _log.warning(
            "alarm_given_up: an alarm was not posted and will not be retried"
            if again_at is None
            else "alarm_not_posted: an alarm was not posted and will be retried",
            status=error.status,
            count=alarm.tries,
            until=None if again_at is None else again_at.isoformat(),
        )


# --- Acts: the audit of operators and API keys, for reading


class Acts:
    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, wanted: AuditFilter, before: int | None, limit: int) -> Sequence[AuditEntry]:
        """List entries, newest first. `before`: only those older than this entry. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.audit.newest(wanted, before, limit)

    def link_creators(self, actors: Iterable[str]) -> Mapping[str, str]:
        """Find the actors who created the sign-in links of these actors, by the latter. Raises DatabaseAway.

        Actors of another kind are left out.
        """
        links = {link_id: actor for actor in actors if (link_id := link_of(actor)) is not None}
        if not links:
            return {}
        with self._database.reading() as stores:
            found = stores.audit.link_creators(list(links))
        return {links[link_id]: creator for link_id, creator in found.items()}
