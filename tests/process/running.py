"""The daemon as its users have it: a process of its own, spoken to over real sockets."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

START_S = 20.0
"""How long a process may take to listen, on a machine that is busy."""


COMMAND = (sys.executable, "-m", "daemon")
"""The daemon of this checkout."""


TALKATIVE = {"TICKERD_LOG__LEVEL": "info"}
"""The demo says less by itself, so that its own words stay on the screen; tests read the log of it."""


class Process:
    """One `tickerd` process, and what it printed so far."""

    def __init__(
        self, *arguments: str, environ: dict[str, str] | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**TALKATIVE, **os.environ, **(environ or {})},
        )
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.ports: list[int] = []

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("listening on "):
                self._listening.set()
        self._listening.set()

    @property
    def port(self) -> int:
        """The first port it listens on. Fails the test where it does not."""
        assert self._listening.wait(START_S), f"not listening after {START_S} s: {self.lines}"
        for line in self.lines:
            found = re.fullmatch(r"listening on https?://.*:(\d+)", line)
            if found is not None:
                return int(found[1])
        raise AssertionError(f"it does not listen: {self.lines}")

    def stop(self, number: int = signal.SIGTERM, within_s: float = 15.0) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.wait(within_s)

    def wait(self, within_s: float = 15.0) -> int:
        """The exit code, once it has ended; everything it printed is in `lines`."""
        code = self.process.wait(within_s)
        self._reader.join(5)
        return code

    def end(self) -> None:
        """Make sure it is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def tickerd(
    *arguments: str, environ: dict[str, str] | None = None, command: Sequence[str] = COMMAND
) -> Iterator[Process]:
    """A `tickerd` process that is certainly gone afterwards."""
    process = Process(*arguments, environ=environ, command=command)
    try:
        yield process
    finally:
        process.end()


def wait_ready(port: int, within_s: float = START_S, prefix: str = "") -> None:
    """Until every channel is live. `prefix`: what the paths of that daemon begin with."""
    deadline = time.monotonic() + within_s
    channels: list[dict[str, object]] = []
    while time.monotonic() < deadline:
        channels = json.loads(httpx.get(f"http://127.0.0.1:{port}{prefix}/channels").content)["channels"]
        if all(channel["state"] == "live" for channel in channels):
            return
        time.sleep(0.05)
    raise AssertionError(f"not all channels are live after {within_s} s: {channels}")


@contextmanager
def mute_client(port: int) -> Iterator[None]:
    """A websocket client that never reads anything, and so never answers a close."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert connection.recv(12) == b"HTTP/1.1 101"
        yield
