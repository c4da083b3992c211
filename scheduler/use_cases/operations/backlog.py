"""Backlog: accepted commands that are not applied yet, quarantined commands and callbacks, and open erasures."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Unapplied commands of one company."""

    waiting: int = 0
    """Accepted and not applied yet."""
    oldest: timedelta | None = None
    """Age of the oldest waiting command."""
    quarantined: int = 0
    """Commands that failed five times with an unexpected error and block their interview. An engineer decides."""


@dataclass(frozen=True, kw_only=True)
class OpenErasures:
    """Deleted companies whose data is not fully erased yet."""

    count: int = 0
    oldest: timedelta | None = None
    """Time since the first of them was deleted."""


class Backlog:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def commands(self) -> Mapping[UUID, Commands]:
        """Count unapplied commands by company. Companies without any are omitted. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return commands_in(stores, self._now())

    def callbacks_quarantined(self) -> int:
        """Count the carrier's callbacks that failed five times with an unexpected error. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return stores.carrier_events.count_quarantined()

    def erasures(self) -> OpenErasures:
        """Count open erasures. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return erasures_in(stores, self._now())


def commands_in(stores: Stores, now: datetime) -> Mapping[UUID, Commands]:
    """Count unapplied commands by company in a transaction that counts."""
    return {
        row.company_id: Commands(waiting=row.waiting, oldest=_age(row.oldest_at, now), quarantined=row.quarantined)
        for row in stores.inbox.count_unapplied()
    }


def erasures_in(stores: Stores, now: datetime) -> OpenErasures:
    """Count open erasures in a transaction that counts."""
    count, oldest_at = stores.erasures.count_open()
    return OpenErasures(count=count, oldest=_age(oldest_at, now))


def _age(since: datetime | None, now: datetime) -> timedelta | None:
    return None if since is None else max(now - since, timedelta())
