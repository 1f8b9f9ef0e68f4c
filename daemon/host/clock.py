"""Wall-clock time for stamps. Durations and deadlines use `trio.current_time()`, which never jumps.

Tests hand in a clock of their own, since trio's mock clock does not move wall time.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class WallClock:
    """Milliseconds since 1970, and the ISO-8601 text that the wire's `timestamp` carries."""

    def __init__(self, read_ns: Callable[[], int] = time.time_ns) -> None:
        self._read_ns = read_ns
        self._second = -1
        self._prefix = ""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z."""
        return self._read_ns() // 1_000_000

    def timestamp(self) -> str:
        """Now, as `2025-12-08T16:30:45.123Z`."""
        return self.iso(self.now_ms())

    def stamp(self, now_ms: int) -> str:
        """The `timestamp` of what is sent at that moment, which is now: `now_ms` has been asked for already."""
        return self.iso(now_ms)

    def iso(self, ms: int) -> str:
        """The moment `ms` as ISO-8601, UTC, milliseconds, `Z`.

        The text up to the second is kept between calls: this is on the hot path, and many messages share a second.
        """
        second, rest = divmod(ms, 1000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{rest:03d}Z"
