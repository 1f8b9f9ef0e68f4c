"""A token bucket: limits a rate in the long run, and a burst after a pause. Pure."""

from __future__ import annotations

import math
from typing import Final

_SHORTEST_S: Final = 0.001
"""The shortest wait that is reported, so that rounding never yields 0."""


class Bucket:
    """A bucket of tokens: full at first, refilled over time.

    Rate and burst are arguments of each call, so that changing them does not require access to all buckets.
    """

    __slots__ = ("_filled_s", "_level")

    def __init__(self, burst: float, now_s: float) -> None:
        """`burst` is the bucket's size; `now_s` is on the same monotonic clock as in the methods."""
        self._level = float(burst)
        self._filled_s = now_s

    def level(self, per_s: float, burst: float, now_s: float) -> float:
        """The current level; below zero if tokens are owed."""
        self._level = min(self._level + max(0.0, now_s - self._filled_s) * per_s, float(burst))
        self._filled_s = now_s
        return self._level

    def take(self, cost: float, per_s: float, burst: float, now_s: float) -> float:
        """Take `cost` tokens if there are as many.

        Returns:
            0.0 if they were taken; else the seconds until there will be enough, and nothing is taken.
        """
        level = self.level(per_s, burst, now_s)
        if level >= cost:
            self._level = level - cost
            return 0.0
        return max((cost - level) / per_s, _SHORTEST_S) if per_s > 0 else math.inf

    def owe(self, cost: float, most: float) -> None:
        """Take `cost` tokens even if there are too few, up to a debt of `most`."""
        self._level = max(self._level - cost, -most)
