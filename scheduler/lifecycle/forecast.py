"""Forecast: at which instants the calls that become due can start, and how many of them fall past closing.

Calls are a fluid. Each company's queue is served in the order of due times, at most at its pace. A full company or
account starts a call whenever one ends. Companies share the account equally, as `capacity.allot` shares it, and a
company that needs less than its share leaves the rest to the others. Kept places are taken only by first calls of
companies, so as many companies as calls are needed to fill them. Calls in progress end at a constant rate for each
call (one in `call_lasts`). Between two events every rate is constant, so the result is exact and not a sum of steps.

A step only does arithmetic on lists of numbers, one number a company. The calls themselves are taken from a company's
queue when something happens to that company, for all steps since the last time.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from math import exp, inf, log
from operator import itemgetter
from uuid import UUID

from scheduler.lifecycle.capacity import usable_places
from scheduler.lifecycle.start_rates import ALMOST_FULL, Limits, Places, shared

_ALMOST_NONE = 1e-6
"""A smaller part of a call is a rounding error."""


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


@dataclass(frozen=True, kw_only=True)
class CompanyQueue:
    company_id: UUID
    limits: Limits
    due: Sequence[DueCalls]


@dataclass(frozen=True, kw_only=True)
class Starts:
    """The starts of some calls. Instants are aware UTC."""

    calls: int = 0
    past_closing: int = 0
    """Calls that would start after their last start."""
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
    past: dict[UUID, dict[datetime, float]]
    """The calls of each company that would start after their last start, by this instant."""


def forecast(
    queues: Sequence[CompanyQueue], account: Limits, now: datetime, *, call_lasts: timedelta | None = None
) -> Forecast:
    """Return when the calls of all queues start from `now` on (aware UTC).

    `call_lasts` is the mean duration of a call. If it is unknown (None), only the paces count.
    """
    lasts = None if call_lasts is None else call_lasts.total_seconds()
    calling = sum(1 for queue in queues if queue.limits.in_progress or any(due.calls for due in queue.due))
    account = replace(account, concurrent_calls=usable_places(account.concurrent_calls, max(calling, 1)))
    companies = [_Queue.of(queue, now) for queue in queues]
    running = max(account.in_progress, sum(queue.limits.in_progress for queue in queues))
    _Run(companies, [queue.limits for queue in queues], Places.of(account, lasts, running)).to_the_end()
    return Forecast(
        total=_starts([company.record for company in companies], now),
        companies={company.company_id: _starts([company.record], now) for company in companies},
        past={company.company_id: company.past() for company in companies},
    )


# From here on time is counted in seconds since `now`.


_Flow = tuple[float, float, float, float]
"""Start, end, last start, and calls that become due each second."""
_Step = tuple[float, float, Sequence[float]]
"""Start and length, and the calls of each company that start each second."""


@dataclass(kw_only=True, slots=True)
class _Chunk:
    """Calls that became due evenly between two instants."""

    due_from: float
    due_to: float
    calls: dict[float, float]
    """By their last start, before any of them started."""
    whole: float = field(init=False)
    """The sum of these."""
    size: float = field(init=False)
    """The calls that have not started."""

    def __post_init__(self) -> None:
        self.whole = self.size = sum(self.calls.values())

    def close(self, at: float) -> dict[float, float]:
        """Remove the calls that may no longer start, and return them by their last start."""
        if min(self.calls, default=inf) > at:
            return {}
        part = self.size / self.whole
        past = {last_start: calls * part for last_start, calls in self.calls.items() if last_start <= at}
        self.calls = {last_start: calls for last_start, calls in self.calls.items() if last_start > at}
        self.whole = sum(self.calls.values())
        self.size = self.whole * part
        return past


@dataclass(kw_only=True, slots=True)
class _Record:
    calls: int
    past: dict[float, float] = field(default_factory=dict)
    """Calls past closing, by their last start."""
    last_start: float = -inf
    last_late: float = 0.0
    latest: float = 0.0

    def add_past(self, last_start: float, calls: float) -> None:
        self.past[last_start] = self.past.get(last_start, 0.0) + calls


@dataclass(kw_only=True, slots=True)
class _Queue:
    company_id: UUID
    jumps: dict[float, list[_Chunk]]
    """Calls that become due at one instant, by the instant from which they wait here."""
    flows: dict[float, list[_Flow]]
    """By the instant at which they begin here."""
    record: _Record
    chunks: deque[_Chunk] = field(default_factory=deque)
    waiting: float = 0.0
    """The calls in all chunks."""
    at: float = 0.0
    """The instant up to which calls were taken from the queue."""
    coming: float = 0.0
    """Calls that become due each second from then on."""
    closed: dict[float, float] = field(default_factory=dict)
    """Calls that become due each second too late to start, by their last start."""
    by_last_start: dict[float, float] = field(default_factory=dict)
    _flowing: list[_Flow] = field(default_factory=list)
    last_starts: dict[float, datetime] = field(default_factory=dict)

    @classmethod
    def of(cls, queue: CompanyQueue, now: datetime) -> "_Queue":
        jumps: dict[float, list[_Chunk]] = {}
        flows: list[_Flow] = []
        last_starts: dict[float, datetime] = {}
        for due in queue.due:
            if not due.calls:
                continue
            at, over = (due.at - now).total_seconds(), due.over.total_seconds()
            last_start = inf if due.last_start is None else (due.last_start - now).total_seconds()
            if due.last_start is not None:
                last_starts[last_start] = due.last_start
            if over:
                flows.append((at, at + over, last_start, due.calls / over))
            else:
                chunk = _Chunk(due_from=at, due_to=at, calls={last_start: float(due.calls)})
                jumps.setdefault(max(at, 0.0), []).append(chunk)
        waiting = jumps.setdefault(0.0, [])
        waiting.extend([*_flowed_before([flow for flow in flows if flow[0] < 0], [each.due_from for each in waiting])])
        begun: dict[float, list[_Flow]] = {}
        for flow in flows:
            if flow[1] > 0:
                begun.setdefault(max(flow[0], 0.0), []).append(flow)
        return cls(
            company_id=queue.company_id,
            jumps={at: _together(chunks) for at, chunks in jumps.items()},
            flows=begun,
            record=_Record(calls=sum(due.calls for due in queue.due)),
            last_starts=last_starts,
        )

    def instants(self) -> set[float]:
        """Return the instants at which calls begin or end to become due, or may no longer start."""
        ends = {flow[1] for flows in self.flows.values() for flow in flows}
        return {at for at in {0.0, *self.jumps, *self.flows, *ends, *self.last_starts} if 0 <= at < inf}

    def past(self) -> dict[datetime, float]:
        return {self.last_starts[last_start]: calls for last_start, calls in self.record.past.items()}

    def change(self, at: float) -> None:
        """Add the calls that become due at this instant, and remove those that may no longer start."""
        for chunk in self.jumps.get(at, ()):
            self.chunks.append(chunk)
            self.waiting += chunk.size
        if at in self.last_starts or at in self.jumps:  # new calls may be too late already
            for chunk in self.chunks:
                for last_start, calls in chunk.close(at).items():
                    self.record.add_past(last_start, calls)
                    self.waiting -= calls
        self._drop_empty()
        self._flowing = [flow for flow in (*self._flowing, *self.flows.get(at, ())) if flow[1] > at]
        self.by_last_start = {}
        self.closed = {}
        for _, _, last_start, rate in self._flowing:
            if last_start > at:
                self.by_last_start[last_start] = self.by_last_start.get(last_start, 0.0) + rate
            else:
                self.closed[last_start] = self.closed.get(last_start, 0.0) + rate
        self.coming = sum(self.by_last_start.values())

    def serve(self, steps: Sequence[_Step], rates: Sequence[float], ends: float) -> None:
        """Take the calls that start in these steps, which reach from the last instant until `ends`."""
        seconds = ends - self.at
        for last_start, rate in self.closed.items():
            self.record.add_past(last_start, rate * seconds)
        if not self.chunks and min(rates) >= self.coming:
            if self.coming:
                self.record.last_start, self.record.last_late = ends, 0.0
            return
        if self.coming:
            calls = {last_start: rate * seconds for last_start, rate in self.by_last_start.items()}
            self.chunks.append(_Chunk(due_from=self.at, due_to=ends, calls=calls))
            self.waiting += self.chunks[-1].size
        self._take(steps, rates)
        self._drop_empty()

    def _take(self, steps: Sequence[_Step], rates: Sequence[float]) -> None:
        chunks, record = self.chunks, self.record
        for (begins, seconds, _), rate in zip(steps, rates, strict=True):
            left, start = rate * seconds, begins
            while left > _ALMOST_NONE and chunks:
                chunk = chunks[0]
                size = chunk.size
                record.latest = max(record.latest, start - chunk.due_from)
                taken = min(left, size)
                start += taken / rate
                if taken < size:
                    chunk.due_from += (chunk.due_to - chunk.due_from) * (taken / size)
                    chunk.size -= taken
                    due = chunk.due_from
                else:
                    due = chunk.due_to
                    chunks.popleft()
                left -= taken
                self.waiting -= taken
                record.last_start, record.last_late = start, max(start - due, 0.0)
                record.latest = max(record.latest, record.last_late)

    def _drop_empty(self) -> None:
        while self.chunks and self.chunks[0].size <= _ALMOST_NONE:
            self.chunks.popleft()
        if not self.chunks:
            self.waiting = 0.0


def _flowed_before(flows: Sequence[_Flow], jumps: Iterable[float]) -> Iterator[_Chunk]:
    """Yield the calls that became due before now, cut where their rate changed and where others became due at once."""
    edges = sorted({min(edge, 0.0) for begins, ends, _, _ in flows for edge in (begins, ends)} | {0.0, *jumps})
    for begins, ends in pairwise(edges):
        for flow_begins, flow_ends, last_start, rate in flows:
            if flow_begins <= begins and ends <= flow_ends:
                yield _Chunk(due_from=begins, due_to=ends, calls={last_start: rate * (ends - begins)})


def _together(chunks: Iterable[_Chunk]) -> list[_Chunk]:
    """Merge the chunks with the same due times, and sort them: calls due at one instant start mixed."""
    merged: dict[tuple[float, float], dict[float, float]] = {}
    for chunk in chunks:
        kept = merged.setdefault((chunk.due_from, chunk.due_to), {})
        for last_start, calls in chunk.calls.items():
            kept[last_start] = kept.get(last_start, 0.0) + calls
    return [
        _Chunk(due_from=begins, due_to=ends, calls=calls)
        for (begins, ends), calls in sorted(merged.items(), key=itemgetter(0))
    ]


class _Run:
    """The steps of time: one list a figure, in the order of the companies."""

    def __init__(self, companies: Sequence[_Queue], limits: Sequence[Limits], account: Places) -> None:
        self._companies = companies
        self._account = account
        self._lasts = account.lasts
        self._paces = [each.calls_per_second for each in limits]
        self._rates = [*self._paces]
        """The calls that each company may start in a second."""
        self._waiting = [0.0] * len(companies)
        self._coming = [0.0] * len(companies)
        self._running = [float(each.in_progress) for each in limits]
        self._limits = [float(each.concurrent_calls) for each in limits]
        self._steps: list[_Step] = []
        self._served = [0] * len(companies)
        """The number of these steps whose calls were taken from the queue."""
        self._set_rates()

    def to_the_end(self) -> None:
        """Let time pass from event to event until no call waits and none becomes due."""
        changing: dict[float, list[int]] = {}
        for index, company in enumerate(self._companies):
            for at in company.instants():
                changing.setdefault(at, []).append(index)
        at = 0.0
        for begins, ends in pairwise([*sorted(changing), inf]):
            at = begins
            for index in changing[at]:
                self._serve(index, at)
                self._companies[index].change(at)
                self._waiting[index] = self._companies[index].waiting
                self._coming[index] = self._companies[index].coming
            while at < ends and (ends < inf or any(self._waiting)):
                at = self._step(at, ends)
        for index in range(len(self._companies)):
            self._serve(index, at)

    def _serve(self, index: int, at: float) -> None:
        """Take the calls of a company that started since its last change."""
        company = self._companies[index]
        if company.chunks or company.coming or company.closed:
            steps = self._steps[self._served[index] :]
            if steps:
                company.serve(steps, [starting[index] for _, _, starting in steps], at)
        company.at, self._served[index] = at, len(self._steps)

    def _step(self, at: float, ends: float) -> float:
        """Let time pass until the next event, at most until `ends`. Return its instant."""
        waiting, coming = self._waiting, self._coming
        wanted = [
            rate if waits or rate < comes else comes
            for rate, waits, comes in zip(self._rates, waiting, coming, strict=True)
        ]
        starting = shared(wanted, self._account.rate)
        total = sum(starting)
        empty = [
            waits / (rate - comes)
            for waits, rate, comes in zip(waiting, starting, coming, strict=True)
            if waits and rate > comes
        ]
        change = self._account.changes_in(total)
        seconds = min([change, *self._changes_in(starting), *empty, ends - at])
        self._account.pass_time(seconds, total, reaches_limit=change <= seconds)
        self._pass_time(seconds, starting)
        self._waiting = [
            left if (left := waits + (comes - rate) * seconds) > _ALMOST_NONE else 0.0
            for waits, rate, comes in zip(waiting, starting, coming, strict=True)
        ]
        self._steps.append((at, seconds, starting))
        return ends if seconds == ends - at else at + seconds

    def _changes_in(self, starting: Sequence[float]) -> list[float]:
        """Return the seconds until a company reaches its limit, of those that will."""
        lasts = self._lasts
        if lasts is None:
            return []
        return [
            lasts * log((rate * lasts - running) / (rate * lasts - limit))
            for rate, running, limit in zip(starting, self._running, self._limits, strict=True)
            if (running < limit < rate * lasts or rate * lasts < limit < running)
            and abs(running - limit) > limit * ALMOST_FULL
        ]

    def _pass_time(self, seconds: float, starting: Sequence[float]) -> None:
        if (lasts := self._lasts) is None:
            return
        left = exp(-seconds / lasts)
        self._running = [
            rate * lasts + (running - rate * lasts) * left
            for rate, running in zip(starting, self._running, strict=True)
        ]
        self._set_rates()

    def _set_rates(self) -> None:
        """Set the rates as `Places.rate` does for one company."""
        if (lasts := self._lasts) is None:
            return
        self._rates = [
            pace
            if running < limit * (1 - ALMOST_FULL)
            else 0.0
            if running > limit * (1 + ALMOST_FULL)
            else min(pace, limit / lasts)
            for pace, running, limit in zip(self._paces, self._running, self._limits, strict=True)
        ]


def _starts(records: Sequence[_Record], now: datetime) -> Starts:
    last = max(records, key=lambda each: (each.last_start, each.last_late), default=None)
    started = last is not None and last.last_start > -inf
    return Starts(
        calls=sum(each.calls for each in records),
        past_closing=round(sum(sum(each.past.values()) for each in records)),
        last_start_at=now + timedelta(seconds=last.last_start) if last is not None and started else None,
        last_is_late_by=timedelta(seconds=last.last_late if last is not None and started else 0),
        latest_by=timedelta(seconds=max((each.latest for each in records), default=0.0)),
    )
