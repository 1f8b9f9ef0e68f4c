"""The watchdog is fed while messages and connections get through, and at no other time."""

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from daemon.front.certificate import tls_context
from daemon.front.listening import ServerSettings
from daemon.host.systemd import Notifier
from daemon.ingest.inbox import Turn
from daemon.sessions.canary import Canary
from daemon.tape.tape import CANARY
from tests.daemon.serving import SOON_S, Gateway, certificate, open_gateway

SHORT_S = 0.3
"""For a look that is to fail: it lasts that long."""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(str(tmp_path / "notify"))
        yield listening


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    notifier = Notifier(manager.getsockname(), 60.0)
    yield notifier
    notifier.close()


def fed(manager: socket.socket) -> int:
    """How often the watchdog was fed since the last time; nothing else may have come."""
    count = 0
    while True:
        try:
            assert manager.recv(4096) == b"WATCHDOG=1"
        except BlockingIOError:
            return count
        count += 1


async def until_fed(manager: socket.socket) -> None:
    with trio.fail_after(SOON_S):
        while not fed(manager):
            await trio.lowlevel.wait_readable(manager)


async def send(gateway: Gateway, payload: bytes) -> None:
    await gateway.inbox.send(Turn(partial(gateway.sequencer.tell, CANARY, payload)))


def knocking_at(gateway: Gateway, *listening: socket.socket) -> Canary:
    """A canary for this hub and door, that knocks at these sockets instead of the door's own."""
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in listening]
    return Canary(partial(send, gateway), gateway.hub, gateway.door, listeners)


class Blockable(Gateway):
    """A gateway whose sequencer can be stopped between two passes."""

    passes = trio.CancelScope()
    release = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The sequencer's task."""
        while True:
            with trio.CancelScope() as self.passes:
                task_status.started()
                await self.sequencer.run(self.outbox)
            task_status = trio.TASK_STATUS_IGNORED
            await self.release.wait()

    def block(self) -> trio.Event:
        """Stop it until the event is set."""
        self.release = trio.Event()
        self.passes.cancel(reason="blocked")
        return self.release


@asynccontextmanager
async def watched(
    *, tls: ssl.SSLContext | None = None, beside: Sequence[trio.SocketListener] = ()
) -> AsyncIterator[tuple[Blockable, Canary]]:
    """A gateway, and a canary for its own door; it knocks at the listeners `beside` too."""
    gateway = Blockable(tls=tls)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    gateway.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run)
        await nursery.start(gateway.door.run, listeners)
        yield gateway, Canary(partial(send, gateway), gateway.hub, gateway.door, [*listeners, *beside])
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_all_is_well_where_messages_and_connections_get_through() -> None:
    async with watched() as (gateway, canary), await gateway.client() as client:
        assert await canary.look(SOON_S) == ""
        assert await canary.look(SOON_S) == ""
        # It is on the tape, as no data; no client sees it, and none is counted.
        newest = gateway.tape.newest(CANARY)
        assert newest is not None
        assert (newest.ordinal, newest.seq, newest.data) == (2, 2, False)
        gateway.sequencer.broadcast_test("hello")
        assert (await client.message())["type"] == "test"
        statistics = gateway.hub.statistics()
        assert (gateway.sequencer.events, statistics.subscribers, statistics.groups) == (0, 1, 1)
        assert gateway.door.statistics().clients_open == 1


async def test_a_hub_that_does_not_turn_is_found() -> None:
    gateway = Gateway()  # nobody runs its hub
    with socket.create_server(("127.0.0.1", 0)) as listening:
        canary = knocking_at(gateway, listening)
        assert await canary.look(SHORT_S) == f"a message did not get through the hub within {SHORT_S} s"
        assert gateway.hub.statistics().groups == 0


async def test_a_memory_channel_that_is_full_is_found() -> None:
    gateway = Gateway()
    for _ in range(16):
        gateway.inbox.send_nowait([])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert "a message did not get through the hub" in await knocking_at(gateway, listening).look(SHORT_S)


async def test_a_hub_that_takes_messages_and_writes_nothing_is_found() -> None:
    def lost(fd: int, data: bytes) -> int:
        return len(data)

    async with open_gateway(write=lost) as gateway:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            assert "a message did not get through the hub" in await knocking_at(gateway, listening).look(SHORT_S)


async def test_a_hub_that_is_blocked_for_a_while_is_well_again_with_the_late_canary_on_the_tape() -> None:
    async with watched() as (gateway, canary):
        release = gateway.block()
        assert "through the hub" in await canary.look(SHORT_S)
        release.set()
        assert await canary.look(SOON_S) == ""
        newest = gateway.tape.newest(CANARY)
        assert newest is not None
        assert newest.ordinal == 2


async def test_a_port_that_the_kernel_answers_and_nobody_accepts_at_is_found() -> None:
    async with open_gateway() as gateway:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            found = await knocking_at(gateway, listening).look(SHORT_S)
    assert found == f"the front door did not let in a connection to 127.0.0.1 port {port} within {SHORT_S} s"


async def test_a_port_that_is_closed_is_found() -> None:
    async with open_gateway() as gateway:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            canary = knocking_at(gateway, listening)
        assert f"a connection to 127.0.0.1 port {port}: " in await canary.look(SOON_S)


async def test_each_listener_is_knocked_at() -> None:
    [silent] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with silent, watched(beside=[silent]) as (_, canary):
        assert f"port {silent.socket.getsockname()[1]} within" in await canary.look(SHORT_S)


async def test_a_front_door_that_is_full_still_lets_in() -> None:
    async with watched() as (gateway, canary):
        admission = gateway.door.admission
        with ExitStack() as crowd:
            for _ in range(1000):
                crowd.enter_context(admission.connection("192.0.2.1"))
            assert await canary.look(SOON_S) == ""
            assert gateway.door.statistics().refused_count == 1
            for _ in range(100):
                crowd.enter_context(admission.connection("192.0.2.1"))
            assert not admission.may_explain("127.0.0.1")
            assert await canary.look(SOON_S) == ""
            assert gateway.door.statistics().refused_count == 2


async def test_a_front_door_that_speaks_tls_lets_in(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    tls = tls_context(ServerSettings(certificate=str(pem), key=str(key)))
    async with watched(tls=tls) as (gateway, canary):
        assert await canary.look(SOON_S) == ""
        assert gateway.door.statistics().accepted_count == 1


@pytest.mark.parametrize(
    ("family", "bound", "v6only", "reached"),
    [
        (socket.AF_INET, "127.0.0.2", False, "127.0.0.2"),
        (socket.AF_INET, "0.0.0.0", False, "127.0.0.1"),
        (socket.AF_INET6, "::1", True, "::1"),
        (socket.AF_INET6, "::", True, "::1"),
        (socket.AF_INET6, "::", False, "127.0.0.1"),
    ],
)
async def test_every_address_is_reached_from_this_machine(
    family: socket.AddressFamily, bound: str, v6only: bool, reached: str
) -> None:
    try:
        listening = socket.socket(family)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        listening.bind((bound, 0))
    except OSError:
        pytest.skip(f"{bound} is not there")
    with listening:
        listening.listen()
        async with open_gateway() as gateway:
            [(_, address)] = knocking_at(gateway, listening)._addresses
            assert address[0] == reached
            with socket.create_connection((reached, listening.getsockname()[1]), timeout=SOON_S):
                pass


# The watchdog.


async def test_the_watchdog_is_fed_again_and_again_while_all_is_well(
    manager: socket.socket, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched() as (_, canary), trio.open_nursery() as nursery:
        await nursery.start(canary.run, notifier, 0.1)
        for _ in range(3):
            await until_fed(manager)
        nursery.cancel_scope.cancel()
    assert caplog.messages == []


async def test_the_watchdog_starves_while_the_hub_is_blocked_and_is_fed_when_it_is_well_again(
    manager: socket.socket, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "daemon.sessions.canary")
    async with watched() as (gateway, canary), trio.open_nursery() as nursery:
        release = gateway.block()
        await nursery.start(canary.run, notifier, 0.4)
        await trio.sleep(0.5)
        assert fed(manager) == 0
        release.set()
        await until_fed(manager)
        nursery.cancel_scope.cancel()
    assert caplog.messages == [
        "a message did not get through the hub within 0.1 s: systemd's watchdog is not fed, "
        "and ends the daemon in 0.4 s",
        "the hub and the front door are well again: systemd's watchdog is fed",
    ]


async def test_the_watchdog_starves_while_the_front_door_accepts_nothing(
    manager: socket.socket, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_gateway() as gateway, trio.open_nursery() as nursery:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            await nursery.start(knocking_at(gateway, silent).run, notifier, 0.2)
            await trio.sleep(0.4)
            assert fed(manager) == 0
            nursery.cancel_scope.cancel()
    assert len(caplog.messages) == 1


async def test_it_ends_without_a_word_when_the_daemon_stops(
    manager: socket.socket, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched() as (gateway, canary), trio.open_nursery() as nursery:
        await nursery.start(canary.run, notifier, 0.4)
        await until_fed(manager)
        gateway.door.stop_accepting()
        gateway.inbox.close()
        with trio.fail_after(SOON_S):
            await canary.run(notifier, 0.4)
    assert caplog.messages == []


async def test_a_look_takes_its_place_behind_what_is_under_way() -> None:
    """What comes before it in the memory channel is on the tape before it."""
    async with watched() as (gateway, canary):
        order: list[str] = []
        await gateway.inbox.send(Turn(lambda: order.append(str(gateway.tape.newest(CANARY)))))
        assert await canary.look(SOON_S) == ""
        assert order == ["None"]
