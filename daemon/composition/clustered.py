"""The daemon as one node of a cluster: clients are served from a replica, and data is taken in while this node leads.

Both halves are those of a daemon that is one process (`daemon.composition.serving`, `daemon.composition.ingesting`).
Between them is the engine (`daemon.publish.cluster`).
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata

import msgspec
import trio

from connectors.metric import Samples
from connectors.poll.past_candles import PastCandles
from daemon.composition.ingesting import Ingesting
from daemon.composition.reloading import Crews, Reloading
from daemon.composition.serving import Log, Remarks, Serving
from daemon.composition.warm import Warm
from daemon.config.load import Config
from daemon.front.guarded import Mark
from daemon.health.board import Board, ChannelState, status
from daemon.health.status_line import publish_status
from daemon.host.clock import WallClock
from daemon.host.garbage import Garbage
from daemon.host.systemd import Notifier
from daemon.publish.bus import Appended, Bus
from daemon.publish.cluster.address import parse
from daemon.publish.cluster.engine import Engine
from daemon.publish.cluster.node import Ingest, Node
from daemon.publish.cluster.peers import NOT_YET, Peers
from daemon.publish.cluster.reader import Reader
from daemon.publish.cluster.settings import Keys
from daemon.publish.parts import Beginning, listed
from daemon.publish.replica import Replica
from daemon.sessions.canary import Canary
from daemon.tape import copying
from daemon.tape.entry import CANARY, STATUS, Entry
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from protocol.answers import ClusterReport
from protocol.channels import Catalogue
from protocol.messages import ServerInfo

_RETURN_SPREAD_S = 10.0
"""The longest time over which clients are asked to spread their return, when the replica begins anew."""

_HAND_OVER = 0.5
"""The part of the grace period in which the node stops leading; the rest is for its clients."""

_TOLD_AT_ONCE = 100
"""So many clients are told at once how the channels are."""

_PATIENCE_S = 2.0
"""A client that hops between nodes may be ahead of this one by a moment: so long it is kept waiting for the rest."""

_TAPE_WITHIN_S = 5.0
"""Clients are let in when the tape is there; if that takes longer, without it, and are told why."""

_log = logging.getLogger(__name__)


class _Taking:
    """The half that takes data in, as the node sees it."""

    def __init__(self, ingesting: Ingesting) -> None:
        self._ingesting = ingesting

    def broadcast(self, message: str) -> None:
        """Send a `test` message to every client."""
        self._ingesting.sequencer.broadcast_test(message)

    async def finish(self) -> None:
        """End the connectors, and wait until all that they sent is on the tape."""
        await self._ingesting.finish()


class ClusterDaemon:
    """All components of one node, built but not yet running.

    Attributes:
        processes: how many serve clients.
    """

    processes = 1

    def __init__(
        self,
        config: Config,
        reread: Callable[[], Config] | None = None,
        mark: Mark | None = None,
        *,
        guarded: bool = False,
    ) -> None:
        """Build it. `mark` remembers over a restart whether a token is needed; `guarded`: whether one was."""
        self.config = config
        self._mark = Mark("") if mark is None else mark
        self.clock = WallClock()
        self.notifier = Notifier.from_environment(os.environ)
        settings, version = config.cluster, metadata.version("tickerd")
        self.replica = Replica(
            _nothing_yet(config.catalogue(), self.clock),
            config.tape.entries,
            config.tape.bytes,
            self.clock,
            adopted=self._adopted,
        )
        self.engine = Engine(
            parse(settings.url),
            Keys(settings.name),
            password=settings.password,
            ca=settings.ca,
            replicas=settings.wait_replicas,
        )
        self.reader = Reader(self.engine, self.replica, self.clock, self._dismiss, settings.stream_bytes)
        self.node = Node(
            settings,
            self.engine,
            self.reader,
            self.clock,
            catalogue=lambda: self.config.catalogue(),
            lead=self._lead,
        )
        self.peers = Peers(
            self.node,
            self.engine,
            self.reader,
            self.clock,
            version=version,
            clients=lambda: self.serving.hub.statistics().subscribers,
            tell=self._cut_off,
        )
        self.ingesting: Ingesting | None = None
        self._warm: Warm | None = None
        self._hurry: Callable[[], None] = _nothing
        self._reloading = Reloading(config, reread, self._apply, clock=self.clock, notifier=self.notifier)
        self._why = ""
        self._states: dict[str, ChannelState] = {}
        self._other_states = trio.Event()
        log = Log(self.replica.tape, self.replica.board, self.replica.ledger, self.clock, self.replica.bus)
        self.serving = Serving(
            self._for_serving(config),
            log,
            ServerInfo("tickerd", version, settings.node_name),
            broadcast=self.peers.broadcast_test,
            past=self._past,
            remarks=Remarks(
                unstored=str,
                unrecorded=str,
                not_reloaded=lambda: self.peers.remark or self._reloading.told.trouble,
                cut_off=lambda: self._why,
            ),
            guarded=guarded,
            cluster=self._report,
        )
        self.serving.sessions.joining.patience_s = _PATIENCE_S
        self.serving.metrics.include(
            lambda samples: self.replica.board.measure(samples, self.clock.now_ms()),
            self._measure_ingesting,
            self.replica.tape.measure,
            self.serving.measure,
            lambda samples: self.replica.ledger.measure(samples, self.clock.now_ms()),
            self._reloading.told.measure,
            self.peers.measure,
        )
        # Before the engine has answered nobody knows how the channels are.
        self._cut_off(NOT_YET)

    def _for_serving(self, config: Config) -> Config:
        """To a node that takes data in only no clients may come; it answers plain requests."""
        if config.cluster.serves:
            return config
        return msgspec.structs.replace(config, limits=msgspec.structs.replace(config.limits, clients=0))

    async def start(
        self, root: trio.Nursery, listeners: list[trio.SocketListener], *others: list[trio.SocketListener]
    ) -> None:
        """Start everything in the root nursery; returns when clients are let in. There are no `others`."""
        await root.start(self.node.run)
        await root.start(self.peers.run)
        with trio.move_on_after(_TAPE_WITHIN_S):
            await self.reader.whole.wait()
        await self.serving.start(root, listeners)
        self.serving.warn_if_exposed()
        await self._remember()
        if self.config.cluster.ingests and self.config.cluster.standby == "warm":
            root.start_soon(self._stand_by)
        root.start_soon(self._tell_states)
        root.start_soon(self._reloading.run)
        hub = self.serving.hub
        await root.start(
            publish_status,
            self.notifier,
            lambda: hub.statistics().subscribers,
            self.replica.board.states,
            lambda: "; ".join(filter(None, [self._reloading.told.words, self.peers.remark, self.peers.state])),
        )
        if self.notifier.watchdog_s is not None:
            canary = Canary(self._send_canary, hub, self.serving.front_door, listeners)
            self._hurry = canary.hurry
            await root.start(canary.run, self.notifier, self.notifier.watchdog_s)
        await root.start(Garbage().run)

    async def stop(self, root: trio.CancelScope) -> None:
        """Stop in order, within the grace period, and then end everything.

        First let no new clients in, then stop leading, so that another node leads at once; then say goodbye.
        """
        self.notifier.stopping()
        grace_s = self.config.limits.grace_s
        with trio.move_on_after(grace_s):
            self.serving.stop_accepting()
            self._reloading.stop()
            with trio.move_on_after(grace_s * _HAND_OVER):
                await self.node.stop()
            await self.serving.say_goodbye("the node is stopping", grace_s * (1 - _HAND_OVER))
        root.cancel(reason="the daemon has stopped")

    # ---- leading -----------------------------------------------------------------------------------------------------

    async def _stand_by(self) -> None:
        """Have connections to the venues before this node leads, and while it does."""
        while True:
            self._warm = Warm(self.config, self.clock)
            await self._warm.run()

    @asynccontextmanager
    async def _lead(self, tape: Tape, board: Board, ledger: Ledger, bus: Bus) -> AsyncIterator[Ingest]:
        warm, log = self._warm, Log(tape, board, ledger, self.clock, bus)
        connections = None if warm is None else warm.connections
        ingesting = Ingesting(self.config, log, hurry=lambda: self._hurry(), connections=connections)
        if list(board.catalogue) != list(self.config.catalogue()):
            ingesting.sequencer.adopt(self.config.catalogue())
        if warm is not None:
            warm.draining.cancel(reason="this node takes over")
            await warm.drained.wait()
            ingesting.sequencer.publish(warm.remembered.rest(tape))
        try:
            async with trio.open_nursery() as nursery:
                await ingesting.start(nursery)
                self.ingesting = ingesting
                await ingesting.start_connectors(nursery)
                try:
                    yield _Taking(ingesting)
                finally:
                    self.ingesting = None
                    nursery.cancel_scope.cancel(reason="this node leads no more")
        finally:
            if warm is not None:
                warm.over.set()

    def _past(self, venue: str) -> PastCandles | None:
        return None if self.ingesting is None else self.ingesting.past(venue)

    def _measure_ingesting(self, samples: Samples) -> None:
        if self.ingesting is not None:
            self.ingesting.measure(samples)

    async def _send_canary(self, payload: bytes) -> None:
        """To the hub as an entry comes there, and not onto the tape, which is everybody's."""
        tape = self.replica.tape
        self.serving.hub.follow(Appended(tape.head, [Entry.of(tape.head, 0, CANARY, payload, tape.epoch)], [0]))

    # ---- following ---------------------------------------------------------------------------------------------------

    async def _dismiss(self, why: str) -> None:
        await self.serving.sessions.dismiss(why, _RETURN_SPREAD_S)

    def _adopted(self, catalogue: Catalogue) -> None:
        self.serving.sessions.change(self.serving.sessions.limits)

    def _cut_off(self, why: str) -> None:
        """This node does not hear how the channels are, or does again: tell the clients, beside the tape."""
        board = self.replica.board
        if not self._why:
            self._states = dict(board.states())
        self._why = why
        board.cut_off(why, self.clock.now_ms())
        self._other_states.set()

    async def _tell_states(self) -> None:
        """Tell each client how its channels are, when that has changed without a message on the tape."""
        board, sessions = self.replica.board, self.serving.sessions
        while True:
            await self._other_states.wait()
            self._other_states = trio.Event()
            told, self._states = self._states, dict(board.states())
            timestamp = self.clock.timestamp()
            statuses = [
                ((name, STATUS), status(name, state, self.clock, timestamp))
                for name, state in self._states.items()
                if (before := told.get(name)) is None or (before.state, before.reason) != (state.state, state.reason)
            ]
            for count, client in enumerate(sessions):
                for topic, message in statuses:
                    if client.subscriber.takes(topic):
                        client.subscriber.say(message)
                if count % _TOLD_AT_ONCE == _TOLD_AT_ONCE - 1:
                    await trio.lowlevel.checkpoint()

    def _report(self, serving: Serving) -> ClusterReport:
        node, peers = self.node, self.peers
        return ClusterReport(
            timestamp=self.clock.timestamp(),
            node=node.name,
            leader=node.name if node.leads else peers.leader,
            epoch=self.replica.tape.epoch,
            seq=self.replica.tape.head,
            clients=peers.clients(),
            engine=peers.engine(),
            nodes=peers.nodes(),
        )

    # ---- reloading ---------------------------------------------------------------------------------------------------

    @property
    def reloads(self) -> bool:
        """Whether the configuration can be read again."""
        return bool(self._reloading)

    def ask_to_reload(self) -> None:
        """Read the configuration again soon."""
        self._reloading.ask()

    async def _remember(self) -> None:
        await trio.to_thread.run_sync(partial(self._mark.keep, guarded=self.serving.guarded))

    async def _apply(self, config: Config, tls: ssl.SSLContext | None, crews: Crews) -> None:
        into_force = partial(self._bring_into_force, config, tls)
        if self.ingesting is not None:
            await self.ingesting.reload(config, crews, into_force)
        else:
            into_force()
            if self._warm is not None and crews:
                self._warm.draining.cancel(reason="the configuration was read again")
                self._warm.over.set()
        await self._remember()

    def _bring_into_force(self, config: Config, tls: ssl.SSLContext | None) -> None:
        self.config = config
        self.serving.adopt(self._for_serving(config), tls)
        logging.getLogger().setLevel(config.log.level.upper())
        self.serving.warn_if_exposed()


def _nothing_yet(catalogue: Catalogue, clock: WallClock) -> Beginning:
    """What a node has before it has read the tape: the channels of its own configuration."""
    states = dict(Board(catalogue, clock.now_ms()).states())
    return Beginning(copying.origin(Tape(1, 1)), listed(catalogue), states, [])


def _nothing() -> None:
    """There is no watchdog to feed."""
