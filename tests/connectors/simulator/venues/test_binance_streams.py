"""Binance's streams simulated: what a connection is pushed, in the documented form, consistent with REST."""

import json
from typing import Any, TypeAlias

import pytest

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.binance import SimulatedBinance
from connectors.simulator.venues.binance_streams import INTERVALS, MOST_STREAMS, BinanceSession, BinanceStreams
from connectors.simulator.venues.market import BINANCE, Market
from connectors.simulator.venues.sockets import Close
from connectors.simulator.venues.stream import MarketStream

Json: TypeAlias = Any
"""Whatever JSON decodes to."""

BEGAN_MS = 1_800_000_000_000
STEP_MS = 200


def venue() -> BinanceStreams:
    return BinanceStreams(MarketStream(Market(1), 5, BEGAN_MS))


def opened(target: str = "/stream") -> BinanceSession:
    return venue().open(VenueRequest("GET", target), 0)


def due(session: BinanceSession, step: int) -> list[Json]:
    return [json.loads(push.text) for push in session.pushes(step, BEGAN_MS + STEP_MS * step)]


def ask(session: BinanceSession, text: str) -> Json:
    (reply,) = session.receive(text)
    assert isinstance(reply, bytes)
    return json.loads(reply)


def rest_book(step: int, limit: int = 1000) -> Json:
    rest = SimulatedBinance(Market(1), lambda: BEGAN_MS / 1000, lambda: step)
    return json.loads(rest.answer(VenueRequest("GET", f"/api/v3/depth?symbol=BTCUSDT&limit={limit}")).body)


def test_a_book_of_rest_and_every_change_since_are_the_book_of_rest_later() -> None:
    session = opened("/stream?streams=btcusdt@depth@100ms")
    assert due(session, 10) == []
    first = rest_book(12)
    sides = {"b": dict(first["bids"]), "a": dict(first["asks"])}
    last = None
    for step in (11, 12, 13, 15, 16):
        (frame,) = due(session, step)
        row = frame["data"]
        assert (frame["stream"], row["e"], row["s"]) == ("btcusdt@depth@100ms", "depthUpdate", "BTCUSDT")
        assert last is None or row["U"] == last + 1
        last = row["u"]
        if row["u"] > first["lastUpdateId"]:
            for side, levels in sides.items():
                levels |= dict(row[side])
    later = rest_book(16)
    assert last == later["lastUpdateId"]
    for side, name in (("b", "bids"), ("a", "asks")):
        assert {p: q for p, q in sides[side].items() if float(q)} == dict(later[name])


@pytest.mark.parametrize("snapshot", range(11, 15))
def test_a_change_of_many_steps_mends_a_snapshot_of_any_step_in_it(snapshot: int) -> None:
    session = opened("/stream?streams=btcusdt@depth@100ms")
    due(session, 10)
    (frame,) = due(session, 15)
    row, then, later = frame["data"], rest_book(snapshot), rest_book(15)
    assert row["U"] <= then["lastUpdateId"] + 1 <= row["u"]
    for side, name in (("b", "bids"), ("a", "asks")):
        mended = dict(then[name]) | dict(row[side])
        assert {p: q for p, q in mended.items() if float(q)} == dict(later[name])


def test_each_stream_has_its_own_form_and_pace() -> None:
    names = ["btcusdt@trade", "btcusdt@bookTicker", "btcusdt@ticker", "btcusdt@depth", "btcusdt@kline_1m"]
    session = opened(f"/stream?streams={'/'.join(names)}")
    seen: dict[str, list[Json]] = {name: [] for name in names}
    for step in range(61):
        for frame in due(session, step):
            seen[frame["stream"]].append(frame["data"])
    counts = {name: len(rows) for name, rows in seen.items()}
    assert (counts["btcusdt@ticker"], counts["btcusdt@depth"], counts["btcusdt@bookTicker"]) == (12, 12, 60)
    assert counts["btcusdt@kline_1m"] == 6
    ids = [row["t"] for row in seen["btcusdt@trade"]]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert set(seen["btcusdt@trade"][0]) == set("eEstpqTmM")
    assert set(seen["btcusdt@bookTicker"][0]) == set("usbBaA")
    assert seen["btcusdt@kline_1m"][-1]["k"]["L"] == ids[-1]
    assert seen["btcusdt@depth"][0]["u"] in {row["u"] for row in seen["btcusdt@bookTicker"]}, "counted alike"


def test_one_that_is_alone_in_the_address_comes_without_an_envelope() -> None:
    session = opened("/ws/btcusdt@bookTicker")
    due(session, 1)
    (row,) = due(session, 2)
    assert set(row) == set("usbBaA")
    assert [venue().serves(path) for path in ("/ws", "/stream", "/ws/btcusdt@trade", "/ws/v5/public")] == [True] * 3 + [
        False
    ]


def test_requests_are_answered_as_documented() -> None:
    session = opened()
    assert ask(session, '{"method":"SUBSCRIBE","params":["btcusdt@trade","nope@trade"],"id":1}') == {
        "result": None,
        "id": 1,
    }
    assert ask(session, '{"method":"LIST_SUBSCRIPTIONS","id":9}')["result"] == ["btcusdt@trade", "nope@trade"]
    due(session, 1)
    assert {frame["stream"] for frame in due(session, 20)} == {"btcusdt@trade"}, "what is unknown stays silent"
    assert ask(session, '{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":2}') == {"result": None, "id": 2}
    assert due(session, 30) == []
    assert ask(session, '{"method":"GET_PROPERTY","params":["combined"],"id":3}') == {"result": True, "id": 3}
    ask(session, '{"method":"SET_PROPERTY","params":["combined",false],"id":4}')
    assert ask(session, '{"method":"GET_PROPERTY","params":["combined"],"id":"x"}') == {"result": False, "id": "x"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 3),
        ("{}", 2),
        ('{"method":"DANCE","id":1}', 2),
        ('{"method":"GET_PROPERTY","params":["x"],"id":1}', 0),
    ],
)
def test_what_is_wrong_with_a_request_is_said_flat(text: str, code: int) -> None:
    assert ask(opened(), text)["code"] == code


def test_what_is_wrong_with_a_stream_is_said_nested() -> None:
    assert ask(opened(), '{"method":"SUBSCRIBE","params":["btcusdt@tirade"],"id":1}')["error"]["code"] == 2


def test_more_streams_than_are_allowed_end_the_connection() -> None:
    session = opened()
    names = [f"a{number}@trade" for number in range(MOST_STREAMS + 1)]
    assert session.receive(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1})) == [
        Close(1008, "Too many streams")
    ]


def test_the_end_is_announced_in_the_same_envelope() -> None:
    (notice,) = opened().notice()
    assert json.loads(notice)["stream"] == "!serverShutdown"
    (raw,) = opened("/ws").notice()
    assert json.loads(raw)["e"] == "serverShutdown"


def test_a_candle_is_closed_once_its_time_is_over() -> None:
    session = opened("/stream?streams=ethusdt@kline_1s/ethusdt@kline_1M")
    rows = [frame["data"]["k"] for step in range(40) for frame in due(session, step)]
    closed = [row["t"] for row in rows if row["x"]]
    assert closed == [BEGAN_MS + 1000 * second for second in range(len(closed))]
    assert len(closed) >= 6
    assert INTERVALS["1h"] == 3_600_000


def test_what_is_not_listed_any_more_falls_silent() -> None:
    known = set(BINANCE)
    session = BinanceStreams(MarketStream(Market(1), 5, BEGAN_MS), known).open(
        VenueRequest("GET", "/stream?streams=btcusdt@ticker/ethusdt@ticker"), 0
    )
    due(session, 0)
    known.remove("BTCUSDT")
    assert [frame["stream"] for frame in due(session, 10)] == ["ethusdt@ticker"]
