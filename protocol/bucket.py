"""A token bucket: how often something may happen in the long run, and how often at once after a pause. Pure."""

from __future__ import annotations

import math
from typing import Final

_SHORTEST_S: Final = 0.001
"""What is waited for at least, so that rounding never says that there is nothing to wait for."""


class Bucket:
    """It is full at first, and fills up again with time; what is taken is there no more.

    Rate and size are said each time, so that whoever has changed them need not know all buckets.
    """

    __slots__ = ("_filled_s", "_level")

    def __init__(self, burst: float, now_s: float) -> None:
        """`now_s` is on the same monotonic clock as that of the methods; `burst` how much it holds."""
        self._level = float(burst)
        self._filled_s = now_s

    def level(self, per_s: float, burst: float, now_s: float) -> float:
        """How much is in it; below zero where somebody owes."""
        self._level = min(self._level + max(0.0, now_s - self._filled_s) * per_s, float(burst))
        self._filled_s = now_s
        return self._level

    def take(self, cost: float, per_s: float, burst: float, now_s: float) -> float:
        """Take as much, if it is there.

        Returns:
            0.0 where it was; else in how many seconds it will be, and nothing is taken.
        """
        level = self.level(per_s, burst, now_s)
        if level >= cost:
            self._level = level - cost
            return 0.0
        return max((cost - level) / per_s, _SHORTEST_S) if per_s > 0 else math.inf

    def owe(self, cost: float, most: float) -> None:
        """Take as much though it is not there, until `most` is owed."""
        self._level = max(self._level - cost, -most)
