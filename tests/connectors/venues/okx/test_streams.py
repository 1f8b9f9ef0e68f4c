"""OKX's trades, quotes, books and candles, frame by frame; a book is OKX's, or is said not to be."""

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import MockClock

from connectors.base import Connector, Event, PayloadError, Rows, StateChange, TopicNote, VenueUnavailable
from connectors.books.awaited import SNAPSHOT_MS
from connectors.push import connection
from connectors.push.feed import Feed
from connectors.push.venue import Control, Ignored, Renew, Said, SubscribeEnded, SubscribeRefused
from connectors.venues.okx.sequence import Sequence as Chain
from connectors.venues.okx.streams import Okx, OkxConversation, OkxStreams, build
from connectors.venues.okx.topics import INTERVALS
from protocol.channels import Channel
from protocol.fields import CandleFields, DepthFields, QuoteFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from protocol.messages import number

NOW = 1_765_211_445_122
AT = 1_765_211_445_101


def channel(kind: str, *instruments: str, name: str = "", **more: Any) -> Channel:
    return Channel(
        name=name or f"okx_{kind}",
        exchange="okx",
        kind=KINDS[kind],
        instruments=instruments or ("BTC/USDT",),
        **more,
    )


ALL = [channel(kind) for kind in ("trades", "quotes", "book", "depth", "candles")]


def talk(*channels: Channel) -> OkxConversation:
    return OkxStreams(channels or ALL).converse()


def frame(stream: str, *rows: object, action: str = "", inst_id: str = "BTC-USDT") -> bytes:
    said: dict[str, object] = {"arg": {"channel": stream, "instId": inst_id}}
    if action:
        said["action"] = action
    return msgspec.json.encode({**said, "data": rows})


def trade(id_: int = 130639474, **more: Any) -> dict[str, object]:
    known = {"instId": "BTC-USDT", "tradeId": str(id_), "px": "42219.90", "sz": "0.12060306", "side": "buy"}
    return {**known, "ts": str(AT), "count": "3", "source": "0", "seqId": 1234, **more}


def levels(*pairs: tuple[str, str]) -> list[list[str]]:
    return [[price, size, "0", "1"] for price, size in pairs]


def book(prev: int, seq: int, bids: Any = (), asks: Any = (), **more: Any) -> dict[str, object]:
    known = {"asks": levels(*asks), "bids": levels(*bids), "ts": str(AT), "checksum": 0}
    return {**known, "prevSeqId": prev, "seqId": seq, **more}


def snapshot(seq: int = 10, bids: Any = (("9", "1"), ("8", "2")), asks: Any = (("11", "1"),)) -> bytes:
    return frame("books", book(-1, seq, bids, asks), action="snapshot")


def update(prev: int, seq: int, bids: Any = (), asks: Any = ()) -> bytes:
    return frame("books", book(prev, seq, bids, asks), action="update")


def events(said: list[Event] | Rows | Control) -> list[Event]:
    assert isinstance(said, list), said
    return said


def odd(said: list[Event] | Rows | Control) -> str:
    assert isinstance(said, Rows), said
    assert said.events == []
    [reason] = {note.reason for note in said.notes}
    return reason


# ---- trades ---------------------------------------------------------------------------------------------------------


def test_a_trade_is_what_the_taker_did_digit_for_digit() -> None:
    row = trade()
    [event] = events(talk().handle(frame("trades", row), NOW))
    assert event.fields == TradeFields(number("0.12060306"), "buy", "130639474")
    assert (event.channel, event.instrument, event.price) == ("okx_trades", "BTC/USDT", "42219.90")
    assert (event.exchange_ms, event.received_ms, event.order, event.past) == (AT, NOW, 130639474, False)
    assert json.loads(event.data) == row


def test_several_trades_of_one_frame_are_each_an_event_in_order() -> None:
    said = talk().handle(frame("trades", trade(1), trade(2, side="sell"), trade(3)), NOW)
    assert [(event.order, event.fields.side) for event in events(said) if isinstance(event.fields, TradeFields)] == [
        (1, "buy"),
        (2, "sell"),
        (3, "buy"),
    ]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"px": ""}, '`px` is "", not a number'),
        ({"px": "-1"}, '`px` is "-1", below 0'),
        ({"sz": "0"}, '`sz` is "0", not a number above 0'),
        ({"sz": "x"}, '`sz` is "x", not a number above 0'),
        ({"side": "BUY"}, '`side` is "BUY", neither buy nor sell'),
        ({"tradeId": "12a"}, '`tradeId` is "12a", not a whole number'),
        ({"tradeId": ""}, '`tradeId` is "", not a whole number'),
        ({"ts": "yesterday"}, '`ts` is "yesterday", not in milliseconds since 1970'),
        ({"ts": "1765211445"}, "`ts` is 1765211445, not in milliseconds since 1970"),
        ({"instId": "ETH-USDT"}, '`instId` is "ETH-USDT", in a push about BTC-USDT'),
    ],
)
def test_a_trade_that_cannot_be_is_left_out_by_name_and_the_others_go_on(wrong: dict[str, Any], reason: str) -> None:
    assert odd(talk().handle(frame("trades", trade(**wrong)), NOW)) == reason
    said = talk().handle(frame("trades", trade(1), trade(2, **wrong), trade(3)), NOW)
    assert isinstance(said, Rows)
    assert not isinstance(said, Said)
    assert [note.reason for note in said.notes] == [reason]
    assert len(said.events) == 2


# ---- quotes ---------------------------------------------------------------------------------------------------------


def bbo(bid: str = "111.05", ask: str = "111.06", at_ms: int = AT) -> bytes:
    row = {"asks": levels((ask, "55154")), "bids": levels((bid, "57745")), "ts": str(at_ms), "seqId": 363996337}
    return frame("bbo-tbt", row)


def test_a_quote_is_both_best_levels_and_its_price_is_the_middle() -> None:
    [event] = events(talk().handle(bbo(), NOW))
    assert event.fields == QuoteFields(number("111.05"), number("57745"), number("111.06"), number("55154"))
    assert (event.price, event.order, event.exchange_ms) == ("111.055", AT, AT)


def test_an_image_that_is_repeated_is_no_change() -> None:
    conversation = talk()
    said = [conversation.handle(each, NOW) for each in (bbo(), bbo(at_ms=AT + 60_000), bbo(bid="111.04"), bbo())]
    assert [len(events(each)) for each in said] == [1, 0, 1, 1]


def test_a_quote_that_is_crossed_is_no_price_and_the_next_good_one_is_told() -> None:
    """As in a call auction."""
    conversation = talk()
    assert len(events(conversation.handle(bbo(), NOW))) == 1
    said = conversation.handle(bbo(bid="111.060"), NOW)
    assert odd(said) == "not trading: the best bid 111.060 is not below the best ask 111.06"
    assert isinstance(said, Rows)
    assert [note.cause for note in said.notes] == ["halted"]
    assert len(events(conversation.handle(bbo(), NOW))) == 1, "its data comes again, though it was told before"


@pytest.mark.parametrize(("bid", "ask"), [("1e400", "2e400"), ("1", "1e-19"), ("0", "1"), ("x", "1")])
def test_a_quote_that_cannot_be_is_left_out(bid: str, ask: str) -> None:
    assert odd(talk().handle(bbo(bid, ask), NOW))


def test_a_side_may_be_empty() -> None:
    row = {"asks": [], "bids": levels(("1", "2")), "ts": str(AT), "seqId": 1}
    [event] = events(talk().handle(frame("bbo-tbt", row), NOW))
    assert event.fields == QuoteFields(number("1"), number("2"))
    assert event.price == ""


# ---- candles --------------------------------------------------------------------------------------------------------


def candle(*cells: str, confirm: str = "0") -> bytes:
    row = cells or ("1597026360000", "8533.02", "8553.74", "8527.17", "8548.26", "45247", "529.5", "5529.5", confirm)
    return frame("candle1m", list(row))


def test_a_candle_has_its_interval_its_start_and_whether_it_is_closed() -> None:
    [event] = events(talk().handle(candle(confirm="1"), NOW))
    o, h, low, c, v = map(number, ("8533.02", "8553.74", "8527.17", "8548.26", "45247"))
    assert event.fields == CandleFields("1m", 1597026360000, o, h, low, c, v, closed=True)
    assert (event.price, event.order) == ("8548.26", 1597026360000)
    assert json.loads(event.data)["candle"][0] == "1597026360000"


@pytest.mark.parametrize(
    "wrong", [("1",), ("", "1", "1", "1", "1", "1", "1", "1", "0"), ("1597026360000",) + ("x",) * 8]
)
def test_a_candle_that_cannot_be_is_left_out(wrong: tuple[str, ...]) -> None:
    assert odd(talk().handle(candle(*wrong), NOW))


def test_candles_are_asked_for_by_okxs_own_words_on_an_address_of_their_own() -> None:
    channels = [channel("candles", interval=each, name=f"c{each}") for each in ("1m", "1h", "1d")]
    venue = OkxStreams(channels)
    assert [json.loads(request.text)["args"][0]["channel"] for request in venue.subscribe_requests()] == [
        "candle1m",
        "candle1H",
        "candle1Dutc",
    ]
    made = build([*ALL, *channels], Okx(), "tickerd")
    assert [each.name for each in made if not isinstance(each, Feed)] == ["okx-history"]
    assert [(each.name, each.target.address.resource) for each in made if isinstance(each, Feed)] == [
        ("okx", "/ws/v5/public"),
        ("okx-candles", "/ws/v5/business"),
    ]


def test_a_length_that_okx_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"okx_candles: OKX has no candles of '7m', but 1s, 1m, 3m"):
        build([channel("candles", interval="7m")], Okx(), "tickerd")
    utc = {f"{length}utc" for length in ("6H", "12H", "1D", "2D", "3D", "5D", "1W", "1M", "3M")}
    documented = {"1s", "1m", "3m", "5m", "15m", "30m", "1H", "2H", "4H"} | utc
    assert set(INTERVALS.values()) == documented
    assert (INTERVALS["1m"], INTERVALS["1M"]) == ("1m", "1Mutc")


# ---- books ----------------------------------------------------------------------------------------------------------


class Reader:
    """A client: what it has of a book, by the events alone; None while it has been told that it is not right."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, str] | None = None
        self.asks: dict[Decimal, str] = {}

    def take(self, said: list[Event] | Rows | Control) -> None:
        assert isinstance(said, list | Rows), said
        if isinstance(said, Rows) and said.notes:
            assert {note.cause for note in said.notes} == {"gap"}
            self.bids = None
        for event in said if isinstance(said, list) else said.events:
            if isinstance(event.fields, SnapshotFields):
                assert event.fields.reset
                self.bids, self.asks = {}, {}
            if isinstance(event.fields, SnapshotFields | DepthFields):
                assert self.bids is not None, "an update before a snapshot"
                for side, raw in ((self.bids, event.fields.bids), (self.asks, event.fields.asks)):
                    for price, size in msgspec.json.decode(raw, type=list[tuple[str, str]]):
                        if size == "0":
                            del side[Decimal(price)]
                        else:
                            side[Decimal(price)] = size


def test_a_book_begins_with_a_snapshot_and_follows_the_chain_whatever_the_steps() -> None:
    conversation, reader = talk(channel("depth")), Reader()
    for each in (
        snapshot(10),
        update(10, 15, bids=[("9", "0"), ("8.5", "3")]),
        update(15, 15),
        update(15, 3, asks=[("11", "4")]),
        update(3, 5, asks=[("12", "0.10")]),
    ):
        reader.take(conversation.handle(each, NOW))
    assert reader.bids == {Decimal(8): "2", Decimal("8.5"): "3"}
    assert reader.asks == {Decimal(11): "4", Decimal(12): "0.10"}


def test_the_source_of_an_update_names_its_ids_and_its_price_is_the_middle() -> None:
    conversation = talk(channel("depth"))
    conversation.handle(snapshot(10), NOW)
    [event] = events(conversation.handle(update(10, 15, bids=[("9.5", "1")]), NOW))
    assert json.loads(event.data) == {"symbol": "BTC-USDT", "prevSeqId": 10, "seqId": 15}
    assert (event.price, event.exchange_ms, event.order) == ("10.25", AT, None)


def test_a_gap_is_told_at_once_and_only_that_book_is_asked_for_anew() -> None:
    both = channel("depth", "BTC/USDT", "ETH/USDT")
    conversation, reader = talk(both), Reader()
    eth = frame("books", book(-1, 7, [("5", "1")], [("6", "1")]), action="snapshot", inst_id="ETH-USDT")
    reader.take(conversation.handle(snapshot(10), NOW))
    conversation.handle(eth, NOW)
    said = conversation.handle(update(12, 13, bids=[("9", "5")]), NOW)
    assert isinstance(said, Said)
    assert said.events == []
    assert said.needs == [Renew("books0", "the book of BTC-USDT: the update after 12 does not follow 10")]
    assert [(note.instrument, note.cause, note.partial) for note in said.notes] == [("BTC/USDT", "gap", False)]
    assert events(conversation.handle(update(13, 14, bids=[("9", "6")]), NOW)) == []
    more = frame("books", book(7, 9, [("5", "2")]), action="update", inst_id="ETH-USDT")
    assert len(events(conversation.handle(more, NOW))) == 1, "the other one goes on"
    [event] = events(conversation.handle(snapshot(20, bids=[("9", "7")]), NOW))
    assert isinstance(event.fields, SnapshotFields)
    assert bytes(event.fields.bids) == b'[["9","7"]]'


def test_a_renewal_is_a_request_that_ends_it_and_its_answer() -> None:
    [request] = [each for each in OkxStreams([channel("depth")]).subscribe_requests() if each.leave]
    assert json.loads(request.leave) == {**json.loads(request.text), "op": "unsubscribe"}
    said = talk().handle(b'{"id":"books2","event":"unsubscribe","arg":{"channel":"books","instId":"BTC-USDT"}}', NOW)
    assert said == SubscribeEnded("books2")


def test_an_update_that_crosses_a_book_is_a_gap() -> None:
    conversation = talk(channel("depth"))
    conversation.handle(snapshot(10), NOW)
    said = conversation.handle(update(10, 11, bids=[("11", "1")]), NOW)
    assert isinstance(said, Said)
    assert odd(said) == "crossed: the best bid 11 is not below the best ask 11"


def test_a_snapshot_that_is_crossed_is_followed_until_it_is_not() -> None:
    """As in a call auction: asking for it anew would bring the same."""
    conversation, reader = talk(channel("depth")), Reader()
    said = conversation.handle(snapshot(10, bids=[("12", "1")], asks=[("11", "1"), ("13", "1")]), NOW)
    assert not isinstance(said, Said)
    assert odd(said) == "crossed: the best bid 12 is not below the best ask 11, as OKX has it"
    reader.take(said)
    assert events(conversation.handle(update(10, 11, bids=[("1", "1")]), NOW)) == []
    reader.take(conversation.handle(update(11, 12, asks=[("11", "0")]), NOW))
    assert reader.bids == {Decimal(12): "1", Decimal(1): "1"}
    assert reader.asks == {Decimal(13): "1"}


def test_a_book_that_an_auction_crosses_again_and_again_is_asked_for_anew_but_once() -> None:
    conversation, reader = talk(channel("depth")), Reader()
    reader.take(conversation.handle(snapshot(10), NOW))
    said = conversation.handle(update(10, 11, bids=[("11", "1")]), NOW)
    assert isinstance(said, Said)
    assert len(said.needs) == 1
    said = conversation.handle(snapshot(12, bids=[("11", "1"), ("9", "1")]), NOW)
    assert not isinstance(said, Said)
    reader.take(said)
    reader.take(conversation.handle(update(12, 13, bids=[("11", "0")]), NOW))
    assert reader.bids == {Decimal(9): "1"}
    said = conversation.handle(update(13, 14, bids=[("11", "2")]), NOW)
    assert not isinstance(said, Said)
    assert odd(said) == "crossed: the best bid 11 is not below the best ask 11, as OKX has it"
    reader.take(said)
    reader.take(conversation.handle(update(14, 15, bids=[("11", "0"), ("10", "3")]), NOW))
    assert reader.bids == {Decimal(9): "1", Decimal(10): "3"}


def test_two_updates_in_one_frame_are_followed_in_order() -> None:
    conversation, reader = talk(channel("depth")), Reader()
    reader.take(conversation.handle(snapshot(10), NOW))
    rows = book(10, 11, [("9", "4")]), book(11, 12, [("8", "0")])
    reader.take(conversation.handle(frame("books", *rows, action="update"), NOW))
    assert reader.bids == {Decimal(9): "4"}
    said = conversation.handle(frame("books", book(12, 13), book(14, 15), action="update"), NOW)
    assert renewals(said) == 1
    assert isinstance(said, Rows)
    assert [note.reason for note in said.notes] == ["the update after 14 does not follow 13"]


@pytest.mark.parametrize(
    "torn", [update(10, 11)[:-5], update(10, 11).replace(b'"bids"', b'"bids\xff"'), update(10, 11)[:-3]]
)
def test_a_frame_of_a_book_that_is_torn_is_a_gap_at_once(torn: bytes) -> None:
    conversation = talk(channel("depth"), channel("trades"))
    conversation.handle(snapshot(10), NOW)
    said = conversation.handle(torn, NOW)
    assert renewals(said) == 1
    assert "a frame cannot be read" in odd(said)
    with pytest.raises(PayloadError, match="OKX sent"):
        conversation.handle(frame("trades", trade())[:-5], NOW)


ACK = b'{"id":"books0","event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"}}'


def renewals(said: list[Event] | Rows | Control) -> int:
    return len(said.needs) if isinstance(said, Said) else 0


def test_a_book_whose_first_snapshot_got_lost_is_asked_for_anew() -> None:
    conversation = talk(channel("depth"))
    conversation.handle(ACK, NOW)
    said = conversation.handle(update(10, 11), NOW)
    assert renewals(said) == 1
    assert odd(said) == "an update came without a snapshot before it"
    # The venue takes a while to end the subscription, but not for ever.
    assert renewals(conversation.handle(update(11, 12), NOW)) == 0
    assert renewals(conversation.handle(update(12, 13), NOW + SNAPSHOT_MS - 1)) == 0
    said = conversation.handle(update(13, 14), NOW + SNAPSHOT_MS)
    assert renewals(said) == 1
    assert odd(said) == "no snapshot of it came in 90 s"
    assert renewals(conversation.handle(update(11, 12), NOW)) == 0, "it is being ended"
    conversation.handle(ACK, NOW)
    assert renewals(conversation.handle(update(12, 13), NOW)) == 1, "the snapshot of the renewal got lost, too"
    conversation.handle(ACK, NOW)
    assert len(events(conversation.handle(snapshot(14), NOW))) == 1


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize(
    "row", [{**book(-1, 20), "ts": "x"}, book(-1, 20, [("x", "1")]), {"asks": 1}, {**book(-1, 20), "instId": "A-B"}]
)
def test_a_snapshot_that_cannot_be_used_is_asked_for_anew(row: dict[str, object], has_begun: bool) -> None:
    conversation = talk(channel("depth"))
    if has_begun:
        conversation.handle(snapshot(10), NOW)
    conversation.handle(update(12, 13), NOW)
    said = conversation.handle(frame("books", row, action="snapshot"), NOW)
    assert renewals(said) == 1
    assert isinstance(said, Rows)
    assert [note.cause for note in said.notes] == ["gap"]
    assert renewals(conversation.handle(update(20, 21), NOW)) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        frame("books", book(10, 11, [("x", "1")]), action="update"),
        frame("books", book(10, 11, [("1", "-1")]), action="update"),
        frame("books", {**book(10, 11), "bids": [["1"]]}, action="update"),
        frame("books", {**book(10, 11), "bids": None}, action="update"),
        frame("books", {"bids": [], "asks": [], "ts": "1"}, action="update"),
        frame("books", book(10, 11), action="more"),
        frame("books", 7, action="update"),
    ],
)
def test_an_update_that_cannot_be_read_is_a_gap(wrong: bytes) -> None:
    conversation = talk(channel("depth"))
    conversation.handle(snapshot(10), NOW)
    said = conversation.handle(wrong, NOW)
    assert isinstance(said, Said)
    assert [type(need) for need in said.needs] == [Renew]
    assert {note.cause for note in said.notes} == {"gap"}
    again = conversation.handle(wrong, NOW)
    assert not isinstance(again, Said), "it is being renewed already"


def test_the_best_levels_come_as_often_as_they_may_and_the_last_state_in_the_end() -> None:
    conversation = talk(channel("book", levels=1, every_ms=100))
    assert conversation.waits_ms(NOW) is None
    [first] = events(conversation.handle(snapshot(10), NOW))
    assert json.loads(first.data) == {"symbol": "BTC-USDT", "bids": [["9", "1"]], "asks": [["11", "1"]]}
    assert events(conversation.handle(update(10, 11, bids=[("9", "2")]), NOW + 30)) == []
    assert conversation.waits_ms(NOW + 30) == 70
    assert events(conversation.handle(update(11, 12, bids=[("9", "3")]), NOW + 60)) == []
    [last] = conversation.tick(NOW + 100)
    assert json.loads(last.data)["bids"] == [["9", "3"]]
    assert conversation.waits_ms(NOW + 100) is None


def test_a_connection_that_takes_over_restates_its_books() -> None:
    conversation, reader = talk(channel("depth"), channel("book")), Reader()
    assert conversation.restate(NOW) == []
    conversation.handle(snapshot(10), NOW)
    conversation.handle(update(10, 11, bids=[("9", "5")]), NOW)
    reader.take(conversation.restate(NOW))
    assert reader.bids == {Decimal(9): "5", Decimal(8): "2"}


Sides = tuple[dict[str, str], dict[str, str]]


class Frame(NamedTuple):
    """What the venue pushed: its bytes, and which of the venue's states it leads to; `whole` if from any other."""

    payload: bytes
    state: int
    whole: bool


class Machine(RuleBasedStateMachine):
    """A perfect venue, and a line that loses, doubles, delays and reorders frames, and breaks.

    Whoever got every frame up to one has the venue's book as it was then. So the reader's book has to be that one, or
    be said to be lost; and it must be lost from the moment in which a frame comes that does not follow.
    """

    @initialize()
    def begin(self) -> None:
        self.seq = 100_000
        self.restarts = 0
        self.states: list[Sides] = [({"9": "1"}, {"11": "1"})]
        self.reader = Reader()
        self.connect()

    def connect(self) -> None:
        self.conversation = talk(channel("depth"), channel("book"))
        self.way: list[Frame] = []
        """What is late."""
        self.is_renewing = False
        self.is_broken = True
        self.had = -1
        """The state that whoever got all frames has."""
        self.deliver(self.snapshot())

    def snapshot(self) -> Frame:
        bids, asks = (list(side.items()) for side in self.states[-1])
        return Frame(snapshot(self.seq, bids, asks), len(self.states) - 1, whole=True)

    def change(self, data: st.DataObject, *, restarts: bool = False) -> Frame:
        sides: Sides = dict(self.states[-1][0]), dict(self.states[-1][1])
        changes: list[list[tuple[str, str]]] = []
        for side, prices in zip(sides, (["5", "7.50", "8", "9"], ["11", "11.5", "12", "20"]), strict=True):
            some = data.draw(st.dictionaries(st.sampled_from(prices), st.sampled_from(["0", "1", "2.5"]), max_size=2))
            changes.append(list(some.items()))
            side.update(some)
            for price in [price for price, size in side.items() if size == "0"]:
                del side[price]
        before = self.seq
        if restarts:
            self.restarts += 1
            self.seq = 100_000 - 1000 * self.restarts  # below all before, and none that was there
        else:
            self.seq += data.draw(st.integers(1, 9))
        self.states.append(sides)
        return Frame(update(before, self.seq, *changes), len(self.states) - 1, whole=False)

    def deliver(self, frame: Frame) -> None:
        if frame.whole:
            self.had, self.is_broken = frame.state, False
        elif frame.state == self.had + 1:
            self.had += 1
        else:
            self.is_broken = True
        said = self.conversation.handle(frame.payload, NOW)
        self.reader.take(said)
        self.is_renewing |= isinstance(said, Said)

    @rule(data=st.data(), restarts=st.booleans())
    def pushes(self, data: st.DataObject, restarts: bool) -> None:
        self.deliver(self.change(data, restarts=restarts))

    @rule()
    def says_that_nothing_changed(self) -> None:
        said = self.conversation.handle(update(self.seq, self.seq), NOW)
        self.reader.take(said)
        self.is_renewing |= isinstance(said, Said)
        self.is_broken |= self.had != len(self.states) - 1

    @rule(data=st.data(), restarts=st.booleans())
    def loses_one(self, data: st.DataObject, restarts: bool) -> None:
        self.change(data, restarts=restarts)

    @rule(data=st.data())
    def sends_one_twice(self, data: st.DataObject) -> None:
        frame = self.change(data)
        self.deliver(frame)
        self.deliver(frame)

    @rule(data=st.data())
    def delays_one(self, data: st.DataObject) -> None:
        self.way.append(self.change(data))

    @precondition(lambda self: self.way)
    @rule(data=st.data())
    def brings_a_late_one_in_any_order(self, data: st.DataObject) -> None:
        self.deliver(self.way.pop(data.draw(st.integers(0, len(self.way) - 1))))

    @precondition(lambda self: self.is_renewing)
    @rule(is_lost=st.booleans())
    def answers_the_renewal(self, is_lost: bool) -> None:
        self.is_renewing = False
        self.conversation.handle(ACK, NOW)
        if not is_lost:
            self.deliver(self.snapshot())

    @rule()
    def is_cut_and_replaced(self) -> None:
        self.connect()

    @rule()
    def takes_over(self) -> None:
        """Make before break: what the new connection said until now was not used."""
        used, self.reader = self.reader, Reader()
        self.connect()
        self.reader = used
        self.reader.take(self.conversation.restate(NOW))

    @invariant()
    def the_book_is_the_venues_of_then_or_is_said_to_be_lost(self) -> None:
        if not hasattr(self, "reader") or self.reader.bids is None:
            return
        assert not self.is_broken
        sides = ({Decimal(price): size for price, size in side.items()} for side in self.states[self.had])
        assert (self.reader.bids, self.reader.asks) == tuple(sides)

    @invariant()
    def what_is_lost_is_being_renewed(self) -> None:
        """Or will be, as soon as the venue says a word."""
        if hasattr(self, "reader") and self.reader.bids is None:
            assert self.is_renewing or self.conversation._books[0]._must_begin


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30)


def test_what_was_recorded_before_there_were_ids_is_held_to_its_checksum() -> None:
    def old(action: str, bids: Any, sent: int) -> bytes:
        row = {"bids": levels(*bids), "asks": [], "ts": str(AT), "checksum": sent}
        return frame("books", row, action=action)

    conversation = talk(channel("depth"))
    begun = conversation.handle(old("snapshot", [("3366.1", "7")], crc32(b"3366.1:7")), NOW)
    assert len(events(begun)) == 1
    good = crc32(b"3366.1:7:3365:2")
    assert len(events(conversation.handle(old("update", [("3365", "2")], good - (good >> 31 << 32)), NOW))) == 1
    said = conversation.handle(old("update", [("3364", "2")], 5), NOW)
    assert isinstance(said, Said)
    assert odd(said) == "the checksum of the book is not the one that was sent"


def test_the_chain_alone() -> None:
    chain = Chain()
    assert not chain.follows(-1, 3)
    chain.begin(10)
    assert [chain.follows(*pair) for pair in ((10, 15), (15, 15), (15, 3), (3, 5), (9, 10), (10, 11))] == [
        True,
        True,
        True,
        True,
        False,
        False,
    ]


# ---- all of it ------------------------------------------------------------------------------------------------------


def test_each_topic_is_asked_for_once_and_a_refusal_names_its_own() -> None:
    venue = OkxStreams([*ALL, channel("ticker", "BTC/USDT", "ETH/USDT")])
    requests = venue.subscribe_requests()
    assert [request.id for request in requests] == ["trades0", "bbotbt1", "books2", "candle1m3", "tickers4", "tickers5"]
    assert requests[2].channels == ("okx_book", "okx_depth")
    text = "Wrong URL or channel:bbo-tbt,instId:BTC-USDT doesn't exist."
    said = venue.converse().handle(json.dumps({"event": "error", "code": "60018", "msg": text}).encode(), NOW)
    assert said == SubscribeRefused("bbotbt1", "unknown to OKX: BTC/USDT", retry=False)


def test_more_books_than_a_connection_takes_go_over_several_and_a_channel_knows_its_part() -> None:
    names = tuple(f"A{number}/USDT" for number in range(60))
    made = [
        each
        for each in build([channel("depth", *names), channel("trades", *names)], Okx(), "t")
        if isinstance(each, Feed)
    ]
    counts = [
        [json.loads(request.text)["args"][0]["channel"] for request in each.venue.subscribe_requests()] for each in made
    ]
    assert [(topics.count("books"), topics.count("trades")) for topics in counts] == [(28, 0), (28, 0), (4, 60)]
    assert [each.name for each in made] == ["okx", "okx-2", "okx-3"]
    assert [each.channels for each in made] == [(), (), ("okx_trades",)]
    assert sum(len(each.venue.parts["okx_depth"]) for each in made) == 60


async def test_all_connections_together_keep_to_three_connects_a_second(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dials: list[float] = []

    async def dial(*_: object, **__: object) -> trio.abc.Stream:
        dials.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise VenueUnavailable("not here")

    monkeypatch.setattr(connection, "dial", dial)
    names = tuple(f"A{number}/USDT" for number in range(200))
    made = build([channel("depth", *names), channel("candles", *names)], Okx(proxy=""), "tickerd/test")
    feeds = [each for each in made if isinstance(each, Feed)]
    assert len(feeds) == 9

    async def attempt(feed: Connector) -> None:
        with pytest.raises(VenueUnavailable):
            await feed.run(Nobody())

    async with trio.open_nursery() as nursery:
        for feed in feeds:
            nursery.start_soon(attempt, feed)
    assert len(dials) == 9
    assert all(after - before >= 0.999 for before, after in zip(dials, dials[3:], strict=False))


class Nobody:
    """A context that is told nothing of interest."""

    async def publish(self, events: Sequence[Event]) -> None:
        raise AssertionError

    async def report(self, change: StateChange) -> None:
        await trio.lowlevel.checkpoint()

    async def note(self, notes: Sequence[TopicNote]) -> None:
        await trio.lowlevel.checkpoint()

    def now_ms(self) -> int:
        return NOW


@given(
    st.binary(max_size=200) | st.sampled_from([snapshot(), update(10, 11), bbo(), candle(), frame("trades", trade())])
)
def test_whatever_the_bytes_nothing_but_a_payload_error_comes_of_them(payload: bytes) -> None:
    conversation = talk()
    for each in (payload, payload[:-3], payload + b" ", payload.replace(b'"', b"'", 1), payload.replace(b"[", b"", 1)):
        try:
            conversation.handle(each, NOW)
        except PayloadError:
            continue


def mangled(payload: bytes) -> st.SearchStrategy[bytes]:
    whole: Any = json.loads(payload)
    values = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.none(), max_size=2)

    def put(where: tuple[str, Any]) -> bytes:
        key, value = where
        return json.dumps({**whole, "data": [{**whole["data"][0], key: value}]}).encode()

    return st.tuples(st.sampled_from(list(whole["data"][0])), values).map(put)


@given(st.one_of([mangled(each) for each in (snapshot(), bbo(), frame("trades", trade()))]))
def test_a_field_of_any_type_is_an_odd_row_and_no_error(payload: bytes) -> None:
    said = talk().handle(payload, NOW)
    assert isinstance(said, list | Rows)


def crc(bids: list[tuple[Decimal, str, str]], asks: list[tuple[Decimal, str, str]]) -> int:
    """The checksum that OKX sent until June 2026: 25 levels of both sides by turns, signed."""
    parts: list[str] = []
    for rank in range(25):
        for side in (bids, asks):
            if rank < len(side):
                parts += side[rank][1:]
    value = crc32(":".join(parts).encode())
    return value - (1 << 32) if value >= 1 << 31 else value


def test_the_recorded_stream_gives_every_book_with_its_checksum_and_every_trade_once(recorded: Path) -> None:
    conversation = talk(channel("depth"), channel("trades"))
    sides: tuple[dict[Decimal, tuple[str, str]], dict[Decimal, tuple[str, str]]] = {}, {}
    trades: list[tuple[str, str, str, str]] = []
    sent: list[tuple[str, str, str, str]] = []
    checked = 0
    for line in (recorded / "okx_ws_btcusdt_2022-05-13.jsonl").read_text().splitlines():
        text = json.loads(line)["frame"]
        plain = json.loads(text)
        stream = plain.get("arg", {}).get("channel")
        said = conversation.handle(text.encode(), NOW)
        if "data" not in plain or stream == "tickers":
            assert not isinstance(said, list | Rows) or stream == "tickers" or isinstance(said, Ignored)
            continue
        if stream == "trades":
            sent += [(row["tradeId"], row["px"], row["sz"], row["side"]) for row in plain["data"]]
        for event in events(said):
            if isinstance(event.fields, TradeFields):
                size = bytes(event.fields.size).decode()
                trades.append((event.fields.trade_id, event.price, size, event.fields.side))
                continue
            assert isinstance(event.fields, SnapshotFields | DepthFields)
            for side, raw in zip(sides, (event.fields.bids, event.fields.asks), strict=True):
                if isinstance(event.fields, SnapshotFields):
                    side.clear()
                for price, size in json.loads(bytes(raw)):
                    if size == "0":
                        del side[Decimal(price)]
                    else:
                        side[Decimal(price)] = (price, size)
        if stream == "books":
            [row] = plain["data"]
            if "checksum" in row:
                bids, asks = ([(at, *side[at]) for at in sorted(side)] for side in sides)
                assert crc(bids[::-1], asks) == row["checksum"]
                assert (len(bids), len(asks)) == (400, 400), "OKX removes what falls out"
                checked += 1
    assert trades == sent
    assert len(trades) == len(set(trades)) > 60
    assert checked >= 97
