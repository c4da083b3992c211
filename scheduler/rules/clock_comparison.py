"""Comparison of two clocks: whether this machine's is wrong, judged by the database's."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.lifecycle.policy import MAX_CLOCK_SKEW


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An answer of the database to the question what time it is.

    `asked_at` and `answered_at` are seconds on this machine's monotonic clock, which no step of the wall clock moves.
    """

    database_clock: datetime
    asked_at: float
    answered_at: float

    def ahead(self, machine_clock: datetime, read_at: float) -> timedelta:
        """How far the machine's clock is ahead; negative: behind; zero: the answer's way explains the difference.

        `machine_clock` was read at `read_at`, in seconds of the monotonic clock, together with the answer or later.
        """
        earliest = self.database_clock + timedelta(seconds=read_at - self.answered_at)
        latest = self.database_clock + timedelta(seconds=read_at - self.asked_at)
        if machine_clock > latest:
            return machine_clock - latest
        return min(machine_clock - earliest, timedelta(0))


def is_wrong(ahead: timedelta) -> bool:
    """Return whether a clock that is so far ahead, or behind, may write no times."""
    return abs(ahead) > MAX_CLOCK_SKEW
