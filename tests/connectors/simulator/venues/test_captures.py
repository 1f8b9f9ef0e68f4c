"""Captures of five venues' websockets: which frame is whose, and what is played to whom and when."""

import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.simulator import SOCKET_VENUES
from connectors.simulator.venues.captures import Capture, Captured, Player, RecordedVenue, key_of
from connectors.simulator.venues.market import Market
from connectors.simulator.venues.recording import Recording
from connectors.simulator.venues.sockets import Close, SocketSession
from connectors.simulator.venues.stream import MarketStream

Json: TypeAlias = Any
"""Whatever JSON decodes to."""


def frames(*of: tuple[float, str]) -> Capture:
    return Capture([Captured(at, key, f"{key}@{at:g}".encode()) for at, key in of], 1000)


def test_each_subscription_is_played_its_part_from_its_beginning_again_and_again() -> None:
    player = Player(frames((0, "a"), (100, "b"), (300, "a")))

    assert player.due([], 5_000) == []
    assert player.due(["a"], 10_000) == [b"a@0"]
    assert player.due(["a", "b"], 10_250) == []
    assert player.due(["a", "b"], 10_400) == [b"a@300", b"b@100"]
    assert player.due(["a", "b"], 11_350) == [b"a@0", b"a@300", b"b@100"]
    assert player.due(["b"], 11_400) == []
    assert player.due(["a", "b"], 12_000) == [b"a@0"]


def test_what_is_everybodys_is_played_from_the_first_subscription_on() -> None:
    player = Player(frames((0, ""), (10, "a")))

    assert player.due([], 0) == []
    assert player.due(["none such"], 1_000) == [b"@0"]


@pytest.mark.parametrize(
    ("venue", "frame", "key"),
    [
        ("okx", {"arg": {"channel": "books", "instId": "BTC-USDT"}, "data": [{}]}, "books BTC-USDT"),
        ("okx", {"event": "subscribe", "arg": {"channel": "books", "instId": "BTC-USDT"}}, None),
        ("binance", {"stream": "nknusdt@depth@100ms", "data": {}}, "nknusdt@depth@100ms"),
        ("binance", {"result": None, "id": 1}, None),
        ("bybit", {"topic": "orderbook.200.BTCUSDT", "type": "delta", "data": {}}, "orderbook.200.BTCUSDT"),
        ("bybit", {"success": True, "op": "subscribe"}, None),
        ("kraken", {"channel": "book", "type": "update", "data": [{"symbol": "BTC/USD"}]}, "book BTC/USD"),
        ("kraken", {"channel": "instrument", "type": "snapshot", "data": {"pairs": []}}, "instrument"),
        ("kraken", {"channel": "heartbeat"}, ""),
        ("kraken", {"method": "subscribe", "success": True, "result": {"channel": "book"}}, None),
        ("coinbase", {"channel": "l2_data", "sequence_num": 3, "events": []}, "all"),
        ("coinbase", {"type": "error", "message": "x"}, None),
    ],
)
def test_a_frame_belongs_to_a_subscription(venue: str, frame: Json, key: str | None) -> None:
    assert key_of(venue, json.dumps(frame).encode()) == key
    assert key_of(venue, b"[1]") is None


ASKED: list[tuple[str, str, Json, Json, Json]] = [
    (
        "okx",
        "/ws/v5/public",
        {"op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT"}]},
        {"event": "subscribe"},
        {"arg": {"channel": "books", "instId": "BTC-USDT"}, "action": "snapshot", "data": [{}]},
    ),
    (
        "binance",
        "/stream",
        {"method": "SUBSCRIBE", "params": ["nknusdt@aggTrade"], "id": 7},
        {"result": None, "id": 7},
        {"stream": "nknusdt@aggTrade", "data": {"a": 1}},
    ),
    (
        "bybit",
        "/v5/public/spot",
        {"op": "subscribe", "args": ["publicTrade.XYZUSDT"], "req_id": "r"},
        {"success": True, "req_id": "r", "op": "subscribe"},
        {"topic": "publicTrade.XYZUSDT", "data": [{"i": "1"}]},
    ),
    (
        "kraken",
        "/v2",
        {"method": "subscribe", "params": {"channel": "book", "symbol": ["XYZ/USD"], "depth": 10}, "req_id": 3},
        {"method": "subscribe", "req_id": 3, "success": True},
        {"channel": "book", "type": "snapshot", "data": [{"symbol": "XYZ/USD", "bids": [], "asks": []}]},
    ),
    (
        "coinbase",
        "/",
        {"type": "subscribe", "channel": "level2", "product_ids": ["XYZ-USD"]},
        None,
        {"channel": "l2_data", "sequence_num": 0, "events": [{"type": "snapshot", "product_id": "XYZ-USD"}]},
    ),
]


def opened(venue: str, path: str, capture: Capture) -> SocketSession:
    make = {str(name): one for name, one in SOCKET_VENUES.items()}[venue]
    stream, known = MarketStream(Market(1)), ("BTC-USDT",)
    recorded = RecordedVenue(make(stream, known), capture, stream, known)
    assert recorded.serves(path)
    return recorded.open(VenueRequest("GET", path), 0)


@pytest.mark.parametrize(("venue", "path", "request_", "ack", "frame"), ASKED, ids=[one[0] for one in ASKED])
def test_every_venue_acknowledges_and_plays_what_was_asked_for(
    venue: str, path: str, request_: Json, ack: Json, frame: Json
) -> None:
    text = json.dumps(frame).encode()
    key = key_of(venue, text)
    assert key is not None
    session = opened(venue, path, Capture([Captured(0, key, text), Captured(0, "another", b"{}")], 1000))
    assert session.pushes(0, 1_000) == []
    replies = [json.loads(reply) for reply in session.receive(json.dumps(request_)) if not isinstance(reply, Close)]

    assert len(replies) == (ack is not None)
    if ack is not None:
        assert ack.items() <= replies[0].items()
    assert [push.text for push in session.pushes(0, 2_000)] == [text]


@pytest.mark.parametrize("venue", ["bybit", "kraken", "coinbase"])
@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", b"\xff", '{"op":3}', '{"method":"subscribe","params":[]}', '{"a":[1]}']
)
def test_whatever_a_client_says_nothing_breaks(venue: str, text: str | bytes) -> None:
    path = next(one[1] for one in ASKED if one[0] == venue)
    session = opened(venue, path, Capture([], 1000))

    session.receive(text)
    assert session.pushes(0, 0) == []


def test_who_leaves_is_played_nothing_more() -> None:
    _, path, request, _, frame = ASKED[3]
    text = json.dumps(frame).encode()
    session = opened("kraken", path, Capture([Captured(0, "book XYZ/USD", text)], 100))
    session.receive(json.dumps(request))
    assert session.pushes(0, 0)
    session.receive(json.dumps({**request, "method": "unsubscribe"}))
    assert session.pushes(0, 1_000) == []


def test_the_recorded_streams_are_played_untouched(recorded: Path) -> None:
    recording = Recording.load(recorded)

    assert list(recording.captures) == ["okx", "binance"]
    assert recording.left_out == ("coinbase_ws_exchange_2021-04-17.jsonl",)
    lines = (recorded / "binance_ws_combined_2021-10-12.jsonl").read_text().splitlines()
    sent = [json.loads(line)["frame"] for line in lines]
    streams = list(dict.fromkeys(json.loads(frame)["stream"] for frame in sent))
    played = Player(recording.captures["binance"])
    got = [text.decode() for at in range(0, 31_000, 20) for text in played.due(streams, at)]
    assert got[: len(sent)] == sent
    assert got[len(sent)] == sent[0]
    books = [key for key in recording.captures["okx"].by_key if key.startswith("books ")]
    assert books == ["books BTC-USDT"]


def test_the_snapshot_that_belongs_to_the_stream_can_be_spliced(recorded: Path) -> None:
    """The first change after the snapshot begins at or before its next id."""
    recording = Recording.load(recorded)
    for symbol in ("NKNUSDT", "BLZETH"):
        answer = recording.binance(VenueRequest("GET", f"/api/v3/depth?symbol={symbol}&limit=1000"))
        last = json.loads(answer.body)["lastUpdateId"]
        changes = [json.loads(one.text)["data"] for one in _of(recording, f"{symbol.lower()}@depth@100ms")]
        first = next(change for change in changes if change["u"] > last)
        assert first["U"] <= last + 1 <= first["u"]


def _of(recording: Recording, key: str) -> list[Captured]:
    return recording.captures["binance"].by_key[key]
