"""Forecast of calls one by one: slow, and written apart from the product's, so that it judges every part of that.

Each call is cut into `PARTS` that start one after the other. The next part is always that of the company that has
waited longest since its last start, among those that may start first.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import exp, inf, log

from scheduler.lifecycle.forecast import CompanyQueue
from scheduler.lifecycle.start_rates import Limits

PARTS = 10


def without_kept(account: Limits, queues: Sequence[CompanyQueue]) -> Limits:
    """Return the limits without the places that no company may take: a tenth is kept for first calls of companies."""
    places = account.concurrent_calls
    calling = sum(any(each.calls for each in queue.due) or queue.limits.in_progress > 0 for queue in queues)
    return replace(account, concurrent_calls=max(places - max(places // 10, 1), min(places, calling), 1))


@dataclass
class Gate:
    """The pace and the places of a company or the account. All times are seconds since now."""

    step: float
    places: float
    lasts: float | None
    running: float
    at: float = 0.0
    """The last start."""
    slot: float = 0.0

    @classmethod
    def of(cls, limits: Limits, lasts: float | None, running: int) -> "Gate":
        return cls(1 / limits.calls_per_second / PARTS, limits.concurrent_calls - 0.5 / PARTS, lasts, float(running))

    def opens(self) -> float:
        """Return when another part may start. Calls in progress end at a constant rate for each."""
        if self.lasts is None or self.running <= self.places:
            return self.slot
        return max(self.slot, self.at + self.lasts * log(self.running / self.places))

    def start(self, at: float) -> None:
        if self.lasts is not None:
            self.running = self.running * exp((self.at - at) / self.lasts) + 1 / PARTS
        self.at, self.slot = at, max(self.slot + self.step, at)


@dataclass
class PlainStarts:
    """The starts of a company in seconds since now. Without a start: the last one is minus infinity."""

    gate: Gate
    waiting: deque[tuple[float, float, float]]
    """Due time, order among those with the same, last start."""
    started: list[tuple[float, float]] = field(default_factory=list)
    """Start and lateness of each part."""
    dropped: list[tuple[float, float]] = field(default_factory=list)
    """The start and the lateness that each part would have had that is past closing."""

    def next_start(self, account_opens: float) -> float:
        """Return when the next part starts, at the earliest. Parts that would start too late are dropped."""
        while self.waiting:
            due_at, _, last_start = self.waiting[0]
            at = max(due_at, self.gate.opens(), account_opens)
            if at < last_start:
                return at
            self.waiting.popleft()
            self.dropped.append((at, at - due_at))
        return inf


def parts_of(queue: CompanyQueue, now: datetime) -> Iterable[tuple[float, float, float]]:
    for due in queue.due:
        last_start = inf if due.last_start is None else (due.last_start - now).total_seconds()
        for number in range(due.calls * PARTS):
            share = (number + 0.5) / (due.calls * PARTS)
            yield (due.at - now + share * due.over).total_seconds(), share, last_start


def plain_forecast(
    queues: Sequence[CompanyQueue], account: Limits, now: datetime, *, call_lasts: timedelta | None
) -> list[PlainStarts]:
    lasts = None if call_lasts is None else call_lasts.total_seconds()
    found = [
        PlainStarts(Gate.of(queue.limits, lasts, queue.limits.in_progress), deque(sorted(parts_of(queue, now))))
        for queue in queues
    ]
    gate = Gate.of(
        without_kept(account, queues),
        lasts,
        max(account.in_progress, sum(queue.limits.in_progress for queue in queues)),
    )
    while any(each.waiting for each in found):
        opens = gate.opens()
        at, _, company = min(
            (
                (each.next_start(opens), each.gate.at if each.started else -inf, index)
                for index, each in enumerate(found)
            )
        )
        if at < inf:
            due_at, _, _ = found[company].waiting.popleft()
            found[company].started.append((at, at - due_at))
            found[company].gate.start(at)
            gate.start(at)
    return found
