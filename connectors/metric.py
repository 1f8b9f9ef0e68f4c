"""Counts of how often values fell between fixed bounds: what a Prometheus histogram is made of.

Adding a value is a search in a short tuple and two additions; nothing is kept of the value itself. Whoever measures
owns one, and `daemon.routes.metrics` reads it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

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
