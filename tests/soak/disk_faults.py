"""The disk takes nothing now and then, for some seconds: no client may notice, and then storing must go on."""

from __future__ import annotations

import random
from typing import Final

import trio

from tests.soak.processes import Daemon

_PAUSE_S: Final = (1.0, 8.0)
_LASTS_S: Final = (1.0, 6.0)


class DiskFaults:
    """Forbids a daemon to write files, and allows it again.

    Attributes:
        played: How often.
    """

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self.played = 0
        self._daemon = daemon
        self._dice = random.Random(f"{seed}/disk")

    async def run(self, until_s: float) -> None:
        """One after the other, until that time on trio's clock; then it may write again."""
        while (left_s := until_s - trio.current_time()) > 0:
            await trio.sleep(min(left_s, self._dice.uniform(*_PAUSE_S)))
            self._daemon.limit_files(0)
            self.played += 1
            await trio.sleep(min(self._dice.uniform(*_LASTS_S), max(0.1, until_s - trio.current_time())))
            self._daemon.limit_files(None)
