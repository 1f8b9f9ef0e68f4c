"""What a client may meet: a daemon of which the test says each word, and a relay that can cut connections."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio_websocket import WebSocketConnection, WebSocketRequest, serve_websocket

from tests.daemon.serving import SOON_S

STAMP = "2025-12-08T16:30:45.123Z"
CHANNELS = ("bitcoinprice", "ethprice")


class Talk:
    """One connection to the scripted daemon.

    Attributes:
        headers: of the opening handshake, names in lower case.
    """

    def __init__(self, websocket: WebSocketConnection, headers: dict[str, str]) -> None:
        self.headers = headers
        self.websocket = websocket
        self.over = trio.Event()

    async def say(self, **message: Any) -> None:
        """Send a message."""
        await self.websocket.send_message(json.dumps({"timestamp": STAMP, **message}))

    async def welcome(self, *, epoch: str = "first", seq: int = 10, heartbeat_s: float = 60) -> None:
        """Send the first message."""
        server = {"name": "tickerd", "version": "1"}
        await self.say(type="welcome", server=server, epoch=epoch, seq=seq, channels=CHANNELS, heartbeat_s=heartbeat_s)

    async def hear(self) -> Any:
        """The client's next command."""
        with trio.fail_after(SOON_S):
            return json.loads(await self.websocket.get_message())

    async def commands(self) -> list[Any]:
        """What the client says on a new connection, but for the ping behind it, which is answered."""
        found = []
        while (command := await self.hear())["type"] != "ping":
            found.append(command)
        self.settle = command["id"]
        return found

    async def subscribed(self, command: Any, *, seq: int = 10, epoch: str = "first", **more: Any) -> None:
        """Answer a `subscribe`."""
        await self.say(type="subscribed", channels=command["channels"], id=command["id"], seq=seq, epoch=epoch, **more)

    async def pong(self) -> None:
        """Answer the ping behind the subscriptions."""
        await self.say(type="pong", id=self.settle)

    async def price(self, seq: int, prev_seq: int, channel: str = "bitcoinprice", instrument: str = "BTC/USDT") -> None:
        """Send a data message."""
        await self.say(
            type="price_update",
            connector_id=channel,
            exchange="okx",
            instrument=instrument,
            price=1.5,
            seq=seq,
            prev_seq=prev_seq,
            received_ms=1,
            data={"last": "1.50"},
        )

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a close frame."""
        with trio.move_on_after(1):
            await self.websocket.aclose(code, reason)
        self.over.set()


class Scripted:
    """The daemon. Set `refuse` to (status, headers, body) and it answers that instead of an upgrade."""

    def __init__(self) -> None:
        self.url = ""
        self.refuse: tuple[int, list[tuple[bytes, bytes]], bytes] | None = None
        self._arrivals, self._arrived = trio.open_memory_channel[Talk](16)

    async def talk(self) -> Talk:
        """The next connection."""
        with trio.fail_after(SOON_S):
            return await self._arrived.receive()

    async def handle(self, request: WebSocketRequest) -> None:
        headers = {name.decode().lower(): value.decode() for name, value in request.headers}
        if self.refuse is not None:
            status, extra, body = self.refuse
            length = (b"Content-Length", str(len(body)).encode())
            await request.reject(status, extra_headers=[*extra, length], body=body)
            return
        talk = Talk(await request.accept(subprotocol="tickerd.v1.json"), headers)
        await self._arrivals.send(talk)
        await talk.over.wait()


@asynccontextmanager
async def open_scripted() -> AsyncIterator[Scripted]:
    """Run it."""
    scripted = Scripted()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, scripted.handle, "127.0.0.1", 0, None)
        scripted.url = f"ws://127.0.0.1:{server.port}/ws"
        yield scripted
        nursery.cancel_scope.cancel()


class Relay:
    """A port that stays, in front of one that changes.

    Attributes:
        target: the port behind it; 0 for none.
    """

    def __init__(self) -> None:
        self.port = 0
        self.target = 0
        self._scopes: set[trio.CancelScope] = set()

    def cut(self) -> None:
        """Break all connections, in the middle of whatever they carry."""
        for scope in self._scopes:
            scope.cancel()

    async def handle(self, near: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                far = await trio.open_tcp_stream("127.0.0.1", self.target)
                async with near, far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass_on, far, near, scope)
                    await self._pass_on(near, far, scope)
            except OSError:
                return
            finally:
                self._scopes.discard(scope)
                await trio.aclose_forcefully(near)

    async def _pass_on(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def open_relay() -> AsyncIterator[Relay]:
    """Run it."""
    relay = Relay()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    relay.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, relay.handle, listeners)
        yield relay
        nursery.cancel_scope.cancel()
