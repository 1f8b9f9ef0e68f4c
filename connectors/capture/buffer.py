"""What waits for the disk: bounded in bytes, and told of what did not fit. On the hot path, so it does little.

`Buffer.put` is called by connectors' taps, on the event loop; `Buffer.take` hands everything over to be written, and
`lines_of` makes lines of it, in the recorder's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from connectors.capture.journal import HOUR_MS, Chunk, Journal
from connectors.capture.lines import Line, Lost, seconds, written, written_frames
from connectors.capture.tap import Tap

ENTRY_BYTES: Final = 100
"""What an entry takes beside what came, about."""

SPARE_BYTES: Final = 256 * 1024
"""What is no frame may fill the buffer by so much more: without it the frames around it cannot be read."""

FULL: Final = "the buffer was full: the disk was too slow"


class Frames(msgspec.Struct, frozen=True, gc=False):
    """Frames that came together on a connection."""

    payloads: Sequence[bytes]
    received_ms: int
    connection: int


class Loss(msgspec.Struct):
    """What of a connector was dropped and is not told in its file yet; times are ms since 1970."""

    from_ms: int
    to_ms: int
    frames: int = 0
    bytes: int = 0


class BufferedTap(Tap):
    """What one connector says goes into the buffer.

    Attributes:
        journal: its files; the thread's.
        loss: what was dropped of it.
        unwritten: lines that could not be written: the next try writes these first. The thread's.
        ending: why nothing more will come; "" while it may.
        is_over: whether that is written, too.
    """

    def __init__(self, buffer: Buffer, journal: Journal) -> None:
        super().__init__()
        self.journal = journal
        self.loss: Loss | None = None
        self.unwritten: list[Chunk] = []
        self.ending = ""
        self.is_over = False
        self._buffer = buffer

    def frames(self, connection: int, payloads: Sequence[bytes], received_ms: int) -> None:
        """See `Tap`."""
        size = sum(map(len, payloads))
        self._buffer.put(self, Frames(payloads, received_ms, connection), size, len(payloads))

    def end(self, reason: str) -> None:
        """See `Tap`."""
        self.ending = reason

    def put(self, line: Line, size: int = 0) -> None:
        """See `Tap`."""
        self._buffer.put(self, line, size, 0)


Entry: TypeAlias = tuple[BufferedTap, Frames | Line]


class Buffer:
    """The entries that wait.

    Attributes:
        most_bytes: how much may wait, or be on its way to the disk.
        held_bytes: how much does.
        dropped: how many frames, and lines that are none, did not fit.
    """

    def __init__(self, most_bytes: int, trouble: Callable[[], str]) -> None:
        """`trouble` says why nothing is written just now; "" where that is not known."""
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self.dropped = 0
        self._trouble = trouble
        self._entries: list[Entry] = []
        self._bytes = 0

    def put(self, tap: BufferedTap, entry: Frames | Line, size: int, frames: int) -> None:
        """Keep something of `size` bytes, or drop it where there is no room. `frames` is how many frames it is."""
        size += ENTRY_BYTES
        if self.held_bytes + size > self.most_bytes + (0 if frames else SPARE_BYTES):
            self._drop(tap, entry, size, frames)
            return
        if tap.loss is not None:
            self._tell_loss(tap, tap.loss)
        self._entries.append((tap, entry))
        self.held_bytes += size
        self._bytes += size

    def take(self, taps: Iterable[BufferedTap]) -> tuple[list[Entry], int]:
        """All entries, and how many bytes of the buffer they take until `release`; what was dropped is told last."""
        if self.held_bytes <= self.most_bytes:
            for tap in taps:
                if tap.loss is not None:
                    self._tell_loss(tap, tap.loss)
        entries, size = self._entries, self._bytes
        self._entries, self._bytes = [], 0
        return entries, size

    def release(self, size: int) -> None:
        """What was taken is written."""
        self.held_bytes -= size

    def has(self, tap: BufferedTap) -> bool:
        """Whether anything of it waits."""
        return any(waiting is tap for waiting, _ in self._entries)

    def _drop(self, tap: BufferedTap, entry: Frames | Line, size: int, frames: int) -> None:
        at_ms = entry.received_ms if isinstance(entry, Frames) else entry.at_ms
        loss = tap.loss
        if loss is None:
            loss = tap.loss = Loss(at_ms, at_ms)
        loss.to_ms = at_ms
        # A line that is no frame is something that was received all the same.
        loss.frames += frames or 1
        loss.bytes += size - ENTRY_BYTES
        self.dropped += frames or 1

    def _tell_loss(self, tap: BufferedTap, loss: Loss) -> None:
        tap.loss = None
        lost = Lost(loss.frames, loss.bytes, loss.from_ms, loss.to_ms, self._trouble() or FULL)
        self._entries.append((tap, Line(seconds(loss.to_ms), lost=lost)))
        self.held_bytes += ENTRY_BYTES
        self._bytes += ENTRY_BYTES


def lines_of(entries: Iterable[Entry]) -> dict[BufferedTap, list[Chunk]]:
    """The lines of these, by connector, and of each hour by themselves."""
    found: dict[BufferedTap, list[tuple[int, list[Chunk]]]] = {}
    for tap, entry in entries:
        chunk = _chunk(entry)
        hour = chunk.from_ms // HOUR_MS
        groups = found.setdefault(tap, [])
        if groups and groups[-1][0] == hour:
            groups[-1][1].append(chunk)
        else:
            groups.append((hour, [chunk]))
    return {tap: [group[0].join(group[1:]) for _, group in groups] for tap, groups in found.items()}


def _chunk(entry: Frames | Line) -> Chunk:
    if isinstance(entry, Frames):
        text = written_frames(entry.payloads, entry.received_ms, entry.connection)
        return Chunk(text, entry.received_ms, entry.received_ms, frames=len(entry.payloads))
    lost = 0 if entry.lost is None else entry.lost.frames
    at_ms = entry.at_ms
    opened, closed = int(entry.opened is not None), int(entry.closed is not None)
    return Chunk(written(entry), at_ms, at_ms, opened=opened, closed=closed, lost=lost)
