"""How much of something may be used per second, and at once: a token bucket. Pure, it is told the time."""

from __future__ import annotations


class Allowance:
    """What is left of so much per second, of which so much may be saved up."""

    __slots__ = ("_left", "_now_s", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        """All of `burst` is there at first. `now_s` is on any clock that never goes back."""
        self.per_s = per_s
        self.burst = burst
        self._left = burst
        self._now_s = now_s

    def take(self, amount: float, now_s: float) -> bool:
        """Use so much up. False, and nothing is used, where that is more than is left."""
        left = min(self._left + max(0.0, now_s - self._now_s) * self.per_s, self.burst)
        self._now_s = now_s
        self._left = left - amount if amount <= left else left
        return amount <= left
