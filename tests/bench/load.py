"""The load: many websocket subscribers in one process, cheap enough that the server is what is measured.

It is told what to do on standard input, one command a line, and answers each with one line of JSON:

    connect         open the connections; answers when every client has had its `welcome`
    subscribe       send the subscription; answers when every client has had its `subscribed`
    measure 5       count for 5 seconds; answers with a `Window`

It ends with its standard input. Between the commands it goes on reading, as clients do.

Python cannot look at a million frames a second, so only *sampled* clients are parsed, frame by frame by their headers.
They are spread evenly over all; the first and the last to subscribe, which the server writes to first and last, are
among them. Of the others the bytes are counted, a few sockets at a time and never while a sampled one waits: they are
discarded in the kernel (MSG_TRUNC, tcp(7)) and not copied. All are sent the same frames, so the number of theirs is
those bytes through the mean size of the sampled clients' frames.
"""

from __future__ import annotations

import argparse
import base64
import errno
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from tests.bench.client import PONG, Client, Secret, request, subscription, unread, whole
from tests.bench.window import Ready, Window, cpu_ns, percentiles, waited_ns

STAMP: Final = b'"mono":'
"""What the simulator puts first into each ticker (`tickerd simulate --stamp`): time.monotonic_ns(), a JSON number."""

RECEIVED: Final = b'"received_ms":'
"""When the daemon had the venue's bytes; epoch milliseconds."""

RECEIVE_BYTES: Final = 1 << 20
OTHERS_AT_ONCE: Final = 16
CONNECTING: Final = 128
"""Opening handshakes under way at once."""

PONGS_EVERY_S: Final = 0.5
PONG_ROUNDS: Final = 30
"""Each client sends its pong in one round of so many: every 15 s."""

CONNECT_WITHIN_S: Final = 60.0
TINY_RECEIVE_BUFFER: Final = 4096


class Load:
    """All connections, and the one loop that reads them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.clients: list[Client] = []
        self._by_fd: dict[int, Client] = {}
        self._poll = select.epoll()
        self._others = select.epoll()
        self._next_others_s = 0.0
        self._scratch = bytearray(RECEIVE_BYTES)
        self._arrived: dict[str, int] = {}
        self._next_pongs_s = time.monotonic() + PONGS_EVERY_S
        self._round = 0
        self._commands = b""
        self._tls = ssl.create_default_context(cafile=options.trusting) if options.trusting else None
        readers = range(options.stuck, options.clients)
        self._stuck = range(options.stuck)
        self._sampled = {
            readers[round(n * (len(readers) - 1) / max(1, options.sample - 1))] for n in range(options.sample)
        }
        self._poll.register(0, select.EPOLLIN)
        self._reset()

    def _reset(self) -> None:
        self.frames = self.sampled_bytes = self.other_bytes = 0
        for client in self.clients:
            client.wire_bytes = 0
        self.closed = 0
        self.delays_ns: list[int] = []
        self.receipts: dict[int, tuple[int, int, int]] = {}
        self.inside_ns: list[int] = []
        self.frame = b""

    # ---- commands ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Carry out commands until there are no more."""
        while command := self._next_command():
            match command.split():
                case ["connect"]:
                    answer: msgspec.Struct = self.connect()
                case ["subscribe"]:
                    answer = self.subscribe()
                case ["measure", seconds]:
                    answer = self.measure(float(seconds))
                case _:
                    raise ValueError(f"no such command: {command}")
            os.write(1, msgspec.json.encode(answer) + b"\n")

    def _next_command(self) -> str:
        while b"\n" not in self._commands:
            if self._turn(1.0):
                more = os.read(0, 4096)
                if not more:
                    return ""
                self._commands += more
        line, _, self._commands = self._commands.partition(b"\n")
        return line.decode()

    def connect(self) -> Ready:
        """Open all connections, `CONNECTING` at a time; done when each has its welcome."""
        began_s = time.monotonic()
        options = self.options
        while self._arrived.get("welcome", 0) < options.clients:
            while len(self.clients) < options.clients and (
                len(self.clients) - self._arrived.get("welcome", 0) < CONNECTING
            ):
                self._open(len(self.clients))
            self._turn(0.1)
            self._check_patience(began_s)
        return Ready(time.monotonic() - began_s)

    def _open(self, number: int) -> None:
        connection = socket.socket()
        buffer_bytes = TINY_RECEIVE_BUFFER if number in self._stuck else self.options.receive_buffer
        if buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        client = Client(connection, sampled=number in self._sampled)
        self.clients.append(client)
        self._by_fd[connection.fileno()] = client
        result = connection.connect_ex(("127.0.0.1", self.options.port))
        if result not in (0, errno.EINPROGRESS):
            raise OSError(result, os.strerror(result))
        self._poll.register(connection.fileno(), select.EPOLLOUT)

    def subscribe(self) -> Ready:
        """Subscribe all clients; done when each has its answer. Clients that are to be stuck read no more from then."""
        began_s = time.monotonic()
        if not self.options.raw:
            for some in (self.clients[:1], self.clients[1:-1], self.clients[-1:]):
                self._subscribe(some, began_s)
        for number, client in enumerate(self.clients):
            if not client.sampled:
                client.have = b""
                self._poll.unregister(client.socket.fileno())
                if number not in self._stuck:
                    self._others.register(client.socket.fileno(), select.EPOLLIN)
        return Ready(time.monotonic() - began_s)

    def _subscribe(self, clients: Sequence[Client], began_s: float) -> None:
        command = subscription(self.options.channel)
        wanted = self._arrived.get("subscribed", 0) + len(clients)
        for client in clients:
            client.step = "subscribing"
            client.send(command)
        while self._arrived.get("subscribed", 0) < wanted:
            self._turn(0.1)
            self._check_patience(began_s)

    @staticmethod
    def _check_patience(began_s: float) -> None:
        if time.monotonic() - began_s > CONNECT_WITHIN_S:
            raise TimeoutError(f"not all clients were served within {CONNECT_WITHIN_S:g} s")

    def measure(self, seconds: float) -> Window:
        """Count for so long."""
        self._reset()
        pids = self.options.pid
        began_ns, server_ns, waiting_ns, load_ns = (
            time.monotonic_ns(),
            sum(map(cpu_ns, pids)),
            sum(map(waited_ns, pids)),
            time.process_time_ns(),
        )
        until_ns = began_ns + int(seconds * 1e9)
        while (left_ns := until_ns - time.monotonic_ns()) > 0:
            self._turn(min(left_ns / 1e9, 0.1))
        server_ns = sum(map(cpu_ns, pids)) - server_ns
        waiting_ns = sum(map(waited_ns, pids)) - waiting_ns
        load_ns = time.process_time_ns() - load_ns
        took_s = (time.monotonic_ns() - began_ns) / 1e9
        frame_bytes = self.sampled_bytes / self.frames if self.frames else 0.0
        wire_bytes = sum(client.wire_bytes for client in self.clients if client.sampled)
        # Over TLS a frame is longer on the wire, by a share of its record.
        per_frame = wire_bytes / self.frames if self.frames and self._tls is not None else frame_bytes
        others = self.other_bytes / per_frame if per_frame else 0.0
        complete = [(stamp, *seen) for stamp, seen in self.receipts.items() if seen[0] == len(self._sampled)]
        return Window(
            seconds=took_s,
            server_cpu_s=server_ns / 1e9,
            server_waited_s=waiting_ns / 1e9,
            load_cpu_s=load_ns / 1e9,
            deliveries=self.frames + others,
            frame_bytes=frame_bytes,
            delays=percentiles(self.delays_ns),
            last=percentiles([last - stamp for stamp, _, _, last in complete]),
            inside=percentiles(self.inside_ns),
            spread=percentiles([last - first for _, _, first, last in complete]),
            unread_bytes=max((unread(self.clients[number]) for number in self._stuck), default=0),
            read_bytes=self.clients[-1].bytes,
            closed=self.closed,
            frame=base64.b64encode(self.frame).decode(),
        )

    # ---- the loop ---------------------------------------------------------------------------------------------------

    def _turn(self, timeout_s: float) -> bool:
        """Read what is ready, once, the sampled clients first. Returns whether there is something on standard input."""
        timeout_s = max(0.0, min(timeout_s, self._next_others_s - time.monotonic()))
        commanded = False
        for fd, _ in self._poll.poll(timeout_s):
            if fd == 0:
                commanded = True
                continue
            client = self._by_fd[fd]
            try:
                if client.step == "counting":
                    self._walk(client, client.receive(RECEIVE_BYTES), time.monotonic_ns())
                else:
                    self._step(client)
            except BlockingIOError:
                continue
            except OSError as error:
                self._lost(client, self._poll, error)
        if time.monotonic() >= self._next_others_s:
            self._count_others()
        if time.monotonic() >= self._next_pongs_s:
            self._pongs()
        return commanded

    def _count_others(self) -> None:
        """Count the bytes of a few clients that are not sampled; where there are more, it is soon their turn."""
        scratch = self._scratch
        ready = self._others.poll(0, OTHERS_AT_ONCE)
        for fd, _ in ready:
            client = self._by_fd[fd]
            try:
                size = client.socket.recv_into(scratch, RECEIVE_BYTES, socket.MSG_TRUNC)
            except BlockingIOError:
                continue
            except OSError:
                size = 0
            if size:
                self.other_bytes += size
            else:
                self._lost(client, self._others)
        if len(ready) < OTHERS_AT_ONCE:
            self._next_others_s = time.monotonic() + self.options.others_ms / 1000

    def _walk(self, client: Client, data: bytes | None, now_ns: int) -> None:
        """Count a sampled client's frames and keep their delays."""
        if data is None:
            return
        if not data:
            self._lost(client, self._poll)
            return
        client.bytes += len(data)
        if client.have:
            data = client.have + data
        at, size = 0, len(data)
        while size - at >= 4:
            length = data[at + 1]
            begin = at + 2
            if length == 126:
                length = data[at + 2] << 8 | data[at + 3]
                begin = at + 4
            elif length == 127:
                length = int.from_bytes(data[at + 2 : at + 10], "big")
                begin = at + 10
            end = begin + length
            if end > size:
                break
            mark = data.find(STAMP, begin, end)
            if mark >= 0:
                stamp_ns = int(data[mark + 7 : data.index(b",", mark, end)])
                self.frames += 1
                self.sampled_bytes += end - at
                self.delays_ns.append(now_ns - stamp_ns)
                count, first_ns, _ = self.receipts.get(stamp_ns, (0, now_ns, now_ns))
                self.receipts[stamp_ns] = (count + 1, first_ns, now_ns)
                if client is self.clients[-1]:
                    mark = data.index(RECEIVED, begin, end) + len(RECEIVED)
                    received_ms = int(data[mark : mark + 13])
                    self.inside_ns.append(time.time_ns() - received_ms * 1_000_000 - 500_000)
                self.frame = data[at:end]
            at = end
        client.have = data[at:]

    def _step(self, client: Client) -> None:
        """Bring one client further: its request, its welcome, its subscription."""
        if client.step == "connecting":
            failed = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                raise ConnectionError(f"a connection was refused: {os.strerror(failed)}")
            self._poll.modify(client.socket.fileno(), select.EPOLLIN)
            if self.options.raw:
                self._arrive(client, "welcome", "counting")
            else:
                if self._tls is not None:
                    client.secret = Secret(client.socket, self._tls)
                client.send(request(self.options.port))
                client.step = "opening"
            return
        data = client.receive(65536)
        if data is None:
            return
        if not data:
            raise ConnectionError(f"the server closed a connection that was {client.step}")
        client.have += data
        if client.step == "opening":
            head, end, rest = client.have.partition(b"\r\n\r\n")
            if end and not head.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(f"the server answered {head[:60]!r}")
            if end:
                client.have = rest
                client.step = "opened"
        if client.step == "opened" and b'"type":"welcome"' in client.have and whole(client.have):
            client.have = b""
            self._arrive(client, "welcome", "idle")
        elif client.step == "subscribing" and b'"type":"subscribed"' in client.have:
            rest, client.have = client.have, b""
            self._arrive(client, "subscribed", "counting")
            self._walk(client, rest, time.monotonic_ns())

    def _arrive(self, client: Client, where: str, step: str) -> None:
        client.step = step
        self._arrived[where] = self._arrived.get(where, 0) + 1

    def _lost(self, client: Client, poll: select.epoll, error: OSError | None = None) -> None:
        if client.step != "counting":
            raise error or ConnectionError(f"lost a connection that was {client.step}")
        poll.unregister(client.socket.fileno())
        client.step = "closed"
        self.closed += 1

    def _pongs(self) -> None:
        self._next_pongs_s = time.monotonic() + PONGS_EVERY_S
        self._round = (self._round + 1) % PONG_ROUNDS
        if self.options.raw:
            return
        for client in self.clients[self.options.stuck + self._round :: PONG_ROUNDS]:
            if client.step in ("idle", "counting"):
                client.send(PONG)


def main() -> None:
    """Read the command line and carry out what comes on standard input."""
    parser = argparse.ArgumentParser(description="websocket subscribers for measuring")
    parser.add_argument("--port", type=int, required=True)
    pids = "the server's, for its CPU time; again for each of its workers"
    parser.add_argument("--pid", type=int, action="append", required=True, help=pids)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--sample", type=int, default=1, help="how many of them are parsed frame by frame")
    parser.add_argument("--others-ms", type=float, default=10.0, help="how often the others are counted")
    parser.add_argument("--stuck", type=int, default=0, help="how many of them never read once they have subscribed")
    parser.add_argument("--channel", default="bitcoinprice")
    parser.add_argument("--receive-buffer", type=int, default=0, help="SO_RCVBUF of each; 0 leaves it to the kernel")
    parser.add_argument("--trusting", default="", help="speak TLS, and trust the certificates in this file")
    parser.add_argument("--raw", action="store_true", help="no handshakes: the server just writes")
    options = parser.parse_args()
    try:
        Load(options).run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
