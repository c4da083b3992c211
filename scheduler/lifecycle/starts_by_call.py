"""Starts call by call: a forecast of few calls, which is exact where the fluid of `forecast` is not.

Calls of similar durations that fill all places end together, so the next ones start in waves. The fluid knows only the
mean duration, and is wrong by up to one call. After many waves that is little.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import count, cycle
from math import inf

from scheduler.lifecycle.capacity import kept_places, leaves_kept_places
from scheduler.lifecycle.forecast import CompanyQueue, Forecast, Starts
from scheduler.lifecycle.start_rates import Limits

_MOST = 50_000
"""Calls times companies, because each start compares the companies. This many take a tenth of a second."""


def are_few(queues: Sequence[CompanyQueue]) -> bool:
    return len(queues) * sum(due.calls for queue in queues for due in queue.due) <= _MOST


def starts_by_call(
    queues: Sequence[CompanyQueue], account: Limits, now: datetime, *, durations: Sequence[timedelta] = ()
) -> Forecast:
    """Return when the calls of all queues start from `now` on (aware UTC), like `forecast`.

    `durations` are equally frequent ones, sorted. Without them only the paces count.
    """
    run = _Run(queues, account, now, [each.total_seconds() for each in durations])
    run.to_the_end()
    companies = {company.queue.company_id: company.starts(now) for company in run.companies}
    return Forecast(
        total=Starts(
            calls=sum(each.calls for each in companies.values()),
            past_closing=sum(each.past_closing for each in companies.values()),
            last_start_at=max((each.last_start_at for each in companies.values() if each.last_start_at), default=None),
        ),
        companies=companies,
        past={company.queue.company_id: company.past for company in run.companies},
    )


# From here on time is counted in seconds since `now`.


@dataclass(kw_only=True, slots=True)
class _Gate:
    """The pace and the places of a company or the account."""

    limits: Limits
    running: int
    slot: float = 0.0
    """The instant of the next slot."""
    at: float = -inf
    """The instant of the last one."""

    @property
    def is_full(self) -> bool:
        return self.running >= self.limits.concurrent_calls

    def take(self, at: float) -> None:
        self.at, self.slot = at, at + 1 / self.limits.calls_per_second


@dataclass(kw_only=True, slots=True)
class _Company:
    queue: CompanyQueue
    gate: _Gate
    waiting: deque[tuple[float, float, datetime | None]]
    """Due time, order among calls of the same instant, last start."""
    last_start: float = -inf
    past: dict[datetime, float] = field(default_factory=dict)

    def starts(self, now: datetime) -> Starts:
        return Starts(
            calls=sum(due.calls for due in self.queue.due),
            past_closing=round(sum(self.past.values())),
            last_start_at=None if self.last_start == -inf else now + timedelta(seconds=self.last_start),
        )


class _Run:
    def __init__(
        self, queues: Sequence[CompanyQueue], account: Limits, now: datetime, durations: Sequence[float]
    ) -> None:
        self._now = now
        self.companies = [
            _Company(
                queue=queue,
                gate=_Gate(limits=queue.limits, running=queue.limits.in_progress),
                waiting=deque(sorted(_calls(queue, now), key=lambda each: each[:2])),
            )
            for queue in queues
        ]
        running = sum(company.gate.running for company in self.companies)
        unknown = max(account.in_progress - running, 0)
        self._account = _Gate(limits=account, running=running + unknown)
        self._kept = kept_places(account.concurrent_calls)
        # Short and long calls take turns.
        self._durations = cycle([*durations[::3], *durations[1::3], *durations[2::3]] or [0.0])
        self._order = count()
        self._ended_at = 0.0
        """The end of the last call that ended."""
        owners = [*((company.gate, company.gate.running) for company in self.companies), (None, unknown)]
        self._ends = [
            # Calls in progress began at any time.
            (next(self._durations) * (number + 0.5) / calls, next(self._order), gate)
            for gate, calls in owners
            for number in range(calls)
        ]
        """Instant, order among those of the same instant, and the gate of the company, if it is one of these."""
        heapify(self._ends)

    def to_the_end(self) -> None:
        """Let each call start, or be past its closing."""
        while waiting := [company for company in self.companies if company.waiting]:
            at, company = self._next(waiting)
            if self._ends and (company is None or self._ends[0][0] <= at):
                self._end()
                continue
            if company is None:
                return
            self._account.take(at)
            company.gate.take(at)
            _, _, last_start = company.waiting.popleft()
            if last_start is not None and last_start <= self._now + timedelta(seconds=at):
                # The last look finds it closed, and the slot is spent.
                company.past[last_start] = company.past.get(last_start, 0.0) + 1
            else:
                self._start(company, at)

    def _next(self, waiting: Sequence[_Company]) -> tuple[float, _Company | None]:
        """Return the company with the next start, as `capacity.allot` chooses it. None: a call must end first."""
        room = self._account.limits.concurrent_calls - self._account.running
        ready = [
            (max(company.waiting[0][0], company.gate.slot), company)
            for company in waiting
            if not company.gate.is_full and leaves_kept_places(company.gate.running, room, self._kept)
        ]
        if not ready or self._account.is_full:
            return inf, None
        at = max(self._account.slot, min(each for each, _ in ready), self._ended_at)
        open_now = (each for each in ready if each[0] <= at)
        return at, min(open_now, key=lambda each: (each[1].gate.at, each[0]))[1]

    def _start(self, company: _Company, at: float) -> None:
        company.gate.running += 1
        self._account.running += 1
        company.last_start = at
        heappush(self._ends, (at + next(self._durations), next(self._order), company.gate))

    def _end(self) -> None:
        self._ended_at, _, gate = heappop(self._ends)
        self._account.running -= 1
        if gate is not None:
            gate.running -= 1


def _calls(queue: CompanyQueue, now: datetime) -> Iterator[tuple[float, float, datetime | None]]:
    for due in queue.due:
        at, over = (due.at - now).total_seconds(), due.over.total_seconds()
        for number in range(due.calls):
            share = (number + 0.5) / due.calls
            yield at + share * over, share, due.last_start
