"""Binance's streams: what each frame means, digit for digit, and that nothing but PayloadError comes of any bytes."""

import json
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from connectors.base import Event, PayloadError, Rows
from connectors.push.feed import Feed
from connectors.push.parcels import Parcel
from connectors.push.venue import (
    ClosingNotice,
    Control,
    Conversation,
    Fetch,
    Heartbeat,
    Ignored,
    Said,
    SubscribeRefused,
)
from connectors.venues.binance.build import build
from connectors.venues.binance.settings import Binance
from connectors.venues.binance.streams import MOST_CHARS, PING, BinanceStreams, plan, url
from protocol.channels import Channel
from protocol.fields import CandleFields, QuoteFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS

NOW = 1_765_211_445_122
AT = 1_765_211_445_100


def channel(kind: str, *instruments: str, name: str = "", interval: str = "1m") -> Channel:
    return Channel(
        name=name or f"binance_{kind}",
        exchange="binance",
        kind=KINDS[kind],
        instruments=instruments or ("BTC/USDT",),
        interval=interval,
    )


KIND_NAMES = ("ticker", "trades", "quotes", "book", "depth", "candles")
ALL = [channel(kind) for kind in KIND_NAMES]


def talk(channels: Sequence[Channel] = ALL) -> Conversation:
    return BinanceStreams(Parcel("binance-streams", tuple(channels), {})).converse()


def frame(stream: str, body: object) -> bytes:
    return json.dumps({"stream": stream, "data": body}, separators=(",", ":"), ensure_ascii=False).encode()


def body(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


TRADE = {
    "e": "trade",
    "E": AT,
    "s": "BTCUSDT",
    "t": 12345,
    "p": "42150.50000000",
    "q": "0.00100000",
    "T": AT - 1,
    "m": True,
    "M": True,
}
QUOTE = {"u": 400900217, "s": "BTCUSDT", "b": "42150.49000000", "B": "31.21000000", "a": "42150.51000000", "A": "4.0"}
TICKER = {
    "e": "24hrTicker",
    "E": AT,
    "s": "BTCUSDT",
    "p": "0.1",
    "c": "42150.50000000",
    "b": "1",
    "a": "2",
    "C": AT - 9,
}
SPAN = {
    "t": AT - 60_000,
    "T": AT,
    "s": "BTCUSDT",
    "i": "1m",
    "o": "1.0",
    "c": "1.5",
    "h": "2.0",
    "l": "0.5",
    "v": "0",
    "x": False,
}
CANDLE = {"e": "kline", "E": AT, "s": "BTCUSDT", "k": SPAN}
DIFF = {
    "e": "depthUpdate",
    "E": AT,
    "s": "BTCUSDT",
    "U": 157,
    "u": 160,
    "b": [["42150.00", "10"]],
    "a": [["42151.00", "0.00000000"]],
}
SNAPSHOT = {"lastUpdateId": 156, "bids": [["42149.00", "1.50"]], "asks": [["42151.00", "2.50"], ["42152.00", "3"]]}
STREAMS = {
    "btcusdt@trade": TRADE,
    "btcusdt@bookTicker": QUOTE,
    "btcusdt@ticker": TICKER,
    "btcusdt@kline_1m": CANDLE,
    "btcusdt@depth@100ms": DIFF,
}


def only(said: list[Event] | Rows | Control) -> Event:
    assert isinstance(said, list)
    [event] = said
    return event


class TestEvents:
    def test_a_trade(self) -> None:
        event = only(talk().handle(frame("btcusdt@trade", TRADE), NOW))
        fields = TradeFields(Raw(b"0.00100000"), "sell", "12345")
        assert event == Event(
            "binance_trades",
            "BTC/USDT",
            body(TRADE),
            NOW,
            "42150.50000000",
            AT - 1,
            fields=fields,
            order=12345,
        )
        bought = only(talk().handle(frame("btcusdt@trade", TRADE | {"m": False}), NOW))
        assert isinstance(bought.fields, TradeFields)
        assert bought.fields.side == "buy"

    def test_a_quote_has_no_time_and_its_price_is_the_middle(self) -> None:
        event = only(talk().handle(frame("btcusdt@bookTicker", QUOTE), NOW))
        fields = QuoteFields(Raw(b"42150.49000000"), Raw(b"31.21000000"), Raw(b"42150.51000000"), Raw(b"4.0"))
        assert event == Event(
            "binance_quotes", "BTC/USDT", body(QUOTE), NOW, "42150.50000000", fields=fields, order=400900217
        )

    def test_a_quote_with_an_empty_side_has_neither_its_price_nor_its_size(self) -> None:
        event = only(talk().handle(frame("btcusdt@bookTicker", QUOTE | {"a": "0.00000000", "A": "0.00000000"}), NOW))
        assert event.fields == QuoteFields(Raw(b"42150.49000000"), Raw(b"31.21000000"), UNSET, UNSET)
        assert event.price == ""

    def test_a_ticker(self) -> None:
        event = only(talk().handle(frame("btcusdt@ticker", TICKER), NOW))
        assert event == Event("binance_ticker", "BTC/USDT", body(TICKER), NOW, "42150.50000000", AT, order=AT)

    def test_a_candle(self) -> None:
        event = only(talk().handle(frame("btcusdt@kline_1m", CANDLE), NOW))
        opened, high, low, close, volume = (Raw(digits) for digits in (b"1.0", b"2.0", b"0.5", b"1.5", b"0"))
        fields = CandleFields("1m", AT - 60_000, opened, high, low, close, volume, closed=False)
        assert event == Event("binance_candles", "BTC/USDT", body(CANDLE), NOW, "1.5", AT, fields=fields, order=AT)

    def test_a_book_begins_with_its_snapshot_once_an_update_has_come(self) -> None:
        talking = talk()
        said = talking.handle(frame("btcusdt@depth@100ms", DIFF), NOW)
        assert said == Said([], [], [Fetch("BTCUSDT", "/api/v3/depth?symbol=BTCUSDT&limit=1000")])
        assert talking.handle(frame("btcusdt@depth@100ms", DIFF), NOW) == []
        begun = talking.fetched("BTCUSDT", body(SNAPSHOT), NOW + 5)
        assert isinstance(begun, list)
        depth, book = begun
        bids, asks = Raw(b'[["42150.00","10"],["42149.00","1.50"]]'), Raw(b'[["42152.00","3"]]')
        assert depth == Event(
            "binance_depth",
            "BTC/USDT",
            b'{"symbol":"BTCUSDT","lastUpdateId":160}',
            NOW + 5,
            "42151.00",
            AT,
            fields=SnapshotFields(bids, asks),
        )
        assert json.loads(book.data) == {
            "symbol": "BTCUSDT",
            "bids": json.loads(bytes(bids)),
            "asks": json.loads(bytes(asks)),
        }
        more = DIFF | {"U": 161, "u": 163, "b": [], "a": [["42152.50", "1"]]}
        update = only(talking.handle(frame("btcusdt@depth@100ms", more), NOW + 60))
        assert update.data == b'{"symbol":"BTCUSDT","U":161,"u":163}'
        assert talking.waits_ms(NOW + 60) == 45, "the best levels, 100 ms after they were told"

    def test_several_channels_may_carry_one_stream(self) -> None:
        talking = talk([channel("trades", name="a"), channel("trades", name="b")])
        said = talking.handle(frame("btcusdt@trade", TRADE), NOW)
        assert isinstance(said, list)
        assert [event.channel for event in said] == ["a", "b"]

    def test_names_may_be_in_any_script(self) -> None:
        talking = talk([channel("trades", "币安人生/USDT")])
        row = TRADE | {"s": "币安人生USDT"}
        for stream in ("币安人生usdt@trade", "币安人生USDT@trade", "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9Fusdt@trade"):
            assert only(talking.handle(frame(stream, row), NOW)).instrument == "币安人生/USDT"
        escaped = json.dumps({"stream": "币安人生usdt@trade", "data": row}).encode()
        assert only(talking.handle(escaped, NOW)).instrument == "币安人生/USDT"

    def test_candles_of_a_minute_and_of_a_month_are_told_apart(self) -> None:
        talking = talk([channel("candles", name="m"), channel("candles", name="M", interval="1M")])
        for interval, name in (("1m", "m"), ("1M", "M")):
            row = CANDLE | {"k": SPAN | {"i": interval}}
            assert only(talking.handle(frame(f"btcusdt@kline_{interval}", row), NOW)).channel == name

    @pytest.mark.parametrize(
        "spelling",
        [
            b'{"data":%s,"stream":"%s"}',
            b' { "stream" : "%s" , "data" : %s } ',
            b'{"stream":"%s","data":%s,"more":{"data":1}}',
        ],
    )
    @pytest.mark.parametrize("stream", [name for name in STREAMS if "depth" not in name])
    def test_other_spellings_of_a_frame_give_the_same_events(self, spelling: bytes, stream: str) -> None:
        parts = (stream.encode(), body(STREAMS[stream]))
        said = talk().handle(
            spelling % (parts if spelling.index(b"stream") < spelling.index(b"data") else parts[::-1]), NOW
        )
        assert said == talk().handle(frame(stream, STREAMS[stream]), NOW)

    @given(
        st.from_regex(r"[1-9][0-9]{0,12}(\.[0-9]{1,18})?|0\.[0-9]{1,17}[1-9]", fullmatch=True),
        st.from_regex(r"[1-9][0-9]{0,12}(\.[0-9]{1,18})?", fullmatch=True),
        st.integers(0, 2**63 - 1),
    )
    def test_every_digit_is_kept(self, price: str, size: str, id_: int) -> None:
        row = TRADE | {"p": price, "q": size, "t": id_}
        event = only(talk().handle(frame("btcusdt@trade", row), NOW))
        assert isinstance(event.fields, TradeFields)
        assert (event.price, bytes(event.fields.size).decode(), event.order) == (price, size, id_)
        assert event.data == body(row)


class TestOddRows:
    @pytest.mark.parametrize(
        ("stream", "change", "reason"),
        [
            ("btcusdt@trade", {"p": "-1"}, "`p` is"),
            ("btcusdt@trade", {"q": "x"}, "`q` is"),
            ("btcusdt@trade", {"t": "12"}, "`t` is"),
            ("btcusdt@trade", {"T": 1}, "`T` is 1, not in milliseconds"),
            ("btcusdt@trade", {"s": "ETHUSDT"}, '`s` is "ETHUSDT", in a push about BTCUSDT'),
            ("btcusdt@bookTicker", {"b": ".5"}, "`b` is"),
            ("btcusdt@bookTicker", {"A": "-4"}, "`A` is"),
            ("btcusdt@ticker", {"c": None}, "`c` is null"),
            ("btcusdt@ticker", {"E": 1_765_211_445}, "`E` is"),
            ("btcusdt@kline_1m", {"k": SPAN | {"i": "5m"}}, '`i` is "5m", in a push about 1m'),
            ("btcusdt@kline_1m", {"k": SPAN | {"v": "-1"}}, "`v` is"),
            ("btcusdt@kline_1m", {"k": 1}, "`k` is 1"),
            ("btcusdt@trade", {"x": [[]] * 2 + [1e300]}, ""),
        ],
    )
    def test_a_row_that_is_odd_is_noted_of_its_instrument(
        self, stream: str, change: dict[str, object], reason: str
    ) -> None:
        said = talk().handle(frame(stream, STREAMS[stream] | change), NOW)
        if not reason:
            assert isinstance(said, list)
            return
        assert isinstance(said, Rows)
        assert not said.events
        [note] = said.notes
        assert (note.instrument, note.cause) == ("BTC/USDT", "unreadable")
        assert note.reason.startswith(reason)

    @pytest.mark.parametrize(
        ("stream", "change"),
        [
            ("btcusdt@bookTicker", {"b": "0.0", "B": "0.0", "a": "0.0", "A": "0.0"}),
            ("btcusdt@ticker", {"b": "0.00000000", "a": "0.00000000"}),
            ("btcusdt@ticker", {"c": "0.00000000"}),
            ("btcusdt@ticker", {"C": AT - 90_000_000}),
        ],
    )
    def test_what_is_not_traded_is_no_price(self, stream: str, change: dict[str, object]) -> None:
        said = talk().handle(frame(stream, STREAMS[stream] | change), NOW)
        assert isinstance(said, Rows)
        assert [note.cause for note in said.notes] == ["halted"]

    @pytest.mark.parametrize(
        "change",
        [{"s": "ETHUSDT"}, {"U": 999}, {"u": "x"}, {"E": 1}, {"b": [["1"]]}, {"b": [["x", "1"]]}, {"a": [["1", "-1"]]}],
    )
    def test_an_update_of_a_book_that_is_odd_loses_the_book(self, change: dict[str, object]) -> None:
        talking = talk()
        talking.handle(frame("btcusdt@depth@100ms", DIFF), NOW)
        talking.fetched("BTCUSDT", body(SNAPSHOT), NOW)
        said = talking.handle(frame("btcusdt@depth@100ms", DIFF | {"U": 161, "u": 161} | change), NOW + 1_000)
        assert isinstance(said, Said)
        assert {(note.channel, note.cause, note.partial) for note in said.notes} == {
            ("binance_book", "gap", False),
            ("binance_depth", "gap", False),
        }
        assert len(said.needs) == 1


class TestLosses:
    """How a loss is told, and when another snapshot is asked for."""

    def lost(self) -> tuple[Conversation, Said]:
        talking = talk()
        talking.handle(frame("btcusdt@depth@100ms", DIFF), NOW)
        talking.fetched("BTCUSDT", body(SNAPSHOT), NOW)
        said = talking.handle(frame("btcusdt@depth@100ms", DIFF | {"U": 170, "u": 171}), NOW + 1_000)
        assert isinstance(said, Said)
        return talking, said

    def test_a_gap_says_what_is_missing_and_asks_at_once(self) -> None:
        _, said = self.lost()
        assert [note.reason for note in said.notes] == [
            "its book is not complete: its update 160 is followed by 170"
        ] * 2
        assert said.needs == [Fetch("BTCUSDT", "/api/v3/depth?symbol=BTCUSDT&limit=1000")]

    def test_who_loses_it_again_soon_waits_longer_and_longer(self) -> None:
        talking, _ = self.lost()
        now_ms, id_, waits = NOW + 1_000, 171, []
        for _ in range(8):
            talking.fetched("BTCUSDT", body(SNAPSHOT | {"lastUpdateId": id_}), now_ms)
            id_ += 10
            said = talking.handle(frame("btcusdt@depth@100ms", DIFF | {"U": id_, "u": id_}), now_ms)
            assert isinstance(said, Said)
            assert said.needs == []
            began_ms = now_ms
            while True:
                wait_ms = talking.waits_ms(now_ms)
                assert wait_ms is not None
                now_ms += int(wait_ms)
                ticked = talking.tick(now_ms)
                if isinstance(ticked, Said) and ticked.needs:
                    break
            waits.append((now_ms - began_ms) / 1000)
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60]

    def test_what_is_lost_is_told_again_every_few_seconds(self) -> None:
        talking, said = self.lost()
        assert talking.waits_ms(NOW + 1_000) == 5_000
        ticked = talking.tick(NOW + 6_000)
        assert isinstance(ticked, Rows)
        assert ticked.notes == list(said.notes)
        assert talking.waits_ms(NOW + 6_000) == 5_000

    def test_a_snapshot_that_cannot_be_had_is_told_of_the_instrument(self) -> None:
        talking, _ = self.lost()
        [first, _] = talking.unfetched("BTCUSDT", "no way there")
        assert (first.cause, first.reason) == ("gap", "its book is not complete: no way there")

    def test_a_first_snapshot_that_takes_long_is_told_too(self) -> None:
        """Clients may still have the book of the connection before."""
        talking = talk()
        assert talking.waits_ms(NOW) is None
        talking.handle(frame("btcusdt@depth@100ms", DIFF), NOW)
        assert talking.waits_ms(NOW) == 1_000
        ticked = talking.tick(NOW + 1_000)
        assert isinstance(ticked, Rows)
        assert {note.reason for note in ticked.notes} == {"its book is not complete: its snapshot has not come yet"}
        talking.fetched("BTCUSDT", body(SNAPSHOT), NOW + 1_100)
        assert talking.waits_ms(NOW + 2_000) is None

    def test_while_the_book_goes_on_a_snapshot_that_cannot_be_had_is_nobodys_business(self) -> None:
        talking = talk()
        talking.handle(frame("btcusdt@depth@100ms", DIFF), NOW)
        talking.fetched("BTCUSDT", body(SNAPSHOT), NOW)
        assert talking.unfetched("BTCUSDT", "no way there") == []

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"[]",
            b'{"code":-1121,"msg":"Invalid symbol."}',
            b'{"lastUpdateId":1,"bids":[["1","x"]],"asks":[]}',
            b"\xff",
        ],
    )
    def test_a_body_that_is_no_snapshot_is_fetched_again(self, answer: bytes) -> None:
        talking = talk()
        talking.handle(frame("btcusdt@depth@100ms", DIFF), NOW)
        with pytest.raises(PayloadError, match="BTC/USDT"):
            talking.fetched("BTCUSDT", answer, NOW)

    def test_who_takes_over_states_what_it_has_and_tells_soon_what_it_lacks(self) -> None:
        talking, _ = self.lost()
        assert talking.restate(NOW + 1_500) == []
        assert talking.waits_ms(NOW + 1_500) == 0
        talking.fetched("BTCUSDT", body(SNAPSHOT | {"lastUpdateId": 171}), NOW + 2_000)
        assert [event.channel for event in talking.restate(NOW + 2_500)] == ["binance_depth", "binance_book"]


class TestControls:
    @pytest.mark.parametrize(
        ("payload", "meaning"),
        [
            ('{"result":["btcusdt@trade"],"id":9}', Heartbeat()),
            ('{"result":null,"id":1}', Ignored("an answer to 1")),
            (
                '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
                ClosingNotice("Binance is about to close the connection"),
            ),
            ('{"e":"serverShutdown","E":1770123456789}', ClosingNotice("Binance is about to close the connection")),
            (
                '{"code":3,"msg":"Invalid JSON: expected value at line 1 column 1"}',
                SubscribeRefused(
                    "",
                    "Binance refused a message: 3 Invalid JSON: expected value at line 1 column 1",
                    retry=True,
                ),
            ),
            (
                '{"error":{"code":2,"msg":"Invalid request: invalid stream"},"id":3}',
                SubscribeRefused("", "Binance refused a message: 2 Invalid request: invalid stream", retry=True),
            ),
            ('{"stream":"ethusdt@trade","data":{}}', Ignored("a frame of the stream ethusdt@trade")),
            ('{"e":"news"}', Ignored("the event news")),
        ],
    )
    def test_what_is_no_data(self, payload: str, meaning: Control) -> None:
        assert talk().handle(payload.encode(), NOW) == meaning

    def test_the_ping_is_what_its_answer_is_known_by(self) -> None:
        assert json.loads(PING) == {"method": "LIST_SUBSCRIPTIONS", "id": 9}

    @pytest.mark.parametrize("payload", [b"", b"pong", b"[]", b"{}", b"1", b"\xff\xfe", b'{"stream":1}', b"[" * 5_000])
    def test_what_is_nothing_that_is_documented(self, payload: bytes) -> None:
        with pytest.raises(PayloadError):
            talk().handle(payload, NOW)


def _spoilt(payload: bytes) -> st.SearchStrategy[bytes]:
    """Some bytes of it are others."""
    return st.lists(st.tuples(st.integers(0, len(payload) - 1), st.binary(max_size=3)), min_size=1, max_size=4).map(
        lambda changes: _spoil(payload, changes)
    )


def _spoil(payload: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    for at, piece in changes:
        payload = payload[:at] + piece + payload[at + 1 :]
    return payload


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["1", "0", "BTCUSDT"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("esEUubaBAtTpqmkc"), inner, max_size=4),
    max_leaves=9,
)


@given(
    st.binary()
    | st.one_of([_spoilt(frame(stream, row)) for stream, row in STREAMS.items()])
    | st.builds(
        lambda stream, changes: frame(stream, STREAMS[stream] | changes),
        st.sampled_from(list(STREAMS)),
        st.dictionaries(st.sampled_from("esEUubaBAtTpqmkc"), _values, max_size=3),
    )
)
def test_nothing_but_payload_error_comes_of_any_bytes(payload: bytes) -> None:
    talking = talk()
    talking.handle(frame("btcusdt@depth@100ms", DIFF), NOW)
    talking.fetched("BTCUSDT", body(SNAPSHOT), NOW)
    try:
        said = talking.handle(payload, NOW)
    except PayloadError:
        return
    events = said if isinstance(said, list) else said.events if isinstance(said, Rows) else []
    for event in events:
        # Fit to be spliced into a message.
        assert isinstance(msgspec.json.decode(event.data), dict)
        assert json.loads(event.data.decode())
        msgspec.json.encode(event.fields)


class TestPlan:
    def test_the_streams_stand_in_the_url_each_once(self) -> None:
        [parcel] = plan([*ALL, channel("trades", "BTC/USDT", "币安人生/USDT", name="more")])
        assert url("wss://data-stream.binance.vision/", parcel.channels) == (
            "wss://data-stream.binance.vision/stream?streams=btcusdt@ticker/btcusdt@trade/btcusdt@bookTicker/"
            "btcusdt@depth@100ms/btcusdt@kline_1m/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9Fusdt@trade"
        )

    def test_more_than_a_url_takes_go_over_further_connections(self) -> None:
        many = tuple(f"A{number}/USDT" for number in range(1_000))
        plans = plan([channel("quotes", *many), channel("trades", "BTC/USDT")])
        addresses = [url("wss://x", parcel.channels) for parcel in plans]
        streams = [address.partition("=")[2].split("/") for address in addresses]
        assert len(plans) > 2
        assert max(map(len, addresses)) < MOST_CHARS + 30
        assert max(map(len, streams)) < 1_024
        assert sorted(name for each in streams for name in each) == sorted(
            [*(f"a{n}usdt@bookTicker" for n in range(1_000)), "btcusdt@trade"]
        )
        made = build([channel("quotes", *many), channel("trades", "BTC/USDT")], Binance(), "tickerd/1")
        names = ["binance-streams", *(f"binance-streams-{number}" for number in range(2, len(plans) + 1))]
        assert [connector.name for connector in made] == names
        assert [name for connector in made for name in connector.channels] == ["binance_trades"]
        feeds = [connector for connector in made if isinstance(connector, Feed)]
        assert sum(len(feed.venue.parts.get("binance_quotes", ())) for feed in feeds) == 1_000
        assert len({id(feed.spacing) for feed in feeds}) == 1
        assert {feed.venue.rules.connect_spacing_s for feed in feeds} == {1.0}, "together 1 a second"

    @pytest.mark.parametrize(
        ("channels", "words"),
        [
            ([channel("candles", interval="2m")], r"channels.binance_candles.interval is '2m'; Binance has 1s, 1m"),
            ([channel("trades", "BT/CUSDT", "BTC/USDT")], "BT/CUSDT and BTC/USDT are one symbol at Binance: BTCUSDT"),
        ],
    )
    def test_what_binance_cannot_have_is_refused(self, channels: list[Channel], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            build(channels, Binance(), "tickerd/1")

    def test_a_book_of_many_levels_has_a_snapshot_of_more(self) -> None:
        wide = msgspec.structs.replace(channel("book"), levels=500)
        said = talk([wide]).handle(frame("btcusdt@depth@100ms", DIFF), NOW)
        assert said == Said([], [], [Fetch("BTCUSDT", "/api/v3/depth?symbol=BTCUSDT&limit=5000")])

    def test_few_streams_or_none_but_trades_and_candles_may_be_silent_for_long(self) -> None:
        def silence_s(*channels: Channel) -> float:
            [feed] = [each for each in build(channels, Binance(), "tickerd/1") if isinstance(each, Feed)]
            return feed.silence_s

        many = tuple(f"A{number}/USDT" for number in range(20))
        assert silence_s(channel("quotes")) == 300.0
        assert silence_s(channel("quotes"), channel("trades")) == 150.0
        assert silence_s(channel("quotes", *many)) == 30.0
        assert silence_s(channel("trades", *many), channel("candles", *many)) == 300.0

    def test_a_new_connection_has_time_for_the_snapshots_of_all_books(self) -> None:
        many = tuple(f"A{number}/USDT" for number in range(300))
        made = build(
            [channel("depth", *many), channel("quotes", *many), channel("book", *many)], Binance(), "tickerd/1"
        )
        assert len(made) > 1
        for feed in made:
            assert isinstance(feed, Feed)
            assert feed.venue.rules.settles_s == 300.0, "60 of them a minute"
