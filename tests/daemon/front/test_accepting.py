"""A crowd is accepted in few turns of the event loop, and a shortage ends nothing."""

import errno
import fcntl
import logging
import os
import random
import socket
import sys
import time
from contextlib import ExitStack, suppress

import pytest
import trio
import trio.testing

from daemon.front.accepting import _SHORTAGES, AT_ONCE, _plain, serve_connections

SOON_S = 5.0

_SIOCOUTQ, _SIOCOUTQNSD = 0x5411, 0x894B
"""The bytes that a socket holds: those not acknowledged yet, those not sent yet (tcp(7), linux/sockios.h)."""


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_a_crowd_is_accepted_in_a_few_turns() -> None:
    served: list[trio.SocketStream] = []
    enough, turns = trio.Event(), Turns()
    crowd = 2 * AT_ONCE + 1

    async def serve(stream: trio.SocketStream) -> None:
        served.append(stream)
        if len(served) == crowd:
            enough.set()
        await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=crowd)
    address = listeners[0].socket.getsockname()
    waiting = [socket.create_connection(address) for _ in range(crowd)]
    with trio.fail_after(SOON_S):
        async with trio.open_nursery() as nursery:
            trio.lowlevel.add_instrument(turns)
            await nursery.start(serve_connections, serve, listeners, nursery)
            await enough.wait()
            trio.lowlevel.remove_instrument(turns)
            nursery.cancel_scope.cancel(reason="the test is over")
    for connection in waiting:
        connection.close()
    # Three for the accepting, and a few for the nursery and the event; one each would be more than a hundred.
    assert turns.count < 12


async def test_what_is_served_is_closed_and_the_listeners_too_when_it_ends() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listeners[0].socket.getsockname()
    with trio.fail_after(SOON_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_connections, serve, listeners, nursery)
            async with await trio.open_tcp_stream(*address) as stream:
                assert await stream.receive_some() == b"hello"
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel(reason="the test is over")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


class Failing:
    """A listening socket whose next calls of accept fail."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    def __call__(self, listener: trio.SocketListener) -> "Failing":
        self.plain = _plain(listener)
        self.fileno, self.detach = self.plain.fileno, self.plain.detach
        return self

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            raise OSError(self.errors.pop(0), "scripted")
        return self.plain.accept()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED, errno.EPERM])
async def test_a_shortage_or_a_connection_that_failed_ends_nothing(
    error: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("daemon.front.accepting._plain", Failing(error, error, error))
    monkeypatch.setattr("daemon.front.accepting._AGAIN_S", 0.001)

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listeners[0].socket.getsockname()
    caplog.set_level(logging.ERROR)
    with trio.fail_after(SOON_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_connections, serve, listeners, nursery)
            async with await trio.open_tcp_stream(*address) as stream:
                assert await stream.receive_some() == b"hello"
            nursery.cancel_scope.cancel(reason="the test is over")
    assert len(caplog.records) == (error in _SHORTAGES), "a shortage is logged once"


async def test_a_listener_that_failed_for_good_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.front.accepting._plain", Failing(errno.EINVAL))

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with (
        trio.fail_after(SOON_S),
        pytest.raises(ExceptionGroup) as caught,
        socket.create_connection(listeners[0].socket.getsockname()),
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_connections, serve, listeners, nursery)
    assert caught.group_contains(OSError, match="scripted")


async def test_clients_of_this_machine_that_stalled_and_read_in_bites_are_not_kept_waiting() -> None:
    """They read as nginx does. They stall in real time, because the kernel's clock cannot be jumped."""
    bites = (1024, 2048, 4096, 6000, 8192, 12_000, 16_384, 20_000) * 6
    messages = [bytes(size) for size in (586, 586, 586, 700, 8400, 2500)]
    dice = random.Random(1)
    served: list[trio.SocketStream] = []
    all_there = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 512 * 1024)
        served.append(stream)
        if len(served) == len(bites):
            all_there.set()
        await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=len(bites))
    with ExitStack() as until_the_end:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_connections, serve, listeners, nursery)
            address = listeners[0].socket.getsockname()
            clients = [until_the_end.enter_context(socket.create_connection(address)) for _ in bites]
            await all_there.wait()
            plain = [until_the_end.enter_context(_copy(stream)) for stream in served]
            end_s = trio.current_time() + 2.2
            while trio.current_time() < end_s:
                for each in plain:
                    with suppress(BlockingIOError):
                        each.send(dice.choice(messages))
                await trio.sleep(0.004)
            # From here on no process is needed but this one: on a busy machine, too, all that is left comes at once.
            heard_s = time.monotonic()
            while time.monotonic() - heard_s < 0.6:
                for client, bite in zip(clients, bites, strict=True):
                    client.setblocking(False)
                    with suppress(BlockingIOError):
                        client.recv(bite)
                        heard_s = time.monotonic()
            stuck = [size for size in map(_held_back, plain) if size]
            nursery.cancel_scope.cancel(reason="the test is over")
    assert stuck == []


def _held_back(sender: socket.socket) -> int:
    """How many bytes the kernel holds back although nothing is under way; 0 where something is.

    Something is where the client's kernel threw away what it had no room for: then it is sent again, later.
    """
    unacknowledged, unsent = (
        int.from_bytes(fcntl.ioctl(sender, request, bytes(4)), sys.byteorder) for request in (_SIOCOUTQ, _SIOCOUTQNSD)
    )
    return unsent if unsent == unacknowledged else 0


def _copy(stream: trio.SocketStream) -> socket.socket:
    """Another descriptor of the same socket, to be written to without waiting."""
    copy = socket.socket(fileno=os.dup(stream.socket.fileno()))
    copy.setblocking(False)
    return copy
