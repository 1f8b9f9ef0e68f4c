"""Kraken's frames: what each means, digit for digit, and that nothing but PayloadError comes of any bytes."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.push.feed import Feed
from connectors.push.venue import (
    Control,
    Heartbeat,
    Ignored,
    Renew,
    Said,
    SubscribeAck,
    SubscribeEnded,
    SubscribeRefused,
)
from connectors.venues.kraken.plan import INTERVALS, plan
from connectors.venues.kraken.streams import RENEW_MS, Kraken, KrakenStreams, KrakenTalk, build
from protocol.channels import Channel
from protocol.fields import CandleFields, QuoteFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from protocol.messages import number
from tests.connectors.venues.kraken.perfect_kraken import PerfectBook, instruments

NOW = 1_790_000_000_000
PAIRS = ("BTC/USD", "ETH/USD")
MADE_MS = 1_695_628_177_708
TRADE = (
    b'{"symbol":"BTC/USD","side":"buy","price":105944.20,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,'
    b'"timestamp":"2023-09-25T07:49:37.708706Z"}'
)
TICKER = (
    b'{"symbol":"BTC/USD","bid":105944.20,"bid_qty":2.50000000,"ask":105944.3,"ask_qty":3.2,"last":105899.40,'
    b'"volume":163.28908096,"vwap":105904.39279,"low":104711.00,"high":106613.10,"change":250.00,"change_pct":0.24,'
    b'"timestamp":"2023-09-25T07:49:37.708706Z"}'
)
OHLC = (
    b'{"symbol":"BTC/USD","interval":1,"interval_begin":"2023-10-04T16:25:00.000000000Z","open":106038.20,'
    b'"high":106044.3,"low":106038.1,"close":106040.10,"volume":0.50000000,"vwap":106039.6,"trades":12}'
)
STARTS_MS = 1_696_436_700_000
STATUS = (
    b'{"channel":"status","type":"update","data":[{"api_version":"v2","connection_id":13834774380200032777,'
    b'"system":"online","version":"2.0.0"}]}'
)


def channels(*kinds: str) -> list[Channel]:
    return [Channel(name=kind, exchange="kraken", kind=KINDS[kind], instruments=PAIRS) for kind in kinds]


def talk(*kinds: str) -> KrakenTalk:
    [connection] = plan(channels(*kinds))
    return KrakenStreams(connection).converse()


def frame(channel: str, *rows: bytes, type_: str = "update") -> bytes:
    return b'{"channel":"%s","type":"%s","data":[%s]}' % (channel.encode(), type_.encode(), b",".join(rows))


def told(said: list[Event] | Rows | Control) -> list[tuple[str, str, str, bool]]:
    assert isinstance(said, Rows)
    return [(note.channel, note.instrument, note.cause, note.partial) for note in said.notes]


def events_of(said: list[Event] | Rows | Control) -> list[Event]:
    assert isinstance(said, list), said
    return said


class TestWhatIsAskedFor:
    def test_the_list_of_instruments_comes_first_and_each_symbol_of_each_channel_is_asked_for_alone(self) -> None:
        [connection] = plan(channels("trades", "depth"))
        requests = KrakenStreams(connection, depth=25).subscribe_requests()
        assert [(request.id, request.channels, request.subject) for request in requests] == [
            ("1", (), "the list of instruments"),
            ("2", ("trades",), "BTC/USD"),
            ("3", ("trades",), "ETH/USD"),
            ("4", ("depth",), "BTC/USD"),
            ("5", ("depth",), "ETH/USD"),
        ]
        book = {"channel": "book", "symbol": ["ETH/USD"], "depth": 25}
        assert msgspec.json.decode(requests[4].text) == {
            "method": "subscribe",
            "params": book | {"snapshot": True},
            "req_id": 5,
        }
        assert msgspec.json.decode(requests[4].leave) == {"method": "unsubscribe", "params": book, "req_id": 5}
        assert msgspec.json.decode(requests[0].text)["params"] == {"channel": "instrument", "snapshot": True}

    def test_the_connections_share_the_allowance_of_connects(self) -> None:
        made = [each for each in build(channels("trades", "quotes"), Kraken(), "t") if isinstance(each, Feed)]
        assert [(feed.name, feed.channels) for feed in made] == [
            ("kraken", ("trades",)),
            ("kraken-quotes", ("quotes",)),
        ]
        assert len({id(feed.spacing) for feed in made}) == 1
        assert made[0].venue.rules.connect_spacing_s == 5.0

    def test_a_silent_connection_is_given_up_after_five_seconds(self) -> None:
        rules = KrakenStreams(plan(channels("trades"))[0]).rules
        assert rules.ping_after_s + rules.pong_s == 5.0

    def test_it_is_built_of_its_settings_and_not_without_channels(self) -> None:
        made = build(channels("ticker", "candles"), Kraken(url="ws://127.0.0.1:1/v2"), "tickerd/test")
        assert [(connector.name, connector.channels) for connector in made] == [
            ("kraken", ("ticker", "candles")),
            ("kraken-history", ()),
        ]
        assert build([], Kraken(), "tickerd/test") == []
        assert list(INTERVALS.values()) == [1, 5, 15, 30, 60, 240, 1440, 10080, 21600]


class TestWhatIsNoData:
    @pytest.mark.parametrize(
        ("payload", "control"),
        [
            (b'{"channel":"heartbeat"}', Heartbeat()),
            (b'{ "channel" : "heartbeat" }', Heartbeat()),
            (b'{"method":"pong","req_id":101,"time_in":"2023-09-24T14:10:23.799685Z"}', Heartbeat()),
            (b'{"method":"ping","req_id":101}', Heartbeat(answer='{"method":"pong"}')),
            (
                b'{"method":"subscribe","req_id":2,"success":true,"time_in":"x","time_out":"y",'
                b'"result":{"channel":"trade","symbol":"BTC/USD","snapshot":true,"warnings":["w"]}}',
                SubscribeAck("2"),
            ),
            (
                b'{"method":"subscribe","req_id":2,"success":false,"error":"Already subscribed to one trade"}',
                SubscribeAck("2"),
            ),
            (
                b'{"method":"subscribe","req_id":3,"success":false,"error":"Currency pair not supported XXX/USD"}',
                SubscribeRefused("3", "refused by Kraken: ETH/USD: Currency pair not supported XXX/USD", retry=False),
            ),
            (
                b'{"method":"subscribe","req_id":3,"success":false,"error":"Too many ETH/USD"}',
                SubscribeRefused("3", "Kraken cannot serve ETH/USD now: Too many ETH/USD", retry=True),
            ),
            (
                b'{"method":"subscribe","req_id":3,"success":false,"error":"Currency pair not supported PIRATE/USD"}',
                SubscribeRefused(
                    "3", "refused by Kraken: ETH/USD: Currency pair not supported PIRATE/USD", retry=False
                ),
            ),
            (
                b'{"method":"subscribe","req_id":3,"success":false,"error":"Exceeded msg rate"}',
                SubscribeRefused("3", "Kraken cannot serve ETH/USD now: Exceeded msg rate", retry=True),
            ),
            (
                b'{"method":"subscribe","success":false,"error":"Unsupported field"}',
                SubscribeRefused("", "refused by Kraken: a request: Unsupported field", retry=False),
            ),
            (b'{"method":"unsubscribe","req_id":2,"success":true,"result":{}}', SubscribeEnded("2")),
            (
                b'{"method":"unsubscribe","req_id":2,"success":false,"error":"Subscription Not Found"}',
                SubscribeEnded("2"),
            ),
            (STATUS, Ignored("a frame about which pairs trade")),
            (instruments(*PAIRS, "XRP/USD"), Ignored("a frame about which pairs trade")),
            (b'{"method":"add_order","success":false,"error":"no"}', Ignored("an answer to add_order")),
            (frame("level3", b"{}"), Ignored("a frame of the channel level3")),
        ],
    )
    def test_it_is_told_apart(self, payload: bytes, control: Control) -> None:
        assert talk("trades").handle(payload, NOW) == control

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"[]",
            b"{}",
            b'{"channel":"trade"}',
            b'{"channel":"trade","data":{}}',
            b'{"channel":"trade","data":[1]}',
            b'{"channel":"book","data":[{"symbol":"XRP/USD"}]}',
            b'{"channel":"status","data":[1]}',
            b'{"channel":"instrument","data":[]}',
            b'{"channel":"\xff"}',
            b"[" * 100_000,
        ],
    )
    def test_what_is_not_documented_is_refused(self, payload: bytes) -> None:
        with pytest.raises(PayloadError):
            talk("trades", "depth").handle(payload, NOW)


class TestTrades:
    def test_a_trade_has_the_digits_that_stood_in_the_bytes(self) -> None:
        fields = TradeFields(number("0.00027625"), "buy", "10218208")
        made = Event("trades", "BTC/USD", TRADE, NOW, "105944.20", MADE_MS, fields=fields, order=10_218_208, past=False)
        assert talk("trades").handle(frame("trade", TRADE), NOW) == [made]

    def test_a_snapshot_is_history_in_the_order_of_its_ids(self) -> None:
        newer = TRADE.replace(b"10218208", b"10218209")
        events = events_of(talk("trades").handle(frame("trade", newer, TRADE, type_="snapshot"), NOW))
        assert [(event.order, event.past) for event in events] == [(10_218_208, True), (10_218_209, True)]

    def test_trades_of_one_frame_are_told_in_the_order_of_their_ids(self) -> None:
        rows = [TRADE.replace(b"10218208", b"%d" % id_) for id_ in (9, 7, 8)]
        events = events_of(talk("trades").handle(frame("trade", *rows), NOW))
        assert [(event.order, event.past) for event in events] == [(7, False), (8, False), (9, False)]

    def test_an_exponent_is_written_out(self) -> None:
        [event] = events_of(talk("trades").handle(frame("trade", TRADE.replace(b"0.00027625", b"1e-08")), NOW))
        assert isinstance(event.fields, TradeFields)
        assert bytes(event.fields.size) == b"0.00000001"
        assert b'"qty":1e-08' in event.data

    @pytest.mark.parametrize(
        ("old", "new", "cause"),
        [
            (b"105944.20", b"0", "halted"),
            (b"105944.20", b"-1", "unreadable"),
            (b"105944.20", b'"105944.20"', "unreadable"),
            (b"105944.20", b"null", "unreadable"),
            (b"105944.20", b"1e999", "unreadable"),
            (b"105944.20", b"1" * 400, "unreadable"),
            (b"0.00027625", b"-0.1", "unreadable"),
            (b"0.00027625", b"{}", "unreadable"),
            (b'"buy"', b'"bought"', "unreadable"),
            (b"10218208", b'"a"', "unreadable"),
            (b"2023-09-25T07:49:37.708706Z", b"today", "unreadable"),
            (b"2023-09-25T07:49:37.708706Z", b"2023-09-25T07:49:37.708706", "unreadable"),
        ],
    )
    def test_one_bad_row_is_noted_and_the_others_go_on(self, old: bytes, new: bytes, cause: str) -> None:
        other = TRADE.replace(b"BTC", b"ETH")
        said = talk("trades").handle(frame("trade", TRADE.replace(old, new), other), NOW)
        assert told(said) == [("trades", "BTC/USD", cause, False)]
        assert isinstance(said, Rows)
        assert [event.data for event in said.events] == [other]

    def test_what_nobody_asked_for_is_left_out(self) -> None:
        assert talk("trades").handle(frame("trade", TRADE.replace(b"BTC", b"XRP")), NOW) == []
        assert talk("depth").handle(frame("trade", TRADE), NOW) == []


class TestTickersAndQuotes:
    def test_a_ticker_is_the_venues_own_object(self) -> None:
        made = Event("ticker", "BTC/USD", TICKER, NOW, "105899.40", MADE_MS)
        assert talk("ticker").handle(frame("ticker", TICKER, type_="snapshot"), NOW) == [made]

    def test_a_quote_is_the_best_bid_and_ask(self) -> None:
        fields = QuoteFields(number("105944.20"), number("2.50000000"), number("105944.3"), number("3.2"))
        made = Event("quotes", "BTC/USD", TICKER, NOW, "105944.25", MADE_MS, fields=fields)
        assert talk("quotes").handle(frame("ticker", TICKER, type_="snapshot"), NOW) == [made]

    def test_it_is_told_when_it_changes(self) -> None:
        quotes = talk("quotes")
        assert len(events_of(quotes.handle(frame("ticker", TICKER), NOW))) == 1
        assert quotes.handle(frame("ticker", TICKER.replace(b"105899.40", b"105899.50")), NOW) == []
        assert len(events_of(quotes.handle(frame("ticker", TICKER.replace(b"3.2", b"3.3")), NOW))) == 1

    @pytest.mark.parametrize("empty", [b"0", b"null", b"0.00"])
    def test_a_side_may_be_empty(self, empty: bytes) -> None:
        [event] = events_of(talk("quotes").handle(frame("ticker", TICKER.replace(b"105944.3", empty)), NOW))
        assert event.price == ""
        assert event.fields == QuoteFields(number("105944.20"), number("2.50000000"))

    def test_without_any_side_it_is_not_traded(self) -> None:
        said = talk("quotes").handle(
            frame("ticker", TICKER.replace(b"105944.20", b"0").replace(b"105944.3", b"0")), NOW
        )
        assert told(said) == [("quotes", "BTC/USD", "halted", False)]

    def test_a_bad_row_is_noted(self) -> None:
        assert told(talk("ticker").handle(frame("ticker", TICKER.replace(b"105899.40", b'"x"')), NOW)) == [
            ("ticker", "BTC/USD", "unreadable", False)
        ]


class TestCandles:
    def test_a_candle_has_the_digits_that_stood_in_the_bytes(self) -> None:
        fields = CandleFields(
            "1m",
            STARTS_MS,
            number("106038.20"),
            number("106044.3"),
            number("106038.1"),
            number("106040.10"),
            number("0.50000000"),
            closed=False,
        )
        made = Event("candles", "BTC/USD", OHLC, NOW, "106040.10", fields=fields)
        assert talk("candles").handle(frame("ohlc", OHLC), NOW) == [made]

    def test_it_is_closed_when_the_next_one_begins(self) -> None:
        candles = talk("candles")
        candles.handle(frame("ohlc", OHLC), NOW)
        after = OHLC.replace(b"16:25", b"16:26").replace(b"106040.10", b"106041")
        events = events_of(candles.handle(frame("ohlc", after), NOW))
        assert [
            (event.price, event.data, event.fields.closed) for event in events if isinstance(event.fields, CandleFields)
        ] == [
            ("106040.10", OHLC, True),
            ("106041", after, False),
        ]

    def test_of_a_snapshot_the_last_two_are_told_and_the_time_of_the_frame_is_theirs(self) -> None:
        rows = [OHLC.replace(b"16:25", b"16:2%d" % minute) for minute in range(5)]
        payload = frame("ohlc", *rows, type_="snapshot")
        payload = payload.replace(b'"data"', b'"timestamp":"2023-09-25T07:49:37.708706Z","data"', 1)
        events = events_of(talk("candles").handle(payload, NOW))
        assert [event.data for event in events] == rows[3:]
        assert [event.exchange_ms for event in events] == [MADE_MS, MADE_MS]

    @pytest.mark.parametrize(
        ("old", "new"), [(b"106044.3", b"0"), (b"0.50000000", b"null"), (b"2023-10-04T16:25:00.000000000Z", b"9")]
    )
    def test_a_bad_row_is_noted(self, old: bytes, new: bytes) -> None:
        cause = "halted" if new == b"0" else "unreadable"
        assert told(talk("candles").handle(frame("ohlc", OHLC.replace(old, new)), NOW)) == [
            ("candles", "BTC/USD", cause, False)
        ]

    def test_candles_of_another_length_are_left_out(self) -> None:
        assert talk("candles").handle(frame("ohlc", OHLC.replace(b'"interval":1', b'"interval":5')), NOW) == []


class TestBooks:
    """What their frames are; how a book is kept right is `test_sync.py`'s."""

    def test_a_frame_in_another_form_means_the_same(self) -> None:
        book = PerfectBook("BTC/USD")
        book.set("bids", 10, 5)
        snapshot = book.snapshot()
        [usual] = events_of(talk("depth").handle(snapshot, NOW))
        [odd] = events_of(talk("depth").handle(b"\n" + snapshot.replace(b",", b" , "), NOW))
        assert (odd.data, odd.price, odd.exchange_ms) == (usual.data, usual.price, usual.exchange_ms)
        assert isinstance(odd.fields, SnapshotFields)
        assert bytes(odd.fields.bids) == b'[["1.0","0.00000005"]]'

    def test_a_row_that_cannot_be_read_ends_that_book_and_no_other(self) -> None:
        books = talk("depth")
        rows = []
        for pair in PAIRS:
            book = PerfectBook(pair)
            book.set("bids", 10, 5)
            books.handle(book.snapshot(), NOW)
            book.set("bids", 10, 6)
            rows.append(book.update().split(b"[", 1)[1][:-2])
        said = books.handle(frame("book", rows[0].replace(b'"checksum"', b'"sum"'), rows[1]), NOW)
        assert isinstance(said, Said)
        assert told(said) == [("depth", "BTC/USD", "gap", False)]
        assert [need.id for need in said.needs if isinstance(need, Renew)] == ["2"]
        assert [event.instrument for event in said.events] == ["ETH/USD"]

    def test_best_levels_are_told_when_they_are_due(self) -> None:
        books = talk("book")
        book = PerfectBook("BTC/USD")
        book.set("asks", 10, 5)
        assert len(events_of(books.handle(book.snapshot(), NOW))) == 1
        assert books.waits_ms(NOW) is None
        book.set("asks", 11, 5)
        assert books.handle(book.update(), NOW + 30) == []
        assert books.waits_ms(NOW + 30) == 70
        [event] = events_of(books.tick(NOW + 100))
        assert b'["1.1","0.00000005"]' in event.data
        assert books.waits_ms(NOW + 100) is None

    def test_a_connection_that_takes_over_begins_its_books_anew(self) -> None:
        books = talk("depth")
        assert books.restate(NOW) == []
        book = PerfectBook("BTC/USD")
        book.set("asks", 10, 5)
        books.handle(book.snapshot(), NOW)
        assert [event.instrument for event in books.restate(NOW)] == ["BTC/USD"]


class TestWhatIsNotTraded:
    def test_a_pair_that_is_not_online_is_noted_at_once_and_again_and_nothing_is_published_of_it(self) -> None:
        trades = talk("trades")
        said = trades.handle(instruments(*PAIRS, status="cancel_only"), NOW)
        assert told(said) == [("trades", "BTC/USD", "halted", False), ("trades", "ETH/USD", "halted", False)]
        assert trades.handle(frame("trade", TRADE), NOW) == []
        assert trades.waits_ms(NOW) == RENEW_MS
        assert trades.tick(NOW + 100) == []
        again = trades.tick(NOW + RENEW_MS)
        assert isinstance(again, Rows)
        assert {note.reason for note in again.notes} == {"not trading: its status at Kraken is cancel_only"}
        assert trades.waits_ms(NOW + RENEW_MS) == RENEW_MS

    def test_a_pair_that_does_not_exist_is_noted(self) -> None:
        said = talk("trades").handle(instruments("BTC/USD"), NOW)
        assert told(said) == [("trades", "ETH/USD", "refused", False)]

    def test_maintenance_halts_all_and_books_come_back_with_a_snapshot(self) -> None:
        books = talk("depth", "trades")
        book = PerfectBook("BTC/USD")
        book.set("asks", 10, 5)
        books.handle(book.snapshot(), NOW)
        said = books.handle(STATUS.replace(b"online", b"maintenance"), NOW)
        assert [note[2:] for note in told(said)] == [("halted", False)] * 4
        book.set("asks", 9, 5)
        assert books.handle(book.update(), NOW) == []
        assert books.restate(NOW) == []
        [event] = events_of(books.handle(STATUS, NOW))
        assert isinstance(event.fields, SnapshotFields)
        assert bytes(event.fields.asks) == b'[["0.9","0.00000005"],["1.0","0.00000005"]]'
        assert books.waits_ms(NOW) is None

    def test_post_only_is_a_remark_and_the_book_goes_on(self) -> None:
        books = talk("depth")
        said = books.handle(STATUS.replace(b"online", b"post_only"), NOW)
        assert {note[2:] for note in told(said)} == {("halted", True)}
        assert len(events_of(books.handle(PerfectBook("BTC/USD").snapshot(), NOW))) == 1

    def test_a_pair_of_which_nothing_else_can_be_read_is_there(self) -> None:
        odd = instruments("BTC/USD").replace(b'"status":"online"', b'"status":7')
        assert told(talk("trades").handle(odd, NOW)) == [("trades", "ETH/USD", "refused", False)]


def _cut_and_mixed(payload: bytes) -> st.SearchStrategy[bytes]:
    cut = st.integers(0, len(payload))
    return st.tuples(cut, st.binary(max_size=20), cut).map(lambda at: payload[: at[0]] + at[1] + payload[at[2] :])


def _book_frames() -> list[bytes]:
    book = PerfectBook("BTC/USD")
    book.set("bids", 10, 5)
    snapshot = book.snapshot()
    book.set("asks", 20, 7)
    return [snapshot, book.update()]


SNAPSHOT, UPDATE = _book_frames()
FRAMES = [
    SNAPSHOT,
    UPDATE,
    frame("trade", TRADE),
    frame("ticker", TICKER),
    frame("ohlc", OHLC),
    STATUS,
    instruments(*PAIRS),
]
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_keys = st.sampled_from(
    [b"price", b"qty", b"bids", b"asks", b"checksum", b"timestamp", b"symbol", b"last", b"data", b"bid"]
)


@given(
    st.lists(
        st.binary() | st.sampled_from(FRAMES).flatmap(_cut_and_mixed) | st.sampled_from(FRAMES),
        min_size=1,
        max_size=4,
    )
)
def test_nothing_else_comes_of_any_bytes(payloads: list[bytes]) -> None:
    conversation = talk("trades", "ticker", "candles", "depth", "book")
    for payload in payloads:
        with suppress(PayloadError):
            conversation.handle(payload, NOW)
    conversation.waits_ms(NOW)
    conversation.tick(NOW)
    conversation.restate(NOW)


@given(st.sampled_from(FRAMES), _keys, _json, st.sampled_from(["trades", "quotes"]))
def test_nothing_else_comes_of_any_value(payload: bytes, key: bytes, value: object, kind: str) -> None:
    conversation = talk("quotes") if kind == "quotes" else talk("trades", "ticker", "candles", "depth", "book")
    conversation.handle(SNAPSHOT, NOW)
    at = payload.find(b'"%s":' % key)
    if at >= 0:
        start = at + len(key) + 3
        payload = payload[:start] + msgspec.json.encode(value) + b',"rest":' + payload[start:]
    with suppress(PayloadError):
        said = conversation.handle(payload, NOW)
        for event in said if isinstance(said, list) else said.events if isinstance(said, Rows) else []:
            assert not event.price or number(event.price)


def test_the_notes_name_only_channels_that_there_are() -> None:
    conversation = talk("trades", "depth")
    said = conversation.handle(STATUS.replace(b"online", b"maintenance"), NOW)
    assert isinstance(said, Rows)
    assert all(isinstance(note, TopicNote) and note.channel in ("trades", "depth") for note in said.notes)
