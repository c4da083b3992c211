"""New calls: when the last of some calls would start that a company has not created yet, from counts of due calls."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from scheduler.domain.call import CalleeClock
from scheduler.domain.company import CallLimits, CallTimeInterval
from scheduler.domain.explanation import Rule
from scheduler.domain.principal import Principal
from scheduler.lifecycle.forecast import CompanyQueue, DueCalls, Limits, Opening, forecast
from scheduler.lifecycle.policy import DEFAULT_LIFE, MAX_AHEAD, Policy
from scheduler.persistence.due_calls import CallingAccount, CallingCompany, DueCell, DueCells, OtherCompany
from scheduler.timing import call_windows
from scheduler.timing.call_windows import SEARCHED
from scheduler.use_cases.shared.context import Context

# --- Counted due calls: their clocks, their due times, and the last instants at which they may start


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


# --- New calls: when the last of some calls would start that a company has not created yet


_DAY = timedelta(days=1)
_FINE = timedelta(days=2)
"""For this long, the company's own calls are counted by the minute: those before the last new one decide its start."""

NewCalls = Mapping[tuple[datetime, datetime, CalleeClock], int]
"""Calls by due time, expiry and clock."""


@dataclass(frozen=True, kw_only=True)
class NewCallsForecast:
    last_start_at: datetime | None
    """None without a call that starts, and if `waits_for` or a missing worker prevents it."""
    expired: int
    """Calls that would expire before their turn."""
    waits_for: Rule | None
    """The pause or outage that prevents every call now. Its end is unknown."""
    call_lasts: timedelta | None
    """The mean duration of calls. None if too few have ended: then only the paces count, not the limits of calls."""


class NewCallsForecasts:
    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._policy = context.policy
        self._now = context.now

    def of(self, principal: Principal, company_id: UUID, calls: NewCalls) -> NewCallsForecast:
        """Forecast when the last of these calls would start at the present paces. Raises DatabaseAway.

        They share the account with the pending calls of all companies, as they do now: retries and calls that are
        created later are unknown.
        """
        now = self._now()
        begins = datetime.min.replace(tzinfo=UTC) + (now - datetime.min.replace(tzinfo=UTC)) // QUARTER * QUARTER
        last_due_at = max((due_at for due_at, _, _ in calls), default=now)
        span = min(max(last_due_at, now) + _DAY, now + MAX_AHEAD) - begins
        ends = begins + -(-span // QUARTER) * QUARTER  # calls due later are cells of their own
        with self._database.reading(principal) as stores:
            own = stores.due_calls.cells_of(company_id, begins, ends, _MINUTE if ends <= now + _FINE else QUARTER)
            company = stores.due_calls.companies([company_id]).get(company_id)
        with self._database.counting() as stores:
            due = stores.due_calls.cells_of_others(company_id, begins, ends)
            others = stores.due_calls.others({cell.company_id for cell in due.cells})
            account = stores.due_calls.account()
        waits_for = None if company is None else _waits_for(company, account)
        if company is None or account is None or waits_for is not None or not calls:
            lasts = None if account is None else account.call_lasts
            return NewCallsForecast(last_start_at=None, expired=0, waits_for=waits_for, call_lasts=lasts)
        intervals = company.settings.intervals
        closings = Closings(now, self._policy, SEARCHED)
        queue = CompanyQueue(
            company_id=company_id,
            limits=_limits(company.settings.limits, company.in_progress),
            due=[*_waiting(own, intervals, closings), *_new(calls, intervals, closings)],
            next_opening=partial(_next_opening, closings, intervals),
        )
        found = forecast(
            [queue, *_queues(others, due.cells, begins, ends, closings)],
            Limits(
                calls_per_second=account.calls_per_second,
                concurrent_calls=account.max_calls,
                in_progress=account.in_progress,
            ),
            now,
            durations=account.durations,
        )
        return NewCallsForecast(
            last_start_at=found.last_new_at, expired=found.expired, waits_for=None, call_lasts=account.call_lasts
        )


def _waits_for(company: CallingCompany, account: CallingAccount | None) -> Rule | None:
    if account is not None and account.pause_reason is not None:
        return Rule.ACCOUNT_PAUSED
    if account is not None and account.is_down:
        return Rule.VOICE_SERVER_DOWN if account.waits_for_voice_server else Rule.CARRIER_DOWN
    return None if company.pause_reason is None else Rule.COMPANY_PAUSED


def _limits(limits: CallLimits, in_progress: int) -> Limits:
    return Limits(
        calls_per_second=limits.calls_per_second, concurrent_calls=limits.concurrent_calls, in_progress=in_progress
    )


def _queues(
    others: Iterable[OtherCompany], cells: Iterable[DueCell], begins: datetime, ends: datetime, closings: Closings
) -> Iterator[CompanyQueue]:
    """Yield the pending calls of other companies that are due before `ends`, with their calling hours."""
    by_company: dict[UUID, list[DueCell]] = defaultdict(list)
    for cell in cells:
        if cell.begins < ends:
            by_company[cell.company_id].append(cell)
    for company in others:
        intervals = company.settings.intervals
        yield CompanyQueue(
            company_id=company.id,
            limits=_limits(company.settings.limits, company.in_progress),
            due=[
                replace(due, clock=clock, expires_at=due.at + DEFAULT_LIFE)
                for cell, clock, calls in _by_clock(by_company[company.id])
                for due in spread(cell, calls, begins, closings.last_start(clock, intervals, cell.first_at))
            ],
            next_opening=partial(_next_opening, closings, intervals),
        )


def _by_clock(cells: Sequence[DueCell]) -> Iterator[tuple[DueCell, CalleeClock | None, int]]:
    """Yield each cell's calls by clock. Those whose clocks were not read have clocks like the company's others."""
    mix: dict[CalleeClock, int] = defaultdict(int)
    for cell in cells:
        for clock, calls in cell.clocks.items():
            mix[clock] += calls
    for cell in cells:
        for known, calls in shared_out(cell.clocks or mix, cell.calls).items():
            yield cell, known, calls


def _waiting(counted: DueCells, intervals: tuple[CallTimeInterval, ...], closings: Closings) -> Iterator[DueCalls]:
    """Yield the company's pending calls."""
    for cell, clock, calls in _by_clock(counted.cells):
        last_start = closings.last_start(clock, intervals, cell.first_at)
        yield DueCalls(
            at=cell.first_at,
            calls=calls,
            over=cell.last_at - cell.first_at,
            last_start=last_start,
            clock=clock,
            expires_at=cell.first_at + DEFAULT_LIFE,
        )


def _new(calls: NewCalls, intervals: tuple[CallTimeInterval, ...], closings: Closings) -> Iterator[DueCalls]:
    """Yield the new calls."""
    for (due_at, expires_at, clock), count in calls.items():
        yield DueCalls(
            at=due_at,
            calls=count,
            last_start=closings.last_start(clock, intervals, due_at),
            clock=clock,
            expires_at=expires_at,
            is_new=True,
        )


def _next_opening(
    closings: Closings, intervals: tuple[CallTimeInterval, ...], clock: CalleeClock | None, after: datetime
) -> Opening | None:
    opens = None if clock is None else closings.next_opening(clock, intervals, after)
    return None if opens is None else (opens, closings.last_start(clock, intervals, opens))
