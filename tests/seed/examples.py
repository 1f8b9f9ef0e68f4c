"""The JavaScript of the user's own text, and every message that the daemon has, to run the one against the other."""

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, get_args

import httpx
import msgspec
import pytest
from msgspec import UNSET, Raw
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from protocol.codes import ErrorCode
from protocol.kinds import KINDS
from protocol.messages import (
    Error,
    Message,
    OrderbookUpdate,
    PriceUpdate,
    ServerInfo,
    State,
    Status,
    encode,
)
from tests.conftest import ROOT

HERE = Path(__file__).resolve().parent

DATA = {
    "binance_prices": b'{"symbol":"BTCUSDT","price":"42150.50","priceChangePercent":"2.45"}',
    "binance_orderbook": b'{"symbol":"BTCUSDT","lastUpdateId":7,"bids":[["1.0","2.0"]],"asks":[["1.5","2.0"]]}',
}
"""What the examples look into; of every other channel they pass over what the venue said."""

WHOLE = {message for kind in KINDS.values() if kind.whole_market for message in kind.messages}
"""Messages that are about a whole market."""


COMMANDS: tuple[dict[str, Any], ...] = (
    {"type": "subscribe", "channels": ["*"]},
    {"type": "ping", "id": 1, "data": {"any": "thing"}},
    {"type": "subscribe", "channels": ["nonsense"]},
    {"type": "unsubscribe", "channels": ["coingecko_trending"]},
    {"type": "subscribe", "channels": ["coingecko_trending"], "since": {"epoch": "another", "seq": 3}},
)
"""What every connection says, so that the daemon answers with all that it has."""

CHANNELS = (
    "binance_prices",
    "binance_orderbook",
    "binance_24hr",
    "coingecko_global",
    "coingecko_top",
    "coingecko_trending",
    "bitcoinprice",
    "ethprice",
)
"""The user's."""

SENT = (
    *("welcome", "subscribed", "unsubscribed", "status", "pong", "error", "test"),
    *("price_update", "orderbook_update", "ticker_update", "market_update", "top_update", "trending_update"),
)
"""The types of message that these get out of a daemon, with `POST /ws/test`."""


def javascript() -> dict[str, str]:
    """Each block of JavaScript, word for word, by the heading above it.

    `TICKERD_SEED` names the text; a relative path counts from the checkout. Without it the test is skipped;
    `TICKERD_REQUIRE_SEED=1` makes its absence an error.
    """
    path = ROOT / os.environ.get("TICKERD_SEED", "../shared/SEED.md")
    if not path.is_file():
        absent = f"the user's text is not at {path}; TICKERD_SEED names it"
        if os.environ.get("TICKERD_REQUIRE_SEED"):
            pytest.fail(absent)
        pytest.skip(absent)
    found: dict[str, str] = {}
    heading = ""
    for part in re.finditer(
        r"^#+ (?P<heading>[^\n]+)$|^```javascript\n(?P<code>.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL
    ):
        heading = part["heading"] or heading
        if part["code"] is not None:
            assert heading not in found, f"two blocks of JavaScript under {heading!r}"
            found[heading] = part["code"]
    assert len(found) >= 12, found.keys()
    return found


def every_message() -> list[bytes]:
    """Messages of every type that there is, as the daemon writes them now."""
    written = [encode(each) for struct in get_args(Message) for each in _samples(struct)]
    assert {msgspec.json.decode(each)["type"] for each in written} == types()
    return written


def types() -> set[str]:
    """The types of all messages."""
    return {_type(struct) for struct in get_args(Message)}


def _type(struct: type[msgspec.Struct]) -> str:
    return str(struct.__struct_config__.tag)


def _samples(struct: type[Any]) -> list[Any]:
    if struct is Status:
        return [_sample(struct, channel=name, state=state) for name in DATA for state in get_args(State)]
    if struct is OrderbookUpdate or struct is PriceUpdate:
        name = "binance_orderbook" if struct is OrderbookUpdate else "binance_prices"
        return [_sample(struct, connector_id=name, data=Raw(DATA[name]))]
    if struct in WHOLE:
        return [_sample(struct, instrument=UNSET, price=UNSET)]
    return [_sample(struct)]


def _sample(struct: type[Any], **given: Any) -> Any:
    """A message; fields that are not among these keep their default."""
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z"
    values: dict[str, Any] = {
        "timestamp": now,
        "since": now,
        "server": ServerInfo("tickerd", "1"),
        "channels": tuple(DATA),
        "id": 7,
        "epoch": "k3vQ-0aYx1Tz",
        "seq": 7,
        "prev_seq": 6,
        "connector_id": f"any_{_type(struct)}",
        "exchange": "binance",
        "instrument": "BTC/USDT",
        "price": Raw(b"42150.50"),
        "received_ms": 1765211439100,
        "data": Raw(b"{}"),
        "recovered": dict.fromkeys(DATA, False),
        "reason": "for a reason",
        "retry_in_s": 1.5,
        "code": ErrorCode.INTERNAL if struct is Error else 1001,
        "message": "a message",
        "side": "buy",
        **dict.fromkeys(("size", "open", "high", "low", "close", "volume"), Raw(b"42150.50")),
        **dict.fromkeys(("bids", "asks"), Raw(b'[["42150.50","0.10"]]')),
        **given,
    }
    fields = msgspec.structs.fields(struct)
    plain = {str: "some", int: 7, float: 1.5, bool: True}
    more = {field.name: plain[field.type] for field in fields if field.required and field.name not in values}
    return struct(**more, **{field.name: values[field.name] for field in fields if field.name in values})


class Scripted:
    """A daemon that sends every message there is to whoever says anything; `port` is where."""

    def __init__(self) -> None:
        self._server = serve(self._talk, "localhost", 0)
        self.port = int(self._server.socket.getsockname()[1])
        self._thread = threading.Thread(target=self._server.serve_forever)

    def _talk(self, websocket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            websocket.recv()
            for message in every_message() * 3:
                websocket.send(message, text=True)
            websocket.recv(timeout=30)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(5)


def judge(found: Any, wanted: Sequence[str], named: Sequence[str]) -> None:
    """Nothing went wrong, everything was met, and each example did what it is for."""
    assert found["stray"] == []
    assert found["reports"].keys() == javascript().keys()
    for heading, report in found["reports"].items():
        assert report["errors"] == [], heading
        assert set(wanted) <= set(report["types"]), heading
        assert set(named) <= set(report["channels"]), heading
    counts = {heading: report["counts"] for heading, report in found["reports"].items()}
    assert counts["Example 1: Real-Time Price Tracking"]["element price-BTC/USDT"] >= 1
    assert counts["Example 2: Order Book Monitoring"]["table"] >= 2
    assert counts["Example 3: Live Chart Updates"]["update"] >= 1
    assert counts["Example 4: Multi-Exchange Comparison"]["table"] >= 1
    assert counts["Message Validation"]["processMessage"] >= len(wanted)
    assert counts["JavaScript Client"]["updateUI"] >= len(wanted)


@contextmanager
def posting(port: int) -> Iterator[None]:
    """Somebody sends a test message to everybody, again and again."""
    over = threading.Event()

    def post() -> None:
        while not over.wait(0.3):
            httpx.post(f"http://localhost:{port}/ws/test", json={"message": "Hello, WebSocket!"})

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
