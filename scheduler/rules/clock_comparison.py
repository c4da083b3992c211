"""Comparison of this machine's clock with the database's."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.lifecycle.policy import MAX_CLOCK_SKEW


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The database's answer to a query of its time.

    `asked_at` and `answered_at` are seconds on this machine's monotonic clock, which steps of the wall clock do not
    affect.
    """

    database_clock: datetime
    asked_at: float
    answered_at: float

    def ahead(self, machine_clock: datetime, read_at: float) -> timedelta:
        """Return how far the machine's clock is ahead (negative: behind), or zero if latency explains the difference.

        `machine_clock` was read at `read_at` on the monotonic clock, at the time of the answer or later.
        """
        earliest = self.database_clock + timedelta(seconds=read_at - self.answered_at)
        latest = self.database_clock + timedelta(seconds=read_at - self.asked_at)
        if machine_clock > latest:
            return machine_clock - latest
        return min(machine_clock - earliest, timedelta(0))


def is_wrong(ahead: timedelta) -> bool:
    """Return whether a clock with this difference must not write times."""
    return abs(ahead) > MAX_CLOCK_SKEW
