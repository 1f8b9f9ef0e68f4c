"""Kraken simulated: what a connection is answered and pushed, in the documented form; and our connector reads it."""

import json
from typing import Any, TypeAlias

import msgspec
import pytest

from connectors.base import Event, Rows
from connectors.push.venue import Control, SubscribeAck, SubscribeEnded, SubscribeRefused
from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.kraken_streams import KrakenSession, KrakenStreams
from connectors.simulator.venues.market import KRAKEN, Market
from connectors.simulator.venues.stream import MarketStream
from connectors.venues.kraken import streams as connector
from connectors.venues.kraken.plan import plan
from protocol.channels import Channel
from protocol.fields import CandleFields, DepthFields, QuoteFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS

Json: TypeAlias = Any
"""Whatever JSON decodes to."""

BEGAN_MS = 1_800_000_000_000
STEP_MS = 200
SYMBOLS = ("BTC/USD", "XRP/USDT")


def stream() -> MarketStream:
    return MarketStream(Market(1), 5, BEGAN_MS)


def opened(known: set[str] | None = None) -> KrakenSession:
    session = KrakenStreams(stream(), set(KRAKEN) if known is None else known).open(VenueRequest("GET", "/v2"), 3)
    due(session, 0)
    return session


def due(session: KrakenSession, step: int, *, beats: bool = False) -> list[Json]:
    pushes = [json.loads(push.text) for push in session.pushes(step, BEGAN_MS + STEP_MS * step)]
    return [push for push in pushes if beats or push["channel"] != "heartbeat"]


def ask(session: KrakenSession, method: str = "subscribe", **params: object) -> list[Json]:
    request = {"method": method, "params": params, "req_id": 7}
    return [json.loads(answer) for answer in session.receive(json.dumps(request))]


def test_it_greets_with_its_status_whose_id_is_large() -> None:
    session = KrakenStreams(stream()).open(VenueRequest("GET", "/v2"), 3)
    [status] = due(session, 0, beats=True)
    assert status["channel"] == "status"
    assert status["data"][0]["system"] == "online"
    assert status["data"][0]["connection_id"] > 2**63


def test_it_serves_its_path_and_only_that() -> None:
    venue = KrakenStreams(stream())
    assert [venue.serves(path) for path in ("/v2", "/", "/ws/v5/public")] == [True, False, False]


def test_each_symbol_is_answered_with_the_id_of_the_request() -> None:
    session = opened()
    yes, no = ask(session, channel="trade", symbol=["BTC/USD", "XXX/USD"])
    assert (yes["req_id"], yes["success"], yes["result"]["symbol"]) == (7, True, "BTC/USD")
    assert (no["req_id"], no["success"], no["error"]) == (7, False, "Currency pair not supported XXX/USD")
    [again] = ask(session, channel="trade", symbol=["BTC/USD"])
    assert again["error"] == "Already subscribed to one trade on BTC/USD"


@pytest.mark.parametrize(
    "params",
    [
        {"channel": "book", "symbol": ["BTC/USD"], "depth": 11},
        {"channel": "ohlc", "symbol": ["BTC/USD"], "interval": 2},
        {"channel": "ticker", "symbol": ["BTC/USD"], "event_trigger": "never"},
        {"channel": "level3", "symbol": ["BTC/USD"]},
        {"channel": "trade", "symbol": []},
        {"channel": "trade"},
        {"channel": "trade", "symbol": [1]},
    ],
)
def test_what_there_is_not_is_refused(params: dict[str, object]) -> None:
    [no] = [json.loads(answer) for answer in opened().receive(json.dumps({"method": "subscribe", "params": params}))]
    assert (no["success"], bool(no["error"])) == (False, True)


@pytest.mark.parametrize("text", [b"{", b"[]", b'"x"', b"{}", b'{"method":"subscribe"}', b'{"method":"add_order"}'])
def test_what_is_no_request_is_refused(text: bytes) -> None:
    [no] = opened().receive(text)
    assert json.loads(no)["success"] is False


def test_a_ping_is_answered_and_heartbeats_begin_with_the_first_subscription() -> None:
    session = opened()
    [pong] = session.receive('{"method":"ping","req_id":9}')
    assert (json.loads(pong)["method"], json.loads(pong)["req_id"]) == ("pong", 9)
    assert due(session, 50, beats=True) == []
    ask(session, channel="instrument")
    beats = [step for step in range(51, 71) if {"channel": "heartbeat"} in due(session, step, beats=True)]
    assert beats == [51, 56, 61, 66]


def test_the_key_of_a_book_has_its_depth() -> None:
    session = opened()
    ask(session, channel="book", symbol=["BTC/USD"], depth=25)
    [no] = ask(session, "unsubscribe", channel="book", symbol=["BTC/USD"])
    assert no["error"] == "Subscription Not Found"
    [yes] = ask(session, "unsubscribe", channel="book", symbol=["BTC/USD"], depth=25)
    assert yes["success"]
    assert due(session, 5) == []


def test_trades_have_a_history_only_if_it_is_asked_for() -> None:
    session = opened()
    ask(session, channel="trade", symbol=["BTC/USD"])
    ask(session, channel="trade", symbol=["ETH/USD"], snapshot=True)
    [history] = due(session, 500)
    assert (history["type"], len(history["data"])) == ("snapshot", 50)
    assert {row["symbol"] for row in history["data"]} == {"ETH/USD"}
    ids = [row["trade_id"] for row in history["data"]]
    assert ids == list(range(ids[0], ids[0] + 50))
    news = [row for frame in due(session, 520) for row in frame["data"] if row["symbol"] == "ETH/USD"]
    assert news[0]["trade_id"] == ids[-1] + 1


def test_a_delisted_pair_is_silent_until_it_is_listed_again() -> None:
    known = set(KRAKEN)
    session = opened(known)
    ask(session, channel="instrument")
    ask(session, channel="book", symbol=["BTC/USD"])
    due(session, 1)
    known.discard("BTC/USD")
    [gone] = session.forget(KRAKEN["BTC/USD"])
    assert json.loads(gone)["data"]["pairs"][0]["status"] == "delisted"
    assert due(session, 5) == []
    known.add("BTC/USD")
    back, book = due(session, 6)
    assert [pair["status"] for pair in back["data"]["pairs"]] == ["online"]
    assert (book["channel"], book["type"]) == ("book", "snapshot")


def test_it_says_that_there_will_be_maintenance() -> None:
    [notice] = opened().notice()
    assert json.loads(notice)["data"][0]["system"] == "maintenance"


def test_a_subscription_can_be_refused_by_order() -> None:
    session = opened()
    listing = KRAKEN["BTC/USD"]
    request = json.dumps({"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD"]}, "req_id": 4})
    [no] = session.refuse(request, listing, "")
    assert json.loads(no)["error"] == "Currency pair not supported BTC/USD"
    assert session.refuse(request, KRAKEN["ETH/USD"], "") == ()


class Read:
    """Our connector at the other end of a session, step by step."""

    def __init__(self, *kinds: str, depth: int = 10) -> None:
        channels = [Channel(name=kind, exchange="kraken", kind=KINDS[kind], instruments=SYMBOLS) for kind in kinds]
        [connection] = plan(channels)
        self.venue = connector.KrakenStreams(connection, depth)
        self.requests = {request.id: request for request in self.venue.subscribe_requests()}
        self.session = opened()
        self.talk = self.venue.converse()
        self.events: list[Event] = []
        self.at_step: list[tuple[int, Event]] = []
        for request in self.requests.values():
            assert self.answered(request.text) == [SubscribeAck(request.id)]

    def answered(self, text: str) -> list[list[Event] | Rows | Control]:
        return [self.talk.handle(answer, BEGAN_MS) for answer in self.session.receive(text)]

    def step(self, step: int) -> None:
        now_ms = BEGAN_MS + STEP_MS * step
        for push in self.session.pushes(step, now_ms):
            said = self.talk.handle(push.text, now_ms)
            assert not isinstance(said, Rows), said
            if isinstance(said, list):
                self.at_step += [(step, event) for event in said]


def test_our_connector_has_the_simulators_book_after_each_step() -> None:
    for depth in (10, 25):
        read, market = Read("depth", depth=depth), stream()
        books: dict[str, dict[str, dict[str, str]]] = {}
        for step in range(1, 300):
            read.at_step.clear()
            read.step(step)
            for _, event in read.at_step:
                assert isinstance(event.fields, DepthFields | SnapshotFields)
                if isinstance(event.fields, SnapshotFields):
                    assert step == 1
                    books[event.instrument] = {"bids": {}, "asks": {}}
                for side, levels in books[event.instrument].items():
                    for price, quantity in msgspec.json.decode(getattr(event.fields, side)):
                        levels[price] = quantity
                        if quantity == "0":
                            del levels[price]
            for symbol in SYMBOLS:
                listing = KRAKEN[symbol]
                book = market.book(listing, step, depth)
                for side, expected in (("bids", book.bids), ("asks", book.asks)):
                    there = {
                        (round(float(price) * 10**listing.price_digits), round(float(size) * 10**listing.size_digits))
                        for price, size in books[symbol][side].items()
                    }
                    assert there == set(expected)


def test_our_connector_has_each_trade() -> None:
    read = Read("trades")
    for step in range(1, 100):
        read.step(step)
    for symbol in SYMBOLS:
        events = [event for _, event in read.at_step if event.instrument == symbol]
        live = [
            int(event.fields.trade_id) for event in events if isinstance(event.fields, TradeFields) and not event.past
        ]
        assert live == [trade.id for trade in stream().trades_between(KRAKEN[symbol], 1, 99)]
        assert len(events) == len(live) + 50


def test_our_connector_has_quotes_tickers_and_candles() -> None:
    for kind in ("ticker", "quotes", "candles"):
        read = Read(kind)
        for step in range(1, 700):
            read.step(step)
        for symbol in SYMBOLS:
            step, last = [(step, event) for step, event in read.at_step if event.instrument == symbol][-1]
            listing, market = KRAKEN[symbol], stream()
            quote = market.quote(listing, step)
            match last.fields:
                case QuoteFields():
                    assert isinstance(last.fields.bid, msgspec.Raw)
                    assert float(bytes(last.fields.bid)) == quote.bid / 10**listing.price_digits
                case CandleFields():
                    candle = market.candle(listing, 60_000, step)
                    assert last.fields.start_ms == candle.start_ms
                    assert float(bytes(last.fields.volume)) == candle.volume / 10**listing.size_digits
                    closed = [
                        event.fields.start_ms
                        for _, event in read.at_step
                        if isinstance(event.fields, CandleFields) and event.fields.closed and event.instrument == symbol
                    ]
                    assert closed == sorted(set(closed))
                    assert len(closed) == 3
                case _:
                    assert float(last.price) == quote.last / 10**listing.price_digits


def test_our_connector_renews_a_book() -> None:
    read = Read("depth")
    read.step(1)
    book = next(request for request in read.requests.values() if request.subject == "XRP/USDT")
    assert read.answered(book.leave) == [SubscribeEnded(book.id)]
    assert read.answered(book.text) == [SubscribeAck(book.id)]
    read.at_step.clear()
    read.step(2)
    begun = [event.instrument for _, event in read.at_step if isinstance(event.fields, SnapshotFields)]
    assert begun == ["XRP/USDT"]


def test_our_connector_reads_a_refusal() -> None:
    read = Read("trades")
    text = read.requests["2"].text.replace("BTC/USD", "XXX/USD")
    [said] = read.answered(text)
    assert isinstance(said, SubscribeRefused)
    assert not said.retry
