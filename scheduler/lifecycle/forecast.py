"""Forecast: when waiting calls start, call by call, as `capacity.allot` chooses them.

Each call starts at the pace of its company and of the account, and occupies a place of both until it ends. Calls that
find it closed spend their slots, and wait for the next opening or expire. Retries and later calls are unknown.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import count, cycle
from math import inf
from uuid import UUID

from scheduler.domain.call import CalleeClock
from scheduler.lifecycle.capacity import kept_places, leaves_kept_places


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The pace and the places of a company or an account. All values are positive, except `in_progress`."""

    calls_per_second: float
    concurrent_calls: int
    in_progress: int = 0


@dataclass(frozen=True, kw_only=True)
class DueCalls:
    """Calls of one company that become due together, or evenly over a span."""

    at: datetime
    """Aware UTC. May have passed: the calls wait already."""
    calls: int
    over: timedelta = timedelta()
    """The span from `at` on, such as a quarter hour. Zero: all at `at`."""
    last_start: datetime | None = None
    """The last instant at which they may start. None: they are never too late."""
    clock: CalleeClock | None = None
    """For the next opening. None: unknown."""
    expires_at: datetime | None = None
    is_new: bool = False
    """Not created yet. `Starts.new` are the starts of these alone."""


Opening = tuple[datetime, datetime | None]
"""The start of an opening, and the last start in it, if it has one."""
NextOpening = Callable[[CalleeClock | None, datetime], Opening | None]
"""Returns the first opening after an instant, or None without one."""


@dataclass(frozen=True, kw_only=True)
class CompanyQueue:
    company_id: UUID
    limits: Limits
    due: Sequence[DueCalls]
    next_opening: NextOpening | None = None
    """None: calls past their last start do not return."""


@dataclass(frozen=True, kw_only=True)
class Starts:
    """The starts of some calls. Instants are aware UTC."""

    calls: int = 0
    past_closing: int = 0
    """Calls whose turn came after their last start. Each is counted once for each closing that it misses."""
    last_start_at: datetime | None = None
    """The start of the last call. None if no call starts."""
    last_is_late_by: timedelta = timedelta()
    """The lateness of that call."""
    latest_by: timedelta = timedelta()
    """The lateness of the latest of all calls that start."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    total: Starts
    companies: dict[UUID, Starts]
    last_new_at: datetime | None
    """The start of the last new call. None if none starts."""
    expired: int
    """New calls that expire before their turn."""


def forecast(
    queues: Sequence[CompanyQueue], account: Limits, now: datetime, *, durations: Sequence[timedelta] = ()
) -> Forecast:
    """Forecast the starts of all calls from `now` on (aware UTC). With new calls it ends when the last of them starts.

    `durations` are equally frequent durations of calls, sorted. Without them only the paces count.
    """
    run = _Run(queues, account, now, [each.total_seconds() for each in durations])
    run.to_the_end()
    return Forecast(
        total=_starts(run.companies, now),
        companies={each.queue.company_id: _starts([each], now) for each in run.companies},
        last_new_at=None if run.last_new == -inf else now + timedelta(seconds=run.last_new),
        expired=run.expired,
    )


def _starts(companies: Sequence["_Company"], now: datetime) -> Starts:
    last = max(companies, key=lambda each: (each.last_start, each.last_late), default=None)
    if last is None or last.last_start == -inf:
        last = None
    return Starts(
        calls=sum(due.calls for each in companies for due in each.queue.due),
        past_closing=sum(each.past for each in companies),
        last_start_at=None if last is None else now + timedelta(seconds=last.last_start),
        last_is_late_by=timedelta(seconds=0 if last is None else last.last_late),
        latest_by=timedelta(seconds=max((each.latest for each in companies), default=0.0)),
    )


# From here on time is counted in seconds since `now`.


_Waiting = tuple[float, float, int, datetime | None, DueCalls]
"""Due time, order among calls of the same instant, order of reading, last start, and what they are part of."""


@dataclass(kw_only=True, slots=True)
class _Company:
    queue: CompanyQueue
    number: int
    running: int
    waiting: list[_Waiting]
    """A heap."""
    turn: int = 0
    """The number of its present wait. Entries of earlier ones are stale."""
    last_start: float = -inf
    last_slot: float = -inf
    """The last instant at which it spent a slot."""
    next_slot: float = 0.0
    last_late: float = 0.0
    latest: float = 0.0
    past: int = 0

    @property
    def is_full(self) -> bool:
        return self.running >= self.queue.limits.concurrent_calls


class _Run:
    """Time passes from event to event: a call ends, a company becomes ready, the account has its next slot."""

    def __init__(
        self, queues: Sequence[CompanyQueue], account: Limits, now: datetime, durations: Sequence[float]
    ) -> None:
        self._now = now
        self._read = count()
        self.companies = [
            _Company(
                queue=queue, number=number, running=queue.limits.in_progress, waiting=[*_calls(queue, now, self._read)]
            )
            for number, queue in enumerate(queues)
        ]
        self._new = sum(due.calls for queue in queues for due in queue.due if due.is_new)
        self._has_new = self._new > 0
        self.last_new = -inf
        self.expired = 0
        self._account = account
        self._kept = kept_places(account.concurrent_calls)
        self._next_slot = 0.0
        # Short and long calls take turns.
        self._durations = cycle([*durations[::3], *durations[1::3], *durations[2::3]] or [0.0])
        known = sum(company.running for company in self.companies)
        self._running = max(known, account.in_progress)
        self._ends: list[tuple[float, int, _Company | None]] = []
        for company, calls in [*((each, each.running) for each in self.companies), (None, self._running - known)]:
            for number in range(calls):  # they began at any time
                ends = next(self._durations) * (number + 0.5) / calls
                self._ends.append((ends, next(self._read), company))
        heapify(self._ends)
        self._resting: list[tuple[float, int, int]] = []
        """Companies by the instant from which they may start a call, with the number of this turn."""
        self._ready: tuple[list[tuple[float, float, int, int]], ...] = ([], [])
        """Companies that may start a call: with and without a call in progress, by their last slots."""
        for company in self.companies:
            heapify(company.waiting)
            self._rest(company)

    def to_the_end(self) -> None:
        at = 0.0
        while self._new or not self._has_new:
            self._pass(at)
            company = self._next()
            if company is None or self._next_slot > at:
                at = self._next_event(at, company)
                if at == inf:
                    return
                continue
            self._spend_slot(company, at)

    def _pass(self, at: float) -> None:
        """Let calls end and companies become ready until this instant."""
        while self._ends and self._ends[0][0] <= at:
            _, _, company = heappop(self._ends)
            self._running -= 1
            if company is not None:
                company.running -= 1
                self._rest(company)
        while self._resting and self._resting[0][0] <= at:
            ready, number, turn = heappop(self._resting)
            company = self.companies[number]
            if turn == company.turn:
                heappush(self._ready[company.running == 0], (company.last_slot, ready, number, turn))

    def _rest(self, company: _Company) -> None:
        """Begin the next wait of a company, if it has a call and a place."""
        company.turn += 1
        if company.waiting and not company.is_full:
            ready = max(company.waiting[0][0], company.next_slot)
            heappush(self._resting, (ready, company.number, company.turn))

    def _next(self) -> _Company | None:
        """Choose the ready company whose last slot is longest ago. None: no company may start a call now."""
        room = self._account.concurrent_calls - self._running
        if room <= 0:
            return None
        heads = []
        for calls, ready in ((1, self._ready[0]), (0, self._ready[1])):
            while ready and ready[0][3] != self.companies[ready[0][2]].turn:
                heappop(ready)
            if ready and leaves_kept_places(calls, room, self._kept):
                heads.append(ready[0])
        return self.companies[min(heads)[2]] if heads else None

    def _next_event(self, at: float, company: _Company | None) -> float:
        events = [heap[0][0] for heap in (self._ends, self._resting) if heap]
        if company is not None:
            events.append(self._next_slot)
        return min((each for each in events if each > at), default=inf)

    def _spend_slot(self, company: _Company, at: float) -> None:
        """Let the first call of a company start, if its hours are open."""
        due_at, _, _, last_start, calls = heappop(company.waiting)
        self._next_slot = at + 1 / self._account.calls_per_second
        company.last_slot, company.next_slot = at, at + 1 / company.queue.limits.calls_per_second
        now = self._now + timedelta(seconds=at)
        opening: Opening | None = (now, last_start)
        while opening is not None and opening[0] <= now and opening[1] is not None and opening[1] <= now:
            opening = _next_opening(company.queue, calls, opening[1])
        if opening is not None and opening[0] <= now:
            self._start(company, calls, due_at, at)
        else:
            company.past += 1
            self._wait(company, calls, opening)
        self._rest(company)

    def _start(self, company: _Company, calls: DueCalls, due_at: float, at: float) -> None:
        company.running += 1
        self._running += 1
        company.last_start, company.last_late = at, at - due_at
        company.latest = max(company.latest, at - due_at)
        heappush(self._ends, (at + next(self._durations), next(self._read), company))
        if calls.is_new:
            self._new -= 1
            self.last_new = at

    def _wait(self, company: _Company, calls: DueCalls, opening: Opening | None) -> None:
        if opening is not None:
            at = (opening[0] - self._now).total_seconds()
            heappush(company.waiting, (at, 0.0, next(self._read), opening[1], calls))
        elif calls.is_new:
            self._new -= 1
            self.expired += 1


def _next_opening(queue: CompanyQueue, calls: DueCalls, after: datetime) -> Opening | None:
    """Find the next opening of some calls. None: they do not return, or expire before."""
    opening = None if queue.next_opening is None else queue.next_opening(calls.clock, after)
    if opening is None or (calls.expires_at is not None and opening[0] >= calls.expires_at):
        return None
    return opening


def _calls(queue: CompanyQueue, now: datetime, order: Iterator[int]) -> Iterator[_Waiting]:
    for due in queue.due:
        at, over = (due.at - now).total_seconds(), due.over.total_seconds()
        for number in range(due.calls):
            share = (number + 0.5) / due.calls
            yield at + share * over, share, next(order), due.last_start, due
