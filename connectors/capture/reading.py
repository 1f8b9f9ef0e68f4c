"""Reads a recording: which files there are, what is in each, and its lines from some moment on. Blocking.

A recording is a folder: in it, or in folders in it, lie files that a recorder wrote (`connectors.capture.journal`), or
plain ones (`.jsonl`) of the same lines. All files of one connector make a *series*, in the order of their beginnings.
What cannot be read is passed over, and told as `lost` in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from connectors.capture.journal import SUFFIX
from connectors.capture.lines import FORMAT, Header, Line, Lost, decoder, seconds
from connectors.capture.pieces import Damaged, Index, Piece, pieces, unpacked

PLAIN: Final = ".jsonl"
_CHUNK_BYTES: Final = 256 * 1024
"""So much of a plain file is read at once."""


class RecordingError(Exception):
    """A folder is no recording that can be read. The text names the file and what is expected of it."""


class RecordedFile:
    """One file.

    Attributes:
        path: where it lies.
        header: its first line.
        damage: why a part of it cannot be read; "" as far as is known.
    """

    def __init__(self, path: Path, header: Header, begin_ms: int) -> None:
        """Use `opened`."""
        self.path = path
        self.header = header
        self.begin_ms = begin_ms
        self.damage = ""

    @cached_property
    def size(self) -> int:
        """How large it is, in bytes."""
        return self.path.stat().st_size

    @cached_property
    def pieces(self) -> list[Piece]:
        """Its pieces, each with an index; that of an unfinished one is made by reading it. Raises: RecordingError."""
        found: list[Piece] = []
        try:
            with self.path.open("rb") as file:
                if self.path.suffix == PLAIN:
                    return [Piece(0, self.size, _indexed(self._plain()))]
                for piece in pieces(file):
                    index = piece.index or _indexed(self._unpacked(piece))
                    if index is not None:
                        found.append(Piece(piece.begin, piece.end, index))
        except Damaged as error:
            self.damage = str(error)
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot be read: {error.strerror}") from None
        return found

    @cached_property
    def end_ms(self) -> int:
        """When its last line was written, ms since 1970."""
        return max((piece.index.to_ms for piece in self.pieces if piece.index is not None), default=self.begin_ms)

    @cached_property
    def counted(self) -> Index:
        """What is in it."""
        parts = [piece.index for piece in self.pieces if piece.index is not None]
        names = ("frames", "opened", "closed", "lost", "raw_bytes")
        return Index(self.begin_ms, self.end_ms, *(sum(getattr(part, name) for part in parts) for name in names))

    def lines(self, piece: int = 0) -> Iterator[list[Line]]:
        """Its lines from that piece on, some at a time. A part that cannot be read is a line `lost`.

        Raises:
            RecordingError: the file cannot be read at all.
        """
        try:
            if self.path.suffix == PLAIN:
                yield from self._plain()
                return
            for one in self.pieces[piece:]:
                yield from self._unpacked(one)
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot be read: {error.strerror}") from None
        if self.damage:
            yield [_lost(self.end_ms, f"{self.path.name}: {self.damage}")]

    def piece(self, number: int) -> Iterator[list[Line]]:
        """The lines of one piece alone. Raises: RecordingError."""
        try:
            yield from self._plain() if self.path.suffix == PLAIN else self._unpacked(self.pieces[number])
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot be read: {error.strerror}") from None

    def _unpacked(self, piece: Piece) -> Iterator[list[Line]]:
        at_ms = self.begin_ms if piece.index is None else piece.index.from_ms
        try:
            with self.path.open("rb") as file:
                for text in unpacked(file, piece):
                    yield self._decoded(text, at_ms)
        except Damaged as error:
            yield [_lost(at_ms, f"{self.path.name}: {error}")]

    def _plain(self) -> Iterator[list[Line]]:
        rest = b""
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                text = rest + chunk
                cut = text.rfind(b"\n") + 1
                rest = text[cut:]
                if cut:
                    yield self._decoded(text[:cut], self.begin_ms)
        if rest:
            yield self._decoded(rest, self.begin_ms)

    def _decoded(self, text: bytes, at_ms: int) -> list[Line]:
        try:
            return decoder.decode_lines(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        found: list[Line] = []
        for row in text.splitlines():
            try:
                found.append(decoder.decode(row))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                at_ms = found[-1].at_ms if found else at_ms
                found.append(_lost(at_ms, f"{self.path.name}: a line cannot be read: {error}"))
        return found


class Series:
    """All files of one connector, in order.

    Attributes:
        venue: as in the registry.
        connector: the connection's name.
        files: at least one.
    """

    def __init__(self, venue: str, connector: str, files: list[RecordedFile]) -> None:
        self.venue = venue
        self.connector = connector
        self.files = files


def load(folder: Path) -> list[Series]:
    """All series of a recording, by venue and connector.

    Raises:
        RecordingError: it is none, or a file of it cannot be read.
    """
    if not folder.is_dir():
        raise RecordingError(f"{folder}: not a folder; expected one with recordings")
    series: dict[tuple[str, str], list[RecordedFile]] = {}
    for path in sorted([*folder.glob(f"*{PLAIN}*"), *folder.glob(f"*/*{PLAIN}*")]):
        if path.name.endswith((PLAIN, SUFFIX)) and path.is_file():
            file = opened(path)
            if file is not None:
                series.setdefault((file.header.venue, file.header.connector), []).append(file)
    if not series:
        what = f"*{SUFFIX} in a folder for each venue, or *{PLAIN}, whose first line is a header"
        raise RecordingError(f"{folder}: no recording is there; expected {what}")
    return [
        Series(*key, sorted(files, key=lambda file: (file.begin_ms, file.path.name)))
        for key, files in sorted(series.items())
    ]


def opened(path: Path) -> RecordedFile | None:
    """A file of a recording; None where it has no header: it is empty, or something else.

    Raises:
        RecordingError: it cannot be read, or is of a later version.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == PLAIN:
                text = file.readline()
            else:
                first = next(pieces(file), None)
                text = b"" if first is None else next(unpacked(file, first), b"")
        line = decoder.decode(text.partition(b"\n")[0])
    except (Damaged, msgspec.DecodeError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error.strerror}") from None
    header = line.record
    if header is None:
        return None
    if header.format > FORMAT:
        what = f"this version of tickerd reads {FORMAT}"
        raise RecordingError(f"{path}: a recording of format {header.format}; {what}")
    return RecordedFile(path, header, line.at_ms)


def _indexed(chunks: Iterator[list[Line]]) -> Index | None:
    """What lines hold; None where there are none."""
    frames = opened = closed = lost = 0
    from_ms: int | None = None
    to_ms = 0
    for lines in chunks:
        for line in lines:
            from_ms = line.at_ms if from_ms is None else min(from_ms, line.at_ms)
            to_ms = max(to_ms, line.at_ms)
            frames += line.frame is not None or line.binary is not None
            opened += line.opened is not None
            closed += line.closed is not None
            lost += 0 if line.lost is None else line.lost.frames
    return None if from_ms is None else Index(from_ms, to_ms, frames, opened, closed, lost)


def _lost(at_ms: int, why: str) -> Line:
    return Line(seconds(at_ms), lost=Lost(0, 0, at_ms, at_ms, why))
