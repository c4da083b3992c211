"""Metrics of HTTP: counts of requests, tallies in the format of Prometheus, and values that may be seconds old."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from scheduler.clock import monotonic
from scheduler.logs import log
from scheduler.persistence.errors import CommitInDoubt
from scheduler.rules.tallies import (
    HTTP_REQUESTS,
    HTTP_SECONDS,
    ONE,
    OTHER,
    TALLIES,
    Amount,
    Key,
    Tally,
    folded,
    key_of,
    labels_of,
    seconds_of,
)

# --- Counts of requests: kept in memory for some seconds, and then added to the tallies, so that no request waits


_log = log(__name__)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ADDED_EVERY_S = 3.0
Add = Callable[[Mapping[Key, Amount]], Awaitable[None]]


class HttpTallies:
    """The requests of one process, by route. Used in the event loop only."""

    def __init__(self) -> None:
        self._amounts: dict[Key, Amount] = {}
        self._has_failed = False

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. `route` is the template of its path, never the path, which clients choose."""
        label = f"{method if method in _METHODS else OTHER} {route}"
        for key, amount in (
            (key_of(HTTP_REQUESTS, label, str(status)), ONE),
            (key_of(HTTP_SECONDS, label), seconds_of(HTTP_SECONDS, seconds)),
        ):
            self._amounts[key] = self._amounts[key] + amount if key in self._amounts else amount

    @contextlib.asynccontextmanager
    async def adding(self, add: Add) -> AsyncIterator[None]:
        """Pass the counts to `add` every few seconds, and once more at the end."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._add_until(stop, add), name="tallies")
        try:
            yield
        finally:
            # Not cancelled: a write that has begun would be added again, or lost.
            stop.set()
            await task
            await self.add_now(add)

    async def _add_until(self, stop: asyncio.Event, add: Add) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), ADDED_EVERY_S)
            await self.add_now(add)

    async def add_now(self, add: Add) -> None:
        """Pass the counts to `add` now. After an error they are kept, unless they may have been stored."""
        amounts, self._amounts = self._amounts, {}
        if not amounts:
            return
        try:
            await add(amounts)
        except CommitInDoubt:
            _log.warning("requests_not_counted: it is unknown whether the counts of requests were stored")
        except Exception as error:  # noqa: BLE001 - no request waits for it, and the next one adds them
            self._amounts = folded([*amounts.items(), *self._amounts.items()])
            if not self._has_failed:
                _log.warning("requests_counted_later: the counts of requests could not be stored yet", exc_info=error)
            self._has_failed = True
        else:
            self._has_failed = False


# --- Tallies in the format of Prometheus: counters and histograms, the same in every API process


def register(registry: CollectorRegistry, totals: Mapping[Key, Amount]) -> None:
    """Add all tallies to the registry. Totals with another name are left out."""
    registry.register(_Totals(totals))


class _Totals(Collector):
    def __init__(self, totals: Mapping[Key, Amount]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        for tally in TALLIES:
            # Also zeros: the increase of a counter that appears later would miss its first amount.
            rows = {key_of(tally, *labels): _NONE for labels in _known_labels(tally)}
            rows |= {key: amount for key, amount in self._totals.items() if key[0] == tally.name}
            yield _histogram(tally, rows) if tally.bounds else _counter(tally, rows)


_NONE = Amount(n=0)


def _known_labels(tally: Tally) -> list[tuple[str, ...]]:
    if not tally.labels:
        return [()]
    return [(each,) for each in tally.known or ()]


def _counter(tally: Tally, rows: Mapping[Key, Amount]) -> Metric:
    family = CounterMetricFamily(tally.name, tally.documentation, labels=tally.labels)
    for key, amount in sorted(rows.items(), key=lambda each: each[0]):
        family.add_metric(labels_of(key), amount.n)
    return family


def _histogram(tally: Tally, rows: Mapping[Key, Amount]) -> Metric:
    family = HistogramMetricFamily(tally.name, tally.documentation, labels=tally.labels)
    bounds = [*map(floatToGoString, tally.bounds), "+Inf"]
    for key, amount in sorted(rows.items(), key=lambda each: each[0]):
        counts = amount.buckets or (0,) * len(bounds)
        family.add_metric(labels_of(key), list(zip(bounds, accumulate(counts), strict=True)), amount.seconds)
    return family


# --- A value that is expensive to compute and may be a few seconds old


T = TypeVar("T")


class RecentValue(Generic[T]):
    """The last computed value, for requests within `max_age_s` after its computation began.

    Nothing else invalidates it. Requests that arrive during a computation wait for it and share its value. An error
    is raised to the request that computed, and the next request computes again: no older value hides it.
    """

    def __init__(self, max_age_s: float, ticks: Callable[[], float] = monotonic) -> None:
        self._max_age_s = max_age_s
        self._ticks = ticks
        self._lock = asyncio.Lock()
        self._last: tuple[float, T] | None = None

    async def get(self, compute: Callable[[], Awaitable[T]]) -> T:
        """Get the last value while it is recent, else that of `compute`. Raises the errors of `compute`."""
        async with self._lock:
            began = self._ticks()
            if self._last is None or began - self._last[0] >= self._max_age_s:
                self._last = (began, await compute())
            return self._last[1]
