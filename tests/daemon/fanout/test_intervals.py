"""The newest message per topic, once in a while: moments, floors and full sockets."""

import math
import time

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from daemon.fanout.subscriber import Subscriber
from protocol.messages import Format
from tests.daemon.fanout.sink import Client, FakeSink, Fan

A, A2, B = ("a", "X/U"), ("a", "Y/U"), ("b", "X/U")


@pytest.fixture
def fan() -> Fan:
    return Fan()


def tick_after(fan: Fan, clock: MockClock, seconds: float) -> None:
    clock.jump(seconds)
    fan.hub.intervals.tick(trio.current_time())


def join(fan: Fan, *channels: str, interval_ms: int = 1000, format: Format = Format.JSON, tls: bool = False) -> Client:
    client = fan.connect(format, tls=tls)
    client.subscribe(*channels, interval_ms=interval_ms)
    client.catch_up()
    client.messages()
    return client


async def test_the_newest_of_each_topic_comes_once_an_interval(fan: Fan, mock_clock: MockClock) -> None:
    client = join(fan, "a")
    fan.publish(A, A, A2, A)
    tick_after(fan, mock_clock, 0.99)
    assert client.seqs() == []
    tick_after(fan, mock_clock, 0.01 + 1 / 16)
    assert client.seqs() == [3, 4]
    tick_after(fan, mock_clock, 1)
    assert client.seqs() == []
    fan.publish(A, A2, A2)
    tick_after(fan, mock_clock, 1)
    assert client.seqs() == [5, 7]


async def test_a_snapshot_and_the_first_moment_are_an_interval_apart_also_in_a_group_that_is_there(
    fan: Fan, mock_clock: MockClock
) -> None:
    mock_clock.jump(1000 - trio.current_time() % 1000)
    first = join(fan, "a")
    mock_clock.jump(0.97)  # its moment is in 30 ms, at the very sixteenth that is next for the other one, too
    fan.publish(A)
    other = fan.connect()
    other.subscribe("a", interval_ms=1000)
    assert other.seqs() == [1]
    assert len(fan.hub.intervals) == 1
    fan.publish(A)
    tick_after(fan, mock_clock, 0.03)
    assert (first.seqs(), other.seqs()) == ([2], [])
    tick_after(fan, mock_clock, 1.0)
    assert (first.seqs(), other.seqs()) == ([], [2])


async def test_a_topic_keeps_what_it_is_owed_when_another_joins_its_interval(fan: Fan, mock_clock: MockClock) -> None:
    client = join(fan, "a")
    fan.publish(A, B)
    client.subscribe("b", interval_ms=1000)
    assert client.seqs() == [2]
    tick_after(fan, mock_clock, 1.1)
    assert client.seqs() == [1]


async def test_a_topic_that_joined_without_snapshot_begins_with_what_is_new(fan: Fan, mock_clock: MockClock) -> None:
    client = join(fan, "a")
    fan.publish(A, B)
    client.subscribe("b", interval_ms=1000, snapshot=False)
    tick_after(fan, mock_clock, 1.1)
    assert client.seqs() == [1]
    fan.publish(B)
    tick_after(fan, mock_clock, 1)
    assert client.seqs() == [3]


@pytest.mark.parametrize("room", range(0, 400, 17))
@pytest.mark.parametrize("tls", [False, True])
async def test_a_full_socket_has_the_newest_at_the_next_moment(
    fan: Fan, mock_clock: MockClock, room: int, tls: bool
) -> None:
    client, other = join(fan, "a", tls=tls), join(fan, "a")
    tick_after(fan, mock_clock, 1.1)  # both are written to with their group from now on
    fan.publish(A, A2)
    client.sink.room = room  # less than two frames
    tick_after(fan, mock_clock, 1)
    assert other.seqs() == [1, 2]
    fan.publish(A)
    tick_after(fan, mock_clock, 1)  # still full
    client.catch_up()
    first = client.seqs()
    assert first == [1, 2][: len(first)]
    tick_after(fan, mock_clock, 1)
    assert first + client.seqs() in ([2, 3], [1, 2, 3])
    assert other.seqs() == [3]


async def test_a_record_that_is_torn_at_an_interval_is_flushed_by_a_task(fan: Fan, mock_clock: MockClock) -> None:
    client = join(fan, "a", tls=True)
    for _ in range(2):  # the second time with its group
        fan.publish(A)
        tick_after(fan, mock_clock, 1.1)
    size = len(client.sink.taken) // 2
    client.messages()
    client.sink.room = size - 1
    fan.publish(A)
    tick_after(fan, mock_clock, 1)
    assert (len(client.sink.pending), client.woken) == (1, 1)
    client.catch_up()
    assert client.seqs() == [3]


async def test_tls_and_messagepack_clients_have_the_same(fan: Fan, mock_clock: MockClock) -> None:
    clients = [join(fan, "a", tls=True), join(fan, "a", format=Format.MSGPACK)]
    for seq in (1, 2):
        fan.publish(A)
        tick_after(fan, mock_clock, 1.1)
        clients[0].catch_up()
        assert [client.seqs() for client in clients] == [[seq], [seq]]


async def test_moments_that_were_slept_through_are_not_made_up_for(fan: Fan, mock_clock: MockClock) -> None:
    client = join(fan, "a", interval_ms=100)
    fan.publish(A)
    tick_after(fan, mock_clock, 5)
    assert client.seqs() == [1]
    assert trio.current_time() < fan.hub.intervals.next_due_s <= trio.current_time() + 0.1
    fan.publish(A)
    fan.hub.intervals.tick(trio.current_time())
    assert client.seqs() == []


async def test_a_group_that_everybody_left_ends(fan: Fan, mock_clock: MockClock) -> None:
    stays, leaves, changes = join(fan, "a"), join(fan, "b"), join(fan, "a", "b", interval_ms=50)
    leaves.unsubscribe("b")
    changes.subscribe("a", "b")
    tick_after(fan, mock_clock, 1.1)
    assert len(fan.hub.intervals) == 1
    fan.hub.detach(stays.subscriber)
    tick_after(fan, mock_clock, 1)
    assert len(fan.hub.intervals) == 0
    assert fan.hub.intervals.next_due_s == math.inf


async def test_the_timer_serves_each_group_at_its_moment(
    fan: Fan, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    await nursery.start(fan.hub.intervals.run)
    slow = join(fan, "a", interval_ms=60_000)
    await wait_all_tasks_blocked()
    quick = join(fan, "a", interval_ms=100)  # sooner than what the timer waits for
    fan.publish(A)
    await trio.sleep(0.2)
    assert (slow.seqs(), quick.seqs()) == ([], [1])
    await trio.sleep(64)
    assert slow.seqs() == [1]


class SlowSink(FakeSink):
    """One that takes this long over each write, by a clock of the test's own, and notes when it was written to."""

    def __init__(self, fd: int, clock: list[float], takes_s: float) -> None:
        super().__init__(fd)
        self.clock = clock
        self.takes_s = takes_s
        self.written_s: list[float] = []

    def write_now(self, data: bytes) -> int:
        self.clock[0] += self.takes_s
        self.written_s.append(trio.current_time())
        return super().write_now(data)


async def test_groups_that_take_long_are_served_in_steps_with_a_rest_after_each(
    fan: Fan, autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many groups there are, and whatever they cost: the event loop has its turns for everybody else."""
    clock, takes_s = [0.0], 0.05
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    sinks = [SlowSink(number, clock, takes_s) for number in range(3)]
    for sink, topics in zip(sinks, [{A}, {A2}, {A, A2}], strict=True):
        subscriber = Subscriber(Format.JSON, sink, lambda: None)
        fan.hub.attach(subscriber)
        fan.hub.intervals.select(subscriber, {1000: frozenset(topics)}, {})
    assert len(fan.hub.intervals) == 3
    await nursery.start(fan.hub.intervals.run)
    fan.publish(A, A2)
    await trio.sleep(1.5)
    first, second, third = sorted(sink.written_s[0] for sink in sinks)
    assert (second - first, third - second) == pytest.approx((takes_s / 2, takes_s / 2))


async def test_a_client_that_changes_its_interval_ten_thousand_times_leaves_nothing_behind(fan: Fan) -> None:
    fan.publish(A)
    stays, client = join(fan, "a", interval_ms=3_600_000), join(fan, "a", interval_ms=50)
    for number in range(10_000):
        fan.hub.intervals.select(client.subscriber, {51 + number: frozenset({A})}, {})
        assert len(fan.hub.intervals) == 2
        assert len(fan.hub.intervals._due) <= 100, "a timer is kept for each interval that was left"
    fan.hub.detach(client.subscriber)
    assert len(fan.hub.intervals) == 1
    fan.hub.detach(stays.subscriber)
    assert (len(fan.hub.intervals), client.subscriber.intervals) == (0, {})
