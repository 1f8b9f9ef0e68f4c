"""What the user wrote down runs unchanged: the commands, the Python client, the JavaScript client's validator."""

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

from tests.process.minute import Minute
from tests.process.running import tickerd, wait_ready

PYTHON_CLIENT = """
import asyncio
import websockets
import json

async def websocket_client():
    uri = "ws://localhost:8000/ws"
    async with websockets.connect(uri) as websocket:
        # Subscribe to channels
        await websocket.send(json.dumps({
            "type": "subscribe",
            "channels": ["binance_prices"]
        }))
        
        # Receive messages
        async for message in websocket:
            data = json.loads(message)
            print(f"Received: {data}")

asyncio.run(websocket_client())
"""  # noqa: W293 - word for word


def _seeds_port() -> int:
    """Port 8000, as the user's examples say, or, where somebody has it, another one."""
    for host in ("127.0.0.1", "::1"):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.create_server((host, 8000), family=family).close()
        except OSError:
            return 0
    return 8000


def test_the_python_client_runs_unchanged(tmp_path: Path) -> None:
    program = tmp_path / "client.py"
    with tickerd("demo", "--port", str(_seeds_port())) as process:
        wait_ready(process.port)
        program.write_text(PYTHON_CLIENT.replace("localhost:8000", f"localhost:{process.port}"))
        client = subprocess.Popen([sys.executable, "-u", str(program)], stdout=subprocess.PIPE, text=True)
        assert client.stdout is not None
        printed = [client.stdout.readline().rstrip() for _ in range(35)]
        client.kill()
        client.wait(5)
        client.stdout.close()
    received = [line.removeprefix("Received: ") for line in printed]
    updates = [line for line in received if "'type': 'price_update'" in line]
    assert len(updates) >= 20, received[:5]
    assert any("'instrument': 'BTC/USDT'" in line and "'connector_id': 'binance_prices'" in line for line in updates)


def test_the_commands_are_answered_word_for_word(demo_port: int) -> None:
    with connect(f"ws://localhost:{demo_port}/ws", max_size=None) as websocket:
        websocket.send('{\n    "type": "subscribe",\n    "channels": ["binance_prices", "binance_orderbook"]\n}')
        assert _next(websocket, "subscribed")["channels"] == ["binance_prices", "binance_orderbook"]
        websocket.send('{\n    "type": "unsubscribe",\n    "channels": ["binance_prices"]\n}')
        assert _next(websocket, "unsubscribed")["channels"] == ["binance_prices"]
        websocket.send('{\n    "type": "ping"\n}')
        assert _next(websocket, "pong").keys() == {"type", "timestamp"}


def test_an_orderbook_as_the_monitoring_example_reads_it(demo_port: int) -> None:
    with connect(f"ws://localhost:{demo_port}/ws", max_size=None) as websocket:
        websocket.send('{"type":"subscribe","channels":["binance_orderbook"]}')
        message = _next(websocket, "orderbook_update")
    asks, bids = message["data"]["asks"][:10], message["data"]["bids"][:10]
    assert len(asks) == len(bids) == 10
    assert float(bids[0][0]) < float(asks[0][0])
    assert [float(price) for price, _ in asks] == sorted(float(price) for price, _ in asks)
    assert message["instrument"] in ("BTC/USDT", "ETH/USDT", "SOL/USDT")


def test_the_same_instrument_comes_from_two_exchanges(demo_port: int) -> None:
    """The user's example 4 compares them; the numbers must be numbers."""
    prices: dict[str, float] = {}
    with connect(f"ws://localhost:{demo_port}/ws", max_size=None) as websocket:
        websocket.send('{"type":"subscribe","channels":["binance_prices","bitcoinprice"]}')
        while len(prices) < 2:
            message = _next(websocket, "price_update")
            if message["instrument"] == "BTC/USDT":
                prices[message["exchange"]] = message["price"]
    assert prices.keys() == {"binance", "okx"}
    assert (max(prices.values()) - min(prices.values())) / min(prices.values()) < 0.01


def test_posting_a_test_reaches_every_client(demo_port: int) -> None:
    url = f"localhost:{demo_port}/ws"
    with connect(f"ws://{url}") as one, connect(f"ws://{url}") as other:
        _next(one, "welcome")
        _next(other, "welcome")
        answer = httpx.post(f"http://{url}/test", json={"message": "Hello, WebSocket!"})
        body = answer.json()
        assert (body["type"], body["message"]) == ("test_response", "Broadcast to all connected clients")
        assert body["clients"] >= 2
        for websocket in (one, other):
            assert _next(websocket, "test")["message"] == "Hello, WebSocket!"


def _next(websocket: Any, type_: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(websocket.recv(timeout=10))
        if message["type"] == type_:
            return message


def validate_message(data: Any, now_s: float) -> bool:
    """The user's `validateMessage`, line by line."""
    if not data or not isinstance(data, dict):
        return False
    for field in ("type", "timestamp"):
        if field not in data:
            return False
    try:
        timestamp = datetime.strptime(data["timestamp"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    age_ms = now_s * 1000 - timestamp.timestamp() * 1000
    return not age_ms > 600_000


def test_the_validator_can_refuse() -> None:
    now_s = time.time()
    assert not validate_message([], now_s)
    assert not validate_message({"type": "pong"}, now_s)
    assert not validate_message({"type": "pong", "timestamp": "yesterday"}, now_s)
    assert not validate_message({"type": "pong", "timestamp": "2025-12-08T16:30:45.123Z"}, now_s)


def test_every_message_of_a_minute_passes_the_validator(minute: Minute | None) -> None:
    assert minute is not None
    seen = minute.seen()
    assert all(validate_message(message, at_s) for at_s, message in seen)
    counts = Counter(message.get("connector_id") for _, message in seen if "seq" in message)
    for channel in ("binance_prices", "binance_orderbook", "binance_24hr", "coingecko_global", "coingecko_top"):
        assert counts[channel] >= 25, counts
    for channel in ("coingecko_trending", "bitcoinprice", "ethprice"):
        assert counts[channel] >= 25, counts
    assert _holes(message for _, message in seen) == []


def _holes(messages: Iterator[dict[str, Any]] | Any) -> list[dict[str, Any]]:
    """Messages whose `prev_seq` is not the `seq` before them on their topic. A keyframe stands for what it holds."""
    last: dict[tuple[str, str], int] = {}
    holes = []
    for message in messages:
        if "prev_seq" not in message:
            continue
        topic = (message["connector_id"], message.get("instrument", ""))
        if last.setdefault(topic, message["prev_seq"]) != message["prev_seq"]:
            holes.append(message)
        last[topic] = message.get("through", message["seq"])
    return holes
