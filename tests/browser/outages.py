"""What can go wrong around a page: venues that die, and a line to the daemon that is cut or goes dead."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.process.running import Process, tickerd, wait_ready

QUICK = {
    "TICKERD_SERVER__PORT": "0",
    "TICKERD_SUPERVISOR__BACKOFF_BASE_S": "0.2",
    "TICKERD_SUPERVISOR__BACKOFF_CAP_S": "1",
    "TICKERD_SUPERVISOR__BREAKER_AFTER": "1000",
    "TICKERD_LIMITS__PING_EVERY_S": "1",
}
"""The daemon with short waits, so that a test need not wait long. It gives no venue up, however slow that is."""


@contextmanager
def behind_venues(folder: Path, *arguments: str) -> Iterator[tuple[Process, Process]]:
    """The venues (`tickerd simulate` with these arguments) and the daemon before them, each a process of its own."""
    config = folder / "venues.toml"
    with tickerd("simulate", "--port", "0", "--config-out", str(config), *arguments) as venues:
        assert venues.port
        with tickerd("run", "--config", str(config), environ=QUICK) as daemon:
            wait_ready(daemon.port)
            yield venues, daemon


class Line:
    """A way to the daemon that can be cut (`cut`) or go dead without a word (`frozen`).

    Attributes:
        port: where browsers connect to.
        frozen: while set, nothing comes through; what was on its way is lost, and the connection with it.
        closed: while set, nobody is let in.
    """

    def __init__(self, target: int) -> None:
        self.frozen = threading.Event()
        self.closed = threading.Event()
        self._target = target
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.closed.is_set():
                    client.close()
                    continue
                daemon = socket.create_connection(("127.0.0.1", self._target))
                self._sockets |= {client, daemon}
                for ends in ((client, daemon), (daemon, client)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.frozen.is_set():
                    sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End every connection there is."""
        while self._sockets:
            each = self._sockets.pop()
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def end(self) -> None:
        """End everything."""
        self._listener.close()
        self.cut()


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A line to this port."""
    line = Line(port)
    try:
        yield line
    finally:
        line.end()
