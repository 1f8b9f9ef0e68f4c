"""What the nodes of a cluster tell each other, and what is told of them: to clients, to operators, to Prometheus.

Each node reports once a second. It passes on to the leader what its clients brought about: notes for the ledger, summed
up, and test messages. And it finds out when it does not hear any longer how the channels are: the engine is away, or
nobody leads. Then all that its clients see is stale, and they are told so beside the tape.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import trio

from connectors.metric import Samples
from daemon.host.clock import WallClock
from daemon.publish.cluster.engine import Engine, Overview
from daemon.publish.cluster.link import AWAY_S
from daemon.publish.cluster.node import Node
from daemon.publish.cluster.reader import Reader
from daemon.publish.cluster.reports import NAMED_TWICE_S, Said, Up, encode, node_of, read_all, reported
from daemon.publish.cluster.trouble import EngineError
from protocol.answers import EngineReport, NodeReport, NodeState, WorkerReport

NOT_YET: Final = "the tape has not been read from the engine yet"
"""How it begins."""

_REPORT_S: Final = 1.0

_WATCH_S: Final = 0.25

_AGAIN_S: Final = 0.25

_SILENT_S: Final = 4.0
"""A leader that has said nothing for so long does not run, though its lease may not have ended yet."""

_log: Final = logging.getLogger(__name__)


class Peers:
    """This node among the others.

    Attributes:
        overview: what is known of the others; None before the engine has answered once.
        remark: what an operator should know; "" if there is nothing.
        cut_off: why this node does not hear how the channels are; "" if it does.
        workers: tells of the processes of this node, if it has several.
    """

    def __init__(
        self,
        node: Node,
        engine: Engine,
        reader: Reader,
        clock: WallClock,
        *,
        version: str,
        clients: Callable[[], int],
        tell: Callable[[str], None],
    ) -> None:
        """Set up. `clients`: how many this node has. `tell` is told `cut_off` when it changes from `NOT_YET`."""
        self.overview: Overview | None = None
        self.remark, self.cut_off = "", NOT_YET
        self.workers: Callable[[], tuple[WorkerReport, ...]] = tuple
        self._node = node
        self._engine = engine
        self._reader = reader
        self._clock = clock
        self._version = version
        self._clients = clients
        self._tell = tell
        self._since = clock.timestamp()
        self._leaderless_s = math.inf
        self._reported_s = -math.inf
        self._named_twice = 0
        self._tests: list[str] = []
        self._doorbell = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Report, listen and watch, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._pass_up)
            task_status.started()

    def broadcast_test(self, message: str) -> None:
        """Send a `test` message to every client of every node, by way of the leader."""
        self._tests.append(message)
        self._doorbell.set()

    async def _pass_up(self) -> None:
        """Pass on to the leader what is to be noted and broadcast."""
        ledger, next_s = self._reader.replica.ledger, trio.current_time()
        while True:
            with trio.move_on_after(_REPORT_S):
                await self._doorbell.wait()
            self._doorbell = trio.Event()
            noted = ledger.taken() if trio.current_time() >= next_s else []
            if noted:
                next_s = trio.current_time() + _REPORT_S
            ups = [Up(self._node.name, test=test) for test in self._tests] + (
                [Up(self._node.name, noted)] if noted else []
            )
            self._tests = []
            for up in ups:
                try:
                    await self._engine.tell(encode(up))
                except EngineError:
                    for note in up.notes:  # it is told when the engine is back
                        ledger.note(
                            note.cause, note.channel, 0, count=note.count, messages=note.messages, reason=note.reason
                        )
                    if up.test:
                        _log.warning("a test message could not be passed on to the leader: the engine is away")

    async def _report(self) -> None:
        """Tell the others once a second what this node does, and learn what they do."""
        while True:
            try:
                if not self._engine.version:
                    await self._engine.identify()
                overview = await self._engine.report(self._node.name, encode(self._say()))
                self._learn(overview)
            except EngineError:
                await trio.sleep(_AGAIN_S)
                continue
            await trio.sleep(_REPORT_S)

    def _say(self) -> Said:
        tape = self._reader.replica.tape
        return Said(
            self._node.token,
            self._node.settings.role,
            self.state,
            self._version,
            tape.epoch,
            tape.head,
            self._clients(),
            self._since,
            self._reader.trouble or self.cut_off,
            self.workers(),
        )

    def _learn(self, overview: Overview) -> None:
        self.overview = overview
        self._reported_s = trio.current_time()
        if overview.leader:
            self._leaderless_s = math.inf
        elif self._leaderless_s == math.inf:
            self._leaderless_s = trio.current_time()
        reader = self._reader
        if overview.epoch and reader.begun and overview.epoch != reader.replica.tape.epoch:
            reader.lose("another tape was begun in the engine")
        twice = overview.was is not None and any(
            said.token != self._node.token and age_s < NAMED_TWICE_S
            for _, age_s, said in read_all({self._node.name: overview.was}, overview.now_ms)
        )
        # Once may be the process that ran as this node before.
        self._named_twice = self._named_twice + 1 if twice else 0
        remark = ""
        if self._named_twice > 1:
            remark = f"another node is called {self._node.name} too: give each a name of its own, by [cluster] node"
            if not self.remark:
                _log.error("%s", remark)
        self.remark = remark

    async def _watch(self) -> None:
        """Find out when this node does not hear how the channels are, and tell."""
        away_ms = 0
        while True:
            await trio.sleep(_WATCH_S)
            why = self._cut_off_now()
            if why != self.cut_off:
                self.cut_off = why
                (_log.warning if why else _log.info)(
                    "%s", why or "the tape is followed again", extra={"event": "cut_off", "reason": why}
                )
                self._tell(why)
            leading = self._node.leading
            if leading is None:
                away_ms = 0
            elif self._engine_is_away():
                away_ms = away_ms or self._clock.now_ms()
            elif away_ms:
                reason = "the engine that carries the tape did not answer: clients had to wait"
                leading.ledger.record("cluster", "", away_ms, self._clock.now_ms(), reason=reason)
                away_ms = 0

    def _engine_is_away(self) -> bool:
        """Whether it does not answer, or not what matters: it may take nothing, and be read all the same."""
        now_s, writer = trio.current_time(), self._node.writer
        return (
            now_s - self._engine.heard_s > AWAY_S
            or now_s - self._reported_s > AWAY_S + _REPORT_S
            or (writer is not None and now_s - writer.waits_since_s > AWAY_S)
        )

    def _cut_off_now(self) -> str:
        if self._engine_is_away():
            how = f": it {self._engine.trouble}" if self._engine.trouble else ""
            return f"the engine that carries the tape has not answered for {AWAY_S:g} s{how}"
        if self._reader.trouble:
            return self._reader.trouble
        if not self._reader.begun:
            return NOT_YET
        if self._node.leads:
            return ""
        if trio.current_time() - self._leaderless_s > AWAY_S:
            return "no node of the cluster takes data in just now"
        return self._of_the_leader()

    def _of_the_leader(self) -> str:
        """What is wrong with the node that leads; "" if nothing is."""
        overview = self.overview
        told = None if overview is None else overview.nodes.get(self.leader)
        if overview is None or told is None:
            return ""
        late_s = trio.current_time() - self._reported_s
        for name, age_s, said in read_all({self.leader: told}, overview.now_ms):
            if age_s + late_s > _SILENT_S:
                return f"node {name}, which takes data in, has not been heard of for {_SILENT_S:g} s"
            if said.state == "cut off":
                return f"node {name}, which takes data in, does not get through: {said.reason}"
        return ""

    # ---- what is told of it ------------------------------------------------------------------------------------------

    @property
    def state(self) -> NodeState:
        """What this node does."""
        if self._node.leads and not self.cut_off:
            return "leads"
        if self.cut_off:
            return "cut off" if self._reader.begun else "starts"
        if not self._reader.begun:
            return "starts"
        return "stands by" if self._node.settings.ingests else "follows"

    @property
    def leader(self) -> str:
        """The name of the node that leads; "" if none is known."""
        return "" if self.overview is None else node_of(self.overview.leader)

    @property
    def head(self) -> int:
        """The newest position that is known of."""
        own = self._reader.replica.tape.head
        last = None if self.overview is None else self.overview.last
        return own if last is None else max(own, last.seq)

    def nodes(self) -> tuple[NodeReport, ...]:
        """All nodes, this one as it is now."""
        own = reported(self._node.name, 0, self._say(), self.head, self._node.name if self._node.leads else "")
        others: list[NodeReport] = []
        if self.overview is not None:
            late_s = trio.current_time() - self._reported_s
            for name, age_s, said in read_all(self.overview.nodes, self.overview.now_ms):
                if name != self._node.name:
                    others.append(reported(name, age_s + late_s, said, self.head, self.leader))
        return (own, *others)

    def clients(self) -> int:
        """How many clients all nodes have."""
        return sum(node.clients for node in self.nodes())

    def engine(self) -> EngineReport:
        """The engine, as this node sees it."""
        overview = self.overview
        return EngineReport(
            address=self._engine.address.words,
            version=self._engine.version,
            answers=not self._engine.trouble,
            reason=self._engine.trouble,
            entries=0 if overview is None else overview.entries,
            first="" if overview is None or overview.first is None else str(overview.first),
            last="" if overview is None or overview.last is None else str(overview.last),
        )

    def measure(self, samples: Samples) -> None:
        """Add how the cluster does, as this node sees it."""
        reader, writer = self._reader, self._node.writer
        samples.value("tickerd_cluster_leads", "1 if this node leads.", self._node.leads)
        samples.value("tickerd_cluster_cut_off", "1 if clients are told that all is stale.", bool(self.cut_off))
        led = self.overview is not None and bool(self.overview.leader)
        samples.value("tickerd_cluster_led", "1 if some node leads.", led)
        lag = max(0, self.head - reader.replica.tape.head)
        samples.value("tickerd_cluster_lag", "Positions that this node lacks of what is in the engine.", lag)
        present = sum(node.state != "gone" for node in self.nodes())
        samples.value("tickerd_cluster_nodes", "Nodes that were heard of.", present)
        samples.count("tickerd_cluster_takeovers", "How often this node took over.", self._node.takeovers)
        samples.count("tickerd_cluster_anew", "How often the tape was read anew from the engine.", reader.anew)
        samples.count("tickerd_cluster_read_entries", "Entries of the stream that were taken.", reader.entries)
        samples.count("tickerd_cluster_read_bytes", "The size of these entries.", reader.size_bytes)
        if writer is not None:
            samples.count("tickerd_cluster_written_entries", "Entries that were written.", writer.entries)
            samples.count("tickerd_cluster_written_bytes", "The size of these entries.", writer.size_bytes)
            samples.count("tickerd_cluster_mended", "How often the engine had lost entries.", writer.again)
            took = "How long the engine took for an entry, in seconds."
            samples.histogram("tickerd_cluster_append_seconds", took, writer.appends_s)
        self._engine.measure(samples)
