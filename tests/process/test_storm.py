"""A storm of connections: everybody is served, and those who are connected already lose nothing."""

import json
import socket
import threading
from typing import Any

from websockets.sync.client import connect

from tests.process.running import tickerd, wait_ready

STORM = 400
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_a_storm_is_served_while_a_client_that_is_connected_goes_on_receiving() -> None:
    during: list[dict[str, Any]] = []
    over = threading.Event()
    with tickerd("demo", "--port", "0") as process:
        wait_ready(process.port)
        with connect(f"ws://127.0.0.1:{process.port}/ws", max_size=None) as good:
            good.send('{"type":"subscribe","channels":["bitcoinprice","ethprice"]}')
            storm = threading.Thread(target=_storm, args=(process.port, over))
            storm.start()
            while not over.is_set():
                during.append(json.loads(good.recv(timeout=10)))
            storm.join()
            # What was published meanwhile has come, or comes now: nothing is missing.
            during.extend(json.loads(good.recv(timeout=10)) for _ in range(20))
        assert any(f"room for {10_000} clients" in line for line in process.lines)
    last: dict[str, int] = {}
    for message in during:
        if message["type"] == "price_update":
            assert last.get(message["connector_id"], message["prev_seq"]) == message["prev_seq"]
            last[message["connector_id"]] = message["seq"]
    assert last.keys() == {"bitcoinprice", "ethprice"}


def _storm(port: int, over: threading.Event) -> None:
    """Everybody connects before anybody is answered; then everybody must get a welcome."""
    try:
        storm = [socket.create_connection(("127.0.0.1", port)) for _ in range(STORM)]
        for client in storm:
            client.settimeout(20)
            client.sendall(HANDSHAKE)
        for client in storm:
            with client:
                said = b""
                while b'"type":"welcome"' not in said:
                    part = client.recv(4096)
                    assert part, said
                    said += part
    finally:
        over.set()
