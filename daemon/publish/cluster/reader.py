"""The reader: follows the stream in the engine, and keeps a replica of the tape up with it.

At its start it reads the state that is stored in the engine, and then the stream from its oldest entry on. So a node
that has just begun can answer for all that the stream has. Where the stream cannot be followed any further, because
what comes next has been let go, or lacks messages that this node has shown, the replica begins anew: its clients are
sent away first, come back, and are told what became of their positions.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

import msgspec
import trio

from daemon.host.clock import WallClock
from daemon.publish import parts
from daemon.publish.cluster.engine import Engine, Stored
from daemon.publish.cluster.entry import Carried, EntryId, StrangeEntryError, beyond
from daemon.publish.cluster.trouble import EngineError
from daemon.publish.parts import Part
from daemon.publish.replica import Replica
from daemon.publish.sequencer import Passes

_MOST: Final = 500
"""So many entries are asked for at once, at most."""

_ANSWER_BYTES: Final = 524_288
"""About so large an answer is to be: a question may not take long, and the line to the engine may be thin."""

_TRIES: Final = 8
"""So often the same stretch is asked for in a row, before the whole stream is read anew."""


_AGAIN_S: Final = 0.25
"""The wait before the engine is asked again."""

_log: Final = logging.getLogger(__name__)


class LostError(Exception):
    """The stream cannot be followed from where the replica is. Its text says why, as a sentence for clients."""


class _Count:
    """How many entries are asked for at once, by how large those were that came."""

    def __init__(self) -> None:
        self.now = 1

    def took(self, entries: list[Carried]) -> None:
        """These came."""
        size_bytes = sum(each.size_bytes for each in entries)
        if size_bytes:
            fitting = len(entries) * _ANSWER_BYTES // size_bytes
            self.now = max(1, min(fitting, 2 * self.now, _MOST))

    def failed(self) -> None:
        """Nothing came: that may have been too much."""
        self.now = max(1, self.now // 4)


class Reader:
    """Follows the stream.

    Attributes:
        replica: the tape as it is in the stream.
        last: the newest entry that it has; None before it has the first state.
        whole: set when it has had the first state.
        left: whether the leader has said there that it stops.
        trouble: why the stream cannot be read although the engine answers; "" if it can.
        log: the newest entries of the stream: id, the head before, size.
        fed: whether the writer of this process hands over what it writes, so that the engine need not be asked.
        entries, size_bytes: how much was taken.
        anew: how often the replica began anew.
        newest_ms: when the newest entry came, ms since 1970; 0 if none has come.
        passes: how passes are spaced; a reload sets it.
        held_s: how long to rest at least after taking something, while those who are served from here are behind.
    """

    def __init__(
        self,
        engine: Engine,
        replica: Replica,
        clock: WallClock,
        dismiss: Callable[[str], Awaitable[None]],
        stream_bytes: int,
    ) -> None:
        """`dismiss` sends all clients away, for this reason; when it returns none has a place on the tape."""
        self.replica = replica
        self.passes = Passes()
        self.last: EntryId | None = None
        self.left = trio.Event()
        self.whole = trio.Event()
        self.log: deque[tuple[EntryId, int, int]] = deque()
        self.fed = False
        self.trouble = ""
        self.entries = self.size_bytes = self.anew = self.newest_ms = 0
        self._engine = engine
        self._clock = clock
        self._dismiss = dismiss
        self._stream_bytes = 2 * stream_bytes
        self._log_bytes = 0
        self.held_s: Callable[[], float] = _not_at_all
        self._lost = ""
        self._unfed = trio.Event()
        self._written: Callable[[], EntryId | None] = _nothing
        self._count_at_once = _Count()

    @property
    def begun(self) -> bool:
        """Whether the replica has a tape."""
        return self.last is not None

    async def run(self) -> None:
        """Follow the stream until cancelled. While this is fed, wait."""
        while True:
            while self.fed:
                await self._unfed.wait()
            await self.follow_once()
            self.fed = self.last is not None and self.last == self._written()

    def feed_from(self, written: Callable[[], EntryId | None]) -> None:
        """The writer of this process hands over all that it writes after `written`, from now on."""
        self._written = written

    def lose(self, why: str) -> None:
        """The stream is not what the replica has: begin anew as soon as that is possible."""
        self._lost = why
        if self.fed:
            self.fed = False
            self._unfed.set()
            self._unfed = trio.Event()

    def unfeed(self) -> None:
        """Nobody hands over any more: read."""
        self._written, self.fed = _nothing, False
        self._unfed.set()
        self._unfed = trio.Event()

    def feed(self, carried: Carried) -> None:
        """Take an entry that the writer of this process has written. Where it does not fit, this reads by itself."""
        if self.last is None or not self.fed:
            return
        try:
            self.take([carried])
        except (LostError, StrangeEntryError):
            self.fed = False
            self._unfed.set()
            self._unfed = trio.Event()

    async def follow_once(self) -> None:
        """Take what comes next, or wait for it a short while; begin anew where that must be."""
        try:
            if self._lost:
                raise LostError(self._lost)
            if self.last is None:
                if not await self.load("the tape of the cluster begins here"):
                    await trio.sleep(_AGAIN_S)
                return
            entries = await self._engine.tail(self.last, self._count_at_once.now)
            self._count_at_once.took(entries)
            began_s = time.perf_counter()
            self.take(entries)
            took_s = time.perf_counter() - began_s
            await trio.sleep(max(self.passes.rest_s(took_s), self.held_s()))
        except EngineError:  # the engine has logged it, and tells it
            self._count_at_once.failed()
            await trio.sleep(_AGAIN_S)
        except StrangeEntryError as error:
            self._stuck(str(error))
            await trio.sleep(1.0)
        except LostError as lost:
            self.last, self._lost = None, ""
            await self._load_until_done(str(lost))

    async def _load_until_done(self, why: str) -> None:
        _log.warning("the tape is read anew from the engine: %s", why, extra={"event": "anew"})
        while True:
            try:
                if await self.load(why):
                    return
            except (EngineError, StrangeEntryError, LostError) as error:
                if not isinstance(error, EngineError):
                    self._stuck(str(error))
            await trio.sleep(_AGAIN_S)

    def _stuck(self, why: str) -> None:
        if why != self.trouble:
            self.trouble = why
            _log.error("the tape in the engine cannot be read: %s", why)

    async def load(self, why: str) -> bool:
        """Read all that the engine has, and begin anew with it. Returns whether there was anything.

        If cancelled, the replica is as it was.

        Raises:
            EngineError, StrangeEntryError
            LostError: the stream changed meanwhile; try again.
        """
        stored = await self._engine.stored()
        if stored is None:
            return False
        found, last = await self._read(stored)
        await self._dismiss(why)
        # No checkpoint from here on: nobody may come in between.
        self.replica.become(found)
        self.last = last
        self.whole.set()
        self.trouble = ""
        self.anew += 1
        said = {"event": "tape", "epoch": found.tape.epoch, "head": self.replica.tape.head}
        _log.info(
            "the tape is there, from the engine: %d messages up to %d", len(found.tape), found.tape.head, extra=said
        )
        return True

    async def _read(self, stored: Stored) -> tuple[Replica, EntryId]:
        try:
            beginning = parts.decode_beginning(stored.data)
        except (msgspec.DecodeError, ValueError) as error:
            raise StrangeEntryError(f"the stored state is of another version of tickerd: {error}") from None
        tape, gone_of = self.replica.tape, beginning.origin.gone_of
        try:
            found = Replica(beginning, tape.max_entries, tape.max_bytes, self._clock)
        except ValueError as error:
            raise StrangeEntryError(f"the stored state is of another version of tickerd: {error}") from None
        last: EntryId | None = None
        whole = False
        while True:
            floor, entries = await self._page(last)
            if not stored.floor <= floor <= (stored.floor if last is None else max(last.seq, stored.floor)):
                raise LostError("the engine let go of entries while they were read")
            if last is None:
                self.log.clear()
                self._log_bytes = 0
            if not entries:
                if last is None or last < stored.at:
                    raise LostError("the engine lacks entries that its state is about")
                if not whole:
                    found.ready()
                return found, last
            old = [each for each in entries if each.id <= stored.at]
            _fill(found, old, gone_of)
            if len(old) < len(entries):
                if not whole:
                    found.ready()
                    whole = True
                found.take(
                    self._fitting(found, entries[len(old) :], stored.at if last is None else max(last, stored.at))
                )
            last = entries[-1].id
            self._count(entries)

    async def _page(self, after: EntryId | None) -> tuple[int, list[Carried]]:
        """The next stretch of the stream, and the floor. What was read before it need not be read again.

        Raises:
            EngineError: it was not answered several times in a row.
            StrangeEntryError
        """
        tries = 0
        while True:
            try:
                floor, entries = await self._engine.page(after, self._count_at_once.now)
            except EngineError:
                self._count_at_once.failed()
                tries += 1
                if tries == _TRIES:
                    raise
                await trio.sleep(_AGAIN_S)
            else:
                self._count_at_once.took(entries)
                return floor, entries

    def take(self, entries: list[Carried]) -> None:
        """Take entries as one pass. Those that are here already are passed over. No checkpoint.

        Raises:
            LostError: one cannot be taken; those before it are.
        """
        if entries:
            try:
                self.replica.take(self._fitting(self.replica, entries, self.last or EntryId()))
            except ValueError as error:
                raise StrangeEntryError(str(error)) from None
            finally:
                self._count(entries)
            self.last = max(entries[-1].id, self.last or EntryId())
            self.newest_ms = self._clock.now_ms()
            self._note_left(entries[-1])

    def _note_left(self, newest: Carried) -> None:
        if newest.left:
            self.left.set()
        elif self.left.is_set():
            self.left = trio.Event()

    def _count(self, entries: Iterable[Carried]) -> None:
        for each in entries:
            self.entries += 1
            self.size_bytes += each.size_bytes
            self.log.append((each.id, each.part.before, each.size_bytes))
            self._log_bytes += each.size_bytes
        while self._log_bytes > self._stream_bytes and self.log:
            self._log_bytes -= self.log.popleft()[2]

    def _fitting(self, replica: Replica, entries: Iterable[Carried], last: EntryId) -> Iterator[Part]:
        """What of these entries the replica lacks, one after the other as it takes them."""
        tape = replica.tape
        for each in entries:
            part, head = each.part, tape.head
            if each.id <= last:
                continue
            if each.epoch != tape.epoch:
                raise LostError("another tape was begun in the engine")
            if part.before < head < part.skip:
                raise LostError(f"what was sent after seq {part.before} was lost with the engine or the node that led")
            if part.before > head:
                raise LostError(f"the engine has let go of what came after seq {head}: this node was too slow")
            if each.seed and part.end > head and not each.unbroken:
                raise LostError(f"the tape was written anew, and lacks messages after seq {head}")
            yield beyond(part, head)


def _nothing() -> None:
    """Nobody writes in this process."""


def _not_at_all() -> float:
    """Nobody is behind."""
    return 0.0


def _fill(replica: Replica, entries: Iterable[Carried], gone_of: dict[str, int]) -> None:
    for each in entries:
        replica.fill(row for row in each.part.rows if row.seq > gone_of.get(row.channel, 0))
