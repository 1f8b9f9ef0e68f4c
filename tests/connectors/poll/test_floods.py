"""A venue whose answer never comes to its end is left soon, by its bytes and not only by the clock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from connectors.base import VenueUnavailable
from connectors.poll.host import Host
from connectors.poll.poller import Poller
from connectors.poll.wire import MOST_UNSEEN_BYTES
from tests.connectors.poll.test_poller import Plain, World, channel
from tests.connectors.push.test_floods import MOST_TURN_S, longest_turn

FLOOD_BYTES = 16 * 1024 * 1024
"""Nobody sends more than this: a client that takes all of it has no bound."""

MOST_TAKEN_BYTES = 8 * 1024 * 1024
"""What two sockets' buffers may hold beside what is read."""

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Venue:
    """Says one thing, and then another again and again.

    Attributes:
        port: where it listens.
        sent_bytes: how much it was rid of.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.sent_bytes = 0


@asynccontextmanager
async def venue(opening: bytes, flood: bytes, ending: bytes = b"", times: int = 0) -> AsyncIterator[Venue]:
    """Such a venue: the flood is endless unless `times` says how often it is said before the `ending`."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for _ in stream:
                await stream.send_all(opening)
                many = flood * (65_536 // len(flood))
                if times:
                    await stream.send_all(flood * times + ending)
                while not times and one.sent_bytes < FLOOD_BYTES:
                    await stream.send_all(many)
                    one.sent_bytes += len(many)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        one = Venue(listener.socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield one
        nursery.cancel_scope.cancel()


def poller(port: int, timeout_s: float = 60.0) -> Poller:
    host = Host("Acme", f"http://127.0.0.1:{port}", timeout_s=timeout_s, user_agent="tickerd/1")
    return Poller(channel(), Plain(), host)


@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="informational answers"),
        pytest.param(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n", id="hints"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n", id="header lines"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", b"x", id="one header"),
        pytest.param(b"HTTP/1.1 200 ", b"x", id="a reason"),
        pytest.param(CHUNKED + b"2\r\n12\r\n0\r\n", b"X-More: and more\r\n", id="trailing headers"),
        pytest.param(CHUNKED + b"2\r\n12\r\n0\r\nX: ", b"x", id="one trailing header"),
        pytest.param(CHUNKED + b"2;", b"x", id="a chunk's extension"),
        pytest.param(CHUNKED, b"0", id="a chunk's length"),
    ],
)
async def test_what_is_no_body_is_bounded_by_its_bytes(opening: bytes, flood: bytes) -> None:
    errors: list[str] = []

    async def run() -> None:
        with trio.fail_after(60), pytest.raises(VenueUnavailable) as raised:
            await poller(acme.port).run(World())
        errors.append(str(raised.value))

    async with venue(opening, flood) as acme:
        assert await longest_turn(run) < MOST_TURN_S
    # h11 has a bound of its own for what it sees is too long: that is told as an answer that broke off.
    assert errors[0] in (
        f"Acme sent more than {MOST_UNSEEN_BYTES} bytes that are no part of a body",
        "Acme broke off before its answer was complete",
    )
    assert acme.sent_bytes < MOST_TAKEN_BYTES


async def test_an_ordinary_answer_may_be_announced_and_have_trailing_headers() -> None:
    ending = CHUNKED + b"2\r\n12\r\n0\r\nX-Sum: 3\r\n\r\n"
    world = World()
    async with venue(b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", ending, 10) as acme:
        with trio.move_on_after(0.5):
            await poller(acme.port).run(world)
    assert [event.data for _, event in world.events] == [b"12"]


async def test_a_large_body_in_many_pieces_is_no_flood() -> None:
    """Each piece has some bytes around it, and all of those together are more than the bound."""
    piece = b"1;" + b"x" * 40 + b"\r\n1\r\n"
    times = 4096
    assert len(piece) * times > 4 * MOST_UNSEEN_BYTES
    world = World()
    async with venue(CHUNKED, piece, b"0\r\n\r\n", times) as acme:
        with trio.move_on_after(3):
            await poller(acme.port).run(world)
    assert [len(event.data) for _, event in world.events] == [times]
