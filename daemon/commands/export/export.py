"""`tickerd export`: plays a recording, and writes what comes of it into a table. No daemon runs; no venue is called."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from connectors.replay.items import Missing
from connectors.replay.playback import Playback, Source
from daemon.commands.export.rows import COLUMNS, Row, Rows
from daemon.commands.export.sinks import ExportError, check, opened
from daemon.commands.replay import within
from daemon.host.clock import WallClock
from protocol.channels import Channel
from protocol.kinds import KINDS

_AT_ONCE: Final = 4096
"""Rows that are written at once."""

_TOLD: Final = 256
"""Items between two reports of how far it has come."""


class Exported(msgspec.Struct, frozen=True):
    """What was exported: how many rows, of which topics; and what the user should know."""

    rows: int
    topics: int
    remarks: list[str]


def export(
    folder: Path,
    out: Path,
    *,
    kind: str,
    from_ms: int | None,
    to_ms: int | None,
    instruments: Collection[str],
    force: bool,
    progress: Callable[[float], None] = lambda _: None,
) -> Exported:
    """Write the events of one kind to a file.

    Args:
        folder: the recording.
        out: the file; its name says the format.
        kind: a kind of channel, by name, for whose messages there are `COLUMNS`.
        from_ms: where to begin; None: at the beginning.
        to_ms: where to end; None: at the end.
        instruments: only these; none: all.
        force: whether a file that is there is replaced.
        progress: told how far it has come, from 0 to 1.

    Raises:
        ExportError: the file cannot be made, or there is nothing to put into it.
        RecordingError: there is no recording, or it cannot be played.
    """
    check(out, force=force)
    source = Source(folder)
    from_ms, to_ms = within(source, folder, from_ms, to_ms)
    wanted = _wanted(source.channels(), kind, instruments, folder)
    names = {channel.name for channel in wanted}
    carrying = [
        series
        for series in source.series
        if any(names.intersection(file.header.carries or names) for file in series.files)
    ]
    playback = Playback(source, from_ms, to_ms, carrying)
    rows, clock = Rows({channel.name: channel.exchange for channel in wanted}), WallClock()
    remarks: list[str] = []
    topics: set[tuple[str, str]] = set()
    gaps: list[str] = []
    span, count = playback.span, 0
    length_ms = max(1, span.to_ms - span.from_ms)
    with opened(out, COLUMNS[KINDS[kind].view], remarks) as sink:
        waiting: list[Row] = []
        for number, (at_ms, item) in enumerate(playback):
            if isinstance(item, Missing):
                gaps.append(_gap(item, names, clock))
            elif isinstance(item, list):
                for event in item:
                    if event.channel in names and (not instruments or event.instrument in instruments):
                        topics.add((event.channel, event.instrument))
                        waiting += rows.of(event)
                if len(waiting) >= _AT_ONCE:
                    count += len(waiting)
                    sink.add(waiting)
                    waiting = []
            if number % _TOLD == 0:
                progress((at_ms - span.from_ms) / length_ms)
        count += len(waiting)
        sink.add(waiting)
    progress(1.0)
    return Exported(count, len(topics), [*remarks, *filter(None, gaps)])


def _wanted(channels: Sequence[Channel], kind: str, instruments: Collection[str], folder: Path) -> list[Channel]:
    """The channels of that kind. Raises: ExportError, where there are none, or an instrument is not theirs."""
    found = [channel for channel in channels if channel.kind.name == kind]
    if not found:
        had = sorted({channel.kind.name for channel in channels if channel.kind.view in COLUMNS})
        raise ExportError(
            f"{folder} has no channel of kind {kind}; it has: {', '.join(had) or 'none that can be a table'}"
        )
    known = {name for channel in found for name in channel.instruments}
    unknown = [name for name in instruments if name not in known]
    if unknown:
        raise ExportError(
            f"--instrument {unknown[0]}: no {kind} of it were recorded; allowed: {', '.join(sorted(known))}"
        )
    return found


def _gap(missing: Missing, names: Collection[str], clock: WallClock) -> str:
    """One line about what is missing of these channels; "" where it is none of them."""
    concerned = [name for name in missing.channels if name in names]
    if not concerned:
        return ""
    what = f"{missing.frames} frames of its connection" if missing.frames else "everything"
    when = f"from {clock.iso(missing.from_ms)} to {clock.iso(missing.to_ms)}"
    return f"{', '.join(concerned)}: {what} {when} was not recorded: {missing.reason}"
