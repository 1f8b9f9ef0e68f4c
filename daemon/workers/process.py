"""A worker: a process that follows the parent's tape and serves clients from it.

It is started by `daemon.workers.spawn`, and has nothing but what it inherits (the link to the parent, listening
sockets, the memory in which clients are counted) and what comes over the link: first who it is and the configuration,
then the tape, then whatever is new. Clients are let in when it has the whole tape. It ends when the link does.

What comes is taken in passes, as the sequencer makes them (`inlet.py`).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Final, assert_never

import trio

from connectors.metric import Samples
from daemon.composition.serving import Log, Remarks, Serving
from daemon.config.load import ServingConfig
from daemon.fanout.joining import PATIENCE_S
from daemon.front import certificate
from daemon.front.admission import unavailable
from daemon.front.certificate import Pair
from daemon.front.front_door import FrontDoor
from daemon.front.request import Request
from daemon.front.shared_counts import CountsMemory, SharedCounts
from daemon.health.pauses import Pauses
from daemon.host import logs
from daemon.host.clock import WallClock
from daemon.host.garbage import Garbage
from daemon.host.loop_clock import LoopClock
from daemon.publish.parts import Part, decode_part
from daemon.publish.replica import Replica
from daemon.routes.metrics import measure_process, prefers_openmetrics
from daemon.sessions.canary import beside, knock, message, perch
from daemon.workers import lifeline
from daemon.workers.inlet import Inlet, rest_s
from daemon.workers.messages import (
    MESSAGE,
    PART,
    AskCluster,
    Begin,
    Broadcast,
    CloseDoor,
    Down,
    Family,
    Filled,
    Gone,
    LinkError,
    Look,
    Measure,
    Measured,
    PastFound,
    Progress,
    Ready,
    Reload,
    SayGoodbye,
    Scrape,
    Scraped,
    Seen,
    Setup,
    Stood,
    Told,
    read_down,
)
from daemon.workers.spawn import PARENTS
from daemon.workers.uplink import AwayError, FromParent, PastFromParent, Uplink
from protocol.answers import Cause
from protocol.codes import ErrorCode
from protocol.frames import text_frame

_HAND_OVER_BYTES: Final = 65_536
"""So much is handed to the fan-out at once, as the sequencer does: more would not fit into clients' sockets."""

_PROGRESS_S: Final = 1.0

_SILENT_S: Final = 3.0
"""The parent says something once a second. If it says nothing for so long, nobody tells how the channels are."""

_SILENT: Final = f"the process that takes data in has said nothing for {_SILENT_S:g} s"

_LOOK_S: Final = 0.25
"""How often is looked whether it does."""

_log: Final = logging.getLogger(__name__)


def main(fd: int) -> int:
    """Run the worker whose link is that descriptor. Returns the exit code."""
    for number in PARENTS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS)
    link = socket.socket(fileno=fd)
    setup = _first(link)
    if setup is None:
        return 0
    for inherited in (fd, setup.lifeline, setup.counts, *setup.listeners):
        os.set_inheritable(inherited, False)
    if not lifeline.hold(setup.lifeline):
        return 0
    stop_logging = logs.setup(setup.config.log.level, setup.config.log.format, worker=setup.worker)
    try:
        trio.run(_run, setup, link, clock=LoopClock())
    except Exception:
        _log.exception("the worker failed")
        return 1
    finally:
        stop_logging()
    return 0


def _first(link: socket.socket) -> Setup | None:
    """The first message, and no byte more; None where the parent is gone already."""
    head = link.recv(5, socket.MSG_WAITALL)
    if len(head) < 5:
        return None
    body = link.recv(struct.unpack_from("!I", head)[0] - 1, socket.MSG_WAITALL)
    setup = read_down(body)
    if not isinstance(setup, Setup):
        raise LinkError(f"the first message is {type(setup).__name__}")
    return setup


async def _run(setup: Setup, link: socket.socket) -> None:
    link.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(link))
    inlet = Inlet(link)
    async with trio.open_nursery() as nursery:
        uplink = Uplink(stream)
        await nursery.start(uplink.run)
        replica = await _filled(setup, inlet)
        if replica is not None:
            await _Worker(setup, replica, uplink).run(inlet)
        nursery.cancel_scope.cancel(reason="the link has ended")


async def _filled(setup: Setup, inlet: Inlet) -> Replica | None:
    """The replica, when the tape as it was at the beginning is on it; None where the link ends before."""
    replica: Replica | None = None
    tape = setup.config.tape
    while (frames := await inlet.read()) is not None:
        for kind, body in frames:
            if kind == PART:
                if replica is None:
                    raise LinkError("a part comes before the beginning")
                replica.fill(decode_part(body).rows)
                continue
            match read_down(body):
                case Begin(beginning):
                    replica = Replica(beginning, tape.entries, tape.bytes, WallClock())
                case Filled() if replica is not None:
                    replica.ready()
                    # The parent sends nothing more before it has read that we are ready.
                    return replica
                case other:
                    raise LinkError(f"{type(other).__name__} comes before the tape is filled")
    return None


class _Worker:
    """The worker, with the whole tape."""

    def __init__(self, setup: Setup, replica: Replica, uplink: Uplink) -> None:
        self._setup = setup
        self._replica = replica
        self._uplink = uplink
        self._told = setup.told
        self._heard_s = trio.current_time()
        """When the parent was heard last."""
        self._stood: list[Stood] = []
        self._started_s = time.time()
        self._wanted = 0
        """The number of the canary to look for."""
        self._looking = trio.Event()
        memory = CountsMemory(setup.counts, setup.processes, setup.rows, tables=2)
        connections, clients = (SharedCounts(memory, table, setup.worker - 1) for table in range(2))
        clock = WallClock()
        self._serving = Serving(
            setup.config,
            Log(replica.tape, replica.board, replica.ledger, clock, replica.bus),
            setup.server,
            tls=certificate.tls_context(setup.config.server, setup.pair),
            broadcast=self._broadcast,
            past=lambda venue: PastFromParent(uplink, venue) if venue in self._told.past else None,
            remarks=Remarks(
                unstored=lambda: self._told.unstored,
                unrecorded=lambda: self._told.unrecorded,
                not_reloaded=lambda: self._told.not_reloaded,
                unreached=lambda: self._told.unreached,
            ),
            guarded=setup.guarded,
            metrics=self._metrics,
            cluster=lambda _: FromParent(uplink, AskCluster),
            connections=connections,
            clients=clients,
        )
        self._serving.sessions.joining.patience_s = PATIENCE_S
        self._say_cut_off()
        replica.adopted = lambda _: self._serving.sessions.change(self._serving.config.limits)
        self._pauses = Pauses(self, clock, anew=_nothing, aged=_nothing, set_back=_nothing, hurry=lambda: None)
        self._nursery: trio.Nursery | None = None

    async def run(self, inlet: Inlet) -> None:
        """Let clients in, and take what comes, in order, until the link ends."""
        async with trio.open_nursery() as nursery:
            with perch(self._serving.hub) as arrivals:
                nursery.start_soon(self._look, arrivals)
                await self._start(nursery)
                await self._follow(inlet)
                nursery.cancel_scope.cancel(reason="the link has ended")

    async def _start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        listeners = [
            trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=fd)))
            for fd in self._setup.listeners
        ]
        await nursery.start(self._pauses.run)
        await self._serving.start(nursery, listeners)
        await nursery.start(Garbage().run)
        nursery.start_soon(self._tell_progress)
        nursery.start_soon(self._mind_parent)
        self._uplink.say(Ready())

    async def _follow(self, inlet: Inlet) -> None:
        while (frames := await inlet.read()) is not None:
            began_s = time.perf_counter()
            self._heard_s = trio.current_time()
            parts: list[Part] = []
            size, is_large = 0, False
            for kind, body in frames:
                if kind == PART:
                    parts.append(decode_part(body))
                    size += len(body)
                    if size < _HAND_OVER_BYTES:
                        continue
                    is_large = True
                if parts:
                    self._replica.take(parts)
                    parts, size = [], 0
                if kind == MESSAGE:
                    self._obey(read_down(body))
            if parts:
                self._replica.take(parts)
            took_s = time.perf_counter() - began_s
            inlet.rest(rest_s(self._serving.config.hub, took_s, is_large=is_large))

    def _obey(self, told: Down) -> None:
        if self._nursery is None:
            raise AssertionError("not started")
        match told:
            case Look(number):
                if self._setup.is_shared:
                    self._serving.hub.follow(beside(self._replica.tape, message(number)))
                self._wanted = number
                self._looking.set()
            case Reload(config, pair):
                self._serving.adopt(config, self._tls(config, pair))
                logging.getLogger().setLevel(config.log.level.upper())
            case Told():
                self._told = told
                self._say_cut_off()
            case Measure(number):
                self._uplink.say(Measured(number, list(self._families())))
            case Scraped() | PastFound():
                self._uplink.take(told)
            case CloseDoor():
                self._serving.stop_accepting()
            case SayGoodbye():
                self._nursery.start_soon(self._say_goodbye, told)
            case Setup() | Begin() | Filled():
                raise LinkError(f"{type(told).__name__} comes twice")
            case _:
                assert_never(told)

    async def _mind_parent(self) -> None:
        """Tell clients when nothing is heard of the parent, and when it is heard again, until cancelled."""
        while True:
            await trio.sleep(_LOOK_S)
            self._say_cut_off()

    def _say_cut_off(self) -> None:
        why = _SILENT if trio.current_time() - self._heard_s > _SILENT_S else self._told.cut_off
        if why != self._serving.cut_off.why:
            self._serving.say_cut_off(why)

    def _tls(self, config: ServingConfig, pair: Pair | None) -> ssl.SSLContext | None:
        """TLS with this certificate and key; as it was, where that fails, though it did not in the parent."""
        try:
            return certificate.tls_context(config.server, pair)
        except OSError as error:
            _log.error("the old certificate stays in use here: %s", error.strerror or error)
            return self._serving.front_door.tls

    # ---- what goes up ------------------------------------------------------------------------------------------------

    def _broadcast(self, text: str) -> None:
        try:
            self._uplink.pass_on(Broadcast(text))
        except AwayError as away:
            said = f"the process that sends test messages to everybody does not take them: {away}"
            raise unavailable(ErrorCode.UNAVAILABLE, said) from None

    def _metrics(self, request: Request) -> FromParent:
        openmetrics = prefers_openmetrics(request)
        return FromParent(self._uplink, lambda number: Scrape(number, openmetrics))

    def _families(self) -> Iterator[Family]:
        """What this worker counts."""
        samples = Samples()
        measure_process(self._started_s, samples)
        self._serving.measure(samples)
        for family in samples:
            found = [(sample.name, dict(sample.labels), float(sample.value)) for sample in family.samples]
            yield Family(family.type, family.name, family.documentation, found)

    async def _tell_progress(self) -> None:
        """Say regularly where we are, and what happened among the clients, until cancelled."""
        while True:
            await trio.sleep(_PROGRESS_S)
            if self._uplink.is_idle:
                stood, self._stood = self._stood, []
                self._uplink.say(Progress(self._replica.tape.head, self._replica.ledger.taken(), stood))

    def record(self, cause: Cause, channel: str, start_ms: int, end_ms: int, *, reason: str) -> None:
        """A pause of this process, for the ledger. A step of the clock is the parent's to record."""
        if cause == "pause":
            self._stood.append(Stood(start_ms, end_ms, reason))

    async def _look(self, arrivals: trio.socket.SocketType) -> None:
        """Say so when a canary has come through the fan-out, and then a connection through the front door.

        Where one of these fails nothing is said, and the parent draws its conclusions. Until cancelled.
        """
        received, seen = b"", 0
        while True:
            while self._wanted <= seen:
                self._looking = trio.Event()
                await self._looking.wait()
            seen = self._wanted
            frame = text_frame(message(seen))
            # Earlier ones, and those that come after it already, may come with it.
            while frame not in received:
                received = received[-len(frame) :] + await arrivals.recv(65_536)
            received = received.partition(frame)[2]
            try:
                if self._serving.front_door.accepting:
                    await _through(self._serving.front_door)
            except OSError as error:
                _log.error("the front door cannot be tried: %s", error.strerror or error)
                continue
            self._uplink.say(Seen(seen))

    async def _say_goodbye(self, told: SayGoodbye) -> None:
        await self._serving.say_goodbye(told.reason, told.grace_s, told.clients)
        self._uplink.say(Gone())


async def _through(door: FrontDoor) -> None:
    """Let a connection of our own in. It comes by a socket of its own, since others may accept from those of the port.

    Raises:
        OSError: there is no loopback, or no descriptor is left.
    """
    with _loopback() as once, trio.socket.socket(once.family, socket.SOCK_STREAM) as connection:
        await connection.connect(once.getsockname())
        accepted, _ = once.accept()
        door.let_in(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)))
        await knock(connection)


def _loopback() -> socket.socket:
    """A listening socket on the loopback, of IPv6 where there is no other."""
    try:
        return socket.create_server(("127.0.0.1", 0), backlog=1)
    except OSError:
        return socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=1)


def _nothing(_: object) -> None:
    """The parent sees to that."""
