"""What was accepted and is not done yet: commands, also those that a person must look at, and erasures."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now
from scheduler.persistence.database import Database


@dataclass(frozen=True, kw_only=True)
class Commands:
    """What one company has asked for and waits for."""

    waiting: int = 0
    """Accepted and not applied yet."""
    oldest: timedelta | None = None
    """How long the oldest of these has been waiting."""
    quarantined: int = 0
    """They failed five times for no known reason, and hold their interview; an engineer decides."""


@dataclass(frozen=True, kw_only=True)
class OpenErasures:
    """Deleted companies of which not everything is erased yet."""

    count: int = 0
    oldest: timedelta | None = None
    """How long ago the first of them was deleted."""


class Backlog:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def commands(self) -> Mapping[UUID, Commands]:
        """By company; one of which nothing waits is not there. Raises DatabaseAway."""
        now = self._now()
        with self._database.counting() as stores:
            return {
                row.company_id: Commands(
                    waiting=row.waiting,
                    oldest=_age(row.oldest_at, now),
                    quarantined=row.quarantined,
                )
                for row in stores.inbox.count_unapplied()
            }

    def erasures(self) -> OpenErasures:
        """Raises DatabaseAway."""
        now = self._now()
        with self._database.counting() as stores:
            count, oldest_at = stores.erasures.count_open()
        return OpenErasures(count=count, oldest=_age(oldest_at, now))


def _age(since: datetime | None, now: datetime) -> timedelta | None:
    return None if since is None else max(now - since, timedelta())
