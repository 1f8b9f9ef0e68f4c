"""A perfect Bybit behind a bad wire: what is published is the venue's book, or was announced not to be.

Frames are lost, doubled, late and torn; connections are cut, and taken over; snapshots come in the midst, and the
service restarts. A reader knows the events and the notes, and nothing else.
"""

import json
from contextlib import suppress

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connectors.base import Event, PayloadError, Rows
from connectors.push.parcels import Parcel
from connectors.push.venue import Control, Reconnect, Renew, Said, SubscribeAck, SubscribeEnded
from connectors.venues.bybit.streams import BybitConversation, BybitStreams
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields
from protocol.kinds import KINDS

TOPIC = "orderbook.50.BTCUSDT"
VENUE = BybitStreams(
    Parcel(
        "bybit",
        tuple(
            Channel(name=name, exchange="bybit", kind=KINDS[name], instruments=("BTC/USDT",), levels=3)
            for name in ("depth", "book")
        ),
        {},
    ),
    depth=50,
)

Sides = tuple[dict[str, str], dict[str, str]]
"""Bids and asks: size by price."""


class Frame(msgspec.Struct):
    """A frame on the wire, and the book that the venue has with it; None for one that is torn."""

    text: bytes
    book: Sides | None
    epoch: int


class Bybit:
    """The venue: one book, its ids, and what it sends."""

    def __init__(self) -> None:
        self.book: Sides = ({"95": "1", "90": "2"}, {"105": "1", "110": "2"})
        self.u = 1000
        self.epoch = 0

    def change(self, levels: list[tuple[int, int]]) -> Frame:
        """Prices below 100 are bids. So it never is crossed."""
        changed: tuple[list[list[str]], list[list[str]]] = ([], [])
        self.book = (dict(self.book[0]), dict(self.book[1]))
        for price, size in dict(levels).items():
            side = 0 if price < 100 else 1
            changed[side].append([str(price), str(size)])
            if size:
                self.book[side][str(price)] = str(size)
            else:
                self.book[side].pop(str(price), None)
        self.u += 1
        return self._frame("delta", *changed)

    def snapshot(self) -> Frame:
        return self._frame("snapshot", *([[price, size] for price, size in side.items()] for side in self.book))

    def restart(self) -> Frame:
        self.u, self.epoch = 1, self.epoch + 1
        return self.snapshot()

    def _frame(self, type_: str, bids: list[list[str]], asks: list[list[str]]) -> Frame:
        data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": self.u, "seq": 10**9 + self.u}
        text = json.dumps({"topic": TOPIC, "ts": 1_791_365_007_116, "type": type_, "data": data}).encode()
        return Frame(text, self.book, self.epoch)


class Connection:
    """One of ours: what is on its way to it, and what is said on it."""

    def __init__(self) -> None:
        self.talk: BybitConversation = VENUE.converse()
        self.wire: list[Frame] = []
        self.is_subscribed = False
        self.wants_renewal = False


class Reader:
    """A client."""

    def __init__(self) -> None:
        self.book: Sides | None = None
        self.top: Sides | None = None
        self.is_lost = True
        self.is_warned = False

    def read(self, said: list[Event] | Rows) -> None:
        # A note of cause `gap` goes out before the events beside it.
        for note in said.notes if isinstance(said, Rows) else ():
            assert note.cause in ("gap", "unreadable")
            self.is_lost = self.is_lost or (note.cause == "gap" and not note.partial)
            self.is_warned = self.is_warned or note.partial
        for event in said.events if isinstance(said, Rows) else said:
            match event.fields:
                case SnapshotFields():
                    self.book = (_levels(event.fields.bids), _levels(event.fields.asks))
                    self.is_lost = self.is_warned = False
                case DepthFields():
                    assert not self.is_lost, "nothing of a book that is lost"
                    assert self.book is not None
                    for side, changes in zip(self.book, (event.fields.bids, event.fields.asks), strict=True):
                        side |= _levels(changes)
                        for price in [price for price, size in side.items() if size == "0"]:
                            del side[price]
                case _:
                    data = json.loads(event.data)
                    self.top = (dict(data["bids"]), dict(data["asks"]))


def _levels(raw: msgspec.Raw) -> dict[str, str]:
    return dict(json.loads(bytes(raw)))


def _top(book: Sides) -> Sides:
    bids, asks = (sorted(side, key=int, reverse=not rising) for rising, side in enumerate(book))
    return {price: book[0][price] for price in bids[:3]}, {price: book[1][price] for price in asks[:3]}


SEVERAL = st.lists(st.tuples(st.integers(90, 99) | st.integers(101, 110), st.integers(0, 3)), max_size=4)


class Machine(RuleBasedStateMachine):
    """One connection, and at times a second one that is to take over."""

    @initialize()
    def begin(self) -> None:
        self.venue = Bybit()
        self.reader = Reader()
        self.now_ms = 1_791_365_007_200
        self.one = Connection()
        self.other: Connection | None = None
        self.subscribe(self.one)

    def subscribe(self, connection: Connection) -> None:
        connection.is_subscribed = True
        connection.wire.append(self.venue.snapshot())

    def send(self, frame: Frame) -> None:
        for connection in (self.one, self.other):
            if connection is not None and connection.is_subscribed:
                connection.wire.append(msgspec.structs.replace(frame))

    def hear(self, connection: Connection) -> None:
        """The next frame arrives."""
        frame = connection.wire.pop(0)
        said: list[Event] | Rows | Control | None = None
        with suppress(PayloadError):
            said = connection.talk.handle(frame.text, self.now_ms)
        if isinstance(said, Said):
            connection.wants_renewal = connection.wants_renewal or any(isinstance(need, Renew) for need in said.needs)
        if connection is not self.one:
            return
        if isinstance(said, list | Rows):
            self.reader.read(said)
        if frame.book is not None and not self.reader.is_lost and not self.reader.is_warned:
            assert self.reader.book == frame.book

    @rule(changes=st.lists(SEVERAL, min_size=1, max_size=4))
    def book_changes(self, changes: list[list[tuple[int, int]]]) -> None:
        for levels in changes:
            self.send(self.venue.change(levels))

    @rule(count=st.integers(1, 5))
    def frames_arrive(self, count: int) -> None:
        for connection in (self.one, self.other):
            for _ in range(min(count, len(connection.wire)) if connection is not None else 0):
                assert connection is not None
                self.hear(connection)

    @precondition(lambda self: len(self.one.wire) > 1)
    @rule(data=st.data(), fault=st.sampled_from(["lost", "doubled", "late", "torn"]))
    def wire_is_bad(self, data: st.DataObject, fault: str) -> None:
        wires = [one.wire for one in (self.one, self.other) if one is not None and one.wire]
        wire = data.draw(st.sampled_from(wires))
        at = data.draw(st.integers(0, len(wire) - 1))
        match fault:
            case "lost":
                del wire[at]
            case "doubled":
                wire.insert(at, wire[at])
            case "torn" if wire[at].text:
                wire[at] = Frame(wire[at].text[: data.draw(st.integers(0, len(wire[at].text) - 1))], None, 0)
            case "late":
                # Not from before a restart of the service: the same ids come again.
                same = [other for other in range(at, len(wire)) if wire[other].epoch == wire[at].epoch]
                wire.insert(data.draw(st.sampled_from(same)), wire.pop(at))

    @rule()
    def venue_sends_a_snapshot(self) -> None:
        self.send(self.venue.snapshot())

    @precondition(lambda self: self.venue.epoch == 0)
    @rule()
    def service_restarts(self) -> None:
        self.send(self.venue.restart())

    @rule()
    def renewal_is_served(self) -> None:
        """Ended, answered, asked for, answered: what was on its way still comes."""
        for connection in (self.one, self.other):
            if connection is not None and connection.wants_renewal:
                connection.wants_renewal = False
                answer = {"success": True, "ret_msg": "", "req_id": "1", "op": "unsubscribe"}
                assert connection.talk.handle(json.dumps(answer).encode(), self.now_ms) == SubscribeEnded(TOPIC)
                answer["op"] = "subscribe"
                assert connection.talk.handle(json.dumps(answer).encode(), self.now_ms) == SubscribeAck(TOPIC)
                connection.wire.append(self.venue.snapshot())

    @rule(seldom=st.integers(0, 4))
    def connection_is_cut(self, seldom: int) -> None:
        """The feed tells that its channels are down, and connects again."""
        if not seldom:
            self.connect_again()

    def connect_again(self) -> None:
        self.reader.is_lost = True
        self.one = Connection()
        self.subscribe(self.one)

    @precondition(lambda self: self.other is None)
    @rule()
    def another_connection_begins(self) -> None:
        self.other = Connection()
        self.subscribe(self.other)

    @precondition(lambda self: self.other is not None)
    @rule()
    def it_takes_over(self) -> None:
        """It restates its books; of those that it has lost, it has told."""
        assert self.other is not None
        self.one, self.other = self.other, None
        said = self.one.talk.restate(self.now_ms)
        if not said:
            self.reader.is_lost = True
        self.reader.read(said)

    @rule(later_ms=st.integers(1, 8_000) | st.integers(1, 800_000))
    def time_passes(self, later_ms: int) -> None:
        self.now_ms += later_ms
        self.say_what_is_due()

    def say_what_is_due(self) -> None:
        for connection in (self.one, self.other):
            if connection is None or connection.talk.waits_ms(self.now_ms) != 0:
                continue
            said = connection.talk.tick(self.now_ms)
            if connection is self.one:
                self.reader.read(said)
            if isinstance(said, Said) and any(isinstance(need, Reconnect) for need in said.needs):
                if connection is self.one:
                    self.connect_again()
                else:
                    self.other = None

    @invariant()
    def never_crossed(self) -> None:
        book = self.reader.book
        if book is not None and not self.reader.is_lost and not self.reader.is_warned and all(book):
            assert max(map(int, book[0])) < min(map(int, book[1]))

    def teardown(self) -> None:
        """The wire is good again: all is well, unless it was said that it is not."""
        if not hasattr(self, "venue"):
            return
        for _ in range(6):
            self.send(self.venue.change([(95, 1), (105, self.venue.u % 7 + 1)]))
            while self.one.wire:
                self.hear(self.one)
            self.renewal_is_served()
            self.now_ms += 5_000
            self.say_what_is_due()
        if not self.reader.is_warned:
            assert not self.reader.is_lost
            assert self.reader.book == self.venue.book
            assert self.reader.top == _top(self.venue.book)


TestBybitsBooks = Machine.TestCase
TestBybitsBooks.settings = settings(max_examples=100, stateful_step_count=50)
