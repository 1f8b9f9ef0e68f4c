"""Front door, sessions and hub in this process on a free port of loopback, and a client made of hand-made bytes.

`open_gateway` is what the tests of `daemon.sessions.sessions` run against. Leaving it, a fresh client must get its
welcome: so every such test shows that what it did has harmed nobody else.
"""

import json
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
import trio
import trio.testing

from connectors.base import Event, StateChange
from daemon.fanout.hub import Hub
from daemon.front.admission import Admission, Policy
from daemon.front.front_door import FrontDoor
from daemon.front.http import Request, Response
from daemon.front.limits import Limits
from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.ingest.inbox import Item
from daemon.publish.bus import Bus
from daemon.publish.sequencer import Passes, Sequencer
from daemon.sessions.event_stream import EventStreams
from daemon.sessions.sessions import Sessions
from daemon.sessions.websocket import WebSockets
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from protocol.channels import Catalogue, Channel
from protocol.kinds import KINDS
from protocol.messages import ServerInfo

SOON_S = 5.0
"""Longer than anything that a test waits for takes; a test that fails by it is red, not slow."""

CHANNELS = (
    Channel(name="bitcoinprice", exchange="okx", kind=KINDS["ticker"], instruments=("BTC/USDT",)),
    Channel(name="ethprice", exchange="okx", kind=KINDS["ticker"], instruments=("ETH/USDT",)),
)

LIMITS = Limits(
    message_bytes=2048,
    handshake_s=SOON_S,
    ping_every_s=60.0,
    silent_after_s=60.0,
    write_deadline_s=60.0,
    commands_per_s=1.0,
    commands_burst=50,
    channels_per_command=8,
    errors_in_a_row=5,
    head_bytes=4096,
    body_bytes=1024,
    keep_alive_s=SOON_S,
    clients=1000,
    clients_per_address=1000,
)

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0

SUBSCRIBE = b'{"type":"subscribe","channels":["bitcoinprice"],"id":1}'


def handshake(subprotocol: str | None = None) -> bytes:
    lines = [
        "GET /ws HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *([f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def client_frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    """A frame as a client sends it (RFC 6455 section 5.2), with the key 1234."""
    size = len(payload)
    bit = 0x80 if masked else 0
    first = opcode | (0x80 if fin else 0)
    head = struct.pack("!BB", first, bit | size) if size < 126 else struct.pack("!BBH", first, bit | 126, size)
    if not masked:
        return head + payload
    key = b"1234"
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def price(number: int = 1, *, channel: str = "bitcoinprice", size: int = 2) -> Event:
    instrument = "BTC/USDT" if channel == "bitcoinprice" else "ETH/USDT"
    data = b'{"n":%d,"pad":"%s"}' % (number, b"x" * size)
    return Event(channel=channel, instrument=instrument, data=data, received_ms=1, price=f"{number}.50")


class Closed(Exception):
    """The other side closed; `code` is that of its close frame, 1006 where there was none (RFC 6455 section 7.1.5)."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class HandMade:
    """A websocket client that does as it is told, frame by frame. It answers nothing by itself."""

    def __init__(self, stream: trio.abc.Stream, received: bytes = b"") -> None:
        self.stream = stream
        self._received = bytearray(received)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await trio.aclose_forcefully(self.stream)

    async def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError as broken:
                raise Closed(1006, "reset") from broken
            if not data:
                raise Closed(1006, f"end of the stream, behind {len(self._received)} bytes of a frame")
            self._received += data
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    async def frame(self) -> tuple[int, bytes]:
        """The next frame. The server's must be whole and unmasked."""
        first, second = await self._exactly(2)
        assert first & 0x70 == 0, f"reserved bits in {first:#x}"
        assert first & 0x80, "a server that sends fragments"
        assert second & 0x80 == 0, "a masked frame of a server"
        size = second
        if second >= 126:
            size = int.from_bytes(await self._exactly(2 if second == 126 else 8), "big")
        return first & 0x0F, await self._exactly(size)

    async def payload(self) -> bytes:
        """The next data message; pings are passed over. Raises: Closed."""
        with trio.fail_after(SOON_S):
            while True:
                opcode, payload = await self.frame()
                if opcode == CLOSE:
                    raise Closed(int.from_bytes(payload[:2], "big"), payload[2:].decode())
                if opcode in (TEXT, BINARY):
                    return payload

    async def message(self) -> dict[str, Any]:
        message = json.loads(await self.payload())
        assert isinstance(message, dict)
        return message

    async def until(self, tag: str) -> dict[str, Any]:
        """Read on to the first message of that type."""
        while True:
            message = await self.message()
            if message["type"] == tag:
                return message

    async def closed(self) -> Closed:
        """Read everything until the other side closes."""
        while True:
            try:
                await self.payload()
            except Closed as closed:
                return closed

    async def ended(self) -> None:
        """The other side has closed the connection, not only the websocket."""
        with trio.fail_after(SOON_S):
            try:
                while await self.stream.receive_some(65536):
                    pass
            except trio.BrokenResourceError:
                return

    async def send(self, payload: bytes, opcode: int = TEXT) -> None:
        await self.stream.send_all(client_frame(opcode, payload))

    async def say(self, **command: object) -> None:
        await self.send(json.dumps(command).encode())

    async def subscribe(self, *channels: str) -> None:
        await self.say(type="subscribe", channels=list(channels), snapshot=False)
        for _ in (await self.until("subscribed"))["channels"]:
            await self.until("status")


def policy(limits: Limits = LIMITS, **changes: Any) -> Policy:
    """A policy with room for everybody, unless it is changed."""
    return msgspec.structs.replace(Policy(limits=limits, connections=1000, connections_per_address=1000), **changes)


class _Routes:
    async def answer(self, request: Request) -> Response:
        return Response(200, json.dumps(request.path).encode())


class Gateway:
    """What runs."""

    def __init__(
        self,
        *,
        limits: Limits = LIMITS,
        tls: ssl.SSLContext | None = None,
        write: Callable[[int, bytes], int] = os.write,
        channels: Sequence[Channel] = CHANNELS,
    ) -> None:
        self.clock = clock = WallClock()
        catalogue = Catalogue(channels)
        self.board = Board(catalogue, clock.now_ms())
        self.tape = Tape(10_000, 64 * 1024 * 1024)
        self.ledger = Ledger()
        bus = Bus()
        passes = Passes(rest_ratio=0.0, rest_max_ms=0.0)
        self.sequencer = Sequencer(self.tape, self.board, self.ledger, clock, bus, passes)
        self.hub = Hub(self.tape, self.ledger, clock, write)
        bus.add(self.hub)
        self.sessions = Sessions(
            tape=self.tape,
            hub=self.hub,
            board=self.board,
            ledger=self.ledger,
            clock=clock,
            limits=limits,
            server=ServerInfo("tickerd", "test"),
        )
        self.inbox, self.outbox = trio.open_memory_channel[Item](16)
        self.door = FrontDoor(
            # A peer that takes no answer is not waited for as long as a client is.
            admission=Admission(policy(msgspec.structs.replace(limits, write_deadline_s=SOON_S))),
            tls=tls,
            routes=_Routes(),
            upgrade=WebSockets(self.sessions).serve,
            clock=clock,
            events=EventStreams(self.sessions),
        )
        self.port = 0
        self.ending = trio.CancelScope()

    def publish(self, *items: Event | StateChange) -> None:
        for item in items:
            self.sequencer.publish([item] if isinstance(item, StateChange) else [(item,)])

    async def dial(self, *, receive_buffer: int | None = None) -> trio.SocketStream:
        """A connection. A small receive buffer makes it fill up soon."""
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.port))
        return trio.SocketStream(sock)

    async def upgrade(
        self, stream: trio.abc.Stream, *, subprotocol: str | None = None, behind: bytes = b""
    ) -> HandMade:
        """Open the websocket on a connection; `behind` goes with the handshake in one segment."""
        with trio.fail_after(SOON_S):
            await stream.send_all(handshake(subprotocol) + behind)
            received = bytearray()
            while b"\r\n\r\n" not in received:
                data = await stream.receive_some(4096)
                assert data, f"no answer to the handshake, but {bytes(received)!r}"
                received += data
        head, _, rest = bytes(received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return HandMade(stream, rest)

    async def client(self, *, subprotocol: str | None = None, receive_buffer: int | None = None) -> HandMade:
        """A client that has had its welcome."""
        stream = await self.dial(receive_buffer=receive_buffer)
        client = await self.upgrade(stream, subprotocol=subprotocol)
        welcome = msgspec.msgpack.decode(await client.payload()) if subprotocol else await client.message()
        assert welcome["type"] == "welcome"
        return client

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Until the server has noticed what happened at the other end of a socket."""
        with trio.fail_after(SOON_S):
            while not condition():
                await trio.testing.wait_all_tasks_blocked(0.001)

    async def all_gone(self) -> None:
        """Wait until the server has let go of every client it has now."""
        with trio.fail_after(SOON_S):
            for session in self.sessions:
                await session.wait_gone()


@asynccontextmanager
async def open_gateway(
    *,
    limits: Limits = LIMITS,
    tls: ssl.SSLContext | None = None,
    trusting: ssl.SSLContext | None = None,
    write: Callable[[int, bytes], int] = os.write,
    channels: Sequence[Channel] = CHANNELS,
) -> AsyncIterator[Gateway]:
    """Run it, but for the sweeper: a test calls `sessions.sweep` when it wants to."""
    gateway = Gateway(limits=limits, tls=tls, write=write, channels=channels)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    gateway.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        gateway.ending = nursery.cancel_scope
        await nursery.start(gateway.sequencer.run, gateway.outbox)
        await nursery.start(gateway.hub.run)
        await nursery.start(gateway.sessions.turns.run)
        await nursery.start(gateway.door.run, listeners)
        yield gateway
        if gateway.door.accepting:
            stream: trio.abc.Stream = await gateway.dial()
            if trusting is not None:
                stream = trio.SSLStream(stream, trusting, server_hostname="localhost", https_compatible=True)
            async with await gateway.upgrade(stream) as fresh:
                assert (await fresh.message())["type"] == "welcome", "the next client is not served"
        nursery.cancel_scope.cancel(reason="the test is over")


def certificate(folder: Path, *, passphrase: str | None = None) -> tuple[Path, Path]:
    """A throw-away certificate for localhost, and its key."""
    pem, key = folder / "localhost.pem", folder / "localhost.key"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    secrecy = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
    command = ["openssl", *made.split(), *names, *secrecy, "-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": os.environ["PATH"]})
    return pem, key
