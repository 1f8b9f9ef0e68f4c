"""Bybit's streams simulated: what a connection is answered and pushed, in the documented form."""

import json
from typing import Any, TypeAlias

import pytest

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.bybit import SimulatedBybit
from connectors.simulator.venues.bybit_streams import PATH, BybitSession, BybitStreams
from connectors.simulator.venues.market import BYBIT, Market
from connectors.simulator.venues.stream import MarketStream

Json: TypeAlias = Any
"""Whatever JSON decodes to."""

BEGAN_MS = 1_800_000_000_000
STEP_MS = 200
BTC = BYBIT["BTCUSDT"]


def market() -> MarketStream:
    return MarketStream(Market(1), 5, BEGAN_MS)


def opened(*topics: str) -> BybitSession:
    session = BybitStreams(market()).open(VenueRequest("GET", PATH), 0)
    for topic in topics:
        assert asked(session, "subscribe", topic)["success"] is True
    return session


def asked(session: BybitSession, op: str, *args: str, req_id: str | None = "7") -> Json:
    request = {"op": op, "args": args} | ({"req_id": req_id} if req_id else {})
    (reply,) = session.receive(json.dumps(request))
    return json.loads(reply)


def due(session: BybitSession, step: int, late_ms: int = 0) -> list[Json]:
    return [json.loads(push.text) for push in session.pushes(step, BEGAN_MS + STEP_MS * step + late_ms)]


def test_a_request_has_one_answer_with_its_id() -> None:
    session = opened()
    answer = asked(session, "subscribe", "publicTrade.BTCUSDT", "tickers.ETHUSDT")
    assert answer.pop("conn_id")
    assert answer == {"success": True, "ret_msg": "subscribe", "req_id": "7", "op": "subscribe"}
    assert list(session.held) == ["publicTrade.BTCUSDT", "tickers.ETHUSDT"]
    assert asked(session, "unsubscribe", "tickers.ETHUSDT")["success"] is True
    assert list(session.held) == ["publicTrade.BTCUSDT"]


def test_a_ping_is_answered_by_a_pong_whose_op_is_ping() -> None:
    answer = asked(opened(), "ping", req_id=None)
    assert (answer["success"], answer["ret_msg"], answer["op"]) == (True, "pong", "ping")
    assert "req_id" not in answer


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([f"publicTrade.{symbol}" for symbol in BYBIT] + ["tickers.BTCUSDT"], "args size >10"),
        (["orderbook.50.NOPEUSDT"], "Invalid symbol :[orderbook.50.NOPEUSDT]"),
        (["tickers.btcusdt"], "Invalid symbol :[tickers.btcusdt]"),
        (["orderbook.30.BTCUSDT"], "error:handler not found,topic:orderbook.30.BTCUSDT"),
        (["kline.7.BTCUSDT"], "error:handler not found,topic:kline.7.BTCUSDT"),
        (["publicTrade"], "error:handler not found,topic:publicTrade"),
        (["tickers.ETHUSDT", "orderbook.1.BTCUSDT"], "error:already subscribed,topic:orderbook.1.BTCUSDT"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_of_the_request_holds(args: list[str], text: str) -> None:
    session = opened("orderbook.1.BTCUSDT")
    answer = asked(session, "subscribe", *args)
    assert (answer["success"], answer["ret_msg"]) == (False, text)
    assert list(session.held) == ["orderbook.1.BTCUSDT"]


@pytest.mark.parametrize("text", ["", "ping", "[]", '{"op":5}', b"\xff"])
def test_what_is_no_request_fails(text: str | bytes) -> None:
    (reply,) = opened().receive(text)
    assert json.loads(reply)["success"] is False


@pytest.mark.parametrize("depth", [50, 200, 1000])
def test_a_book_is_a_snapshot_and_deltas_whose_ids_rise_by_one(depth: int) -> None:
    topic = f"orderbook.{depth}.BTCUSDT"
    session = opened(topic)
    (first,) = due(session, 10)
    assert list(first) == ["topic", "ts", "type", "cts", "data"]
    assert (first["type"], list(first["data"])) == ("snapshot", ["s", "b", "a", "u", "seq"])
    sides = {side: dict(first["data"][side]) for side in "ba"}
    u, seq = first["data"]["u"], first["data"]["seq"]
    for step in (11, 12, 15, 16):
        (frame,) = due(session, step)
        u += 1
        assert (frame["topic"], frame["type"], frame["data"]["u"]) == (topic, "delta", u)
        assert frame["data"]["seq"] > seq
        seq = frame["data"]["seq"]
        for side, levels in sides.items():
            levels |= dict(frame["data"][side])
            for price in [price for price, size in levels.items() if size == "0"]:
                del levels[price]
    book = market().book(BTC, 16, depth)
    for side, whole in (("b", book.bids), ("a", book.asks)):
        assert {float(price) for price in sides[side]} == {price / 10 for price, _ in whole}
    assert due(session, 16, 60_000) == []


@pytest.mark.parametrize(("depth", "most"), [(1, 100), (50, 50), (200, 10), (1000, 5)])
def test_a_book_comes_as_often_as_its_depth_allows(depth: int, most: int) -> None:
    stream = MarketStream(Market(1), 200, BEGAN_MS)
    session = BybitStreams(stream).open(VenueRequest("GET", PATH), 0)
    asked(session, "subscribe", f"orderbook.{depth}.BTCUSDT")
    frames = [frame for ms in range(1000) for frame in session.pushes(ms // 5, BEGAN_MS + ms)]
    assert most * 0.8 <= len(frames) - 1 <= most * 1.15


def test_a_restart_of_the_service_begins_a_book_at_1() -> None:
    session = opened("orderbook.50.BTCUSDT", "orderbook.200.BTCUSDT", "orderbook.1.BTCUSDT")
    due(session, 10)
    session.restart(BTC)
    frames = [frame for frame in due(session, 11) if frame["topic"] != "orderbook.1.BTCUSDT"]
    assert [(frame["type"], frame["data"]["u"]) for frame in frames] == [("snapshot", 1)] * 2
    frames = [frame for frame in due(session, 12) if frame["topic"] != "orderbook.1.BTCUSDT"]
    assert [(frame["type"], frame["data"]["u"]) for frame in frames] == [("delta", 2)] * 2


def test_the_best_prices_are_repeated_after_three_seconds_and_come_only_as_snapshots() -> None:
    session = opened("orderbook.1.BTCUSDT")
    (first,) = due(session, 10)
    assert due(session, 10, 2_999) == []
    (again,) = due(session, 10, 3_000)
    assert again["data"] == first["data"]
    assert due(session, 10, 5_999) == []
    (changed,) = due(session, 11, 6_000)
    assert {frame["type"] for frame in (first, again, changed)} == {"snapshot"}
    assert changed["data"]["u"] > first["data"]["u"]
    assert [len(changed["data"][side]) for side in "ba"] == [1, 1]


def test_trades_begin_with_those_after_the_subscription() -> None:
    session = opened("publicTrade.BTCUSDT")
    assert due(session, 10) == []
    rows = [row for step in range(11, 30) for frame in due(session, step) for row in frame["data"]]
    expected = list(market().trades_between(BTC, 10, 29))
    assert [row["S"].lower() for row in rows] == [trade.side for trade in expected]
    assert list(rows[0]) == ["i", "T", "p", "v", "S", "seq", "s", "BT", "RPI"]
    ids = [int(row["i"]) for row in rows]
    assert ids == sorted(set(ids))
    assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)


def test_a_ticker_has_no_bid_and_no_ask() -> None:
    session = opened("tickers.BTCUSDT")
    (first,) = due(session, 10)
    assert isinstance(first["cs"], int)
    assert {"symbol", "lastPrice", "price24hPcnt"} <= first["data"].keys()
    assert not [key for key in first["data"] if "bid" in key.lower() or "ask" in key.lower()]
    assert due(session, 10, 10_000) == []
    assert len(due(session, 11)) == 1


def test_candles_say_when_they_closed() -> None:
    session = opened("kline.1.BTCUSDT")
    rows = [frame["data"][0] for step in range(0, 700, 5) for frame in due(session, step)]
    closed = [row for row in rows if row["confirm"]]
    assert [row["start"] for row in closed] == [BEGAN_MS, BEGAN_MS + 60_000]
    assert all(row["end"] == row["start"] + 59_999 for row in rows)
    assert all(row["start"] <= row["timestamp"] <= row["end"] for row in rows)
    assert [row["timestamp"] for row in rows] == sorted(row["timestamp"] for row in rows)


def test_who_leaves_is_pushed_nothing_and_begins_anew() -> None:
    session = opened("orderbook.200.BTCUSDT")
    due(session, 10)
    asked(session, "unsubscribe", "orderbook.200.BTCUSDT")
    assert due(session, 11) == []
    asked(session, "subscribe", "orderbook.200.BTCUSDT")
    assert [frame["type"] for frame in due(session, 12)] == ["snapshot"]


def test_faults_refuse_one_instrument_and_let_it_vanish() -> None:
    session = opened("orderbook.200.BTCUSDT", "tickers.ETHUSDT")
    request = json.dumps({"op": "subscribe", "args": ["tickers.BTCUSDT"]})
    (refusal,) = session.refuse(request, BTC, "")
    assert (json.loads(refusal)["success"], json.loads(refusal)["ret_msg"]) == (False, "error:server is busy")
    assert session.refuse(request, BYBIT["ETHUSDT"], "") == ()
    assert session.refuse("{", BTC, "") == ()
    session.forget(BTC)
    assert list(session.held) == ["tickers.ETHUSDT"]


def test_the_list_of_instruments() -> None:
    listed = SimulatedBybit(lambda: 1.5, [symbol for symbol in BYBIT if symbol != "DOTUSDT"])

    def answer(target: str) -> Json:
        return json.loads(listed.answer(VenueRequest("GET", f"/v5/market/instruments-info{target}")).body)

    whole = answer("?category=spot")
    assert (whole["retCode"], whole["time"]) == (0, 1500)
    assert [row["symbol"] for row in whole["result"]["list"]] == [symbol for symbol in BYBIT if symbol != "DOTUSDT"]
    [one] = answer("?category=spot&symbol=BTCUSDT")["result"]["list"]
    assert (one["status"], one["baseCoin"], one["priceFilter"]["tickSize"]) == ("Trading", "BTC", "0.1")
    assert answer("?category=linear")["result"]["list"] == []
    assert answer("")["retCode"] == 10001
