"""A simulator to misuse: on a real port or in memory, with clients that see every byte."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
import trio.testing

from connectors.simulator.faults.orders import read_order
from connectors.simulator.http.server import serve_connection
from connectors.simulator.simulator import Simulator

HANDSHAKE = (
    b"GET /ws/v5/public HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT, CLOSE = 0x81, 0x88


def order(simulator: Simulator, **fields: object) -> None:
    """As a client would order it."""
    simulator.order(read_order(fields))


@asynccontextmanager
async def on_a_port(simulator: Simulator) -> AsyncIterator[int]:
    """The simulator on a free port of loopback, for at most ten seconds."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(simulator.run, listeners)
        with trio.fail_after(10):
            yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def http(port: int) -> AsyncIterator[httpx.AsyncClient]:
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, headers={"user-agent": "a test"}, timeout=5) as client:
        yield client


class Nobody(trio.abc.Listener[trio.SocketStream]):
    """A listener to which nobody connects."""

    async def accept(self) -> trio.SocketStream:
        return await trio.sleep_forever()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def in_memory(simulator: Simulator) -> AsyncIterator[Callable[[], trio.abc.Stream]]:
    """The simulator without sockets; yields what connects to it."""
    async with trio.open_nursery() as nursery:
        await nursery.start(simulator.run, [Nobody()])

        async def serve(stream: trio.abc.Stream) -> None:
            await serve_connection(stream, "127.0.0.1", simulator.answer, simulator._serve_websocket, ("/control",))

        def connect() -> trio.abc.Stream:
            client, server = trio.testing.memory_stream_pair()
            nursery.start_soon(serve, server)
            return client

        yield connect
        nursery.cancel_scope.cancel()


class RawOkx:
    """An OKX client that only splits bytes into frames."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.ended = False
        self.held = b""

    async def open(self) -> "RawOkx":
        await self.stream.send_all(HANDSHAKE)
        while b"\r\n\r\n" not in self.held:
            assert await self._more(), self.held
        head, _, self.held = self.held.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return self

    async def send(self, text: str) -> None:
        """A text frame; a mask of zeros leaves the payload as it is."""
        data = text.encode()
        length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        await self.stream.send_all(b"\x81" + length + bytes(4) + data)

    async def subscribe(self, *instruments: str) -> None:
        args = [{"channel": "tickers", "instId": instrument} for instrument in instruments]
        await self.send(json.dumps({"id": "1", "op": "subscribe", "args": args}))

    async def frame(self) -> tuple[int, bytes] | None:
        """The next whole frame: its first byte and its payload; None at the end, with what is left in `held`."""
        while (found := _frame(self.held)) is None:
            if not await self._more():
                return None
        first, payload, self.held = found
        return first, payload

    async def text(self) -> bytes:
        """The next frame, which is a whole text."""
        found = await self.frame()
        assert found is not None, self.held
        assert found[0] == TEXT
        return found[1]

    async def json(self) -> Any:
        return json.loads(await self.text())

    async def ticker(self) -> Any:
        """The next ticker; other messages are passed over."""
        while True:
            message = await self.json()
            if "data" in message:
                return message["data"][0]

    async def rest(self) -> list[tuple[int, bytes]]:
        """All frames to the end of the connection."""
        frames = []
        while (found := await self.frame()) is not None:
            frames.append(found)
        return frames

    async def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long, not even the end."""
        with trio.move_on_after(seconds) as scope:
            await self.frame()
        return scope.cancelled_caught

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some(65_536)
        except trio.BrokenResourceError:
            data = b""
        self.held += data
        self.ended = not data
        return bool(data)


def _frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """A server's frame of at most 65 535 bytes: first byte, payload, what follows."""
    if len(data) < 2:
        return None
    size, start = data[1], 2
    if size == 126:
        size, start = int.from_bytes(data[2:4], "big"), 4
    if len(data) < start + size:
        return None
    return data[0], data[start : start + size], data[start + size :]
