"""More of everything than there is room for, with good clients in the midst: they lose nothing and hear of no trouble.

The daemon runs as a process with a few places and low limits. Around it: more clients than places, commands and frames
by the thousand, clients that never read, and connections that say nothing.
"""

import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from daemon.host.log_limit import LINES, WINDOW_S
from tests.daemon.serving import client_frame, handshake
from tests.process.running import TALKATIVE, Process, wait_ready

PLACES = 40
GOOD = 6
SECONDS = 4.0

LIMITS = {
    "TICKERD_LIMITS__CLIENTS": str(PLACES),
    "TICKERD_LIMITS__COMMANDS_PER_S": "20",
    "TICKERD_LIMITS__COMMANDS_BURST": "20",
    "TICKERD_LIMITS__WRITE_DEADLINE_S": "1",
    "TICKERD_LIMITS__HANDSHAKE_S": "2",
    "TICKERD_CATALOGUE__PRESETS": '["seed"]',  # the simulated venues share the cores with the floods
}
PING, PONG, TEXT, CONTINUATION = 0x9, 0xA, 0x1, 0x0


class Good:
    """A client that keeps to the rules: it subscribes, reads, and pings once a second."""

    def __init__(self, port: int, until: threading.Event) -> None:
        self.messages: list[dict[str, Any]] = []
        self.failure: BaseException | None = None
        self._until = until
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(f"ws://127.0.0.1:{port}/ws",))
        self._thread.start()
        assert self._connected.wait(10)

    def _run(self, url: str) -> None:
        try:
            with connect(url, max_size=None) as client:
                client.send('{"type":"subscribe","channels":["bitcoinprice","ethprice"],"snapshot":false}')
                self._connected.set()
                next_s = time.monotonic() + 1
                while not self._until.is_set():
                    self.messages.append(json.loads(client.recv(timeout=10)))
                    if time.monotonic() > next_s:
                        next_s += 1
                        client.send('{"type":"ping"}')
        except (OSError, ConnectionClosed, AssertionError) as failure:
            self.failure = failure

    def check(self) -> None:
        """It had all there was, in order, and heard of no trouble."""
        self._thread.join(15)
        assert self.failure is None
        assert {message["type"] for message in self.messages} == {
            *("welcome", "subscribed", "status", "price_update", "pong"),
        }
        last: dict[str, int] = {}
        for message in self.messages:
            if message["type"] == "price_update":
                channel = message["connector_id"]
                assert last.get(channel, message["prev_seq"]) == message["prev_seq"], "a message is missing"
                last[channel] = message["seq"]
        assert last.keys() == {"bitcoinprice", "ethprice"}


def opened(port: int, *, address: bytes = b"") -> tuple[socket.socket, bytes]:
    """A client that has sent its handshake (through a proxy, if it has an address), and what it was answered."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", port))
    said = b"X-Forwarded-For: " + address + b"\r\n" if address else b""
    sock.sendall(handshake().removesuffix(b"\r\n") + said + b"\r\n")
    received = b""
    while b"\r\n\r\n" not in received or (received.startswith(b"HTTP/1.1 503") and not received.endswith(b"}")):
        data = sock.recv(4096)
        assert data, received
        received += data
    return sock, received


def close_code(sock: socket.socket, begun: bytes) -> tuple[int, str]:
    """Read to the end: the close frame's code and reason; 1006 where there was none."""
    received = begun.partition(b"\r\n\r\n")[2]
    with suppress(ConnectionResetError):
        while data := sock.recv(65536):
            received += data
    at = 0
    while at + 2 <= len(received):
        size, at, opcode = received[at + 1], at + 2, received[at] & 0x0F
        if size >= 126:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(received[at : at + width], "big"), at + width
        if opcode == 0x8:
            return struct.unpack_from("!H", received, at)[0], received[at + 2 : at + size].decode()
        at += size
    return 1006, ""


def flood(sent: bytes) -> Callable[[int, threading.Event], Iterator[str]]:
    """Clients, one after the other, that send this until they are closed."""

    def run(port: int, until: threading.Event) -> Iterator[str]:
        while not until.is_set():
            sock, begun = opened(port)
            with sock:
                if not begun.startswith(b"HTTP/1.1 101 "):
                    yield "full"
                    time.sleep(0.05)
                    continue
                with suppress(OSError):
                    for _ in range(50):
                        sock.sendall(sent)
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
                code, reason = close_code(sock, begun)
                yield f"{code} {reason}"

    return run


def never_reads(port: int, until: threading.Event) -> Iterator[str]:
    """Clients that ask for everything and take nothing."""
    while not until.is_set():
        sock, begun = opened(port)
        with sock:
            yield begun[9:12].decode()
            with suppress(OSError):
                for _ in range(20):
                    sock.sendall(client_frame(TEXT, b'{"type":"subscribe","channels":["*"]}'))
            until.wait(1.5)


def say_nothing(port: int, until: threading.Event) -> Iterator[str]:
    """Connections by the dozen that send nothing, or half a head."""
    while not until.is_set():
        socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for sock in socks[::2]:
            sock.sendall(b"GET /ws HTTP/1.1\r\nHost:")
        yield "open"
        until.wait(0.5)
        for sock in socks:
            sock.close()


BAD: dict[str, Callable[[int, threading.Event], Iterator[str]]] = {
    "commands": flood(client_frame(TEXT, b'{"type":"subscribe","channels":["*"]}') * 10),
    "garbage": flood(client_frame(TEXT, b"x") * 10),
    "pings": flood(client_frame(PING, b"x" * 125) * 10),
    "pongs": flood(client_frame(PONG, b"") * 10),
    "fragments": flood(client_frame(TEXT, b"", fin=False) + client_frame(CONTINUATION, b"", fin=False) * 10),
    "never reads": never_reads,
    "says nothing": say_nothing,
}


@pytest.fixture
def overloaded() -> Iterator[Process]:
    process = Process("demo", "--port", "0", environ=LIMITS)
    try:
        wait_ready(process.port)
        yield process
    finally:
        process.end()


def test_good_clients_lose_nothing_among_floods_and_more_clients_than_there_are_places(overloaded: Process) -> None:
    port, over, began = overloaded.port, threading.Event(), time.monotonic()
    good = [Good(port, over) for _ in range(GOOD)]
    seen: dict[str, list[str]] = {name: [] for name in BAD}

    def misbehave(name: str) -> None:
        with suppress(OSError):
            for outcome in BAD[name](port, over):
                seen[name].append(outcome)

    misbehaving = [threading.Thread(target=misbehave, args=(name,)) for name in BAD]
    for thread in misbehaving:
        thread.start()
    crowd = [opened(port) for _ in range(PLACES)]  # with the good ones: more than there is room for
    refused = [answer for _, answer in crowd if not answer.startswith(b"HTTP/1.1 101 ")]
    assert len(refused) >= GOOD
    for answer in refused:
        _check_full(answer)
    with suppress(httpx.TransportError):  # other connections are not refused for that
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    time.sleep(SECONDS / 2)
    for sock, _ in crowd:  # now there is room for those who misbehave
        sock.close()
    time.sleep(SECONDS / 2)
    over.set()
    for each in good:
        each.check()
    for thread in misbehaving:
        thread.join(15)
        assert not thread.is_alive()
    for name in ("commands", "garbage", "pings", "pongs", "fragments"):
        closed = [outcome for outcome in seen[name] if outcome != "full"]
        assert closed, f"{name}: none was let in"
        assert {outcome[:4] for outcome in closed} <= {"1008", "1006"}, closed
        told = [outcome for outcome in closed if outcome.startswith("1008")]
        assert told, f"{name}: none was told why"
        # Which of the limits is met first is a matter of how fast the machine reads.
        untold = [each for each in told if not re.search(r"\d+ .*(carried out|control frames)|more than 20", each[5:])]
        assert not untold, untold
    assert "101" in seen["never reads"]
    _check_calm(overloaded, port, began)


def _check_full(answer: bytes) -> None:
    assert answer.startswith(b"HTTP/1.1 503 "), answer
    found = re.search(rb"\r\nretry-after: (\d+)\r\n", answer, re.IGNORECASE)
    assert found is not None, answer
    assert 1 <= int(found[1]) <= 60
    assert b'"code":"full"' in answer
    assert b"40" in answer.partition(b"\r\n\r\n")[2], "it names the limit"


def _check_calm(process: Process, port: int, began: float) -> None:
    """There is room again; nothing has failed; the log was not flooded."""
    deadline = time.monotonic() + 10
    while True:
        sock, answer = opened(port)
        sock.close()
        if answer.startswith(b"HTTP/1.1 101 "):
            break
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    assert process.stop() == 0
    assert [line for line in process.lines if "Traceback" in line or " ERROR " in line] == []
    connects = sum("connected (" in line and "more like this" not in line for line in process.lines)
    assert connects <= LINES * ((time.monotonic() - began) / WINDOW_S + 2)


def test_one_address_cannot_have_all_connections() -> None:
    """Loopback is excepted; so the clients come from an address that a trusted proxy names."""
    environ = {
        "TICKERD_LIMITS__CLIENTS_PER_ADDRESS": "5",
        "TICKERD_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]',
    }
    process = Process("demo", "--port", "0", environ=environ)
    try:
        url = f"ws://127.0.0.1:{process.port}/ws"
        with connect(url, additional_headers={"X-Forwarded-For": "203.0.113.9"}) as first:
            assert json.loads(first.recv(timeout=10))["type"] == "welcome"
            storm = [opened(process.port, address=b"203.0.113.1") for _ in range(20)]
            assert [answer[9:12] for _, answer in storm] == [b"101"] * 5 + [b"503"] * 15
            assert b"203.0.113.1 has 5 clients already" in storm[-1][1]
            first.send('{"type":"ping","id":1}')
            assert json.loads(first.recv(timeout=10))["type"] == "pong"
        for sock, _ in storm:
            sock.close()
        assert process.stop() == 0
        assert sum("203.0.113.1 refused: 503 full" in line for line in process.lines) == 15
    finally:
        process.end()


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    """Its pipe is full after a few dozen lines; clients notice nothing, and the stop is in order."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "daemon", "demo", "--port", "0"]
    environ = {**TALKATIVE, **os.environ}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writer, text=True, env=environ) as process:
        os.close(writer)
        try:
            assert process.stdout is not None
            found = next(found for line in process.stdout if (found := re.search(r"^listening on .*:(\d+)$", line)))
            url = f"http://127.0.0.1:{found[1]}"
            wait_ready(int(found[1]))
            with httpx.Client() as client:
                for number in range(100):
                    assert client.get(f"{url}/nothing/{number}").status_code == 404
                began = time.monotonic()
                assert client.get(f"{url}/healthz").status_code == 200
                assert time.monotonic() - began < 2
            with connect(f"ws://127.0.0.1:{found[1]}/ws") as websocket:
                assert json.loads(websocket.recv(timeout=10))["type"] == "welcome"
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()
            said = os.read(reader, 65536)
            os.close(reader)
    assert 3000 < len(said) <= 4096, "the pipe was not full"
