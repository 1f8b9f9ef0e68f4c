"""A recording as one sequence of items: all connections together, in the order in which things were received. Blocking.

The same recording gives the same items, however fast they are taken: everything goes by the recorded times. What is
due without a line (the best levels of a book that may be told every so often) comes at the moment at which it is due.

Who begins in the middle (`from_ms`) is given what was before as far as it matters: a book needs everything since its
connection was opened, which is played without a word up to that moment.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from math import ceil, inf
from pathlib import Path
from typing import Final

import msgspec

from connectors.capture.lines import Header, Line, seconds
from connectors.capture.reading import RecordedFile, Series, load
from connectors.replay.build import Builder, SilentStage, channels_of
from connectors.replay.items import Item, Missing, Played, Stage
from protocol.channels import Channel
from protocol.kinds import KINDS, TopicState, View

LEAD_MS: Final = 60_000
"""Who has no book needs what came so long before."""

FAR_MS: Final = 3_600_000
"""Unless its connection was opened not much longer ago than this."""

BREAKS_OFF: Final = "the recording breaks off: the daemon was killed, or its machine"


class Span(msgspec.Struct, frozen=True):
    """From when to when, ms since 1970."""

    from_ms: int
    to_ms: int


class Source:
    """A recording that can be played.

    Attributes:
        series: of each connection.
        whole: from its first to its last line.
    """

    def __init__(self, folder: Path) -> None:
        """Read what there is.

        Raises:
            RecordingError: it is none, or cannot be read.
        """
        self.series = load(folder)
        self.whole = Span(
            min(series.files[0].begin_ms for series in self.series),
            max(file.end_ms for series in self.series for file in series.files[-1:]),
        )
        self._ends_ms: dict[int, int] = {}

    def channels(self) -> list[Channel]:
        """All channels, as they were configured last, with all instruments that they ever had.

        Raises:
            RecordingError: a header cannot be used.
        """
        found: dict[str, Channel] = {}
        for series in self.series:
            for file in series.files:
                for channel in channels_of(file.header, file.path):
                    before = found.get(channel.name)
                    had = () if before is None else before.instruments
                    every = tuple(dict.fromkeys([*had, *channel.instruments]))
                    found[channel.name] = msgspec.structs.replace(channel, instruments=every)
        return list(found.values())

    def end_of_run_ms(self, run: int) -> int:
        """When the last line of a run was written, over all connections."""
        if run not in self._ends_ms:
            files = (file for series in self.series for file in series.files if file.header.run == run)
            self._ends_ms[run] = max((file.end_ms for file in files), default=0)
        return self._ends_ms[run]


class _Reader:
    """The lines of one series, from some file and piece on."""

    def __init__(self, source: Source, series: Series, number: int, piece: int) -> None:
        self.file = series.files[number]
        self.stage: Stage = SilentStage()
        self.held: Header | None = None
        self.ended_ms: int | None = None
        self.why = ""
        """When its run ended, and why: until the next one begins."""
        self._chunks = self._all(source, series, number, piece)
        self._lines: list[Line] = []
        self._at = 0

    def peek(self) -> Line | None:
        """The next line; None at the end."""
        while self._at == len(self._lines):
            chunk = next(self._chunks, None)
            if chunk is None:
                return None
            self._lines, self._at = chunk, 0
        return self._lines[self._at]

    def step(self) -> None:
        """That one is done."""
        self._at += 1

    def together(self, line: Line, payload: bytes) -> list[bytes]:
        """The payloads of this frame and of those behind it that came with it; all of them are done."""
        lines, at, moment, connection = self._lines, self._at + 1, line.recv_ts, line.conn
        payloads = [payload]
        while at < len(lines):
            other = lines[at]
            if other.recv_ts != moment or other.conn != connection:
                break
            more = other.payload
            if more is None:
                break
            payloads.append(more)
            at += 1
        self._at = at
        return payloads

    def _all(self, source: Source, series: Series, number: int, piece: int) -> Iterator[list[Line]]:
        files = series.files
        for at in range(number, len(files)):
            file = self.file = files[at]
            after = files[at + 1] if at + 1 < len(files) else None
            if piece:
                yield [Line(seconds(_from_ms(files, at, piece)), record=file.header)]
            ended = False
            for lines in file.lines(piece):
                ended = any(line.end is not None for line in lines[-1:])
                yield lines
            piece = 0
            if not ended and (after is None or after.header.run != file.header.run):
                yield [Line(seconds(max(source.end_of_run_ms(file.header.run), file.end_ms)), end=BREAKS_OFF)]


class Playback:
    """One playing of a recording: iterate over it once."""

    def __init__(
        self,
        source: Source,
        from_ms: int | None = None,
        to_ms: int | None = None,
        series: Sequence[Series] | None = None,
    ) -> None:
        """Up to `to_ms`, which belongs to it; None: from the beginning, or to the end. `series`: only these."""
        whole = source.whole
        self.span = Span(
            whole.from_ms if from_ms is None else from_ms,
            whole.to_ms if to_ms is None else min(to_ms, whole.to_ms),
        )
        self._has_begun = from_ms is None
        self._builder = Builder()
        self._readers: list[_Reader] = []
        for one in source.series if series is None else series:
            begun = _begin(one, from_ms)
            if begun is not None:
                self._readers.append(_Reader(source, one, *begun))
        self._dues: list[float] = [inf] * len(self._readers)
        self._due_ms = inf

    def __iter__(self) -> Iterator[Played]:
        """All items with their times, which never fall.

        Raises:
            RecordingError: a file cannot be read, or not be played.
        """
        to_ms = self.span.to_ms
        for at_ms, items in self._moments():
            if at_ms > to_ms:
                return
            if self._has_begun:
                for item in items:
                    yield at_ms, item

    def _restated(self, at_ms: int) -> list[Item]:
        return [item for reader in self._readers for item in reader.stage.restated(at_ms)]

    def _moments(self) -> Iterator[tuple[int, list[Item]]]:
        """What comes of each line, and of what is due between lines; before the first how all was until then."""
        heap = [(line.recv_ts, number) for number, reader in enumerate(self._readers) if (line := reader.peek())]
        heapq.heapify(heap)
        now_ms = 0
        while heap:
            _, number = heap[0]
            reader = self._readers[number]
            # As long as no other is before it, the heap need not be asked.
            until_s, other = min(heap[1:3], default=(inf, 0))
            while (line := reader.peek()) is not None:
                moment = line.recv_ts
                if moment > until_s or (moment == until_s and number > other):
                    break
                at_ms = round(moment * 1000)
                # A clock that was set back does not turn the time.
                if at_ms > now_ms:
                    now_ms = at_ms
                if not self._has_begun and now_ms >= self.span.from_ms:
                    yield from self._ticks(self.span.from_ms)
                    self._has_begun = True
                    yield self.span.from_ms, self._restated(self.span.from_ms)
                if self._due_ms <= now_ms:
                    yield from self._ticks(now_ms)
                frame = line.frame
                if frame is not None:
                    items = reader.stage.frames(line.conn, reader.together(line, frame.encode()), now_ms)
                else:
                    items = self._played(reader, line, now_ms)
                due_ms = reader.stage.due_ms
                if due_ms != self._dues[number]:
                    self._dues[number] = due_ms
                    self._due_ms = min(self._dues)
                if items:
                    yield now_ms, items
            if line is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (line.recv_ts, number))
        yield from self._ticks(self.span.to_ms)

    def _ticks(self, until_ms: int) -> Iterator[tuple[int, list[Item]]]:
        while self._due_ms <= until_ms:
            due_ms = self._due_ms
            number = self._dues.index(due_ms)
            stage = self._readers[number].stage
            at_ms = ceil(due_ms)
            yield at_ms, stage.tick(at_ms)
            self._dues[number] = max(stage.due_ms, due_ms + 1)
            self._due_ms = min(self._dues)

    def _played(self, reader: _Reader, line: Line, at_ms: int) -> list[Item]:
        payload = line.payload
        if payload is not None:
            return reader.stage.frames(line.conn, reader.together(line, payload), at_ms)
        reader.step()
        if line.record is not None:
            return self._begun(reader, line.record, at_ms)
        if line.end is not None:
            reader.ended_ms, reader.why = at_ms, line.end
            return reader.stage.gone(f"nothing was recorded: {line.end}")
        return reader.stage.take(line, at_ms)

    def _begun(self, reader: _Reader, header: Header, at_ms: int) -> list[Item]:
        """A file begins: the same connection goes on, or another run of it begins."""
        before, reader.held = reader.held, header
        if before == header and reader.ended_ms is None:
            return []
        found: list[Item] = []
        if before is not None and before.run != header.run and reader.ended_ms is not None:
            found.append(Missing(before.carries, reader.ended_ms, at_ms, 0, reader.why))
        reader.ended_ms = None
        reader.stage = self._builder.stage(header, reader.file.path)
        return found


def _begin(series: Series, from_ms: int | None) -> tuple[int, int] | None:
    """The file and the piece with which a series is to begin; None where it has ended before."""
    if from_ms is None:
        return 0, 0
    files = series.files
    if files[-1].end_ms < from_ms:
        return None
    last = max((number for number, file in enumerate(files) if file.begin_ms <= from_ms), default=0)
    opened = _opened(files, last, from_ms)
    has_books = any(_is_book(values) for values in files[last].header.channels)
    if opened is not None and (has_books or _from_ms(files, *opened) >= from_ms - FAR_MS):
        return opened
    return _before(files, last, from_ms - LEAD_MS)


def _is_book(values: dict[str, object]) -> bool:
    kind = KINDS.get(str(values.get("kind", "")))
    return kind is not None and (kind.state is TopicState.DELTA or kind.view in (View.BOOK, View.DEPTH))


def _opened(files: list[RecordedFile], last: int, from_ms: int) -> tuple[int, int] | None:
    """Where all connections that were there then had been opened; None where that was not recorded in this run.

    Which ones these are is told by the last frames before that; then only pieces in which any was opened are read.
    """
    missing: set[int] | None = None
    for number in range(last, -1, -1):
        file = files[number]
        if file.header.run != files[last].header.run:
            return None
        for at in range(len(file.pieces) - 1, -1, -1):
            index = file.pieces[at].index
            if index is None or index.from_ms > from_ms or not (missing is None or index.opened):
                continue
            opened: set[int] = set()
            spoke: dict[int, None] = {}
            for line in (line for part in file.piece(at) for line in part if line.at_ms <= from_ms):
                if line.opened is not None:
                    opened.add(line.conn)
                elif line.closed is not None:
                    spoke.pop(line.conn, None)
                elif line.frame is not None or line.binary is not None:
                    spoke[line.conn] = None
            if missing is None and spoke:
                missing = set(spoke)
            if missing is not None:
                missing -= opened
                if not missing:
                    return number, at
    return None


def _from_ms(files: list[RecordedFile], number: int, piece: int) -> int:
    index = files[number].pieces[piece].index
    return files[number].begin_ms if index is None else index.from_ms


def _before(files: list[RecordedFile], last: int, at_ms: int) -> tuple[int, int]:
    """The last piece that begins before that."""
    for number in range(last, -1, -1):
        for piece in range(len(files[number].pieces) - 1, -1, -1):
            if _from_ms(files, number, piece) <= at_ms:
                return number, piece
        if number and files[number - 1].header.run != files[last].header.run:
            return number, 0
    return 0, 0
