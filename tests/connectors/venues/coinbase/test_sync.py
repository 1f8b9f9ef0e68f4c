"""Coinbase's books: rule by rule, and against a perfect venue whose frames are lost, doubled, late or spoilt."""

from collections.abc import Sequence

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.books.topic import BookTopic
from connectors.push.venue import Control, Reconnect, Renew, Said, Several, SubscribeEnded
from connectors.venues.coinbase.continuity import SPAN_MS
from connectors.venues.coinbase.plan import plan
from connectors.venues.coinbase.products import product_of
from connectors.venues.coinbase.streams import CoinbaseStreams
from connectors.venues.coinbase.sync import CROSSED_MS, CoinbaseBook
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields
from protocol.kinds import KINDS
from tests.connectors.venues.coinbase.perfect_coinbase import Ladders, PerfectCoinbase, Sent

NOW = 1_775_572_202_800
INSTRUMENTS = ("BTC/USD", "BTC/USDC", "ETH/USD")
TOP = 3


def channels(*instruments: str) -> list[Channel]:
    """The whole book, and its best levels."""
    return [
        Channel(name=name, exchange="coinbase", kind=KINDS[name], instruments=instruments, levels=TOP, every_ms=100)
        for name in ("depth", "book")
    ]


def one() -> CoinbaseBook:
    """A book of BTC/USD, with a level on each side."""
    book = CoinbaseBook(BookTopic("BTC/USD", "BTC-USD", channels("BTC/USD")), "level2 BTC/USD")
    assert book.snapshot([("99", "1")], [("101", "1")], NOW, None)
    return book


def changes(events: Sequence[Event]) -> list[tuple[list[list[str]], list[list[str]]]]:
    """Bids and asks of each event of the whole book."""
    return [
        (msgspec.json.decode(event.fields.bids), msgspec.json.decode(event.fields.asks))
        for event in events
        if isinstance(event.fields, DepthFields | SnapshotFields)
    ]


def test_a_crossed_book_is_not_published_and_what_changed_goes_out_when_it_is_uncrossed() -> None:
    book = one()
    assert book.update([("102", "2")], [], NOW, None) == []
    assert book.update([("99", "5")], [], NOW + 1, None) == []
    assert book.is_published is False
    assert book.tick(NOW + 500) == []
    said = book.update([], [("101", "0"), ("103", "1")], NOW + 600, None)
    assert changes(said) == [([["102", "2"], ["99", "5"]], [["101", "0"], ["103", "1"]])]
    assert [event.channel for event in said] == ["depth", "book"]
    assert book.crossed_for_ms(NOW + 700) is None


def test_a_book_is_crossed_for_as_long_as_it_is_whatever_changes() -> None:
    book = one()
    book.update([("102", "2")], [], NOW, None)
    book.update([("102", "3")], [], NOW + 400, None)
    assert book.crossed_for_ms(NOW + 900) == 900
    assert book.waits_ms(NOW + 900) == CROSSED_MS - 900
    assert book.waits_ms(NOW + 2 * CROSSED_MS) == 0
    assert book.crossed_for_ms(NOW - 5) == CROSSED_MS


def test_a_crossed_snapshot_is_no_book() -> None:
    book = CoinbaseBook(BookTopic("BTC/USD", "BTC-USD", channels("BTC/USD")), "level2 BTC/USD")
    assert book.snapshot([("101", "1")], [("101", "1")], NOW, None) is None
    assert not book.topic.is_whole


def test_a_book_that_was_lost_while_it_was_crossed_begins_anew_by_its_next_snapshot() -> None:
    book = one()
    book.update([("102", "2")], [], NOW, None)
    assert {note.channel for note in book.lost("why")} == {"depth", "book"}
    assert book.is_renewed
    assert book.crossed_for_ms(NOW) is None
    assert changes(book.snapshot([("98", "1")], [("103", "1")], NOW, None) or []) == [([["98", "1"]], [["103", "1"]])]
    assert not book.is_renewed


LEVELS = st.lists(
    st.tuples(st.sampled_from(["bid", "offer"]), st.integers(1, 6), st.sampled_from(["0", "0.00", "1", "2.50"])),
    min_size=1,
    max_size=3,
)


ODD = [
    (b'"new_quantity":"', b'"new_quantity":"x'),
    (b'"new_quantity":"', b'"new_quantity":["'),
    (b'"side":"', b'"side":"un'),
    (b'"price_level":"', b'"price_level":"-'),
    (b'"price_level":', b'"price":'),
    (b'"type":"update"', b'"type":"news"'),
]
"""What spoils one product's update; the connection is still good for the others."""

UNREADABLE = [
    (b'"sequence_num"', b'"number"'),
    (b'"events":[', b'"events":[7,'),
    (b'"events":', b'"event":'),
    (b"}", b""),
    (b'"product_id"', b'"product"'),
]
"""What spoils a frame so that nobody knows whose it was."""


class LossyWay(RuleBasedStateMachine):
    """A perfect venue, the connector, and a way between them on which everything happens to frames.

    `state` is what the venue's books were at the newest frame that arrived. Each topic is published as that, or was
    announced as lost.
    """

    @initialize()
    def begin(self) -> None:
        self.venue = PerfectCoinbase("BTC-USD", "ETH-USD")
        for product in self.venue.books:
            self.venue.change(product, ("bid", "99", "1"), ("offer", "101", "1"))
        self.now_ms = NOW
        self.feed = CoinbaseStreams(plan(channels(*INSTRUMENTS))[0])
        self.rebuilt: dict[str, Ladders] = {}
        self.tops: dict[str, tuple[list[list[str]], list[list[str]]]] = {}
        self.lost: set[tuple[str, str]] = set()
        self.is_quick = False
        self.connect(wait_ms=0)

    def connect(self, wait_ms: int) -> None:
        """A connection has been cut; after a while there is another."""
        self.venue.wires.clear()
        self.now_ms += wait_ms
        self.talk = self.feed.converse()
        self.wire = self.venue.connect()
        self.newest = -1
        self.state: dict[str, Ladders] = {}
        self.is_doubted = False
        self.is_clean = True
        self.had: list[Sent] = []
        self.lost = {(name, instrument) for name in ("depth", "book") for instrument in INSTRUMENTS}
        self.requests = {request.id: request for request in self.feed.subscribe_requests()}
        for request in self.requests.values():
            self.venue.hear(self.wire, request.text)
        self.is_quick = not self.is_quick
        if self.is_quick:
            self.deliver(100)

    @rule(product=st.sampled_from(["BTC-USD", "ETH-USD"]), moves=LEVELS)
    def change(self, product: str, moves: list[tuple[str, int, str]]) -> None:
        """The venue's book changes, and never is crossed."""
        levels = [(side, str(100 - place if side == "bid" else 100 + place), size) for side, place, size in moves]
        self.venue.change(product, *levels)

    @rule(product=st.sampled_from(["BTC-USD", "ETH-USD"]), moves=LEVELS)
    def tell(self, product: str, moves: list[tuple[str, int, str]]) -> None:
        """It changes, and that arrives."""
        self.change(product, moves)
        self.deliver(100)

    @rule()
    def beat(self) -> None:
        """A second has passed."""
        self.now_ms += 1000
        self.venue.beat()

    @precondition(lambda self: self.wire.sent)
    @rule(count=st.sampled_from([1, 2, 100]))
    def deliver(self, count: int) -> None:
        """Frames arrive."""
        wire = self.wire
        for _ in range(count):
            if wire is self.wire and wire.sent:
                self.arrive(wire.sent.pop(0))

    @precondition(lambda self: self.had)
    @rule(back=st.integers(1, 12))
    def repeat(self, back: int) -> None:
        """A frame that had arrived arrives again."""
        self.arrive(self.had[-min(back, len(self.had))])

    @precondition(lambda self: self.wire.sent)
    @rule()
    def lose(self) -> None:
        """A frame is lost."""
        self.wire.sent.pop(0)
        self.is_clean = False

    @precondition(lambda self: len(self.wire.sent) > 1)
    @rule(by=st.integers(1, 3))
    def delay(self, by: int) -> None:
        """A frame is overtaken by others."""
        self.wire.sent.insert(by, self.wire.sent.pop(0))
        self.is_clean = False

    @rule(product=st.sampled_from(["BTC-USD", "ETH-USD"]), moves=LEVELS, spoilt=st.sampled_from(ODD))
    def spoil(self, product: str, moves: list[tuple[str, int, str]], spoilt: tuple[bytes, bytes]) -> None:
        """The venue's book changes, and what it says of that is not what Coinbase documents."""
        before = len(self.wire.sent)
        self.change(product, moves)
        if len(self.wire.sent) > before:  # else its book is being asked for anew
            self.replace(spoilt)

    @rule(moves=LEVELS, spoilt=st.sampled_from(UNREADABLE), at_once=st.booleans())
    def garble(self, moves: list[tuple[str, int, str]], spoilt: tuple[bytes, bytes], at_once: bool) -> None:
        """The same, and nobody can say whose it was."""
        before = len(self.wire.sent)
        self.change("BTC-USD", moves)
        if len(self.wire.sent) > before:
            self.replace(spoilt)
            self.is_clean = False
        if at_once:
            self.deliver(100)

    def replace(self, spoilt: tuple[bytes, bytes]) -> None:
        """Something else stands in the frame that was sent last."""
        frame = self.wire.sent[-1]
        assert spoilt[0] in frame.payload
        self.wire.sent[-1] = frame._replace(payload=frame.payload.replace(*spoilt, 1))

    @rule(wait_ms=st.sampled_from([1000, SPAN_MS // 2, SPAN_MS]))
    def cut(self, wait_ms: int) -> None:
        """The connection is cut."""
        self.connect(wait_ms)

    @rule(wait_ms=st.sampled_from([50, 100, 5_000, SPAN_MS]))
    def wait(self, wait_ms: int) -> None:
        """Time passes, and what is due is said."""
        self.now_ms += wait_ms
        due_ms = self.talk.waits_ms(self.now_ms)
        if due_ms is not None and due_ms <= 0:
            self.take(self.talk.tick(self.now_ms))

    def arrive(self, frame: Sent) -> None:
        """One frame at the connector."""
        before = self.newest, self.state
        self.had.append(frame)
        if frame.number > self.newest:
            self.newest, self.state = frame.number, frame.books
        try:
            said = self.talk.handle(frame.payload, self.now_ms)
        except PayloadError:
            self.newest, self.state = before
            return
        self.take(said)

    def take(self, said: list[Event] | Rows | Control) -> None:
        """What the session does with it."""
        if isinstance(said, Rows):
            for note in said.notes:
                self.note(note)
            for need in said.needs if isinstance(said, Said) else ():
                match need:
                    case Renew():
                        self.venue.hear(self.wire, self.requests[need.id].leave)
                    case Reconnect():
                        self.connect(1000)
                        return
            for control in said.controls if isinstance(said, Said) else ():
                self.take(control)
            said = said.events
        match said:
            case list():
                for event in said:
                    self.publish(event)
            case SubscribeEnded():
                self.venue.hear(self.wire, self.requests[said.id].text)
            case Several():
                for single in said.controls:
                    self.take(single)

    def note(self, note: TopicNote) -> None:
        if note.cause == "gap" and note.partial:
            self.is_doubted = True
        elif note.cause == "gap":
            self.lost.add((note.channel, note.instrument))

    def publish(self, event: Event) -> None:
        """What a client makes of it."""
        self.lost.discard((event.channel, event.instrument))
        if event.channel == "book":
            top = msgspec.json.decode(event.data)
            self.tops[event.instrument] = (top["bids"], top["asks"])
            return
        fields = event.fields
        assert isinstance(fields, DepthFields | SnapshotFields)
        if isinstance(fields, SnapshotFields):
            self.rebuilt[event.instrument] = {"bid": {}, "offer": {}}
        for side, levels in (("bid", fields.bids), ("offer", fields.asks)):
            ladder = self.rebuilt[event.instrument][side]
            for price, size in msgspec.json.decode(levels):
                if float(size) == 0:
                    ladder.pop(price)
                else:
                    ladder[price] = size

    @invariant()
    def what_is_published_is_what_the_venue_has_or_was_announced_as_lost(self) -> None:
        if not hasattr(self, "talk") or self.is_doubted:
            return
        for instrument in INSTRUMENTS:
            if ("depth", instrument) not in self.lost:
                assert self.rebuilt[instrument] == self.state[product_of(instrument)], instrument
            if ("book", instrument) not in self.lost and self.talk.waits_ms(self.now_ms) is None:
                both = self.state[product_of(instrument)]
                best = sorted(both["bid"].items(), reverse=True, key=lambda level: float(level[0]))[:TOP]
                asks = sorted(both["offer"].items(), key=lambda level: float(level[0]))[:TOP]
                assert self.tops[instrument] == ([list(each) for each in best], [list(each) for each in asks])

    @invariant()
    def nothing_is_lost_for_ever(self) -> None:
        """Once all has arrived on a connection without a fault, everything is published."""
        if hasattr(self, "talk") and self.is_clean and not self.wire.sent:
            assert self.lost == set()


TestLossyWay = LossyWay.TestCase
TestLossyWay.settings = settings(stateful_step_count=50)
