"""Calendar: the calls that become due in the next 24 hours, their zones, and when they can start."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from console.calendar_rows import QUARTERS, WaitingCalls
from scheduler.domain.call import CalleeClock
from scheduler.domain.company import CallLimits, CallTimeInterval
from scheduler.lifecycle.forecast import CompanyQueue, DueCalls, Forecast, Limits, forecast
from scheduler.lifecycle.policy import Policy
from scheduler.persistence.due_calls import CallingAccount, CallingCompany, DueCell, DueCells
from scheduler.use_cases.operations.new_calls import QUARTER, Closings, shared_out, spread
from scheduler.use_cases.shared.context import Context

_DAY = QUARTER * QUARTERS


@dataclass(frozen=True, kw_only=True)
class CompanyDay:
    """The counted calls of one company by quarter of the hour, in the order of time."""

    company_id: UUID
    name: str
    pause_reason: str | None
    limits: CallLimits
    calls: tuple[int, ...]
    """The first quarter contains the calls that are due already."""
    due_already: int
    """The calls of the first quarter that were due before it."""
    later: int
    """Counted calls that are due after these quarters."""
    clocks: Mapping[CalleeClock, int]
    """The counted calls by clock, without those whose clock is unknown."""
    intervals: tuple[CallTimeInterval, ...]


@dataclass(frozen=True, kw_only=True)
class Calendar:
    now: datetime
    begins: datetime
    """The start of the first quarter: the present one."""
    companies: Sequence[CompanyDay]
    clocks: Sequence[WaitingCalls]
    account: CallingAccount | None
    """None before the first worker has started. Then there is no forecast."""
    forecast: Forecast
    counted_until: datetime | None
    """Only the calls that are due until then are counted. None: all."""
    clocks_are_estimates: bool
    """Not all clocks were read, so the clocks and closings of the other calls are estimates."""


class Calendars:
    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._policy = context.policy
        self._now = context.now

    def day(self) -> Calendar:
        """Read the next 24 hours of all companies. Raises DatabaseAway."""
        now = self._now()
        begins = datetime.min.replace(tzinfo=UTC) + (now - datetime.min.replace(tzinfo=UTC)) // QUARTER * QUARTER
        with self._database.reading() as stores:
            counted = stores.due_calls.cells(begins, begins + _DAY)
            companies = stores.due_calls.companies({cell.company_id for cell in counted.cells})
            account = stores.due_calls.account()
        return calendar(counted, companies, account, now, begins, self._policy)


def calendar(
    counted: DueCells,
    companies: Mapping[UUID, CallingCompany],
    account: CallingAccount | None,
    now: datetime,
    begins: datetime,
    policy: Policy,
) -> Calendar:
    """Compute the calendar of these pending calls. Pure."""
    cells = [_Cell(cell, companies[cell.company_id]) for cell in counted.cells if cell.company_id in companies]
    mixes = _mixes(cells)
    parts = [
        _Part(each, clock, calls)
        for each in cells
        for clock, calls in shared_out(each.cell.clocks or mixes[each.company.id], each.cell.calls).items()
    ]
    return Calendar(
        now=now,
        begins=begins,
        companies=tuple(_days(cells, parts, begins)),
        clocks=tuple(_by_clock(parts)),
        account=account,
        forecast=_forecast(parts, account, now, begins, policy),
        counted_until=counted.counted_until,
        clocks_are_estimates=any(sum(each.cell.clocks.values()) < each.cell.calls for each in cells),
    )


@dataclass(frozen=True)
class _Cell:
    cell: DueCell
    company: CallingCompany


@dataclass(frozen=True)
class _Part:
    """The calls of a cell with one clock."""

    of: _Cell
    clock: CalleeClock | None
    calls: int


def _mixes(cells: Iterable[_Cell]) -> Mapping[UUID, Counter[CalleeClock]]:
    """Count the clocks that were read by company, for cells of which none was read."""
    mixes: dict[UUID, Counter[CalleeClock]] = defaultdict(Counter)
    for each in cells:
        mixes[each.company.id].update(each.cell.clocks)
    return mixes


def _days(cells: Iterable[_Cell], parts: Iterable[_Part], begins: datetime) -> Iterator[CompanyDay]:
    by_company: dict[UUID, list[_Cell]] = defaultdict(list)
    clocks: dict[UUID, Counter[CalleeClock]] = defaultdict(Counter)
    for part in parts:
        if part.clock is not None:
            clocks[part.of.company.id][part.clock] += part.calls
    for each in cells:
        by_company[each.company.id].append(each)
    for own in by_company.values():
        calls = [0] * (QUARTERS + 1)
        for each in own:
            calls[max((each.cell.begins - begins) // QUARTER, 0)] += each.cell.calls
        company = own[0].company
        yield CompanyDay(
            company_id=company.id,
            name=company.name,
            pause_reason=company.pause_reason,
            limits=company.settings.limits,
            calls=tuple(calls[:QUARTERS]),
            due_already=sum(each.cell.calls for each in own if each.cell.begins < begins),
            later=calls[QUARTERS],
            clocks=clocks[company.id],
            intervals=company.settings.intervals,
        )


def _by_clock(parts: Iterable[_Part]) -> Iterator[WaitingCalls]:
    found: Counter[tuple[CalleeClock, tuple[CallTimeInterval, ...]]] = Counter()
    for part in parts:
        if part.clock is not None:
            found[part.clock, part.of.company.settings.intervals] += part.calls
    for (clock, intervals), calls in found.items():
        yield WaitingCalls(clock=clock, intervals=intervals, calls=calls)


def _forecast(
    parts: Iterable[_Part], account: CallingAccount | None, now: datetime, begins: datetime, policy: Policy
) -> Forecast:
    if account is None:
        return forecast([], Limits(calls_per_second=1, concurrent_calls=1), now)
    closings = Closings(now, policy)
    due: dict[UUID, list[DueCalls]] = defaultdict(list)
    companies: dict[UUID, CallingCompany] = {}
    for part in parts:
        if part.of.cell.begins < begins + _DAY:
            companies[part.of.company.id] = part.of.company
            due[part.of.company.id] += _due(part, begins, closings)
    queues = [
        CompanyQueue(
            company_id=company.id,
            limits=Limits(
                calls_per_second=company.settings.limits.calls_per_second,
                concurrent_calls=company.settings.limits.concurrent_calls,
                in_progress=company.in_progress,
            ),
            due=due[company.id],
        )
        for company in companies.values()
    ]
    limits = Limits(
        calls_per_second=account.calls_per_second,
        concurrent_calls=account.max_calls,
        in_progress=account.in_progress,
    )
    return forecast(queues, limits, now, durations=account.durations)


def _due(part: _Part, begins: datetime, closings: "Closings") -> Iterator[DueCalls]:
    cell = part.of.cell
    last_start = closings.last_start(part.clock, part.of.company.settings.intervals, cell.first_at)
    return spread(cell, part.calls, begins, last_start)
