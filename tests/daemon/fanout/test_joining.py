"""What a client is told when it joins or leaves, and what follows: snapshots, resumes, changes of mind."""

import pytest
import trio
from trio.testing import MockClock

from connectors.base import StateChange
from daemon.fanout.subscriber import State
from daemon.tape.cursor import CHUNK_ENTRIES, SCAN_AT_MOST
from daemon.tape.tape import Tape
from protocol.messages import Format, Position, PriceUpdate, Status, Subscribed, Unsubscribed
from tests.daemon.fanout.sink import Client, Fan
from tests.daemon.tape.counting import CountingTape

A, A2, B = ("a", "X/U"), ("a", "Y/U"), ("b", "X/U")


@pytest.fixture
def fan() -> Fan:
    return Fan()


def answer(client: Client) -> tuple[Subscribed, list[int]]:
    """The answer to a `subscribe`, and the positions of what follows."""
    first, *others = client.messages()
    assert isinstance(first, Subscribed)
    return first, [message.seq for message in others if isinstance(message, PriceUpdate)]


@pytest.mark.parametrize("format", [Format.JSON, Format.MSGPACK])
def test_the_answer_comes_first_then_the_states_then_the_snapshot(fan: Fan, format: Format) -> None:
    fan.publish(A, B, A2, A)
    fan.sequencer.publish([StateChange("b", "down", "refused")])
    client = fan.connect(format)
    client.subscribe("b", "a")
    told, *others = client.messages()
    assert told == Subscribed(
        timestamp="2025-12-08T16:30:45.123Z", channels=("b", "a"), id=1, epoch=fan.tape.epoch, seq=5
    )
    assert [(each.channel, each.state) for each in others if isinstance(each, Status)] == [
        ("b", "down"),
        ("a", "connecting"),
    ]
    assert [type(each) for each in others] == [Status] * 2 + [PriceUpdate] * 3
    assert [each.seq for each in others if isinstance(each, PriceUpdate)] == [2, 3, 4]


def test_without_a_snapshot_only_what_is_new_follows(fan: Fan) -> None:
    fan.publish(A)
    client = fan.connect()
    client.subscribe("a", snapshot=False)
    assert answer(client)[1] == []
    fan.publish(A)
    assert client.seqs() == [2]


def test_what_is_taken_already_is_not_sent_again(fan: Fan) -> None:
    fan.publish(A, A2, B)
    client = fan.connect()
    client.subscribe("a", instruments=["X/U"])
    assert answer(client)[1] == [1]
    client.subscribe("a", "b")
    assert answer(client)[1] == [2, 3]
    client.subscribe("*")
    assert answer(client)[1] == []
    fan.publish(A2)
    assert client.seqs() == [4]


def test_nothing_follows_the_answer_to_unsubscribe(fan: Fan) -> None:
    client = fan.connect()
    client.subscribe("a", "b")
    client.sink.room = 0
    fan.publish(A, B, A)
    client.unsubscribe("a")
    fan.publish(A)
    fan.sequencer.publish([StateChange("a", "live")])
    client.catch_up()
    messages = client.messages()
    [at] = [at for at, each in enumerate(messages) if isinstance(each, Unsubscribed)]
    assert messages[at] == Unsubscribed(timestamp="2025-12-08T16:30:45.123Z", channels=("a",), id=1, epoch="k3v", seq=3)
    assert [each.channel for each in messages[at:] if isinstance(each, Status)] == []
    assert [each.connector_id for each in messages[at:] if isinstance(each, PriceUpdate)] == ["b"]


@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("tls", [False, True])
def test_a_resume_brings_exactly_what_came_after_the_position(fan: Fan, after: int, tls: bool) -> None:
    fan.publish(A, B, A, A2, B)
    client = fan.connect(tls=tls)
    client.subscribe("a", "b", since=Position("k3v", after), snapshot=False)
    fan.publish(A)
    client.catch_up()
    told, seqs = answer(client)
    assert told.recovered == {"a": True, "b": True}
    assert seqs == list(range(after + 1, 7))


def test_a_resume_leaves_the_other_topics_where_they_are(fan: Fan) -> None:
    fan.publish(A, B)
    client = fan.connect()
    client.subscribe("b")
    client.messages()
    fan.publish(A, B)
    client.subscribe("a", since=Position("k3v", 1))
    client.catch_up()
    assert client.seqs() == [4, 3]
    fan.publish(A, B)
    assert client.seqs() == [5, 6]


def test_a_resume_with_a_filter_brings_only_what_was_asked_for(fan: Fan) -> None:
    fan.publish(A, A2, A, B)
    client = fan.connect()
    client.subscribe("a", "b", instruments=["X/U"], since=Position("k3v", 0))
    client.catch_up()
    assert client.seqs() == [1, 3, 4]


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        (Position("other", 5), "epoch 'other' is not this tape's ('k3v')"),
        (Position("k3v", 7), "seq 7 is beyond this tape's head (6)"),
        (Position("k3v", 0), "seq 0 is before this tape's tail: messages from 3 on are kept"),
    ],
)
@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("interval_ms", [None, 1000])
async def test_a_resume_that_is_impossible_is_explained_and_the_snapshot_follows(
    position: Position, reason: str, snapshot: bool, interval_ms: int | None
) -> None:
    fan = Fan(max_entries=4)
    fan.publish(A, B, A, B, A, B)
    client = fan.connect()
    client.subscribe("a", "b", since=position, snapshot=snapshot, interval_ms=interval_ms)
    told, seqs = answer(client)
    assert (told.recovered, told.reason) == ({"a": False, "b": False}, reason)
    assert seqs == [5, 6]


def test_the_oldest_position_that_can_be_resumed_is_the_one_before_the_tail() -> None:
    fan = Fan(max_entries=4)
    fan.publish(A, B, A, B, A, B)
    client = fan.connect()
    client.subscribe("a", since=Position("k3v", 2))
    client.catch_up()
    assert client.seqs() == [3, 5]


async def test_a_resume_at_an_interval_brings_the_newest_of_what_was_missed(fan: Fan) -> None:
    fan.publish(A, A2, A, A)
    client = fan.connect()
    client.subscribe("a", interval_ms=1000, since=Position("k3v", 2), snapshot=False)
    told, seqs = answer(client)
    assert (told.recovered, seqs) == ({"a": True}, [4])


async def test_from_an_interval_to_every_message_nothing_newer_is_held_back(fan: Fan, mock_clock: MockClock) -> None:
    client = fan.connect()
    client.subscribe("a", interval_ms=1000)
    fan.publish(A, A, A2)
    client.subscribe("a")
    assert client.seqs() == [2, 3]
    fan.publish(A)
    assert client.seqs() == [4]
    mock_clock.jump(3)
    fan.hub.intervals.tick(trio.current_time())
    assert client.seqs() == []


async def test_from_every_message_to_an_interval_nothing_comes_twice(fan: Fan, mock_clock: MockClock) -> None:
    client = fan.connect()
    client.subscribe("a")
    fan.publish(A)
    client.subscribe("a", interval_ms=1000)
    assert client.seqs() == [1]
    fan.publish(A, A2)
    assert client.seqs() == []
    mock_clock.jump(1.1)
    fan.hub.intervals.tick(trio.current_time())
    assert client.seqs() == [2, 3]


def test_a_client_that_is_behind_may_change_its_mind(fan: Fan) -> None:
    client = fan.connect()
    client.subscribe("a")
    fan.publish(A)
    assert client.seqs() == [1]
    client.sink.room = 0
    fan.publish(A2, A, B)
    client.unsubscribe("a")
    client.subscribe("b", snapshot=False)
    client.subscribe("a", instruments=["X/U"])
    fan.publish(A, B, A2)
    client.catch_up()
    seqs = client.seqs()
    assert seqs[-3:] == [3, 5, 6]  # 3 is the snapshot; 2 may have been on its way
    assert set(seqs[:-3]) <= {2}


def test_a_client_that_is_gone_leaves_nothing_when_it_is_detached_again(fan: Fan) -> None:
    client = fan.connect()
    fan.hub.detach(client.subscriber)
    client.sink.fd = -1
    client.subscribe("a")  # a command that was read before the connection broke
    fan.hub.detach(client.subscriber)
    assert (fan.hub.statistics().groups, fan.hub.statistics().subscribers) == (0, 0)


def test_what_is_made_once_for_many_is_not_taken_for_a_client_that_has_had_some_of_it() -> None:
    """Two clients are behind at one place with one selection, but one of them joined a channel at the head."""
    fan = Fan(max_entries=1000)
    long, late = fan.connect(), fan.connect()
    long.subscribe("a", "b")
    late.subscribe("a")
    for client in (long, late):
        client.messages()
        client.sink.room = 0
    for _ in range(150):
        fan.publish(A, B)
    late.subscribe("b")
    fan.publish(A, B)
    long.catch_up()
    late.catch_up()
    assert long.seqs() == list(range(1, 303))
    of_b = [message.seq for message in late.messages() if isinstance(message, PriceUpdate) and message.seq % 2 == 0]
    assert of_b == [300, 302]
    assert fan.hub.statistics().behind == 0
    assert not fan.hub._chunks, "what was made for those who are behind goes with the last of them"


def far_end(tape: Tape, *channels: str) -> int:
    """The position from which on nothing of these channels has left the tape."""
    return max(tape.gone_of(channel) for channel in channels)


def resumed(fan: Fan, count: int, *channels: str) -> list[Client]:
    """So many clients that resume from the tape's far end, each to be brought to the head yet."""
    clients = [fan.connect() for _ in range(count)]
    for client in clients:
        client.subscribe(*channels, since=Position("k3v", far_end(fan.tape, *channels)))
        told = client.messages()[0]
        assert isinstance(told, Subscribed)
        assert told.recovered == dict.fromkeys(channels, True)
    return clients


def in_turns(fan: Fan, clients: list[Client]) -> int:
    """Let the clients go on in turns until all have caught up; the most entries that were looked at in one step."""
    assert isinstance(fan.tape, CountingTape)
    most = 0
    while any(client.subscriber.state is State.BEHIND for client in clients):
        for client in clients:
            before = fan.tape.looked
            fan.hub.advance(client.subscriber)
            most = max(most, fan.tape.looked - before)
    return most


def test_a_resume_looks_at_no_entry_and_each_step_behind_it_at_few() -> None:
    tape = CountingTape(10_000, 10**8, epoch="k3v")
    fan = Fan(tape=tape)
    for _ in range(11):
        fan.publish(*[A] * 1000, B)
    [client] = resumed(fan, 1, "b")
    assert tape.looked == 0
    assert in_turns(fan, [client]) <= SCAN_AT_MOST + CHUNK_ENTRIES
    assert client.seqs() == [entry.seq for entry in Tape.between(tape, 0, tape.head) if entry.topic == B]
    assert tape.looked <= 12 * (SCAN_AT_MOST + CHUNK_ENTRIES), "the tape was walked"


@pytest.mark.parametrize("channels", [("a",), ("b",), ("a", "b")])
def test_a_crowd_that_resumes_from_one_place_costs_as_much_looking_as_one_client(channels: tuple[str, ...]) -> None:
    looked = []
    for count in (1, 30):
        tape = CountingTape(2000, 10**8, epoch="k3v")
        fan = Fan(tape=tape)
        for _ in range(30):
            fan.publish(*[A] * 99, B)
        clients = resumed(fan, count, *channels)
        in_turns(fan, clients)
        [seqs] = {tuple(client.seqs()) for client in clients}
        kept = Tape.between(tape, far_end(tape, *channels), tape.head)
        assert list(seqs) == [entry.seq for entry in kept if entry.topic[0] in channels]
        looked.append(tape.looked)
    assert looked[0] == looked[1] > 0


def test_clients_that_resume_from_different_places_soon_share_what_follows() -> None:
    tape = CountingTape(4000, 10**8, epoch="k3v")
    fan = Fan(tape=tape)
    fan.publish(*[A] * 4000)
    clients = [fan.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        client.subscribe("a", since=Position("k3v", number * 5))
    in_turns(fan, clients)
    assert tape.looked < 2 * (20 * CHUNK_ENTRIES + 4000), "each walked for itself"


def test_they_share_it_too_where_only_few_positions_are_left_and_none_is_round() -> None:
    """All even positions have left: what stands there are the odd ones, and chunks end at multiples of 128."""
    tape = CountingTape(4000, 10**8, epoch="k3v")
    fan = Fan(tape=tape)
    for _ in range(2000):
        fan.publish(B, A)
    fan.publish(*[A] * 2000)
    assert [entry.seq for entry in Tape.between(tape, 0, 4000)] == list(range(1, 4000, 2))
    clients = [fan.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        client.subscribe("b", since=Position("k3v", number * 12))
    assert in_turns(fan, clients) <= SCAN_AT_MOST + CHUNK_ENTRIES
    for number, client in enumerate(clients):
        assert client.seqs() == list(range(number * 12 + 1, 4000, 2))
    assert tape.looked < 2 * (20 * CHUNK_ENTRIES + 2000), "each walked for itself"
