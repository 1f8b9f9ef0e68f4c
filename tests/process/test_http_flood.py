"""Floods of plain HTTP from one machine: whoever floods is refused, and nobody else waits for it."""

import json
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

import httpx
from websockets.sync.client import connect

from tests.process.running import tickerd, wait_ready

CONNECTIONS = 200
SECONDS = 4.0
WITHIN_S = 0.5
"""For `/healthz`, and for each ping of a client that keeps to the rules."""

UNLIMITED = {"TICKERD_LIMITS__REQUESTS_PER_S": "1000000", "TICKERD_LIMITS__REQUESTS_BURST": "1000000"}


class Flood:
    """Keep-alive connections that pipeline requests as fast as they are answered; who is closed comes back."""

    def __init__(self, port: int, target: str) -> None:
        self.statuses: Counter[bytes] = Counter()
        self._request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(CONNECTIONS // 4,)) for _ in range(4)]

    def _run(self, count: int) -> None:
        sockets: list[socket.socket] = []
        while not self._over.is_set():
            while len(sockets) < count:
                sock = socket.create_connection(("127.0.0.1", self._port))
                sock.settimeout(0.05)
                sockets.append(sock)
            for sock in tuple(sockets):
                try:
                    sock.send(self._request * 20)
                    received = sock.recv(1 << 20)
                except TimeoutError:
                    continue
                except OSError:
                    received = b""
                for start in received.split(b"HTTP/1.1 ")[1:]:
                    self.statuses[start[:3]] += 1
                if not received:
                    sockets.remove(sock)
                    sock.close()
        for sock in sockets:
            sock.close()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)


@contextmanager
def pinging(port: int) -> Iterator[list[float]]:
    """A client that keeps to the rules, and how long each of its pings took."""
    took: list[float] = []
    over = threading.Event()

    def ping() -> None:
        with connect(f"ws://127.0.0.1:{port}/ws") as websocket, suppress(TimeoutError):
            while not over.wait(0.05):
                began_s = time.monotonic()
                websocket.send('{"type":"ping"}')
                while json.loads(websocket.recv(timeout=10))["type"] != "pong":
                    pass
                took.append(time.monotonic() - began_s)

    thread = threading.Thread(target=ping)
    thread.start()
    yield took
    over.set()
    thread.join(20)


def flooded(target: str, environ: dict[str, str]) -> tuple[Counter[bytes], list[float], list[float]]:
    """What the flood was answered, how long pings took, and how long `/healthz` for another address took."""
    healthy: list[float] = []
    trusted = {"TICKERD_SERVER__TRUSTED_PROXIES": '["127.0.0.9"]'}
    eight = {"TICKERD_CATALOGUE__PRESETS": '["seed"]'}  # the simulated venues share the two cores with the flood
    with tickerd("demo", "--port", "0", environ=environ | trusted | eight) as process:
        wait_ready(process.port)
        transport = httpx.HTTPTransport(local_address="127.0.0.9")
        another = {"X-Forwarded-For": "192.0.2.7"}
        with (
            pinging(process.port) as pings,
            Flood(process.port, target) as flood,
            httpx.Client(transport=transport, headers=another, timeout=20) as client,
        ):
            until_s = time.monotonic() + SECONDS
            while time.monotonic() < until_s:
                began_s = time.monotonic()
                assert client.get(f"http://127.0.0.1:{process.port}/healthz").status_code == 200
                healthy.append(time.monotonic() - began_s)
                time.sleep(0.1)
        assert process.stop() == 0
    return flood.statuses, pings, healthy


def test_a_flood_of_the_dearest_request_is_refused_and_holds_up_nobody() -> None:
    statuses, pings, healthy = flooded("/metrics", {})
    assert statuses[b"429"] > 0
    # At most the burst and what has come since, of requests that count as 3.
    assert statuses[b"200"] <= (1000 + 200 * 2 * SECONDS) / 3
    assert statistics.median(pings) < WITHIN_S / 5
    assert max(healthy) < WITHIN_S


def test_without_a_limit_a_flood_still_leaves_everybody_a_share() -> None:
    """What holds up the loop is shared out turn by turn, whoever asks: the rate is not all that there is."""
    statuses, pings, healthy = flooded("/metrics", UNLIMITED)
    assert statuses.keys() == {b"200"}
    assert statuses[b"200"] > 1000
    assert statistics.median(pings) < WITHIN_S / 5
    assert statistics.median(healthy) < WITHIN_S
