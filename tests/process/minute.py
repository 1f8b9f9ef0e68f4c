"""A minute of a running demo, seen by a client of all its channels, while other tests run.

The client is a process of its own: hypothesis, which runs meanwhile, wants the process's random numbers for itself.
"""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

MINUTE_S = 60.0


class Minute:
    """What such a client gets; the daemon still listens on `port`."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self._file = folder / "minute.jsonl"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.minute", str(port), str(self._file)], stdin=subprocess.DEVNULL
        )

    def seen(self) -> list[tuple[float, Any]]:
        """Each message, with the time it came, once the minute has passed. Fails the test where the client failed."""
        assert self._process.wait(MINUTE_S + 30) == 0
        return [(at_s, message) for at_s, message in map(json.loads, self._file.read_text().splitlines())]

    def end(self) -> None:
        """Make sure that the client is gone."""
        self._process.kill()
        self._process.wait(5)


def _record(port: int, path: Path) -> None:
    with path.open("w") as file, connect(f"ws://localhost:{port}/ws", max_size=None) as websocket:
        websocket.send('{"type":"subscribe","channels":["*"]}')
        deadline_s = time.monotonic() + MINUTE_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                text = str(websocket.recv(timeout=left_s))
                file.write(f"[{time.time()}, {text}]\n")


if __name__ == "__main__":
    _record(int(sys.argv[1]), Path(sys.argv[2]))
