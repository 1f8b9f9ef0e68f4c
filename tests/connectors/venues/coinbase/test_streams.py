"""Coinbase's frames: what each means, digit for digit, what is wrong with a part of one, and what follows."""

from collections.abc import Sequence
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.books.awaited import SNAPSHOT_MS
from connectors.push.feed import Feed
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
from connectors.venues.coinbase.continuity import MOST_BREAKS
from connectors.venues.coinbase.plan import plan
from connectors.venues.coinbase.streams import QUIET_MS, RENEW_MS, Coinbase, CoinbaseStreams, CoinbaseTalk, build
from connectors.venues.coinbase.sync import CROSSED_MS
from protocol.channels import Channel
from protocol.fields import CandleFields, DepthFields, QuoteFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from protocol.messages import number
from tests.connectors.venues.coinbase.perfect_coinbase import TIME_MS, book, frame

NOW = TIME_MS + 50
ALL = ("ticker", "trades", "quotes", "book", "depth", "candles")

TICKER = (
    b'{"type":"ticker","product_id":"BTC-USD","price":"68900.50","volume_24_h":"15328.10","best_bid":"68900.00",'
    b'"best_bid_quantity":"1.50","best_ask":"68901.00","best_ask_quantity":"0.5"}'
)
TRADE = (
    b'{"trade_id":"995098700","product_id":"BTC-USD","price":"68900.50","size":"0.00150000","side":"BUY",'
    b'"time":"2026-04-07T14:30:02.789012345Z"}'
)
CANDLE = (
    b'{"start":"1775572200","high":"68950.00","low":"68850.00","open":"68900.00","close":"68920.50",'
    b'"volume":"42.15000000","product_id":"BTC-USD"}'
)


def feed(*instruments: str, kinds: Sequence[str] = ALL) -> CoinbaseStreams:
    """The venue, for one connection; a channel is named as its kind."""
    channels = [
        Channel(
            name=kind,
            exchange="coinbase",
            kind=KINDS[kind],
            instruments=instruments or ("BTC/USD",),
            interval="5m",
            levels=2,
        )
        for kind in kinds
    ]
    return CoinbaseStreams(plan(channels)[0])


def talk(*instruments: str, kinds: Sequence[str] = ALL) -> CoinbaseTalk:
    """The beginning of a connection."""
    return feed(*instruments, kinds=kinds).converse()


def rows(channel: str, *bodies: bytes, at: int = 0, type_: str = "update", name: str = "") -> bytes:
    """A frame with one event of these rows."""
    of = {"market_trades": "trades", "ticker": "tickers", "candles": "candles"}[channel]
    event = {"type": type_, name or of: [msgspec.Raw(body) for body in bodies]}
    return frame(channel, at, event)


def events(said: list[Event] | Rows | Control) -> list[Event]:
    """Where it is data, and nothing is wrong with it."""
    assert isinstance(said, list), said
    return said


def wrong(said: list[Event] | Rows | Control) -> list[tuple[str, str, str]]:
    """What is noted: channel, cause and reason."""
    assert isinstance(said, Rows), said
    return [(note.channel, note.cause, note.reason) for note in said.notes]


# What is asked for.


def test_heartbeats_are_asked_for_first_and_each_instrument_by_itself() -> None:
    requests = feed("BTC/USD", "BTC/USDC", kinds=("trades", "book")).subscribe_requests()
    assert [(each.id, each.text, each.channels, each.subject, each.leave) for each in requests] == [
        ("heartbeats", '{"type":"subscribe","channel":"heartbeats"}', (), "heartbeats", ""),
        (
            "market_trades BTC/USD",
            '{"type":"subscribe","channel":"market_trades","product_ids":["BTC-USD"]}',
            ("trades",),
            "BTC/USD",
            "",
        ),
        (
            "market_trades BTC/USDC",
            '{"type":"subscribe","channel":"market_trades","product_ids":["BTC-USD"]}',
            ("trades",),
            "BTC/USDC",
            "",
        ),
        *(
            (
                f"level2 {instrument}",
                '{"type":"subscribe","channel":"level2","product_ids":["BTC-USD"]}',
                ("book",),
                instrument,
                '{"type":"unsubscribe","channel":"level2","product_ids":["BTC-USD"]}',
            )
            for instrument in ("BTC/USD", "BTC/USDC")
        ),
    ]


def test_connections_share_what_an_address_may_do_in_a_second() -> None:
    instruments = tuple(f"A{number_}/USD" for number_ in range(25))
    channel = Channel(name="deep", exchange="coinbase", kind=KINDS["depth"], instruments=instruments)
    connectors = build([channel], Coinbase(), "tickerd/test")
    assert [connector.name for connector in connectors] == ["coinbase", "coinbase-2", "coinbase-3"]
    venue = CoinbaseStreams(plan([channel])[0], 3)
    assert 1 / venue.rules.request_spacing_s * 3 <= 8
    assert len({id(each.spacing) for each in connectors if isinstance(each, Feed)}) == 1
    assert 1 / venue.rules.connect_spacing_s <= 8
    assert venue.rules.message_bytes == 32 * 1024 * 1024
    assert build([], Coinbase(), "tickerd/test") == []


# What is no data.


@pytest.mark.parametrize(
    ("payload", "control"),
    [
        (frame("heartbeats", 0, {"current_time": "2026-04-07 14:30:10 m=+1", "heartbeat_counter": 42}), Heartbeat()),
        (frame("heartbeats", 0, {"current_time": "x", "heartbeat_counter": "42"}), Heartbeat()),
        (frame("subscriptions", 0, {"subscriptions": {"ticker": ["BTC-USD"]}}), SubscribeAck("ticker BTC/USD")),
        (frame("subscriptions", 0, {"subscriptions": {}}), Ignored("a list of subscriptions")),
        (frame("status", 0, {"type": "snapshot", "products": []}), Ignored("a frame of the channel status")),
        (b'{"type":"news"}', Ignored("a frame of the type news")),
        (
            b'{"type":"error","message":"too many L2 streams requested in a single session"}',
            SubscribeRefused(
                "level2 BTC/USD",
                "refused by Coinbase: BTC/USD (level2): too many L2 streams requested in a single session"
                "; which one it means it does not say",
                retry=False,
            ),
        ),
        (
            b'{"type":"error","message":"failed","reason":"candles: BTC-USD is not a valid product"}',
            SubscribeRefused(
                "candles BTC/USD",
                "refused by Coinbase: BTC/USD (candles): failed candles: BTC-USD is not a valid product",
                retry=False,
            ),
        ),
    ],
)
def test_what_is_no_data_is_told_apart(payload: bytes, control: Control) -> None:
    assert talk().handle(payload, NOW) == control


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b"{\xff}",
        b'{"channel":"ticker","sequence_num":0}',
        b'{"channel":"ticker","sequence_num":-1,"events":[]}',
        b'{"channel":"ticker","sequence_num":"0","events":[]}',
        b'{"channel":"ticker","timestamp":"x","events":[]}',
        b'{"channel":"ticker","sequence_num":0,"events":{}}',
        b'{"channel":"subscriptions","sequence_num":0,"events":[7]}',
        b'{"channel":"l2_data","events":[]}',
        rows("ticker", b"{}")[:-1],
    ],
)
def test_what_is_not_documented_and_nobodys_is_refused(payload: bytes) -> None:
    with pytest.raises(PayloadError, match="Coinbase sent"):
        talk().handle(payload, NOW)


# Trades.


def test_a_trade_becomes_an_event_with_the_venues_own_bytes_and_the_takers_side() -> None:
    said = talk(kinds=["trades"]).handle(rows("market_trades", TRADE), NOW)
    fields = TradeFields(number("0.00150000"), "sell", "995098700")
    assert said == [
        Event("trades", "BTC/USD", TRADE, NOW, "68900.50", TIME_MS, fields=fields, order=995_098_700),
    ]


def test_a_maker_that_sold_had_a_taker_that_bought() -> None:
    [event] = events(talk().handle(rows("market_trades", TRADE.replace(b"BUY", b"SELL")), NOW))
    assert isinstance(event.fields, TradeFields)
    assert event.fields.side == "buy"


def test_trades_of_before_are_history_and_all_are_put_in_the_order_of_their_ids() -> None:
    bodies = [TRADE.replace(b"8700", b"87%02d" % at) for at in (3, 1, 2)]
    connection = talk(kinds=["trades"])
    for at, (type_, past) in enumerate([("snapshot", True), ("update", False)]):
        said = events(connection.handle(rows("market_trades", *bodies, type_=type_, at=at), NOW))
        assert [(event.order, event.past) for event in said] == [(995_098_700 + each, past) for each in (1, 2, 3)]


def test_all_events_of_a_frame_and_all_rows_of_an_event_are_taken() -> None:
    eth = TRADE.replace(b"BTC", b"ETH")
    one, two = ({"type": "update", "trades": [msgspec.Raw(TRADE), msgspec.Raw(eth)]} for _ in range(2))
    said = events(talk("BTC/USD", "ETH/USD", kinds=["trades"]).handle(frame("market_trades", 0, one, two), NOW))
    assert [event.instrument for event in said] == ["BTC/USD", "ETH/USD"] * 2


def test_an_alias_is_fed_by_the_product_that_it_is() -> None:
    said = events(talk("BTC/USDC", "BTC/USD", kinds=["trades"]).handle(rows("market_trades", TRADE), NOW))
    assert [(event.channel, event.instrument) for event in said] == [("trades", "BTC/USDC"), ("trades", "BTC/USD")]


def test_an_id_that_is_no_number_gives_no_order() -> None:
    [event] = events(talk().handle(rows("market_trades", TRADE.replace(b"995098700", b"a-b")), NOW))
    assert event.order is None


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"68900.50"', b'""', '`price` is "", not a number'),
        (b'"68900.50"', b'"-1"', '`price` is "-1", below 0'),
        (b'"68900.50"', b"68900.50", "`price` is 68900.5"),
        (b'"0.00150000"', b'"-2"', '`size` is "-2", not a quantity'),
        (b'"0.00150000"', b'"1e999"', '`size` is "1e999", not a quantity'),
        (b'"BUY"', b'"UNKNOWN"', '`side` is "UNKNOWN"'),
        (b'"side":"BUY",', b"", "`side` is missing"),
        (b"14:30:02", b"34:30:02", '`time` is "2026-04-07T34:30:02.789012345Z", not a time'),
    ],
)
def test_a_trade_that_cannot_be_read_is_noted_and_the_others_go_on(old: bytes, new: bytes, reason: str) -> None:
    said = talk(kinds=["trades"]).handle(rows("market_trades", TRADE.replace(old, new), TRADE), NOW)
    assert isinstance(said, Rows)
    assert [event.data for event in said.events] == [TRADE]
    assert said.notes == [TopicNote("trades", "BTC/USD", "unreadable", reason)]


def test_a_price_of_0_is_none() -> None:
    said = talk(kinds=["trades"]).handle(rows("market_trades", TRADE.replace(b"68900.50", b"0.00")), NOW)
    assert wrong(said) == [("trades", "halted", 'not trading: `price` is "0.00"')]


def test_a_row_that_clients_could_not_read_takes_no_other_away() -> None:
    deep = TRADE[:-1] + b',"more":' + b"[" * 600 + b"]" * 600 + b"}"
    said = talk(kinds=["trades"]).handle(rows("market_trades", deep, TRADE), NOW)
    assert isinstance(said, Rows)
    assert [event.data for event in said.events] == [TRADE]
    assert wrong(said) == [("trades", "unreadable", "the row is nested too deeply")]


def test_a_row_over_several_lines_is_passed_on_in_one() -> None:
    [event] = events(talk().handle(rows("market_trades", TRADE.replace(b",", b",\n")), NOW))
    assert event.data == TRADE


# Tickers and quotes.


def test_a_ticker_feeds_tickers_and_quotes() -> None:
    ticker, quote = events(talk(kinds=["ticker", "quotes"]).handle(rows("ticker", TICKER), NOW))
    assert ticker == Event("ticker", "BTC/USD", TICKER, NOW, "68900.50", TIME_MS)
    fields = QuoteFields(number("68900.00"), number("1.50"), number("68901.00"), number("0.5"))
    assert quote == Event("quotes", "BTC/USD", TICKER, NOW, "68900.50", TIME_MS, fields=fields)


def test_a_quote_is_told_when_it_changes() -> None:
    connection = talk(kinds=["quotes"])
    other = TICKER.replace(b'"0.5"', b'"0.6"')
    told = [
        len(events(connection.handle(rows("ticker", each, at=at), NOW)))
        for at, each in enumerate([TICKER, TICKER.replace(b"68900.50", b"68901.00"), other, other, TICKER])
    ]
    assert told == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("nothing", [b'""', b'"0"', b'"0.00"'])
def test_a_side_of_a_quote_may_be_empty(nothing: bytes) -> None:
    [event] = events(talk(kinds=["quotes"]).handle(rows("ticker", TICKER.replace(b'"68900.00"', nothing)), NOW))
    assert event.fields == QuoteFields(ask=number("68901.00"), ask_size=number("0.5"))
    assert event.price == ""


def test_an_instrument_without_bid_and_ask_is_not_traded() -> None:
    none = TICKER.replace(b'"68900.00"', b'""').replace(b'"68901.00"', b'""')
    said = talk(kinds=["quotes"]).handle(rows("ticker", none), NOW)
    assert wrong(said) == [("quotes", "halted", "not trading: it has neither bid nor ask")]


@pytest.mark.parametrize(
    ("old", "new", "noted"),
    [
        (b'"68900.50"', b'"0"', [("ticker", "halted", 'not trading: `price` is "0"')]),
        (b'"68900.00"', b'"x"', [("quotes", "unreadable", '`best_bid` is "x", not a number')]),
        (b'"1.50"', b'"x"', [("quotes", "unreadable", '`best_bid_quantity` is "x", not a quantity')]),
        (b'"68900.50"', b"7", [(name, "unreadable", "`price` is 7") for name in ("ticker", "quotes")]),
    ],
)
def test_what_is_wrong_with_a_ticker_is_noted_of_what_it_is_for(
    old: bytes, new: bytes, noted: list[tuple[str, str, str]]
) -> None:
    said = talk(kinds=["ticker", "quotes"]).handle(rows("ticker", TICKER.replace(old, new)), NOW)
    assert wrong(said) == noted


def test_a_time_of_a_frame_that_is_none_is_left_out() -> None:
    for time in ("", "1970-01-01T00:00:00Z", "soon"):
        payload = frame("ticker", 0, {"type": "snapshot", "tickers": [msgspec.Raw(TICKER)]}, time=time)
        [event] = events(talk(kinds=["ticker"]).handle(payload, NOW))
        assert event.exchange_ms is None


# Candles.


def test_a_candle_is_told_and_closed_when_the_next_begins() -> None:
    connection = talk(kinds=["candles"])
    following = CANDLE.replace(b"1775572200", b"1775572500")
    [first] = events(connection.handle(rows("candles", CANDLE), NOW))
    fields = CandleFields(
        "5m",
        1_775_572_200_000,
        number("68900.00"),
        number("68950.00"),
        number("68850.00"),
        number("68920.50"),
        number("42.15000000"),
        closed=False,
    )
    assert first == Event("candles", "BTC/USD", CANDLE, NOW, "68920.50", TIME_MS, fields=fields)
    closed, second = events(connection.handle(rows("candles", following, at=1), NOW))
    assert closed.fields == msgspec.structs.replace(fields, closed=True)
    assert second.fields == msgspec.structs.replace(fields, start_ms=1_775_572_500_000)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"1775572200"', b'"soon"', '`start` is "soon", not in seconds since 1970'),
        (b'"68950.00"', b'"x"', '`high` is "x", not a number'),
        (b'"42.15000000"', b'"-1"', '`volume` is "-1", not a quantity'),
    ],
)
def test_a_candle_that_cannot_be_read_is_noted(old: bytes, new: bytes, reason: str) -> None:
    said = talk(kinds=["candles"]).handle(rows("candles", CANDLE.replace(old, new)), NOW)
    assert wrong(said) == [("candles", "unreadable", reason)]


# Books.


def test_a_book_begins_with_a_snapshot_and_goes_on_with_what_changed() -> None:
    connection = talk(kinds=["depth", "book"])
    whole = book("snapshot", "BTC-USD", ("bid", "99.10", "1"), ("offer", "101", "2"), time="1970-01-01T00:00:00Z")
    deep, top = events(connection.handle(frame("l2_data", 0, whole), NOW))
    assert deep == Event(
        "depth",
        "BTC/USD",
        b'{"symbol":"BTC-USD"}',
        NOW,
        "100.05",
        None,
        fields=SnapshotFields(msgspec.Raw(b'[["99.10","1"]]'), msgspec.Raw(b'[["101","2"]]')),
    )
    assert top.data == b'{"symbol":"BTC-USD","bids":[["99.10","1"]],"asks":[["101","2"]]}'
    change = book("update", "BTC-USD", ("offer", "101", "0"), ("offer", "102", "3.50"), ("bid", "99.1", "4"))
    [update] = events(connection.handle(frame("l2_data", 1, change), NOW + 5))
    assert update.fields == DepthFields(msgspec.Raw(b'[["99.10","4"]]'), msgspec.Raw(b'[["101","0"],["102","3.50"]]'))
    assert update.exchange_ms == TIME_MS
    wait_ms = connection.waits_ms(NOW + 5)
    assert wait_ms == 95
    assert [event.channel for event in events(connection.tick(NOW + 100))] == ["book"]
    assert connection.waits_ms(NOW + 100) is None


def test_several_books_in_one_frame() -> None:
    connection = talk("BTC/USD", "ETH/USD", kinds=["depth"])
    both = [book("snapshot", f"{base}-USD", ("bid", "1", "1")) for base in ("BTC", "ETH")]
    assert [event.instrument for event in events(connection.handle(frame("l2_data", 0, *both), NOW))] == [
        "BTC/USD",
        "ETH/USD",
    ]
    other = frame("l2_data", 1, book("update", "SOL-USD", ("bid", "1", "1")))
    assert connection.handle(other, NOW) == []


def begun(*instruments: str, kinds: Sequence[str] = ("depth",)) -> CoinbaseTalk:
    """With a book of each; the next frame has number 2."""
    connection = talk(*instruments, kinds=kinds)
    connection.handle(frame("subscriptions", 0, {"subscriptions": {"level2": ["BTC-USD", "ETH-USD"]}}), NOW)
    products = [instrument.replace("/", "-") for instrument in instruments or ("BTC/USD",)]
    whole = [book("snapshot", product, ("bid", "99", "1"), ("offer", "101", "1")) for product in products]
    connection.handle(frame("l2_data", 1, *whole), NOW)
    return connection


def test_a_hole_in_the_numbers_loses_all_books_and_the_connection() -> None:
    connection = begun("BTC/USD", "ETH/USD")
    said = connection.handle(frame("l2_data", 3, book("update", "BTC-USD", ("bid", "98", "1"))), NOW)
    reason = "Coinbase's frame 3 came where 2 was due"
    lost = [TopicNote("depth", instrument, "gap", reason) for instrument in ("BTC/USD", "ETH/USD")]
    assert said == Said([], lost, [Reconnect(reason)])
    after = connection.handle(frame("l2_data", 4, book("update", "BTC-USD", ("bid", "98", "1"))), NOW)
    assert after == Ignored("a frame after a break")
    assert connection.restate(NOW) == []
    assert connection.waits_ms(NOW) is None


@pytest.mark.parametrize("channel", ["heartbeats", "subscriptions", "ticker", "market_trades", "other"])
def test_frames_of_all_channels_count(channel: str) -> None:
    said = begun().handle(frame(channel, 3), NOW)
    assert isinstance(said, Said)
    assert said.needs == [Reconnect("Coinbase's frame 3 came where 2 was due")]


def test_a_frame_that_comes_twice_counts_once() -> None:
    connection = begun()
    update = frame("l2_data", 2, book("update", "BTC-USD", ("bid", "98", "1")))
    assert len(events(connection.handle(update, NOW))) == 1
    assert connection.handle(update, NOW) == Ignored("a frame that came before")


def test_an_error_has_no_number() -> None:
    connection = begun()
    connection.handle(b'{"type":"error","message":"no"}', NOW)
    assert isinstance(connection.handle(frame("l2_data", 2), NOW), list)


def broken(times: int, kinds: Sequence[str] = ("depth", "trades")) -> tuple[CoinbaseTalk, list[Rows]]:
    """The last of so many connections with a hole after the snapshot, and what was said of each hole."""
    venue = feed(kinds=kinds)
    said: list[Rows] = []
    for _ in range(times):
        connection = venue.converse()
        connection.handle(frame("l2_data", 0, book("snapshot", "BTC-USD", ("bid", "99", "1"))), NOW)
        rows_ = connection.handle(frame("l2_data", 2, book("update", "BTC-USD", ("bid", "98", "1"))), NOW)
        assert isinstance(rows_, Rows)
        said.append(rows_)
    return connection, said


def test_holes_that_come_again_and_again_are_noted_only_and_the_data_goes_on() -> None:
    connection, said = broken(MOST_BREAKS + 1)
    assert [isinstance(each, Said) for each in said] == [True] * MOST_BREAKS + [False]
    reason = "Coinbase's frame 2 came where 1 was due; that comes too often to be acted on"
    assert said[-1].notes == [TopicNote(name, "BTC/USD", "gap", reason, partial=True) for name in ("trades", "depth")]
    assert [type(event.fields) for event in said[-1].events] == [DepthFields]
    assert len(events(connection.handle(frame("l2_data", 3, book("update", "BTC-USD", ("bid", "97", "1"))), NOW))) == 1


def test_a_doubt_is_noted_as_long_as_it_lasts_and_then_the_books_are_asked_for_anew() -> None:
    connection, _ = broken(MOST_BREAKS + 1)
    assert connection.waits_ms(NOW) == RENEW_MS
    assert len(wrong(connection.tick(NOW + RENEW_MS))) == 2
    assert connection.tick(NOW + RENEW_MS + 1) == []
    assert connection.waits_ms(NOW + RENEW_MS) == QUIET_MS - RENEW_MS
    said = connection.tick(NOW + QUIET_MS)
    assert isinstance(said, Said)
    reason = "Coinbase's frame 2 came where 1 was due"
    assert said.needs == [Renew("level2 BTC/USD", f"BTC/USD: {reason}")]
    assert [(note.channel, note.reason, note.partial) for note in said.notes] == [("depth", reason, False)]
    assert connection.waits_ms(NOW + QUIET_MS) is None
    again = events(connection.handle(frame("l2_data", 3, book("snapshot", "BTC-USD", ("bid", "9", "1"))), NOW))
    assert [type(event.fields) for event in again] == [SnapshotFields]


def test_where_the_numbers_mean_nothing_books_are_not_lost_for_it_again_and_again() -> None:
    connection, _ = broken(MOST_BREAKS + 1)
    now_ms, renewed_ms = NOW, list[int]()
    for number_ in range(4, 400, 2):
        # A hole each half a minute, for a good hour.
        for _ in range(30):
            now_ms += 1_000
            if connection.waits_ms(now_ms) == 0 and isinstance(said := connection.tick(now_ms), Said) and said.needs:
                renewed_ms.append(now_ms - NOW)
                connection.handle(frame("l2_data", number_ - 1, book("snapshot", "BTC-USD", ("bid", "9", "1"))), now_ms)
        connection.handle(frame("l2_data", number_ + 1, book("update", "BTC-USD", ("bid", "8", "1"))), now_ms)
    assert renewed_ms == [10_000, 50_000]


def test_a_doubt_is_not_ended_while_frames_are_missing() -> None:
    connection, _ = broken(MOST_BREAKS + 1)
    connection.handle(frame("l2_data", 9, book("update", "BTC-USD", ("bid", "97", "1"))), NOW + QUIET_MS - 1)
    said = connection.tick(NOW + QUIET_MS)
    assert not isinstance(said, Said) or not said.needs
    said = connection.tick(NOW + 2 * QUIET_MS - 1)
    assert isinstance(said, Said)
    assert len(said.needs) == 1


def test_an_answer_behind_a_hole_that_is_noted_only_is_heard() -> None:
    connection, _ = broken(MOST_BREAKS + 1)
    listed = frame("subscriptions", 9, {"subscriptions": {"level2": ["BTC-USD"]}})
    said = connection.handle(listed, NOW + 1)
    assert [reason for *_, reason in wrong(said)] == [
        "Coinbase's frame 9 came where 3 was due; that comes too often to be acted on"
    ] * 2
    assert isinstance(said, Said)
    assert said.controls == (SubscribeAck("level2 BTC/USD"),)


def test_other_frames_go_on_too_while_holes_are_noted_only() -> None:
    connection, _ = broken(MOST_BREAKS + 1)
    said = connection.handle(rows("market_trades", TRADE, at=9), NOW)
    assert isinstance(said, Rows)
    assert not isinstance(said, Said)
    assert [event.data for event in said.events] == [TRADE]
    beat = connection.handle(frame("heartbeats", 19), NOW)
    assert len(wrong(beat)) == 2
    assert isinstance(beat, Said)
    assert beat.controls == (Heartbeat(),)


def test_a_book_that_does_not_begin_with_a_snapshot_is_asked_for_anew_alone() -> None:
    connection = talk("BTC/USD", "ETH/USD", kinds=["depth"])
    update = book("update", "BTC-USD", ("bid", "98", "1"))
    said = connection.handle(frame("l2_data", 0, update), NOW)
    reason = "an update came without a snapshot before it"
    assert said == Said(
        [], [TopicNote("depth", "BTC/USD", "gap", reason)], [Renew("level2 BTC/USD", f"BTC/USD: {reason}")]
    )
    # It may take a while until the venue has ended the subscription, but not for ever.
    assert connection.handle(frame("l2_data", 1, update), NOW) == []
    assert connection.handle(frame("l2_data", 2, update), NOW + SNAPSHOT_MS - 1) == []
    said = connection.handle(frame("l2_data", 3, update), NOW + SNAPSHOT_MS)
    assert isinstance(said, Said)
    assert said.needs == [Renew("level2 BTC/USD", "BTC/USD: no snapshot of it came in 90 s")]


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (book("update", "BTC-USD", ("bid", "98", "x")), "a level that cannot be read: not a quantity: 'x'"),
        (book("update", "BTC-USD", ("bid", "0", "1")), "a level that cannot be read: not a price: '0'"),
        (book("snapshot", "BTC-USD", ("bid", "-1", "1")), "a level that cannot be read: not a price: '-1'"),
        (book("snapshot", "BTC-USD", ("bid", "9", "1"), ("offer", "8", "1")), "the snapshot is crossed"),
        ({"type": "news", "product_id": "BTC-USD"}, "an update that cannot be read: Invalid enum value 'news'"),
    ],
)
def test_a_book_that_cannot_be_kept_right_is_lost_alone_and_asked_for_anew(
    spoilt: dict[str, object], reason: str
) -> None:
    connection = begun("BTC/USD", "ETH/USD")
    good = [book("update", f"{base}-USD", ("bid", "98", "7")) for base in ("BTC", "ETH")]
    said = connection.handle(frame("l2_data", 2, *good, spoilt), NOW)
    assert isinstance(said, Said)
    assert [event.instrument for event in said.events] == ["ETH/USD"]
    [note] = said.notes
    assert (note.instrument, note.cause, note.partial) == ("BTC/USD", "gap", False)
    assert note.reason.startswith(reason)
    assert said.needs == [Renew("level2 BTC/USD", f"BTC/USD: {note.reason}")]
    # Until it begins anew its updates are of no use; then it is whole.
    assert connection.handle(frame("l2_data", 3, good[0]), NOW) == []
    left = frame("subscriptions", 4, {"subscriptions": {"level2": ["ETH-USD"]}})
    assert connection.handle(left, NOW) == SubscribeEnded("level2 BTC/USD")
    again = events(connection.handle(frame("l2_data", 5, book("snapshot", "BTC-USD", ("bid", "9", "1"))), NOW))
    assert [type(event.fields) for event in again] == [SnapshotFields]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"channel":"l2_data","sequence_num":2,"events":[7]}',
        b'{"channel":"l2_data","sequence_num":2,"events":[{"type":"update"}]}',
        b'{"channel":"l2_data","sequence_num":2,"events":{}}',
        b'{"channel":"l2_data","sequence_num":2}',
        b'{"sequence_num":2,"events":[{"type":"update","product_id":["BTC-USD"]}],"channel":"l2_data"}',
    ],
)
def test_books_that_cannot_be_read_and_are_nobodys_are_a_break(payload: bytes) -> None:
    said = begun().handle(payload, NOW)
    assert isinstance(said, Said)
    assert [need for need in said.needs if isinstance(need, Reconnect)]
    assert [(note.channel, note.cause) for note in said.notes] == [("depth", "gap")]


def test_a_frame_whose_channel_does_not_stand_first_is_the_same() -> None:
    connection = begun()
    payload = b'{"sequence_num":2,"channel":"l2_data","events":[' + msgspec.json.encode(
        book("update", "BTC-USD", ("bid", "98", "1"))
    )
    said = connection.handle(payload + b"]}", NOW)
    assert isinstance(said, Rows)
    assert [type(event.fields) for event in said.events] == [DepthFields]
    assert said.notes == []


def test_a_book_that_stays_crossed_is_lost_and_asked_for_anew() -> None:
    connection = begun(kinds=("depth", "book"))
    crossing = frame("l2_data", 2, book("update", "BTC-USD", ("bid", "102", "1")))
    assert connection.handle(crossing, NOW) == []
    assert connection.waits_ms(NOW) == CROSSED_MS
    said = connection.tick(NOW + CROSSED_MS)
    assert isinstance(said, Said)
    reason = "the book has been crossed for 1 s"
    assert said.notes == [TopicNote(name, "BTC/USD", "gap", reason) for name in ("depth", "book")]
    assert said.needs == [Renew("level2 BTC/USD", f"BTC/USD: {reason}")]
    assert connection.waits_ms(NOW + CROSSED_MS) is None


def test_a_book_says_once_more_what_it_is() -> None:
    connection = begun("BTC/USD", "ETH/USD")
    connection.handle(frame("l2_data", 2, book("update", "ETH-USD", ("bid", "102", "1"))), NOW)
    assert [(event.instrument, type(event.fields)) for event in connection.restate(NOW)] == [
        ("BTC/USD", SnapshotFields)
    ]


# Any bytes.

SEEDS = [
    rows("market_trades", TRADE, TRADE),
    rows("ticker", TICKER),
    rows("candles", CANDLE, type_="snapshot"),
    frame("l2_data", 0, book("snapshot", "BTC-USD", ("bid", "99", "1"), ("offer", "101", "1"))),
    frame("l2_data", 1, book("update", "BTC-USD", ("bid", "102", "1"))),
    frame("subscriptions", 0, {"subscriptions": {"level2": ["BTC-USD"]}}),
    b'{"type":"error","message":"no"}',
]


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Frames with a piece of them changed, and any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=64))
    seed = draw(st.sampled_from(SEEDS))
    begin = draw(st.integers(0, len(seed)))
    end = draw(st.integers(begin, min(len(seed), begin + 20)))
    piece = draw(
        st.binary(max_size=8) | st.sampled_from([b"null", b"[]", b"{}", b'"', b"-1", b"1e400", b"", b"[" * 900])
    )
    return seed[:begin] + piece + seed[end:]


@settings(max_examples=3 * settings().max_examples)
@given(st.lists(payloads(), min_size=1, max_size=6))
def test_nothing_but_a_payload_error_comes_of_any_bytes(said: list[bytes]) -> None:
    connection = talk()
    for payload in said:
        with suppress(PayloadError):
            connection.handle(payload, NOW)
        wait_ms = connection.waits_ms(NOW)
        assert wait_ms is None or wait_ms >= 0
    connection.tick(NOW + CROSSED_MS)
    connection.restate(NOW)
