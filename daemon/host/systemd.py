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
from collections.abc import Mapping
from typing import Final, Self

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
