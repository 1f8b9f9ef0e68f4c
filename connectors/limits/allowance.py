"""How much of something a venue may cost per second, and at once. Pure, it is told the time."""

from __future__ import annotations

from protocol.bucket import Bucket


class Allowance:
    """So much per second, of which so much may be saved up."""

    __slots__ = ("_bucket", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        """All of `burst` is there at first. `now_s` is on any clock that never goes back."""
        self.per_s = per_s
        self.burst = burst
        self._bucket = Bucket(burst, now_s)

    def take(self, amount: float, now_s: float) -> bool:
        """Use so much up. False, and nothing is used, where that is more than is left."""
        return self._bucket.take(amount, self.per_s, self.burst, now_s) == 0.0
