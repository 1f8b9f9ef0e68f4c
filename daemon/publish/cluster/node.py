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
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import msgspec
import trio

from connectors.base import leaves
from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.publish.bus import Bus
from daemon.publish.cluster.engine import Engine, FencedError, NotLeaderError, Overview
from daemon.publish.cluster.reader import Reader
from daemon.publish.cluster.reports import node_of, read_all, read_up
from daemon.publish.cluster.settings import Cluster
from daemon.publish.cluster.trouble import EngineError
from daemon.publish.cluster.writer import Leading, Writer
from daemon.publish.outlet import Outlet
from daemon.publish.parts import Part
from daemon.tape import copying
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from protocol.channels import Catalogue

SKIP: Final = 1_000_000
"""So far beyond the last known position a new leader goes on: more than was ever under way to an engine."""

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
        leads: whether this node leads.
        takeovers: how often it took over.
        leading: what it has while it leads, and `writer` what writes it; None else.
    """

    def __init__(
        self,
        settings: Cluster,
        engine: Engine,
        reader: Reader,
        clock: WallClock,
        *,
        catalogue: Callable[[], Catalogue],
        lead: Lead,
    ) -> None:
        """Set up.

        Args:
            settings: `[cluster]`.
            engine: the link to the engine.
            reader: follows the tape there.
            clock: the wall clock.
            catalogue: the channels of this node's configuration, for a tape that begins.
            lead: begins to take data in.
        """
        self.settings = settings
        self.name = settings.node_name
        self.token = f"{self.name} {secrets.token_urlsafe(6)}"
        self.leads = False
        self.takeovers = 0
        self.leading: Leading | None = None
        self.writer: Writer | None = None
        self._engine = engine
        self._reader = reader
        self._clock = clock
        self._catalogue = catalogue
        self._lead = lead
        self._ingest: Ingest | None = None
        self._writing = trio.CancelScope()
        self._spell = trio.CancelScope()
        self._stopping = False

    # ---- tasks -------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow, and lead whenever that is to be, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._engine.run)
            nursery.start_soon(self._reader.run)
            if self.settings.ingests:
                nursery.start_soon(self._take_turns)
            task_status.started()

    async def stop(self) -> None:
        """Stop leading, if this node does, so that the next one can begin at once. The caller sets a deadline."""
        self._stopping = True
        writer, ingest, leading = self.writer, self._ingest, self.leading
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
                        self._ingest, self.writer, self.leading = ingest, writer, leading
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
                    self._ingest = self.writer = self.leading = None
                    reader.unfeed()

    async def _keep_lease(self, spell: trio.CancelScope) -> None:
        while True:
            await trio.sleep(self.settings.lease_s / 3)
            try:
                holder = await self._engine.hold(self.token, self.settings.lease_s)
            except EngineError:  # it is tried again; meanwhile nothing can be written, by nobody
                continue
            if holder != self.token:
                _log.warning("this node leads no more: %s does", node_of(holder), extra={"event": "fenced"})
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
            await writer.seed(reader.last)
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

    # ---- what nodes tell the leader ----------------------------------------------------------------------------------

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
