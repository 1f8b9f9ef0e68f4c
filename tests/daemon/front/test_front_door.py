"""The front door over real sockets: whatever one client does, the next one is served.

`open_door` is a front door on a free port of loopback with a few fake routes, and an `upgrade` that echoes. When a test
leaves it, a fresh client must get its answer: so every test here shows that what it did has harmed nobody else.
"""

import json
import logging
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed, connect_websocket, wrap_server_stream

from daemon.front.admission import Admission, Policy
from daemon.front.arrivals import Transport, Upgrade
from daemon.front.front_door import FrontDoor
from daemon.front.http import Conversation, Later, Refused, Request, Response
from daemon.front.limits import Limits
from daemon.host.clock import WallClock
from protocol.codes import ErrorCode
from protocol.messages import Error, Format, decode_message

LIMITS = Limits(
    head_bytes=2048,
    body_bytes=64,
    handshake_s=5.0,
    keep_alive_s=5.0,
    write_deadline_s=5.0,
    clients=20,
    clients_per_address=2,
)
POLICY = Policy(limits=LIMITS, connections=50, connections_per_address=3)
CLOCK = WallClock(lambda: 1_765_211_445_123_000_000)
GET = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MASKED_HELLO = b"\x81\x85\x00\x00\x00\x00hello"


class FakeLater:
    """What has to be waited for."""

    def __init__(self, routes: "FakeRoutes", path: str) -> None:
        self._routes = routes
        self._path = path

    async def wait(self) -> None:
        self._routes.begun.set()
        if self._path == "/later/bug":
            raise ZeroDivisionError("a bug")
        await self._routes.go.wait()

    def answer(self) -> Response:
        if self._path == "/later/refused":
            raise Refused(400, ErrorCode.INVALID_FIELD, "no")
        return Response(200, b'"later"')


class FakeRoutes:
    """`/hello` greets, `/echo` gives the body back, `/slow` waits for `go`, `/bug` fails; all else is unknown.

    What is below `/later` waits for `go`, too, as what has to be waited for.
    """

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.go = trio.Event()

    async def answer(self, request: Request) -> Response | Later:
        match request.path:
            case path if path.startswith("/later"):
                return FakeLater(self, path)
            case "/hello":
                return Response(200, b'"hello"')
            case "/echo":
                return Response(200, request.body)
            case "/slow":
                self.begun.set()
                await self.go.wait()
                return Response(200, b'"at last"')
            case "/bug":
                raise ZeroDivisionError("a bug")
            case _:
                raise Refused(404, ErrorCode.NOT_FOUND, f"nothing is at {request.path!r}")


class Replay(trio.abc.Stream):
    """First the head, then the rest, but not before the handshake is answered: wsproto would drop it."""

    def __init__(self, upgrade: Upgrade) -> None:
        self._stream: trio.abc.Stream = upgrade.stream
        self._head = upgrade.head
        self._trailing = upgrade.trailing
        self._answered = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._head:
            first, self._head = self._head, b""
            return first
        await self._answered.wait()
        if self._trailing:
            first, self._trailing = self._trailing, b""
            return first
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)
        self._answered.set()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def echo(upgrade: Upgrade) -> None:
    """Every message back, until the client closes."""
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, Replay(upgrade))
        with suppress(ConnectionClosed):
            websocket = await request.accept(subprotocol=upgrade.subprotocol)
            while True:
                await websocket.send_message(await websocket.get_message())
        nursery.cancel_scope.cancel()


class Client:
    """A client made of bytes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._left = b""

    async def send(self, sent: bytes) -> None:
        await self.stream.send_all(sent)

    async def until(self, mark: bytes) -> bytes:
        while mark not in self._left:
            more = bytes(await self.stream.receive_some(4096))
            assert more, f"ended after {self._left!r}"
            self._left += more
        found, _, self._left = self._left.partition(mark)
        return found

    async def exactly(self, size: int) -> bytes:
        while len(self._left) < size:
            more = bytes(await self.stream.receive_some(4096))
            assert more, f"ended after {self._left!r}"
            self._left += more
        found, self._left = self._left[:size], self._left[size:]
        return found

    async def response(self, *, bodiless: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next response: its status, its headers, its body."""
        status, *lines = (await self.until(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = b"" if bodiless else await self.exactly(int(headers.get("content-length", "0")))
        return int(status.split()[1]), headers, body

    async def refusal(self) -> tuple[int, Error]:
        """The next response, which has to be an error object."""
        status, headers, body = await self.response()
        assert headers["content-type"] == "application/json"
        error = decode_message(body, Format.JSON)
        assert isinstance(error, Error)
        assert error.timestamp == CLOCK.timestamp()
        return status, error

    async def greeted(self) -> None:
        """Ask for `/hello` and get it."""
        await self.send(GET)
        status, _, body = await self.response()
        assert (status, body) == (200, b'"hello"')

    async def ended(self) -> None:
        """Nothing more comes."""
        assert self._left == b""
        assert bytes(await self.stream.receive_some(4096)) == b""


class Door(msgspec.Struct):
    """An open front door."""

    front: FrontDoor
    routes: FakeRoutes
    port: int

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            yield Client(stream)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Until the door has noticed what happened at the other end of a socket."""
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


@asynccontextmanager
async def open_door(
    *,
    policy: Policy = POLICY,
    tls: ssl.SSLContext | None = None,
    upgrade: Callable[[Upgrade], Any] = echo,
) -> AsyncIterator[Door]:
    routes = FakeRoutes()
    front = FrontDoor(admission=Admission(policy), tls=tls, routes=routes, upgrade=upgrade, clock=CLOCK)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]
            assert await nursery.start(front.run, listeners) == listeners
            door = Door(front, routes, port)
            yield door
            if front.accepting and tls is None:
                async with door.client() as client:
                    await client.greeted()
            nursery.cancel_scope.cancel()
    assert front.statistics().connections_open == 0
    assert front.statistics().clients_open == 0


def limited(**changes: Any) -> Policy:
    return msgspec.structs.replace(POLICY, limits=msgspec.structs.replace(LIMITS, **changes))


def connected(connections: int) -> Policy:
    return msgspec.structs.replace(POLICY, connections=connections)


# Plain requests.


async def test_an_ordinary_http_client_is_served() -> None:
    async with open_door() as door, httpx.AsyncClient(base_url=f"http://127.0.0.1:{door.port}") as client:
        for _ in range(3):
            assert (await client.get("/hello")).json() == "hello"
        response = await client.post("/echo", content=b"some body")
        assert (response.status_code, response.content) == (200, b"some body")
        assert (await client.head("/hello")).headers["content-length"] == "7"
        missing = await client.get("/missing")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        assert (await client.put("/ws")).headers["allow"] == "GET"
        statistics = door.front.statistics()
        assert (statistics.accepted_count, statistics.requests_count, statistics.refused_count) == (1, 7, 2)
        assert (statistics.connections_open, statistics.clients_open) == (1, 0)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with open_door() as door, door.client() as client:
        posts = [b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(5)]
        await client.send(b"".join(posts) + b"HEAD /hello HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
        for n in range(5):
            assert (await client.response())[2] == b"%d" % n
        assert (await client.response(bodiless=True))[0] == 200
        assert (await client.response())[2] == b'"hello"'


async def test_http_1_0_and_connection_close_are_answered_and_ended() -> None:
    async with open_door() as door:
        for sent in (b"GET /hello HTTP/1.0\r\n\r\n", GET[:-2] + b"Connection: close\r\n\r\n"):
            async with door.client() as client:
                await client.send(sent)
                status, headers, body = await client.response()
                assert (status, headers["connection"], body) == (200, "close", b'"hello"')
                await client.ended()


async def test_a_body_is_asked_for_where_the_client_waits() -> None:
    async with open_door() as door, door.client() as client:
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
        assert (await client.response())[0] == 100
        await client.send(b"body")
        assert (await client.response())[2] == b"body"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 5000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 500_000, 431),
        (b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000, 413),
        (b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 99_999, 413),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
async def test_what_is_refused_is_told_why_and_the_connection_ends(sent: bytes, status: int) -> None:
    async with open_door() as door, door.client() as client, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            # The door reads on for a while, so that the answer is not lost in a reset; not to the end of all this.
            with suppress(trio.BrokenResourceError):
                await client.send(sent)

        seen, error = await client.refusal()
        assert (seen, bool(error.message)) == (status, True)
        await client.ended()
        nursery.cancel_scope.cancel()


async def test_a_head_that_never_ends_is_refused_at_its_deadline() -> None:
    async with open_door(policy=limited(handshake_s=0.1)) as door, door.client() as client:
        await client.send(GET[:-2])
        status, error = await client.refusal()
        assert (status, error.code) == (408, ErrorCode.TIMEOUT)
        await client.ended()


async def test_a_client_that_sends_nothing_and_one_that_pauses_are_closed() -> None:
    async with open_door(policy=limited(handshake_s=0.1)) as door, door.client() as client:
        await client.ended()
    async with open_door(policy=limited(keep_alive_s=0.1)) as door, door.client() as client:
        await client.greeted()
        await client.ended()


async def test_a_half_closed_client_gets_its_answers() -> None:
    async with open_door() as door:
        async with door.client() as client:
            await client.send(GET + GET)
            await client.stream.send_eof()
            for _ in range(2):
                assert (await client.response())[2] == b'"hello"'
            await client.ended()
        async with door.client() as client:
            await client.send(GET[:-3])
            await client.stream.send_eof()
            assert (await client.refusal())[0] == 400
            await client.ended()


@pytest.mark.parametrize("sent", [b"", GET[:-2], GET, GET * 20, HANDSHAKE, HANDSHAKE + MASKED_HELLO])
async def test_a_reset_ends_that_connection_only(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with open_door() as door:
        async with door.client() as client:
            await client.send(sent)
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await door.wait(lambda: door.front.statistics().connections_open == 0)
    assert caplog.records == []


async def test_a_bug_in_a_route_costs_a_500_and_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with open_door() as door, door.client() as client:
        await client.send(GET.replace(b"/hello", b"/bug?token=secret"))
        status, error = await client.refusal()
        assert (status, error.code) == (500, ErrorCode.INTERNAL)
        assert "bug" not in error.message
        await client.greeted()
        assert door.front.statistics().failed_count == 1
    [record] = caplog.records
    assert record.getMessage() == "GET '/bug' from 127.0.0.1 failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_another_pages_post_is_refused() -> None:
    async with open_door() as door, door.client() as client:
        post = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nOrigin: http://%s\r\nContent-Length: 1\r\n\r\nx"
        await client.send(post % b"evil.example" + post % b"localhost")
        assert (await client.refusal())[0] == 403
        assert (await client.response())[2] == b"x"


async def test_an_ipv4_client_of_an_ipv6_listener_is_known_by_its_ipv4_address() -> None:
    seen: list[str] = []

    async def upgrade(upgrade: Upgrade) -> None:
        seen.append(upgrade.peer)

    front = FrontDoor(admission=Admission(POLICY), tls=None, routes=FakeRoutes(), upgrade=upgrade, clock=CLOCK)
    both = trio.socket.socket(socket.AF_INET6)
    both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    await both.bind(("::ffff:127.0.0.1", 0))
    both.listen()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(front.run, [trio.SocketListener(both)])
            async with await trio.open_tcp_stream("127.0.0.1", both.getsockname()[1]) as stream:
                await stream.send_all(HANDSHAKE)
                await Client(stream).ended()
            nursery.cancel_scope.cancel()
    assert seen == ["127.0.0.1"]


# Upgrades.


@pytest.mark.parametrize(
    ("subprotocols", "confirmed"),
    [([], None), (["tickerd.v1.json"], "tickerd.v1.json"), (["x", "tickerd.v1.msgpack"], "tickerd.v1.msgpack")],
)
async def test_an_independent_client_gets_a_websocket(subprotocols: list[str], confirmed: str | None) -> None:
    async with open_door() as door, trio.open_nursery() as nursery:
        websocket = await connect_websocket(
            nursery, "127.0.0.1", door.port, "/ws?x=1", use_ssl=False, subprotocols=subprotocols
        )
        await websocket.send_message("hello")
        assert await websocket.get_message() == "hello"
        assert websocket.subprotocol == confirmed
        statistics = door.front.statistics()
        assert (statistics.upgrades_count, statistics.clients_open, statistics.connections_open) == (1, 1, 1)
        await websocket.aclose()
        await door.wait(lambda: door.front.statistics().clients_open == 0)


async def test_an_upgrade_follows_requests_on_the_same_connection_and_keeps_what_came_behind_it() -> None:
    async with open_door() as door, door.client() as client:
        await client.greeted()
        await client.send(GET + HANDSHAKE + MASKED_HELLO)
        assert (await client.response())[0] == 200
        assert (await client.response())[0] == 101
        assert await client.exactly(7) == b"\x81\x05hello"


async def test_the_upgrade_is_told_all_about_the_client() -> None:
    seen: list[Upgrade] = []

    async def upgrade(upgrade: Upgrade) -> None:
        seen.append(upgrade)

    async with open_door(upgrade=upgrade) as door, door.client() as client:
        offer = b"Sec-WebSocket-Protocol: tickerd.v1.msgpack\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        await client.send(HANDSHAKE[:-2] + offer + b"xyz")
        await client.ended()
        [found] = seen
        assert isinstance(found.stream, trio.SocketStream)
        assert (found.peer, found.format, found.trailing) == ("127.0.0.1", Format.MSGPACK, b"xyz")
        assert found.subprotocol == "tickerd.v1.msgpack"
        assert b"permessage-deflate" not in found.head


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Upgrade: websocket\r\n", b"", 426),
        (b"Version: 13", b"Version: 12", 426),
        (b"Connection: Upgrade\r\n", b"", 400),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400),
        (b"Host: localhost", b"Host: localhost\r\nOrigin: http://evil.example", 403),
        (b"Host: localhost", b"Host: localhost\r\nSec-WebSocket-Protocol: chat", 400),
        (b"GET", b"POST", 405),
        (b"/ws", b"/wss", 404),
    ],
)
async def test_a_bad_handshake_is_told_why_and_the_connection_goes_on(old: bytes, new: bytes, status: int) -> None:
    own = msgspec.structs.replace(POLICY, origins=frozenset())
    async with open_door(policy=own) as door, door.client() as client:
        assert old in HANDSHAKE
        await client.send(HANDSHAKE.replace(old, new, 1))
        assert (await client.refusal())[0] == status
        await client.greeted()
        assert door.front.statistics().upgrades_count == 0


async def test_a_failing_upgrade_is_logged_once_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    async def upgrade(upgrade: Upgrade) -> None:
        async with trio.open_nursery():
            raise ZeroDivisionError("in a session")

    async with open_door(upgrade=upgrade) as door, door.client() as client:
        await client.send(HANDSHAKE)
        await client.ended()
        assert door.front.statistics().failed_count == 1
    [record] = caplog.records
    assert record.getMessage() == "connection from 127.0.0.1 failed"
    assert record.exc_text is not None
    assert "in a session" in record.exc_text


async def test_a_failure_during_the_stop_is_logged_and_the_stop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError("while it was cancelled")

    async def upgrade(upgrade: Upgrade) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await trio.sleep_forever()

    async with open_door(upgrade=upgrade) as door, door.client() as client:
        await client.send(HANDSHAKE)
        await door.wait(lambda: door.front.statistics().clients_open == 1)
    assert [record.getMessage() for record in caplog.records] == ["connection from 127.0.0.1 failed"]


# Limits.


async def test_no_more_clients_than_there_are_places() -> None:
    async with open_door(policy=limited(clients=1)) as door, door.client() as first, door.client() as second:
        await first.send(HANDSHAKE)
        assert (await first.response())[0] == 101
        await second.send(HANDSHAKE)
        status, headers, body = await second.response()
        assert (status, json.loads(body)["code"], headers["connection"]) == (503, "full", "close")
        assert 5 <= int(headers["retry-after"]) <= 15
        await second.ended()
        await first.stream.aclose()
        await door.wait(lambda: door.front.statistics().clients_open == 0)
        async with door.client() as third:
            await third.send(HANDSHAKE)
            assert (await third.response())[0] == 101


async def test_no_more_connections_than_there_are_places() -> None:
    async with open_door(policy=connected(2)) as door, door.client() as one:
        async with door.client() as two:
            await one.greeted()
            await two.greeted()
            async with door.client() as three:
                status, error = await three.refusal()
                assert (status, error.code) == (503, ErrorCode.FULL)
                await three.ended()
        await door.wait(lambda: door.front.statistics().connections_open == 1)


async def test_loopback_may_have_more_clients_than_another_address() -> None:
    async with open_door() as door, AsyncExitStack() as clients:
        for _ in range(POLICY.connections_per_address + 2):
            client = await clients.enter_async_context(door.client())
            await client.send(HANDSHAKE)
            assert (await client.response())[0] == 101
        assert door.front.statistics().clients_open == POLICY.connections_per_address + 2


@pytest.fixture
def from_afar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every client seems to come from one remote address: real ones are all on loopback, which is excepted."""
    monkeypatch.setattr("daemon.front.front_door._peer_of", lambda stream: "192.0.2.1")


@pytest.mark.usefixtures("from_afar")
async def test_one_address_may_not_take_all_places() -> None:
    async with open_door() as door:
        async with door.client() as one, door.client() as two, door.client() as three:
            for client in (one, two):
                await client.send(HANDSHAKE)
                assert (await client.response())[0] == 101
            await three.send(HANDSHAKE)
            status, error = await three.refusal()
            assert (status, error.code) == (503, ErrorCode.FULL)
            assert error.message == "192.0.2.1 has 2 clients already, which is the limit"
        await door.wait(lambda: door.front.statistics().connections_open == 0)


@pytest.mark.usefixtures("from_afar")
async def test_one_address_may_not_take_all_connections() -> None:
    async with open_door() as door:
        async with door.client() as one, door.client() as two, door.client() as three, door.client() as four:
            for client in (one, two, three):
                await client.greeted()
            status, error = await four.refusal()
            assert (status, error.code) == (503, ErrorCode.FULL)
            assert error.message == "192.0.2.1 has 3 connections already, which is the limit"
        await door.wait(lambda: door.front.statistics().connections_open == 0)


# The stop.


async def test_after_the_stop_what_has_begun_is_finished_and_nothing_begins() -> None:
    async with (
        open_door() as door,
        door.client() as idle,
        door.client() as slow,
        door.client() as late,
        door.client() as websocket,
    ):
        await idle.greeted()
        await late.send(HANDSHAKE[:-2])
        await websocket.send(HANDSHAKE)
        assert (await websocket.response())[0] == 101
        await slow.send(GET.replace(b"/hello", b"/slow") + GET)
        await door.routes.begun.wait()
        await door.wait(lambda: door.front.statistics().connections_open == 4)

        door.front.stop_accepting()
        assert not door.front.accepting
        await idle.ended()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", door.port)

        await late.send(HANDSHAKE[-2:])
        status, headers, body = await late.response()
        assert (status, json.loads(body)["code"]) == (503, "unavailable")
        assert "retry-after" in headers
        await late.ended()

        door.routes.go.set()
        status, headers, body = await slow.response()
        assert (status, headers["connection"], body) == (200, "close", b'"at last"')
        await slow.ended()

        await websocket.send(MASKED_HELLO)
        assert await websocket.exactly(7) == b"\x81\x05hello"
        # The slow one's second request was dropped: until its client closes, the door reads on so that no reset comes.
        await door.wait(lambda: door.front.statistics().connections_open == 2)


async def test_a_connection_that_was_accepted_just_before_the_stop_is_closed() -> None:
    front = FrontDoor(admission=Admission(POLICY), tls=None, routes=FakeRoutes(), upgrade=echo, clock=CLOCK)
    front.stop_accepting()
    received, _ = await answers(b"", front)
    assert received == b""


async def test_answers_are_waited_for_and_clients_are_not() -> None:
    async with open_door() as door, door.client() as slow, door.client() as websocket:
        await websocket.send(HANDSHAKE)
        assert (await websocket.response())[0] == 101
        await slow.send(GET.replace(b"/hello", b"/slow"))
        await door.routes.begun.wait()
        door.front.stop_accepting()
        with trio.move_on_after(0.1) as too_soon:
            await door.front.wait_answered()
        assert too_soon.cancelled_caught
        door.routes.go.set()
        with trio.fail_after(10):
            await door.front.wait_answered()
        assert (await slow.response())[0] == 200
        assert door.front.statistics().connections_open == 1


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("/later", 200, "later"), ("/later/refused", 400, "no"), ("/later/bug", 500, "the daemon failed to answer")],
)
async def test_what_has_to_be_waited_for_holds_up_nobody(path: str, status: int, body: str) -> None:
    async with open_door() as door, door.client() as waiting, door.client() as other:
        await waiting.send(GET.replace(b"/hello", path.encode()))
        await door.routes.begun.wait()
        for _ in range(20):
            await other.send(GET)
            assert (await other.response())[0] == 200
        door.routes.go.set()
        answer = await waiting.response()
        assert answer[0] == status
        assert body.encode() in answer[2]


async def test_a_wait_is_nobodys_share_of_the_time() -> None:
    async with open_door() as door:
        before = door.front._turns._mean_s
        async with door.client() as waiting:
            await waiting.send(GET.replace(b"/hello", b"/later"))
            await door.routes.begun.wait()
            await trio.sleep(0.3)
            door.routes.go.set()
            assert (await waiting.response())[0] == 200
        assert door.front._turns._mean_s < max(before, 0.3 / 20)


async def test_run_returns_when_the_last_connection_has_ended() -> None:
    front = FrontDoor(admission=Admission(POLICY), tls=None, routes=FakeRoutes(), upgrade=echo, clock=CLOCK)
    returned = trio.Event()

    async def run(task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        await front.run(await trio.open_tcp_listeners(0, host="127.0.0.1"), task_status=task_status)
        returned.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(run)
            stream = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
            client = Client(stream)
            await client.send(HANDSHAKE)
            assert (await client.response())[0] == 101
            front.stop_accepting()
            await trio.testing.wait_all_tasks_blocked()
            assert not returned.is_set()
            await stream.aclose()
            await returned.wait()


# TLS.


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost and its key, in one file."""
    pem = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    try:
        subprocess.run([*command, "-keyout", pem, "-out", f"{pem}.crt"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    pem.write_text(pem.read_text() + Path(f"{pem}.crt").read_text())
    return pem


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def client_tls(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=f"{certificate}.crt")


async def test_tls_serves_requests_and_websockets(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with open_door(tls=server_tls) as door:
        url = f"https://localhost:{door.port}"
        async with httpx.AsyncClient(base_url=url, verify=client_tls) as client:
            assert (await client.get("/hello")).json() == "hello"
            assert (await client.post("/echo", content=b"x" * 65)).status_code == 413
            assert (await client.post("/echo", content=b"x", headers={"Origin": url})).status_code == 200
        async with trio.open_nursery() as nursery:
            websocket = await connect_websocket(
                nursery, "localhost", door.port, "/ws", use_ssl=client_tls, extra_headers=[(b"Origin", url.encode())]
            )
            await websocket.send_message("hello")
            assert await websocket.get_message() == "hello"
            await websocket.aclose()


async def test_over_the_limit_tls_is_not_even_begun(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with open_door(tls=server_tls, policy=connected(1)) as door:
        async with door.client() as one:
            await door.wait(lambda: door.front.statistics().connections_open == 1)
            async with door.client() as two:
                await two.ended()
            assert door.front.statistics().refused_count == 1
            await one.send(b"\x00" * 5)
        await door.wait(lambda: door.front.statistics().connections_open == 0)
        async with httpx.AsyncClient(base_url=f"https://localhost:{door.port}", verify=client_tls) as client:
            assert (await client.get("/hello")).json() == "hello"


@pytest.mark.parametrize("sent", [GET, b"", b"\x16\x03\x01", b"\x00" * 5000])
async def test_what_speaks_no_tls_is_closed_in_time(
    sent: bytes, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_door(tls=server_tls, policy=limited(handshake_s=0.3)) as door:
        async with door.client() as client:
            await client.send(sent)
            with suppress(trio.BrokenResourceError):
                while await client.stream.receive_some():
                    pass
        assert door.front.statistics().broken_count == 1
        async with httpx.AsyncClient(base_url=f"https://localhost:{door.port}", verify=client_tls) as next_client:
            assert (await next_client.get("/hello")).json() == "hello"
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


# Any bytes, over streams in memory.


async def answers(sent: bytes, front: FrontDoor | None = None) -> tuple[bytes, FrontDoor]:
    """All that the door says to these bytes and then the end."""
    front = front or FrontDoor(
        admission=Admission(POLICY), tls=None, routes=FakeRoutes(), upgrade=no_upgrade, clock=CLOCK
    )
    client, server = trio.testing.memory_stream_pair()
    deadline = trio.current_time() + LIMITS.handshake_s
    http = Conversation(server, LIMITS, CLOCK, peer="127.0.0.1", secure=False, head_deadline=deadline)
    await client.send_all(sent)
    await client.send_eof()
    # The door takes what sockets give it; for requests any stream does.
    upgrade = await front.converse(cast("Transport", server), http)
    if upgrade is not None:
        await upgrade.stream.aclose()
    received = b""
    while more := bytes(await client.receive_some()):
        received += more
    return received, front


async def no_upgrade(upgrade: Upgrade) -> None:
    await upgrade.stream.aclose()


@given(sent=st.binary(max_size=4000))
async def test_arbitrary_bytes_give_an_error_or_nothing(sent: bytes) -> None:
    received, front = await answers(sent)
    assert received == b"" or received.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501", b"HTTP/1.1 505"))
    assert received.count(b"HTTP/1.1 ") <= 1
    assert front.statistics().failed_count == 0


WELL_FORMED = (
    GET + HANDSHAKE.replace(b"/ws", b"/echo") + b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nsome body"
)
SPLICE = st.tuples(st.integers(0, len(WELL_FORMED)), st.integers(0, 8), st.binary(max_size=8))


@given(splices=st.lists(SPLICE, max_size=4))
async def test_damaged_requests_never_count_as_a_failure(splices: list[tuple[int, int, bytes]]) -> None:
    damaged = WELL_FORMED
    for start, removed, put in splices:
        damaged = damaged[:start] + put + damaged[start + removed :]
    received, front = await answers(damaged)
    for status in (line.split()[1] for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")):
        assert status == b"100" or status[:1] in (b"2", b"4") or status in (b"501", b"505")
    assert front.statistics().failed_count == 0
