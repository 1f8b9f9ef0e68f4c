"""How a book of Kraken is kept right: rule by rule, and against a perfect venue whose frames are lost on the way."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connectors.base import Event, Rows
from connectors.books.awaited import SNAPSHOT_MS
from connectors.push.venue import Control, Renew, Said
from connectors.venues.kraken.plan import plan
from connectors.venues.kraken.streams import KrakenStreams, KrakenTalk
from connectors.venues.kraken.sync import MISMATCHES, UNVERIFIED
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields
from protocol.kinds import KINDS
from tests.connectors.venues.kraken.perfect_kraken import PerfectBook, Top, digits, instruments

NOW = 1_790_000_000_000
SYMBOLS = ("BTC/USD", "ETH/USD")


def talk(*symbols: str) -> KrakenTalk:
    channels = [
        Channel(name=name, exchange="kraken", kind=KINDS[name], instruments=symbols or SYMBOLS[:1], every_ms=100)
        for name in ("depth", "book")
    ]
    return KrakenStreams(plan(channels)[0]).converse()


def full(symbol: str = SYMBOLS[0], *, style: str = "full") -> PerfectBook:
    """Twelve levels on each side, of which ten are seen."""
    book = PerfectBook(symbol, style=style)
    for step in range(12):
        book.set("bids", 1000 - step, 100_000_000 + step)
        book.set("asks", 1001 + step, 200_000_000 + step)
    return book


def depth(said: list[Event] | Rows | Control) -> list[dict[str, list[list[str]]]]:
    """What is published of the channel `depth`."""
    assert not isinstance(said, Control)
    events = said if isinstance(said, list) else said.events
    return [
        {"bids": msgspec.json.decode(event.fields.bids), "asks": msgspec.json.decode(event.fields.asks)}
        for event in events
        if isinstance(event.fields, DepthFields | SnapshotFields)
    ]


def reason_of(said: list[Event] | Rows | Control) -> str:
    """Why a book is lost: the same for all its channels, and it is asked for anew."""
    assert isinstance(said, Said), said
    assert said.events == []
    [reason] = {note.reason for note in said.notes}
    assert [(note.channel, note.cause, note.partial) for note in said.notes] == [
        ("depth", "gap", False),
        ("book", "gap", False),
    ]
    assert [need.id for need in said.needs if isinstance(need, Renew)] == ["2"]
    return reason


class TestTheRules:
    def test_a_snapshot_begins_the_book(self) -> None:
        perfect = full()
        [published] = depth(talk().handle(perfect.snapshot(), NOW))
        assert published["bids"][0] == ["100.0", "1.00000000"]
        assert len(published["bids"]) == len(published["asks"]) == 10

    def test_an_update_before_it_is_not_for_us(self) -> None:
        perfect = full()
        perfect.snapshot()
        perfect.set("bids", 1000, 7)
        assert talk().handle(perfect.update(), NOW) == []

    def test_what_falls_out_of_the_depth_is_removed_though_the_venue_does_not_say_so(self) -> None:
        perfect, conversation = full(), talk()
        conversation.handle(perfect.snapshot(), NOW)
        perfect.set("bids", 995, 0)
        perfect.update()
        perfect.set("bids", 995, 7)
        conversation.handle(perfect.snapshot(), NOW)
        perfect.set("asks", 1001, 0)
        conversation.handle(perfect.update(), NOW)
        perfect.set("asks", 1001, 9)
        [published] = depth(conversation.handle(perfect.update(), NOW))
        assert published == {"bids": [], "asks": [["100.1", "0.00000009"], ["101.1", "0"]]}

    def test_a_snapshot_that_does_not_come_is_asked_for_again_after_a_while(self) -> None:
        perfect, conversation = full(), talk()
        perfect.snapshot()

        def at(now_ms: int) -> list[Event] | Rows | Control:
            perfect.set("bids", 1000, now_ms)
            return conversation.handle(perfect.update(), now_ms)

        assert at(NOW) == []
        assert at(NOW + SNAPSHOT_MS - 1) == []
        assert reason_of(at(NOW + SNAPSHOT_MS)) == "no snapshot of it came in 90 s"
        assert at(NOW + SNAPSHOT_MS + 1) == []
        assert at(NOW - 5_000) == [], "the clock was set back"
        assert at(NOW + SNAPSHOT_MS - 5_001) == []
        assert reason_of(at(NOW + SNAPSHOT_MS - 5_000)) == "no snapshot of it came in 90 s"

    def test_of_a_price_that_occurs_twice_the_last_one_wins(self) -> None:
        perfect, conversation = full(), talk()
        conversation.handle(perfect.snapshot(), NOW)
        perfect.set("bids", 1000, 7)
        update = perfect.update().replace(b'"bids":[', b'"bids":[{"price":100.0,"qty":3},{"price":100.0,"qty":0},')
        published = depth(conversation.handle(update, NOW))
        assert published[0]["bids"][-1] == ["100.0", "0.00000007"]

    def test_the_checksum_is_in_data_and_so_is_the_time(self) -> None:
        perfect, conversation = full(), talk()
        events = conversation.handle(perfect.snapshot(), NOW)
        assert isinstance(events, list)
        assert msgspec.json.decode(events[0].data) == {
            "symbol": "BTC/USD",
            "checksum": perfect.checksum,
            "timestamp": "2026-11-28T12:00:00.000001Z",
        }
        assert events[0].exchange_ms == 1_795_867_200_000

    @pytest.mark.parametrize("style", ["short", "exponent"])
    def test_numbers_may_be_written_with_as_few_digits_as_will_do(self, style: str) -> None:
        perfect, conversation = full(style=style), talk()
        [published] = depth(conversation.handle(perfect.snapshot(), NOW))
        assert all("e" not in number for side in published.values() for level in side for number in level)
        perfect.set("bids", 1000, 10)
        [published] = depth(conversation.handle(perfect.update(), NOW))
        assert published["bids"][0][1] in ("0.0000001", "0.00000010")

    def test_a_checksum_that_does_not_match_ends_the_book_at_once_and_a_snapshot_mends_it(self) -> None:
        perfect, conversation = full(), talk()
        conversation.handle(perfect.snapshot(), NOW)
        perfect.set("bids", 1000, 7)
        perfect.update()
        perfect.set("asks", 1001, 7)
        reason = reason_of(conversation.handle(perfect.update(), NOW))
        assert reason == f"its checksum is {perfect.checksum} at Kraken, and not here"
        perfect.set("asks", 1001, 8)
        assert conversation.handle(perfect.update(), NOW) == []
        assert conversation.restate(NOW) == []
        [published] = depth(conversation.handle(perfect.snapshot(), NOW))
        assert published["asks"][0] == ["100.1", "0.00000008"]

    def test_a_crossed_book_is_asked_for_anew(self) -> None:
        perfect, conversation = full(), talk()
        conversation.handle(perfect.snapshot(), NOW)
        perfect.bids[1001] = 5
        assert reason_of(conversation.handle(perfect.update(), NOW)) == "it is crossed"
        assert reason_of(conversation.handle(perfect.snapshot(), NOW)) == "its snapshot is crossed"

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"0.00000007", b"-1"),
            (b"0.00000007", b"null"),
            (b"0.00000007", b'"1"'),
            (b"0.00000007", b"1e999"),
            (b'"price":100.0', b'"price":0'),
            (b"2026-11-28T", b"2026-13-28T"),
        ],
    )
    def test_what_cannot_be_read_ends_the_book(self, old: bytes, new: bytes) -> None:
        perfect, conversation = full(), talk()
        snapshot = perfect.snapshot()
        conversation.handle(snapshot, NOW)
        perfect.set("bids", 1000, 7)
        assert "cannot be read" in reason_of(conversation.handle(perfect.update().replace(old, new), NOW))
        perfect.seen = ((), ())
        assert "cannot be read" in reason_of(conversation.handle(perfect.snapshot().replace(old, new), NOW))

    def test_a_book_may_be_empty(self) -> None:
        perfect, conversation = PerfectBook(SYMBOLS[0]), talk()
        assert depth(conversation.handle(perfect.snapshot(), NOW)) == [{"bids": [], "asks": []}]
        perfect.set("bids", 10, 5)
        assert depth(conversation.handle(perfect.update(), NOW)) == [{"bids": [["1.0", "0.00000005"]], "asks": []}]


class TestThePrecision:
    def test_the_list_of_instruments_says_it(self) -> None:
        perfect, conversation = full(style="short"), talk()
        conversation.handle(instruments("BTC/USD"), NOW)
        assert len(depth(conversation.handle(perfect.snapshot(), NOW))) == 1

    def test_a_pair_whose_book_is_finer_than_the_list_says_is_right_all_the_same(self) -> None:
        perfect, conversation = full(style="short"), talk()
        conversation.handle(instruments("BTC/USD", price=0, qty=7), NOW)
        assert len(depth(conversation.handle(perfect.snapshot(), NOW))) == 1
        perfect.set("bids", 1000, 7)
        assert len(depth(conversation.handle(perfect.update(), NOW))) == 1

    def test_what_the_list_says_later_does_not_end_a_book_that_is_right(self) -> None:
        perfect, conversation = full(), talk()
        conversation.handle(perfect.snapshot(), NOW)
        conversation.handle(instruments("BTC/USD", price=3, qty=3), NOW)
        perfect.set("bids", 1000, 7)
        assert len(depth(conversation.handle(perfect.update(), NOW))) == 1


class TestUnverified:
    def wrong(self, payload: bytes, perfect: PerfectBook) -> bytes:
        return payload.replace(b"%d" % perfect.checksum, b"%d" % (perfect.checksum ^ 1))

    def unverified(self) -> tuple[PerfectBook, KrakenTalk]:
        perfect, conversation = full(), talk()
        for _ in range(MISMATCHES - 1):
            said = conversation.handle(self.wrong(perfect.snapshot(), perfect), NOW)
            assert reason_of(said) == "the checksum of its snapshot does not match"
        said = conversation.handle(self.wrong(perfect.snapshot(), perfect), NOW)
        self.is_remarked(said)
        return perfect, conversation

    def is_remarked(self, said: list[Event] | Rows | Control) -> None:
        assert isinstance(said, Said)
        assert {(note.cause, note.reason, note.partial) for note in said.notes} == {("gap", UNVERIFIED, True)}
        assert said.needs == ()
        assert len(depth(said)) == 1

    def test_after_three_in_a_row_it_is_published_unchecked_and_each_frame_says_so(self) -> None:
        perfect, conversation = self.unverified()
        perfect.set("bids", 1000, 7)
        self.is_remarked(conversation.handle(self.wrong(perfect.update(), perfect), NOW))

    def test_a_good_frame_between_begins_the_count_anew(self) -> None:
        perfect, conversation = full(), talk()
        for lots in range(1, 10):
            conversation.handle(self.wrong(perfect.snapshot(), perfect), NOW)
            assert len(depth(conversation.handle(perfect.snapshot(), NOW))) == 1
            perfect.set("bids", 1000, lots)
            reason_of(conversation.handle(self.wrong(perfect.update(), perfect), NOW))

    def test_it_is_for_one_connection_and_one_pair(self) -> None:
        perfect, conversation = full(), talk(*SYMBOLS)
        other = full(SYMBOLS[1])
        for _ in range(MISMATCHES):
            conversation.handle(self.wrong(perfect.snapshot(), perfect), NOW)
        said = conversation.handle(self.wrong(other.snapshot(), other), NOW)
        assert isinstance(said, Said)
        assert not said.events


class Link:
    """One connection on its way: what the venue has sent and we have not received."""

    def __init__(self) -> None:
        self.talk = talk(*SYMBOLS)
        self.on_the_way: list[tuple[str, bytes, Top]] = []


class Machine(RuleBasedStateMachine):
    """A perfect venue, and a wire that loses, doubles, delays and reorders its frames, and breaks.

    After each frame the book that is published equals the venue's at the moment of that frame, or it was announced as
    lost. (A frame that comes late and undoes just what came before it matches its own checksum: that is Kraken's book
    of that moment, and the next change shows it. Kraken numbers nothing, and its websocket keeps the order.)
    """

    @initialize(style=st.sampled_from(["full", "short", "exponent"]), listed=st.booleans())
    def begin(self, style: str, listed: bool) -> None:
        self.venue = {symbol: PerfectBook(symbol, style=style) for symbol in SYMBOLS}
        for book in self.venue.values():
            # More levels than are seen, so that some fall out and others come back.
            book.bids = dict.fromkeys(range(90, 104, 1 if listed else 2), 5)
            book.asks = dict.fromkeys(range(106, 120), 5)
        self.listed = listed
        self.now_ms = NOW
        self.published: dict[str, dict[str, dict[str, str]] | None] = dict.fromkeys(SYMBOLS)
        self.best: dict[str, bytes] = {}
        self.expected: dict[str, Top] = {}
        self.connect()

    def connect(self) -> None:
        """What is published stays as it is, and is announced as lost by whoever runs the connection."""
        self.link = Link()
        self.published = dict.fromkeys(SYMBOLS)
        if self.listed:
            self.link.talk.handle(instruments(*SYMBOLS), self.now_ms)
        for symbol in SYMBOLS:
            self.send(symbol, self.venue[symbol].snapshot())

    def send(self, symbol: str, payload: bytes) -> None:
        self.link.on_the_way.append((symbol, payload, self.venue[symbol].top))

    def receive(self, symbol: str, payload: bytes, top: Top) -> None:
        self.now_ms += 7
        said = self.link.talk.handle(payload, self.now_ms)
        assert not isinstance(said, Control)
        if isinstance(said, Rows):
            for note in said.notes:
                assert (note.cause, note.partial) == ("gap", False)
                self.published[note.instrument] = None
            events, needs = said.events, said.needs if isinstance(said, Said) else ()
        else:
            events, needs = said, ()
        self.take(events)
        self.expected[symbol] = top
        for need in needs:
            assert isinstance(need, Renew)
            # The frames on the way come all the same; then the venue begins anew.
            self.send(symbol, self.venue[symbol].snapshot())

    def take(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.channel == "book":
                self.best[event.instrument] = event.data
                continue
            assert isinstance(event.fields, DepthFields | SnapshotFields)
            if isinstance(event.fields, SnapshotFields):
                self.published[event.instrument] = {"bids": {}, "asks": {}}
            book = self.published[event.instrument]
            assert book is not None, "an update of a book that was announced as lost"
            for side in ("bids", "asks"):
                for price, quantity in msgspec.json.decode(getattr(event.fields, side)):
                    if quantity == "0":
                        book[side].pop(price, None)
                    else:
                        book[side][price] = quantity

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        changes=st.lists(
            st.sampled_from(["bids", "asks"]).flatmap(
                lambda side: st.tuples(
                    st.just(side),
                    st.integers(*((90, 106) if side == "bids" else (104, 120))),
                    st.sampled_from([0, 0, 5, 70, 12345]),
                )
            ),
            min_size=1,
            max_size=6,
        ),
    )
    def change(self, symbol: str, changes: list[tuple[str, int, int]]) -> None:
        book = self.venue[symbol]
        for side, price, lots in changes:
            book.set(side, price, lots)
        if book.top != book.seen:
            self.send(symbol, book.update())

    @precondition(lambda self: self.link.on_the_way)
    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        for _ in range(min(count, len(self.link.on_the_way))):
            self.receive(*self.link.on_the_way.pop(0))

    @precondition(lambda self: self.link.on_the_way)
    @rule(at=st.integers(0, 5))
    def lose(self, at: int) -> None:
        del self.link.on_the_way[min(at, len(self.link.on_the_way) - 1)]

    @precondition(lambda self: self.link.on_the_way)
    @rule()
    def double(self) -> None:
        self.link.on_the_way.insert(0, self.link.on_the_way[0])

    @precondition(lambda self: len(self.link.on_the_way) > 1)
    @rule(at=st.integers(0, 5), by=st.integers(1, 3))
    def delay(self, at: int, by: int) -> None:
        late = self.link.on_the_way.pop(min(at, len(self.link.on_the_way) - 1))
        self.link.on_the_way.insert(at + by, late)

    @rule()
    def cut(self) -> None:
        self.connect()

    @rule()
    def replace(self) -> None:
        """A connection that takes over: its books are restated, and what the old one said does not matter any more."""
        self.connect()
        self.take(self.link.talk.restate(self.now_ms))

    @rule()
    def wait(self) -> None:
        self.now_ms += 100
        said = self.link.talk.tick(self.now_ms)
        assert isinstance(said, list)
        self.take(said)

    @rule()
    def settle(self) -> None:
        """Nothing more happens to the frames; after one more change each book is the venue's."""
        for symbol in SYMBOLS:
            self.change(symbol, [("bids", 91, 0), ("bids", 119, 3), ("asks", 120, 4)])
            self.change(symbol, [("bids", 119, 6), ("asks", 120, 9)])
        while self.link.on_the_way:
            self.receive(*self.link.on_the_way.pop(0))
        for symbol in SYMBOLS:
            if self.published[symbol] is None:
                # The snapshot itself was lost: it is asked for again after a while.
                for lots in (8, 9):
                    self.now_ms += SNAPSHOT_MS
                    self.change(symbol, [("bids", 119, lots)])
                    while self.link.on_the_way:
                        self.receive(*self.link.on_the_way.pop(0))
            assert self.as_numbers(symbol) == self.venue[symbol].top
        self.wait()
        for symbol in SYMBOLS:
            best = msgspec.json.decode(self.best[symbol])
            bids, asks = self.venue[symbol].top
            assert [self.whole(level) for level in best["bids"]] == list(bids)
            assert [self.whole(level) for level in best["asks"]] == list(asks)

    @invariant()
    def what_is_published_is_the_venues_or_announced_as_lost(self) -> None:
        for symbol, book in self.published.items():
            if book is not None:
                assert self.as_numbers(symbol) == self.expected[symbol]

    def as_numbers(self, symbol: str) -> Top:
        book = self.published[symbol]
        assert book is not None
        bids = sorted((self.whole(level) for level in book["bids"].items()), reverse=True)
        return tuple(bids), tuple(sorted(self.whole(level) for level in book["asks"].items()))

    @staticmethod
    def whole(level: Sequence[str]) -> tuple[int, int]:
        price, lots = round(float(level[0]) * 10), round(float(level[1]) * 10**8)
        assert float(level[0]) == float(digits(price, 1))
        return price, lots


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
