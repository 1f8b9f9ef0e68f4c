"""An event stream may break at any byte: what came and what comes after the return is everything, once, in order.

The tape, the hub and `daemon.fanout.joining` are the real ones; the model is the list of what was published. A browser
has nothing but the id of the last event, so that is all that a user here brings along.
"""

import urllib.parse

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from trio.testing import MockClock

from connectors.base import State, StateChange
from daemon.front.event_request import judge
from daemon.front.http import Request
from daemon.tape import cursor
from daemon.tape.tape import Topic
from protocol.messages import Format
from protocol.session import CommandLimits, Join, Reply
from tests.daemon.fanout.sink import CATALOGUE, Client, Fan
from tests.daemon.sessions.event_source import EventSource, Message

TIMESTAMP = "2025-12-08T16:30:45.123Z"
LIMITS = CommandLimits(commands_per_s=1, commands_burst=1, channels_per_command=64, errors_in_a_row=20)
TOPICS: tuple[Topic, ...] = (("a", "X/U"), ("a", "Y/U"), ("b", "X/U"))
A, A2, B = TOPICS


def open_stream(fan: Fan, last_id: str, query: str = "channels=*", *, tls: bool = False, room: float = 10**9) -> Client:
    """A client that comes (back) with that id."""
    fields = tuple(urllib.parse.parse_qsl(query))
    headers = (("last-event-id", last_id),) if last_id else ()
    request = Request(method="GET", path="/events", query=fields, headers=headers, peer="127.0.0.1")
    asked = judge(request, CATALOGUE, LIMITS, 0.0, TIMESTAMP)
    client = fan.connect(Format.SSE, tls=tls, room=room)
    for effect in asked.effects:
        if isinstance(effect, Reply):
            client.subscriber.say(effect.message)
        elif isinstance(effect, Join):
            fan.joining.join(client.subscriber, asked.state, effect)
    return client


class User:
    """Somebody whose connection breaks again and again.

    Attributes:
        had: per topic, the newest message that came.
        free: topics of which something was announced as missing, or that begin afresh: the next message may be any.
        repeats: topics of which the snapshot, on this connection, may repeat what came before.
    """

    def __init__(self, sent: dict[int, tuple[Topic, int]], query: str) -> None:
        self.sent = sent
        self.query = query
        self.source = EventSource()
        self.client: Client | None = None
        self.had: dict[Topic, int] = {}
        self.free: set[Topic] = set()
        self.repeats: set[Topic] = set()

    def read(self, most: int | None = None) -> None:
        """Take what the socket has, or so many bytes of it."""
        assert self.client is not None
        sink = self.client.sink
        data = sink.taken if most is None else sink.taken[:most]
        sink.taken = sink.taken[len(data) :]
        before = len(self.source.messages)
        self.source.feed(data)
        for message in self.source.messages[before:]:
            self._judge(message)

    def _judge(self, message: Message) -> None:
        match message["type"]:
            case "price_update":
                self._data(message)
            case "subscribed":
                self._joined(message)
            case "lagged":
                self.free |= set(TOPICS)
            case kind:
                assert kind in ("status", "test"), message

    def _joined(self, message: Message) -> None:
        if "recovered" not in message:
            self.had = {topic: self.newest(topic, message["seq"]) for topic in TOPICS}
            self.free = self.repeats = set(TOPICS) if "snapshot=false" not in self.query else set()
            return
        lost = {topic for topic in TOPICS if not message["recovered"].get(topic[0], True)}
        self.repeats = lost
        self.free = self.free | lost

    def _data(self, message: Message) -> None:
        topic, seq = (message["connector_id"], message["instrument"]), message["seq"]
        assert self.sent[seq] == (topic, message["prev_seq"])
        assert seq > self.had[topic] or topic in self.repeats, f"{seq} of {topic} twice or late: had {self.had[topic]}"
        if "interval_ms" not in self.query and topic not in self.free:
            assert message["prev_seq"] == self.had[topic], f"{seq} of {topic}: missing before it, had {self.had[topic]}"
        self.had[topic] = max(seq, self.had[topic])
        self.free = self.free - {topic}
        self.repeats = self.repeats - {topic}

    def newest(self, topic: Topic, upto: int) -> int:
        return max((seq for seq, (of, _) in self.sent.items() if of == topic and seq <= upto), default=0)


class Breaking(RuleBasedStateMachine):
    """A hub, and one event stream that is cut and comes back."""

    def __init__(self, clock: MockClock) -> None:
        super().__init__()
        self.clock = clock

    @initialize(
        max_entries=st.sampled_from((3, 6, 12, 100)),
        query=st.sampled_from(
            ("channels=*", "channels=*", "channels=a,b&snapshot=false", "channels=*&interval_ms=100")
        ),
        before=st.lists(st.sampled_from(TOPICS), max_size=6),
    )
    def start(self, max_entries: int, query: str, before: list[Topic]) -> None:
        self.clock.jump(1000 - trio.current_time() % 1000)
        self.fan = Fan(max_entries)
        self.tape = self.fan.tape
        self.sent: dict[int, tuple[Topic, int]] = {}
        self.user = User(self.sent, query)
        self._publish(before)

    def _publish(self, topics: list[Topic]) -> None:
        for topic in topics:
            self.sent[self.tape.head + 1] = (topic, self.tape.last_seq(topic))
            self.fan.publish(topic)

    @rule(topics=st.lists(st.sampled_from(TOPICS), min_size=1, max_size=5))
    def publish(self, topics: list[Topic]) -> None:
        self._publish(topics)

    @rule(channel=st.sampled_from(("a", "b")), state=st.sampled_from(("live", "stale", "down")), notice=st.booleans())
    def say(self, channel: str, state: State, notice: bool) -> None:
        """What stands on the tape and is no data."""
        self.fan.sequencer.publish([StateChange(channel, state)])
        if notice:
            self.fan.sequencer.broadcast_test("hello")

    @rule(seconds=st.sampled_from((0.02, 0.11, 0.3)))
    def wait(self, seconds: float) -> None:
        self.clock.jump(seconds)
        self.fan.hub.intervals.tick(trio.current_time())

    @precondition(lambda self: self.user.client is None)
    @rule(tls=st.booleans(), room=st.sampled_from((10**9, 0, 700, 2000)))
    def come(self, tls: bool, room: float) -> None:
        last_id = self.user.source.last_id
        self.user.source = EventSource(last_id)
        self.user.client = open_stream(self.fan, last_id, self.user.query, tls=tls, room=room)

    @precondition(lambda self: self.user.client is not None)
    @rule(room=st.sampled_from((0, 100, 700, 10**9)), steps=st.integers(0, 4))
    def catch_up(self, room: float, steps: int) -> None:
        """The catch-up task has some turns."""
        client = self.user.client
        assert client is not None
        client.sink.room = room
        for _ in range(steps):
            if client.sink.fd < 0 or room:
                client.sink.flush_now()
            if not client.sink.pending:
                self.fan.hub.advance(client.subscriber)

    @precondition(lambda self: self.user.client is not None)
    @rule()
    def keep_alive(self) -> None:
        """The sweeper's turn."""
        client = self.user.client
        assert client is not None
        if not client.sink.pending:
            client.sink.post(client.subscriber.keep_alive(self.tape))

    @precondition(lambda self: self.user.client is not None)
    @rule(most=st.one_of(st.none(), st.integers(0, 1500)))
    def read(self, most: int | None) -> None:
        self.user.read(most)

    @precondition(lambda self: self.user.client is not None)
    @rule(most=st.one_of(st.none(), st.integers(0, 3000)))
    def cut(self, most: int | None) -> None:
        """The connection breaks; so many of the bytes that were on their way still arrive."""
        client = self.user.client
        assert client is not None
        self.user.read(most)
        self.fan.hub.detach(client.subscriber)
        client.sink.fd = -1
        self.user.client = None

    def teardown(self) -> None:
        if not hasattr(self, "user"):
            return
        if self.user.client is None:
            self.come(False, 10**9)
        assert self.user.client is not None
        self.user.client.catch_up()
        self.wait(0.3)
        self.user.client.catch_up()
        self.user.read()
        assert not self.user.source.torn
        for topic in TOPICS:
            assert self.user.had[topic] == self.user.newest(topic, self.tape.head), f"the newest of {topic} never came"
        self.fan.hub.detach(self.user.client.subscriber)


async def test_wherever_it_breaks_nothing_is_lost_and_nothing_comes_twice(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor, "SCAN_AT_MOST", 4)
    monkeypatch.setattr(cursor, "CHUNK_ENTRIES", 3)

    class Machine(Breaking):
        def __init__(self) -> None:
            super().__init__(mock_clock)

    more = settings(max_examples=3 * settings().max_examples, stateful_step_count=30)
    run_state_machine_as_test(Machine, settings=more)


def _received(client: Client, last_id: str = "") -> EventSource:
    source = EventSource(last_id)
    source.feed(client.sink.taken)
    client.sink.taken = b""
    return source


def _cuts(stream: bytes) -> list[bytes]:
    """What had come when the connection broke behind each event."""
    blocks = stream.split(b"\n\n")
    return [b"".join(block + b"\n\n" for block in blocks[:count]) for count in range(len(blocks))]


def test_cut_behind_every_event_of_a_snapshot_and_what_follows() -> None:
    """The snapshot is of messages 2, 3 and 4; 5 to 7 follow."""
    fan = Fan()
    fan.publish(A, A2, B, A)
    client = open_stream(fan, "")
    fan.publish(B, A, A2)
    for cut in _cuts(client.sink.taken):
        source = EventSource()
        source.feed(cut)
        back = open_stream(fan, source.last_id)
        back.catch_up()
        again = _received(back, source.last_id)
        had, got = source.seqs(), again.seqs()
        if source.last_id:
            assert had + got == [2, 3, 4, 5, 6, 7]
        else:  # it broke within the snapshot
            assert set(had) <= {2, 3, 4}
            assert got == [5, 6, 7]


@pytest.mark.parametrize("tls", [False, True])
def test_cut_behind_every_event_of_a_catch_up(tls: bool) -> None:
    fan = Fan()
    fan.publish(A, B, A2, A, B, A2, A)
    client = open_stream(fan, "k3v-2", tls=tls)
    client.catch_up()
    fan.publish(B)
    client.catch_up()
    cuts = _cuts(client.sink.taken)
    assert len(cuts) >= 8
    for cut in cuts:
        source = EventSource("k3v-2")
        source.feed(cut)
        back = open_stream(fan, source.last_id)
        back.catch_up()
        again = _received(back, source.last_id)
        [told] = [message for message in again.messages if message["type"] == "subscribed"]
        assert told["recovered"] == {"a": True, "b": True}
        assert source.seqs() + again.seqs() == [3, 4, 5, 6, 7, 8]


def test_what_is_shown_of_a_channel_that_is_lost_does_not_set_the_client_back() -> None:
    """Y/U has its newest message long before the position: it is shown again, but is no place to resume from."""
    fan = Fan(max_entries=4)
    fan.publish(A2, A, A, A, B, A, B, A, B)
    client = open_stream(fan, "k3v-3")
    client.catch_up()
    source = _received(client, "k3v-3")
    assert [message["recovered"] for message in source.messages if "recovered" in message] == [{"a": False, "b": False}]
    assert source.seqs()[0] == 1
    first = next(at for at, message in enumerate(source.messages) if message.get("seq") == 1 and "prev_seq" in message)
    assert source.ids[first] == "k3v-3"
    assert source.last_id == "k3v-9"


async def test_a_status_is_no_position_for_a_client_that_takes_data_at_an_interval() -> None:
    fan = Fan()
    fan.publish(A)
    client = open_stream(fan, "", "channels=a&interval_ms=1000")
    fan.publish(A)
    fan.sequencer.publish([StateChange("a", "stale", "silence")])
    client.sink.post(client.subscriber.keep_alive(fan.tape))
    source = _received(client)
    assert source.messages[-1]["state"] == "stale"
    assert source.last_id == "k3v-1"
    assert _received(open_stream(fan, source.last_id, "channels=a&interval_ms=1000")).seqs() == [2]


def _ids_of_data(source: EventSource) -> list[str]:
    return [at for at, message in zip(source.ids, source.messages, strict=True) if "prev_seq" in message]


@pytest.mark.parametrize("last_id", ["", "other-1"])
def test_a_snapshot_is_no_place_to_resume_from_before_its_end(last_id: str) -> None:
    """From its first message on, all that followed would come, which may be much."""
    fan = Fan()
    fan.publish(A, A2, A, B)
    source = _received(open_stream(fan, last_id), last_id)
    assert _ids_of_data(source) == [last_id] * 3
    assert source.last_id == "k3v-4"


def test_what_was_missed_is_a_place_to_resume_from_also_where_it_has_left_the_ring() -> None:
    """Of b nothing but message 2 was missed, which comes as the newest one; of a it is unknown what."""
    fan = Fan(max_entries=3)
    fan.publish(A, B, A, A, A, A)
    client = open_stream(fan, "k3v-1")
    client.catch_up()
    source = _received(client, "k3v-1")
    [told] = [message for message in source.messages if message["type"] == "subscribed"]
    assert told["recovered"] == {"a": False, "b": True}
    assert source.seqs() == [2, 6]
    assert _ids_of_data(source) == ["k3v-2", "k3v-6"]


def test_what_comes_before_its_turn_has_no_position_and_in_the_end_all_has_been_had() -> None:
    """Message 2 is the only one of b, and status messages have pushed it off the tape. 1 and 3 of a are still there."""
    fan = Fan(max_entries=4)
    fan.publish(A, B, A)
    fan.sequencer.publish([StateChange("b", state) for state in ("live", "stale", "live")])
    assert [entry.seq for entry in fan.tape.between(0, fan.tape.head)] == [1, 3, 5, 6]
    client = open_stream(fan, "k3v-0")
    client.catch_up()
    source = _received(client, "k3v-0")
    [told] = [message for message in source.messages if message["type"] == "subscribed"]
    assert told["recovered"] == {"a": True, "b": True}
    assert source.seqs() == [2, 1, 3]
    assert _ids_of_data(source) == ["k3v-0", "k3v-1", "k3v-3"]
    assert source.last_id == "k3v-6"


def test_a_ping_says_nothing_of_what_is_still_to_come() -> None:
    fan = Fan()
    client = open_stream(fan, "")
    client.sink.taken = b""
    fan.publish(B)
    client.sink.room = 0
    fan.publish(A)
    assert client.subscriber.keep_alive(fan.tape) == b": ping\n\n"
    client.catch_up()
    assert client.subscriber.keep_alive(fan.tape) == b": ping\nid: k3v-2\n\n"
