"""What systemd is told, received by a real datagram socket; and the status in words."""

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import State, StateChange
from daemon.health.board import ChannelState, Condition, TopicState
from daemon.health.status_line import StatusLine, publish_status
from daemon.host.systemd import Notifier
from tests.daemon.serving import Gateway


class Manager:
    """The other end: what systemd would receive."""

    def __init__(self, address: str, listening: socket.socket) -> None:
        self.address = address
        self._socket = listening

    @property
    def received(self) -> list[str]:
        """What has come since the last time, a datagram each."""
        datagrams: list[str] = []
        while True:
            try:
                datagrams.append(self._socket.recv(65536).decode())
            except BlockingIOError:
                return datagrams

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@tickerd-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        yield Manager(address, listening)


@pytest.fixture
def notifier(manager: Manager) -> Iterator[Notifier]:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address})
    yield notifier
    notifier.close()


def test_each_state_is_one_datagram(manager: Manager, notifier: Notifier) -> None:
    notifier.ready()
    notifier.status("serving 1 client")
    notifier.watchdog()
    notifier.stopping()
    assert manager.received == [
        "READY=1",
        "STATUS=serving 1 client",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=saying goodbye to the clients",
    ]


def test_a_reload_says_when_it_began_in_the_same_datagram(manager: Manager, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    [datagram] = manager.received
    state, when = datagram.split("\n")
    assert state == "RELOADING=1"
    name, _, value = when.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= after


def test_a_status_is_one_line_and_is_told_once(manager: Manager, notifier: Notifier) -> None:
    notifier.status("all\nREADY=1\r\n well")
    notifier.status("all\nREADY=1\r\n well")
    assert manager.received == ["STATUS=all READY=1 well"]
    notifier.status("other")
    assert manager.received == ["STATUS=other"]


def test_the_status_of_a_stop_is_the_last(manager: Manager, notifier: Notifier) -> None:
    notifier.stopping()
    assert len(manager.received) == 1
    notifier.status("serving 12 clients")
    assert manager.received == []


def test_without_a_socket_nothing_is_told() -> None:
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000000"})
    assert not notifier.is_heard
    assert notifier.watchdog_s is None
    for method in (notifier.ready, notifier.reloading, notifier.stopping, notifier.watchdog, notifier.close):
        method()
    notifier.status("nobody hears it")


@pytest.mark.parametrize("address", ["vsock:2:1234", "@", "/", "relative/path"])
def test_an_address_of_another_kind_is_logged_and_nothing_is_told(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    assert not notifier.is_heard
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert address in caplog.text


def test_a_socket_that_is_gone_is_logged_once_and_harms_nobody(
    manager: Manager, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    manager.close()
    for _ in range(3):
        notifier.ready()
        notifier.watchdog()
        notifier.status("well")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["systemd cannot be told READY=1"]


def test_a_full_socket_never_waits_and_the_newest_state_is_told_later(
    manager: Manager, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel queues so many datagrams (net.unix.max_dgram_qlen), and systemd may be busy."""
    caplog.set_level(logging.INFO)
    sent = 0
    while not caplog.records:
        notifier.watchdog()
        sent += 1
        assert sent < 100_000
    notifier.reloading()
    notifier.ready()
    notifier.status("serving 3 clients")
    assert len(caplog.records) == 1
    assert manager.received == ["WATCHDOG=1"] * (sent - 1)
    notifier.status("serving 3 clients")
    notifier.status("serving 3 clients")
    assert manager.received == ["READY=1", "STATUS=serving 3 clients"]
    assert caplog.messages[1:] == ["systemd is told again"]


OWN = str(os.getpid())


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": OWN}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_PID": OWN}, None),
    ],
)
def test_the_watchdogs_time_is_taken_where_it_is_meant_for_this_process(
    environ: dict[str, str], expected: float | None, manager: Manager
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address, **environ})
    assert notifier.watchdog_s == expected
    notifier.close()


@pytest.mark.parametrize("time_us", ["0", "-1", "soon", "1e6"])
def test_a_watchdogs_time_that_is_none_is_logged(
    time_us: str, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": time_us})
    assert notifier.watchdog_s is None
    assert repr(time_us) in caplog.text
    notifier.close()


# The status in words.


def state(name: State, retry_in_s: float | None = None, *, last_event_ms: int | None = None) -> ChannelState:
    return ChannelState(name, 1, "why", retry_in_s, last_event_ms, 5.0)


def test_the_status_names_what_is_not_live_and_when_it_is_tried_again() -> None:
    channels = {f"live_{number}": state("live") for number in range(7)} | {
        "coingecko_global": state("stale"),
        "bitcoinprice": state("down", 12.0),
        "ethprice": state("down", 40.0),
    }
    assert StatusLine().words(12, channels, 0.0) == (
        "serving 12 clients; 7 channels live; stale: coingecko_global; "
        "down: bitcoinprice, ethprice (next attempt in 12 s)"
    )
    assert StatusLine().words(1, {"one": state("live")}, 0.0) == "serving 1 client; 1 channel live"


def test_the_status_names_the_instruments_that_a_live_channel_lacks() -> None:
    halted = TopicState(Condition("down", "halted", "not trading"), 1)
    remark = TopicState(Condition("live", "unreadable", "`lastPrice` is null"), 1)
    channels = {"majors": ChannelState("live", 1, topics={"A/U": halted, "B/U": remark})}
    assert StatusLine().words(1, channels, 0.0) == "serving 1 client; 1 channel live; without A/U of majors"


def test_the_wait_is_counted_down_from_when_it_was_first_seen() -> None:
    line = StatusLine()

    def told(now_s: float, retry_in_s: float | None, last_event_ms: int = 1) -> str:
        channels = {"okx": state("reconnecting", retry_in_s, last_event_ms=last_event_ms)}
        return line.words(0, channels, now_s).removeprefix("serving 0 clients; 0 channels live; reconnecting: okx")

    assert told(100.0, 12.0) == " (next attempt in 12 s)"
    # More data of the time before is no other state.
    assert told(105.0, 12.0, last_event_ms=2) == " (next attempt in 7 s)"
    assert told(113.0, 12.0) == ""
    assert told(114.0, 300.0) == " (next attempt in 5 min)"
    assert told(115.0, None) == ""
    assert told(116.0, 300.0) == " (next attempt in 5 min)"


@given(
    st.integers(0, 10**6),
    st.dictionaries(
        st.text("abcdefghij_", min_size=1, max_size=200),
        st.builds(
            state,
            st.sampled_from(["live", "stale", "reconnecting", "connecting", "down"]),
            st.none() | st.floats(0, 10**6),
        ),
        max_size=100,
    ),
)
def test_the_status_is_of_bounded_length_whatever_the_channels(clients: int, channels: dict[str, ChannelState]) -> None:
    words = StatusLine().words(clients, channels, 0.0)
    assert len(words) <= 500
    assert words.startswith(f"serving {clients} client")


def test_many_channels_are_not_all_named() -> None:
    words = StatusLine().words(0, {f"c{number}": state("down") for number in range(10)}, 0.0)
    assert words == "serving 0 clients; 0 channels live; down: c0, c1, c2, c3, c4, c5 and 4 more"


async def test_the_status_is_published_when_it_changes_once_a_second_at_most(
    manager: Manager, notifier: Notifier, autojump_clock: trio.testing.MockClock
) -> None:
    gateway = Gateway()
    async with trio.open_nursery() as nursery:
        await nursery.start(publish_status, notifier, lambda: len(gateway.sessions), gateway.board.states)
        await trio.testing.wait_all_tasks_blocked()
        assert manager.received == ["STATUS=serving 0 clients; 0 channels live; connecting: bitcoinprice, ethprice"]
        await trio.sleep(10.1)
        assert manager.received == []
        for change in (StateChange("bitcoinprice", "live"), StateChange("ethprice", "live")):
            gateway.publish(change)
            await trio.sleep(0.4)
        gateway.publish(StateChange("ethprice", "down", "no network"))
        await trio.sleep(0.5)
        assert manager.received == ["STATUS=serving 0 clients; 1 channel live; down: ethprice"]
        nursery.cancel_scope.cancel()


async def test_where_nobody_hears_the_status_none_is_made(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(60):
        await publish_status(Notifier(), lambda: 0, Gateway().board.states)
