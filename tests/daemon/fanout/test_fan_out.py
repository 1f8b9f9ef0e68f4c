"""The fan-out core against a model that is a plain list, whatever clients do and however little their sockets take.

The hub, the tape, the cursors, the intervals, `daemon.fanout.joining`, `protocol.session` and `ClientStream` are the
real ones, and so is TLS; only the system call is not: a client's fake socket takes as many bytes as it has room for.
The state machine runs inside one trio task, so that time is trio's mock clock and nothing happens but what a rule does.

What each client received is judged as it comes in, frame by frame (`Reader`), from the wire's point of view only: the
list of all that was published, the commands the client sent, and the answers it got.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal, TypeAlias

import hypothesis.strategies as st
import msgspec
import pytest
import trio
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from trio.testing import MockClock

from connectors.base import Event, State, StateChange
from daemon.fanout import hub
from daemon.fanout.hub import Hub
from daemon.fanout.joining import Joining
from daemon.fanout.subscriber import State as Place
from daemon.fanout.subscriber import Subscriber
from daemon.front.tls import RECORD_BYTES, TlsStream
from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.ingest.inbox import Item
from daemon.publish import sequencer
from daemon.publish.bus import Bus
from daemon.publish.sequencer import Passes, Sequencer
from daemon.sessions import stream
from daemon.sessions.stream import ClientStream
from daemon.tape import cursor
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Entry, Tape, Topic
from protocol.channels import Catalogue, Channel
from protocol.kinds import KINDS
from protocol.messages import (
    Data,
    Error,
    Format,
    Id,
    Lagged,
    Position,
    Status,
    Subscribe,
    Subscribed,
    Test,
    Unsubscribe,
    Unsubscribed,
    decode_message,
)
from protocol.session import EVERY_MESSAGE, Close, CommandLimits, Join, Leave, Reply, Session, Subscription
from tests.daemon.serving import certificate
from tests.daemon.tape.listed import ListedTape

START_MS: Final = 1_765_211_445_123
ENDLESS: Final = math.inf
LITTLE: Final = 30
"""Bytes that are less than any frame, so that every write tears one."""

CATALOGUE: Final = Catalogue(
    [
        Channel(name="a", exchange="binance", kind=KINDS["prices"], instruments=("X/U", "Y/U")),
        Channel(name="b", exchange="okx", kind=KINDS["ticker"], instruments=("X/U",)),
        Channel(name="m", exchange="coingecko", kind=KINDS["global"], cadence_s=10.0),
    ]
)
TOPICS: Final[tuple[Topic, ...]] = (("a", "X/U"), ("a", "Y/U"), ("b", "X/U"), ("m", ""))
INTERVALS_MS: Final = (100, 1000)

Contexts: TypeAlias = tuple[ssl.SSLContext, ssl.SSLContext]
"""The server's and the client's."""


@dataclass(frozen=True)
class Logged:
    """One line of the model: a published data message (`topic` is None for a status or a test notice)."""

    topic: Topic | None
    number: int
    prev_seq: int


@dataclass
class Log:
    """The model: all that was ever published, in order; line 0 is `seq` 1."""

    lines: list[Logged] = field(default_factory=list)
    listed: ListedTape = field(default_factory=lambda: ListedTape(1, 1))

    @property
    def head(self) -> int:
        return len(self.lines)

    def add(self, topic: Topic | None, number: int) -> None:
        self.lines.append(Logged(topic, number, self.last_seq(topic)))

    def last_seq(self, topic: Topic | None, upto: int | None = None) -> int:
        """The newest message of that topic among the first `upto`; 0 where there is none."""
        for seq in range(self.head if upto is None else min(upto, self.head), 0, -1):
            if self.lines[seq - 1].topic == topic:
                return seq
        return 0

    def between(self, topic: Topic, after: int, before: int) -> list[int]:
        """What was published on that topic, both ends excluded."""
        return [seq for seq in range(after + 1, before) if self.lines[seq - 1].topic == topic]


class MeasuredTape(Tape):
    """The real tape; the model's list learns of each entry."""

    def __init__(self, max_entries: int, max_bytes: int, log: Log) -> None:
        super().__init__(max_entries, max_bytes, epoch="k3v")
        self._log = log

    def append(self, topic: Topic, payload: bytes) -> Entry:
        entry = super().append(topic, payload)
        self._log.listed.add(entry)
        return entry


@dataclass(frozen=True)
class Command:
    """A command that took effect, with what its answer must say."""

    id: Id | None
    channels: tuple[str, ...]
    seq: int
    after: dict[str, Subscription]
    snapshot: bool = True
    since: int = 0
    recovered: dict[str, bool] | None = None
    missed: dict[str, int] = field(default_factory=dict)
    whole: frozenset[Topic] = frozenset()
    """The topics of which everything after `since` was still there."""


def takes(subscriptions: dict[str, Subscription], topic: Topic) -> int | None:
    """The interval at which these subscriptions take that topic, or None where they do not."""
    found = subscriptions.get(topic[0])
    if found is None or (found.instruments is not None and topic[1] not in found.instruments):
        return None
    return found.interval_ms


class Reader:
    """The client's end: takes bytes, finds frames, and judges each message.

    Attributes:
        view: its subscriptions, as far as the answers that came in say.
        had: per topic taken, the `seq` that the next message must name as `prev_seq` (at an interval: be beyond).
        handed_s: per topic, when its last message came.
    """

    def __init__(self, format: Format, log: Log) -> None:
        self.format = format
        self.log = log
        self.expected: list[Command] = []
        self.view: dict[str, Subscription] = {}
        self.had: dict[Topic, int] = {}
        self.handed_s: dict[Topic, float] = {}
        self.states: dict[str, tuple[str, str]] = {}
        self.notice = 0
        self.prompt = True
        """Whether its socket always took everything, so that what comes in was written at this very moment."""
        self.ticking = False
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        self._bytes += data
        for payload in self._frames():
            self._judge(payload)

    @property
    def torn(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._bytes)

    def _frames(self) -> Iterator[bytes]:
        """Whole frames; a server's are unmasked, and ours are never fragmented (RFC 6455 section 5.2)."""
        if self.format is Format.SSE:
            yield from self._events()
            return
        while len(self._bytes) >= 2:
            assert self._bytes[0] == (0x81 if self.format is Format.JSON else 0x82)
            start, size = 2, self._bytes[1]
            assert size < 128
            if size >= 126:
                start = 4 if size == 126 else 10
                if len(self._bytes) < start:
                    return
                size = int.from_bytes(self._bytes[2:start], "big")
            if len(self._bytes) < start + size:
                return
            payload = bytes(self._bytes[start : start + size])
            del self._bytes[: start + size]
            yield payload

    def _events(self) -> Iterator[bytes]:
        """Whole events; of a block that is nothing but an id there is nothing to judge here (`test_event_resume`)."""
        *blocks, rest = bytes(self._bytes).split(b"\n\n")
        self._bytes[:] = rest
        for block in blocks:
            *lines, last = block.split(b"\n")
            assert all(line.startswith(b"id: k3v-") for line in lines), block
            if last.startswith(b"data: "):
                yield last.removeprefix(b"data: ")

    def _judge(self, payload: bytes) -> None:
        message = decode_message(payload, Format.MSGPACK if self.format is Format.MSGPACK else Format.JSON)
        match message:
            case Data():
                self._data(message)
            case Subscribed() | Unsubscribed():
                command = self.expected.pop(0)
                assert (message.id, message.channels, message.seq) == (command.id, command.channels, command.seq)
                if isinstance(message, Subscribed):
                    self._joined(message, command)
                self.view = command.after
                self.had = {topic: had for topic, had in self.had.items() if takes(self.view, topic) is not None}
                self.states = {name: state for name, state in self.states.items() if name in self.view}
            case Lagged():
                self._lagged(message)
            case Status():
                assert message.channel in self.view
                self.states[message.channel] = (message.state, message.reason)
            case Test():
                assert int(message.message) > self.notice, "a notice twice, or out of order"
                self.notice = int(message.message)
            case Error():
                pass
            case _:
                raise AssertionError(f"unexpected: {message}")

    def _data(self, message: Data) -> None:
        instrument = "" if message.instrument is msgspec.UNSET else message.instrument
        topic = (message.connector_id, str(instrument))
        line = self.log.lines[message.seq - 1]
        unpack = msgspec.msgpack.decode if self.format is Format.MSGPACK else msgspec.json.decode
        assert (topic, message.prev_seq) == (line.topic, line.prev_seq)
        assert unpack(bytes(message.data))["n"] == line.number
        interval_ms = takes(self.view, topic)
        assert interval_ms is not None, f"{topic} is not subscribed"
        now_s = trio.current_time()
        if interval_ms == EVERY_MESSAGE:
            assert message.prev_seq == self.had[topic], f"{topic}: {message.prev_seq} after {self.had[topic]}"
        else:
            assert message.seq > self.had[topic], f"{topic}: {message.seq} after {self.had[topic]}"
            if self.prompt:
                assert message.seq == self.log.last_seq(topic), "not the newest"
                if self.ticking and topic in self.handed_s:
                    assert now_s - self.handed_s[topic] >= interval_ms / 1000 - 1e-6, "two within one interval"
        self.had[topic] = message.seq
        self.handed_s[topic] = now_s

    def _joined(self, answer: Subscribed, command: Command) -> None:
        """Which message must be the next on each topic, from here on."""
        assert answer.epoch == "k3v"
        if command.recovered is None:
            assert answer.recovered is msgspec.UNSET
        else:
            assert answer.recovered == command.recovered
            assert (answer.missed or {}) == command.missed
            assert bool(answer.reason) == (not all(command.recovered.values()))
        for topic in TOPICS:
            before, now = takes(self.view, topic), takes(command.after, topic)
            if now is None:
                continue
            newest = self.log.last_seq(topic, command.seq)
            if before is None:
                had = newest
                if topic in command.whole and newest > command.since:
                    had = self.log.last_seq(topic, command.since)
                elif newest and (command.snapshot if command.recovered is None else not command.recovered[topic[0]]):
                    had = self._before(newest)
                self.had[topic] = had
                self.handed_s.pop(topic, None)
            elif before != EVERY_MESSAGE and now == EVERY_MESSAGE and newest > self.had[topic]:
                self.had[topic] = self._before(newest)  # what the interval still owed follows at once

    def _lagged(self, message: Lagged) -> None:
        missed: list[int] = []
        assert isinstance(message.by_channel, dict)
        assert sum(message.by_channel.values()) == message.missed
        for topic in TOPICS:
            if takes(self.view, topic) == EVERY_MESSAGE and topic[0] in message.by_channel:
                newest = self.log.last_seq(topic, message.to_seq)
                if newest > self.had[topic]:
                    missed += self.log.between(topic, self.had[topic], newest)
                    self.had[topic] = self._before(newest)
        kept = {entry.seq for entry in self.log.listed.kept}
        for channel, count in message.by_channel.items():
            here = [seq for seq in missed if (self.log.lines[seq - 1].topic or ("",))[0] == channel]
            assert len(here) == count
            assert not set(here) <= kept, "it need not have lost anything"
        assert message.missed == len(missed) > 0
        assert message.from_seq <= min(missed)
        assert max(missed) <= message.to_seq

    def _before(self, seq: int) -> int:
        return self.log.lines[seq - 1].prev_seq


class NumberedSocket:
    """A socket that has a number and nothing else."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number

    def setsockopt(self, *option: object) -> None:
        """There is nothing to set."""


class Sealing(TlsStream):
    """Both ends of real TLS, in memory: a byte that is missing, or comes too early, is an `ssl.SSLError`."""

    def __init__(self, number: int, contexts: Contexts) -> None:
        transport: Any = SimpleNamespace(socket=NumberedSocket(number))
        super().__init__(transport, contexts[0])
        self._sent = ssl.MemoryBIO()
        self._client = contexts[1].wrap_bio(self._sent, self._incoming, server_hostname="localhost")
        for end in (self._client, self._tls, self._client, self._tls):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
            self._sent.write(self._outgoing.read())

    def encrypt(self, data: bytes | memoryview) -> bytes:
        assert 0 < len(data) <= RECORD_BYTES
        return super().encrypt(data)

    def decrypted(self, data: bytes) -> bytes:
        """What the client reads once these bytes have come to it."""
        self._sent.write(data)
        found = bytearray()
        with suppress(ssl.SSLWantReadError):
            while more := self._client.read(1 << 16):
                found += more
        return bytes(found)


class Client:
    """One connection: the real session state, subscriber and stream over a socket with little room."""

    def __init__(
        self,
        hub_: Hub,
        joining: Joining,
        reader: Reader,
        transport: trio.SocketStream,
        number: int,
        room: float,
        tls: Sealing | None,
    ) -> None:
        self.hub = hub_
        self.joining = joining
        self.reader = reader
        self.room = room
        self.number = number
        self.tls = tls
        self.stream = ClientStream(tls or transport)
        self.stream.fd = -1 if tls else number
        self.stream.on_blocked = lambda: hub_.blocked(self.subscriber)
        self.subscriber = Subscriber(reader.format, self.stream, self._wake)
        limits = CommandLimits(commands_per_s=1e9, commands_burst=10**9, channels_per_command=64, errors_in_a_row=10**9)
        self.session = Session(CATALOGUE, reader.format, limits, trio.current_time())
        self.catching_up = False
        self._flushing = False

    def _wake(self) -> None:
        self.catching_up = True

    def take(self, data: bytes | memoryview) -> int:
        """The system call."""
        assert self._flushing or not self.stream.pending, "written past what was pending"
        taken = int(min(self.room, len(data)))
        self.room -= taken
        if taken < len(data):
            self.reader.prompt = False
        if not taken:
            raise BlockingIOError
        self.reader.feed(bytes(data[:taken]) if self.tls is None else self.tls.decrypted(bytes(data[:taken])))
        return taken

    def step(self) -> None:
        """One step of `Hub.catch_up`: flush what is pending, then take the next from the tape."""
        if not self.catching_up or not self.room:
            return
        if self.stream.pending:
            self._flushing = True
            self.stream._write_pending()  # the step that `flush` repeats, which here must not wait
            self._flushing = False
        if self.stream.pending:
            return
        self.hub.advance(self.subscriber)
        if self.subscriber.state is not Place.BEHIND:
            self.catching_up = False

    @property
    def pending_bytes(self) -> int:
        return sum(map(len, self.stream.pending))

    def catch_up(self) -> None:
        """Read everything."""
        self.room = ENDLESS
        for _ in range(10_000):
            if not self.catching_up:
                return
            self.step()
        raise AssertionError("never caught up")

    def command(self, message: Subscribe | Unsubscribe, timestamp: str) -> Iterator[Join | Leave]:
        """Do what a session does with a command's effects. What took effect is yielded before it is done."""
        raw: str | bytes = msgspec.msgpack.encode(message)
        if self.reader.format is not Format.MSGPACK:
            raw = msgspec.json.encode(message).decode()
        for effect in self.session.receive(raw, trio.current_time(), timestamp):
            match effect:
                case Reply(reply):
                    self.subscriber.say(reply)
                case Join():
                    yield effect
                    self.joining.join(self.subscriber, self.session, effect)
                case Leave():
                    yield effect
                    self.joining.leave(self.subscriber, self.session, effect)
                case Close():
                    raise AssertionError(effect)


Since = Literal["none", "kept", "any", "tail", "before the tail", "gone", "before that", "beyond", "foreign"]

few_channels = st.lists(st.sampled_from(("a", "b", "m", "*")), min_size=1, max_size=3, unique=True)
rooms = st.one_of(st.sampled_from((ENDLESS, 0)), st.integers(1, LITTLE), st.integers(LITTLE, 1500))
several_rooms = st.lists(st.one_of(st.none(), rooms), max_size=3)
"""For the first clients: how much room their sockets have from now on; None leaves it as it is."""
data = st.tuples(st.sampled_from(TOPICS), st.sampled_from((0, 0, 0, 90, 130, 700, 66_000)))
sinces = st.sampled_from(
    ("none", "none", "kept", "any", "any", "tail", "before the tail", "gone", "before that", "beyond", "foreign")
)
some_interval = st.sampled_from((None, None, *INTERVALS_MS))
changes = st.tuples(
    st.sampled_from(CATALOGUE.names), st.sampled_from(("live", "stale", "down")), st.sampled_from(("", "because"))
)


@dataclass(frozen=True)
class Arrival:
    """A client that connects, and its first command."""

    format: Format
    tls: bool
    room: float
    channels: list[str]
    interval_ms: int | None
    since: Since
    back: int


arrivals = st.builds(
    Arrival,
    st.sampled_from(Format),
    st.sampled_from((False, False, True)),
    rooms,
    few_channels,
    some_interval,
    sinces,
    st.integers(0, 12),
)


class FanOut(RuleBasedStateMachine):
    """Clients that come and go, read or do not, subscribe and resume, while the hub publishes."""

    def __init__(
        self, clock: MockClock, transport: trio.SocketStream, sockets: dict[int, Client], contexts: Contexts
    ) -> None:
        super().__init__()
        self.contexts = contexts
        self.clock = clock
        self.transport = transport
        self.by_fd = sockets
        self.by_fd.clear()
        self.log = Log()
        self.open: list[Client] = []
        self.states = dict.fromkeys(CATALOGUE.names, ("connecting", ""))
        self.count = 0
        self.position = 0

    @initialize(
        max_entries=st.integers(1, 24),
        max_bytes=st.sampled_from((700, 4000, 10**7)),
        published=st.lists(data, max_size=12),
        first=st.lists(arrivals, min_size=1, max_size=3),
    )
    def start(self, max_entries: int, max_bytes: int, published: list[tuple[Topic, int]], first: list[Arrival]) -> None:
        # An example must not depend on those before it: each begins at the same moment of every interval.
        self.clock.jump(1000 - trio.current_time() % 1000)
        wall = WallClock(lambda: START_MS * 1_000_000)
        self.log.listed = ListedTape(max_entries, max_bytes)
        self.tape = MeasuredTape(max_entries, max_bytes, self.log)
        ledger, board, bus = Ledger(), Board(CATALOGUE, START_MS), Bus()
        self.sequencer = Sequencer(self.tape, board, ledger, wall, bus, Passes())
        self.hub = Hub(self.tape, ledger, wall, self._write)
        bus.add(self.hub)
        self.joining = Joining(self.tape, self.hub, board, ledger, wall)
        self.sequencer.publish([[self._event(topic, pad) for topic, pad in published]])
        for arrival in first:
            self.connect(arrival)

    def _write(self, fd: int, data: bytes) -> int:
        return self.by_fd[fd].take(data)

    def _number(self) -> int:
        self.count += 1
        return self.count

    # ---- clients come and go ----------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.open) < 4)
    @rule(arrival=arrivals)
    def connect(self, arrival: Arrival) -> None:
        number = self._number()
        reader = Reader(arrival.format, self.log)
        reader.notice = max((line.number for line in self.log.lines if line.topic is None), default=0)
        tls = Sealing(number, self.contexts) if arrival.tls else None
        client = Client(self.hub, self.joining, reader, self.transport, number, arrival.room, tls)
        self.by_fd[number] = client
        self.open.append(client)
        self.hub.attach(client.subscriber)
        since = self._since(arrival.since, arrival.back)
        self._subscribe(client, Subscribe(arrival.channels, None, arrival.interval_ms, True, since, self._number()))

    def _disconnect(self, client: Client) -> None:
        self.position = max(client.reader.had.values(), default=0)
        self.hub.detach(client.subscriber)
        self.by_fd.pop(client.number, None)  # a write to it from now on is a KeyError
        client.stream.close_writing()
        self.open.remove(client)

    # ---- sockets ----------------------------------------------------------------------------------------------------

    @property
    def behind(self) -> list[Client]:
        return [client for client in self.open if client.catching_up]

    @precondition(lambda self: self.behind)
    @rule(which=st.integers(0, 3), room=rooms, flushed=st.booleans(), steps=st.sampled_from((1, 2, 10_000)))
    def catch_up(self, which: int, room: float, flushed: bool, steps: int) -> None:
        """A client that is behind reads that much, or that much more than is pending; its catch-up task goes on."""
        client = self.behind[which % len(self.behind)]
        client.room = room + (client.pending_bytes if flushed else 0)
        for _ in range(steps):
            if not client.catching_up or not client.room:
                return
            client.step()

    # ---- what is published ------------------------------------------------------------------------------------------

    def _make_room(self, several: list[float | None]) -> None:
        for client, room in zip(self.open, several, strict=False):
            if room is not None:
                client.room = room

    @rule(
        batch=st.lists(st.one_of(st.lists(data, min_size=1, max_size=6), changes), min_size=1, max_size=4),
        several=several_rooms,
        notice=st.booleans(),
    )
    def publish(
        self, batch: list[list[tuple[Topic, int]] | tuple[str, State, str]], several: list[float | None], notice: bool
    ) -> None:
        self._make_room(several)
        items: list[Item] = []
        for each in batch:
            if isinstance(each, list):
                items.append([self._event(topic, pad) for topic, pad in each])
            else:
                channel, state, reason = each
                items.append(StateChange(channel, state, reason))
                if self.states[channel] != (state, reason):
                    self.states[channel] = (state, reason)
                    self.log.add(None, 0)
        self.sequencer.publish(items)
        if notice:
            self._notice()
        assert self.tape.head == self.log.head

    @rule(topic=st.sampled_from(TOPICS), count=st.integers(1, 6), several=several_rooms)
    def publish_one_by_one(self, topic: Topic, count: int, several: list[float | None]) -> None:
        self._make_room(several)
        for _ in range(count):
            self.sequencer.publish([[self._event(topic, 0)]])

    def _event(self, topic: Topic, pad: int) -> Event:
        number = self._number()
        self.log.add(topic, number)
        body = msgspec.json.encode({"n": number, "pad": "." * pad})
        return Event(*topic, data=body, received_ms=START_MS, price=f"{number}.50" if topic[1] else "")

    def _notice(self) -> None:
        number = self._number()
        self.log.add(None, number)
        self.sequencer.broadcast_test(str(number))
        assert self.hub.statistics().subscribers == len(self.open)

    @rule(seconds=st.sampled_from((0.001, 0.01, 0.05, 0.11, 0.95, 1.0, 2.5)), several=several_rooms)
    def wait(self, seconds: float, several: list[float | None]) -> None:
        """Time passes: the timer of the intervals goes off, and whoever reads catches up."""
        self._make_room(several)
        until_s = trio.current_time() + seconds
        while (due_s := self.hub.intervals.next_due_s) <= until_s:
            self.clock.jump(max(0.0, due_s - trio.current_time()))
            for client in self.open:
                client.reader.ticking = True
            self.hub.intervals.tick(max(due_s, trio.current_time()))
            for client in self.open:
                client.reader.ticking = False
                if client.room == ENDLESS:
                    client.catch_up()
        self.clock.jump(max(0.0, until_s - trio.current_time()))

    # ---- commands ---------------------------------------------------------------------------------------------------

    @rule(
        which=st.integers(0, 3),
        channels=few_channels,
        instruments=st.sampled_from((None, None, ["X/U"], ["Y/U"], ["X/U", "Y/U"])),
        interval_ms=some_interval,
        snapshot=st.booleans(),
        since=sinces,
        back=st.integers(0, 12),
    )
    def subscribe(
        self,
        which: int,
        channels: list[str],
        instruments: list[str] | None,
        interval_ms: int | None,
        snapshot: bool,
        since: Since,
        back: int,
    ) -> None:
        client, position = self.open[which % len(self.open)], self._since(since, back)
        self._subscribe(client, Subscribe(channels, instruments, interval_ms, snapshot, position, self._number()))

    def _since(self, since: Since, back: int) -> Position | None:
        head = self.log.head
        seq = {
            "kept": self.position,
            "any": max(0, head - back),
            "tail": max(0, self.tape.tail - 1),
            "before the tail": max(0, self.tape.tail - 2),
            "gone": self.tape.gone_of("a"),
            "before that": max(0, self.tape.gone_of("a") - 1),
            "beyond": head + 1 + back,
        }.get(since, head)
        return None if since == "none" else Position("another" if since == "foreign" else "k3v", seq)

    def _subscribe(self, client: Client, message: Subscribe) -> None:
        for effect in client.command(message, "2025-12-08T16:30:45.123Z"):
            after = dict(client.session.subscriptions)
            command = Command(message.id, effect.channels, self.log.head, after, message.snapshot)
            if message.since is not None:
                command = self._recovery(command, message.since)
            client.reader.expected.append(command)

    def _recovery(self, command: Command, since: Position) -> Command:
        """What the answer must say about a position: topic by topic, whether a message after it has left the tape."""
        known = since.epoch == "k3v" and since.seq <= self.log.head
        recovered = dict.fromkeys(command.channels, known)
        missed: dict[str, int] = {}
        whole: set[Topic] = set()
        for topic in TOPICS:
            if topic[0] not in command.channels or takes(command.after, topic) is None:
                continue
            later = self.log.between(topic, since.seq, self.log.head + 1)
            if not known:
                continue
            if len(later) < 2 or set(later) <= {entry.seq for entry in self.log.listed.kept}:
                whole.add(topic)
            else:
                recovered[topic[0]] = False
                missed[topic[0]] = missed.get(topic[0], 0) + len(later) - 1
        return replace(command, since=since.seq, recovered=recovered, missed=missed, whole=frozenset(whole))

    @rule(which=st.integers(0, 3), channels=st.one_of(st.none(), few_channels, few_channels))
    def leave(self, which: int, channels: list[str] | None) -> None:
        """A client unsubscribes, or disconnects."""
        if channels is None:
            if len(self.open) > 1:
                self._disconnect(self.open[which % len(self.open)])
            return
        client, number = self.open[which % len(self.open)], self._number()
        for effect in client.command(Unsubscribe(channels, number), "2025-12-08T16:30:45.123Z"):
            after = dict(client.session.subscriptions)
            client.reader.expected.append(Command(number, effect.channels, self.log.head, after))

    # ---- what must hold ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.behind)
    @rule()
    def drain(self) -> None:
        """Everybody reads. Then everybody has everything."""
        for client in self.open:
            client.catch_up()
        self.wait(2 * max(INTERVALS_MS) / 1000, [])
        for client in self.open:
            client.catch_up()
            reader = client.reader
            assert not reader.expected, "a command was not answered"
            assert not reader.torn
            assert client.subscriber.cursor is None
            for topic in TOPICS:
                if takes(reader.view, topic) is not None:
                    assert reader.had[topic] == self.log.last_seq(topic), f"{topic}: the newest did not come"
            assert reader.states == {name: self.states[name] for name in reader.view}

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """Whoever has something to come is served by the passes or by a catch-up task, never by both or neither."""
        for client in self.open:
            behind = client.subscriber.state is Place.BEHIND
            assert behind or client.subscriber.state is Place.CAUGHT_UP
            assert behind == (client.subscriber.cursor is not None)
            assert behind or not client.stream.pending
            assert client.catching_up == behind
            assert behind == (client.subscriber.group is None)

    @invariant()
    def memory_is_bounded(self) -> None:
        if self.open:
            assert self.tape.size_bytes == self.log.listed.size_bytes
            assert list(self.tape.between(0, self.tape.head)) == self.log.listed.kept

    def teardown(self) -> None:
        if not hasattr(self, "hub"):
            return
        self.drain()
        notices = [line.number for line in self.log.lines if line.topic is None and line.number]
        for client in tuple(self.open):
            assert not notices or client.reader.notice == notices[-1]
            self._disconnect(client)
        self.wait(2 * max(INTERVALS_MS) / 1000, [])
        assert self.hub.statistics().subscribers == self.hub.statistics().groups == len(self.hub.intervals) == 0
        assert not any(self.hub._routes.values())
        assert self.hub.intervals.next_due_s == math.inf


async def test_every_client_gets_what_the_contract_promises(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem, key = certificate(tmp_path)
    contexts = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context(cafile=str(pem))
    contexts[0].load_cert_chain(pem, key)
    sockets: dict[int, Client] = {}

    def write(fd: int, data: bytes | memoryview) -> int:
        return sockets[fd].take(data)

    monkeypatch.setattr(stream, "os", SimpleNamespace(write=write))
    # Small enough for every limit to be met all the time.
    monkeypatch.setattr(stream, "_WRITE_BYTES", 500)
    monkeypatch.setattr(stream, "RECORD_BYTES", 300)
    monkeypatch.setattr(cursor, "SCAN_AT_MOST", 4)
    monkeypatch.setattr(cursor, "CHUNK_ENTRIES", 3)
    monkeypatch.setattr(hub, "_CHUNK_BYTES", 1500)
    monkeypatch.setattr(sequencer, "_HAND_OVER_BYTES", 1500)
    near, far = socket.socketpair()
    with far:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(near)) as transport:

            class Machine(FanOut):
                def __init__(self) -> None:
                    super().__init__(mock_clock, transport, sockets, contexts)

            more = settings(max_examples=3 * settings().max_examples, stateful_step_count=40)
            run_state_machine_as_test(Machine, settings=more)
