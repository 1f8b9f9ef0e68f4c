"""The queue of the clients that are behind and whose sockets take bytes: they take their steps in turn.

trio runs every ready task once in each turn of its loop. With thousands of clients behind, each in a task of its own,
one turn would last as long as thousands of writes. A new client needs a dozen turns to be served, so it would wait for
seconds. Therefore one task takes the steps of all of them, first come, first served: in each turn of the loop one step
of each client at most, and for `SHARE_S` at most.

Plain requests and commands share the time by `daemon.host.turns`: each is answered by its own task, which may wait in
the midst of it. A step here never waits, so that no task has to be woken for each.

The order also saves work. Clients that fell behind at the same place stay together, so that they share their chunks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

SHARE_S: Final = 0.01
"""How long all clients that are behind may work in one turn of the event loop, together."""


class _Place:
    """A place in the queue; `task` is None once its client has left, `error` is what its step raised."""

    __slots__ = ("error", "step", "task")

    def __init__(self, step: Callable[[], bool], task: trio.lowlevel.Task) -> None:
        self.step = step
        self.error: Exception | None = None
        self.task: trio.lowlevel.Task | None = task


class Steps:
    """The queue, and the task that works on it (`run`)."""

    def __init__(self) -> None:
        self._queue: deque[_Place] = deque()
        self._asked = trio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    async def take(self, step: Callable[[], bool]) -> None:
        """Have `step` called again and again, in turn with those of others, until it returns False. A checkpoint.

        If cancelled, `step` is not called any more. If it raises, so does this.
        """
        place = _Place(step, trio.lowlevel.current_task())
        self._queue.append(place)
        self._asked.set()

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            place.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)
        if place.error is not None:
            raise place.error

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take the steps, until cancelled."""
        task_status.started()
        while True:
            await self._asked.wait()
            while self._queue:
                self._turn()
                await trio.lowlevel.checkpoint()
            self._asked = trio.Event()

    def _turn(self) -> None:
        """One step of each client in the queue, as long as the share lasts."""
        queue = self._queue
        until_s = time.perf_counter() + SHARE_S
        for _ in range(len(queue)):
            place = queue.popleft()
            if place.task is None:
                continue
            more = False
            try:
                more = place.step()
            except Exception as error:  # the client's own task raises it
                place.error = error
            if more:
                queue.append(place)
            else:
                trio.lowlevel.reschedule(place.task)
            if time.perf_counter() >= until_s:
                return
