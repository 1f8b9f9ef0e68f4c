"""Bybit's frames: what each means, digit for digit, and that nothing but PayloadError comes of any bytes."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.push.feed import Feed
from connectors.push.parcels import Parcel
from connectors.push.venue import (
    Control,
    Heartbeat,
    Ignored,
    Reconnect,
    Renew,
    Said,
    SubscribeAck,
    SubscribeEnded,
    SubscribeRefused,
)
from connectors.venues.bybit.streams import MOST_CHARACTERS, Bybit, BybitConversation, BybitStreams, build
from connectors.venues.bybit.sync import GAPS
from protocol.channels import Channel
from protocol.fields import CandleFields, DepthFields, QuoteFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS

NOW = 1_791_365_009_300


def channel(
    name: str, kind: str, *instruments: str, levels: int = 20, every_ms: int = 100, interval: str = "1m"
) -> Channel:
    return Channel(
        name=name,
        exchange="bybit",
        kind=KINDS[kind],
        instruments=instruments or ("BTC/USDT",),
        levels=levels,
        every_ms=every_ms,
        interval=interval,
    )


ALL = [channel(kind, kind) for kind in ("ticker", "trades", "quotes", "book", "depth", "candles")]


def talk(*channels: Channel, depth: int = 200) -> BybitConversation:
    return BybitStreams(Parcel("bybit", channels or tuple(ALL), {}), depth).converse()


def frame(topic: str, data: object, type_: str = "snapshot", **more: object) -> bytes:
    """As spot writes it: `ts` stands before `type`."""
    return json.dumps(
        {"topic": topic, "ts": NOW - 69, "type": type_, **more, "data": data}, separators=(",", ":")
    ).encode()


def dumped(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


TICKER: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "lastPrice": "21109.77",
    "volume24h": "6780.86",
    "price24hPcnt": "0.0196",
}
TRADE: dict[str, Any] = {
    "i": "2290000001225843671",
    "T": NOW - 70,
    "p": "83805.1",
    "v": "0.001466",
    "S": "Buy",
    "seq": 115058640184,
    "s": "BTCUSDT",
    "BT": False,
    "RPI": False,
}
CANDLE: dict[str, Any] = {
    "start": 1_791_364_980_000,
    "end": 1_791_365_039_999,
    "interval": "1",
    "open": "16649.5",
    "close": "16677",
    "high": "16677",
    "low": "16608",
    "volume": "2.081",
    "turnover": "34666.4005",
    "confirm": False,
    "timestamp": NOW - 90,
}
TICKERS, TRADES, QUOTES, BOOK, CANDLES = (
    f"{stem}.BTCUSDT" for stem in ("tickers", "publicTrade", "orderbook.1", "orderbook.200", "kline.1")
)


def book(u: int, bids: list[list[str]], asks: list[list[str]]) -> dict[str, Any]:
    return {"s": "BTCUSDT", "b": bids, "a": asks, "u": u, "seq": u + 1000}


def snapshot(u: int = 10, topic: str = BOOK) -> bytes:
    return frame(topic, book(u, [["83805", "0.15"], ["83804", "1"]], [["83805.1", "0.99"]]), cts=NOW - 72)


def delta(u: int, bids: list[list[str]] | None = None, asks: list[list[str]] | None = None, topic: str = BOOK) -> bytes:
    return frame(topic, book(u, bids or [], asks or []), "delta", cts=NOW - 72)


def events(said: list[Event] | Rows | Control) -> list[Event]:
    assert isinstance(said, list)
    return said


def noted(said: object) -> list[tuple[str, str, str]]:
    """Of what nothing can be used: channel, cause and reason."""
    assert isinstance(said, Rows)
    assert said.events == []
    assert {note.instrument for note in said.notes} == {"BTC/USDT"}
    return [(note.channel, note.cause, note.reason) for note in said.notes]


# What is asked for.


def test_each_topic_is_asked_for_once_by_a_request_of_its_own() -> None:
    more = channel("more", "trades", "BTC/USDT", "ETH/USDT")
    requests = BybitStreams(Parcel("bybit", (*ALL, more), {"more": ("BTC/USDT",)})).subscribe_requests()
    assert [(request.id, request.subject, request.channels) for request in requests] == [
        (TICKERS, "BTC/USDT", ("ticker",)),
        (TRADES, "BTC/USDT", ("trades", "more")),
        (QUOTES, "BTC/USDT", ("quotes",)),
        (BOOK, "BTC/USDT", ("book", "depth")),
        (CANDLES, "BTC/USDT", ("candles",)),
        ("publicTrade.ETHUSDT", "ETH/USDT", ("more",)),
    ]
    assert requests[1].text == '{"req_id":"2","op":"subscribe","args":["publicTrade.BTCUSDT"]}'
    assert requests[1].leave == '{"req_id":"2","op":"unsubscribe","args":["publicTrade.BTCUSDT"]}'


def test_a_book_comes_of_the_topic_that_has_enough_levels() -> None:
    channels = [channel("d", "depth"), *(channel(f"b{n}", "book", levels=n) for n in (20, 50, 51, 201, 1000))]
    for depth, names in ((50, [50, 50, 50, 200, 1000, 1000]), (1000, [1000] * 6)):
        requests = BybitStreams(Parcel("bybit", tuple(channels), {}), depth).subscribe_requests()
        fed = {name: request.id for request in requests for name in request.channels}
        assert [fed[one.name] for one in channels] == [f"orderbook.{n}.BTCUSDT" for n in names]


@pytest.mark.parametrize(("interval", "word"), [("1m", "1"), ("1h", "60"), ("12h", "720"), ("1d", "D"), ("1M", "M")])
def test_candles_are_asked_for_by_bybits_word_for_their_length(interval: str, word: str) -> None:
    [request] = BybitStreams(Parcel("bybit", (channel("c", "candles", interval=interval),), {})).subscribe_requests()
    assert request.id == f"kline.{word}.BTCUSDT"


def test_a_length_of_candles_that_bybit_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^c: Bybit has no candles of '7m', but 1m, 3m, "):
        build([channel("c", "candles", interval="7m")], Bybit(), "t")


def feeds(channels: list[Channel], settings: Bybit) -> list[Feed]:
    made = build(channels, settings, "t")
    assert all(isinstance(one, Feed) for one in made)
    return [one for one in made if isinstance(one, Feed)]


def test_more_topics_than_a_connection_takes_go_over_several() -> None:
    names = [f"C{n}/USDT" for n in range(25)]
    made = feeds([channel("few", "ticker"), channel("many", "trades", *names)], Bybit(topics=10))
    assert [feed.name for feed in made] == ["bybit", "bybit-2", "bybit-3"]
    asked = [request for feed in made for request in feed.venue.subscribe_requests()]
    assert len(asked) == len({request.id for request in asked}) == 26
    assert [feed.channels for feed in made] == [("few",), (), ()]
    parts = [feed.venue.parts.get("many", ()) for feed in made]
    assert sorted(sum(parts, ())) == sorted(names)
    assert len({id(feed.spacing) for feed in made}) == 1
    assert made[0].venue.rules.connect_spacing_s * 500 == pytest.approx(300), "500 in 5 minutes, all together"


def test_a_connection_keeps_to_the_characters_that_bybit_allows() -> None:
    names = tuple(f"{'X' * 40}{n:04}/USDT" for n in range(1200))
    made = feeds([channel("many", "trades", *names)], Bybit(topics=1000))
    sizes = [len(dumped([request.id for request in feed.venue.subscribe_requests()])) for feed in made]
    assert len(made) > 1
    assert max(sizes) <= MOST_CHARACTERS


# Data.


def test_a_ticker() -> None:
    assert talk().handle(frame(TICKERS, TICKER, cs=2588407389), NOW) == [
        Event("ticker", "BTC/USDT", dumped(TICKER), NOW, "21109.77", NOW - 69, order=2588407389)
    ]


def test_trades_come_one_by_one_for_each_channel_in_bybits_order() -> None:
    other = TRADE | {"i": "2290000001225843672", "S": "Sell", "p": "83805", "v": "12"}
    said = events(talk(channel("a", "trades"), channel("b", "trades")).handle(frame(TRADES, [TRADE, other]), NOW))
    assert [(event.channel, event.price) for event in said] == [
        ("a", "83805.1"),
        ("b", "83805.1"),
        ("a", "83805"),
        ("b", "83805"),
    ]
    first, last = said[0], said[-1]
    assert (first.data, first.exchange_ms, first.order) == (dumped(TRADE), NOW - 70, 115058640184)
    assert isinstance(first.fields, TradeFields)
    assert isinstance(last.fields, TradeFields)
    assert (bytes(first.fields.size), first.fields.side, first.fields.trade_id) == (
        b"0.001466",
        "buy",
        "2290000001225843671",
    )
    assert (bytes(last.fields.size), last.fields.side) == (b"12", "sell")


def test_a_trade_that_cannot_be_read_does_not_take_the_others_away() -> None:
    said = talk().handle(frame(TRADES, [TRADE | {"p": "1e5x"}, TRADE, 7]), NOW)
    assert isinstance(said, Rows)
    assert [event.price for event in said.events] == ["83805.1"]
    assert [(note.cause, note.reason) for note in said.notes] == [
        ("unreadable", '`p` is "1e5x", not a number'),
        ("unreadable", "the row is 7, not an object"),
    ]


@pytest.mark.parametrize(
    ("change", "cause", "reason"),
    [
        ({"p": "0"}, "halted", 'not trading: `p` is "0"'),
        ({"v": "0"}, "unreadable", '`v` is "0", not a number above 0'),
        ({"v": "NaN"}, "unreadable", '`v` is "NaN", not a number above 0'),
        ({"S": "Hold"}, "unreadable", '`S` is "Hold", neither Buy nor Sell'),
        ({"i": ""}, "unreadable", "`i` is empty"),
        ({"T": 5}, "unreadable", "`T` is 5, not in milliseconds since 1970"),
        ({"s": "ETHUSDT"}, "unreadable", '`s` is "ETHUSDT", in a frame about BTCUSDT'),
        ({"p": 83805.1}, "unreadable", "`p` is 83805.1"),
        ({"seq": -1}, "unreadable", "`seq` is -1"),
    ],
)
def test_what_is_wrong_with_a_trade(change: dict[str, object], cause: str, reason: str) -> None:
    assert noted(talk().handle(frame(TRADES, [TRADE | change]), NOW)) == [("trades", cause, reason)]


def test_a_trade_without_seq_has_no_order() -> None:
    old = {key: value for key, value in TRADE.items() if key != "seq"}
    [event] = events(talk().handle(frame(TRADES, [old]), NOW))
    assert event.order is None


@pytest.mark.parametrize("closed", [True, False])
def test_a_candle(closed: bool) -> None:
    candle = CANDLE | {"confirm": closed}
    [event] = events(talk().handle(frame(CANDLES, [candle]), NOW))
    assert (event.data, event.price, event.exchange_ms, event.order) == (dumped(candle), "16677", NOW - 69, NOW - 90)
    fields = event.fields
    assert isinstance(fields, CandleFields)
    assert (fields.interval, fields.start_ms, fields.closed) == ("1m", 1_791_364_980_000, closed)
    prices = [bytes(digits) for digits in (fields.open, fields.high, fields.low, fields.close, fields.volume)]
    assert prices == [b"16649.5", b"16677", b"16608", b"16677", b"2.081"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"interval": "5"}, '`interval` is "5", in a frame of kline.1.BTCUSDT'),
        ({"high": ""}, '`high` is "", not a number'),
        ({"volume": "-1"}, '`volume` is "-1", not a number of at least 0'),
        ({"start": 0}, "`start` is 0, not in milliseconds since 1970"),
        ({"confirm": "true"}, '`confirm` is "true"'),
    ],
)
def test_what_is_wrong_with_a_candle(change: dict[str, object], reason: str) -> None:
    assert noted(talk().handle(frame(CANDLES, [CANDLE | change]), NOW)) == [("candles", "unreadable", reason)]


def test_a_quote_is_told_when_it_changes_and_not_when_it_is_repeated() -> None:
    bybit = talk()
    data = book(7, [["83805", "0.15"]], [["83805.10", "0.99"]])
    [event] = events(bybit.handle(frame(QUOTES, data, cts=NOW - 72), NOW))
    assert (event.data, event.price, event.exchange_ms, event.order) == (dumped(data), "83805.05", NOW - 72, 1007)
    assert isinstance(event.fields, QuoteFields)
    quote = (event.fields.bid, event.fields.bid_size, event.fields.ask, event.fields.ask_size)
    assert [bytes(one) for one in quote] == [b"83805", b"0.15", b"83805.10", b"0.99"]  # type: ignore[arg-type] # Raw
    assert bybit.handle(frame(QUOTES, data), NOW + 3000) == []
    assert bybit.handle(frame(QUOTES, data | {"u": 8}), NOW + 3010) == []
    [event] = events(bybit.handle(frame(QUOTES, book(9, [["83805", "0.16"]], [["83805.10", "0.99"]])), NOW))
    assert event.order == 1009


def test_a_side_that_is_empty_has_no_price() -> None:
    [event] = events(talk().handle(frame(QUOTES, book(7, [["83805", "0.15"]], [["83806", "0"]])), NOW))
    assert isinstance(event.fields, QuoteFields)
    assert event.price == ""
    assert bytes(event.fields.bid) == b"83805"  # type: ignore[arg-type] # Raw
    assert event.fields.ask is event.fields.ask_size is UNSET


@pytest.mark.parametrize(
    ("data", "type_", "reason"),
    [
        (book(7, [["5", "1"]], [["5", "1"]]), "snapshot", "crossed: the best bid 5 is not below the best ask 5"),
        (book(7, [["x", "1"]], []), "snapshot", "`b` has not a price: 'x'"),
        (book(7, [], [["5", ""]]), "snapshot", "`a` has not a quantity: ''"),
        (book(7, [], []), "delta", '`type` is "delta", though there are only snapshots of this topic'),
        (book(-1, [], []), "snapshot", "`u` is -1"),
    ],
)
def test_what_is_wrong_with_a_quote(data: object, type_: str, reason: str) -> None:
    assert noted(talk().handle(frame(QUOTES, data, type_), NOW)) == [("quotes", "unreadable", reason)]


class TestSilence:
    """Bybit repeats a quote every 3 s."""

    def test_of_a_quote_is_told_after_five_seconds_until_one_comes(self) -> None:
        bybit, quote = talk(), frame(QUOTES, book(7, [["5", "1"]], [["6", "1"]]))
        assert bybit.waits_ms(NOW) == 1000
        bybit.handle(quote, NOW)
        for second in range(1, 6):
            assert bybit.waits_ms(NOW + 1000 * second) == 0
            assert bybit.tick(NOW + 1000 * second) == []
            assert bybit.waits_ms(NOW + 1000 * second) == 1000
        said = bybit.tick(NOW + 6000)
        reason = "no quote for 5 s, though Bybit repeats one every 3 s"
        assert noted(said) == [("quotes", "silent", reason)]
        assert noted(bybit.tick(NOW + 7000)) == [("quotes", "silent", reason)]
        assert len(events(bybit.handle(quote, NOW + 7100))) == 1, "the same one again, so that the remark ends"
        assert bybit.handle(quote, NOW + 7200) == []

    def test_before_the_first_one_is_none(self) -> None:
        bybit = talk()
        bybit.waits_ms(NOW)
        assert bybit.tick(NOW + 60_000) == []

    def test_is_not_what_a_clock_says_that_was_set_back(self) -> None:
        bybit = talk()
        bybit.waits_ms(NOW)
        bybit.handle(frame(QUOTES, book(7, [["5", "1"]], [["6", "1"]])), NOW)
        assert bybit.waits_ms(NOW - 3_600_000) == 0
        assert bybit.tick(NOW - 3_600_000) == []
        assert bybit.waits_ms(NOW - 3_600_000) == 1000
        assert isinstance(bybit.tick(NOW - 3_590_000), Rows)


# Books.


def test_a_book_begins_with_a_snapshot_and_goes_on_with_what_changes() -> None:
    bybit = talk()
    best, whole = sorted(events(bybit.handle(snapshot(), NOW)), key=lambda event: event.channel)
    assert json.loads(best.data) == {
        "symbol": "BTCUSDT",
        "bids": [["83805", "0.15"], ["83804", "1"]],
        "asks": [["83805.1", "0.99"]],
    }
    assert isinstance(whole.fields, SnapshotFields)
    assert bytes(whole.fields.bids) == b'[["83805","0.15"],["83804","1"]]'
    assert (whole.data, whole.price) == (b'{"symbol":"BTCUSDT","u":10,"seq":1010}', "83805.05")
    assert (whole.exchange_ms, whole.order) == (NOW - 72, None)
    [change] = events(bybit.handle(delta(11, [["83804", "0"], ["83804.5", "2"]]), NOW + 10))
    assert isinstance(change.fields, DepthFields)
    assert (bytes(change.fields.bids), bytes(change.fields.asks)) == (b'[["83804","0"],["83804.5","2"]]', b"[]")
    assert change.data == b'{"symbol":"BTCUSDT","u":11,"seq":1011}'
    assert bybit.waits_ms(NOW + 10) == 90
    [best] = events(bybit.tick(NOW + 100))
    assert json.loads(best.data)["bids"] == [["83805", "0.15"], ["83804.5", "2"]]


def test_a_snapshot_that_got_lost_is_asked_for() -> None:
    bybit = talk()
    said = bybit.handle(delta(11), NOW)
    assert isinstance(said, Said)
    assert {reason for _, _, reason in noted(said)} == {"an update came without a snapshot before"}
    assert [need.id for need in said.needs if isinstance(need, Renew)] == [BOOK]
    assert bybit.handle(delta(12), NOW) == []
    assert len(events(bybit.handle(snapshot(13), NOW))) == 2


def test_a_snapshot_in_the_midst_replaces_everything() -> None:
    bybit = talk(channel("depth", "depth"))
    bybit.handle(snapshot(10), NOW)
    bybit.handle(delta(11, [["1", "1"]]), NOW)
    [whole] = events(bybit.handle(snapshot(1), NOW))
    assert isinstance(whole.fields, SnapshotFields)
    assert bytes(whole.fields.bids) == b'[["83805","0.15"],["83804","1"]]'
    assert len(events(bybit.handle(delta(2, [["1", "1"]]), NOW))) == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (delta(12), "the update 12 does not follow 10"),
        (delta(10), "the update 10 does not follow 10"),
        (delta(1), "the update 1 does not follow 10"),
        (delta(11, [["83806", "1"]]), "crossed: the best bid 83806 is not below the best ask 83805.1"),
        (delta(11, [["5", "x"]]), "an update cannot be read: not a quantity: 'x'"),
        (delta(11).replace(b'"delta"', b'"patch"'), '`type` is "patch", neither snapshot nor delta'),
        (delta(11).replace(b'BTCUSDT","b', b'ETHUSDT","b'), '`s` is "ETHUSDT", in a frame about BTCUSDT'),
        (frame(BOOK, book(5, [["6", "1"]], [["5", "1"]])), "crossed: the best bid 6 is not below the best ask 5"),
        (frame(BOOK, book(5, [["-6", "1"]], [])), "a snapshot cannot be read: not a price: '-6'"),
    ],
)
def test_a_book_that_is_lost_is_told_and_renewed_and_begins_anew(bad: bytes, reason: str) -> None:
    bybit = talk()
    bybit.handle(snapshot(10), NOW)
    said = bybit.handle(bad, NOW + 10)
    assert isinstance(said, Said)
    assert sorted(noted(said)) == [("book", "gap", reason), ("depth", "gap", reason)]
    assert [note.partial for note in said.notes] == [False, False]
    assert said.needs == [Renew(BOOK, f"BTC/USDT: {reason}")]
    assert bybit.restate(NOW) == []
    assert bybit.handle(delta(12), NOW + 20) == [], "nothing of it until the snapshot"
    assert len(events(bybit.handle(snapshot(50), NOW + 30))) == 2
    assert len(bybit.restate(NOW + 30)) == 2
    assert len(events(bybit.handle(delta(51, [["5", "1"]]), NOW + 40))) == 1


@pytest.mark.parametrize(
    "bad",
    [
        frame(BOOK, {"u": 11, "seq": 1, "b": 5, "a": []}, "delta"),
        frame(BOOK, book(11, [["5", "1", "2"]], []), "delta"),
        delta(11).replace(b'"ts":', b'"ts":1.5e400,"x":'),
        delta(11).replace(b'"data":', b'"dato":'),
    ],
)
def test_a_frame_of_a_book_that_cannot_be_read_is_a_gap_of_that_book(bad: bytes) -> None:
    bybit = talk()
    bybit.handle(snapshot(10), NOW)
    said = bybit.handle(bad, NOW)
    assert isinstance(said, Said)
    assert [need.id for need in said.needs if isinstance(need, Renew)] == [BOOK]
    again = bybit.handle(bad, NOW)
    assert not isinstance(again, Said)
    assert {cause for _, cause, _ in noted(again)} == {"unreadable"}, "it is lost already"


def test_books_of_one_instrument_are_apart_by_their_depth() -> None:
    bybit = talk(channel("shallow", "depth"), channel("deep", "book", levels=500))
    deep = "orderbook.1000.BTCUSDT"
    bybit.handle(snapshot(10), NOW)
    assert [event.channel for event in events(bybit.handle(snapshot(900, deep), NOW))] == ["deep"]
    assert isinstance(bybit.handle(delta(13), NOW), Said)
    assert bybit.handle(delta(901, [["5", "1"]], topic=deep), NOW) == []
    assert [event.channel for event in bybit.restate(NOW)] == ["deep"]


def test_a_level_beyond_the_depth_is_not_kept() -> None:
    bybit = talk(channel("depth", "depth"), depth=50)
    topic = "orderbook.50.BTCUSDT"
    bids = [[str(price), "1"] for price in range(100, 50, -1)]
    bybit.handle(frame(topic, book(1, bids, [])), NOW)
    [change] = events(bybit.handle(delta(2, [["101", "1"]], topic=topic), NOW))
    assert isinstance(change.fields, DepthFields)
    assert bytes(change.fields.bids) == b'[["101","1"],["51","0"]]'


def test_after_many_gaps_it_goes_on_with_a_remark() -> None:
    bybit = talk(channel("depth", "depth"))
    bybit.handle(snapshot(10), NOW)
    for _ in range(GAPS):
        assert isinstance(bybit.handle(delta(20), NOW), Said)
        bybit.handle(snapshot(10), NOW)
    said = bybit.handle(delta(30, [["5", "1"]]), NOW)
    assert isinstance(said, Said)
    assert said.needs == []
    assert len(said.events) == 1
    assert said.notes == [
        TopicNote(
            "depth",
            "BTC/USDT",
            "gap",
            "unverified: more than 3 gaps in 10 minutes, so updates are applied unchecked",
            partial=True,
        )
    ]
    assert len(events(bybit.handle(delta(40, [["6", "1"]]), NOW + 4999))) == 1, "once is enough for a while"
    assert isinstance(bybit.handle(delta(41, [["7", "1"]]), NOW + 5000), Rows)
    assert isinstance(bybit.handle(snapshot(10), NOW + 5001), list)
    assert isinstance(bybit.handle(delta(11, [["7", "1"]]), NOW + 11_000), list)


class TestRenewing:
    """Ended, answered, asked for, answered; and then the snapshot, within 5 s."""

    ACK = b'{"success":true,"ret_msg":"subscribe","conn_id":"2324d924","req_id":"1","op":"subscribe"}'

    def lost(self) -> BybitConversation:
        bybit = talk(channel("depth", "depth"))
        bybit.handle(self.ACK, NOW)
        bybit.handle(snapshot(10), NOW)
        assert isinstance(bybit.handle(delta(20), NOW), Said)
        assert bybit.waits_ms(NOW) is None
        return bybit

    def test_a_snapshot_that_comes_is_all_that_is_needed(self) -> None:
        bybit = self.lost()
        bybit.handle(self.ACK, NOW)
        assert bybit.waits_ms(NOW + 1) == 4999
        bybit.handle(delta(21), NOW + 2)
        assert bybit.waits_ms(NOW + 2) == 4998
        bybit.handle(snapshot(30), NOW + 3)
        assert bybit.waits_ms(NOW + 3) is None

    def test_one_that_does_not_come_takes_another_connection(self) -> None:
        bybit = self.lost()
        bybit.handle(self.ACK, NOW)
        assert bybit.tick(NOW + 4999) == []
        said = bybit.tick(NOW + 5000)
        assert isinstance(said, Said)
        assert said.needs == [Reconnect("Bybit sent no snapshot of BTC/USDT in 5 s")]

    def test_one_that_is_of_no_use_is_asked_for_once_more(self) -> None:
        bybit = self.lost()
        bybit.handle(self.ACK, NOW)
        assert isinstance(bybit.handle(frame(BOOK, book(5, [["6", "1"]], [["5", "1"]])), NOW + 1), Said)
        assert bybit.waits_ms(NOW + 2) is None

    def test_a_clock_that_is_set_back_keeps_nobody_waiting(self) -> None:
        bybit = self.lost()
        bybit.handle(self.ACK, NOW)
        assert bybit.waits_ms(NOW - 3_600_000) == 0
        assert bybit.tick(NOW - 3_600_000) == []
        assert bybit.waits_ms(NOW - 3_600_000) == 5000

    def test_of_a_first_subscription_that_stays_mute_nothing_follows(self) -> None:
        bybit = talk(channel("depth", "depth"))
        bybit.handle(self.ACK, NOW)
        assert bybit.waits_ms(NOW) is None


# Control.


def answer(ret_msg: str, *, success: bool = False, op: str | None = "subscribe", req_id: str | None = "2") -> bytes:
    told = {"success": success, "ret_msg": ret_msg, "conn_id": "0970e817", "req_id": req_id, "op": op}
    return dumped({key: value for key, value in told.items() if value is not None})


@pytest.mark.parametrize(
    ("payload", "control"),
    [
        (b'{"success":true,"ret_msg":"pong","conn_id":"0970e817-x","op":"ping"}', Heartbeat()),
        (b'{"req_id":"9","op":"pong","args":["1675418560633"],"conn_id":"x"}', Heartbeat()),
        (answer("subscribe", success=True), SubscribeAck(TRADES)),
        (answer("", success=True), SubscribeAck(TRADES)),
        (answer("", success=True, op=None), SubscribeAck(TRADES)),
        (answer("subscribe", success=True, req_id=None), SubscribeAck("")),
        (answer("", success=True, op="unsubscribe"), SubscribeEnded(TRADES)),
        (answer("error:not subscribed", op="unsubscribe"), SubscribeEnded(TRADES)),
        (answer("error:already subscribed,topic:publicTrade.BTCUSDT", req_id=None), SubscribeAck(TRADES)),
        (
            answer("Invalid symbol :[publicTrade.BTCUSDT]"),
            SubscribeRefused(TRADES, "unknown to Bybit: BTC/USDT", retry=False),
        ),
        (
            answer("Invalid symbol :[publicTrade.BTCUSDT]", req_id=None, op=None),
            SubscribeRefused(TRADES, "unknown to Bybit: BTC/USDT", retry=False),
        ),
        (
            answer("error:handler not found,topic:orderbook.200.BTCUSDT", req_id=""),
            SubscribeRefused(
                BOOK,
                "refused by Bybit: BTC/USDT: error:handler not found,topic:orderbook.200.BTCUSDT",
                retry=False,
            ),
        ),
        (
            answer("Too many visits"),
            SubscribeRefused(TRADES, "Bybit cannot serve BTC/USDT now: Too many visits", retry=True),
        ),
        (
            answer("args size >10", req_id=None),
            SubscribeRefused("", "Bybit cannot serve a request now: args size >10", retry=True),
        ),
        (dumped({"op": "auth", "success": True}), Ignored("an answer to the op 'auth'")),
        (frame("publicTrade.XRPUSDT", []), Ignored("a frame of the topic 'publicTrade.XRPUSDT'")),
    ],
)
def test_what_is_no_data_is_told_apart(payload: bytes, control: Control) -> None:
    assert talk().handle(payload, NOW) == control


@pytest.mark.parametrize("payload", [b"", b"pong", b"{}", b"[]", b"\xff", b'{"topic":5}', b"[" * 10_000, b'{"op":5}'])
def test_bytes_that_are_about_nothing_are_refused(payload: bytes) -> None:
    with pytest.raises(PayloadError, match=r"^Bybit sent '"):
        talk().handle(payload, NOW)


@pytest.mark.parametrize(
    ("topic", "name"), [(TICKERS, "ticker"), (TRADES, "trades"), (QUOTES, "quotes"), (CANDLES, "candles")]
)
@pytest.mark.parametrize("data", [b"7", b"null", b'"x"', b"{", b'{"a":1e999}', b"[[[]]]", b'[{"p":"\xff"}]'])
def test_a_frame_that_cannot_be_read_is_its_topics_trouble(topic: str, name: str, data: bytes) -> None:
    payload = b'{"topic":"%b","ts":1,"type":"snapshot","data":%b}' % (topic.encode(), data)
    said: object = None
    with suppress(PayloadError):
        said = talk().handle(payload, NOW)
    if data != b"{":
        assert [(channel, cause) for channel, cause, _ in noted(said)] == [(name, "unreadable")]


GOOD = [
    frame(TICKERS, TICKER, cs=1),
    frame(TRADES, [TRADE, TRADE]),
    frame(QUOTES, book(7, [["5", "1"]], [["6", "1"]])),
    snapshot(10),
    delta(11, [["5", "1"]], [["83805.1", "0"]]),
    frame(CANDLES, [CANDLE]),
    answer("subscribe", success=True),
    answer("Invalid symbol :[publicTrade.BTCUSDT]"),
]


@given(
    st.lists(
        st.sampled_from(GOOD)
        | st.binary()
        | st.tuples(st.sampled_from(GOOD), st.integers(0, 300), st.binary(max_size=3), st.integers(0, 3)).map(
            lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] + cut[3] :]
        ),
        max_size=6,
    )
)
def test_nothing_else_comes_of_any_bytes(payloads: list[bytes]) -> None:
    bybit = talk()
    for number, payload in enumerate(payloads):
        with suppress(PayloadError):
            said = bybit.handle(payload, NOW + number)
            for event in said if isinstance(said, list) else said.events if isinstance(said, Rows) else ():
                json.loads(event.data)
                assert event.exchange_ms is None or event.exchange_ms > 0
        bybit.waits_ms(NOW + number)
        bybit.tick(NOW + number)
        bybit.restate(NOW + number)


def test_two_connections_have_nothing_in_common() -> None:
    venue = BybitStreams(Parcel("bybit", tuple(ALL), {}))
    one, other = venue.converse(), venue.converse()
    one.handle(snapshot(), NOW)
    assert len(one.restate(NOW)) == 2
    assert other.restate(NOW) == []
