"""All workers of a daemon, as their parent has them: in place of the half that serves clients in its own process.

The parent makes the tape. An `Outlet` follows its bus, and each `Worker` is sent what is in it. Beside that the parent
opens the listeners, keeps the count of all clients, and answers what only it knows (`answers.py`). Whether messages
come through the workers is looked after by `lookout.py`.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, assert_never

import trio

from connectors.metric import Samples
from connectors.poll.past_candles import PastCandles
from daemon.composition import serving
from daemon.composition.serving import Log, Remarks
from daemon.config.load import Config
from daemon.front import certificate
from daemon.front.certificate import Pair, ServerTls
from daemon.front.request import Response
from daemon.front.shared_counts import CountsMemory, SharedCounts
from daemon.host.systemd import Notifier
from daemon.publish.bus import Appended
from daemon.publish.outlet import Outlet
from daemon.routes.metrics import Metrics
from daemon.tape.ledger import LedgerGap
from daemon.workers.answers import Answers
from daemon.workers.gathering import Gathering
from daemon.workers.lookout import Lookout
from daemon.workers.messages import (
    AskCluster,
    AskPast,
    Broadcast,
    CloseDoor,
    Gone,
    Measured,
    Progress,
    Ready,
    Reload,
    SayGoodbye,
    Scrape,
    Seen,
    Setup,
    Stood,
    Told,
    Up,
)
from daemon.workers.worker import Worker
from protocol.answers import ClusterReport, WorkerReport
from protocol.messages import ServerInfo

_TELL_S: Final = 1.0

_REST_S: Final = 0.002
"""The sequencer rests so long at least: what it hands over costs each worker a turn of its event loop."""

_HELD_BYTES: Final = 1024 * 1024
_HELD_S: Final = 0.025
_HELD_MOST_S: Final = 0.5
"""While all workers are so far behind it rests so much longer: four times that where they are twice as far."""

_LEAVE_S: Final = 2.0
"""How long a worker may take to send its clients away, where the tape is to begin anew."""

_ABOUT_MS: Final = 2000
"""Clocks of two processes notice the same pause so far apart at the most."""

_log: Final = logging.getLogger(__name__)


class Workers:
    """All workers. It has the face that `daemon.composition.serving.Serving` has for the daemon."""

    def __init__(
        self,
        config: Config,
        log: Log,
        server: ServerInfo,
        *,
        broadcast: Callable[[str], None],
        past: Callable[[str], PastCandles | None],
        remarks: Remarks,
        guarded: bool,
        send_canary: Callable[[bytes, Callable[[], None]], Awaitable[None]],
        cluster: Callable[[Workers], ClusterReport] | None = None,
        is_shared: bool = False,
    ) -> None:
        """Build them; no process is started before `start`.

        Args:
            config: the configuration.
            log: the tape, and what belongs to it.
            server: who we are, as clients are told it.
            broadcast: sends a `test` message to every client.
            past: who asks a venue, by its name, for past candles; None if nobody does.
            remarks: what there is to say in `/readyz`.
            guarded: whether a token was needed before a restart.
            send_canary: puts a canary onto the tape, and calls its second argument before anything else comes there.
            cluster: which processes and nodes there are; None if this node is the only one.
            is_shared: whether the tape is that of a cluster: then the workers make the canaries themselves.

        Raises:
            OSError: the certificate or key cannot be used.
        """
        self.config = config
        self._log = log
        self.metrics = Metrics(server.version)
        self._server = server
        self._started = log.clock.timestamp()
        self._broadcast = broadcast
        self._past = past
        self._remarks = remarks
        self._cut_off = ""
        self._is_shared = is_shared
        self._tokens = config.policy(guarded=guarded).tokens
        self._tls: ssl.SSLContext | None = certificate.tls_context(config.server)
        self._outlet = Outlet(log.tape, log.board, log.ledger)
        log.bus.add(self._outlet)
        log.bus.add(self)
        count = config.server.worker_count
        policy = config.policy(guarded=guarded)
        self._memory = CountsMemory.create(count, policy.connections, tables=2)
        self._connections, self._clients = (SharedCounts(self._memory, table, 0) for table in range(2))
        self._workers = [Worker(number, self._outlet, log.clock, self) for number in range(1, count + 1)]
        self._lookout = Lookout(self._workers, send_canary)
        self._gathering = Gathering(self._workers)
        report = self.report if cluster is None else partial(cluster, self)
        self._answers = Answers(self._scrape, report, past, log.clock)
        self._away: dict[int, tuple[int, str]] = {}
        self._someone_left = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._groups: list[list[trio.SocketListener]] = []
        self._hosts: list[str] = []
        self._lifeline = os.pipe()

    # ---- what the daemon asks of whoever serves clients --------------------------------------------------------------

    @property
    def clients(self) -> int:
        """How many clients all workers have."""
        return self._clients.total

    @property
    def guarded(self) -> bool:
        """Whether a token is needed."""
        return self._tokens is not None

    async def start(self, root: trio.Nursery, groups: list[list[trio.SocketListener]]) -> None:
        """Start all workers in the root nursery; returns when all of them let clients in.

        `groups`: each worker's listeners; where there is one group, all workers accept from it.

        Raises:
            BaseExceptionGroup: with a `WorkerError`, or an OSError, of a worker that does not get that far.
        """
        self._nursery, self._groups = root, groups
        self._hosts = serving.hosts(groups[0])
        root.start_soon(self._tell_changes)
        async with trio.open_nursery() as starting:
            for worker in self._workers:
                starting.start_soon(root.start, partial(worker.run, partial(self._setup, worker)))

    def _setup(self, worker: Worker) -> tuple[Setup, list[int]]:
        group = self._groups[(worker.number - 1) % len(self._groups)]
        listeners = tuple(listener.socket.fileno() for listener in group)
        lifeline, counts = self._lifeline[0], self._memory.fd
        setup = Setup(
            worker.number,
            self._server,
            self.config.serving(),
            self._pair,
            self.guarded,
            listeners,
            lifeline,
            counts,
            self._memory.processes,
            self._memory.rows,
            self._is_shared,
            self._to_be_told(),
        )
        return setup, [*listeners, lifeline, counts]

    @property
    def _pair(self) -> Pair | None:
        """The certificate and key that are in force, whatever is in their files by now."""
        return self._tls.pair if isinstance(self._tls, ServerTls) else None

    def measure(self, samples: Samples) -> None:
        """Add the figures of all workers, and those about them."""
        self._gathering.measure(samples)
        ready = samples.gauge("tickerd_worker_ready", "1 while the worker lets clients in.", "worker")
        clients = samples.gauge("tickerd_worker_clients", "Clients that the worker has.", "worker")
        lag = samples.gauge("tickerd_worker_lag_entries", "Messages of the tape that it has yet to take.", "worker")
        waits = samples.gauge("tickerd_worker_lag_bytes", "What waits to be sent to it.", "worker")
        restarts = samples.counter("tickerd_worker_restarts", "How often it had to be started again.", "worker")
        for worker in self._workers:
            name = [str(worker.number)]
            ready.add_metric(name, worker.is_ready)
            clients.add_metric(name, self._clients.of_process(worker.number - 1))
            lag.add_metric(name, worker.lag)
            waits.add_metric(name, worker.lag_bytes)
            restarts.add_metric(name, worker.restarts)

    def warn_if_exposed(self) -> None:
        """Log what an operator should know of who can come in."""
        serving.warn_if_exposed(self._hosts, self.config, self._tokens, self._tls)

    def adopt(self, config: Config, tls: ssl.SSLContext | None) -> None:
        """Bring a new configuration into force at all workers, when the board has its catalogue."""
        self._tokens = config.policy(guarded=self.guarded).tokens
        self.config, self._tls = config, tls
        self._outlet.tell()  # the catalogue comes before what is said with it
        for worker in self._workers:
            worker.say(Reload(config.serving(), self._pair))

    def follow(self, appended: Appended) -> None:
        """Hand all workers what the outlet has made of it."""
        self._push()

    def _push(self) -> None:
        for worker in self._workers:
            worker.push()
        self._outlet.forget(min(worker.next for worker in self._workers))

    def held_s(self) -> float:
        """How long the sequencer has to rest at least.

        Where all workers are behind, nobody is served sooner by more messages. Then the connectors wait, and their
        venues' sockets fill, as in a daemon of one process. One worker that is behind while others are not holds up
        nobody.
        """
        return rest_s(min((worker.lag_bytes for worker in self._workers if worker.is_ready), default=0))

    def say_cut_off(self, why: str) -> None:
        """Nobody tells this process how the channels are, or somebody does again (""): clients are told."""
        self._cut_off = why
        self._log.board.cut_off(why, self._log.clock.now_ms())
        self._tell_workers()

    async def dismiss(self, reason: str) -> None:
        """Have all workers send their clients away, and end.

        When this returns there is none, so no client has a place on the tape. New ones begin at the next checkpoint,
        with the tape as it is then.
        """
        for worker in self._workers:
            worker.leave(CloseDoor(), SayGoodbye(reason, _LEAVE_S, self.clients))
        with trio.move_on_after(2 * _LEAVE_S):
            await self._wait_gone()
        for worker in self._workers:
            if worker.pid is not None:
                _log.warning("worker %d did not send its clients away within %g s", worker.number, 2 * _LEAVE_S)
                worker.kill("was killed: it did not send its clients away")
        await self._wait_gone()
        for worker in self._workers:
            worker.go_on()

    def stop_accepting(self) -> None:
        """Let nobody in any more, at any worker."""
        self._lookout.end()
        for worker in self._workers:
            worker.let_end()
            worker.say(CloseDoor())
        for listener in (listener for group in self._groups for listener in group):
            listener.socket.close()

    async def say_goodbye(self, reason: str, grace_s: float) -> None:
        """Have all workers send the rest of the tape, and say goodbye; returns when all have, or are gone."""
        for worker in self._workers:
            worker.say(SayGoodbye(reason, grace_s, self.clients))
        await self._wait_gone()

    async def _wait_gone(self) -> None:
        """Wait until no worker has a process."""
        while any(worker.pid is not None for worker in self._workers):
            self._someone_left = trio.Event()
            await self._someone_left.wait()

    # ---- looking after them ------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Look now whether messages come through; see `Lookout`."""
        self._lookout.hurry()

    async def watch(self, notifier: Notifier, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send canaries through all workers, and feed systemd's watchdog if all of them came through.

        Until cancelled, or the daemon begins to stop.
        """
        await self._lookout.run(notifier, task_status=task_status)

    async def _tell_changes(self) -> None:
        """Tell the workers regularly what they have to know of us, until cancelled."""
        while True:
            # Also where nothing has changed: from that they know that we are well.
            self._tell_workers()
            self._outlet.tell()
            self._push()
            await trio.sleep(_TELL_S)

    def _tell_workers(self) -> None:
        told = self._to_be_told()
        for worker in self._workers:
            worker.say(told)

    def _to_be_told(self) -> Told:
        venues = dict.fromkeys(channel.exchange for channel in self._log.board.catalogue)
        past = tuple(venue for venue in venues if self._past(venue) is not None)
        said = self._remarks
        return Told(said.unstored(), said.unrecorded(), said.not_reloaded(), said.unreached(), past, self._cut_off)

    def came(self, worker: Worker) -> None:
        """It lets clients in."""
        worker.say(self._to_be_told())
        worker.seen = self._lookout.looked
        away = self._away.pop(worker.number, None)
        if away is not None:
            from_ms, why = away
            _log.info("worker %d lets clients in again", worker.number, extra={"event": "worker"})
            reason = f"worker {worker.number} {why}, and was started again; its clients could go on at others at once"
            self._log.ledger.record("restart", "", from_ms, self._log.clock.now_ms(), reason=reason)

    def went(self, worker: Worker, why: str) -> None:
        """It has ended: so have its clients and connections."""
        self._clients.clear(worker.number - 1)
        self._connections.clear(worker.number - 1)
        self._gathering.ended(worker)
        if why:
            self._away.setdefault(worker.number, (self._log.clock.now_ms(), why))
        self._someone_left.set()

    def heard(self, worker: Worker, message: Up) -> None:
        """What a worker says."""
        match message:
            case Progress():
                self._note(worker, message)
            case Broadcast(text):
                self._broadcast(text)
            case Measured():
                self._gathering.measured(worker, message)
            case Scrape() | AskCluster() | AskPast():
                if self._nursery is not None:
                    self._nursery.start_soon(self._answers.answer, worker, worker.pid, message)
            case Gone():
                worker.dismiss()
            case Seen():
                self._lookout.saw()
            case Ready():
                raise AssertionError("the worker's own business")
            case _:
                assert_never(message)

    def _note(self, worker: Worker, progress: Progress) -> None:
        ledger, now_ms = self._log.ledger, self._log.clock.now_ms()
        worker.lag = max(0, self._log.tape.head - progress.at)
        for each in progress.noted:
            ledger.note(each.cause, each.channel, now_ms, count=each.count, messages=each.messages, reason=each.reason)
        for stood in progress.stood:
            # Where all processes stood still, as with the machine, the parent's own entry says so.
            if not any(_overlaps(gap, stood) for gap in ledger.gaps(now_ms)):
                reason = f"worker {worker.number}: {stood.reason}"
                ledger.record("pause", "", stood.start_ms, stood.end_ms, reason=reason)

    # ---- what is told of them ----------------------------------------------------------------------------------------

    async def _scrape(self, openmetrics: bool) -> Response:
        """The metrics of all, with the newest figures of the workers as far as they send them in time."""
        await self._gathering.gather()
        return self.metrics.scrape(openmetrics=openmetrics)

    def report(self) -> ClusterReport:
        """What is said of this node where it is the only one."""
        return serving.of_one_node(self._server, self._log, self._started, self.clients, self.reports())

    def reports(self) -> tuple[WorkerReport, ...]:
        """How each worker does."""
        return tuple(
            WorkerReport(
                worker=worker.number,
                pid=worker.pid,
                ready=worker.is_ready,
                clients=self._clients.of_process(worker.number - 1),
                lag=worker.lag,
                lag_bytes=worker.lag_bytes,
                since=self._log.clock.iso(worker.since_ms),
                restarts=worker.restarts,
            )
            for worker in self._workers
        )


def rest_s(least_bytes: int) -> float:
    """How long the sequencer rests at least, where each worker has at least so many bytes to take yet."""
    if least_bytes <= _HELD_BYTES:
        return _REST_S
    return min(_HELD_S * (least_bytes / _HELD_BYTES) ** 2, _HELD_MOST_S)


def _overlaps(gap: LedgerGap, stood: Stood) -> bool:
    """Whether that gap is a pause of the parent's at about the same time."""
    if gap.cause != "pause" or gap.end_ms is None or gap.reason.startswith("worker "):
        return False
    return gap.start_ms - _ABOUT_MS <= stood.end_ms and stood.start_ms <= gap.end_ms + _ABOUT_MS
