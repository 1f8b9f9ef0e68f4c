"""Who asks the venues for past candles at a node that takes no data in: it asks by itself, when a client of it does.

So a chart is the same at every node. Which channels there are it knows by the tape; how the venues are reached by its
own configuration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

import trio

from connectors.base import VenueSettings
from connectors.metric import Samples
from connectors.poll.past_candles import PastCandles, among
from connectors.venues.registry import VENUES
from daemon.composition.ingesting import USER_AGENT
from daemon.config.load import Config
from daemon.host.clock import WallClock
from daemon.ingest.fleet import Fleet
from daemon.ingest.inbox import Item
from protocol.channels import Catalogue, Channel
from protocol.kinds import View

_Asked: TypeAlias = tuple[VenueSettings, tuple[Channel, ...]]
"""How a venue is reached, and which of its channels are of candles."""

_log = logging.getLogger(__name__)


class OwnPast:
    """The venues' histories."""

    def __init__(self, config: Callable[[], Config], catalogue: Callable[[], Catalogue], clock: WallClock) -> None:
        """`config` and `catalogue`: as they are in force; see `changed`."""
        self._config = config
        self._catalogue = catalogue
        inbox, self._outbox = trio.open_memory_channel[Item](1)
        self._fleet = Fleet(inbox, clock)
        self._asked: dict[str, _Asked] = {}
        self._changed = trio.Event()

    def changed(self) -> None:
        """The configuration or the catalogue is another one."""
        self._changed.set()

    def of(self, venue: str) -> PastCandles | None:
        """Who asks that venue; None if nobody does."""
        return among(self._fleet.of(venue))

    def measure(self, samples: Samples) -> None:
        """Add how often they were asked, and what became of it."""
        self._fleet.measure(samples)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have them run, those that there are to be, until cancelled."""
        with self._outbox:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._fleet.run)
                task_status.started()
                while True:
                    self._changed = trio.Event()
                    await self._renew()
                    await self._changed.wait()

    async def _renew(self) -> None:
        config, wanted = self._config(), dict[str, _Asked]()
        for channel in self._catalogue():
            if channel.kind.view is View.CANDLE and channel.exchange in VENUES:
                settings, channels = wanted.get(channel.exchange, (None, ()))
                settings = settings or config.connectors.of(VENUES[channel.exchange])
                if settings.enabled:
                    wanted[channel.exchange] = settings, (*channels, channel)
        for venue in [name for name, asked in self._asked.items() if wanted.get(name) != asked]:
            del self._asked[venue]
            await self._fleet.end(venue)
        for venue, (settings, channels) in wanted.items():
            if venue not in self._asked:
                self._asked[venue] = settings, channels
                self._start(venue, settings, channels, config)

    def _start(self, venue: str, settings: VenueSettings, channels: tuple[Channel, ...], config: Config) -> None:
        try:
            past = among(VENUES[venue].build(channels, settings, USER_AGENT))
        except ValueError as error:  # the node that leads has it differently
            _log.warning("past candles of %s cannot be asked for here: %s", venue, error)
            return
        if past is not None:
            self._fleet.start(venue, [past], config.supervisor)
