"""The rules that are kept for every venue's websocket: pings, silence, how much a client may ask, how many may come."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count

import pytest
import trio
import trio.testing
from wsproto.events import Message, RejectConnection

from connectors.simulator.faults.active import FaultBoard
from connectors.simulator.http.request import VenueRequest
from connectors.simulator.http.server import UpgradedStream, serve_connection
from connectors.simulator.sockets import VenueSockets
from connectors.simulator.venues.market import Market
from connectors.simulator.venues.sockets import Close, Push, SocketRules, SocketSession
from connectors.simulator.venues.stream import MarketStream
from tests.connectors.simulator.socket_client import SocketClient

Connect = Callable[[], trio.abc.Stream]


class Echo(SocketSession):
    """Says what it is told, closes at `bye`, and pushes what it is asked to push."""

    def __init__(self) -> None:
        self._due: list[Push] = [Push(b"hello")]

    def receive(self, text: str | bytes) -> Sequence[bytes | Close]:
        if text == "bye":
            return [b"so long", Close(4001, "bye"), b"never said"]
        if text == "push":
            self._due = [Push(b"pushed")]
        return [text.encode() if isinstance(text, str) else text]

    def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
        due, self._due = self._due, []
        return due


class Venue:
    """One with these rules."""

    name = "okx"

    def __init__(self, rules: SocketRules) -> None:
        self.rules = rules

    def serves(self, path: str) -> bool:
        return path == "/"

    def open(self, request: VenueRequest, number: int) -> SocketSession:
        return Echo()


@asynccontextmanager
async def served(rules: SocketRules) -> AsyncIterator[Connect]:
    sockets = VenueSockets(
        "okx", lambda stream, known: Venue(rules), MarketStream(Market(1)), FaultBoard(1), lambda: (0, 0)
    )

    numbers = count()

    async def serve(request: VenueRequest, stream: UpgradedStream) -> None:
        await sockets.serve(request, stream, next(numbers), lambda connection: None)

    async with trio.open_nursery() as nursery:

        def connect() -> trio.abc.Stream:
            client, server = trio.testing.memory_stream_pair()
            nursery.start_soon(serve_connection, server, "-", lambda request: sockets.refusal(), serve)
            return client

        yield connect
        nursery.cancel_scope.cancel()


async def opened(connect: Connect, *, pongs: bool = False) -> SocketClient:
    client = SocketClient(connect(), pongs=pongs)
    await client.open()
    assert await client.text() == "hello"
    return client


async def test_replies_come_before_what_is_pushed_because_of_them(autojump_clock: trio.testing.MockClock) -> None:
    async with served(SocketRules()) as connect:
        client = await opened(connect)
        await client.send("push")
        assert [await client.text(), await client.text()] == ["push", "pushed"]


async def test_a_session_can_close_with_its_last_words(autojump_clock: trio.testing.MockClock) -> None:
    async with served(SocketRules()) as connect:
        client = await opened(connect)
        await client.send("bye")
        assert await client.text() == "so long"
        assert await client.closed() == (4001, "bye")


async def test_who_answers_pings_stays_and_who_does_not_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    rules = SocketRules(ping_every_s=20, pong_within_s=60, unanswered=Close(1008, "no pong"))
    async with served(rules) as connect:
        bad = await opened(connect)
        began_s = trio.current_time()
        assert await bad.closed() == (1008, "no pong")
        assert trio.current_time() - began_s == pytest.approx(80, abs=1)
        good = await opened(connect, pongs=True)
        with trio.move_on_after(200) as scope:
            await good.closed()
        assert scope.cancelled_caught
        await good.send("still here")
        while not isinstance(event := await good.event(), Message):
            pass
        assert event.data == "still here"


async def test_a_client_that_asks_too_often_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    rules = SocketRules(requests=5, requests_s=1.0, too_many=Close(1008, "slow down"))
    async with served(rules) as connect:
        patient, hasty = await opened(connect), await opened(connect)
        for _ in range(12):
            await patient.send("x")
            assert await patient.text() == "x"
            await trio.sleep(0.21)
        for _ in range(6):
            await hasty.send("x")
        assert [await hasty.text() for _ in range(5)] == ["x"] * 5
        assert await hasty.closed() == (1008, "slow down")


async def test_no_more_connections_than_the_venue_allows(autojump_clock: trio.testing.MockClock) -> None:
    async with served(SocketRules(connections=2, refused_status=403)) as connect:
        first, _ = await opened(connect), await opened(connect)
        refused = await SocketClient(connect()).open()
        assert isinstance(refused, RejectConnection)
        assert refused.status_code == 403
        await first.send("bye")
        await first.closed()
        await trio.sleep(2)
        await opened(connect)


async def test_connections_that_come_too_often_are_refused_until_time_has_passed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(SocketRules(connects=2, connects_s=10)) as connect:
        await opened(connect)
        await trio.sleep(4)
        await opened(connect)
        assert isinstance(await SocketClient(connect()).open(), RejectConnection)
        await trio.sleep(6.5)
        await opened(connect)
        assert isinstance(await SocketClient(connect()).open(), RejectConnection)


async def test_a_venue_that_has_no_idle_time_waits_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with served(SocketRules(idle_s=None)) as connect, served(SocketRules(idle_s=5, idle=Close(4004))) as strict:
        patient, hasty = await opened(connect), await opened(strict)
        assert (await hasty.closed())[0] == 4004
        await trio.sleep(10_000)
        await patient.send("x")
        assert await patient.text() == "x"
