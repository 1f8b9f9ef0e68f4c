"""Shares the event loop between the clients that are behind and all other tasks.

trio runs every ready task once in each turn of its loop. With thousands of clients behind whose sockets take bytes, one
turn would last as long as thousands of writes. A new client needs a dozen turns to be served, so it would wait for
seconds. Therefore all clients that are behind share `SHARE_S` of each turn, and take their steps roughly in the order
in which they asked: a task woken after the share is used up waits again, behind the others.
"""

from __future__ import annotations

import math
from typing import Final

import trio

SHARE_S: Final = 0.01
"""How long all clients that are behind may work in one turn of the event loop, together."""

_FIRST_GUESS_S: Final = 0.00005
"""The assumed duration of a step before any has been measured."""

_WEIGHT: Final = 0.05
"""The weight of the newest step in the moving mean."""


class Turns:
    """Decides which task may take a step now."""

    def __init__(self) -> None:
        self._left_s = SHARE_S
        self._step_s = _FIRST_GUESS_S
        self._waiting = trio.lowlevel.ParkingLot()
        self._asked = trio.Event()

    async def wait(self) -> None:
        """Wait until the caller may take a step. It must report the duration by `took`. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._left_s <= 0:
            self._asked.set()
            await self._waiting.park()

    def took(self, step_s: float) -> None:
        """Report the duration of a step."""
        self._left_s -= step_s
        self._step_s += _WEIGHT * (step_s - self._step_s)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hand out the share of each turn while tasks wait for one, until cancelled."""
        task_status.started()
        while True:
            await self._asked.wait()
            while self._waiting:
                self._left_s = SHARE_S
                self._waiting.unpark(count=max(1, math.ceil(SHARE_S / self._step_s)))
                await trio.lowlevel.checkpoint()
            self._left_s = SHARE_S
            self._asked = trio.Event()
