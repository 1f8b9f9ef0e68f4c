"""A made-up venue, its other end in memory, and a hub that writes everything down: what the tests of a feed stand on.

The venue's frames are plain words: `ok a`, `no a`, `later a`, `a 12.5` (data), `a 12.5 17` (data with its time),
`pong`, `bye`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio
import trio.testing
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection, wrap_server_stream

from connectors.base import Event, PayloadError, StateChange, TopicNote
from connectors.push.address import Address
from connectors.push.venue import (
    ClosingNotice,
    Control,
    Conversation,
    FeedRules,
    Heartbeat,
    Ignored,
    SubscribeAck,
    SubscribeRefused,
    SubscribeRequest,
)

Script = Callable[[WebSocketConnection], Awaitable[None]]

RULES = FeedRules(
    ping="ping",
    ping_after_s=20,
    pong_s=10,
    requests_per_hour=480,
    connect_spacing_s=0.3,
    fatal_close_codes=frozenset({4002}),
)


class Words(Conversation):
    """The made-up venue."""

    name, title, rules = "words", "Words", RULES
    parts: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, *instruments: str) -> None:
        self.channels = tuple(f"{instrument}price" for instrument in instruments)
        self._instruments = instruments

    def subscribe_requests(self) -> list[SubscribeRequest]:
        return [SubscribeRequest(name, f"give {name}", (f"{name}price",), name.upper()) for name in self._instruments]

    def converse(self) -> Conversation:
        return self

    def handle(self, payload: bytes, received_ms: int) -> list[Event] | Control:
        match payload.decode(errors="replace").split():
            case ["ok", id_]:
                return SubscribeAck(id_)
            case ["no", id_]:
                return SubscribeRefused(id_, f"unknown to Words: {id_.upper()}", retry=False)
            case ["later", id_]:
                return SubscribeRefused(id_, "Words is busy", retry=True)
            case ["bye"]:
                return ClosingNotice("Words is about to close")
            case ["pong"]:
                return Heartbeat()
            case ["ping"]:
                return Heartbeat(answer="pong")
            case ["news"]:
                return Ignored("news")
            case [name, price]:
                return [Event(f"{name}price", name.upper(), payload, received_ms, price)]
            case [name, price, at] if at.isdigit():
                return [Event(f"{name}price", name.upper(), payload, received_ms, price, int(at), order=int(at))]
            case _:
                raise PayloadError(f"Words sent {payload!r}")


class Hub:
    """A context that writes everything down."""

    def __init__(self) -> None:
        self.prices: list[str] = []
        self.changes: list[StateChange] = []
        self.notes: list[TopicNote] = []
        self.open = trio.Event()
        self.open.set()
        self.first = trio.Event()
        self.hundred = trio.Event()

    async def publish(self, events: Sequence[Event]) -> None:
        await self.open.wait()
        self.prices += [event.price for event in events]
        self.first.set()
        if len(self.prices) >= 100:
            self.hundred.set()

    async def report(self, change: StateChange) -> None:
        self.changes.append(change)

    async def note(self, notes: Sequence[TopicNote]) -> None:
        self.notes += notes

    def now_ms(self) -> int:
        return 1_765_211_445_122


class Venue:
    """The other end in memory: each dial of the feed is one run of the script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.answers_pings = True
        self.streams: list[trio.abc.Stream] = []
        self.far: list[trio.abc.Stream] = []
        self.heard: list[str] = []
        self.closes: list[CloseReason | None] = []
        self.paths: list[tuple[str, dict[bytes, bytes]]] = []
        self.nursery: trio.Nursery
        self._more = trio.Event()

    async def hears(self, text: str, times: int) -> None:
        """Wait until it has heard that so often."""
        while self.heard.count(text) < times:
            await self._more.wait()

    async def dial(self, address: Address, **_: object) -> trio.abc.Stream:
        near, far = trio.testing.memory_stream_pair()
        self.streams.append(near)
        self.far.append(far)
        self.nursery.start_soon(self._serve, far)
        return near

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            self.paths.append((request.path, dict(request.headers)))
            websocket = await request.accept()
            nursery.start_soon(self.script, websocket)
            try:
                while True:
                    heard = await websocket.get_message()
                    assert isinstance(heard, str)
                    self.heard.append(heard)
                    self._more.set()
                    self._more = trio.Event()
                    if heard == "ping" and self.answers_pings:
                        await websocket.send_message("pong")
            except ConnectionClosed as closed:
                self.closes.append(closed.reason)
                nursery.cancel_scope.cancel()


def say(*texts: str, every_s: float = 0, times: int = 1) -> Script:
    async def script(websocket: WebSocketConnection) -> None:
        for _ in range(times):
            for text in texts:
                await websocket.send_message(text)
            await trio.sleep(every_s)

    return script
