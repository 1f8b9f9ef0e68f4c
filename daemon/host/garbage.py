"""The garbage collector, kept from stopping everybody.

CPython frees most objects by their reference counts. Its collector is there for those that refer to each other in a
ring, and to find these it looks, in one go, at all objects there are: a tenth of a second for a thousand clients, more
than half a second for ten thousand. Nobody is served meanwhile.

Here almost everything that lives for long is no garbage: clients, topics, code. So what has survived some collections
is *frozen* (gc.freeze): it is freed by its reference count as ever, and the collector does not look at it any more. A
collection is about the few thousand objects that have come since, and takes a few milliseconds, however many there are.
Entries of the tape are not known to the collector at all (`daemon.tape.tape.Entry`).

What of the frozen ones becomes garbage in a ring is found when everything is *thawed*, and looked at once. Clients
leave no rings behind, so that finds next to nothing, and is done the more seldom the less it found.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Mapping
from typing import Final

import trio

THRESHOLDS: Final = (500, 4, 2)
"""As of gc.set_threshold: every 500 new objects those, every fifth time those that survived it too, every third time
of these all that are not frozen: eight thousand or so."""

_FROZEN_AT_ONCE: Final = (THRESHOLDS[0] + 1) * (THRESHOLDS[1] + 1) * (THRESHOLDS[2] + 1)
"""How many objects one such collection can freeze."""

LOOK_S: Final = 60.0
"""How often it is asked whether to thaw."""

FIRST_THAW: Final = 1_000_000
"""After so many objects were frozen, everything is thawed: what they take bounds what can be lost meanwhile."""

LAST_THAW: Final = 64 * FIRST_THAW

_WORTH_IT: Final = 0.01
"""The share of garbage among them that makes thawing as often worth it."""

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
