"""What a component counts, and how it says so.

A component counts for itself, with integers and with `Histogram`: adding a value is a search in a short tuple and two
additions. When somebody asks for metrics, it adds its numbers to the `Samples` that it is handed. That costs nothing
per client: what there is one of per client has been added up before.

Labels are bounded: channels and connectors of the configuration, and codes, causes, states and formats from closed
lists. What a client sent never becomes one, and neither does its address.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Final, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

_Label = TypeVar("_Label", bound=str)

LATENCY_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for durations, in seconds."""


class Histogram:
    """Counts since the start.

    Attributes:
        bounds: the buckets' upper bounds, which belong to them; values above the last have a bucket of their own.
        sum: of all values.
    """

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_S) -> None:
        """Raises: ValueError, where the bounds do not rise."""
        self.bounds = tuple(bounds)
        if list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"the bounds of a histogram must rise: {self.bounds}")
        self._counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, so many times."""
        self._counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def cumulative(self) -> Iterator[int]:
        """For each bound how many values were not above it, and then how many there were."""
        return accumulate(self._counts)


class Samples:
    """The numbers of all components at one moment. A family that two of them add to is one family."""

    def __init__(self) -> None:
        self._gauges: dict[str, GaugeMetricFamily] = {}
        self._counters: dict[str, CounterMetricFamily] = {}
        self._histograms: dict[str, HistogramMetricFamily] = {}

    def __iter__(self) -> Iterator[Metric]:
        return chain(self._gauges.values(), self._counters.values(), self._histograms.values())

    def gauge(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        """A family of values that go up and down; add to it by `add_metric`."""
        return self._gauges.setdefault(name, GaugeMetricFamily(name, text, labels=labels))

    def counter(self, name: str, text: str, *labels: str) -> CounterMetricFamily:
        """A family of values that only rise. Its samples are called `name` and `_total`."""
        return self._counters.setdefault(name, CounterMetricFamily(name, text, labels=labels))

    def value(self, name: str, text: str, value: float) -> None:
        """One value that goes up and down."""
        self.gauge(name, text).add_metric((), value)

    def count(self, name: str, text: str, value: float) -> None:
        """One value that only rises."""
        self.counter(name, text).add_metric((), value)

    def counts(self, name: str, text: str, label: str, values: Mapping[_Label, int]) -> None:
        """Values that only rise, by label."""
        family = self.counter(name, text, label)
        for value, count in values.items():
            family.add_metric([value], count)

    def one_of(self, family: GaugeMetricFamily, name: str, values: Iterable[str], held: str) -> None:
        """1 for the value that holds, 0 for each of the others."""
        for value in values:
            family.add_metric([name, value], value == held)

    def take(self, kind: str, name: str, text: str, found: Iterable[tuple[str, dict[str, str], float]]) -> None:
        """Samples of a family that were measured elsewhere, each with its own name, labels and value.

        `kind`: `counter`, `histogram`, or anything else for a gauge.
        """
        family: Metric
        match kind:
            case "counter":
                family = self.counter(name, text)
            case "histogram":
                family = self._histograms.setdefault(name, HistogramMetricFamily(name, text))
            case _:
                family = self.gauge(name, text)
        for sample, labels, value in found:
            family.add_sample(sample, labels, value)

    def histogram(self, name: str, text: str, histogram: Histogram, **labels: str) -> None:
        """A histogram, with these labels."""
        family = self._histograms.setdefault(name, HistogramMetricFamily(name, text, labels=tuple(labels)))
        bounds = [*(str(bound) for bound in map(float, histogram.bounds)), "+Inf"]
        family.add_metric(tuple(labels.values()), list(zip(bounds, histogram.cumulative(), strict=True)), histogram.sum)
