"""Counted due calls: their clocks, their due times, and the last instants at which they may start."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from scheduler.domain.company import CallTimeInterval
from scheduler.domain.schedule import CalleeClock
from scheduler.lifecycle.forecast import DueCalls
from scheduler.lifecycle.policy import Policy
from scheduler.persistence.due_calls import DueCell
from scheduler.timing import call_windows

QUARTER = timedelta(minutes=15)
_FURTHEST_CLOSING = timedelta(days=3)
"""An opening that ends later is as good as one that does not end: no call waits that long."""
_MINUTE = timedelta(minutes=1)
_FEW = 20
"""Fewer calls of a quarter are taken as evenly spread over it."""


def shared_out(mix: Mapping[CalleeClock, int], calls: int) -> dict[CalleeClock | None, int]:
    """Divide the calls in the proportions of the mix. Without a mix, their clock is unknown (None)."""
    total = sum(mix.values())
    if not total:
        return {None: calls}
    exact = {clock: calls * part / total for clock, part in mix.items()}
    shares: dict[CalleeClock | None, int] = {clock: int(share) for clock, share in exact.items()}
    by_rest = sorted(exact, key=lambda clock: int(exact[clock]) - exact[clock])
    for clock in by_rest[: calls - sum(shares.values())]:
        shares[clock] += 1
    return shares


def spread(cell: DueCell, calls: int, begins: datetime, last_start: datetime | None) -> Iterator[DueCalls]:
    """Yield some calls of a cell: those at the first instant, if many are due then, and the others evenly spread.

    Their number at the first instant follows from the mean. Many calls are due at the instant of an opening. `begins`
    is the present quarter of the hour.
    """
    first_at, span, over, at_once = cell.first_at, cell.last_at - cell.first_at, timedelta(), calls
    if cell.begins >= begins and calls < (_FEW if span else 2):
        first_at, over, at_once = cell.begins, QUARTER, 0
    elif span:
        at_once = round(calls * max(1 - 2 * ((cell.mean_at - cell.first_at) / span), 0))
        first_at = cell.begins + (cell.first_at - cell.begins) // _MINUTE * _MINUTE
        over = (cell.last_at - first_at) // _MINUTE * _MINUTE + _MINUTE
    yield DueCalls(at=first_at, calls=at_once, last_start=last_start)
    yield DueCalls(at=first_at, calls=calls - at_once, over=over, last_start=last_start)


class Closings:
    """The last instants at which calls may start, by clock and calling hours. They are looked up thousands of times."""

    def __init__(self, now: datetime, policy: Policy, furthest: timedelta = _FURTHEST_CLOSING) -> None:
        self._now = now
        self._ends = now + furthest
        self._room = policy.room
        self._openings: dict[tuple[CalleeClock, tuple[CallTimeInterval, ...]], Sequence[tuple[datetime, datetime]]] = {}

    def last_start(
        self, clock: CalleeClock | None, intervals: tuple[CallTimeInterval, ...], due_at: datetime
    ) -> datetime | None:
        """Find the last start of a call that is due then, or None without a closing in the next days.

        If it is closed then, the call waits for another opening: its last start has passed.
        """
        if clock is None:
            return None
        openings = self._openings_of(clock, intervals)
        at = max(due_at, self._now)
        place = bisect_right(openings, at, key=lambda opening: opening[0]) - 1
        if place < 0 or openings[place][1] <= at:
            return at
        return None if openings[place][1] == self._ends else openings[place][1] - self._room

    def next_opening(
        self, clock: CalleeClock, intervals: tuple[CallTimeInterval, ...], after: datetime
    ) -> datetime | None:
        """Find the start of the first opening after this instant that is long enough for a call, or None."""
        openings = self._openings_of(clock, intervals)
        place = bisect_right(openings, after, key=lambda opening: opening[0])
        return next((opens for opens, closes in openings[place:] if closes - opens > self._room), None)

    def _openings_of(
        self, clock: CalleeClock, intervals: tuple[CallTimeInterval, ...]
    ) -> Sequence[tuple[datetime, datetime]]:
        key = clock, intervals
        if key not in self._openings:
            self._openings[key] = call_windows.openings(clock, intervals, self._now, self._ends)
        return self._openings[key]
