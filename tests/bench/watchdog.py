"""systemd's watchdog, as the daemon knows it: a socket that `WATCHDOG=1` is sent to (sd_notify(3))."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path


class Watchdog:
    """Listens.

    Attributes:
        environ: what systemd would tell the daemon.
    """

    def __init__(self, listening: socket.socket, path: Path, watchdog_s: float) -> None:
        self.environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}
        self._socket = listening
        self._fed_s: list[float] = []

    def listen(self) -> None:
        """Until the socket is shut down."""
        while said := self._socket.recv(4096):
            if said == b"WATCHDOG=1":
                self._fed_s.append(time.monotonic())

    def gap_s(self, from_s: float) -> float:
        """The longest time between two feedings since then, on the monotonic clock; one that is open counts too."""
        fed_s = list(self._fed_s)
        before = [each for each in fed_s if each <= from_s][-1:]
        times = [*(before or [from_s]), *(each for each in fed_s if each > from_s), time.monotonic()]
        return max(later - sooner for sooner, later in pairwise(times))


@contextmanager
def watchdog(watchdog_s: float) -> Iterator[Watchdog]:
    """One that is there as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        path = Path(folder, "notify")
        listening.bind(str(path))
        watching = Watchdog(listening, path, watchdog_s)
        thread = threading.Thread(target=watching.listen)
        thread.start()
        try:
            yield watching
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(path))
            thread.join()
