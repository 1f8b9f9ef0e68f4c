"""The connections to the venues of a node that stands by, so that what they push has no gap when it takes over."""

from __future__ import annotations

from typing import Final

import trio

from daemon.composition.ingesting import Connections
from daemon.config.load import Config
from daemon.host.clock import WallClock
from daemon.publish.cluster.standby import Remembered

_MARGIN_S: Final = 10.0
"""What came from the venues is remembered for two leases, and so much longer."""


class Warm:
    """Connections to the venues while the node stands by, and what came of them.

    Attributes:
        draining: cancelled when the node takes over: from then on the sequencer takes what comes.
        drained: set when nothing more is taken here.
        over: set when the connections are to end.
    """

    def __init__(self, config: Config, clock: WallClock) -> None:
        """Build them."""
        self.connections = Connections(config, clock)
        self.remembered = Remembered(config.catalogue(), 2 * config.cluster.lease_s + _MARGIN_S)
        self.draining = trio.CancelScope()
        self.drained = trio.Event()
        self.over = trio.Event()

    async def run(self) -> None:
        """Keep the connections until they are over."""
        async with trio.open_nursery() as nursery:
            await self.connections.start(nursery, pushed_only=True)
            with self.draining:
                await self.remembered.run(self.connections.outbox)
            self.drained.set()
            await self.over.wait()
            nursery.cancel_scope.cancel(reason="these connections are not needed any more")
