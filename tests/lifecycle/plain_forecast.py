"""Forecast in the plain way: every company in every step. The forecast of the product equals it, and is faster."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from math import exp, inf, log
from uuid import UUID

from scheduler.lifecycle.forecast import CompanyQueue, Forecast, Limits, Starts

_ALMOST_NONE = 1e-6
"""A smaller part of a call is a rounding error."""
_ALMOST_FULL = 1e-9


def plain_forecast(
    queues: Sequence[CompanyQueue], account: Limits, now: datetime, *, call_lasts: timedelta | None = None
) -> Forecast:
    """Return when the calls of all queues start from `now` on (aware UTC).

    `call_lasts` is the mean duration of a call. If it is unknown (None), only the paces count.
    """
    lasts = None if call_lasts is None else call_lasts.total_seconds()
    companies = [_Queue.of(queue, now, lasts) for queue in queues]
    running = max(account.in_progress, sum(queue.limits.in_progress for queue in queues))
    _run(companies, _Places.of(account, lasts, running), sorted({0.0, *_instants(companies)}))
    return Forecast(
        total=_starts([company.record for company in companies], now),
        companies={company.company_id: _starts([company.record], now) for company in companies},
    )


# From here on time is counted in seconds since `now`.


@dataclass(kw_only=True)
class _Places:
    """The rate at which calls may start, which falls to that of their ends once all places are taken."""

    per_second: float
    limit: float
    lasts: float | None
    running: float

    @classmethod
    def of(cls, limits: Limits, lasts: float | None, running: int) -> "_Places":
        limit = inf if lasts is None else float(limits.concurrent_calls)
        return cls(per_second=limits.calls_per_second, limit=limit, lasts=lasts, running=float(running))

    @property
    def rate(self) -> float:
        if self.lasts is None or self.running < self.limit * (1 - _ALMOST_FULL):
            return self.per_second
        if self.running > self.limit * (1 + _ALMOST_FULL):
            return 0.0  # the limit was lowered, and calls must end first
        return min(self.per_second, self.limit / self.lasts)

    def changes_in(self, starting: float) -> float:
        """Return the seconds until the limit is reached, from either side, if `starting` calls start each second."""
        if self.lasts is None:
            return inf
        reached = starting * self.lasts
        is_full = abs(self.running - self.limit) <= self.limit * _ALMOST_FULL
        if is_full or not min(self.running, reached) < self.limit < max(self.running, reached):
            return inf
        return self.lasts * log((reached - self.running) / (reached - self.limit))

    def pass_time(self, seconds: float, starting: float, *, reaches_limit: bool) -> None:
        if self.lasts is not None:
            reached = starting * self.lasts
            self.running = reached + (self.running - reached) * exp(-seconds / self.lasts)
        if reaches_limit:
            self.running = self.limit


_Flow = tuple[float, float, float, float]
"""Start, end, last start, and calls that become due each second."""


@dataclass(kw_only=True)
class _Chunk:
    """Calls that became due evenly between two instants, by their last start."""

    due_from: float
    due_to: float
    calls: dict[float, float]


@dataclass(kw_only=True)
class _Record:
    calls: int
    past_closing: float = 0.0
    last_start: float = -inf
    last_late: float = 0.0
    latest: float = 0.0

    def start(self, start: float, due: float) -> None:
        late = max(start - due, 0.0)
        self.latest = max(self.latest, late)
        if start > self.last_start or (start == self.last_start and late > self.last_late):
            self.last_start, self.last_late = start, late


@dataclass(kw_only=True)
class _Queue:
    company_id: UUID
    places: _Places
    jumps: dict[float, list[_Chunk]]
    """Calls that become due at one instant, by the instant from which they wait here."""
    flows: list[_Flow]
    record: _Record
    chunks: deque[_Chunk] = field(default_factory=deque)

    @classmethod
    def of(cls, queue: CompanyQueue, now: datetime, lasts: float | None) -> "_Queue":
        jumps: dict[float, list[_Chunk]] = {}
        flows = []
        for due in (each for each in queue.due if each.calls):
            at, over = (due.at - now).total_seconds(), due.over.total_seconds()
            last_start = inf if due.last_start is None else (due.last_start - now).total_seconds()
            if over:
                flows.append((at, at + over, last_start, due.calls / over))
            else:
                jumps.setdefault(max(at, 0.0), []).append(
                    _Chunk(due_from=at, due_to=at, calls={last_start: float(due.calls)})
                )
        waiting = jumps.setdefault(0.0, [])
        waiting.extend([*_flowed_before(flows, [chunk.due_from for chunk in waiting])])
        return cls(
            company_id=queue.company_id,
            places=_Places.of(queue.limits, lasts, queue.limits.in_progress),
            jumps={at: _together(chunks) for at, chunks in jumps.items()},
            flows=[flow for flow in flows if flow[1] > 0],
            record=_Record(calls=sum(due.calls for due in queue.due)),
        )

    def instants(self) -> Iterator[float]:
        """Yield the instants at which calls begin or end to become due, or may no longer start."""
        yield from self.jumps
        for chunks in self.jumps.values():
            yield from (last_start for chunk in chunks for last_start in chunk.calls)
        for begins, ends, last_start, _ in self.flows:
            yield from (begins, ends, last_start)

    @property
    def waiting(self) -> float:
        return sum(sum(chunk.calls.values()) for chunk in self.chunks)

    def arrive(self, at: float) -> None:
        """Add the calls that become due at this instant, and remove those that may no longer start."""
        self.chunks.extend(self.jumps.get(at, ()))
        for chunk in self.chunks:
            self.record.past_closing += sum(chunk.calls.pop(each) for each in [*chunk.calls] if each <= at)
        self._drop_empty()

    def flow(self, at: float) -> dict[float, float]:
        """Return the calls that become due each second from this instant on, by their last start."""
        found: dict[float, float] = {}
        for begins, ends, last_start, rate in self.flows:
            if begins <= at < ends:
                found[last_start] = found.get(last_start, 0.0) + rate
        return found

    def pass_time(self, at: float, seconds: float, starting: float, flow: dict[float, float]) -> None:
        past = sum(rate for last_start, rate in flow.items() if last_start <= at)
        self.record.past_closing += past * seconds
        calls = {last_start: rate * seconds for last_start, rate in flow.items() if last_start > at}
        if not self.chunks and calls and starting >= sum(calls.values()) / seconds:
            self.record.start(at + seconds, at + seconds)
            return
        if calls:
            self.chunks.append(_Chunk(due_from=at, due_to=at + seconds, calls=calls))
        self._serve(at, starting, seconds)

    def _serve(self, at: float, starting: float, seconds: float) -> None:
        left = starting * seconds
        served = 0.0
        while self.chunks and left > _ALMOST_NONE:
            chunk = self.chunks[0]
            size = sum(chunk.calls.values())
            part = min(1.0, left / size)
            due_to = chunk.due_from + (chunk.due_to - chunk.due_from) * part
            self.record.start(at + served / starting, chunk.due_from)
            served += size * part
            left -= size * part
            self.record.start(at + served / starting, due_to)
            chunk.due_from = due_to
            chunk.calls = {last_start: calls * (1 - part) for last_start, calls in chunk.calls.items()}
            self._drop_empty()
        self._drop_empty()  # also without service, or a rounding error would wait and be an event again and again

    def _drop_empty(self) -> None:
        while self.chunks and sum(self.chunks[0].calls.values()) <= _ALMOST_NONE:
            self.chunks.popleft()


def _flowed_before(flows: Sequence[_Flow], jumps: Iterable[float]) -> Iterator[_Chunk]:
    """Yield the calls that became due before now, cut where their rate changed and where others became due at once."""
    edges = sorted({min(edge, 0.0) for begins, ends, _, _ in flows for edge in (begins, ends)} | {0.0, *jumps})
    for begins, ends in pairwise(edges):
        for flow_begins, flow_ends, last_start, rate in flows:
            if flow_begins <= begins and ends <= flow_ends:
                yield _Chunk(due_from=begins, due_to=ends, calls={last_start: rate * (ends - begins)})


def _together(chunks: Iterable[_Chunk]) -> list[_Chunk]:
    """Merge the chunks with the same due times, and sort them: calls due at one instant start mixed."""
    merged: dict[tuple[float, float], _Chunk] = {}
    for chunk in chunks:
        key = chunk.due_from, chunk.due_to
        kept = merged.setdefault(key, _Chunk(due_from=chunk.due_from, due_to=chunk.due_to, calls={}))
        for last_start, calls in chunk.calls.items():
            kept.calls[last_start] = kept.calls.get(last_start, 0.0) + calls
    return sorted(merged.values(), key=lambda chunk: (chunk.due_from, chunk.due_to))


def _instants(companies: Iterable[_Queue]) -> Iterator[float]:
    for company in companies:
        yield from (instant for instant in company.instants() if 0 <= instant < inf)


def _run(companies: Sequence[_Queue], account: _Places, instants: Sequence[float]) -> None:
    """Let time pass from event to event until no call waits and none becomes due."""
    for number, begins in enumerate(instants):
        at, ends = begins, instants[number + 1] if number + 1 < len(instants) else inf
        for company in companies:
            company.arrive(at)
        flows = [company.flow(at) for company in companies]
        while at < ends and (ends < inf or any(company.chunks for company in companies)):
            at = _step(companies, account, flows, at, ends)


def _step(
    companies: Sequence[_Queue], account: _Places, flows: Sequence[dict[float, float]], at: float, ends: float
) -> float:
    """Let time pass until the next event, at most until `ends`. Return its instant."""
    coming = [sum(rate for last_start, rate in flow.items() if last_start > at) for flow in flows]
    starting = _shared(
        [
            company.places.rate if company.chunks else min(company.places.rate, arriving)
            for company, arriving in zip(companies, coming, strict=True)
        ],
        account.rate,
    )
    every = [(account, sum(starting)), *((each.places, rate) for each, rate in zip(companies, starting, strict=True))]
    changes = [places.changes_in(rate) for places, rate in every]
    empty = [
        company.waiting / (rate - arriving)
        for company, rate, arriving in zip(companies, starting, coming, strict=True)
        if company.chunks and rate > arriving
    ]
    seconds = min([*changes, *empty, ends - at])
    for (places, rate), change in zip(every, changes, strict=True):
        places.pass_time(seconds, rate, reaches_limit=change <= seconds)
    for company, rate, flow in zip(companies, starting, flows, strict=True):
        company.pass_time(at, seconds, rate, flow)
    return ends if seconds == ends - at else at + seconds


def _shared(wanted: Sequence[float], rate: float) -> list[float]:
    """Share the account's rate equally among companies, but give none more than it wants."""
    shares = [0.0] * len(wanted)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    for served, index in enumerate(order):
        shares[index] = min(wanted[index], rate / (len(order) - served))
        rate = max(rate - shares[index], 0.0)
    return shares


def _starts(records: Sequence[_Record], now: datetime) -> Starts:
    last = max(records, key=lambda each: (each.last_start, each.last_late), default=None)
    started = last is not None and last.last_start > -inf
    return Starts(
        calls=sum(each.calls for each in records),
        past_closing=round(sum(each.past_closing for each in records)),
        last_start_at=now + timedelta(seconds=last.last_start) if last is not None and started else None,
        last_is_late_by=timedelta(seconds=last.last_late if last is not None and started else 0),
        latest_by=timedelta(seconds=max((each.latest for each in records), default=0.0)),
    )
