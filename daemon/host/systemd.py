"""What systemd is told about the daemon: sd_notify(3), by datagrams to the socket that `NOTIFY_SOCKET` names.

Nothing here waits, and nothing here can end the daemon: a datagram that is not taken is dropped, and the first of a row
of failures is logged. Only the newest of "ready", "reloading" and "stopping" is kept then, and goes out ahead of the
next datagram: systemd would kill a daemon of which it never hears that it is ready.

`WATCHDOG=1` is sent by `daemon.sessions.canary`, and by nothing else.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final, Self

import msgspec
import trio

from connectors.base import State
from daemon.health.board import ChannelState

_STATUS_EVERY_S: Final = 1.0

_STATUS_BYTES: Final = 500
"""The longest status: it is one line of `systemctl status`."""

_NAMES: Final = 6
"""So many channels are named per state."""

_TOLD: Final[tuple[State, ...]] = ("stale", "reconnecting", "connecting", "down")
"""The states in which channels are named; of those that are live the count is enough."""

_log: Final = logging.getLogger(__name__)


class Notifier:
    """The way to systemd; where there is none, every method does nothing.

    Attributes:
        watchdog_s: within which time `watchdog` must be called again and again; None where systemd does not watch.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address`: a path, or a name behind an `@` (abstract, unix(7)); "" for nobody to tell."""
        self.watchdog_s = watchdog_s if address else None
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._failing = self._stopping = False
        self._owed = ""
        self._status = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say; what cannot be used is logged and left alone."""
        address = environ.get("NOTIFY_SOCKET", "")
        if address and (address[0] not in "/@" or len(address) == 1):
            _log.warning("NOTIFY_SOCKET=%r is neither a path nor a name behind an @: systemd is told nothing", address)
            address = ""
        return cls(address, _watchdog_s(environ))

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to tell."""
        return self._socket is not None

    def ready(self) -> None:
        """Started up, or reloaded: clients are served."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """The configuration is read again; `ready` must follow.

        systemd 253 and newer need the time beside it, in the same datagram, to tell this reload from an earlier one.
        """
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The daemon has begun to stop; systemd's watchdog ends with this, and the status is not changed any more."""
        self._tell("STOPPING=1\nSTATUS=saying goodbye to the clients")
        self._stopping = True

    def status(self, text: str) -> None:
        """What `systemctl status` shows: one line. The same text again is not sent again."""
        if self._owed:
            self._send(self._owed)
        if text != self._status and not self._stopping and self._send(f"STATUS={' '.join(text.split())}"):
            self._status = text

    def watchdog(self) -> None:
        """All is well: systemd's watchdog counts from here."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Tell nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, state: str) -> None:
        self._owed = state
        self._send(state)

    def _send(self, text: str) -> bool:
        """One datagram. Returns whether it was taken, or there is nobody to take it."""
        if self._socket is None:
            self._owed = ""
            return True
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:  # full, gone, or not allowed
            if not self._failing:
                _log.warning("systemd cannot be told %s: %s", text.partition("\n")[0], error.strerror or error)
            self._failing = True
            return False
        if self._failing:
            _log.info("systemd is told again")
        self._failing = False
        if text == self._owed:
            self._owed = ""
        return True


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """sd_watchdog_enabled(3): the time, where it is meant for this process."""
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text or (pid and pid != str(os.getpid())):
        return None
    if not text.isdecimal() or int(text) == 0:
        _log.warning("WATCHDOG_USEC=%r is no time in microseconds: systemd's watchdog is not fed", text)
        return None
    return int(text) / 1e6


class StatusLine:
    """The status in words, and how long it is until the next attempt of each channel that waits for one."""

    def __init__(self) -> None:
        self._attempts: dict[str, tuple[ChannelState, float]] = {}

    def words(self, clients: int, channels: Mapping[str, ChannelState], now_s: float) -> str:
        """As `serving 12 clients; 7 channels live; down: bitcoinprice, ethprice (next attempt in 12 s)`.

        To be called again and again: the wait is counted from the call in which a channel first had its state.
        """
        self._note(channels, now_s)
        live = sum(state.state == "live" for state in channels.values())
        parts = [f"serving {_count(clients, 'client')}", f"{_count(live, 'channel')} live"]
        for told in _TOLD:
            names = [name for name, state in channels.items() if state.state == told]
            if names:
                parts.append(f"{told}: {_listed(names)}{self._next_attempt(names, now_s)}")
        line = "; ".join(parts)
        return line if len(line) <= _STATUS_BYTES else f"{line[: _STATUS_BYTES - 3]}..."

    def _note(self, channels: Mapping[str, ChannelState], now_s: float) -> None:
        noted, self._attempts = self._attempts, {}
        for name, state in channels.items():
            if state.retry_in_s is not None:
                told = msgspec.structs.replace(state, last_event_ms=None, stale_after_s=None)
                before = noted.get(name)
                same = before is not None and before[0] == told
                self._attempts[name] = before if before and same else (told, now_s + state.retry_in_s)

    def _next_attempt(self, names: list[str], now_s: float) -> str:
        waits = [self._attempts[name][1] - now_s for name in names if name in self._attempts]
        wait_s = round(min(waits, default=0.0))
        if wait_s < 1:
            return ""
        return f" (next attempt in {f'{wait_s} s' if wait_s < 120 else f'{wait_s // 60} min'})"


async def publish_status(
    notifier: Notifier,
    clients: Callable[[], int],
    channels: Callable[[], Mapping[str, ChannelState]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep systemd's status line true, until cancelled: told when it changes, once a second at most.

    Returns at once where there is nobody to tell.
    """
    line = StatusLine()
    task_status.started()
    while notifier.is_heard:
        notifier.status(line.words(clients(), channels(), trio.current_time()))
        await trio.sleep(_STATUS_EVERY_S)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more
