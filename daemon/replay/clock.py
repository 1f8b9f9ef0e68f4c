"""The clock of a daemon that plays a recording: it stands where the recording does; stamps tell when they are sent."""

from __future__ import annotations

import time

from daemon.host.clock import WallClock


class ReplayClock(WallClock):
    """What is judged by time (ages, gaps, since when) goes by the recording; `timestamp` is the time of sending.

    Attributes:
        position_ms: what was played last, ms since 1970, by the recording.
    """

    def __init__(self, position_ms: int) -> None:
        """It stands at the beginning of what is played."""
        super().__init__()
        self.position_ms = position_ms
        self._stamps = WallClock(time.time_ns)

    def now_ms(self) -> int:
        """The recording's time."""
        return self.position_ms

    def timestamp(self) -> str:
        """The machine's time."""
        return self._stamps.timestamp()

    def stamp(self, now_ms: int) -> str:
        """The machine's time."""
        return self._stamps.timestamp()
