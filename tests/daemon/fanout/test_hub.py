"""Passes, groups, falling behind and catching up, one at a time; `test_fan_out.py` has them all at once."""

import json
import math

import pytest
import trio

from connectors.base import Event, StateChange
from daemon.fanout.subscriber import State
from daemon.ingest.inbox import Item
from daemon.publish.bus import Appended, Bus
from daemon.publish.sequencer import Passes, Sequencer
from daemon.tape.tape import STATUS
from protocol.messages import Error, Format, Lagged, Pong, PriceUpdate, Status, Test
from tests.daemon.fanout.sink import START_MS, Fan

A, A2, B = ("a", "X/U"), ("a", "Y/U"), ("b", "X/U")


@pytest.fixture
def fan() -> Fan:
    return Fan()


def test_an_event_becomes_the_contracts_message(fan: Fan) -> None:
    event = Event(*A, data=b'{"p": 1.10}', received_ms=5, price="42150.50", exchange_ms=4, cached=True)
    fan.sequencer.publish([[event, event]])
    [payload] = fan.tape.payloads("a")
    assert payload == (
        b'{"type":"price_update","connector_id":"a","exchange":"binance","instrument":"X/U","price":42150.50,'
        b'"timestamp":"2025-12-08T16:30:45.123Z","seq":2,"prev_seq":1,"exchange_ms":4,"received_ms":5,"cached":true,'
        b'"data":{"p": 1.10}}'
    )
    assert fan.board.state("a").last_event_ms == 5


def test_what_an_event_does_not_have_is_absent(fan: Fan) -> None:
    fan.sequencer.publish([[Event("a", "", data=b"[]", received_ms=5)]])
    [payload] = fan.tape.payloads("a")
    assert not json.loads(payload).keys() & {"instrument", "price", "exchange_ms", "cached"}


@pytest.mark.parametrize(
    "event",
    [
        Event("gone", "X/U", data=b"{}", received_ms=5),
        Event(*A, data=b"{}", received_ms=5, price="NaN"),
        Event(*A, data=b"{}", received_ms=5, price="1,5"),
    ],
)
def test_an_event_that_cannot_be_told_is_refused_and_the_others_go_out(fan: Fan, event: Event) -> None:
    client = fan.connect()
    client.subscribe("a")
    good = Event(*A, data=b"{}", received_ms=5, price="1")
    fan.sequencer.publish([[event, good]])
    assert client.seqs() == [1]
    assert (fan.sequencer.refused, fan.sequencer.events) == (1, 1)


def test_a_body_without_a_messagepack_form_ends_nobodys_service(fan: Fan) -> None:
    packs, reads = fan.connect(Format.MSGPACK), fan.connect()
    packs.subscribe("a")
    reads.subscribe("a")
    packs.messages()
    fan.sequencer.publish([[Event(*A, data=b'{"n":1e999}', received_ms=5)]])
    fan.publish(A)
    assert [type(message) for message in packs.messages()] == [Error, PriceUpdate]
    assert reads.seqs() == [1, 2]


def test_a_pass_is_one_write_for_each_client_that_is_concerned(fan: Fan) -> None:
    one, other, stranger = fan.connect(), fan.connect(), fan.connect()
    one.subscribe("a")
    other.subscribe("a")
    stranger.subscribe("b")
    fan.publish(A, A2, A)
    assert sorted(fan.writes) == [one.sink.fd, other.sink.fd]
    assert one.seqs() == other.seqs() == [1, 2, 3]
    assert stranger.seqs() == []
    assert fan.hub.counts.deliveries == 6


def test_clients_with_the_same_topics_and_format_are_one_group(fan: Fan) -> None:
    clients = [fan.connect(), fan.connect(), fan.connect(Format.MSGPACK), fan.connect()]
    for client in clients[:3]:
        client.subscribe("a", "b")
    clients[3].subscribe("a")
    assert fan.hub.statistics().groups == 3
    fan.publish(A, B)
    assert [client.seqs() for client in clients] == [[1, 2], [1, 2], [1, 2], [1]]
    for client in clients:
        fan.hub.detach(client.subscriber)
        fan.hub.detach(client.subscriber)  # twice changes nothing
    assert (fan.hub.statistics().groups, fan.hub.statistics().subscribers) == (0, 0)
    assert not any(fan.hub._routes.values())
    fan.publish(A)
    assert [client.seqs() for client in clients] == [[], [], [], []]


@pytest.mark.parametrize("room", range(0, 550, 23))
@pytest.mark.parametrize("tls", [False, True])
def test_a_full_socket_costs_its_client_nothing_but_time(fan: Fan, room: int, tls: bool) -> None:
    slow, quick = fan.connect(tls=tls), fan.connect()
    slow.subscribe("a")
    quick.subscribe("a")
    slow.sink.room = room  # less than three frames
    fan.publish(A, A2, A)
    fan.publish(A2)
    fan.publish(B)
    assert slow.woken == 1
    assert slow.sink.stalls == 1
    assert fan.hub.statistics().behind == 1
    assert fan.writes.count(slow.sink.fd) == (0 if tls else 1), "tried again past what was pending"
    slow.catch_up()
    assert slow.seqs() == quick.seqs() == [1, 2, 3, 4]
    assert fan.hub.statistics().behind == 0
    assert fan.hub.counts.deliveries == 8
    fan.publish(A)
    assert slow.seqs() == quick.seqs() == [6]


def test_a_client_that_the_tape_overtakes_is_told_how_much_it_missed() -> None:
    fan = Fan(max_entries=4)
    client = fan.connect()
    client.subscribe("a")
    client.messages()
    client.sink.room = 0
    fan.publish(A, A2, A, A2, A, B)  # 1 to 6
    client.catch_up()
    lagged, *others = client.messages()
    assert lagged == Lagged(timestamp="2025-12-08T16:30:45.123Z", missed=3, from_seq=1, to_seq=6, by_channel={"a": 3})
    assert [message.seq for message in others if isinstance(message, PriceUpdate)] == [4, 5]
    assert fan.hub.counts.lagged == 1


def test_a_tape_that_turned_over_without_loss_for_a_client_is_no_lag() -> None:
    fan = Fan(max_entries=2)
    client = fan.connect()
    client.subscribe("a")
    client.messages()
    client.sink.room = 0
    fan.publish(A)
    fan.publish(B, B, B)
    client.catch_up()
    assert [type(message) for message in client.messages()] == [PriceUpdate]
    assert fan.hub.counts.lagged == 0


def test_whoever_has_no_descriptor_is_written_to_by_the_pass_all_the_same(fan: Fan) -> None:
    client = fan.connect(tls=True)
    client.subscribe("a")
    client.messages()
    fan.publish(A, A)
    fan.publish(A)
    assert (client.woken, fan.writes, client.seqs()) == (0, [], [1, 2, 3])
    client.sink.room = 0
    fan.publish(A)
    assert client.woken == 1, "it falls behind as anybody does"
    client.catch_up()
    assert client.seqs() == [4]


def test_a_client_that_comes_with_something_pending_is_behind_from_the_start(fan: Fan) -> None:
    client = fan.connect(room=0)
    fan.hub.detach(client.subscriber)
    client.sink.pending.append(b"\x81\x02{}")
    fan.hub.attach(client.subscriber)
    assert client.woken == 1
    fan.sequencer.broadcast_test("hello")
    assert fan.writes == []
    client.sink.pending.clear()
    client.catch_up()
    assert [message.message for message in client.messages() if isinstance(message, Test)] == ["hello"]


def test_a_notice_goes_to_everybody_and_counts_them(fan: Fan) -> None:
    clients = [fan.connect(), fan.connect(Format.MSGPACK), fan.connect()]
    clients[0].subscribe("a")
    fan.sequencer.broadcast_test("hello")
    assert fan.hub.statistics().subscribers == 3
    for client in clients:
        assert client.messages()[-1] == Test(timestamp="2025-12-08T16:30:45.123Z", message="hello")


def test_a_state_reaches_the_channels_subscribers_once(fan: Fan) -> None:
    client, stranger = fan.connect(), fan.connect()
    client.subscribe("a")
    stranger.subscribe("b")
    client.messages()
    stranger.messages()
    change = StateChange("a", "down", "refused", 1.23456)
    fan.sequencer.publish([change, change, StateChange("gone", "live")])
    expected = Status(
        timestamp="2025-12-08T16:30:45.123Z",
        channel="a",
        state="down",
        since="2025-12-08T16:30:45.123Z",
        reason="refused",
        retry_in_s=1.235,
    )
    assert client.messages() == [expected]
    assert stranger.messages() == []
    assert fan.tape.head == fan.tape.last_seq(("a", STATUS)) == 1


def test_the_snapshot_route_has_a_channel_or_one_instrument_of_it(fan: Fan) -> None:
    fan.publish(A, A2, B, A)
    fan.sequencer.publish([StateChange("a", "live")])
    assert [json.loads(each)["seq"] for each in fan.tape.payloads("a")] == [2, 4]
    assert [json.loads(each)["seq"] for each in fan.tape.payloads("a", "Y/U")] == [2]
    assert fan.tape.payloads("gone") == []


class CountingFollower:
    """A follower of the bus that counts how often something was handed over."""

    def __init__(self) -> None:
        self.times = 0

    def follow(self, appended: Appended) -> None:
        assert appended.entries[0].seq > appended.before
        self.times += 1


async def passes_of(fan: Fan, passes: Passes, *items: Item) -> int:
    """How many passes a sequencer takes for what is ready when it begins."""
    bus, follower = Bus(), CountingFollower()
    bus.add(follower)
    sequencer = Sequencer(fan.tape, fan.board, fan.ledger, fan.clock, bus, passes)
    send, receive = trio.open_memory_channel[Item](len(items))
    for item in items:
        send.send_nowait(item)
    send.close()
    await sequencer.run(receive)
    return follower.times


async def test_what_is_ready_goes_into_one_pass_up_to_a_bound(fan: Fan, autojump_clock: trio.testing.MockClock) -> None:
    one = [Event(*A, data=b"{}", received_ms=START_MS)]
    assert await passes_of(fan, Passes(batch_events=256), one, StateChange("a", "live"), one * 3) == 1
    assert await passes_of(fan, Passes(batch_events=2), one, one, one, one, one) == 3
    assert await passes_of(fan, Passes(batch_events=2), one * 5, one) == 2, "one send of a connector is never split"
    assert fan.tape.head == 1 + 1 + 3 + 5 + 6


async def test_the_rest_after_a_pass_has_a_bound(fan: Fan, autojump_clock: trio.testing.MockClock) -> None:
    one = [Event(*A, data=b"{}", received_ms=START_MS)]
    began_s = trio.current_time()
    assert await passes_of(fan, Passes(batch_events=1, rest_ratio=1e9, rest_max_ms=250), one, one) == 2
    assert trio.current_time() - began_s == pytest.approx(0.25), "nobody waits for the rest after the last pass"


@pytest.mark.parametrize("format", [Format.JSON, Format.MSGPACK])
def test_an_answer_that_is_torn_between_two_stretches_of_a_catch_up_stays_whole(format: Format) -> None:
    fan = Fan()
    client = fan.connect(format)
    client.subscribe("a")
    client.messages()
    client.sink.room = 0
    fan.publish(A, A)
    # The catch-up task has just written a whole stretch and is about to go on, when the session answers a command.
    client.sink.room = 10
    client.subscriber.say(Pong(timestamp="2025-12-08T16:30:45.123Z", id=7))
    assert client.sink.pending
    client.sink.room = math.inf
    assert client.subscriber.state is State.BEHIND
    client.catch_up()
    assert [type(message) for message in client.messages()] == [Pong, PriceUpdate, PriceUpdate]


class SlowFollower:
    """A follower whose every hand-over takes this long, by a clock of the test's own."""

    def __init__(self, clock: list[float], takes_s: float) -> None:
        self.clock = clock
        self.takes_s = takes_s
        self.times = 0

    def follow(self, appended: Appended) -> None:
        self.clock[0] += self.takes_s
        self.times += 1


async def test_a_pass_that_takes_long_takes_nothing_more_and_the_rest_grows_with_it(
    fan: Fan, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is ready, and whatever the fan-out costs: the event loop has its turns for everybody else."""
    clock = [0.0]
    monkeypatch.setattr("daemon.publish.sequencer.time.perf_counter", lambda: clock[0])
    bus, follower = Bus(), SlowFollower(clock, 0.05)
    bus.add(follower)
    sequencer = Sequencer(fan.tape, fan.board, fan.ledger, fan.clock, bus, Passes())
    send, receive = trio.open_memory_channel[Item](100)
    large = [Event(*A, data=b'"%s"' % (b"x" * 70_000), received_ms=START_MS)]
    for _ in range(4):
        send.send_nowait(large)
    send.close()
    began_s = trio.current_time()
    await sequencer.run(receive)
    assert follower.times == 4
    # One hand-over a pass, each with a rest of half of it behind it, but for the last.
    assert trio.current_time() - began_s == pytest.approx(3 * 0.05 * Passes().rest_ratio)
