"""`tickerd recordings`: what there is of a recording, connection by connection."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from connectors.capture.lines import Header
from connectors.capture.reading import RecordedFile, Series, load
from daemon.host.clock import WallClock

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


class Hole(msgspec.Struct, frozen=True):
    """A time of which nothing was recorded: from when to when (ISO-8601), and why."""

    start: str
    end: str
    reason: str


class Described(msgspec.Struct, frozen=True):
    """One connection's recording. Times are ISO-8601.

    Attributes:
        venue: as in the configuration.
        connector: the connection's name.
        channels: those that it carries, with their instruments.
        start: its beginning.
        end: its last line.
        files: how many there are.
        bytes: what they take.
        frames: frames that were received.
        lost: frames that were received and could not be recorded.
        gaps: when nothing was recorded in between.
    """

    venue: str
    connector: str
    channels: dict[str, list[str]]
    start: str
    end: str
    files: int
    bytes: int
    frames: int
    lost: int
    gaps: list[Hole]


def described(folder: Path) -> list[Described]:
    """What there is, by venue and connection.

    Raises:
        RecordingError: there is no recording, or it cannot be read.
    """
    return [_described(series) for series in load(folder)]


def show(folder: Path, say: Callable[[str], None], *, json: bool) -> None:
    """Say what there is: a table, or a JSON object per line.

    Raises:
        RecordingError: there is no recording, or it cannot be read.
    """
    found = described(folder)
    if json:
        for one in found:
            say(msgspec.json.encode(one).decode())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("venue", "connection", "channels", "from", "to"):
        table.add_column(name, overflow="fold")
    for name in ("frames", "lost", "gaps", "files", "size"):
        table.add_column(name, justify="right", overflow="fold")
    for one in found:
        numbers = (f"{one.frames:,}", f"{one.lost:,}", str(len(one.gaps)), str(one.files), _size(one.bytes))
        table.add_row(one.venue, one.connector, ", ".join(one.channels), one.start, one.end, *numbers)
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())
    for one in found:
        for hole in one.gaps:
            say(f"{one.connector}: nothing from {hole.start} to {hole.end}: {hole.reason}")


def _described(series: Series) -> Described:
    clock, files = WallClock(), series.files
    counted = [file.counted for file in files]
    return Described(
        venue=series.venue,
        connector=series.connector,
        channels=_carried(files[-1].header),
        start=clock.iso(files[0].begin_ms),
        end=clock.iso(max(file.end_ms for file in files)),
        files=len(files),
        bytes=sum(file.size for file in files),
        frames=sum(index.frames for index in counted),
        lost=sum(index.lost for index in counted),
        gaps=[
            Hole(clock.iso(before.end_ms), clock.iso(after.begin_ms), why_missing(before))
            for before, after in pairwise(files)
            if before.header.run != after.header.run
        ],
    )


def _carried(header: Header) -> dict[str, list[str]]:
    """The channels that it carries, as they were configured last; all of them where the header does not say."""
    channels = {str(one.get("name", "")): list(one.get("instruments", ())) for one in header.channels}
    names = header.carries or (() if header.run else tuple(channels))
    return {name: channels.get(name, []) for name in names}


def why_missing(before: RecordedFile) -> str:
    """Why nothing follows a file that is the last one of its run."""
    last = ""
    for lines in before.lines(max(0, len(before.pieces) - 1)):
        last = lines[-1].end or "" if lines else last
    return last or "the recording breaks off: the daemon was killed, or its machine"


def _size(size: float) -> str:
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == _UNITS[0] else f"{size:.1f} {unit}"
