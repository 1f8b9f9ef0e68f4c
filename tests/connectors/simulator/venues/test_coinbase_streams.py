"""Coinbase simulated: what a connection is answered and pushed, in the documented form."""

import json
from itertools import pairwise
from typing import Any, TypeAlias, cast

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed, wrap_client_stream

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.http.server import UpgradedStream
from connectors.simulator.venues.coinbase import SimulatedCoinbase
from connectors.simulator.venues.coinbase_streams import MOST_BOOKS, RULES, CoinbaseSession, CoinbaseStreams
from connectors.simulator.venues.market import COINBASE, Market
from connectors.simulator.venues.sockets import Push
from connectors.simulator.venues.stream import BookChange, MarketStream
from connectors.simulator.venues.websocket import VenueConnection
from connectors.venues.coinbase.listing import CoinbaseListing

Json: TypeAlias = Any
"""Whatever JSON decodes to."""

BEGAN_MS = 1_800_000_000_000
STEP_MS = 200


def opened(known: set[str] | None = None) -> CoinbaseSession:
    """A connection."""
    stream = MarketStream(Market(1), 5, BEGAN_MS)
    return CoinbaseStreams(stream, set(COINBASE) if known is None else known).open(VenueRequest("GET", "/"), 3)


def pushed(session: CoinbaseSession, step: int) -> list[Push]:
    """What is due at this step of the market."""
    return list(session.pushes(step, BEGAN_MS + STEP_MS * step))


def due(session: CoinbaseSession, step: int) -> list[Json]:
    """The same, decoded."""
    return [json.loads(push.text) for push in pushed(session, step)]


def ask(session: CoinbaseSession, channel: str, *products: str, type_: str = "subscribe") -> Json:
    """What a request is answered."""
    request = {"type": type_, "channel": channel} | ({"product_ids": products} if products else {})
    [answer] = session.receive(json.dumps(request))
    return json.loads(answer)


def test_it_serves_the_root_and_only_that() -> None:
    venue = CoinbaseStreams(MarketStream(Market(1)))
    assert [venue.serves(path) for path in ("/", "", "/v2", "/ws/v5/public")] == [True, True, False, False]


def test_a_request_is_answered_by_the_list_of_all_that_there_is() -> None:
    session = opened()
    assert ask(session, "heartbeats")["events"] == [{"subscriptions": {"heartbeats": ["heartbeats"]}}]
    ask(session, "ticker", "BTC-USD", "ETH-USD")
    answer = ask(session, "level2", "BTC-USD")
    assert answer["channel"] == "subscriptions"
    held = {"heartbeats": ["heartbeats"], "ticker": ["BTC-USD", "ETH-USD"], "level2": ["BTC-USD"]}
    assert answer["events"] == [{"subscriptions": held}]
    left = ask(session, "ticker", "ETH-USD", type_="unsubscribe")
    assert left["events"][0]["subscriptions"]["ticker"] == ["BTC-USD"]
    assert "ticker" not in ask(session, "ticker", type_="unsubscribe")["events"][0]["subscriptions"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no", "failed to parse the message"),
        ('{"type":"subscribe"}', "failed to parse the message"),
        ('{"type":"sub","channel":"ticker"}', "type `sub` is not supported"),
        ('{"type":"subscribe","channel":"user"}', "channel `user` is not supported"),
        ('{"type":"subscribe","channel":"ticker"}', "product_ids is required"),
        ('{"type":"subscribe","channel":"ticker","product_ids":["XXX-USD"]}', "XXX-USD is not a valid product"),
    ],
)
def test_an_error_names_no_request_and_has_no_number(text: str, message: str) -> None:
    session = opened()
    assert [json.loads(answer) for answer in session.receive(text)] == [{"type": "error", "message": message}]
    assert ask(session, "heartbeats")["sequence_num"] == 0


def test_a_connection_may_have_so_many_books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.simulator.venues.coinbase_streams.MOST_BOOKS", 3)
    session = opened()
    products = list(COINBASE)
    for product in products[:3]:
        assert ask(session, "level2", product)["channel"] == "subscriptions"
    assert ask(session, "level2", products[3])["message"] == "too many L2 streams requested in a single session"
    assert ask(session, "level2", products[0])["channel"] == "subscriptions"
    assert MOST_BOOKS == 30


def test_every_frame_has_the_next_number() -> None:
    session = opened()
    frames = []
    for channel in ("heartbeats", "level2", "market_trades", "ticker", "candles"):
        frames.append(ask(session, channel, *([] if channel == "heartbeats" else ["BTC-USD", "ETH-USDT"])))
        frames += due(session, 100)
    for step in range(101, 140):
        frames += due(session, step)
    assert [frame["sequence_num"] for frame in frames] == list(range(len(frames)))
    assert {frame["channel"] for frame in frames} == {
        "subscriptions",
        "heartbeats",
        "l2_data",
        "market_trades",
        "ticker",
        "candles",
    }


def test_heartbeats_come_each_second_and_are_counted() -> None:
    session = opened()
    ask(session, "heartbeats")
    beats = [frame["events"][0]["heartbeat_counter"] for step in range(21) for frame in due(session, step)]
    assert beats == [1, 2, 3, 4, 5]


def test_trades_of_before_come_newest_first_then_those_of_each_step() -> None:
    session = opened()
    ask(session, "market_trades", "BTC-USD")
    [first] = pushed(session, 100)
    assert first.history
    [event] = json.loads(first.text)["events"]
    assert event["type"] == "snapshot"
    ids = [int(trade["trade_id"]) for trade in event["trades"]]
    assert len(ids) == 50
    assert ids == sorted(ids, reverse=True)
    following: list[int] = []
    for step in range(101, 130):
        for frame in due(session, step):
            assert frame["events"][0]["type"] == "update"
            following += sorted(int(trade["trade_id"]) for trade in frame["events"][0]["trades"])
    assert following == list(range(ids[0] + 1, ids[0] + 1 + len(following)))


def test_the_side_of_a_trade_is_the_makers() -> None:
    session = opened()
    ask(session, "market_trades", "BTC-USD")
    stream = MarketStream(Market(1), 5, BEGAN_MS)
    takers = {str(trade.id): trade.side for trade in stream.newest_trades(COINBASE["BTC-USD"], 100, 50)}
    [frame] = due(session, 100)
    told = {trade["trade_id"]: trade["side"] for trade in frame["events"][0]["trades"]}
    assert told == {id_: {"buy": "SELL", "sell": "BUY"}[side] for id_, side in takers.items()}


def test_a_ticker_comes_when_there_was_a_trade() -> None:
    session = opened()
    ask(session, "ticker", "BTC-USD")
    ask(session, "market_trades", "BTC-USD")
    types = []
    for step in range(100, 120):
        channels = [frame["channel"] for frame in due(session, step)]
        types.append(channels)
        assert step == 100 or channels in ([], ["market_trades", "ticker"])
    assert types[0] == ["market_trades", "ticker"]
    assert [] in types


def test_a_book_is_the_markets_after_each_change() -> None:
    session = opened()
    ask(session, "level2", "BTC-USD")
    stream, listing = MarketStream(Market(1), 5, BEGAN_MS), COINBASE["BTC-USD"]
    book: dict[tuple[str, str], str] = {}
    for step in range(50, 80):
        for frame in due(session, step):
            [event] = frame["events"]
            assert event["type"] == ("snapshot" if step == 50 else "update")
            for level in event["updates"]:
                assert level["event_time"].startswith("1970" if step == 50 else "2027")
                book[level["side"], level["price_level"]] = level["new_quantity"]
        whole = stream.book(listing, step)
        live = {key for key, quantity in book.items() if float(quantity)}
        assert len(live) == len(whole.bids) + len(whole.asks)
        assert max(float(price) for side, price in live if side == "bid") == whole.bids[0][0] / 100
        assert min(float(price) for side, price in live if side == "offer") == whole.asks[0][0] / 100


def test_another_change_can_be_told_in_a_frames_place() -> None:
    session = opened()
    ask(session, "level2", "BTC-USD")
    pushed(session, 50)
    [push] = pushed(session, 51)
    assert push.remake is not None
    assert push.change is not None
    assert push.remake(push.change, False) == push.text
    other = json.loads(push.remake(BookChange(50, 51, ((9_700_000, 0),), ()), True))
    assert other["sequence_num"] == json.loads(push.text)["sequence_num"]
    assert [(level["side"], level["price_level"]) for level in other["events"][0]["updates"]] == [("bid", "97000")]


def test_candles_come_each_second_and_the_one_that_ended_once_more() -> None:
    session = opened()
    ask(session, "candles", "BTC-USD")
    steps = range(1485, 1515)
    frames = [frame for step in steps for frame in due(session, step)]
    starts = [[int(candle["start"]) for candle in frame["events"][0]["candles"]] for frame in frames]
    first = BEGAN_MS // 1000
    assert starts[0] == [first, first - 300, first - 600, first - 900]
    assert starts[1:] == [[first]] * 2 + [[first, first + 300]] + [[first + 300]] * 2
    assert [frame["events"][0]["type"] for frame in frames] == ["snapshot"] + ["update"] * 5


def test_what_is_against_usdc_comes_as_what_it_is_the_same_as() -> None:
    session = opened()
    answer = ask(session, "ticker", "BTC-USDC")
    assert answer["events"][0]["subscriptions"] == {"ticker": ["BTC-USDC"]}
    [frame] = due(session, 5)
    assert frame["events"][0]["tickers"][0]["product_id"] == "BTC-USD"


def test_nothing_comes_of_what_is_delisted_until_it_is_listed_again() -> None:
    known = set(COINBASE)
    session = opened(known)
    ask(session, "level2", "BTC-USD")
    due(session, 5)
    known.discard("BTC-USD")
    assert session.forget(COINBASE["BTC-USD"]) == ()
    assert due(session, 6) == []
    assert ask(session, "ticker", "BTC-USD")["message"] == "BTC-USD is not a valid product"
    known.add("BTC-USD")
    [frame] = due(session, 7)
    assert frame["events"][0]["type"] == "snapshot"


def test_a_request_can_be_refused() -> None:
    session = opened()
    text = '{"type":"subscribe","channel":"level2","product_ids":["BTC-USD"]}'
    [refusal] = session.refuse(text, COINBASE["BTC-USD"], "")
    assert json.loads(refusal)["message"] == "BTC-USD is not a valid product"
    [refusal] = session.refuse(text, COINBASE["BTC-USD"], "no more")
    assert json.loads(refusal)["message"] == "no more"
    assert session.refuse(text, COINBASE["ETH-USD"], "") == ()


@pytest.mark.parametrize("asks", [True, False])
async def test_who_asks_for_nothing_in_five_seconds_is_cut_off(
    asks: bool, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    near, far = memory_stream_pair()

    async def serve() -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await far.receive_some()
        await VenueConnection(opened(), RULES).run(UpgradedStream(far, head, b""))

    nursery.start_soon(serve)
    websocket = await wrap_client_stream(nursery, cast("trio.SocketStream", near), "venue", "/")
    if asks:
        await websocket.send_message('{"type":"subscribe","channel":"heartbeats"}')
        await websocket.get_message()
    with pytest.raises(ConnectionClosed):
        await websocket.get_message()
    assert trio.current_time() == pytest.approx(60 if asks else 5, abs=0.5)


def test_the_list_of_products_says_what_is_traded() -> None:
    known = set(COINBASE) - {"ETH-USD"}
    listing = CoinbaseListing()
    answer = SimulatedCoinbase(known).answer(VenueRequest("GET", listing.path([])))
    said = listing.read(answer.body)
    assert {product for product, wrong in said.items() if wrong} == {"ETH-USD", "ETH-USDC"}
    assert said.keys() == {*COINBASE, "BTC-USDC", "ETH-USDC"}
    one = SimulatedCoinbase().answer(VenueRequest("GET", "/api/v3/brokerage/market/products?product_ids=BTC-USD"))
    assert [row["product_id"] for row in json.loads(one.body)["products"]] == ["BTC-USD"]
    futures = SimulatedCoinbase().answer(VenueRequest("GET", "/api/v3/brokerage/market/products?product_type=FUTURE"))
    assert json.loads(futures.body)["products"] == []


def test_times_rise() -> None:
    session = opened()
    ask(session, "level2", "BTC-USD")
    times = [frame["timestamp"] for step in range(20) for frame in due(session, step)]
    assert all(earlier < later for earlier, later in pairwise(times))
