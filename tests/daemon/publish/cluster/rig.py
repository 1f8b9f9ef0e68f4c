"""Nodes of a cluster within one process, on a real engine: what each of them shows is witnessed as a client sees it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from connectors.base import Event, StateChange
from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.publish.bus import Appended, Bus
from daemon.publish.cluster.address import parse
from daemon.publish.cluster.engine import Engine
from daemon.publish.cluster.node import Ingest, Node
from daemon.publish.cluster.peers import Peers
from daemon.publish.cluster.reader import Reader
from daemon.publish.cluster.settings import Cluster, Keys
from daemon.publish.parts import Beginning, listed
from daemon.publish.replica import Replica
from daemon.publish.sequencer import Passes, Sequencer
from daemon.tape import copying
from daemon.tape.entry import Entry
from daemon.tape.ledger import Ledger
from daemon.tape.recovery import plan_recovery
from daemon.tape.tape import Tape
from protocol.channels import Catalogue
from protocol.messages import Position
from protocol.session import ALL
from tests.daemon.fanout.sink import CATALOGUE

SOON_S = 20.0
"""Far longer than anything here takes: the machine may be busy."""

SELECTION = frozenset({("a", ALL), ("b", ALL)})


class Witness:
    """A client of one node that takes everything, and resumes whenever it is sent away.

    Attributes:
        numbers: of the messages that it had, in order; they are published with rising ones.
        told: the reasons why it was not given all that it had missed, and why it was sent away.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.position: tuple[str, int] | None = None
        self.numbers: list[int] = []
        self.told: list[str] = []
        self.sent_away: list[str] = []
        self.last: dict[tuple[str, str], int] = {}

    def follow(self, appended: Appended) -> None:
        for entry in appended.entries:
            self.take(entry)
        self.position = self.tape.epoch, self.tape.head

    def take(self, entry: Entry) -> None:
        if not entry.data:
            return
        said = json.loads(entry.payload)
        before = self.last.get(entry.topic)
        assert before is None or before == said["prev_seq"], f"{entry.topic}: {said} after {before}"
        self.last[entry.topic] = said["seq"]
        self.numbers.append(said["data"]["n"])

    def come_back(self) -> None:
        if self.position is None:
            for entry in self.tape.between(0, self.tape.head):
                self.take(entry)
            self.position = self.tape.epoch, self.tape.head
            return
        epoch, seq = self.position
        plan = plan_recovery(self.tape, ("a", "b"), SELECTION, Position(epoch=epoch, seq=seq))
        if all(plan.recovered.values()):
            shown = {entry.seq: entry for entry in plan.shown}
            later = {e.seq: e for e in self.tape.between(seq, self.tape.head) if e.topic in plan.replayed}
            for _, entry in sorted((shown | later).items()):
                self.take(entry)
        else:
            self.told.append(plan.reason)
            self.last = {entry.topic: entry.seq for entry in self.tape.latest(SELECTION)}
        self.position = self.tape.epoch, self.tape.head


class Making:
    """The half that takes data in, as far as a test publishes."""

    def __init__(self, sequencer: Sequencer) -> None:
        self.sequencer = sequencer

    def broadcast(self, message: str) -> None:
        self.sequencer.broadcast_test(message)

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()


class Rigged:
    """One node."""

    def __init__(self, url: str, name: str, catalogue: Catalogue, options: dict[str, object], entries: int) -> None:
        self.clock = WallClock()
        self.settings = Cluster(url=url, node=name, **options)  # type: ignore[arg-type]
        states = dict(Board(catalogue, 0).states())
        nothing = Beginning(copying.origin(Tape(1, 1)), listed(catalogue), states, [])
        self.replica = Replica(nothing, entries, 10**8, self.clock, adopted=self._adopted)
        self.engine = Engine(
            parse(url),
            Keys(self.settings.name),
            password=self.settings.password,
            ca=self.settings.ca,
            replicas=self.settings.wait_replicas,
        )
        self.reader = Reader(self.engine, self.replica, self.clock, self._dismiss, self.settings.stream_bytes)
        self.cut_off: list[str] = []
        self.making: Making | None = None
        self.catalogue = catalogue
        self.witness = Witness(self.replica.tape)
        self.replica.bus.add(self.witness)
        self.node = Node(
            self.settings,
            self.engine,
            self.reader,
            self.clock,
            catalogue=lambda: catalogue,
            lead=self._lead,
        )
        self.peers = Peers(
            self.node,
            self.engine,
            self.reader,
            self.clock,
            version="test",
            clients=lambda: 1,
            tell=self.cut_off.append,
        )
        self.scope = trio.CancelScope()

    async def _dismiss(self, why: str) -> None:
        self.witness.sent_away.append(why)
        await trio.lowlevel.checkpoint()

    def _adopted(self, _: Catalogue) -> None:
        self.witness.come_back()

    @asynccontextmanager
    async def _lead(self, tape: Tape, board: Board, ledger: Ledger, bus: Bus) -> AsyncIterator[Ingest]:
        self.making = Making(Sequencer(tape, board, ledger, self.clock, bus, Passes()))
        try:
            yield self.making
        finally:
            self.making = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.node.run)
                await nursery.start(self.peers.run)
                task_status.started()

    @property
    def head(self) -> int:
        return self.replica.tape.head


class Rig:
    """Some nodes on one engine."""

    def __init__(self, nursery: trio.Nursery, url: str) -> None:
        self.nursery = nursery
        self.url = url
        self.n = 0

    async def node(
        self, name: str, *, url: str = "", catalogue: Catalogue = CATALOGUE, entries: int = 10_000, **options: object
    ) -> Rigged:
        """Start a node."""
        rigged = Rigged(url or self.url, name, catalogue, {"lease_s": 1.0, **options}, entries)
        await self.nursery.start(rigged.run)
        return rigged

    def publish(self, leader: Rigged, count: int = 1, channel: str = "a") -> list[int]:
        """Publish so many messages at the leader, one pass; returns their numbers."""
        assert leader.making is not None, "it does not lead"
        numbers = list(range(self.n + 1, self.n + count + 1))
        self.n += count
        now_ms = leader.clock.now_ms()
        leader.making.sequencer.publish(
            [[Event(channel, "X/U", data=b'{"n":%d}' % number, received_ms=now_ms, price="1.5") for number in numbers]]
        )
        return numbers

    def live(self, leader: Rigged) -> None:
        """Have the channels live."""
        assert leader.making is not None
        leader.making.sequencer.publish([StateChange("a", "live"), StateChange("b", "live")])


@asynccontextmanager
async def open_rig(url: str) -> AsyncIterator[Rig]:
    """A rig; its nodes end with it."""
    async with trio.open_nursery() as nursery:
        yield Rig(nursery, url)
        nursery.cancel_scope.cancel(reason="the test is over")


async def until(condition: Callable[[], object], within_s: float = SOON_S) -> None:
    """Wait until it holds."""
    give_up_s = trio.current_time() + within_s
    while not condition():
        assert trio.current_time() < give_up_s, "it did not come to that in time"
        await trio.sleep(0.01)


async def leading(*nodes: Rigged) -> Rigged:
    """Wait until one of them leads."""
    await until(lambda: any(node.node.leads for node in nodes))
    return next(node for node in nodes if node.node.leads)
