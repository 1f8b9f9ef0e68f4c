"""Keeps the garbage collector from blocking the event loop.

CPython frees most objects by their reference counts. Its collector finds those that refer to each other in a cycle, and
for this it scans all objects at once: this takes a tenth of a second for a thousand clients, and more than half a
second for ten thousand. No client is served meanwhile.

Here almost all long-lived objects are in use: clients, topics, code. So objects that survive some collections are
*frozen* (gc.freeze): their reference counts still free them, but the collector no longer scans them. A collection then
scans only the few thousand newer objects, and takes a few milliseconds, however many objects there are. The collector
does not track entries of the tape at all (`daemon.tape.tape.Entry`).

Frozen objects that become garbage in a cycle are found when all objects are *thawed* and scanned once. Clients leave no
cycles behind, so a thaw finds next to nothing; the less it found, the later the next one.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Mapping
from typing import Final

import trio

THRESHOLDS: Final = (500, 4, 2)
"""For gc.set_threshold. Every 500 new objects these are scanned; every fifth time the survivors, too; and every third
time of these, all objects that are not frozen: about eight thousand."""

_FROZEN_AT_ONCE: Final = (THRESHOLDS[0] + 1) * (THRESHOLDS[1] + 1) * (THRESHOLDS[2] + 1)
"""How many objects one such collection can freeze."""

LOOK_S: Final = 60.0
"""How often to check whether to thaw."""

FIRST_THAW: Final = 1_000_000
"""After so many frozen objects everything is thawed: their size bounds the memory that garbage can hold."""

LAST_THAW: Final = 64 * FIRST_THAW

_WORTH_IT: Final = 0.01
"""The share of garbage among them from which thawing equally often is worth it."""

_log: Final = logging.getLogger(__name__)


class Garbage:
    """How the collector of this process works while `run` runs.

    Attributes:
        frozen: how many objects have been frozen since the last thaw, at most.
        thaw_at: at how many everything is thawed.
    """

    def __init__(self) -> None:
        self.frozen = 0
        self.thaw_at = FIRST_THAW

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Set the collector up, and thaw now and then, until cancelled; then it is as it was."""
        before = gc.get_threshold()
        gc.callbacks.append(self._collected)
        try:
            gc.collect()
            # Once more: CPython puts a collection off until a quarter of what the last one left has come anew.
            gc.collect()
            gc.set_threshold(*THRESHOLDS)
            task_status.started()
            while True:
                await trio.sleep(LOOK_S)
                if self.frozen >= self.thaw_at:
                    self.thaw()
        finally:
            gc.set_threshold(*before)
            gc.callbacks.remove(self._collected)
            gc.unfreeze()

    def thaw(self) -> int:
        """Look at everything once. Returns how many objects were garbage. It takes as long as it takes."""
        began_s, among = time.perf_counter(), max(1, self.frozen)
        gc.unfreeze()
        self.frozen = 0
        found = gc.collect()
        worth_it = found >= _WORTH_IT * among
        self.thaw_at = FIRST_THAW if worth_it else min(2 * self.thaw_at, LAST_THAW)
        took_ms = (time.perf_counter() - began_s) * 1e3
        _log.debug("a full garbage collection found %d objects in %.0f ms", found, took_ms)
        return found

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        """The collector is done; `gc` calls this."""
        if phase == "stop" and info["generation"] == 2:
            gc.freeze()
            self.frozen += _FROZEN_AT_ONCE
