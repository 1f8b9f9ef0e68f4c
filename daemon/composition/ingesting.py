"""The half of the daemon that takes data in: connectors, the sequencer that makes the tape, the watch over health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from typing import Final

import trio

from connectors.base import Connector
from connectors.metric import Samples
from connectors.poll.listing import InstrumentCheck
from connectors.poll.past_candles import PastCandles, among
from connectors.venues.registry import VENUES
from daemon.composition.serving import Log
from daemon.config.load import Config, ConfigError
from daemon.health.pauses import Pauses
from daemon.health.watch import Watch
from daemon.host.clock import WallClock
from daemon.ingest.fleet import Fleet
from daemon.ingest.inbox import Item, Turn
from daemon.publish.recording import Recording
from daemon.publish.sequencer import Sequencer
from daemon.replay.player import Player
from daemon.tape.entry import CANARY

USER_AGENT: Final = f"tickerd/{metadata.version('tickerd')}"
"""The user agent that venues see."""


class Connections:
    """The connectors, and the memory channel into which they send, built but not yet running.

    Attributes:
        inbox: where they send.
        outbox: where it is taken.
        fleet: those that run.
    """

    def __init__(self, config: Config, clock: WallClock, *, called: bool = True) -> None:
        """Build them; none if no venue is to be `called`.

        Raises:
            ConfigError: a venue cannot use one of its channels.
        """
        self.inbox, self.outbox = trio.open_memory_channel[Item](config.hub.inbox_batches)
        self.fleet = Fleet(self.inbox, clock)
        self._config = config
        self._crews = {venue: connectors(venue, config) for venue in VENUES if called}
        self._pushing = {channel.exchange for channel in config.channels if channel.cadence_s is None}
        self._runs = False

    async def start(
        self,
        nursery: trio.Nursery,
        *,
        pushed_only: bool = False,
        record: Callable[[str, Sequence[Connector], Config], None] = lambda *_: None,
    ) -> None:
        """Start all that do not run yet; `pushed_only`: not those of venues that are only polled.

        `record` is called with each venue's before they start.
        """
        if not self._runs:
            self._runs = True
            await nursery.start(self.fleet.run)
        for venue in [name for name in self._crews if not pushed_only or name in self._pushing]:
            crew = self._crews.pop(venue)
            record(venue, crew, self._config)
            self.fleet.start(venue, crew, self._config.supervisor)


class Ingesting:
    """Connectors, sequencer and watch, built but not yet running.

    Attributes:
        recording: has what the venues send recorded; None where that is not wanted.
        inbox: leads to the sequencer, in order with what the connectors send.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        *,
        hurry: Callable[[], None],
        player: Player | None = None,
        connections: Connections | None = None,
    ) -> None:
        """Build it.

        `hurry` is called when the process has stood still, and systemd may have been waiting. With a `player` no venue
        is called, and its recording is played. `connections`: those that run already, where a node stood by.

        Raises:
            ConfigError: a venue cannot use one of its channels.
        """
        self.config = config
        self._log = log
        self.sequencer = Sequencer(log.tape, log.board, log.ledger, log.clock, log.bus, config.hub)
        made = connections or Connections(config, log.clock, called=player is None)
        self._connections = made
        self.inbox, self.fleet = self._connections.inbox, self._connections.fleet
        self._ended = trio.Event()
        self.watch = Watch(
            board=log.board,
            newest=log.tape.payload,
            publish=self.sequencer.publish,
            tolerances=config.crosscheck,
            unreadable=self.fleet.unreadable,
            note_unreadable=self._note_unreadable,
        )
        self.pauses = Pauses(
            log.ledger,
            log.clock,
            anew=self.fleet.anew,
            aged=self.watch.aged,
            set_back=self._clock_was_set_back,
            hurry=hurry,
        )
        self._player = player
        self.recording = self._recording() if config.record.path else None

    async def start(self, root: trio.Nursery) -> None:
        """Start the sequencer and the watch in the root nursery. Connectors start by `start_connectors`."""
        await root.start(self._sequence)
        if self._player is None:
            await root.start(self.watch.run)
            await root.start(self.pauses.run)

    async def start_connectors(self, root: trio.Nursery) -> None:
        """Start the connectors, when what they send can be served."""
        if self._player is not None:
            await root.start(self._player.run, self.sequencer, self.watch, self._log.board, self._log.ledger)
        if self.recording is not None:
            await root.start(self.recording.run)
        await self._connections.start(root, record=self._record)

    async def reload(self, config: Config, crews: dict[str, list[Connector]], adopted: Callable[[], None]) -> None:
        """Bring a new configuration into force: end the venues that change, and start them anew.

        `adopted` is called in order with the messages, when the channels are the new ones.
        """
        for venue in crews:
            await self.fleet.end(venue)
        done = trio.Event()

        def bring_into_force() -> None:
            if config.crosscheck != self.config.crosscheck:
                self.watch.compare(config.crosscheck)
            if config.channels != self.config.channels:
                self.sequencer.adopt(config.catalogue())
            self.config = config
            self.sequencer.passes = config.hub
            adopted()
            done.set()

        # In order with the events: those of the connectors that have just ended are published first.
        await self.inbox.send(Turn(bring_into_force))
        await done.wait()
        for venue, crew in crews.items():
            self._record(venue, crew, config)
            self.fleet.start(venue, crew, config.supervisor, why="the configuration was changed")

    async def send_canary(self, payload: bytes) -> None:
        """Send a canary's message by the way of every message, in order with what the connectors send."""
        await self.inbox.send(Turn(partial(self.sequencer.tell, CANARY, payload)))

    def past(self, venue: str) -> PastCandles | None:
        """Who asks that venue for past candles; None if nobody does."""
        return among(self.fleet.of(venue))

    async def finish(self) -> None:
        """End the connectors, and wait until all that they sent is on the tape."""
        self.stop()
        await self._ended.wait()

    async def _sequence(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self.sequencer.run(self._connections.outbox, task_status=task_status)
        finally:
            self._ended.set()

    def stop(self) -> None:
        """Begin to end the connectors; nothing can be started afterwards."""
        self.fleet.stop()

    def measure(self, samples: Samples) -> None:
        """Add the numbers of all of its components."""
        self.fleet.measure(samples)
        self.sequencer.measure(samples)
        self.watch.measure(samples)
        if self.recording is not None:
            self.recording.recorder.measure(samples)

    def unrecorded(self) -> str:
        """Why what the venues send is not recorded, although it should be; else ""."""
        return "" if self.recording is None else self.recording.trouble

    def _recording(self) -> Recording:
        return Recording(
            self.config.record,
            board=self._log.board,
            ledger=self._log.ledger,
            clock=self._log.clock,
            publish=self.sequencer.publish,
            daemon=metadata.version("tickerd"),
        )

    def _record(self, venue: str, crew: Sequence[Connector], config: Config) -> None:
        """Have what these connectors of a venue receive recorded, where that is wanted."""
        if self.recording is not None:
            # What the daemon itself makes of them belongs to them all.
            channels = [channel for channel in config.channels if channel.exchange == venue or channel.kind.made_of]
            self.recording.record(venue, crew, channels, config.connectors.of(VENUES[venue]))

    def _note_unreadable(self, connector: str, count: int) -> None:
        reason = f"{connector} sent frames that are not what it documents; they were left out"
        self._log.ledger.note("unreadable", "", self._log.clock.now_ms(), count=count, reason=reason)

    def _clock_was_set_back(self, by_ms: int) -> None:
        self._log.ledger.clock_was_set_back(by_ms)
        self._log.board.clock_was_set_back(by_ms)
        self.watch.distrust(self._log.tape.head)


def connectors(name: str, config: Config) -> list[Connector]:
    """What serves a venue's configured channels, and what checks their instruments; none if it has no channel.

    Raises:
        ConfigError: the venue cannot use one of them.
    """
    venue, settings = VENUES[name], config.connectors.of(VENUES[name])
    channels = [channel for channel in config.channels if channel.exchange == name]
    check = venue.check(channels, settings, USER_AGENT) if config.check_instruments else None
    try:
        made = venue.build(channels, settings, USER_AGENT)
    except ValueError as error:
        raise ConfigError((f"connectors.{name}: {error}",)) from None
    return [*made, *([] if check is None else [check])]


def checks(config: Config) -> dict[str, InstrumentCheck | None]:
    """By the title of each venue whose channels have instruments: what asks its list, if it has one to ask."""
    found: dict[str, InstrumentCheck | None] = {}
    for name, venue in VENUES.items():
        channels = [channel for channel in config.channels if channel.exchange == name and channel.instruments]
        if channels and not venue.is_derived:
            found[venue.title] = venue.check(channels, config.connectors.of(venue), USER_AGENT)
    return found
