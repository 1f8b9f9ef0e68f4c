"""How much time has passed for a venue, by both of the machine's clocks: what was fetched before is that much older.

A clock that only goes on while the machine runs misses a suspend; the wall clock does not, but it may be set. So the
time is that of the first, and where the wall clock has gone on by clearly more, that much more has passed. Setting the
wall clock back changes nothing. Pure.
"""

from __future__ import annotations

from typing import Final

STEP_S: Final = 5.0
"""Between two readings the clocks may drift apart by this much."""


class Elapsed:
    """Reads a time that never goes back."""

    def __init__(self) -> None:
        self._apart_s: float | None = None
        self._missed_s = 0.0

    def read(self, now_s: float, now_ms: int) -> float:
        """The time, in seconds from any beginning: `now_s` is a clock that is never set, `now_ms` the wall clock."""
        apart_s = now_ms / 1000 - now_s
        if self._apart_s is not None and apart_s > self._apart_s + STEP_S:
            self._missed_s += apart_s - self._apart_s
        self._apart_s = apart_s
        return now_s + self._missed_s
