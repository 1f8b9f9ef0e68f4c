"""A minute of a running demo, seen by a client of all its channels, while other tests run."""

import contextlib
import json
import threading
import time
from typing import Any

from websockets.sync.client import connect

MINUTE_S = 60.0


class Minute(threading.Thread):
    """What such a client got: each message, with the time it came."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.seen: list[tuple[float, Any]] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with connect(f"ws://localhost:{self.port}/ws", max_size=None) as websocket:
                websocket.send('{"type":"subscribe","channels":["*"]}')
                deadline_s = time.monotonic() + MINUTE_S
                while (left_s := deadline_s - time.monotonic()) > 0:
                    with contextlib.suppress(TimeoutError):
                        text = websocket.recv(timeout=left_s)
                        self.seen.append((time.time(), json.loads(text)))
        except BaseException as failure:
            self.failure = failure
