"""What `tickerd watch` prints where it cannot draw: JSON lines for a pipe, plain ones for a dumb terminal.

Lines are written without waiting in a system call that Ctrl-C could not interrupt: nobody may be reading a pipe. Where
the reader goes away, that is the end, and a clean one.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from typing import Final

import trio

from daemon.client import Data, Gap, Lost, Received, Reconnecting, Resumed, Status, Subscription
from daemon.commands.terminal.contents import Best, instrument
from daemon.commands.terminal.headline import words
from daemon.commands.terminal.peer import clean

_STDOUT: Final = 1
_PIPE_BYTES: Final = 4096
"""A pipe that is writable takes as much at once (POSIX: PIPE_BUF, at least 512; Linux: 4096)."""

_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")


async def plain_lines(subscription: Subscription, remark: str = "") -> None:
    """A line for each price that is new, and for whatever else happens; before the first one `remark`, if there is one.

    Raises:
        ClientError: see `Subscription`.
    """
    changes = Changes()
    async with subscription:
        async for received in subscription:
            # Not before: where the subscription is refused, that is the only line.
            if remark and not await _write(f"{remark}\n".encode()):
                return
            remark = ""
            line = changes.line(received)
            if line and not await _write(f"{line}\n".encode()):
                return


class Changes:
    """What is new in each message."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, object], str] = {}
        self._best = Best()

    def line(self, received: Received) -> str:
        """One plain line, safe to print; "" where nothing is new."""
        match received:
            case Data():
                topic: tuple[str, object] = (received.connector_id, received.instrument)
                name = f" {instrument(received)}" if instrument(received) else ""
                line = f"{received.connector_id}{name} {self._best.shown(received) or 'a new message'}"
            case Status():
                topic = (received.channel, None)
                line = f"{received.channel} is {received.state}{f': {received.reason}' if received.reason else ''}"
            case _:
                return words(received)
        if self._seen.get(topic) == line:
            return ""
        self._seen[topic] = line
        return clean(line)


async def json_lines(subscription: Subscription, remark: str = "") -> None:
    """One message per line, as the daemon sent it; events of the connection, and a remark, go to standard error.

    Raises:
        ClientError: see `Subscription`; inside a group.
    """
    kind = os.fstat(_STDOUT).st_mode
    async with trio.open_nursery() as nursery, subscription:
        if stat.S_ISFIFO(kind):
            nursery.start_soon(_wait_unread, nursery.cancel_scope)
        escaped = os.isatty(_STDOUT)
        async for received in subscription:
            if remark:
                sys.stderr.write(f"tickerd: {remark}\n")
                remark = ""
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
