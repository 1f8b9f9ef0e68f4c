"""Notifies systemd of the daemon's state: sd_notify(3), by datagrams to the socket that `NOTIFY_SOCKET` names.

Nothing here waits, and nothing here can end the daemon: a datagram that cannot be sent is dropped, and only the first
failure in a row is logged. The newest undelivered "ready", "reloading" or "stopping" is kept, and is sent before the
next status: systemd kills a daemon that never reports that it is ready.

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
    """The link to systemd; without one, every method does nothing.

    Attributes:
        watchdog_s: the longest time between two calls of `watchdog`; None if systemd does not watch.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address`: a path, or `@` and an abstract name (unix(7)); "" if there is no systemd."""
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
        """From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; an invalid value is logged and ignored."""
        address = environ.get("NOTIFY_SOCKET", "")
        if address and (address[0] not in "/@" or len(address) == 1):
            _log.warning("NOTIFY_SOCKET=%r is neither a path nor @ and a name: systemd is not notified", address)
            address = ""
        return cls(address, _watchdog_s(environ))

    @property
    def is_heard(self) -> bool:
        """Whether there is a link to systemd."""
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
        """The daemon has begun to stop. This ends systemd's watchdog, and the status no longer changes."""
        self._tell("STOPPING=1\nSTATUS=saying goodbye to the clients")
        self._stopping = True

    def status(self, text: str) -> None:
        """Set the one line that `systemctl status` shows. An unchanged text is not sent again."""
        if self._owed:
            self._send(self._owed)
        if text != self._status and not self._stopping and self._send(f"STATUS={' '.join(text.split())}"):
            self._status = text

    def watchdog(self) -> None:
        """Report that all is well: systemd's watchdog starts its time anew."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; later calls do nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, state: str) -> None:
        self._owed = state
        self._send(state)

    def _send(self, text: str) -> bool:
        """Send one datagram. Returns whether it was sent; True if there is no systemd."""
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
    """The watchdog's time, if it is meant for this process: sd_watchdog_enabled(3)."""
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text or (pid and pid != str(os.getpid())):
        return None
    if not text.isdecimal() or int(text) == 0:
        _log.warning("WATCHDOG_USEC=%r is not a time in microseconds: systemd's watchdog is not fed", text)
        return None
    return int(text) / 1e6
