"""`daemon.client.core.course` against a made-up daemon, without a socket or a clock: whatever fails, and whenever."""

from collections import deque
from collections.abc import Iterable
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from connectors.backoff import Backoff
from daemon.client.core.course import ALL, Course, Deliver, Open, Options, Over, Read, Renew
from daemon.client.core.events import (
    ClientError,
    CommandRefused,
    Gap,
    Lost,
    NotUnderstood,
    Reconnecting,
    Resumed,
    ServerRefused,
    ServerUnavailable,
)
from daemon.client.core.verdicts import Disconnected
from protocol.codes import ErrorCode
from protocol.messages import (
    Command,
    Data,
    DepthUpdate,
    Error,
    Goodbye,
    Message,
    Ping,
    Pong,
    Position,
    PriceUpdate,
    ServerInfo,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Welcome,
)

STAMP = "2025-12-08T16:30:45.123Z"
CHANNELS = ("x", "y")


def price(seq: int, prev_seq: int, channel: str = "x") -> PriceUpdate:
    return PriceUpdate(
        connector_id=channel,
        exchange="okx",
        instrument="BTC/USDT",
        price=Raw(b"1.50"),
        timestamp=STAMP,
        seq=seq,
        prev_seq=prev_seq,
        received_ms=1,
        data=Raw(b"{}"),
    )


def course(*channels: str, **options: object) -> Course:
    backoff = Backoff(1.0, 8.0, 30.0, breaker_after=100, breaker_s=8.0, random=lambda: 0.5)
    return Course(channels or ("x",), Options(**options), backoff)  # type: ignore[arg-type] # each test's own


def _in_order(messages: Iterable[PriceUpdate]) -> list[PriceUpdate]:
    return sorted(messages, key=lambda each: each.seq)


class Daemon:
    """A tape, and what it answers to each command on the connection there is."""

    def __init__(self) -> None:
        self._epochs = count(1)
        self._heads = dict.fromkeys(CHANNELS, 0)
        self.coming: deque[Message] = deque()
        self.subscribed: set[str] = set()
        self.restart()

    def restart(self) -> None:
        self.epoch = f"epoch {next(self._epochs)}"
        self.tape: list[PriceUpdate] = []
        self._heads = dict.fromkeys(CHANNELS, 0)
        self.cut()

    def cut(self) -> None:
        self.coming.clear()
        self.subscribed.clear()

    @property
    def seq(self) -> int:
        return len(self.tape)

    def publish(self, channel: str) -> None:
        message = price(self.seq + 1, self._heads[channel], channel)
        self._heads[channel] = message.seq
        self.tape.append(message)
        if channel in self.subscribed:
            self.coming.append(message)

    def welcome(self) -> Welcome:
        server = ServerInfo("tickerd", "1")
        return Welcome(
            timestamp=STAMP, server=server, epoch=self.epoch, seq=self.seq, channels=CHANNELS, heartbeat_s=10.0
        )

    def take(self, command: Command) -> None:
        match command:
            case Ping(id=id_):
                self.coming.append(Pong(timestamp=STAMP, id=id_))
            case Unsubscribe(channels=left):
                self.subscribed -= set(left)
            case Subscribe(channels=named, since=since, id=id_):
                channels: tuple[str, ...] = CHANNELS if ALL in named else tuple(named)
                recovered = since is not None and since.epoch == self.epoch
                answer = Subscribed(
                    timestamp=STAMP,
                    channels=channels,
                    id=id_,
                    epoch=self.epoch,
                    seq=self.seq,
                    recovered=UNSET if since is None else dict.fromkeys(channels, recovered),
                )
                self.coming.append(answer)
                after = since.seq if since is not None and recovered else 0
                missed = [each for each in self.tape if each.connector_id in channels and each.seq > after]
                newest = {each.connector_id: each for each in missed}
                self.coming.extend(missed if recovered else _in_order(newest.values()))
                self.subscribed.update(channels)


STEPS = ("x", "y", "read", "cut", "restart", "refuse", "in between")


@given(st.lists(st.sampled_from(STEPS), max_size=40), st.booleans())
def test_each_message_comes_once_in_order_and_every_loss_is_told(steps: list[str], every: bool) -> None:
    daemon, client, now_s = Daemon(), course(*((ALL,) if every else CHANNELS)), 0.0
    delivered: list[tuple[str, PriceUpdate]] = []
    told: list[object] = []
    breaks = 0
    plan = deque([*steps, "read", "read"])

    def settle() -> None:
        """Do what the course says until it waits for a message that has not come."""
        nonlocal now_s, breaks
        while True:
            match client.next():
                case Deliver(received=PriceUpdate() as message):
                    delivered.append((daemon.epoch, message))
                    assert client.positions[message.connector_id] == Position(daemon.epoch, message.seq)
                case Deliver(received=event):
                    told.append(event)
                case Open(at_s=at_s):
                    assert at_s - now_s <= 8.0
                    now_s = max(now_s, at_s)
                    client.opening(now_s)
                    if plan and plan[0] in ("refuse", "in between"):
                        error: ClientError = ServerUnavailable("away")
                        if plan.popleft() == "in between" and breaks:
                            error = NotUnderstood("a proxy")
                        breaks += 1
                        client.failed(error, now_s)
                        continue
                    for command in client.opened(daemon.welcome()):
                        daemon.take(command)
                case Read() if daemon.coming:
                    client.took(daemon.coming.popleft(), "", now_s)
                case Read():
                    return
                case action:
                    raise AssertionError(action)

    settle()
    while plan:
        match plan.popleft():
            case "cut":
                daemon.cut()
                breaks += 1
                client.failed(Disconnected("cut"), now_s)
            case "restart":
                settle()  # so that all of the old tape has been delivered
                daemon.restart()
                breaks += 1
                client.failed(Disconnected("gone"), now_s)
            case "read" | "refuse" | "in between":
                settle()
            case channel:
                daemon.publish(channel)
        now_s += 1.0
    settle()

    by_epoch: dict[tuple[str, str], list[PriceUpdate]] = {}
    for epoch, message in delivered:
        by_epoch.setdefault((epoch, message.connector_id), []).append(message)
    for messages in by_epoch.values():
        assert all(one.seq == other.prev_seq for one, other in pairwise(messages))
    assert [each for each in told if isinstance(each, Gap)] == []
    assert sum(isinstance(each, Reconnecting) for each in told) == breaks
    for each in told:
        if isinstance(each, Resumed):
            assert (each.lost != ()) <= each.restarted
    for channel in CHANNELS:
        newest = [each.seq for each in daemon.tape if each.connector_id == channel][-1:]
        assert newest == [each.seq for each in by_epoch.get((daemon.epoch, channel), [])][-1:]


def opened(client: Course, seq: int = 10, epoch: str = "e") -> list[Command]:
    """With a connection; what is sent on it."""
    assert isinstance(client.next(), Open)
    client.opening(0.0)
    server = ServerInfo("tickerd", "1")
    return client.opened(
        Welcome(timestamp=STAMP, server=server, epoch=epoch, seq=seq, channels=CHANNELS, heartbeat_s=10.0)
    )


def answered(client: Course, command: Command, *channels: str, **more: object) -> None:
    assert isinstance(command, Subscribe)
    named = channels or tuple(command.channels)
    answer = Subscribed(timestamp=STAMP, channels=named, id=command.id, epoch="e", seq=10, **more)  # type: ignore[arg-type]
    client.took(answer, "", 0.0)


def test_without_a_channel_there_is_nothing_to_do() -> None:
    with pytest.raises(ValueError, match="at least one channel"):
        Course((), Options(), Backoff(1.0, 8.0, 30.0, breaker_after=100, breaker_s=8.0))


def test_a_position_does_not_count_what_has_not_been_delivered() -> None:
    client = course()
    [subscribe, _] = opened(client)
    answered(client, subscribe)
    for message in (price(11, 9), price(20, 15)):
        client.took(message, "text", 0.0)
        action = client.next()
    assert isinstance(action, Deliver)
    assert isinstance(action.received, Gap)
    assert client.positions == {"x": Position("e", 11)}
    action = client.next()
    assert isinstance(action, Deliver)
    assert isinstance(action.received, Data)
    assert (action.received.seq, action.raw) == (20, "text")
    assert client.positions == {"x": Position("e", 20)}


def test_what_says_not_to_come_back_ends_it() -> None:
    for error in (ServerRefused("closed with 1008", 1008), NotUnderstood("no message")):
        client = course()
        opened(client)
        with pytest.raises(type(error)):
            client.failed(error, 1.0)
        assert isinstance(client.next(), Over)


def test_a_refusal_ends_it() -> None:
    client = course()
    [subscribe, _] = opened(client)
    assert isinstance(subscribe, Subscribe)
    error = Error(timestamp=STAMP, code=ErrorCode.UNKNOWN_CHANNEL, message="no channel 'x'", id=subscribe.id)
    with pytest.raises(CommandRefused, match="no channel 'x'"):
        client.took(error, "", 0.0)
    assert isinstance(client.next(), Over)


def test_waits_grow_a_goodbye_is_kept_to_and_a_retry_after_is_the_least() -> None:
    client = course()
    opened(client)
    client.took(Goodbye(timestamp=STAMP, code=1001, reason="stopping", retry_after_s=0.25), "", 5.0)
    client.failed(Disconnected("closed with 1001", 1001), 5.0)
    waits = []
    for error in (None, Disconnected("x"), Disconnected("x"), ServerUnavailable("later", 7.0)):
        if error is not None:
            client.failed(error, 5.0)
        action = client.next()
        assert isinstance(action, Deliver)
        assert isinstance(action.received, Reconnecting)
        waits.append(action.received.retry_in_s)
        assert client.next() == Open(5.0 + waits[-1])
    assert waits == [0.25, 0.5, 1.0, 7.0]


def test_a_connection_that_was_given_up_half_way_is_made_again_at_once() -> None:
    client = course()
    opened(client)
    client.dropped()
    assert client.next() == Open(0.0)


def test_what_was_lost_is_told_and_named_when_it_is_back() -> None:
    client = course()
    [subscribe, ping] = opened(client)
    answered(client, subscribe)
    client.took(price(11, 9), "", 0.0)
    client.next()
    client.failed(Disconnected("cut"), 0.0)
    client.next()
    [subscribe, ping] = opened(client)
    assert isinstance(subscribe, Subscribe)
    assert subscribe.since == Position("e", 11)
    answered(client, subscribe, recovered={"x": False}, missed={"x": 3}, reason="too long ago")
    assert client.next() == Deliver(Lost(("x",), {"x": 3}, "too long ago"), "")
    assert isinstance(ping, Ping)
    client.took(Pong(timestamp=STAMP, id=ping.id), "", 4.0)
    assert client.next() == Deliver(Resumed(4.0, restarted=False, lost=("x",)), "")


def test_leaving_is_kept_across_connections_and_the_last_one_ends_it() -> None:
    client = course("x", "y")
    [subscribe, _] = opened(client)
    answered(client, subscribe)
    command = client.leave(["y", "unknown"])
    assert command is not None
    assert command.channels == ["y"]
    assert client.leave(["y"]) is None
    client.took(price(14, 5, "y"), "", 0.0)
    assert isinstance(client.next(), Read)
    client.failed(Disconnected("cut"), 0.0)
    client.next()
    [subscribe, _] = opened(client)
    assert isinstance(subscribe, Subscribe)
    assert subscribe.channels == ["x"]
    client.leave([ALL])
    assert client.is_over
    assert isinstance(client.next(), Over)


def test_options_that_were_changed_without_a_connection_hold_on_the_next_one() -> None:
    client = course(instruments=("BTC/USDT",))
    assert client.change(("ETH/USDT",), None) == []
    [subscribe, _] = opened(client)
    assert isinstance(subscribe, Subscribe)
    assert (subscribe.instruments, subscribe.since) == (["ETH/USDT"], None)
    answered(client, subscribe)
    client.took(price(11, 9), "", 0.0)
    client.next()
    client.failed(Disconnected("cut"), 0.0)
    client.next()
    assert client.change(None, None) == []
    [subscribe, _] = opened(client)
    assert isinstance(subscribe, Subscribe)
    assert subscribe.instruments is None
    assert subscribe.since == Position("-", 11), "of the others it has had nothing: the daemon says that they are lost"
    client.failed(Disconnected("cut"), 0.0)
    client.next()
    client.change(None, 500)
    [subscribe, _] = opened(client)
    assert isinstance(subscribe, Subscribe)
    assert (subscribe.interval_ms, subscribe.since, subscribe.snapshot) == (500, None, True)
    client.end()
    assert client.change(None, None) == []


def test_options_are_changed_for_what_has_not_been_left() -> None:
    client = course("x", "y", "z")
    [subscribe, _] = opened(client)
    [changed, _] = client.change(None, 500)
    assert isinstance(changed, Subscribe)
    assert changed.channels == ["x", "y", "z"]
    answered(client, subscribe)
    client.leave(["y"])
    [changed, ping] = client.change(None, 1000)
    assert isinstance(changed, Subscribe)
    assert (changed.channels, changed.interval_ms, changed.since) == (["x", "z"], 1000, None)
    assert isinstance(ping, Ping)


def test_many_channels_are_asked_for_in_several_commands() -> None:
    client = course(*(f"c{number}" for number in range(130)))
    *subscribes, ping = opened(client)
    assert [len(each.channels) for each in subscribes if isinstance(each, Subscribe)] == [64, 64, 2]
    assert isinstance(ping, Ping)


def test_a_change_of_a_book_that_has_not_come_has_the_book_sent() -> None:
    client = course("x", since=Position("e", 5))
    [subscribe, _] = opened(client)
    answered(client, subscribe, recovered={"x": True})
    common = {"connector_id": "x", "exchange": "okx", "instrument": "A/B", "timestamp": STAMP, "received_ms": 1}
    levels = {"bids": Raw(b"[]"), "asks": Raw(b"[]"), "data": Raw(b"{}")}
    client.took(DepthUpdate(seq=11, prev_seq=9, **common, **levels), "", 0.0)  # type: ignore[arg-type]
    assert isinstance(client.next(), Renew)
    leave, subscribe, ping = client.renewing()
    assert isinstance(leave, Unsubscribe)
    assert isinstance(subscribe, Subscribe)
    assert isinstance(ping, Ping)
    assert (leave.channels, subscribe.channels, subscribe.since) == (["x"], ["x"], None)
    assert isinstance(client.next(), Read)
