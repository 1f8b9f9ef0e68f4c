"""Writes the lines of one connector to its files: one for each hour, compressed, and readable up to the last flush.

Blocking, and by one thread at a time: `connectors.capture.recorder` keeps it off the hot path.

A file that exists is never touched again by another run: where there is one of the hour, another one with a number is
made beside it. So is it where the file has vanished or been replaced while it was written: what is written then begins
with a header again. Lines that could not be written are kept for the next try; whoever calls bounds how many.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from time import gmtime, strftime
from typing import Final

import msgspec

from connectors.capture.lines import Header, Line, seconds, written
from connectors.capture.pieces import Index, packed
from connectors.capture.zstd import zstd

SUFFIX: Final = ".jsonl.zst"
HOUR_MS: Final = 3_600_000
PIECE_BYTES: Final = 1024 * 1024
PIECE_MS: Final = 60_000
"""A piece of more lines, or over a longer time, is ended: who looks for a moment unpacks one at least."""

_LEVEL: Final = 1
"""Higher ones cost more time than they save room: frames repeat what is in the last ones anyway."""
_MODE: Final = 0o640


class Chunk(msgspec.Struct):
    """Lines that go into one file together.

    `text` are the lines; the others are what is counted of them, see `Index`.
    """

    text: bytes
    from_ms: int
    to_ms: int
    frames: int = 0
    opened: int = 0
    closed: int = 0
    lost: int = 0

    def join(self, others: Sequence[Chunk]) -> Chunk:
        """This one and those that follow it."""
        whole = [self, *others]
        return Chunk(
            b"".join(chunk.text for chunk in whole),
            min(chunk.from_ms for chunk in whole),
            max(chunk.to_ms for chunk in whole),
            *(sum(getattr(chunk, name) for chunk in whole) for name in ("frames", "opened", "closed", "lost")),
        )


class Journal:
    """The files of one connector.

    Attributes:
        path: the file that is being written; None while there is none.
        written_bytes: what was written, compressed.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        """`folder` is that of all recordings, which must be there; the venue's is made below it."""
        self.path: Path | None = None
        self.written_bytes = 0
        self._folder = folder
        self._header = header
        self._hour = -1
        self._descriptor = -1
        self._packer = zstd.ZstdCompressor(_LEVEL)
        self._index: Index | None = None
        self._good_bytes = 0
        """How long the file is, as far as it was written whole."""
        self._unwritten = b""
        """Compressed, and to be written before all else."""
        self._given: Chunk | None = None
        """What `_unwritten` comes from, where it is lines."""

    def write(self, chunk: Chunk) -> None:
        """Write these lines, all of one hour; a crash loses them no more.

        Raises:
            OSError: they could not be written; then this very chunk is to be given again.
        """
        hour = chunk.from_ms // HOUR_MS
        if self._descriptor >= 0 and not self._is_there():
            self._abandon()
        if self._descriptor >= 0 and self._unwritten:
            self._put(b"")
            if self._given is chunk:
                return
        if self._descriptor >= 0 and hour != self._hour:
            self.end_piece()
            self._abandon()
        if self._descriptor < 0:
            self._open(hour, chunk.from_ms)
        self._note(chunk)
        self._given = chunk
        self._put(self._packer.compress(chunk.text, zstd.ZstdCompressor.FLUSH_BLOCK))
        self.settle(chunk.to_ms)
        self._given = None

    def settle(self, now_ms: int) -> None:
        """End the piece if it is large, or old.

        Raises:
            OSError: that could not be written; the next try does it.
        """
        index = self._index
        if index is not None and (index.raw_bytes >= PIECE_BYTES or now_ms - index.from_ms >= PIECE_MS):
            self.end_piece()

    def end_piece(self) -> None:
        """End the zstd frame, and write what it holds behind it.

        Raises:
            OSError: that could not be written; the next try does it.
        """
        if self._index is not None and self._descriptor >= 0:
            index, self._index = self._index, None
            self._put(self._packer.flush(zstd.ZstdCompressor.FLUSH_FRAME) + packed(index))

    def close(self, reason: str, now_ms: int) -> None:
        """Nothing more will be recorded: say so, and close the file.

        Raises:
            OSError: that could not be written; the file is closed all the same.
        """
        try:
            if self._descriptor >= 0:
                # In the hour of the file, however long ago that was.
                at_ms = min(max(now_ms, self._hour * HOUR_MS), (self._hour + 1) * HOUR_MS - 1)
                self.write(Chunk(written(Line(seconds(now_ms), end=reason)), at_ms, at_ms))
                self.end_piece()
        finally:
            self._abandon()

    def _open(self, hour: int, now_ms: int) -> None:
        """Begin a file, with the header."""
        if not self._folder.is_dir():
            # It is not made: it may be a disk that is not mounted.
            raise FileNotFoundError(2, "No such folder", str(self._folder))
        folder = self._folder / self._header.venue
        folder.mkdir(exist_ok=True)
        name = f"{self._header.connector}_{strftime('%Y-%m-%dT%H', gmtime(hour * HOUR_MS // 1000))}"
        for number in count(1):
            path = folder / (f"{name}{SUFFIX}" if number == 1 else f"{name}-{number}{SUFFIX}")
            try:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
                break
            except FileExistsError:
                continue
        self.path, self._hour, self._good_bytes = path, hour, 0
        self._packer = zstd.ZstdCompressor(_LEVEL)
        self._index, self._unwritten, self._given = None, b"", None
        text = written(Line(seconds(now_ms), record=self._header))
        self._note(Chunk(text, now_ms, now_ms))
        try:
            self._put(self._packer.compress(text, zstd.ZstdCompressor.FLUSH_BLOCK))
        except OSError:
            # An empty file is no use to anybody, and the next try begins with another one.
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise

    def _note(self, chunk: Chunk) -> None:
        before = self._index
        if before is None:
            before = Index(chunk.from_ms, chunk.to_ms)
        self._index = Index(
            from_ms=min(before.from_ms, chunk.from_ms),
            to_ms=max(before.to_ms, chunk.to_ms),
            frames=before.frames + chunk.frames,
            opened=before.opened + chunk.opened,
            closed=before.closed + chunk.closed,
            lost=before.lost + chunk.lost,
            raw_bytes=before.raw_bytes + len(chunk.text),
        )

    def _put(self, data: bytes) -> None:
        """Write compressed bytes, after those that could not be written before. Raises: OSError."""
        self._unwritten += data
        os.ftruncate(self._descriptor, self._good_bytes)
        at = self._good_bytes
        view = memoryview(self._unwritten)
        while view:
            count = os.pwrite(self._descriptor, view, at)
            view, at = view[count:], at + count
        self.written_bytes += len(self._unwritten)
        self._good_bytes, self._unwritten = at, b""

    def _is_there(self) -> bool:
        """Whether the path still leads to the file that is open."""
        if self.path is None:
            return False
        ours = os.fstat(self._descriptor)
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def _abandon(self) -> None:
        """Close the file as it is."""
        descriptor, self._descriptor = self._descriptor, -1
        self._index, self._unwritten, self._given, self.path = None, b"", None, None
        if descriptor >= 0:
            os.close(descriptor)
