"""What is published of a book: a reader of its events alone has it at each moment, or was told that it is lost."""

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connectors.base import Event, TopicNote
from connectors.books.topic import BookTopic
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields
from protocol.kinds import KINDS
from protocol.messages import middle

T0 = 1_765_211_445_000
Levels = list[list[str]]


def channel(name: str, kind: str, levels: int = 20, every_ms: int = 100) -> Channel:
    return Channel(
        name=name, exchange="x", kind=KINDS[kind], instruments=("BTC/USDT",), levels=levels, every_ms=every_ms
    )


class Reader:
    """A client: it knows the events and nothing else."""

    def __init__(self) -> None:
        self.depth: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        self.top: dict[str, tuple[Levels, Levels]] = {}
        self.told_ms: dict[str, list[int]] = {}
        self.price: dict[str, str] = {}
        self.lost: set[str] = set()

    def read(self, events: list[Event]) -> None:
        for event in events:
            self.lost.discard(event.channel)
            self.price[event.channel] = event.price
            match event.fields:
                case SnapshotFields():
                    assert event.fields.reset
                    assert event.fields.through is msgspec.UNSET
                    self.depth[event.channel] = (
                        dict(json.loads(bytes(event.fields.bids))),
                        dict(json.loads(bytes(event.fields.asks))),
                    )
                case DepthFields():
                    assert event.fields.bids or event.fields.asks
                    for side, changes in zip(
                        self.depth[event.channel], (event.fields.bids, event.fields.asks), strict=True
                    ):
                        for price, quantity in json.loads(bytes(changes)):
                            if quantity == "0":
                                del side[price]
                            else:
                                side[price] = quantity
                case _:
                    data = json.loads(event.data)
                    assert data["symbol"] == "BTCUSDT"
                    self.top[event.channel] = data["bids"], data["asks"]
                    self.told_ms.setdefault(event.channel, []).append(event.received_ms)

    def note(self, notes: list[TopicNote]) -> None:
        for note in notes:
            assert (note.instrument, note.cause, note.partial) == ("BTC/USDT", "gap", False)
            self.lost.add(note.channel)


BIDS = st.lists(st.tuples(st.integers(1, 9).map(str), st.sampled_from(["0", "1", "2.50"])), max_size=4)
ASKS = st.lists(st.tuples(st.integers(10, 19).map(str), st.sampled_from(["0", "1", "2.50"])), max_size=4)
TOPS = {"one": (1, 100), "three": (3, 100), "often": (2, 0), "seldom": (2, 1000)}


class Machine(RuleBasedStateMachine):
    """A connection that has a book, loses it and begins anew, and a clock that goes on, and is set back."""

    @initialize(tops=st.sets(st.sampled_from(sorted(TOPS))), depths=st.integers(0, 2))
    def begin(self, tops: set[str], depths: int) -> None:
        self.names = sorted(tops)
        self.depths = [f"depth{n}" for n in range(depths)]
        channels = [channel(name, "depth") for name in self.depths]
        channels += [channel(name, "book", *TOPS[name]) for name in self.names]
        self.topic = BookTopic("BTC/USDT", "BTCUSDT", channels)
        self.reader = Reader()
        self.now_ms = T0
        self.set_back = False
        assert sorted(self.topic.channels) == sorted(self.names + self.depths)

    @rule(bids=BIDS, asks=ASKS)
    def replaced(self, bids: list[tuple[str, str]], asks: list[tuple[str, str]]) -> None:
        self.topic.book.replace(bids, asks)
        self.reader.told_ms.clear()
        self.reader.read(self.topic.began(self.now_ms, self.now_ms))

    @precondition(lambda self: self.topic.is_whole)
    @rule(bids=BIDS, asks=ASKS)
    def changes(self, bids: list[tuple[str, str]], asks: list[tuple[str, str]]) -> None:
        events = self.topic.changed(self.topic.book.apply(bids, asks), self.now_ms, None)
        assert all(event.received_ms == self.now_ms for event in events)
        self.reader.read(events)

    @rule()
    def loses(self) -> None:
        notes = self.topic.lost("a hole")
        assert [note.reason for note in notes] == ["a hole"] * len(self.topic.channels)
        self.reader.note(notes)

    @rule(later_ms=st.integers(0, 400))
    def waits(self, later_ms: int) -> None:
        """As the session does: sleep for as long as it says, and have it say what is due."""
        until_ms = self.now_ms + later_ms
        while (wait_ms := self.topic.waits_ms(self.now_ms)) is not None and self.now_ms + wait_ms <= until_ms:
            assert 0 <= wait_ms <= max(TOPS[name][1] for name in self.names)
            self.now_ms += int(wait_ms)
            self.reader.read(self.topic.tick(self.now_ms))
            after_ms = self.topic.waits_ms(self.now_ms)
            assert after_ms is None or after_ms > 0, "or it would be asked for ever"
        self.now_ms = until_ms

    @rule()
    def is_asked_early(self) -> None:
        self.reader.read(self.topic.tick(self.now_ms))

    @rule()
    def restates(self) -> None:
        self.reader.told_ms.clear()
        events = self.topic.restate(self.now_ms)
        assert bool(events) == (self.topic.is_whole and bool(self.topic.channels))
        self.reader.read(events)

    @rule(by_ms=st.sampled_from([50, 3_600_000]))
    def clock_is_set_back(self, by_ms: int) -> None:
        self.now_ms -= by_ms
        self.reader.told_ms.clear()

    @invariant()
    def the_reader_has_the_book_or_knows_that_it_has_not(self) -> None:
        topic, reader = self.topic, self.reader
        bids, asks = topic.book.top(99)
        if not topic.is_whole:
            assert all(name in reader.lost for name in topic.channels if name in reader.price)
            assert topic.waits_ms(self.now_ms) is None
            return
        for name in self.depths:
            assert name not in reader.lost
            assert reader.depth[name] == (dict(bids), dict(asks))
            assert reader.price[name] == (middle(bids[0][0], asks[0][0]) if bids and asks else "")
        late = False
        for name in self.names:
            levels, every_ms = TOPS[name]
            now = [list(map(list, side[:levels])) for side in (bids, asks)]
            if reader.top[name] != tuple(now):
                late = True
                told_ms = reader.told_ms.get(name, [])
                assert every_ms
                assert not told_ms or self.now_ms - told_ms[-1] < every_ms or self.is_due()
        if late:
            assert topic.waits_ms(self.now_ms) is not None

    def is_due(self) -> bool:
        """A moment has come and nobody has asked yet."""
        return self.topic.waits_ms(self.now_ms) == 0

    @invariant()
    def nobody_is_told_more_often_than_agreed(self) -> None:
        for name, told_ms in self.reader.told_ms.items():
            assert all(later - earlier >= TOPS[name][1] for earlier, later in pairwise(told_ms))


TestABookTopic = Machine.TestCase


def whole(*channels: Channel) -> BookTopic:
    topic = BookTopic("BTC/USDT", "BTCUSDT", channels)
    topic.book.replace([("10.0", "1")], [("11.00", "2")])
    return topic


def test_a_book_begins_with_its_snapshot_and_its_best_levels() -> None:
    topic = whole(channel("deep", "depth"), channel("top", "book", levels=1))
    snapshot, best = topic.began(T0, T0 - 5, b'{"symbol":"BTCUSDT","u":7}')
    assert isinstance(snapshot.fields, SnapshotFields)
    assert (bytes(snapshot.fields.bids), bytes(snapshot.fields.asks)) == (b'[["10.0","1"]]', b'[["11.00","2"]]')
    assert (snapshot.data, snapshot.price, snapshot.exchange_ms) == (b'{"symbol":"BTCUSDT","u":7}', "10.50", T0 - 5)
    assert best.data == b'{"symbol":"BTCUSDT","bids":[["10.0","1"]],"asks":[["11.00","2"]]}'
    assert (best.price, best.exchange_ms, best.order) == ("10.50", T0 - 5, None)


def test_a_change_is_told_at_once_and_its_best_levels_when_it_is_their_time() -> None:
    topic = whole(channel("deep", "depth"), channel("top", "book", levels=1))
    topic.began(T0, T0)
    [update] = topic.changed(topic.book.apply([("10.0", "3"), ("9", "1")], []), T0 + 40, T0 + 39)
    assert isinstance(update.fields, DepthFields)
    assert bytes(update.fields.bids) == b'[["10.0","3"],["9","1"]]'
    assert (update.data, update.exchange_ms) == (b'{"symbol":"BTCUSDT"}', T0 + 39)
    assert topic.waits_ms(T0 + 40) == 60
    assert topic.tick(T0 + 99) == []
    [best] = topic.tick(T0 + 100)
    assert json.loads(best.data)["bids"] == [["10.0", "3"]]
    assert topic.waits_ms(T0 + 100) is None


def test_best_levels_that_are_as_they_were_are_not_told_again() -> None:
    topic = whole(channel("top", "book", levels=1))
    topic.began(T0, T0)
    assert topic.changed(topic.book.apply([("9", "1")], []), T0 + 500, T0) == []
    topic.changed(topic.book.apply([("10.0", "3")], []), T0 + 510, T0)
    topic.changed(topic.book.apply([("10.0", "1")], []), T0 + 520, T0)
    [best] = topic.tick(T0 + 610)
    assert json.loads(best.data)["bids"] == [["10.0", "1"]]


@pytest.mark.parametrize("kind", ["depth", "book"])
def test_without_changes_nothing_is_told(kind: str) -> None:
    topic = whole(channel("one", kind))
    topic.began(T0, T0)
    assert topic.changed(topic.book.apply([("10.0", "1")], []), T0 + 500, T0) == []
