"""Which commands were accepted and are not applied yet, and which will not be until a person has looked."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
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
                    oldest=None if row.oldest_at is None else max(now - row.oldest_at, timedelta()),
                    quarantined=row.quarantined,
                )
                for row in stores.inbox.count_unapplied()
            }
