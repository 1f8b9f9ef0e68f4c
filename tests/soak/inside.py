"""The soak's daemon: `tickerd` as it is, with its tasks counted, and with a way to ask what it thinks of one client.

    python -m tests.soak.inside TASKS_FILE SOCKET FAULT run --config ...

Over a Unix socket a client is asked for by its port, and `clock SECONDS` sets the wall clock. `FAULT` is "none", or
"mute": then the hub now and then throws away all that it would write to a client from that moment on, as a daemon would
that forgets one. The soak must find that.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import trio

from daemon.fanout.hub import Hub
from daemon.host.clock import WallClock
from daemon.sessions.client import ConnectedClient
from daemon.sessions.sessions import Sessions
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from tests.observed import run_observed

_ENDED_KEPT: Final = 500
"""Of thousands: the daemon's memory is measured, and this is not its own."""

_MUTE: Final = 1 / 100
"""So likely it is for each write."""

_SPARED: Final = 31
"""The witnesses come first, and the daemon's own canary: they keep what they get."""


class Opinions:
    """What the daemon thinks of its clients, and how the last ones of them ended.

    Attributes:
        clock_ns: By how much the wall clock is wrong.
    """

    def __init__(self) -> None:
        self.clock_ns = 0
        self._sessions: Sessions | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._ports: dict[ConnectedClient, int] = {}
        self._ended: OrderedDict[int, tuple[float, str]] = OrderedDict()

    def entered(self, sessions: Sessions, client: ConnectedClient) -> None:
        """A client is in."""
        self._sessions, self._token = sessions, trio.lowlevel.current_trio_token()
        if client.stream.fd >= 0:
            with socket.socket(fileno=os.dup(client.stream.fd)) as copy:
                self._ports[client] = copy.getpeername()[1]

    def left(self, client: ConnectedClient) -> None:
        """A client is out."""
        port = self._ports.pop(client, 0)
        self._ended[port] = trio.current_time(), repr(client.ended or client.closing)
        self._ended.move_to_end(port)
        if len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)

    def serve(self, path: str) -> None:
        """Answer, in a thread, until the process ends."""
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            while True:
                asking, _ = listening.accept()
                # Whoever asks may leave before the answer comes.
                with asking, suppress(OSError):
                    asking.sendall(self._answer(asking.recv(64).decode()).encode())

    def _answer(self, question: str) -> str:
        if question.startswith("clock "):
            self.clock_ns += round(float(question.removeprefix("clock ")) * 1e9)
            return "done"
        if self._token is None:
            return "nobody was ever let in"
        return trio.from_thread.run_sync(self._of, int(question), trio_token=self._token)

    def _of(self, port: int) -> str:
        now_s = trio.current_time()
        client = next((client for client, known in self._ports.items() if known == port), None)
        if client is None or self._sessions is None:
            at_s, how = self._ended.get(port, (now_s, "it was never let in"))
            return f"gone for {now_s - at_s:.1f} s: {how}"
        stream, subscriber = client.stream, client.subscriber
        at = "the head" if subscriber.cursor is None else str(subscriber.cursor.position)
        return (
            f"{subscriber.state.value}, at {at} of {self._sessions.tape.head}, {len(subscriber.intervals)} intervals, "
            f"{sum(map(len, stream.pending))} bytes pending, full {stream.full}, closing {client.closing}, "
            f"took bytes {now_s - stream.last_progress_s:.1f} s ago, "
            f"sent some {now_s - stream.last_received_s:.1f} s ago"
        )


def main(tasks: Path, path: str, fault: str, argv: list[str]) -> int:
    """Run the daemon with that; returns its exit code."""
    opinions = Opinions()
    threading.Thread(target=opinions.serve, args=(path,), daemon=True).start()
    enter, leave, make = Sessions.enter, Sessions.leave, Hub.__init__
    dice, muted, spared = random.Random(1), set[int](), set[int]()

    def entering(self: Sessions, client: ConnectedClient, how: str) -> None:
        opinions.entered(self, client)
        enter(self, client, how)

    async def leaving(self: Sessions, client: ConnectedClient) -> None:
        opinions.left(client)
        await leave(self, client)

    def write(fd: int, data: bytes) -> int:
        if fd not in spared and len(spared) < _SPARED:
            spared.add(fd)
        elif fd not in spared and dice.random() < _MUTE:
            muted.add(fd)
        return len(data) if fd in muted else os.write(fd, data)

    def making(self: Hub, tape: Tape, ledger: Ledger, clock: WallClock) -> None:
        make(self, tape, ledger, clock, write if fault == "mute" else os.write)

    read_ns, begin = time.time_ns, WallClock.__init__

    def now_ns() -> int:
        return read_ns() + opinions.clock_ns

    def beginning(self: WallClock, given_ns: Callable[[], int] = now_ns) -> None:
        begin(self, given_ns)

    patches: list[tuple[object, str, Callable[..., Any]]] = [
        (Sessions, "enter", entering),
        (Sessions, "leave", leaving),
        (Hub, "__init__", making),
        (WallClock, "__init__", beginning),
        (time, "time_ns", now_ns),
        (time, "time", lambda: now_ns() / 1e9),
    ]
    for owner, name, replacement in patches:
        patch.object(owner, name, replacement).start()
    return run_observed("tasks", tasks, argv)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
