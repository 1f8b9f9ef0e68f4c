"""One node of a cluster: it follows the tape in the engine, and where it may, it leads when no other does.

    starts ──► follows ──────────────────────────────► (serving nodes stay here)
                  │ ▲
      the lease   │ │ another node holds the lease,
      is free     ▼ │ or the stream is not ours
               takes over ──► leads ──► hands over, at a stop

A leader makes a tape of its own, which begins as a copy of what is in the engine, and its writer carries it there. Its
own clients are served from the replica, as everybody's: so they see only what the engine has.

**Where a new leader begins.** It cannot know what the last one had sent to the engine and the engine has lost. So it
goes on far beyond the last position, and says so (`daemon.tape.tape`, skips). Nobody takes that for a gap, but whoever
comes with a position in between. After a leader that said goodbye it goes on directly.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import msgspec
import trio

from connectors.base import leaves
from connectors.metric import Samples
from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.publish.bus import Bus
from daemon.publish.cluster.engine import AWAY_S, Engine, FencedError, NotLeaderError, Overview
from daemon.publish.cluster.reader import Reader
from daemon.publish.cluster.reports import NAMED_TWICE_S, Said, Up, encode, read_all, read_up, reported
from daemon.publish.cluster.settings import Cluster
from daemon.publish.cluster.trouble import EngineError
from daemon.publish.cluster.writer import Leading, Writer
from daemon.publish.outlet import Outlet
from daemon.publish.parts import Part
from daemon.tape import copying
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from protocol.answers import EngineReport, NodeReport, NodeState, WorkerReport
from protocol.channels import Catalogue

SKIP: Final = 1_000_000
"""So far beyond the last known position a new leader goes on: more than was ever under way to an engine."""

_REPORT_S: Final = 1.0

_WATCH_S: Final = 0.25

_AGAIN_S: Final = 0.25

_GRACE_S: Final = 3.0
"""After the engine was away, who led gets so much time to lead on, before another node takes its place."""

_STRETCH: Final = 2000
"""So many messages are copied at once."""

_log: Final = logging.getLogger(__name__)


class Ingest(Protocol):
    """The half that takes data in, for as long as this node leads."""

    def broadcast(self, message: str) -> None:
        """Send a `test` message to every client."""
        ...

    async def finish(self) -> None:
        """End; afterwards all that came is on the tape, and nothing more is made."""
        ...


class Lead(Protocol):
    """Begins to take data in: what it makes goes onto this tape, and to this bus."""

    def __call__(self, tape: Tape, board: Board, ledger: Ledger, bus: Bus) -> AbstractAsyncContextManager[Ingest]:
        """Takes data in for as long as the context is entered."""
        ...


class Node:
    """One node.

    Attributes:
        token: of its lease: its name, and what tells this process from others of that name.
        overview: what is known of the others; None before the engine has answered once.
        leads: whether this node leads.
        takeovers: how often it took over.
        remark: what an operator should know; "" if there is nothing.
        workers: tells of the processes of this node, if it has several.
    """

    def __init__(
        self,
        settings: Cluster,
        engine: Engine,
        reader: Reader,
        clock: WallClock,
        *,
        version: str,
        catalogue: Callable[[], Catalogue],
        lead: Lead,
        clients: Callable[[], int],
        cut_off: Callable[[str], None],
    ) -> None:
        """Set up.

        Args:
            settings: `[cluster]`.
            engine: the link to the engine.
            reader: follows the tape there.
            clock: the wall clock.
            version: of tickerd.
            catalogue: the channels of this node's configuration, for a tape that begins.
            lead: begins to take data in.
            clients: how many this node has.
            cut_off: is told when this node does not hear how the channels are, and why; "" when it does again.
        """
        self.settings = settings
        self.name = settings.node_name
        self.token = f"{self.name} {secrets.token_urlsafe(6)}"
        self.overview: Overview | None = None
        self.leads = False
        self.takeovers = 0
        self.remark = ""
        self.workers: Callable[[], tuple[WorkerReport, ...]] = tuple
        self._engine = engine
        self._reader = reader
        self._clock = clock
        self._version = version
        self._catalogue = catalogue
        self._lead = lead
        self._clients = clients
        self._cut_off = cut_off
        self._since = clock.timestamp()
        self._cut_off_told = ""
        self._leaderless_s = math.inf
        self._reported_s = -math.inf
        self._ingest: Ingest | None = None
        self._writer: Writer | None = None
        self._leading: Leading | None = None
        self._writing = trio.CancelScope()
        self._spell = trio.CancelScope()
        self._stopping = False
        self._named_twice = 0
        self._tests: list[str] = []
        self._doorbell = trio.Event()

    # ---- tasks -------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a node until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._engine.run)
            nursery.start_soon(self._reader.run)
            nursery.start_soon(self._report)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._pass_up)
            if self.settings.ingests:
                nursery.start_soon(self._take_turns)
            task_status.started()

    async def stop(self) -> None:
        """Stop leading, if this node does, so that the next one can begin at once. The caller sets a deadline."""
        self._stopping = True
        writer, ingest, leading = self._writer, self._ingest, self._leading
        if writer is not None and ingest is not None and leading is not None:
            await ingest.finish()
            leading.outlet.tell()
            await writer.finish()
            self._writing.cancel(reason="this node stops leading")
            try:
                await writer.leave()
                await self._engine.release(self.token)
                _log.info("the lease is given back: another node may lead at once", extra={"event": "left"})
            except (EngineError, FencedError, NotLeaderError) as error:
                _log.warning("the lease could not be given back: %s; it ends by itself", error)
        self._spell.cancel(reason="this node stops")
        try:
            await self._engine.leave(self.name)
        except EngineError:
            return

    def broadcast_test(self, message: str) -> None:
        """Send a `test` message to every client of every node, by way of the leader."""
        self._tests.append(message)
        self._doorbell.set()

    async def _take_turns(self) -> None:
        """Lead whenever nobody else does."""
        while True:
            await self._win()
            began_s = trio.current_time()
            try:
                await self._spell_of_leading()
            except* (EngineError, FencedError, NotLeaderError) as group:
                why = "; ".join(str(leaf) for leaf in leaves(group))
                _log.warning("this node does not lead: %s", why, extra={"event": "not_leading"})
            if trio.current_time() - began_s < _AGAIN_S:
                await trio.sleep(_AGAIN_S)

    async def _win(self) -> None:
        """Wait until the lease is ours."""
        heeded: trio.Event | None = None
        while True:
            left = self._reader.left
            if self._may_lead():
                try:
                    if await self._engine.hold(self.token, self.settings.lease_s) == self.token:
                        return
                except EngineError:
                    await trio.sleep(_AGAIN_S)
                    continue
                heeded = left if left.is_set() else heeded
            with trio.move_on_after(min(self.settings.lease_s / 3, 1.0)):
                if left is heeded:
                    await trio.sleep_forever()
                await left.wait()

    def _may_lead(self) -> bool:
        if self._stopping or self._reader.trouble:
            return False
        # Who led before the engine was away goes on where it was; nobody else has so much of the tape.
        first = self._engine.opened <= 1
        return first or trio.current_time() - self._engine.opened_s >= _GRACE_S

    async def _spell_of_leading(self) -> None:
        """Lead until another node does, or this one stops.

        Raises:
            BaseExceptionGroup: of EngineError, FencedError, NotLeaderError: why it came to nothing, or ended.
        """
        reader = self._reader
        with trio.CancelScope() as self._spell:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_lease, nursery.cancel_scope)
                leading, writer = await self._take_over()
                bus = Bus()
                bus.add(leading.outlet)
                reader.feed_from(lambda: writer.last)
                try:
                    async with self._lead(leading.tape, leading.board, leading.ledger, bus) as ingest:
                        self._ingest, self._writer, self._leading = ingest, writer, leading
                        self.leads = True
                        self.takeovers += 1
                        nursery.start_soon(leading.outlet.run)
                        nursery.start_soon(self._listen, leading, ingest)
                        said = {"event": "leads", "seq": leading.tape.head}
                        _log.info("this node leads: it takes data in from seq %d on", leading.tape.head, extra=said)
                        with trio.CancelScope() as self._writing:
                            await writer.run()
                        await trio.sleep_forever()
                finally:
                    self.leads = False
                    self._ingest = self._writer = self._leading = None
                    reader.unfeed()

    async def _keep_lease(self, spell: trio.CancelScope) -> None:
        while True:
            await trio.sleep(self.settings.lease_s / 3)
            try:
                holder = await self._engine.hold(self.token, self.settings.lease_s)
            except EngineError:  # it is tried again; meanwhile nothing can be written, by nobody
                continue
            if holder != self.token:
                _log.warning("this node leads no more: %s does", _node_of(holder), extra={"event": "fenced"})
                spell.cancel(reason="another node leads")
                return

    # ---- how a node takes over ---------------------------------------------------------------------------------------

    async def _take_over(self) -> tuple[Leading, Writer]:
        """Have all that is in the engine, and a tape of one's own that goes on from there.

        Raises:
            EngineError, FencedError, NotLeaderError
        """
        overview, reader = await self._caught_up(), self._reader
        seed, skip, now_ms = overview.last is None, 0, self._clock.now_ms()
        if reader.begun:
            tape, board, ledger = await self._copy()
            before = tape.head
            if seed or not reader.left.is_set():
                all_said = [said for _, _, said in read_all(overview.nodes, overview.now_ms)]
                skip = max([before, *(said.seq for said in all_said if said.epoch == tape.epoch)]) + SKIP
                tape.skip_to(skip)
            why = f"node {self.name} took over, and goes on with the tape"
            ledger.record("cluster", "", reader.newest_ms or now_ms, now_ms, reason=why)
        else:
            seed, before = True, 0
            tape, board, ledger = Tape(*self._bounds), Board(self._catalogue(), now_ms), Ledger()
            ledger.record("restart", "", now_ms, now_ms, reason="the tape of the cluster begins here")
        leading = Leading(tape, board, ledger, Outlet(tape, board, ledger), self.token, self.name)
        writer = Writer(
            self._engine,
            leading,
            lease_s=self.settings.lease_s,
            stream_bytes=self.settings.stream_bytes,
            acknowledged=reader.feed,
        )
        if seed:
            await writer.seed()
        else:
            found = [each for each in reader.log if overview.first is None or each[0] >= overview.first]
            claim = Part(before, [], dict(board.states()), ledger.dump(), skip=skip)
            await writer.take_over(found, found[0][1] if found else before, claim)
        return leading, writer

    async def _caught_up(self) -> Overview:
        """Wait until the replica has all that is in the engine; nobody writes there any more.

        Raises:
            EngineError
        """
        reader = self._reader
        while True:
            overview = await self._engine.report("", b"")
            if overview.last is None or not overview.epoch:
                # Nothing, or a tape whose writing was cut short: nobody can read that.
                return msgspec.structs.replace(overview, last=None)
            if reader.last is not None:
                same = reader.replica.tape.epoch == overview.epoch
                if same and reader.last == overview.last:
                    return overview
                if not same or reader.last > overview.last:
                    reader.lose("the engine lost the end of the tape")
            await trio.sleep(0.02)

    async def _copy(self) -> tuple[Tape, Board, Ledger]:
        """A tape like the replica's, in steps, with its board and ledger. The messages themselves are shared."""
        replica, now_ms = self._reader.replica, self._clock.now_ms()
        start, found = copying.origin(replica.tape), copying.standing(replica.tape)
        tape = copying.begun(start, *self._bounds)
        for at in range(0, len(found), _STRETCH):
            for entry in found[at : at + _STRETCH]:
                tape.place(entry)
            await trio.lowlevel.checkpoint()
        copying.ended(tape, start)
        board, ledger = Board(replica.board.catalogue, now_ms), Ledger()
        board.follow(replica.board.told())
        board.lead(now_ms)
        ledger.load(replica.ledger.dump())
        return tape, board, ledger

    @property
    def _bounds(self) -> tuple[int, int]:
        tape = self._reader.replica.tape
        return tape.max_entries, tape.max_bytes

    # ---- what nodes tell each other ----------------------------------------------------------------------------------

    async def _listen(self, leading: Leading, ingest: Ingest) -> None:
        """As the leader, heed what nodes tell."""
        after = "0-0"
        while True:
            try:
                told = await self._engine.told(after)
                for _, data in told:
                    up = read_up(data)
                    for note in up.notes if up is not None else ():
                        leading.ledger.note(
                            note.cause,
                            note.channel,
                            self._clock.now_ms(),
                            count=note.count,
                            messages=note.messages,
                            reason=note.reason,
                        )
                    if up is not None and up.test:
                        ingest.broadcast(up.test)
                if told:
                    after = told[-1][0]
                    await self._engine.heeded(after)
            except EngineError:
                await trio.sleep(_AGAIN_S)

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
            ups = [Up(self.name, test=test) for test in self._tests] + ([Up(self.name, noted)] if noted else [])
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
                overview = await self._engine.report(self.name, encode(self._say()))
                self._learn(overview)
            except EngineError:
                await trio.sleep(_AGAIN_S)
                continue
            await trio.sleep(_REPORT_S)

    def _say(self) -> Said:
        tape = self._reader.replica.tape
        return Said(
            self.token,
            self.settings.role,
            self.state,
            self._version,
            tape.epoch,
            tape.head,
            self._clients(),
            self._since,
            self._reader.trouble or self._cut_off_told,
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
            said.token != self.token and age_s < NAMED_TWICE_S
            for _, age_s, said in read_all({self.name: overview.was}, overview.now_ms)
        )
        # Once may be the process that ran as this node before.
        self._named_twice = self._named_twice + 1 if twice else 0
        remark = ""
        if self._named_twice > 1:
            remark = f"another node is called {self.name} too: give each a name of its own, by [cluster] node"
            if not self.remark:
                _log.error("%s", remark)
        self.remark = remark

    async def _watch(self) -> None:
        """Find out when this node does not hear how the channels are, and tell."""
        away_ms = 0
        while True:
            await trio.sleep(_WATCH_S)
            why = self._cut_off_now()
            if why != self._cut_off_told:
                self._cut_off_told = why
                (_log.warning if why else _log.info)(
                    "%s", why or "the tape is followed again", extra={"event": "cut_off", "reason": why}
                )
                self._cut_off(why)
            leading = self._leading
            if leading is None:
                away_ms = 0
            elif self._engine_is_away():
                away_ms = away_ms or self._clock.now_ms()
            elif away_ms:
                reason = "the engine that carries the tape did not answer: clients had to wait"
                leading.ledger.record("cluster", "", away_ms, self._clock.now_ms(), reason=reason)
                away_ms = 0

    def _engine_is_away(self) -> bool:
        return trio.current_time() - self._engine.heard_s > AWAY_S

    def _cut_off_now(self) -> str:
        engine = self._engine
        if self._engine_is_away():
            how = f": it {engine.trouble}" if engine.trouble else ""
            return f"the engine that carries the tape has not answered for {AWAY_S:g} s{how}"
        if self._reader.trouble:
            return self._reader.trouble
        if not self.leads and trio.current_time() - self._leaderless_s > AWAY_S:
            return "no node of the cluster takes data in just now"
        if not self._reader.begun:
            return "the tape has not been read from the engine yet"
        return ""

    # ---- what is told of it ------------------------------------------------------------------------------------------

    @property
    def state(self) -> NodeState:
        """What this node does."""
        if self.leads:
            return "leads"
        if self._cut_off_told:
            return "cut off" if self._reader.begun else "starts"
        if not self._reader.begun:
            return "starts"
        return "stands by" if self.settings.ingests else "follows"

    @property
    def leader(self) -> str:
        """The name of the node that leads; "" if none is known."""
        return "" if self.overview is None else _node_of(self.overview.leader)

    @property
    def head(self) -> int:
        """The newest position that is known of."""
        own = self._reader.replica.tape.head
        last = None if self.overview is None else self.overview.last
        return own if last is None else max(own, last.seq)

    def nodes(self) -> tuple[NodeReport, ...]:
        """All nodes, this one as it is now."""
        own = reported(self.name, 0, self._say(), self.head, self.name if self.leads else "")
        others: list[NodeReport] = []
        if self.overview is not None:
            late_s = trio.current_time() - self._reported_s
            for name, age_s, said in read_all(self.overview.nodes, self.overview.now_ms):
                if name != self.name:
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
        reader, writer = self._reader, self._writer
        samples.value("tickerd_cluster_leads", "1 if this node leads.", self.leads)
        samples.value("tickerd_cluster_cut_off", "1 if clients are told that all is stale.", bool(self._cut_off_told))
        led = self.overview is not None and bool(self.overview.leader)
        samples.value("tickerd_cluster_led", "1 if some node leads.", led)
        lag = max(0, self.head - reader.replica.tape.head)
        samples.value("tickerd_cluster_lag", "Positions that this node lacks of what is in the engine.", lag)
        present = sum(node.state != "gone" for node in self.nodes())
        samples.value("tickerd_cluster_nodes", "Nodes that were heard of.", present)
        samples.count("tickerd_cluster_takeovers", "How often this node took over.", self.takeovers)
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


def _node_of(token: str) -> str:
    return token.partition(" ")[0]
