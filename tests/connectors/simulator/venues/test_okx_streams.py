"""OKX's streams simulated: what a connection is pushed after which request, in the documented form."""

import json
from typing import Any, TypeAlias

import pytest

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.market import OKX, Market
from connectors.simulator.venues.okx import BUSINESS_PATH, PUBLIC_PATH
from connectors.simulator.venues.okx_streams import OkxSession, OkxStreams
from connectors.simulator.venues.stream import MarketStream

Json: TypeAlias = Any
"""Whatever JSON decodes to."""

BEGAN_MS = 1_800_000_000_000
STEP_MS = 200


def opened(path: str = PUBLIC_PATH) -> OkxSession:
    return OkxStreams(MarketStream(Market(1), 5, BEGAN_MS)).open(VenueRequest("GET", path), 0)


def asked(session: OkxSession, op: str, channel: str, symbol: str = "BTC-USDT") -> Json:
    request = {"id": "7", "op": op, "args": [{"channel": channel, "instId": symbol}]}
    (reply,) = session.receive(json.dumps(request))
    return json.loads(reply)


def due(session: OkxSession, step: int, late_ms: int = 0) -> list[Json]:
    return [json.loads(push.text) for push in session.pushes(step, BEGAN_MS + STEP_MS * step + late_ms)]


@pytest.mark.parametrize(
    ("path", "channel", "code"),
    [
        (PUBLIC_PATH, "candle1m", "64001"),
        (PUBLIC_PATH, "trades-all", "64001"),
        (PUBLIC_PATH, "books4", "60018"),
        (BUSINESS_PATH, "tickers", "60018"),
        (BUSINESS_PATH, "candle1M", "60018"),
    ],
)
def test_a_channel_is_at_its_own_path_alone(path: str, channel: str, code: str) -> None:
    session = opened(path)
    reply = asked(session, "subscribe", channel)

    assert (reply["event"], reply["code"], reply["id"]) == ("error", code, "7")
    assert due(session, 5) == []


def test_a_book_is_a_snapshot_and_a_chain_of_changes() -> None:
    session, stream = opened(), MarketStream(Market(1), 5, BEGAN_MS)
    assert asked(session, "subscribe", "books")["event"] == "subscribe"
    (first,) = due(session, 10)
    bids = {price: size for price, size, *_ in first["data"][0]["bids"]}
    last = first["data"][0]["seqId"]

    assert (first["action"], first["data"][0]["prevSeqId"], first["data"][0]["checksum"]) == ("snapshot", -1, 0)
    for step in (11, 12, 15, 16):
        (frame,) = due(session, step)
        (row,) = frame["data"]
        assert (frame["action"], row["prevSeqId"]) == ("update", last)
        assert row["seqId"] > last
        last = row["seqId"]
        bids |= {price: size for price, size, *_ in row["bids"]}
    there = {float(price): float(size) for price, size in bids.items() if size != "0"}
    whole = stream.book(OKX["BTC-USDT"], 16).bids
    assert there == {price / 10: size / 10**8 for price, size in whole}
    assert due(session, 16, 59_000) == []
    (heartbeat,) = due(session, 16, 60_001)
    assert (heartbeat["data"][0]["asks"], heartbeat["data"][0]["bids"]) == ([], [])
    assert heartbeat["data"][0]["prevSeqId"] == heartbeat["data"][0]["seqId"] == last


def test_a_restart_keeps_the_chain_while_the_number_falls() -> None:
    session = opened()
    asked(session, "subscribe", "books")
    (before,) = due(session, 10)
    session.restart(OKX["BTC-USDT"])
    (after,) = due(session, 11)

    assert after["data"][0]["prevSeqId"] == before["data"][0]["seqId"] > after["data"][0]["seqId"] >= 0


def test_books_come_ten_times_a_second_at_most() -> None:
    stream = MarketStream(Market(1), 50, BEGAN_MS)
    session = OkxStreams(stream).open(VenueRequest("GET", PUBLIC_PATH), 0)
    asked(session, "subscribe", "books")
    frames = [frame for step in range(51) for frame in session.pushes(step, stream.time_ms(step))]

    assert len(frames) == 11


def test_trades_begin_with_those_after_the_subscription() -> None:
    session, stream = opened(), MarketStream(Market(1), 5, BEGAN_MS)
    asked(session, "subscribe", "trades")
    assert due(session, 10) == []
    rows = [frame["data"][0] for step in range(11, 30) for frame in due(session, step)]

    expected = list(stream.trades_between(OKX["BTC-USDT"], 10, 29))
    assert [int(row["tradeId"]) for row in rows] == [trade.id for trade in expected]
    assert list(rows[0]) == ["instId", "tradeId", "px", "sz", "side", "ts", "count", "source", "seqId"]
    assert [row["side"] for row in rows] == [trade.side for trade in expected]


def test_the_best_prices_go_before_the_book_and_are_its_first_levels() -> None:
    session = opened()
    asked(session, "subscribe", "books")
    asked(session, "subscribe", "bbo-tbt")
    best, book = due(session, 10)

    assert (best["arg"]["channel"], book["arg"]["channel"]) == ("bbo-tbt", "books")
    assert "action" not in best
    for side in ("bids", "asks"):
        assert best["data"][0][side] == book["data"][0][side][:1]
    assert best["data"][0]["seqId"] == book["data"][0]["seqId"]


def test_candles_say_when_they_closed() -> None:
    session = opened(BUSINESS_PATH)
    asked(session, "subscribe", "candle1m")
    rows = [frame["data"][0] for step in range(0, 700, 5) for frame in due(session, step)]

    assert {len(row) for row in rows} == {9}
    closed = [row for row in rows if row[8] == "1"]
    assert [int(row[0]) for row in closed] == [BEGAN_MS, BEGAN_MS + 60_000]
    places = [rows.index(row) for row in closed]
    assert [int(rows[place + 1][0]) - int(rows[place][0]) for place in places] == [60_000, 60_000]
    assert 130 <= len(rows) <= 145


def test_who_leaves_is_pushed_nothing_and_begins_anew() -> None:
    session = opened()
    asked(session, "subscribe", "books")
    due(session, 10)
    assert asked(session, "unsubscribe", "books")["event"] == "unsubscribe"
    assert due(session, 11) == []
    asked(session, "subscribe", "books")
    assert [frame["action"] for frame in due(session, 12)] == ["snapshot"]


def test_a_delisted_instrument_ends_with_an_error_for_each_subscription() -> None:
    session = opened()
    asked(session, "subscribe", "books")
    asked(session, "subscribe", "trades")
    asked(session, "subscribe", "trades", "ETH-USDT")
    errors = [json.loads(text) for text in session.forget(OKX["BTC-USDT"])]

    assert [error["code"] for error in errors] == ["60018", "60018"]
    assert {frame["arg"]["instId"] for step in range(10, 20) for frame in due(session, step)} == {"ETH-USDT"}
