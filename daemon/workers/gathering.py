"""Asks all workers for their figures, and waits for them, but not long.

A worker that does not send them in time is told with its last ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import trio

from connectors.metric import Samples
from daemon.routes.metrics import FRESH_S
from daemon.workers.figures import Figures
from daemon.workers.messages import Measure, Measured
from daemon.workers.worker import Worker

_MEASURE_S: Final = 0.5
"""How long a worker may take to send its figures; then its last ones have to do."""


class Gathering:
    """The figures of all workers, as they were asked for last."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._figures = Figures()
        self._gathered_s = -math.inf
        self._gathering = trio.Lock()
        self._number = 0
        """Of the newest question."""
        self._unmeasured: set[int] = set()
        """Who has yet to answer it."""
        self._measured = trio.Event()
        self._late = 0

    async def gather(self) -> None:
        """Have the newest figures of all workers, as far as they send them in time; once for all who ask now."""
        async with self._gathering:
            if trio.current_time() - self._gathered_s < FRESH_S:
                return
            self._number += 1
            self._unmeasured = {worker.number for worker in self._workers if worker.is_ready}
            for worker in self._workers:
                worker.say(Measure(self._number))
            with trio.move_on_after(_MEASURE_S):
                while self._unmeasured:
                    self._measured = trio.Event()
                    await self._measured.wait()
            self._late += len(self._unmeasured)
            self._gathered_s = trio.current_time()

    def measured(self, worker: Worker, measured: Measured) -> None:
        """A worker has sent its figures."""
        self._figures.measured(worker.number, measured.families)
        if measured.number == self._number:
            self._unmeasured.discard(worker.number)
            self._measured.set()

    def ended(self, worker: Worker) -> None:
        """The worker has ended: its counters stay."""
        self._figures.ended(worker.number)

    def measure(self, samples: Samples) -> None:
        """Add the figures, and how many came too late."""
        self._figures.measure(samples)
        late = "How often a worker did not send its figures in time, so that older ones were told."
        samples.count("tickerd_worker_figures_late", late, self._late)
