"""`tickerd watch`: a live table for a person, JSON lines for a pipe.

JSON lines are written without waiting in a system call that Ctrl-C could not interrupt: nobody may be reading a pipe.
Where the reader goes away, that is the end, and a clean one.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Sequence
from typing import Final

import trio
from rich.console import Console
from rich.live import Live

from daemon.client import Client, Data, Gap, Lost, Reconnecting, Resumed, connect
from daemon.commands.terminal.peer import Peer, clean
from daemon.commands.terminal.table import Sheet, change, words
from protocol.messages import ReplayInfo

_FRAMES_PER_S: Final = 8
_HEAD_LINES: Final = 3
"""Above and below the rows: the line about the connection, the table's head, and one to spare."""

_STDOUT: Final = 1
_PIPE_BYTES: Final = 4096
"""A pipe that is writable takes as much at once (POSIX: PIPE_BUF, at least 512; Linux: 4096)."""

_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")


async def watch(peer: Peer, channels: Sequence[str], *, json: bool) -> None:
    """Show these channels until cancelled, or until the reader of standard output is gone.

    On a terminal that cannot move its cursor (`TERM` is `dumb`, `unknown` or not set) there is a line for each change
    instead of a table.

    Raises:
        ClientError: see `connect` and `Subscription`; from inside a group where it is raised by the iteration.
    """
    async with connect(peer.url, token=peer.token) as client:
        if json:
            await _lines(client, peer, channels)
        elif os.environ.get("TERM", "").lower() in ("", "dumb", "unknown"):
            await _changes(client, channels)
        else:
            await _table(client, peer, channels)


async def _changes(client: Client, channels: Sequence[str]) -> None:
    """A line for each price that is new, and for whatever else happens."""
    seen: dict[tuple[str, object], str] = {}
    replay = client.welcome.replay
    if replay and not await _write(f"{played(replay)}\n".encode()):
        return
    async with client.subscribe(*channels) as subscription:
        async for received in subscription:
            line = change(received, seen)
            if line and not await _write(f"{line}\n".encode()):
                return


def played(replay: ReplayInfo) -> str:
    """What is played, in one line that is safe to print."""
    return clean(f"a recording from {replay.from_} to {replay.to}, played at speed {replay.speed}")


async def _table(client: Client, peer: Peer, channels: Sequence[str]) -> None:
    clock = await client.ping()
    replay, title = client.welcome.replay, f"tickerd {client.welcome.server.version} at {peer.url}"
    if replay:
        title += f"  {played(replay)}"
    sheet = Sheet(title, clock.clock_offset_s, replayed=bool(replay))
    console = Console(highlight=False)
    first = trio.Event()
    async with trio.open_nursery() as nursery, client.subscribe(*channels) as subscription:
        nursery.start_soon(_draw, console, sheet, first)
        # After the first message, so that the screen does not hide a refusal.
        async for received in subscription:
            # Up to the welcome's position they are older messages, which the daemon stamped when they were new.
            is_new = isinstance(received, Data) and received.seq > client.welcome.seq
            sheet.take(received, trio.current_time(), time.time() if is_new else None)
            first.set()


async def _draw(console: Console, sheet: Sheet, first: trio.Event) -> None:
    """Draw until cancelled; the terminal is then as it was, with the last table on it."""
    await first.wait()
    try:
        # No thread of rich's own: it would draw while the sheet changes.
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                rows = max(1, console.height - _HEAD_LINES)
                live.update(sheet.draw(trio.current_time(), time.time(), rows, console.width), refresh=True)
                await trio.sleep(1 / _FRAMES_PER_S)
    finally:
        rows = max(1, console.height - _HEAD_LINES - 1)
        console.print(sheet.draw(trio.current_time(), time.time(), rows, console.width))


async def _lines(client: Client, peer: Peer, channels: Sequence[str]) -> None:
    """One message per line, as the daemon sent it; events of the connection go to standard error."""
    kind = os.fstat(_STDOUT).st_mode
    async with trio.open_nursery() as nursery, client.subscribe(*channels) as subscription:
        if stat.S_ISFIFO(kind):
            nursery.start_soon(_wait_unread, nursery.cancel_scope)
        escaped = os.isatty(_STDOUT)
        async for received in subscription:
            if isinstance(received, Reconnecting | Resumed | Lost | Gap):
                sys.stderr.write(f"tickerd: {words(received)}\n")
            elif not await _write(_line(subscription.raw, escaped=escaped)):
                break
        nursery.cancel_scope.cancel(reason="nobody reads")


def _line(raw: str, *, escaped: bool) -> bytes:
    """JSON in one line; for a terminal also without control characters."""
    # Outside of strings a line end is white space, and inside JSON has none (RFC 8259 section 7).
    line = raw.replace("\n", " ").replace("\r", " ")
    if escaped:
        line = _UNPRINTABLE.sub(_escape, line)
    return line.encode() + b"\n"


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


async def _write(line: bytes) -> bool:
    """Write to standard output. Returns False if its reader is gone."""
    while line:
        try:
            await trio.lowlevel.wait_writable(_STDOUT)
        except PermissionError:
            await trio.lowlevel.checkpoint()  # an ordinary file: there is nothing to wait for
        try:
            written = os.write(_STDOUT, line[:_PIPE_BYTES])
        except BlockingIOError:
            continue
        except BrokenPipeError:
            return False
        line = line[written:]
    return True


async def _wait_unread(scope: trio.CancelScope) -> None:
    """Cancel once the pipe's reading end is closed, also while there is nothing to write.

    That wakes a task that waits for the writing end to become readable; nothing else does.
    """
    await trio.lowlevel.wait_readable(_STDOUT)
    scope.cancel(reason="nobody reads")
