"""A venue that floods us is left, with the reason; until then it takes neither the loop nor memory."""

import base64
import hashlib
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
import trio

from connectors.base import ConnectorError
from connectors.push.feed import Feed
from protocol.frames import close_frame, text_frame
from tests.connectors.push.scripted_venue import RULES, Hub, Words

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
OPEN = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"

MOST_TURN_S = 0.1
"""Of the processor's time, in one turn of the loop; a chunk of pongs took ten times as long."""

MOST_BYTES = 4_000_000

MEASURED_S = 10.0


def chunk(frame: bytes) -> bytes:
    """As many as go into a large write."""
    return frame * (256 * 1024 // len(frame))


@asynccontextmanager
async def venue(opening: bytes, flood: bytes) -> AsyncIterator[str]:
    """Says the one thing, and then the other, again and again, to whoever connects."""

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        key = head[head.lower().index(b"sec-websocket-key: ") :].split(b"\r\n")[0].split()[1]
        accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
        await stream.send_all(opening.replace(b"%b", accept))
        async with trio.open_nursery() as both:
            both.start_soon(swallow, stream)
            while True:
                await stream.send_all(flood)

    async def swallow(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for _ in stream:
                pass

    async def guarded(stream: trio.SocketStream) -> None:
        try:
            await serve(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, guarded, [listener])
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


async def longest_turn(measure: Callable[[], Awaitable[None]]) -> float:
    """How much of the processor's time one turn of the loop took at most, meanwhile."""
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            before_s = time.thread_time()
            await trio.lowlevel.checkpoint()
            longest_s = max(longest_s, time.thread_time() - before_s)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await measure()
        nursery.cancel_scope.cancel()
    return longest_s


async def end_of(opening: bytes, flood: bytes) -> tuple[str, Hub]:
    """Why a feed of that venue ended; it had its turns and its memory."""
    hub = Hub()
    errors: list[str] = []
    async with venue(opening, flood) as url:
        feed = Feed(Words("a"), url, user_agent="tickerd/test", timeout_s=5)

        async def run() -> None:
            with trio.fail_after(60), pytest.raises(ConnectorError) as raised:
                await feed.run(hub)
            errors.append(str(raised.value))

        longest_s = await longest_turn(run)
        # Once more, for memory. What is measured is so slow that a busy machine may not take a flood for one.
        tracemalloc.start()
        try:
            with trio.move_on_after(MEASURED_S):
                await run()
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(set(errors)) == 1
    assert longest_s < MOST_TURN_S
    assert peak_bytes < MOST_BYTES
    return errors[0], hub


FRAMES = "Words sent more than 1000 control frames and fragments a second"
CONTROLS = "Words sent more than 1000 messages a second that are no data"


@pytest.mark.parametrize(
    ("flood", "why"),
    [
        (chunk(b"\x8a\x00"), FRAMES),
        (chunk(b"\x8a\x04what"), FRAMES),
        (chunk(b"\x89\x00"), FRAMES),
        (chunk(b"\x01\x00\x80\x00"), "too much cannot be read; at last: Words sent b''"),
        (chunk(b"\x01\x01a\x00\x00\x80\x02 1"), FRAMES),
        (chunk(b"\x81\x00"), "too much cannot be read; at last: Words sent b''"),
        (chunk(text_frame(b"pong")), CONTROLS),
        (chunk(text_frame(b"ping")), CONTROLS),
        (chunk(text_frame(b"news")), CONTROLS),
        (chunk(text_frame(b"ok a")), CONTROLS),
        (chunk(text_frame(b"bye")), CONTROLS),
        (chunk(text_frame(b"later a")), "Words refuses without end; at last: Words is busy"),
        (chunk(text_frame(b"no x")), "Words refuses without end; at last: unknown to Words: X"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
async def test_a_flood_ends_the_connection_with_its_reason(flood: bytes, why: str) -> None:
    assert (await end_of(OPEN, flood))[0] == why


@pytest.mark.parametrize("fragment", [b"\x00\x00", b"\x00\x01x"])
async def test_a_message_of_fragments_without_end(fragment: bytes) -> None:
    assert (await end_of(OPEN + b"\x01\x00", chunk(fragment)))[0] == FRAMES


@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"1\r\nx\r\n")),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10000000000\r\n\r\n", chunk(b"x")),
        (b"HTTP/1.1 101 X\r\n", chunk(b"X-More: of the same\r\n")),
        (b"", chunk(b"HTTP/1.1 100 Continue\r\n\r\n")),
        (b"", chunk(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
    ],
    ids=["chunks", "body", "headers", "interim", "answers"],
)
async def test_an_answer_to_the_opening_handshake_without_end(opening: bytes, flood: bytes) -> None:
    why, _ = await end_of(opening, flood)
    assert why in {
        "Words sent more than 65536 bytes in answer to the opening handshake",
        "Words answered the opening handshake with HTTP 100",
        "Words answered the opening handshake with HTTP 200",
        "Words does not speak the websocket protocol",
    }


async def test_a_close_with_a_flood_behind_it_is_a_close() -> None:
    why, hub = await end_of(OPEN + text_frame(b"a 1") + close_frame(1001, "bye"), chunk(text_frame(b"a 2")))
    assert why == "the connection to Words closed: 1001 bye"
    assert hub.prices == ["1", "1"]


async def test_a_message_that_is_too_large_is_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Words, "rules", msgspec.structs.replace(RULES, message_bytes=10_000))
    head = b"\x81\x7f" + (1 << 40).to_bytes(8, "big")
    assert (await end_of(OPEN + head, chunk(b"x")))[0].startswith("the connection to Words closed: 1009")


async def test_a_flood_of_data_is_taken_in_turns_with_others() -> None:
    """It is what a venue is there for: as much as there is time for is published, and the rest waits at the venue."""
    hub = Hub()

    async def run() -> None:
        async with venue(OPEN, chunk(text_frame(b"a 1"))) as url:
            feed = Feed(Words("a"), url, user_agent="tickerd/test", timeout_s=5)
            with trio.move_on_after(1):
                await feed.run(hub)

    assert await longest_turn(run) < MOST_TURN_S
    assert len(hub.prices) > 10_000
