"""The half of the daemon that serves clients: from a tape to their sockets, and from their requests to answers.

It stands on a tape, a board and a ledger, and does not know who makes them: the sequencer of this process, or a replica
of another one's (`daemon.publish.replica`).
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
import trio

from connectors.metric import Samples
from daemon.config.load import ServingConfig
from daemon.fanout.hub import Hub
from daemon.front import access, certificate
from daemon.front.address_counts import AddressCounts
from daemon.front.admission import Admission
from daemon.front.front_door import FrontDoor
from daemon.front.limits import FILES_BESIDE_CLIENTS
from daemon.front.listening import raise_descriptor_limit
from daemon.front.request import Later, Request
from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.publish.bus import Bus
from daemon.routes.history import Histories, PastView
from daemon.routes.metrics import Metrics
from daemon.routes.routes import PlainRoutes
from daemon.sessions.cut_off import CutOff
from daemon.sessions.event_stream import EventStreams
from daemon.sessions.sessions import Sessions
from daemon.sessions.websocket import WebSockets
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from protocol.answers import ClusterReport, NodeReport, WorkerReport
from protocol.messages import ReplayInfo, ServerInfo

_RETRY_SPREAD_S: Final = 10.0
"""The longest time over which clients are asked to spread their return, after a planned stop or where a tape begins."""

_LAST_ANSWERS_S: Final = 1.0
"""How long a stop waits, after the goodbyes, for the first requests of connections that came just before it."""

_log: Final = logging.getLogger(__name__)


class Log(msgspec.Struct, frozen=True):
    """What clients are served from.

    Attributes:
        tape: the messages.
        board: the states of the channels, and which channels there are.
        ledger: what was late or is missing.
        clock: the wall clock.
        bus: hands over what is new on the tape.
    """

    tape: Tape
    board: Board
    ledger: Ledger
    clock: WallClock
    bus: Bus


class Remarks(msgspec.Struct, frozen=True):
    """What there is to say in `/readyz` of what clients do not notice; "" where there is nothing.

    Attributes:
        unstored: why what is sent is not stored.
        unrecorded: why what the venues send is not recorded.
        not_reloaded: that the last reload failed.
        unreached: that no exchange can be reached, and why.
    """

    unstored: Callable[[], str]
    unrecorded: Callable[[], str]
    not_reloaded: Callable[[], str]
    unreached: Callable[[], str] = lambda: ""


class Serving:
    """Fan-out, sessions, routes and front door, built but not yet running."""

    def __init__(
        self,
        config: ServingConfig,
        log: Log,
        server: ServerInfo,
        *,
        broadcast: Callable[[str], None],
        past: Callable[[str], PastView | None],
        remarks: Remarks,
        guarded: bool,
        tls: ssl.SSLContext | None = None,
        replay: ReplayInfo | None = None,
        metrics: Callable[[Request], Later] | None = None,
        cluster: Callable[[Serving], ClusterReport | Later] | None = None,
        connections: AddressCounts | None = None,
        clients: AddressCounts | None = None,
    ) -> None:
        """Build it.

        Args:
            config: the configuration.
            log: what clients are served from.
            server: who we are, as clients are told it.
            broadcast: sends a `test` message to every client.
            past: who asks a venue, by its name, for past candles; None if nobody does.
            remarks: what there is to say in `/readyz`.
            guarded: whether a token was needed before a restart.
            tls: TLS of the certificate, where another process has read it.
            replay: what is played, if a recording is.
            metrics: answers `GET /metrics`; None if this process knows all figures.
            cluster: which processes and nodes there are; None if this is the only one.
            connections: where connections are counted together with those of other processes, if there are some.
            clients: the same for clients.
        """
        self.config = config
        self.log = log
        self.server = server
        self.started = log.clock.timestamp()
        self.hub = Hub(log.tape, log.ledger, log.clock)
        log.bus.add(self.hub)
        self.metrics = Metrics(server.version)
        self._cluster = alone if cluster is None else cluster
        admission = Admission(config.policy(guarded=guarded), connections, clients)
        self.sessions = Sessions(
            tape=log.tape,
            hub=self.hub,
            board=log.board,
            ledger=log.ledger,
            clock=log.clock,
            limits=config.limits,
            server=server,
            simulated=config.simulated,
            replay=replay,
        )
        self.cut_off = CutOff(log.board, self.sessions, log.clock)
        routes = PlainRoutes(
            server=server,
            catalogue=lambda: log.board.catalogue,
            tape=log.tape,
            clients=self._clients_of_all if clients is None else (lambda: clients.total),
            broadcast=broadcast,
            admit_test=admission.rates.test,
            board=log.board,
            ledger=log.ledger,
            accepting=lambda: admission.accepting,
            clock=log.clock,
            needs_token=lambda: admission.policy.tokens is not None,
            unstored=remarks.unstored,
            unrecorded=remarks.unrecorded,
            not_reloaded=remarks.not_reloaded,
            cut_off=lambda: self.cut_off.why,
            unreached=remarks.unreached,
            metrics=self.metrics.answer if metrics is None else metrics,
            cluster=self.cluster,
            histories=Histories(log.tape, log.clock, past),
        )
        self.front_door = FrontDoor(
            admission=admission,
            tls=certificate.tls_context(config.server) if tls is None else tls,
            routes=routes,
            upgrade=WebSockets(self.sessions).serve,
            clock=log.clock,
            events=EventStreams(self.sessions),
        )
        self._hosts: list[str] = []

    def cluster(self) -> ClusterReport | Later:
        """Which processes and nodes there are; or what has to be waited for, to know."""
        return self._cluster(self)

    def _clients_of_all(self) -> int:
        report = self.cluster()
        return report.clients if isinstance(report, ClusterReport) else self.clients

    @property
    def clients(self) -> int:
        """How many clients this process has."""
        return self.hub.statistics().subscribers

    @property
    def guarded(self) -> bool:
        """Whether a token is needed."""
        return self.front_door.admission.policy.tokens is not None

    async def start(self, root: trio.Nursery, listeners: list[trio.SocketListener]) -> None:
        """Start everything in the root nursery; returns when clients are let in."""
        await root.start(self.hub.run)
        await root.start(self.sessions.run)
        await root.start(self.cut_off.run)
        await root.start(self.front_door.run, listeners)
        self._hosts = hosts(listeners)

    def measure(self, samples: Samples) -> None:
        """Add the numbers of all of its components."""
        self.hub.measure(samples)
        self.sessions.counts.measure(samples)
        self.front_door.measure(samples)

    def warn_if_exposed(self) -> None:
        """Log what an operator should know of who can come in."""
        warn_if_exposed(self._hosts, self.config, self.front_door.admission.policy.tokens, self.front_door.tls)

    def adopt(self, config: ServingConfig, tls: ssl.SSLContext | None) -> None:
        """Bring a new configuration into force, when the board has its catalogue. Clients that may stay do."""
        self.config = config
        policy = self.front_door.admission.policy = config.policy(guarded=self.guarded)
        self.front_door.tls = tls
        self.sessions.change(config.limits)
        self.sessions.simulated = config.simulated
        self.sessions.revoke(partial(access.ending, policy.tokens))
        raise_descriptor_limit(config.limits.clients + FILES_BESIDE_CLIENTS)

    def say_cut_off(self, why: str) -> None:
        """Nobody tells this process how the channels are, or somebody does again (""): clients are told."""
        self.cut_off.say(why)

    async def dismiss(self, reason: str) -> None:
        """Send all clients away, because another tape begins; as `Sessions.dismiss`."""
        await self.sessions.dismiss(reason, _RETRY_SPREAD_S)

    def stop_accepting(self) -> None:
        """Let nobody in any more."""
        self.front_door.stop_accepting()

    async def say_goodbye(self, reason: str, grace_s: float, clients: int | None = None) -> None:
        """Send the rest of the tape, then `goodbye` and 1001; and answer the last requests. Takes `grace_s` about.

        `clients`: how many will come back, where there are others beside those of this process.
        """
        await self.sessions.say_goodbye(reason, grace_s * 0.9, _RETRY_SPREAD_S, clients)
        with trio.move_on_after(_LAST_ANSWERS_S):
            await self.front_door.wait_answered()


def alone(serving: Serving) -> ClusterReport:
    """What a daemon that is one process says of itself."""
    return of_one_node(serving.server, serving.log, serving.started, serving.clients)


def of_one_node(
    server: ServerInfo, log: Log, started: str, clients: int, workers: tuple[WorkerReport, ...] = ()
) -> ClusterReport:
    """What a daemon says of itself that is the only one; with its workers, if it has some."""
    name = server.node or socket.gethostname()
    own = NodeReport(
        node=name,
        role="both",
        leads=True,
        seq=log.tape.head,
        lag=0,
        clients=clients,
        since=started,
        workers=workers,
    )
    return ClusterReport(
        timestamp=log.clock.timestamp(),
        node=name,
        epoch=log.tape.epoch,
        seq=log.tape.head,
        leader=name,
        clients=clients,
        nodes=(own,),
    )


def hosts(listeners: list[trio.SocketListener]) -> list[str]:
    """The addresses that these listen on."""
    return [listener.socket.getsockname()[0] for listener in listeners]


def warn_if_exposed(hosts: list[str], config: ServingConfig, tokens: access.Tokens, tls: ssl.SSLContext | None) -> None:
    """Log what an operator should know of who can come in where the daemon listens on these addresses."""
    encrypted = bool(config.server.certificate or config.server.trusted_proxies)
    for warning in access.exposure(hosts, tokens=tokens is not None, encrypted=encrypted):
        _log.warning("%s", warning)
    if tokens is not None and not tokens:
        _log.warning("%s", access.CLOSED)
    for warning in certificate.warnings(tls, config.server):
        _log.warning("%s", warning)
