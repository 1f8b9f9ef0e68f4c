"""Books on the tape: whoever joins, lags, resumes or comes late ends with the book of whoever was there from the start.

The tape, its file, the sequencer, the hub and `daemon.fanout.joining` are the real ones, with tiny tapes and keyframes
that are due all the time. The venue is a model: it knows each book after each message. Clients rebuild theirs by a few
lines of their own; `daemon.client.Book` is compared with these.
"""

import json
import math
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from msgspec import Raw

from connectors.base import Event, StateChange, TopicNote
from daemon.client.core.book import Book
from daemon.fanout.subscriber import State
from daemon.host.clock import WallClock
from daemon.ingest.inbox import TopicNotes
from daemon.publish import keyframes
from daemon.publish.sequencer import known_topics
from daemon.tape.archive import Archive
from daemon.tape.tape import Tape, Topic
from protocol.channels import Catalogue, Channel
from protocol.fields import DepthFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from protocol.messages import DepthSnapshot, DepthUpdate, Format, Position, decode_message, number
from tests.daemon.fanout.sink import START_MS, Client, Fan
from tests.daemon.sessions.event_source import EventSource

CATALOGUE = Catalogue(
    [
        Channel(name="d", exchange="binance", kind=KINDS["depth"], instruments=("X/U", "Y/U")),
        Channel(name="e", exchange="okx", kind=KINDS["depth"], instruments=("X/U",)),
        Channel(name="t", exchange="okx", kind=KINDS["trades"], instruments=("X/U",)),
    ]
)
BOOKS: tuple[Topic, ...] = (("d", "X/U"), ("d", "Y/U"), ("e", "X/U"))
TRADES: Topic = ("t", "X/U")

Sides = tuple[dict[str, str], dict[str, str]]
Levels = list[tuple[str, str]]


def event(topic: Topic, fields: DepthFields | SnapshotFields) -> Event:
    return Event(*topic, data=b'{"symbol":"XU"}', received_ms=START_MS, price="1.5", fields=fields)


def raw(levels: Levels) -> Raw:
    return Raw(json.dumps(levels).encode())


def begins(topic: Topic, sides: Sides) -> Event:
    bids, asks = ordered(sides)
    return event(topic, SnapshotFields(raw(bids), raw(asks)))


def changes(topic: Topic, bids: Levels, asks: Levels) -> Event:
    return event(topic, DepthFields(raw(bids), raw(asks)))


def trade(name: int) -> Event:
    fields = TradeFields(number("1"), "buy", str(name))
    return Event(*TRADES, data=b"{}", received_ms=START_MS, price="1.5", fields=fields)


def ordered(sides: Sides) -> tuple[Levels, Levels]:
    bids, asks = sides
    return (
        sorted(bids.items(), key=lambda level: -float(level[0])),
        sorted(asks.items(), key=lambda level: float(level[0])),
    )


def changed(sides: Sides, bids: Levels, asks: Levels) -> Sides:
    new = dict(sides[0]), dict(sides[1])
    for side, levels in zip(new, (bids, asks), strict=True):
        for price, quantity in levels:
            side.pop(price, None)
            if quantity != "0":
                side[price] = quantity
    return new


@dataclass
class Seen:
    """What one client has made of the messages of one book."""

    sides: Sides | None = None
    last: int = 0
    book: Book = field(default_factory=Book)

    def forget(self) -> None:
        self.sides, self.last, self.book = None, 0, Book()

    def take(self, message: dict[str, Any]) -> None:
        bids, asks = ([(p, q) for p, q in message[side]] for side in ("bids", "asks"))
        if message["type"] == "depth_snapshot":
            assert message["prev_seq"] == message.get("through", message["prev_seq"])
            assert message.get("reset", False) == ("through" not in message)
            self.sides, self.last = (dict(bids), dict(asks)), message.get("through", message["seq"])
            assert (bids, asks) == ordered(self.sides), "not best first"
        elif message["seq"] > self.last and self.sides is not None:
            assert message["prev_seq"] == self.last, "a change is missing, and nobody said so"
            self.sides, self.last = changed(self.sides, bids, asks), message["seq"]
        decoded = decode_message(json.dumps(message), Format.JSON)
        assert isinstance(decoded, DepthSnapshot | DepthUpdate)
        self.book.take(decoded)
        assert self.book.is_whole == (self.sides is not None)
        if self.sides is not None:
            assert (self.book.bids, self.book.asks) == ordered(self.sides)


@dataclass
class User:
    """Somebody who comes and goes, and keeps books.

    Attributes:
        since: per channel, where it resumes: the `seq` of the newest message, where its books are whole.
        got: the positions of what came one by one since it came, and `owed`: beyond which all is to come, per topic.
        missed: how many it was told that will not come, per channel, since it came.
    """

    format: Format
    channels: tuple[str, ...]
    client: Client | None = None
    source: EventSource = field(default_factory=EventSource)
    epoch: str = ""
    since: dict[str, int] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    books: dict[Topic, Seen] = field(default_factory=dict)
    got: list[int] = field(default_factory=list)
    owed: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)

    @property
    def topics(self) -> list[Topic]:
        return [topic for topic in (*BOOKS, TRADES) if topic[0] in self.channels]


prices = st.sampled_from([f"{price}.5" for price in range(1, 9)])
quantities = st.sampled_from(("0", "1", "2.50"))
levels = st.lists(st.tuples(prices, quantities), max_size=3, unique_by=lambda level: level[0])
full = st.dictionaries(prices, st.sampled_from(("1", "3")), max_size=5)
topics = st.sampled_from(BOOKS)
which = st.integers(0, 2)
rooms = st.sampled_from((math.inf, math.inf, 0, 700, 1200))
lives = st.sampled_from(("store", "store", "wait", "wait", "lose", "go", "stop", "kill"))
acts = st.one_of(
    st.tuples(st.just("change"), topics, st.lists(st.tuples(levels, levels), min_size=2, max_size=6)),
    st.tuples(st.just("change"), topics, st.lists(st.tuples(levels, levels), min_size=1, max_size=6)),
    st.tuples(st.just("trade"), st.integers(1, 12)),
    st.tuples(st.just("begin"), topics, full, full),
    st.tuples(st.just("stall"), which, st.sampled_from((0, 0, 100, 500, 1500))),
    st.tuples(st.just("catch_up"), which),
    st.tuples(st.just("trickle"), which, st.integers(100, 3000)),
    st.tuples(st.just("come"), which, st.booleans(), rooms),
    st.tuples(
        st.just("live"), st.sampled_from(("store", "store", "wait", "wait", "lose", "go", "stop", "kill")), topics
    ),
)
"""What can happen. One rule does many: rules of their own would take turns too evenly for a tape to turn over."""


class Books(RuleBasedStateMachine):
    """Users, a venue with three books, and a daemon that is restarted."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.runs, self.number = folder, 0, 0
        self.path = folder / "tape"
        self.sent: dict[str, dict[int, Topic]] = {}
        """Per epoch, all messages that came one by one: by position the topic."""
        self.after: dict[tuple[str, Topic], dict[int, Sides]] = {}
        """Per epoch and book, what it was after each message."""
        self.users: list[User] = []

    @initialize(
        max_entries=st.integers(1, 25),
        max_bytes=st.sampled_from((1500, 4000, 10**6)),
        several=st.lists(
            st.tuples(
                st.sampled_from((Format.JSON, Format.SSE, Format.JSON)),
                st.sampled_from((("d",), ("d", "t"), ("t", "e"), ("d", "e", "t"))),
            ),
            min_size=1,
            max_size=3,
        ),
    )
    def start(self, max_entries: int, max_bytes: int, several: list[tuple[Format, tuple[str, ...]]]) -> None:
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._open()
        for topic in BOOKS:
            self._begin(topic, {"2.5": "1"}, {"3.5": "1"})
        self.users = [User(format, channels) for format, channels in several]
        for each in range(len(several)):
            self._come(each, False, math.inf)

    def fan_of(self, tape: Tape) -> Fan:
        """Who serves the users."""
        return Fan(tape=tape, catalogue=CATALOGUE)

    def _open(self) -> None:
        self.now_ms = START_MS
        self.archive = Archive.open(self.path, self.max_entries, self.max_bytes, WallClock(), 1000)
        tape = self.archive.tape
        tape.forget(known_topics(CATALOGUE))
        self.fan = self.fan_of(tape)
        self.fan.sequencer.publish([StateChange(name, "live") for name in CATALOGUE.names])
        self.began: dict[Topic, Sides | None] = dict.fromkeys(BOOKS)
        """The books of this run, None while they are not right."""
        self.known: set[Topic] = set()
        """Those that were right at some time in this run."""
        self.runs += 1

    # ---- the venue ------------------------------------------------------------------------------------------------

    def _publish(self, topic: Topic, event: Event, sides: Sides | None = None) -> None:
        self.fan.sequencer.publish([[event]])
        newest = self.fan.tape.newest(topic)
        assert newest is not None
        self.sent.setdefault(self.fan.tape.epoch, {})[newest.seq] = topic
        if sides is not None:
            self.began[topic] = sides
            self.known.add(topic)
            self.after.setdefault((self.fan.tape.epoch, topic), {})[newest.seq] = sides
        self._read_all()

    @rule(several=st.lists(acts, min_size=4, max_size=24))
    def happen(self, several: list[tuple[Any, ...]]) -> None:
        for what, *how in several:
            getattr(self, f"_{what}")(*how)
            self._check_snapshots()

    def _begin(self, topic: Topic, bids: dict[str, str], asks: dict[str, str]) -> None:
        self._publish(topic, begins(topic, (bids, asks)), (bids, asks))

    def _change(self, topic: Topic, several: list[tuple[Levels, Levels]]) -> None:
        for bids, asks in several:
            sides = self.began[topic]
            if sides is not None:
                self._publish(topic, changes(topic, bids, asks), changed(sides, bids, asks))

    def _lose(self, topic: Topic) -> None:
        """A gap at the venue: nothing comes until it begins anew."""
        if self.began[topic] is not None:
            self.began[topic] = None
            self.fan.sequencer.publish([TopicNotes((TopicNote(*topic, "gap", "torn"),))])
            self._read_all()

    def _trade(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self._publish(TRADES, trade(self.number))

    # ---- the daemon's life ----------------------------------------------------------------------------------------

    def _live(self, how: str, topic: Topic) -> None:
        match how:
            case "wait":
                self.fan.now_ms += 11_000
            case "store":
                self.archive.store()
            case "lose":
                self._lose(topic)
            case "go":
                self._part()
            case "stop":
                self._part()
                self.archive.finish()
                self._open()
            case _:
                self._part()
                copy = self.folder / f"tape{self.runs}"
                for ending in ("", "-wal"):
                    if Path(f"{self.path}{ending}").exists():
                        shutil.copy(f"{self.path}{ending}", f"{copy}{ending}")
                self.archive._let_go()
                self.path = copy
                self._open()

    # ---- the users ------------------------------------------------------------------------------------------------

    def _come(self, which: int, resumes: bool, room: float) -> None:
        user = self.users[which % len(self.users)]
        if user.client is not None:
            self._leave(user)
        user.client = self.fan.connect(user.format, room=room, tls=user.format is Format.SSE)
        user.missed, user.got, user.owed = {}, [], {}
        if user.format is Format.SSE:
            user.source = EventSource(user.source.last_id if resumes else "")
            epoch, _, seq = user.source.last_id.rpartition("-")
            since = Position(epoch, int(seq)) if seq else None
            if since is None:
                self._forget(user, user.channels)
            user.client.subscribe(*user.channels, since=since)
        else:
            for channel in user.channels:
                known = user.since.get(channel) if resumes and self._may_resume(user, channel) else None
                since = None if known is None else Position(user.epoch, known)
                if since is None:
                    self._forget(user, (channel,))
                user.client.subscribe(channel, since=since)
        self._read(user)

    def _may_resume(self, user: User, channel: str) -> bool:
        """Not where the rest of a state may not have come."""
        return channel == "t" or user.since.get(channel, 0) > user.told.get(channel, 0)

    def _forget(self, user: User, channels: tuple[str, ...]) -> None:
        for channel in channels:
            user.since.pop(channel, None)
        for topic in user.topics:
            if topic[0] in channels:
                user.books[topic] = Seen()

    def _stall(self, which: int, room: int) -> None:
        """It takes so many bytes, and then nothing."""
        user = self.users[which % len(self.users)]
        if user.client is not None:
            user.client.sink.room = room

    def _trickle(self, which: int, room: int) -> None:
        """It takes so many bytes more, wherever that cuts what it is sent, and then nothing."""
        user = self.users[which % len(self.users)]
        if user.client is None:
            return
        sink, subscriber = user.client.sink, user.client.subscriber
        sink.room = room
        while sink.room:
            while sink.pending and sink.room:
                part = bytes(sink.pending.pop(0))
                if (taken := sink._take(part)) < len(part):
                    sink.pending.insert(0, part[taken:])
            if sink.pending or subscriber.state is not State.BEHIND:
                break
            self.fan.hub.advance(subscriber)
        sink.room = 0
        self._read(user)

    def _catch_up(self, which: int) -> None:
        user = self.users[which % len(self.users)]
        if user.client is not None:
            user.client.catch_up()
            self._read(user)
            self._is_right(user)

    def _part(self) -> None:
        for user in self.users:
            if user.client is not None:
                self._leave(user)

    def _leave(self, user: User) -> None:
        assert user.client is not None
        self._read(user)
        self.fan.hub.detach(user.client.subscriber)
        user.client = None

    # ---- what a user makes of it ----------------------------------------------------------------------------------

    def _read_all(self) -> None:
        for user in self.users:
            if user.client is not None:
                self._read(user)
                if math.isinf(user.client.sink.room) and user.client.subscriber.cursor is None:
                    self._is_right(user)

    def _read(self, user: User) -> None:
        assert user.client is not None
        for message in _messages(user.client, user.source):
            self._take(user, message)

    def _take(self, user: User, message: dict[str, Any]) -> None:
        if message["type"] == "subscribed":
            user.epoch = message["epoch"]
            recovered, missed = message.get("recovered", {}), message.get("missed", {})
            for channel in message["channels"]:
                assert missed.get(channel, 1) > 0
                if recovered.get(channel):
                    continue
                user.told[channel] = message["seq"]
                self._forget(user, (channel,))
                if channel not in recovered or channel != TRADES[0]:  # stored ones may follow of these
                    user.owed[channel] = message["seq"]
        elif message["type"] == "lagged":
            for channel, count in message["by_channel"].items():
                user.missed[channel] = user.missed.get(channel, 0) + count
                user.told[channel] = message["to_seq"]
        elif "connector_id" in message:
            topic = message["connector_id"], message["instrument"]
            user.since[topic[0]] = max(user.since.get(topic[0], 0), message["seq"])
            if "through" not in message:
                assert message["seq"] not in user.got, "twice"
                user.got.append(message["seq"])
            if topic != TRADES:
                user.books.setdefault(topic, Seen()).take(message)
                self._is_consistent(topic, user.books[topic])

    def _is_consistent(self, topic: Topic, seen: Seen) -> None:
        """A user's book is always one that was published."""
        if seen.sides is not None:
            assert seen.sides == self.after[self.fan.tape.epoch, topic][seen.last]

    def _is_right(self, user: User) -> None:
        """A user that has all there is has each book as it was published last, and knows how many messages it lacks."""
        assert user.client is not None
        sent = self.sent.get(self.fan.tape.epoch, {})
        for topic in user.topics:
            if topic == TRADES:
                continue
            seen, published = user.books.get(topic, Seen()), self.after.get((self.fan.tape.epoch, topic), {})
            if topic in self.known:
                assert seen.last == max(published)
                assert seen.sides == published[seen.last]
        for channel, beyond in user.owed.items():
            mine = {seq for seq, topic in sent.items() if topic[0] == channel and seq > beyond}
            came = mine & set(user.got)
            assert len(mine - came) == user.missed.get(channel, 0), "a wrong count"

    def _check_snapshots(self) -> None:
        """What is shown over HTTP is the book."""
        for topic in self.known:
            seen = Seen()
            for payload in self.fan.tape.payloads(*topic):
                seen.take(json.loads(payload))
            published = self.after[self.fan.tape.epoch, topic]
            assert (seen.last, seen.sides) == (max(published), published[max(published)])

    def teardown(self) -> None:
        if hasattr(self, "archive"):
            self.archive._let_go()


def _messages(client: Client, source: EventSource) -> list[dict[str, Any]]:
    """What has come whole since the last call."""
    sink = client.sink
    if client.subscriber.format is Format.SSE:
        before = len(source.messages)
        source.feed(sink.taken)
        sink.taken = b""
        return source.messages[before:]
    found, data = [], sink.taken
    while len(data) > 1:
        start = {126: 4, 127: 10}.get(data[1], 2)
        size = data[1] if start == 2 else int.from_bytes(data[2:start], "big")
        if len(data) < start + size or len(data) < start:
            break
        found.append(json.loads(data[start : start + size]))
        data = data[start + size :]
    sink.taken = data
    return found


def test_everybody_ends_with_the_book_of_who_was_there_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyframes, "UPDATES", 4)

    class Machine(Books):
        def __init__(self) -> None:
            super().__init__(Path(tempfile.mkdtemp(dir=tmp_path)))

    run_state_machine_as_test(Machine, settings=settings(stateful_step_count=6))


@pytest.mark.parametrize("lags", [True, False])
def test_an_event_stream_has_no_position_in_the_midst_of_a_state_of_several_messages(lags: bool) -> None:
    """Who is cut off there would resume without the books that had not come yet."""
    fan = Fan(max_entries=8, catalogue=CATALOGUE)
    client = fan.connect(Format.SSE, tls=True)
    source = EventSource()
    if lags:
        client.subscribe("d")
        source.feed(client.sink.taken)
        client.sink.taken, client.sink.room = b"", 0
    fan.sequencer.publish([[begins(topic, ({"1.5": "1" * 400}, {})) for topic in BOOKS]])
    fan.sequencer.publish([[changes(BOOKS[0], [("1.5", "2")], []) for _ in range(9)]])
    fan.sequencer.publish([[changes(BOOKS[1], [("1.5", "3")], [])]])
    if not lags:
        client.subscribe("d", since=Position("k3v", 1))
    client.catch_up()
    before = len(source.messages), source.last_id
    source.feed(client.sink.taken)
    came = list(zip(source.messages, source.ids, strict=True))[before[0] :]
    books = [(message, last_id) for message, last_id in came if message["type"].startswith("depth")]
    assert {message["instrument"] for message, _ in books} == {"X/U", "Y/U"}
    assert {last_id for _, last_id in books} <= {before[1], "k3v-1"}, "beyond what came in order"
    assert source.last_id == f"k3v-{fan.tape.head}"
