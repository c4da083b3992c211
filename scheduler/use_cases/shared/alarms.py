"""Alarms when they are raised: stored in the transaction of their cause, or by the process that logged them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now, monotonic
from scheduler.domain.alarm import AlarmKey, RaisedAlarm, key_of
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores


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
    key = key_of(kind, subjects)
    stores.alarms.raise_all([RaisedAlarm(key=key, first_seen_at=now, last_seen_at=now)], now)
