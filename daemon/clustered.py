"""The daemon as one node of a cluster: clients are served from a replica, and data is taken in while this node leads.

Both halves are those of a daemon that is alone (`daemon.composition.serving` or `daemon.workers`, and
`daemon.composition.ingesting`). Between them is the engine (`daemon.publish.cluster`).
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
from daemon.composition.own_past import OwnPast
from daemon.composition.reloading import Crews, Reloading
from daemon.composition.serving import Log, Remarks, Serving
from daemon.composition.warm import Warm
from daemon.config.load import Config
from daemon.fanout.joining import PATIENCE_S
from daemon.front.guarded import Mark
from daemon.health.board import Board
from daemon.health.status_line import publish_status
from daemon.host.clock import WallClock
from daemon.host.garbage import Garbage
from daemon.host.systemd import Notifier
from daemon.publish.bus import Bus
from daemon.publish.cluster.address import parse
from daemon.publish.cluster.engine import Engine
from daemon.publish.cluster.node import Ingest, Node
from daemon.publish.cluster.peers import NOT_YET, Peers
from daemon.publish.cluster.reader import Reader
from daemon.publish.cluster.settings import Keys
from daemon.publish.parts import Beginning, listed
from daemon.publish.replica import Replica
from daemon.sessions.canary import Canary, beside
from daemon.tape import copying
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from daemon.workers.workers import Workers
from protocol.answers import ClusterReport
from protocol.channels import Catalogue
from protocol.messages import ServerInfo

_HAND_OVER = 0.5
"""The part of the grace period in which the node stops leading; the rest is for its clients."""

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
        server: the half that serves clients: in this process, or in workers.
    """

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
        self.reader.passes = config.hub
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
            clients=lambda: self.server.clients,
            tell=lambda why: self.server.say_cut_off(why),
        )
        self.ingesting: Ingesting | None = None
        self.own_past = OwnPast(lambda: self.config, lambda: self.replica.board.catalogue, self.clock)
        self._warm: Warm | None = None
        self._hurry: Callable[[], None] = _nothing
        self._reloading = Reloading(config, reread, self._apply, clock=self.clock, notifier=self.notifier)
        log = Log(self.replica.tape, self.replica.board, self.replica.ledger, self.clock, self.replica.bus)
        info = ServerInfo("tickerd", version, settings.node_name)
        remarks = Remarks(
            unstored=str,
            unrecorded=str,
            not_reloaded=lambda: self.peers.remark or self._reloading.told.trouble,
        )
        self.server: Serving | Workers
        self.processes = config.server.worker_count if settings.serves else 1
        if self.processes > 1:
            self.server = workers = Workers(
                config,
                log,
                info,
                broadcast=self.peers.broadcast_test,
                past=self._past,
                remarks=remarks,
                guarded=guarded,
                send_canary=_as_if_sent,
                cluster=self._report,
                is_shared=True,
            )
            self.peers.workers = workers.reports
            self.reader.held_s = workers.held_s
        else:
            self.server = Serving(
                self._for_serving(config),
                log,
                info,
                broadcast=self.peers.broadcast_test,
                past=self._past,
                remarks=remarks,
                guarded=guarded,
                cluster=self._report,
            )
            self.server.sessions.joining.patience_s = PATIENCE_S
        self.server.metrics.include(
            lambda samples: self.replica.board.measure(samples, self.clock.now_ms()),
            self._measure_ingesting,
            self.replica.tape.measure,
            self.server.measure,
            lambda samples: self.replica.ledger.measure(samples, self.clock.now_ms()),
            self._reloading.told.measure,
            self.peers.measure,
        )
        # Before the engine has answered nobody knows how the channels are.
        self.server.say_cut_off(NOT_YET)

    def _for_serving(self, config: Config) -> Config:
        """To a node that takes data in only no clients may come; it answers plain requests."""
        if config.cluster.serves:
            return config
        return msgspec.structs.replace(config, limits=msgspec.structs.replace(config.limits, clients=0))

    async def start(
        self, root: trio.Nursery, listeners: list[trio.SocketListener], *others: list[trio.SocketListener]
    ) -> None:
        """Start everything in the root nursery; returns when clients are let in.

        `listeners` are those of the process that serves clients, or of all workers; with `others`, of the first worker,
        and `others` of each further one.
        """
        await root.start(self.node.run)
        await root.start(self.peers.run)
        await root.start(self.own_past.run)
        with trio.move_on_after(_TAPE_WITHIN_S):
            await self.reader.whole.wait()
        server = self.server
        if isinstance(server, Workers):
            await server.start(root, [listeners, *others])
        else:
            await server.start(root, listeners)
        server.warn_if_exposed()
        await self._remember()
        if self.config.cluster.ingests and self.config.cluster.standby == "warm":
            root.start_soon(self._stand_by)
        root.start_soon(self._reloading.run)
        await root.start(
            publish_status,
            self.notifier,
            lambda: server.clients,
            self.replica.board.states,
            lambda: "; ".join(filter(None, [self._reloading.told.words, self.peers.remark, self.peers.state])),
        )
        if isinstance(server, Workers):
            self._hurry = server.hurry
            await root.start(server.watch, self.notifier)
        elif self.notifier.watchdog_s is not None:
            canary = Canary(self._send_canary, server.hub, server.front_door, listeners)
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
            self.server.stop_accepting()
            self._reloading.stop()
            with trio.move_on_after(grace_s * _HAND_OVER):
                await self.node.stop()
            await self.server.say_goodbye("the node is stopping", grace_s * (1 - _HAND_OVER))
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
        return self.own_past.of(venue) if self.ingesting is None else self.ingesting.past(venue)

    def _measure_ingesting(self, samples: Samples) -> None:
        if self.ingesting is None:
            self.own_past.measure(samples)
        else:
            self.ingesting.measure(samples)

    async def _send_canary(self, payload: bytes) -> None:
        """To the hub as an entry comes there, and not onto the tape, which is everybody's."""
        self.serving.hub.follow(beside(self.replica.tape, payload))

    @property
    def serving(self) -> Serving:
        """The half that serves clients, where this process has it: there are no workers."""
        if isinstance(self.server, Workers):
            raise AssertionError("clients are served by workers")
        return self.server

    # ---- following ---------------------------------------------------------------------------------------------------

    async def _dismiss(self, why: str) -> None:
        await self.server.dismiss(why)

    def _adopted(self, catalogue: Catalogue) -> None:
        self.own_past.changed()
        if isinstance(self.server, Serving):  # workers see to that themselves
            self.server.sessions.change(self.server.sessions.limits)

    def _report(self, _: object) -> ClusterReport:
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
        await trio.to_thread.run_sync(partial(self._mark.keep, guarded=self.server.guarded))

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
        self.reader.passes = config.hub
        self.server.adopt(self._for_serving(config), tls)
        self.own_past.changed()
        logging.getLogger().setLevel(config.log.level.upper())
        self.server.warn_if_exposed()


def _nothing_yet(catalogue: Catalogue, clock: WallClock) -> Beginning:
    """What a node has before it has read the tape: the channels of its own configuration."""
    states = dict(Board(catalogue, clock.now_ms()).states())
    return Beginning(copying.origin(Tape(1, 1)), listed(catalogue), states, [])


async def _as_if_sent(_: bytes, sent: Callable[[], None]) -> None:
    """The workers make the canaries: nothing comes onto a tape that is everybody's."""
    await trio.lowlevel.checkpoint()
    sent()


def _nothing() -> None:
    """There is no watchdog to feed."""
