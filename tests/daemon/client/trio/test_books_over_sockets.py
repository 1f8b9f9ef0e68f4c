"""Books over real sockets: the Python client and an event stream, which come late, are cut off, and lag."""

import json

import pytest
import trio
import trio.lowlevel

from connectors.base import StateChange
from daemon.client import Book, DepthSnapshot, DepthUpdate, Gap, Lagged, Lost, Status, Subscription, connect
from daemon.client.core.events import Received
from protocol.messages import Format as Form
from protocol.messages import Position, decode_message
from tests.daemon.fanout.test_books import CATALOGUE, begins, changes
from tests.daemon.serving import SOON_S, Gateway, open_gateway
from tests.daemon.sessions.event_source import EventSource

INSTRUMENTS = ("X/U", "Y/U")


class Venue:
    """Two books that change all the time."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.number = 0
        self.bids: dict[str, dict[str, str]] = {}
        gateway.publish(StateChange("d", "live"))
        for instrument in INSTRUMENTS:
            self.begin(instrument)

    def begin(self, instrument: str) -> None:
        self.number += 1
        self.bids[instrument] = {"1.5": str(self.number)}
        self.gateway.publish(begins(("d", instrument), (dict(self.bids[instrument]), {"900.5": "1"})))

    def change(self, times: int, *instruments: str, repeated: int = 1) -> None:
        for _ in range(times):
            for instrument in instruments or INSTRUMENTS:
                self.number += 1
                price, quantity = f"{self.number % 37 + 2}.5", str(self.number % 5)
                self.bids[instrument].pop(price, None)
                if quantity != "0":
                    self.bids[instrument][price] = quantity
                self.gateway.publish(changes(("d", instrument), [(price, quantity)] * repeated, []))

    def ordered(self, instrument: str) -> list[tuple[str, str]]:
        return sorted(self.bids[instrument].items(), key=lambda level: -float(level[0]))


class Reader:
    """What a client has made of what it got."""

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self.books = {instrument: Book() for instrument in INSTRUMENTS}
        self.events: list[Received] = []
        self.baseless = 0
        """Changes that came of books that had not come."""

    async def until_right(self) -> None:
        books, venue = self.books, self.venue
        await venue.gateway.wait(lambda: all(books[name].bids == venue.ordered(name) for name in INSTRUMENTS))

    async def listen(self, since: Position | None = None, *channels: str) -> None:
        async with connect(
            f"ws://127.0.0.1:{self.venue.gateway.port}/ws", retry_base_s=0.01, retry_cap_s=0.02
        ) as client:
            async for received in client.subscribe(*(channels or ("d",)), since=since):
                if isinstance(received, DepthSnapshot | DepthUpdate):
                    book = self.books[str(received.instrument)]
                    self.baseless += isinstance(received, DepthUpdate) and not book.is_whole
                    book.take(received)
                else:
                    self.events.append(received)

    async def stream(self, source: EventSource) -> None:
        """One event stream, until it ends."""
        connection = await self.venue.gateway.dial()
        last_id = f"Last-Event-ID: {source.last_id}\r\n" if source.last_id else ""
        request = f"GET /events?channels=d HTTP/1.1\r\nHost: localhost\r\n{last_id}\r\n"
        async with connection:
            await connection.send_all(request.encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += await connection.receive_some(1)
            seen = len(source.messages)
            while data := await connection.receive_some(777):
                source.feed(data)
                for message in source.messages[seen:]:
                    decoded = decode_message(json.dumps(message), Form.JSON)
                    if isinstance(decoded, DepthSnapshot | DepthUpdate):
                        self.books[str(decoded.instrument)].take(decoded)
                seen = len(source.messages)


async def test_who_comes_late_is_cut_off_or_lags_has_the_books_of_who_was_there_from_the_start() -> None:
    async with open_gateway(channels=tuple(CATALOGUE)) as gateway, trio.open_nursery() as nursery:
        venue = Venue(gateway)
        first, late = Reader(venue), Reader(venue)
        nursery.start_soon(first.listen)
        await first.until_right()
        venue.change(700)
        nursery.start_soon(late.listen)
        await late.until_right()
        for cut in range(4):
            venue.change(30)
            for session in gateway.sessions:
                await session.drop()
            venue.change(150 * cut, "X/U")
            if cut == 2:
                venue.begin("Y/U")
            await first.until_right()
            await late.until_right()
        gateway.tape.max_entries = 500
        venue.change(1200, repeated=300)  # more than the sockets take, and more than the tape holds
        await late.until_right()
        await first.until_right()
        told = [each for each in (*first.events, *late.events) if isinstance(each, Gap | Lost)]
        assert told == []
        assert any(isinstance(each, Lagged) for each in late.events)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_an_event_stream_comes_back_to_the_same_books() -> None:
    async with open_gateway(channels=tuple(CATALOGUE)) as gateway, trio.open_nursery() as nursery:
        venue = Venue(gateway)
        venue.change(700)
        reader, source = Reader(venue), EventSource()
        for _ in range(3):
            source = EventSource(source.last_id)
            nursery.start_soon(reader.stream, source)
            await reader.until_right()
            venue.change(100)
            for session in gateway.sessions:
                await session.drop()
            venue.change(40)
        nursery.start_soon(reader.stream, EventSource(source.last_id))
        await reader.until_right()
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize("asked", [("d",), ("*",)])
async def test_who_goes_on_from_a_position_without_a_book_is_given_the_book(asked: tuple[str, ...]) -> None:
    """As a process that knows where the one before it was, and nothing else."""
    async with open_gateway(channels=tuple(CATALOGUE)) as gateway, trio.open_nursery() as nursery:
        venue = Venue(gateway)
        venue.change(20)
        since = Position(gateway.tape.epoch, gateway.tape.head)
        venue.change(3, "Y/U")
        venue.change(2, "X/U")
        reader = Reader(venue)
        nursery.start_soon(reader.listen, since, *asked)
        await reader.until_right()
        for session in gateway.sessions:
            await session.drop()
        venue.change(5)
        await reader.until_right()
        assert reader.baseless == 0
        assert [each for each in reader.events if isinstance(each, Gap | Lost)] == []
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_who_is_cut_off_before_the_book_came_is_given_it_afterwards() -> None:
    async with open_gateway(channels=tuple(CATALOGUE)) as gateway, trio.open_nursery() as nursery:
        venue = Venue(gateway)
        venue.change(20)
        since = Position(gateway.tape.epoch, gateway.tape.head)
        reader = Reader(venue)
        nursery.start_soon(reader.listen, since, "d")
        await gateway.wait(lambda: any(isinstance(each, Status) for each in reader.events))
        venue.change(1, "X/U")
        for session in gateway.sessions:
            await session.drop()
        venue.change(1, "Y/U")
        await reader.until_right()
        assert reader.baseless == 0
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_who_wants_changes_alone_gets_them_from_a_position_on() -> None:
    async with open_gateway(channels=tuple(CATALOGUE)) as gateway:
        venue = Venue(gateway)
        since = Position(gateway.tape.epoch, gateway.tape.head)
        venue.change(2, "X/U")
        url = f"ws://127.0.0.1:{gateway.port}/ws"
        with trio.fail_after(SOON_S):
            async with connect(url) as client, client.subscribe("d", snapshot=False, since=since) as received:
                updates = [each async for each in received if isinstance(each, DepthUpdate) and await _stop(received)]
        assert len(updates) == 1


async def _stop(received: Subscription) -> bool:
    await received.aclose()
    return True
