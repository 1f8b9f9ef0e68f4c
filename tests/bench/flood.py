"""A flood of requests: keep-alive connections that pipeline one request as fast as they can, and drop the answers.

Told what to do on standard input, one command a line, and answers each with one line of JSON:

    flood 5         for 5 seconds; answers with a `Flooded`

A connection that the server closes is opened again at once, as by somebody who means it.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import socket
import sys
import time
from collections import Counter
from typing import Final

import msgspec

from tests.bench.window import Flooded

AT_ONCE: Final = 64
"""Requests in one write."""

RECEIVE_BYTES: Final = 1 << 18
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


class Flood:
    """All connections, and the one loop that writes and reads."""

    def __init__(self, options: argparse.Namespace) -> None:
        header = f"X-Forwarded-For: {options.forwarded}\r\n" if options.forwarded else ""
        self._options = options
        self._requests = f"GET {options.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{header}\r\n".encode() * AT_ONCE
        self._poll = select.epoll()
        self._connections: dict[int, socket.socket] = {}
        self._unsent: dict[int, memoryview] = {}
        self._scratch = bytearray(RECEIVE_BYTES)
        self.answers: Counter[int] = Counter()
        self.reopened = self.bytes = 0

    def run(self, seconds: float) -> Flooded:
        """Open all of them, and go on for so long."""
        for _ in range(self._options.connections):
            self._open()
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            for fd, event in self._poll.poll(0.1):
                try:
                    if event & select.EPOLLIN:
                        self._read(fd)
                    if event & select.EPOLLOUT:
                        self._write(fd)
                    if event & (select.EPOLLERR | select.EPOLLHUP) and not event & select.EPOLLIN:
                        raise ConnectionError
                except BlockingIOError:
                    continue
                except OSError:
                    self._close(fd)
                    self.reopened += 1
                    self._open()
        took_s = time.monotonic() - began_s
        for fd in tuple(self._connections):
            self._close(fd)
        return Flooded(took_s, dict(self.answers), self.reopened, self.bytes)

    def _open(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", self._options.port))
        self._connections[connection.fileno()] = connection
        self._unsent[connection.fileno()] = memoryview(self._requests)
        self._poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _close(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._connections.pop(fd).close()

    def _read(self, fd: int) -> None:
        size = self._connections[fd].recv_into(self._scratch)
        if not size:
            raise ConnectionError
        self.bytes += size
        # An answer whose head comes in two parts is not counted: the counts are to say what happens, roughly.
        self.answers.update(int(found[1]) for found in _STATUS.finditer(self._scratch, 0, size))

    def _write(self, fd: int) -> None:
        unsent = self._unsent[fd]
        sent = self._connections[fd].send(unsent)
        self._unsent[fd] = unsent[sent:] if sent < len(unsent) else memoryview(self._requests)


def main() -> None:
    """Read the command line and carry out what comes on standard input."""
    parser = argparse.ArgumentParser(description="a flood of HTTP requests")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--forwarded", default="", help="the address that a trusted proxy would name")
    options = parser.parse_args()
    try:
        for command in sys.stdin:
            match command.split():
                case ["flood", seconds]:
                    answer = Flood(options).run(float(seconds))
                case _:
                    raise ValueError(f"no such command: {command}")
            os.write(1, msgspec.json.encode(answer) + b"\n")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
