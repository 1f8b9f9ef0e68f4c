"""Whether the daemon still speaks: it pings at each heartbeat, so after two of them something must have come. Pure.

A process that was stopped, or whose machine slept, notices its deadlines late. What came meanwhile has not been read
then, so the daemon is given another chance.
"""

from __future__ import annotations

import math
from typing import Final

from daemon.client.core.verdicts import Disconnected

_MISSED: Final = 2.5
"""In heartbeats."""

_LATE_S: Final = 1.0
"""A deadline that is noticed so late was slept through."""


class Liveness:
    """One connection's. All times are of one clock that never goes back.

    Attributes:
        heard_s: when bytes came last, of whatever kind; set by the shell.
    """

    def __init__(self, heartbeat_s: float, now_s: float) -> None:
        """`heartbeat_s`: what the welcome says; 0 if there are no pings, and then nothing is ever missed."""
        self.heard_s = now_s
        self._patience_s = _MISSED * heartbeat_s if heartbeat_s > 0 else math.inf
        self._began_s = now_s
        self._until_s = math.inf

    def is_alive(self, now_s: float) -> bool:
        """Whether something came recently."""
        return now_s - self.heard_s < self._patience_s

    def begin(self, now_s: float) -> float:
        """A wait for a message begins. Returns until when to wait; then ask `again_until_s`."""
        self._began_s = now_s
        return self._limit_s()

    def again_until_s(self, now_s: float) -> float:
        """No message came until the time that was said last. Returns until when to go on waiting.

        Raises:
            Disconnected: nothing at all was heard for too long, while this process ran.
        """
        if now_s - self._until_s > _LATE_S:
            self._began_s = now_s
        elif self._until_s >= max(self._began_s, self.heard_s) + self._patience_s:
            raise Disconnected(f"nothing was heard for {self._patience_s:g} s, not even a ping")
        return self._limit_s()

    def _limit_s(self) -> float:
        self._until_s = max(self._began_s, self.heard_s) + self._patience_s
        return self._until_s
