"""Newcomers: many clients that come all at once, subscribe as soon as they are welcome, and then read what comes.

Told what to do on standard input, one command a line, and answers each with one line of JSON:

    arrive 200          so many connect; answers with an `Arrived` when each has had its first data message
    resume 1000 5 0     the same, and each resumes from position 5 of this tape
    resume 1000 5 99    the same; answers when each has had the message at position 99
    drain 5             read for 5 seconds; answers with a `Drained`

It ends with its standard input. Between the commands it goes on reading. What comes behind the first data message is
discarded in the kernel (MSG_TRUNC, tcp(7)): the load must be cheap.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import select
import socket
import sys
import time
from typing import Final

import msgspec

from tests.bench.client import PONG, Client, request, subscription
from tests.bench.window import Arrived, Drained

RECEIVE_BYTES: Final = 1 << 20
PONG_EVERY_S: Final = 10.0
CONNECTING: Final = 1000
"""Opening handshakes under way at once: no more than the daemon's backlog holds. Those beyond that would measure the
kernel, which sends a first packet again after a second, and then after three."""

DATA: Final = b'"type":"price_update"'


class Newcomers:
    """All of them, and the one loop that reads."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._clients: dict[int, Client] = {}
        self._poll = select.epoll()
        self._poll.register(0, select.EPOLLIN)
        self._scratch = bytearray(RECEIVE_BYTES)
        self._reached: dict[str, list[float]] = {"welcome": [], "subscribed": [], "data": [], "there": []}
        self._opened_s: dict[int, float] = {}
        self._worst_s = 0.0
        self._since = 0
        self._upto = b""
        self._next_pongs_s = time.monotonic() + PONG_EVERY_S

    def run(self) -> None:
        """Carry out commands until there are no more."""
        while True:
            if not self._turn(1.0):
                continue
            command = os.read(0, 4096).decode()
            match command.split():
                case []:
                    return
                case ["arrive", count]:
                    answer: msgspec.Struct = self.arrive(int(count))
                case ["resume", count, since, upto]:
                    self._since = int(since)
                    self._upto = f'"seq":{upto},'.encode() if int(upto) else b""
                    answer = self.arrive(int(count))
                case ["drain", seconds]:
                    answer = self.drain(float(seconds))
                case _:
                    raise ValueError(f"no such command: {command}")
            os.write(1, msgspec.json.encode(answer) + b"\n")

    def arrive(self, count: int) -> Arrived:
        """Open so many connections at once; done when each of them is served."""
        for reached in self._reached.values():
            reached.clear()
        self._worst_s = 0.0
        began_s = time.monotonic()
        opened = 0
        while len(self._reached["there"]) < count:
            while opened < count and opened - len(self._reached["welcome"]) < CONNECTING:
                self._open()
                opened += 1
            self._turn(0.1)
            if time.monotonic() - began_s > self.options.patience_s:
                counts = ", ".join(f"{len(reached)} {stage}" for stage, reached in self._reached.items())
                raise TimeoutError(f"of {count} newcomers after {self.options.patience_s:g} s: {counts}")
        last = {stage: reached[-1] - began_s for stage, reached in self._reached.items()}
        median_s = self._reached["data"][count // 2] - began_s
        return Arrived(last["welcome"], last["subscribed"], last["data"], median_s, self._worst_s, last["there"])

    def drain(self, seconds: float) -> Drained:
        """Read for so long."""
        before = {fd: client.bytes for fd, client in self._clients.items()}
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            self._turn(0.1)
        got = [client.bytes - before[fd] for fd, client in self._clients.items()]
        return Drained(time.monotonic() - began_s, sum(got), min(got))

    def _open(self) -> None:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.options.receive_buffer)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        result = connection.connect_ex(("127.0.0.1", self.options.port))
        if result not in (0, errno.EINPROGRESS):
            raise OSError(result, os.strerror(result))
        self._clients[connection.fileno()] = Client(connection, sampled=True)
        self._opened_s[connection.fileno()] = time.monotonic()
        self._poll.register(connection.fileno(), select.EPOLLOUT)

    def _turn(self, timeout_s: float) -> bool:
        """Read what is ready, once. Returns whether there is something on standard input."""
        commanded = False
        for fd, _ in self._poll.poll(timeout_s):
            if fd == 0:
                commanded = True
                continue
            client = self._clients[fd]
            try:
                if client.step == "reading":
                    size = client.socket.recv_into(self._scratch, RECEIVE_BYTES, socket.MSG_TRUNC)
                    if not size:
                        raise ConnectionError("the server closed a connection that was reading")
                    client.bytes += size
                else:
                    self._step(client)
            except BlockingIOError:
                continue
        if time.monotonic() >= self._next_pongs_s:
            self._next_pongs_s = time.monotonic() + PONG_EVERY_S
            for client in self._clients.values():
                if client.step == "reading":
                    client.socket.send(PONG)
        return commanded

    def _step(self, client: Client) -> None:
        """Bring one client further."""
        if client.step == "connecting":
            failed = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                raise ConnectionError(f"a connection was refused: {os.strerror(failed)}")
            self._poll.modify(client.socket.fileno(), select.EPOLLIN)
            client.socket.send(request(self.options.port))
            client.step = "opening"
            return
        data = client.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the server closed a connection that was {client.step}: {client.have[:200]!r}")
        client.bytes += len(data)
        client.have += data
        if client.step == "opening" and (found := re.search(rb'"type":"welcome".*?"epoch":"([^"]+)"', client.have)):
            self._reached["welcome"].append(time.monotonic())
            epoch = found[1].decode() if self._since else ""
            client.socket.send(subscription(self.options.channel, epoch, self._since))
            client.have, client.step = b"", "subscribing"
        if client.step == "subscribing" and b'"type":"subscribed"' in client.have:
            if self._since and b'"recovered":{"%s":true}' % self.options.channel.encode() not in client.have:
                raise ValueError(f"position {self._since} could not be resumed from: {client.have[:600]!r}")
            self._reached["subscribed"].append(time.monotonic())
            client.step = "waiting"
        if client.step == "waiting" and DATA in client.have:
            now_s = time.monotonic()
            self._reached["data"].append(now_s)
            self._worst_s = max(self._worst_s, now_s - self._opened_s.pop(client.socket.fileno()))
            client.step = "catching up"
        if client.step == "catching up" and self._upto in client.have:
            self._reached["there"].append(time.monotonic())
            client.have, client.step = b"", "reading"
        elif client.step == "catching up":
            client.have = client.have[-len(self._upto) :]  # it may come in two parts


def main() -> None:
    """Read the command line and carry out what comes on standard input."""
    parser = argparse.ArgumentParser(description="websocket clients that come all at once")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--channel", default="bitcoinprice")
    parser.add_argument("--patience-s", type=float, default=60.0)
    parser.add_argument("--receive-buffer", type=int, default=65_536, help="SO_RCVBUF of each")
    options = parser.parse_args()
    try:
        Newcomers(options).run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
