"""The simulator's HTTP/1.1 loop over in-memory streams: limits, keep-alive, bad requests, upgrades."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from connectors.simulator.http.request import VenueRequest, VenueResponse
from connectors.simulator.http.server import HEAD_BYTES, HEAD_S, KEEP_S, UpgradedStream, serve_connection

Client = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
GET = b"GET /a?b=1 HTTP/1.1\r\nHost: x\r\n\r\n"


async def unexpected(request: VenueRequest, stream: UpgradedStream) -> None:
    raise AssertionError("no websocket was asked for")


@pytest.fixture
def connect(nursery: trio.Nursery) -> Callable[[], Client]:
    """Connects to a server that answers with the target it was asked for."""

    def opened() -> Client:
        client, server = trio.testing.memory_stream_pair()
        nursery.start_soon(serve_connection, server, "10.0.0.1", echo, unexpected)
        return client

    def echo(request: VenueRequest) -> VenueResponse:
        return VenueResponse(200, f"{request.peer} {request.method} {request.target}".encode())

    return opened


async def everything(client: Client) -> bytes:
    """Read until the server closes."""
    return b"".join([bytes(chunk) async for chunk in client])


async def test_pipelined_requests_are_answered_in_order(connect: Callable[[], Client]) -> None:
    client = connect()
    await client.send_all(GET + GET.replace(b"/a", b"/z").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    answers = await everything(client)

    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answers.index(b"10.0.0.1 GET /a?b=1") < answers.index(b"10.0.0.1 GET /z?b=1")


async def test_a_head_in_single_bytes(connect: Callable[[], Client]) -> None:
    client = connect()
    for number in range(len(GET)):
        await client.send_all(GET[number : number + 1])

    assert b"GET /a?b=1" in await client.receive_some()


async def test_a_body_is_not_read_and_ends_the_connection(connect: Callable[[], Client]) -> None:
    client = connect()
    await client.send_all(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    answer = await everything(client)

    assert b"POST /a" in answer
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /a HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nX: " + b"x" * HEAD_BYTES + b"\r\n", b"431"),
    ],
)
async def test_a_bad_head_is_answered_and_ends_the_connection(
    connect: Callable[[], Client], sent: bytes, status: bytes
) -> None:
    client = connect()
    await client.send_all(sent)

    assert (await everything(client)).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(("sent", "allowed_s"), [(b"", HEAD_S), (b"GET /a", HEAD_S), (GET, KEEP_S)])
async def test_a_connection_that_says_nothing_is_closed(
    connect: Callable[[], Client], sent: bytes, allowed_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    client = connect()
    begun = trio.current_time()
    if sent:
        await client.send_all(sent)
    await everything(client)

    assert trio.current_time() - begun == pytest.approx(allowed_s)


async def test_a_304_has_no_body(nursery: trio.Nursery) -> None:
    client, server = trio.testing.memory_stream_pair()
    unchanged = VenueResponse(304, b"", (("etag", 'W/"1"'),))
    nursery.start_soon(serve_connection, server, "-", lambda request: unchanged, unexpected)
    await client.send_all(GET)
    answer = bytes(await client.receive_some())
    await client.send_all(GET)

    assert answer.startswith(b"HTTP/1.1 304 Not Modified\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length" not in answer.lower()
    assert bytes(await client.receive_some()) == answer


async def test_a_client_that_is_gone_is_no_error() -> None:
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(GET)
    await client.aclose()

    await serve_connection(server, "-", lambda request: VenueResponse(200, b"x"), unexpected)


async def test_an_upgrade_replays_the_head_and_holds_back_what_follows() -> None:
    client, server = trio.testing.memory_stream_pair()
    head = b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    seen: list[bytes] = []

    async def websocket(request: VenueRequest, stream: UpgradedStream) -> None:
        replayed = b""
        while len(replayed) < len(head):
            replayed += await stream.receive_some(7)
        seen.append(replayed)
        with trio.move_on_after(0.05):
            seen.append(await stream.receive_some())
        await stream.wait_send_all_might_not_block()
        stream.release()
        seen.append(await stream.receive_some(3))
        seen.append(await stream.receive_some(100))
        await client.send_all(b"later")
        seen.append(await stream.receive_some(100))
        async with trio.open_nursery() as writers:
            for text in (b"whole frame", b"another frame"):
                writers.start_soon(stream.send_all, text)

    await client.send_all(head + b"early bytes")
    await serve_connection(server, "-", lambda request: None, websocket)

    assert seen == [head, b"ear", b"ly bytes", b"later"]
    assert await everything(client) in (b"whole frameanother frame", b"another framewhole frame")
