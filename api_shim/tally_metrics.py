"""Tallies in the format of Prometheus: counters and histograms, the same in every API process."""

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from scheduler.rules.tallies import TALLIES, Amount, Key, Tally, key_of, labels_of


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
