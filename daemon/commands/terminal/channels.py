"""`tickerd channels`: the daemon's channels and their states, as a table or as JSON lines.

On a terminal a channel is one line in a window of any width, and why it is not well stands in a line below it. In a
pipe each is one line, with everything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from daemon.commands.terminal.catalogue import fetch_lines, fetch_reports
from daemon.commands.terminal.columns import Column, Layout
from daemon.commands.terminal.peer import Peer, clean
from daemon.commands.terminal.table import STYLES, seconds
from protocol.answers import ChannelReport

_UNBOUNDED: Final = 100_000
"""Columns of what is no terminal: nothing is left out there."""

_FEW: Final = 28
"""Cells that the instruments of a channel take; those that are left out are counted."""

_WHOLE_MARKET: Final = "whole market"

_COLUMNS: Final = (
    Column("channel", 90, least=8),
    Column("source", 20),
    Column("kind", 40),
    Column("instruments", 50, least=8),
    Column("every", 30, right=True),
    Column("state", 100),
    Column("age", 80, right=True),
)


async def channels(peer: Peer, say: Callable[[str], None], *, json: bool) -> None:
    """Print them.

    Raises:
        CommandFailed: no answer, or not the one of a tickerd.
    """
    if json:
        for each in await fetch_lines(peer):
            say(each)
        return
    reports = await fetch_reports(peer)
    is_terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if is_terminal else _UNBOUNDED)
    with console.capture() as printed:
        for line in listing(reports, console.width, compact=is_terminal):
            console.print(line, soft_wrap=True)
    say(printed.get().rstrip("\n"))


def listing(reports: Sequence[ChannelReport], width: int, *, compact: bool) -> list[Text]:
    """The headings and the channels in so many cells; `compact`: with few instruments, and reasons below."""
    rows = [_cells(each, compact=compact) for each in reports]
    layout = Layout(_COLUMNS, rows, width)
    lines = [layout.head]
    for each, row in zip(reports, rows, strict=True):
        lines += layout.lines(row)
        if compact and (reason := _reason(each)):
            lines.append(Text(f"  {reason}", "dim"))
    return lines


def _cells(report: ChannelReport, *, compact: bool) -> list[Text]:
    state = Text(report.state, STYLES.get(report.state, ""))
    if not compact and (reason := _reason(report)):
        state.append(f" {reason}", "default")
    names = [clean(name) for name in report.instruments] or [_WHOLE_MARKET]
    return [
        Text(clean(report.name), "bold"),
        Text(clean(report.source)),
        Text(clean(report.kind)),
        Text(_few(names) if compact else " ".join(names)),
        Text("push" if report.cadence_s is None else seconds(report.cadence_s)),
        state,
        Text("never" if report.age_s is None else seconds(report.age_s)),
    ]


def _reason(report: ChannelReport) -> str:
    """Why the channel, or one of its instruments, is not well; "" where all is."""
    return clean(report.reason) if report.state != "live" or report.topics else ""


def _few(names: Sequence[str]) -> str:
    """As many names as there is room for, and how many there are beside them."""
    shown = list(names)
    while len(shown) > 1 and cell_len(" ".join(shown)) > _FEW:
        shown.pop()
    left_out = len(names) - len(shown)
    return " ".join([*shown, f"+{left_out}"] if left_out else shown)
