"""The rates at which calls may start: by pace and places, and shared among companies.

Time is counted in seconds.
"""

from dataclasses import dataclass
from math import exp, inf, log

ALMOST_FULL = 1e-9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The pace and the places of a company or an account. All values are positive, except `in_progress`."""

    calls_per_second: float
    concurrent_calls: int
    in_progress: int = 0


@dataclass(kw_only=True)
class Places:
    """The rate at which calls may start, which falls to that of their ends once all places are taken."""

    per_second: float
    limit: float
    lasts: float | None
    running: float

    @classmethod
    def of(cls, limits: Limits, lasts: float | None, running: int) -> "Places":
        limit = inf if lasts is None else float(limits.concurrent_calls)
        return cls(per_second=limits.calls_per_second, limit=limit, lasts=lasts, running=float(running))

    @property
    def rate(self) -> float:
        if self.lasts is None or self.running < self.limit * (1 - ALMOST_FULL):
            return self.per_second
        if self.running > self.limit * (1 + ALMOST_FULL):
            return 0.0  # the limit was lowered, and calls must end first
        return min(self.per_second, self.limit / self.lasts)

    def changes_in(self, starting: float) -> float:
        """Return the seconds until the limit is reached, from either side, if `starting` calls start each second."""
        if self.lasts is None:
            return inf
        reached = starting * self.lasts
        is_full = abs(self.running - self.limit) <= self.limit * ALMOST_FULL
        if is_full or not min(self.running, reached) < self.limit < max(self.running, reached):
            return inf
        return self.lasts * log((reached - self.running) / (reached - self.limit))

    def pass_time(self, seconds: float, starting: float, *, reaches_limit: bool) -> None:
        if self.lasts is not None:
            reached = starting * self.lasts
            self.running = reached + (self.running - reached) * exp(-seconds / self.lasts)
        if reaches_limit:
            self.running = self.limit


def shared(wanted: list[float], rate: float) -> list[float]:
    """Share the account's rate equally among companies, but give none more than it wants."""
    if sum(wanted) <= rate:
        return wanted
    for served, each in enumerate(sorted(wanted)):
        share = rate / (len(wanted) - served)
        if each > share:
            return [min(share, one) for one in wanted]
        rate = max(rate - each, 0.0)
    return wanted
