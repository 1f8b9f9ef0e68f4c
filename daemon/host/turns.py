"""Shares the event loop between many of a kind (plain requests, clients' commands) and everything else.

trio runs every ready task once in each turn of its loop. With hundreds of connections whose requests are dear, one turn
would last as long as hundreds of answers. A ping, or a new client, needs several turns, so it would wait for seconds.
Therefore all of one kind share a part of each turn, and are answered in the order in which they asked.
"""

from __future__ import annotations

from typing import Final

import trio

_FIRST_GUESS_S: Final = 0.00005
"""The assumed duration of an answer before any has been measured."""

_WEIGHT: Final = 0.05
"""The weight of the newest answer in the moving mean."""


class Turns:
    """Decides who may be answered now."""

    def __init__(self, share_s: float) -> None:
        """`share_s` is how long all answers together may take in one turn of the event loop."""
        self._share_s = self._left_s = share_s
        self._mean_s = _FIRST_GUESS_S
        self._waiting = trio.lowlevel.ParkingLot()
        self._asked = trio.Event()

    @property
    def are_due(self) -> bool:
        """Whether the share of this turn is used up, or others wait already: then the caller has to `wait`."""
        return self._left_s <= 0 or bool(self._waiting)

    async def wait(self) -> None:
        """Wait until the caller may answer. It must report the duration by `took`. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        # Whoever was waiting and is woken has its turn for sure: if it asked again it would lose its place.
        if self.are_due:
            self._asked.set()
            await self._waiting.park()

    def took(self, answer_s: float) -> None:
        """Report the duration of an answer."""
        self._left_s -= answer_s
        self._mean_s += _WEIGHT * (answer_s - self._mean_s)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hand out the share of each turn while anybody waits for one, until cancelled."""
        task_status.started()
        while True:
            await self._asked.wait()
            while self._waiting:
                self._left_s = self._share_s
                self._waiting.unpark(count=max(1, int(self._share_s / self._mean_s)))
                await trio.lowlevel.checkpoint()
            self._left_s = self._share_s
            self._asked = trio.Event()
