"""The bystanders: a few websockets that are pinged, and a health check, while others make trouble. What they notice.

Told what to do on standard input, one command a line, and answers each with one line of JSON:

    look        begin to look, or begin anew; answers when every bystander is connected
    tell        answers with a `Noticed`

A ping, and a health check on a connection of its own, is sent when the one before was answered and a moment has
passed. One that has no answer yet when `tell` comes counts for as long as it has waited.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import trio

from tests.bench.client import PING, PONG_BYTE, request
from tests.bench.window import Noticed, Ready, Waits

EVERY_S: Final = 0.05
LOST_S: Final = 1.0
"""Before a bystander whose connection failed comes back."""


class Waiting:
    """One bystander: how long its answers took, in seconds, and since when it waits for one.

    Attributes:
        took_s: of each answer.
        since_s: on the monotonic clock; None between an answer and the next question.
        failures: connections that broke, and answers that were none.
        ready: set once it is connected.
    """

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self.since_s: float | None = None
        self.failures = 0
        self.ready = trio.Event()

    def ask(self) -> None:
        """A question is on its way."""
        self.since_s = time.monotonic()

    def answered(self) -> None:
        """Here is its answer."""
        self.took_s.append(time.monotonic() - (self.since_s or 0.0))
        self.since_s = None

    def forget(self) -> None:
        """Begin anew; what is waited for goes on being waited for."""
        self.took_s, self.failures = [], 0


def waits(several: Sequence[Waiting]) -> Waits:
    """All of their waits, those that are not over included."""
    now_s = time.monotonic()
    took_s = sorted(
        [took_s for each in several for took_s in each.took_s]
        + [now_s - each.since_s for each in several if each.since_s is not None]
    )
    failures = sum(each.failures for each in several)
    return Waits(len(took_s), took_s[len(took_s) // 2], took_s[-1], failures) if took_s else Waits(failures=failures)


class Bystanders:
    """All of them."""

    def __init__(self, port: int, count: int, forwarded: str) -> None:
        self._port = port
        self._header = f"X-Forwarded-For: {forwarded}\r\n".encode() if forwarded else b""
        self._pings = [Waiting() for _ in range(count)]
        self._health = Waiting()

    async def run(self) -> None:
        """Carry out commands until there are no more."""
        async with trio.open_nursery() as nursery:
            for waiting in self._pings:
                nursery.start_soon(_again, self._ping, waiting)
            nursery.start_soon(_again, self._check, self._health)
            async with trio.lowlevel.FdStream(os.dup(0)) as commands:
                async for command in commands:
                    match command.strip():
                        case b"look":
                            answer: msgspec.Struct = await self._look()
                        case b"tell":
                            answer = Noticed(waits(self._pings), waits([self._health]))
                        case _:
                            raise ValueError(f"no such command: {command!r}")
                    os.write(1, msgspec.json.encode(answer) + b"\n")
            nursery.cancel_scope.cancel()

    async def _look(self) -> Ready:
        began_s = time.monotonic()
        for waiting in (*self._pings, self._health):
            await waiting.ready.wait()
            waiting.forget()
        return Ready(time.monotonic() - began_s)

    async def _ping(self, waiting: Waiting) -> None:
        with trio.socket.socket() as sock:
            await sock.connect(("127.0.0.1", self._port))
            await sock.send(request(self._port, self._header))
            received = b""
            while b'"type":"welcome"' not in received:
                received += await _receive(sock)
            waiting.ready.set()
            while True:
                waiting.ask()
                await sock.send(PING)
                # It has not subscribed to anything: nothing else comes than pongs, and the server's own pings.
                while PONG_BYTE not in await _receive(sock):
                    pass
                waiting.answered()
                await trio.sleep(EVERY_S)

    async def _check(self, waiting: Waiting) -> None:
        head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" + self._header + b"\r\n"
        while True:
            waiting.ask()
            with trio.socket.socket() as sock:
                await sock.connect(("127.0.0.1", self._port))
                await sock.send(head)
                answer = await _receive(sock)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise OSError(f"the health check was answered with {answer[:60]!r}")
            waiting.answered()
            waiting.ready.set()
            await trio.sleep(EVERY_S)


async def _again(act: Callable[[Waiting], Awaitable[None]], waiting: Waiting) -> None:
    """What fails is counted, and tried again after a while."""
    while True:
        try:
            await act(waiting)
        except OSError:
            waiting.failures += 1
            waiting.since_s = None
            await trio.sleep(LOST_S)


async def _receive(sock: trio.socket.SocketType) -> bytes:
    data = await sock.recv(65536)
    if not data:
        raise OSError("the server closed the connection of a bystander")
    return data


def main() -> None:
    """Read the command line and carry out what comes on standard input."""
    parser = argparse.ArgumentParser(description="bystanders of a crowd")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, default=5, help="how many websockets are pinged")
    parser.add_argument("--forwarded", default="", help="the address that a trusted proxy would name")
    options = parser.parse_args()
    try:
        trio.run(Bystanders(options.port, options.count, options.forwarded).run)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
