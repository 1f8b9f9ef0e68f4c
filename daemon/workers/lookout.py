"""Looks whether messages come through all workers: a canary on the tape, which each of them has to see.

A worker that does not answer is killed, and so it is started again. A daemon in which nothing comes through any longer
is systemd's to end: its watchdog is fed only when the canary came through all workers that are there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import trio

from daemon.host.systemd import Notifier
from daemon.sessions.canary import message
from daemon.workers.worker import Worker

_LOOK_S: Final = 5.0
"""How often, at least, a canary goes through the workers."""

_PART: Final = 4
"""The watchdog's time, divided by this, is the time between two looks; see `daemon.sessions.canary`."""

_log: Final = logging.getLogger(__name__)


class Lookout:
    """Over these workers.

    Attributes:
        looked: the number of the newest canary that is on the tape.
    """

    def __init__(self, workers: Sequence[Worker], send: Callable[[bytes, Callable[[], None]], Awaitable[None]]) -> None:
        """`send` puts a canary onto the tape, and calls its second argument before anything else comes there."""
        self.looked = 0
        self._workers = workers
        self._send = send
        self._hurried = trio.Event()
        self._saw = trio.Event()
        self._watching = trio.CancelScope()

    def hurry(self) -> None:
        """Look now: the daemon stood still, and systemd may have been waiting all the time."""
        self._hurried.set()

    def saw(self) -> None:
        """A worker has seen one."""
        self._saw.set()

    def end(self) -> None:
        """The daemon begins to stop: then systemd does not watch, and nothing comes onto the tape."""
        self._watching.cancel(reason="the daemon is stopping")

    async def run(self, notifier: Notifier, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send canaries, and feed systemd's watchdog, until cancelled or until `end`."""
        every_s = _LOOK_S if notifier.watchdog_s is None else min(_LOOK_S, notifier.watchdog_s / _PART)
        task_status.started()
        with self._watching:
            await self._watch(notifier, every_s)

    async def _watch(self, notifier: Notifier, every_s: float) -> None:
        trouble = ""
        while True:
            next_s = trio.current_time() + every_s
            self._hurried = trio.Event()
            found = await self._blind(every_s)
            if not found and notifier.watchdog_s is not None:
                notifier.watchdog()
            if found and not trouble:
                _log.error("a message did not come through %s within %g s", found, every_s)
            elif trouble and not found:
                _log.info("messages come through all workers again")
            trouble = found
            for worker in self._workers:
                worker.check()
            with trio.move_on_at(next_s):
                await self._hurried.wait()

    async def _blind(self, within_s: float) -> str:
        """Look. Returns, in words, whom the canary did not come through in time; "" if it came through all."""
        before = self.looked
        with trio.move_on_after(within_s):
            await self._send(message(before + 1), partial(self._look, before + 1))
            while self.looked == before or self._unseeing():
                self._saw = trio.Event()
                await self._saw.wait()
        if self.looked == before:
            return "the sequencer"
        unseeing = self._unseeing()
        if not any(worker.is_ready for worker in self._workers):
            return "any worker, since none is there,"
        return f"worker {', '.join(map(str, unseeing))}" if unseeing else ""

    def _unseeing(self) -> list[int]:
        """The workers that have not seen the newest canary, of those that are there."""
        return [worker.number for worker in self._workers if worker.is_ready and worker.seen < self.looked]

    def _look(self, number: int) -> None:
        """The canary of that number is on the tape: have all workers look for it."""
        self.looked = max(self.looked, number)
        for worker in self._workers:
            worker.look(number)
        self._saw.set()
