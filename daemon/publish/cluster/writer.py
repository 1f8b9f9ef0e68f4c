"""The writer: carries what the leader's sequencer made to the engine, entry by entry, and shows it to clients then.

What clients have seen is in the engine: that is why a node's own clients, too, are shown an entry only when the engine
has taken it. One entry is on its way at a time. What is made meanwhile is merged into the next, so the rate of entries
falls where the engine is far or slow, and nothing else does.

While the engine is away, parts wait in the outlet, within its bound. If the stream ends otherwise than with what was
written last, the engine has lost entries (a failover), or all (a restart): then they are written again. Where the
outlet does not have them any more, the whole tape is, from this node's own.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import trio

from connectors.metric import Histogram
from daemon.health.board import Board
from daemon.publish import parts
from daemon.publish.cluster.engine import Engine, FencedError, NotLeaderError, Stored
from daemon.publish.cluster.entry import Carried, EntryId, fields, merged, size_bytes
from daemon.publish.cluster.trouble import EngineError
from daemon.publish.outlet import Outlet, OvertakenError
from daemon.publish.parts import Beginning, Part, listed
from daemon.tape.copying import Row, origin, standing
from daemon.tape.entry import Entry
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape

ENTRY_BYTES: Final = 1_048_576
"""So large an entry becomes at most, unless a single part is larger."""

SETTLE_S: Final = 10.0
"""So often the state is stored that a starting node needs; also when the stream is a quarter beyond its bound."""

_REMEMBERED: Final = 64
"""Of each topic the state names the positions of so many messages that have left the tape."""

_SEED_ROWS: Final = 500
_SEED_BYTES: Final = 262_144
"""Entries of a seed are not larger, unless a single message is: nodes read several of them at once."""

_AGAIN_S: Final = 0.1

_APPEND_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_log: Final = logging.getLogger(__name__)


class _Written(msgspec.Struct):
    """An entry of the stream: its id, the number of the part after it, the head before it, and its size."""

    id: EntryId
    number: int
    before: int
    size_bytes: int


class _State(msgspec.Struct):
    """A state of the tape that is to be stored when the part before `number` is written."""

    number: int
    floor: int
    first: EntryId | None
    data: bytes


class Leading(msgspec.Struct):
    """What a leader has: the tape that it makes, with its board, ledger and outlet, and the token of its lease."""

    tape: Tape
    board: Board
    ledger: Ledger
    outlet: Outlet
    token: str
    node: str


class Writer:
    """Writes one leader's tape to the stream.

    Attributes:
        last: the newest entry of the stream; None while there is none.
        entries, size_bytes: how much was written.
        appends_s: how long the engine took for an entry.
        waits_since_s: since when the engine has not taken an entry, on trio's clock; infinity if it takes them.
        again: how often entries were written again that the engine had lost.
    """

    def __init__(
        self,
        engine: Engine,
        leading: Leading,
        *,
        lease_s: float,
        stream_bytes: int,
        acknowledged: Callable[[Carried], None],
    ) -> None:
        """`acknowledged` is called for each entry that the engine has taken, in order; it must not raise."""
        self.last: EntryId | None = None
        self.entries = self.size_bytes = self.again = 0
        self.waits_since_s = math.inf
        self.appends_s = Histogram(_APPEND_BOUNDS_S)
        self._engine = engine
        self._leading = leading
        self._lease_s = lease_s
        self._stream_bytes = stream_bytes
        self._acknowledged = acknowledged
        self._number = leading.outlet.next
        self._written: deque[_Written] = deque()
        self._held_bytes = 0
        self._floor = 0
        self._state: _State | None = None
        self._settled_s = -SETTLE_S
        self._idle = trio.Event()
        self._tried: tuple[int, Carried] | None = None
        """An entry that the engine may have taken, and the number of the part after it."""
        self._newest = EntryId()
        """No follower has an id beyond this one, also of entries that the engine has lost."""

    # ---- how it begins: one of these, then `run` ---------------------------------------------------------------------

    async def take_over(self, found: list[tuple[EntryId, int, int]], floor: int, claim: Part) -> None:
        """Go on with a stream that is there: its entries as id, the head before and size; `claim` is the first new one.

        Raises:
            EngineError, FencedError, NotLeaderError: nothing was taken over.
        """
        self._written.extend(_Written(id_, -1, before, size) for id_, before, size in found)
        self._held_bytes = sum(each.size_bytes for each in self._written)
        self._floor = floor
        self.last = self._written[-1].id if self._written else None
        self._newest = self.last or EntryId()
        await self._append(claim, self._number)
        self._capture()

    async def seed(self, newest: EntryId | None = None) -> None:
        """Write the whole tape, as far as the stream is to hold it, in the place of what is there.

        `newest`: the newest entry that a follower may have, where this writer has not written it.

        Raises:
            EngineError, NotLeaderError: try again.
            FencedError: somebody else writes.
        """
        tape, outlet = self._leading.tape, self._leading.outlet
        self._newest = max(self._newest, newest or EntryId())
        await self._engine.clear(self._leading.token)
        outlet.tell()
        self._tried = None
        self.last, self._state, self._number = None, None, outlet.next
        self._written.clear()
        self._held_bytes, self._floor = 0, 0
        rows = standing(tape)
        size = 0
        for entry in reversed(rows):
            size += len(entry.text)
            if size > self._stream_bytes:
                self._floor = entry.seq
                break
        rows = [entry for entry in rows if entry.seq > self._floor]
        head, number = tape.head, self._number
        beginning = self._beginning()
        state = _State(number, self._floor, None, parts.encode(beginning))
        before = self._floor
        for stretch in _stretches(rows):
            part = Part(before, [Row.of(entry) for entry in stretch])
            await self._append(part, -1, seed=True)
            before = part.end
        # An entry in any case, which names where the tape ends: a skip may be its end. And followers have not been told
        # what the parts say beside the tape that are not written any more.
        skip = head if head > before else 0
        last = Part(before, [], beginning.states, beginning.gaps, beginning.channels, skip)
        await self._append(last, number, seed=True)
        await self._settle(state)
        _log.info("the tape was written to the engine: %d messages up to %d", len(rows), head, extra={"event": "seed"})

    # ---- then --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what comes, until cancelled. While the engine is away it waits.

        Raises:
            NotLeaderError: another node leads.
        """
        while True:
            try:
                await self._step()
            except EngineError:
                await trio.sleep(_AGAIN_S)
            except OvertakenError:
                await self._seed_until_done(
                    "the engine was away for too long, and entries that were to be written are gone"
                )
            except FencedError as fenced:
                await self._mend(fenced.last)
            except NotLeaderError as other:
                await self._hold_again(other)

    async def finish(self) -> None:
        """Wait until all that was made is in the engine. The writer must be running."""
        while self._number < self._leading.outlet.next:
            await self._idle.wait()

    async def leave(self) -> None:
        """Say in the stream that this node stops leading: the next one need not wait. `run` must have ended.

        Raises:
            EngineError, FencedError, NotLeaderError
        """
        await self._append(Part(self._leading.tape.head, []), self._number, left=True)

    async def _step(self) -> None:
        outlet = self._leading.outlet
        if self._state is None and (self._is_due() or self._held_bytes > self._stream_bytes * 5 // 4):
            self._capture()
        if self._state is not None and self._state.number <= self._number:
            state, self._state = self._state, None
            await self._settle(state)
            return
        found = outlet.kept(self._number, ENTRY_BYTES)
        if not found:
            idle, self._idle = self._idle, trio.Event()
            idle.set()
            with trio.move_on_after(1.0):
                await outlet.wait(self._number)
            return
        if self._state is not None:
            found = found[: self._state.number - self._number]
        for count, part in merged(map(parts.decode_part, found)):
            await self._append(part, self._number + count)
            self._number += count

    def _is_due(self) -> bool:
        return trio.current_time() - self._settled_s >= SETTLE_S

    def _beginning(self) -> Beginning:
        board = self._leading.board
        start = origin(self._leading.tape, self._floor, _REMEMBERED)
        return Beginning(start, listed(board.catalogue), dict(board.states()), self._leading.ledger.dump())

    def _capture(self) -> None:
        """Note the state as it is now; it is stored when all that is made by now is written."""
        self._leading.outlet.tell()
        while self._held_bytes > self._stream_bytes and len(self._written) > 1:
            gone = self._written.popleft()
            self._held_bytes -= gone.size_bytes
            self._floor = max(self._floor, gone.id.seq)
        first = self._written[0].id if self._written else None
        self._state = _State(self._leading.outlet.next, self._floor, first, parts.encode(self._beginning()))

    async def _settle(self, state: _State) -> None:
        at = self.last or EntryId()
        stored = Stored(self._leading.tape.epoch, at, state.floor, state.data)
        await self._engine.settle(self._leading.token, stored, state.first)
        self._settled_s = trio.current_time()

    async def _append(self, part: Part, number: int, *, left: bool = False, seed: bool = False) -> None:
        """Write one entry, after which the part of that number comes. While the engine does not answer, try again.

        Raises:
            FencedError, NotLeaderError
        """
        leading = self._leading
        entry = fields(part, leading.tape.epoch, leading.node, left=left, seed=seed)
        id_ = (self.last or EntryId()).then(part.end)
        if self._newest.seq == part.end:
            # Followers pass over ids that they have. This one may say more than the one that was lost.
            id_ = max(id_, self._newest.then(part.end))
        self._newest = max(self._newest, id_)
        carried = Carried(id_, leading.tape.epoch, leading.node, part, left, seed, size_bytes(entry))
        while True:
            began_s = time.perf_counter()
            try:
                await self._engine.append(leading.token, self.last, id_, entry)
                break
            except EngineError:
                self._tried = number, carried
                self.waits_since_s = min(self.waits_since_s, trio.current_time())
                await trio.sleep(_AGAIN_S)
        self.appends_s.add(time.perf_counter() - began_s)
        self._taken(number, carried)

    def _taken(self, number: int, carried: Carried) -> None:
        """The engine has the entry."""
        self._tried = None
        self.waits_since_s = math.inf
        self._written.append(_Written(carried.id, number, carried.part.before, carried.size_bytes))
        self._held_bytes += carried.size_bytes
        self.last = carried.id
        self.entries += 1
        self.size_bytes += carried.size_bytes
        self._acknowledged(carried)

    async def _mend(self, last: EntryId | None) -> None:
        """The stream ends with this entry, and not with what was written last: write again what is missing.

        Raises:
            NotLeaderError: it ends with what another node wrote.
        """
        behind, tried = self.last, self._tried
        if last is not None and tried is not None and tried[1].id == last:  # only the answer was lost
            self._taken(*tried)
            self._number = max(self._number, tried[0])
            return
        if last is not None and (behind is None or last > behind):
            raise NotLeaderError("another node, which wrote to the stream")
        while self._written and (last is None or self._written[-1].id > last):
            self._held_bytes -= self._written.pop().size_bytes
        known = self._written[-1] if self._written else None
        self.again += 1
        if last is not None and known is not None and known.id == last and known.number >= 0:
            _log.warning(
                "the engine lacks what was written after entry %s, up to %s: it is written again",
                last,
                behind,
                extra={"event": "mend"},
            )
            self.last, self._number, self._state = last, known.number, None
            return
        await self._seed_until_done(f"the engine lost the tape: it ends with {last or 'nothing'}, after {behind}")

    async def _seed_until_done(self, why: str) -> None:
        _log.warning("the tape is written anew to the engine: %s", why, extra={"event": "seed"})
        while True:
            try:
                return await self.seed()
            except (EngineError, FencedError):  # or the engine lost something just now
                await trio.sleep(_AGAIN_S)
            except NotLeaderError as other:
                await self._hold_again(other)

    async def _hold_again(self, other: NotLeaderError) -> None:
        """The lease is not ours. If nobody has it, take it: the engine may have lost it, or was away for so long.

        Raises:
            NotLeaderError: another node has it.
        """
        if other.holder:
            raise other
        try:
            holder = await self._engine.hold(self._leading.token, self._lease_s)
        except EngineError:
            await trio.sleep(_AGAIN_S)
            return
        if holder != self._leading.token:
            raise NotLeaderError(holder)


def _stretches(entries: list[Entry]) -> Iterator[list[Entry]]:
    """These entries in order, as many at once as one entry of the stream is to hold."""
    stretch: list[Entry] = []
    size_bytes = 0
    for entry in entries:
        if stretch and (len(stretch) == _SEED_ROWS or size_bytes + len(entry.payload) > _SEED_BYTES):
            yield stretch
            stretch, size_bytes = [], 0
        stretch.append(entry)
        size_bytes += len(entry.payload)
    if stretch:
        yield stretch
