"""Shares the event loop between the clients that are behind and everybody else.

trio runs every task that is ready once in each turn of its loop. With thousands of clients behind, whose sockets take
bytes, one turn would last as long as thousands of writes, and a newcomer, which needs a dozen turns to be served, would
wait for seconds. So the clients that are behind get a share of each turn together, `SHARE_S`, and take their steps in
the order in which they asked.
"""

from __future__ import annotations

import math
from typing import Final

import trio

SHARE_S: Final = 0.01
"""How long the clients that are behind may be at work in one turn of the event loop, all of them together."""

_FIRST_GUESS_S: Final = 0.00005
"""How long a step takes, before any was measured."""

_WEIGHT: Final = 0.05
"""How much the newest step counts in the mean."""


class Turns:
    """Who may take a step now."""

    def __init__(self) -> None:
        self._left_s = SHARE_S
        self._step_s = _FIRST_GUESS_S
        self._waiting = trio.lowlevel.ParkingLot()
        self._asked = trio.Event()

    async def wait(self) -> None:
        """Wait until the caller may take a step; it says by `took` how long that was. A checkpoint in any case."""
        await trio.lowlevel.checkpoint()
        while self._left_s <= 0:
            self._asked.set()
            await self._waiting.park()

    def took(self, step_s: float) -> None:
        """A step is done."""
        self._left_s -= step_s
        self._step_s += _WEIGHT * (step_s - self._step_s)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hand out the share of each turn while somebody waits for one, until cancelled."""
        task_status.started()
        while True:
            await self._asked.wait()
            while self._waiting:
                self._left_s = SHARE_S
                self._waiting.unpark(count=max(1, math.ceil(SHARE_S / self._step_s)))
                await trio.lowlevel.checkpoint()
            self._left_s = SHARE_S
            self._asked = trio.Event()
