"""A client of any simulated venue that sees every event of its websocket."""

from __future__ import annotations

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import CloseConnection, Event, Message, Ping, Pong, Request, TextMessage


class SocketClient:
    """A client that sees every frame, and answers pings only if told to."""

    def __init__(self, stream: trio.abc.Stream, path: str = "/", *, pongs: bool = False) -> None:
        self._stream = stream
        self._path = path
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._pongs = pongs
        self._seen: list[Event] = []

    async def open(self) -> Event:
        await self._stream.send_all(self._wire.send(Request(host="venue", target=self._path)))
        return await self.event()

    async def send(self, text: str) -> None:
        await self._stream.send_all(self._wire.send(TextMessage(data=text)))

    async def event(self) -> Event:
        while not self._seen:
            data = bytes(await self._stream.receive_some())
            self._wire.receive_data(data or None)
            for event in self._wire.events():
                if isinstance(event, Ping) and self._pongs:
                    await self._stream.send_all(self._wire.send(Pong(payload=event.payload)))
                self._seen.append(event)
        return self._seen.pop(0)

    async def text(self) -> str:
        event = await self.event()
        assert isinstance(event, Message), event
        return str(event.data)

    async def closed(self) -> tuple[int, str | None]:
        while not isinstance(event := await self.event(), CloseConnection):
            pass
        return event.code, event.reason
