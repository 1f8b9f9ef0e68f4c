"""The one place that keeps frames whole, over real sockets that take little at a time."""

import math
import os
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from daemon.front.tls import TlsStream
from daemon.sessions.stream import ClientStream
from daemon.sessions.websocket import UnclosedStream
from protocol.frames import close_frame, text_frame
from tests.daemon.serving import CLOSE, SOON_S, TEXT, Closed, HandMade, certificate

QUICK = (Phase.explicit, Phase.generate)
"""What goes wrong here shows as bytes that do not come: shrinking it would take a deadline for each attempt."""


async def tcp_pair(*, small: bool = False) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of one TCP connection; `small`: the receiving one takes a few KiB before it is full."""
    with trio.socket.socket() as listener:
        if small:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = trio.socket.socket()
        if small:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await near.connect(listener.getsockname())
        far, _ = await listener.accept()
    return trio.SocketStream(far), trio.SocketStream(near)


@asynccontextmanager
async def connected(
    *, small: bool = False, head: bytes = b"", trailing: bytes = b""
) -> AsyncIterator[tuple[ClientStream, trio.SocketStream]]:
    """A client stream, and the client's end of it."""
    far, near = await tcp_pair(small=small)
    stream = ClientStream(far, head=head, trailing=trailing)
    if small:
        far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    async with near:
        try:
            with trio.fail_after(SOON_S):
                yield stream, near
        finally:
            await trio.aclose_forcefully(stream)


async def pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    one, other = await tcp_pair()
    return ClientStream(one), ClientStream(other)


def fill(stream: ClientStream) -> bytes:
    """Post until the socket takes no more; what was posted."""
    posted = b""
    while not stream.pending:
        data = b"x" * 5000
        stream.post(data)
        posted += data
    return posted


async def exactly(near: trio.abc.Stream, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = await near.receive_some(size - len(received))
        assert data, f"ended after {len(received)} bytes of {size}"
        received += data
    return bytes(received)


# ---- as a stream ----------------------------------------------------------------------------------------------------


async def test_it_is_a_stream_as_trio_understands_it() -> None:
    """All of trio's rules but one: two tasks may write, each whole frames, so that is no BusyResourceError here."""
    await trio.testing.check_two_way_stream(pair, None)


async def test_a_loan_is_a_stream_too_that_closes_nothing() -> None:
    async with connected() as (stream, near):
        unclosed = UnclosedStream(stream)
        await near.send_all(b"ping")
        assert await unclosed.receive_some() == b"ping"
        await unclosed.wait_send_all_might_not_block()
        await unclosed.send_all(b"pong")
        assert await exactly(near, 4) == b"pong"
        await unclosed.aclose()
        for used in (unclosed.receive_some, unclosed.wait_send_all_might_not_block, lambda: unclosed.send_all(b"x")):
            with pytest.raises(trio.ClosedResourceError), trio.testing.assert_checkpoints():
                await used()
        await stream.send_all(b"still open")
        assert await exactly(near, 10) == b"still open"


async def test_only_one_task_may_receive() -> None:
    async with connected() as (stream, _), trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()
        nursery.cancel_scope.cancel()


# ---- replay ---------------------------------------------------------------------------------------------------------


@given(
    head=st.binary(min_size=1, max_size=60),
    trailing=st.binary(max_size=60),
    sizes=st.lists(st.one_of(st.none(), st.integers(1, 25)), min_size=1),
)
@settings(max_examples=50, phases=QUICK)
async def test_head_and_what_came_behind_it_are_replayed_whatever_the_chunks(
    head: bytes, trailing: bytes, sizes: list[int | None]
) -> None:
    async with connected(head=head, trailing=trailing) as (stream, near):
        await near.send_all(b"from the socket")
        turn = 0
        received = b""

        async def receive() -> bytes:
            nonlocal turn, received
            size = sizes[turn % len(sizes)]
            turn += 1
            data = await stream.receive_some(size)
            assert size is None or len(data) <= size
            received += data
            return data

        while len(received) < len(head):
            assert await receive()
        assert received == head
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        while len(received) < len(head + trailing) + 15:
            assert await receive()
        assert received == head + trailing + b"from the socket"


async def test_what_came_behind_the_head_waits_for_the_answer() -> None:
    async with connected(head=b"GET", trailing=b"command") as (stream, _), trio.open_nursery() as nursery:
        assert await stream.receive_some() == b"GET"
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await stream.receive_some())

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        assert received == []
        await stream.send_all(b"101")
        await trio.testing.wait_all_tasks_blocked()
        assert received == [b"command"]


async def test_closing_wakes_who_waits_for_the_answer() -> None:
    async with connected(head=b"GET", trailing=b"command") as (stream, _), trio.open_nursery() as nursery:
        await stream.receive_some()

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()


async def test_only_bytes_of_the_socket_count_as_a_sign_of_life() -> None:
    async with connected(head=b"GET") as (stream, near):
        born_s = stream.last_received_s
        await trio.sleep(0.01)
        await stream.receive_some()
        assert stream.last_received_s == born_s
        await near.send_all(b"x")
        await stream.receive_some()
        assert stream.last_received_s > born_s


# ---- writing --------------------------------------------------------------------------------------------------------


def numbered(number: int, size: int) -> bytes:
    """Bytes that tell where they belong and whether they are whole."""
    return struct.pack("!II", number, size) + random.Random(number).randbytes(size)


async def read_numbered(near: trio.abc.Stream, count: int, chunk: int) -> None:
    """Read slowly, and find all of them, whole and in order."""
    for expected in range(count):
        number, size = struct.unpack("!II", await exactly(near, 8))
        assert number == expected
        body = b""
        while len(body) < size:
            await trio.lowlevel.checkpoint()
            body += await exactly(near, min(chunk, size - len(body)))
        assert body == random.Random(number).randbytes(size), f"number {number} is torn"


WRITES = st.lists(
    st.tuples(
        st.sampled_from(["post", "send_all", "cancelled send_all", "direct", "cancelled flush"]),
        st.lists(st.integers(0, 9_000), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=12,
)


@given(writes=WRITES, chunk=st.integers(300, 6_000))
@settings(max_examples=60, phases=QUICK)
async def test_frames_stay_whole_and_in_order_whoever_writes_them(
    writes: list[tuple[str, list[int]]], chunk: int
) -> None:
    async with connected(small=True) as (stream, near), trio.open_nursery() as nursery:
        count = sum(len(sizes) for _, sizes in writes)
        nursery.start_soon(read_numbered, near, count, chunk)
        number = 0
        for way, sizes in writes:
            frames = [numbered(number + at, size) for at, size in enumerate(sizes)]
            number += len(frames)
            if way == "direct" and not stream.pending:  # as the hub does, and then what is left as its catch-up does
                done = stream.settle(frames, stream.write_now(b"".join(frames)))
                frames = frames[done:]
            for frame in frames:
                if way == "send_all":
                    await stream.send_all(frame)
                elif way == "cancelled send_all":
                    with trio.CancelScope() as scope:
                        nursery.start_soon(_cancel_when_blocked, scope)
                        await stream.send_all(frame)
                else:
                    stream.post(frame)
            if way == "cancelled flush":
                with trio.CancelScope() as scope:
                    nursery.start_soon(_cancel_when_blocked, scope)
                    await stream.flush()
        await stream.flush()
        assert not stream.pending


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_a_cancelled_send_goes_out_whole_before_anything_else() -> None:
    async with connected(small=True) as (stream, near):
        frames = [numbered(at, 50_000) for at in range(3)]
        with trio.move_on_after(0.02) as scope:
            await stream.send_all(frames[0])
        assert scope.cancelled_caught
        assert stream.pending
        stream.post(frames[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_numbered, near, 3, 5_000)
            await stream.send_all(frames[2])


async def test_a_send_that_is_cancelled_before_it_begins_sends_nothing() -> None:
    async with connected() as (stream, near):
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_all(b"never")
        await stream.send_all(b"ever")
        assert await exactly(near, 4) == b"ever"


async def test_two_writers_wait_for_each_other() -> None:
    async with connected(small=True) as (stream, near), trio.open_nursery() as nursery:
        posted = fill(stream)
        for byte in (b"a", b"b", b"c"):
            nursery.start_soon(stream.send_all, byte * 40_000)
        await trio.testing.wait_all_tasks_blocked()
        assert await exactly(near, len(posted)) == posted
        rest = await exactly(near, 120_000)
        runs = [rest[at : at + 40_000] for at in range(0, 120_000, 40_000)]
        assert sorted(runs) == [b"a" * 40_000, b"b" * 40_000, b"c" * 40_000]


async def test_being_blocked_is_told_once_when_it_begins() -> None:
    async with connected(small=True) as (stream, near):
        told: list[int] = []
        stream.on_blocked = lambda: told.append(len(stream.pending))
        posted = fill(stream)
        assert told == [1]
        stream.post(b"y")
        assert told == [1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.flush)
            assert await exactly(near, len(posted) + 1) == posted + b"y"
        posted = fill(stream)
        assert told == [1, 1]


async def test_progress_is_what_the_socket_took_or_when_it_stopped_taking() -> None:
    async with connected(small=True) as (stream, near):
        fill(stream)
        at_s = stream.last_progress_s
        await trio.sleep(0.02)
        stream.post(b"x")
        with trio.move_on_after(0.02):
            await stream.flush()
        assert stream.last_progress_s == at_s
        stream.stalled()
        assert stream.last_progress_s > at_s
        at_s = stream.last_progress_s
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.flush)
            await near.receive_some(65536)
            while stream.last_progress_s == at_s:
                await near.receive_some(65536)
            nursery.cancel_scope.cancel()


async def test_a_flush_with_nothing_pending_waits_for_a_socket_that_takes_bytes() -> None:
    async with connected(small=True) as (stream, near):
        while (written := stream.write_now(b"x" * 5000)) == 5000:
            pass
        stream.settle([b"x" * written], written)
        assert not stream.pending
        with trio.move_on_after(0.02) as scope:
            await stream.wait_send_all_might_not_block()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.wait_send_all_might_not_block)
            with trio.move_on_after(0.05):
                while await near.receive_some(65536):
                    pass


@pytest.mark.parametrize(
    ("written", "done", "rest"),
    [(0, 0, b""), (2, 1, b""), (3, 2, b"cc"), (5, 2, b""), (6, 3, b"eee"), (9, 3, b"")],
)
async def test_settle_counts_frames_and_keeps_the_rest_of_a_torn_one(written: int, done: int, rest: bytes) -> None:
    async with connected() as (stream, _):
        assert stream.settle([b"aa", b"ccc", b"eeee"], written) == done
        assert b"".join(stream.pending) == rest


async def test_a_broken_connection_breaks_flush_and_never_post() -> None:
    async with connected() as (stream, near):
        told: list[str] = []
        stream.on_blocked = lambda: told.append("blocked")
        near.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await near.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        stream.post(b"x")
        assert told == ["blocked"]
        for _ in range(2):
            stream.post(b"x")
            with pytest.raises(trio.BrokenResourceError):
                await stream.flush()


# ---- closing --------------------------------------------------------------------------------------------------------


async def test_after_close_writing_the_descriptor_is_not_touched() -> None:
    """Its number may be another connection's by then."""
    async with connected() as (stream, near):
        number = stream.fd
        stream.close_writing()
        stream.post(b"x")
        assert stream.fd == -1
        assert stream.write_now(b"x") == 0
        stream.last_words(b"x")
        with pytest.raises(trio.ClosedResourceError), trio.testing.assert_checkpoints():
            await stream.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError), trio.testing.assert_checkpoints():
            await stream.flush()
        assert not stream.pending
        near_number = near.socket.fileno()
        assert number != near_number
        with trio.move_on_after(0.02) as scope:
            await near.receive_some()
        assert scope.cancelled_caught


async def test_closing_wakes_who_flushes() -> None:
    async with connected(small=True) as (stream, _), trio.open_nursery() as nursery:
        fill(stream)

        async def flush() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.flush()

        nursery.start_soon(flush)
        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()


async def test_nothing_follows_a_close_frame() -> None:
    async with connected() as (stream, near):
        order: list[str] = []

        def closing() -> None:
            order.append("closing")
            stream.post(text_frame(b"before it"))

        stream.on_closing = closing
        await UnclosedStream(stream).send_all(close_frame(1001, "bye"))
        stream.post(text_frame(b"behind it"))
        await stream.send_all(text_frame(b"behind it"))
        stream.last_words(close_frame(4001, "again"))
        await stream.aclose()
        client = HandMade(near)
        assert order == ["closing"]
        assert await client.frame() == (TEXT, b"before it")
        assert await client.frame() == (CLOSE, b"\x03\xe9bye")
        with pytest.raises(Closed, match="behind 0 bytes"):
            await client.frame()


async def test_last_words_arrive_behind_whole_frames_when_a_stalled_client_reads_again() -> None:
    async with connected() as (stream, near):
        payloads: list[bytes] = []
        while not stream.pending:
            payloads.append(b'{"n":%d,"pad":"%s"}' % (len(payloads), b"x" * 7001))
            stream.post(text_frame(payloads[-1]))
        assert len(stream.pending[0]) < len(text_frame(payloads[-1])), "the kernel has torn the last one"
        for _ in range(50):
            stream.post(text_frame(b"never sent: bytes that nobody takes are not worth their memory"))
        stream.last_words(close_frame(4000, "slow consumer"))
        await trio.aclose_forcefully(stream)
        client = HandMade(near)
        for expected in payloads:
            assert await client.frame() == (TEXT, expected)
        assert await client.frame() == (CLOSE, b"\x0f\xa0slow consumer")
        with pytest.raises(Closed, match="behind 0 bytes"):
            await client.frame()


def _retry_ms(stream: trio.SocketStream) -> int:
    """TCP_RTO_MAX_MS; a kernel before Linux 6.15 has none."""
    try:
        return stream.socket.getsockopt(socket.IPPROTO_TCP, 44)
    except OSError:
        pytest.skip("this kernel bounds no retransmission timeout")


@pytest.mark.parametrize(("wanted_s", "set_ms"), [(5.0, 5_000), (0.01, 1_000), (1e6, 120_000), (math.inf, 120_000)])
async def test_what_was_lost_is_sent_again_within_the_time_asked_for(wanted_s: float, set_ms: int) -> None:
    far, near = await tcp_pair()
    async with far, near:
        ClientStream(far).retry_within(wanted_s)
        assert _retry_ms(far) == set_ms


async def test_last_words_are_kept_for_as_long_as_the_kernel_can() -> None:
    """A short bound would make it drop what a closed socket still holds after a few attempts."""
    far, near = await tcp_pair()
    async with far, near:
        stream = ClientStream(far)
        before_ms = _retry_ms(far)
        stream.retry_within(2.0)
        stream.last_words(close_frame(4000))
        assert _retry_ms(far) == before_ms == 120_000


async def test_last_words_come_before_what_was_not_begun() -> None:
    async with connected() as (stream, near):
        stream.pending.append(text_frame(b"old news"))
        stream.last_words(close_frame(4001, "no pong"))
        assert await HandMade(near).frame() == (CLOSE, b"\x0f\xa1no pong")


async def test_last_words_to_a_client_that_is_gone_are_lost_and_nothing_else() -> None:
    async with connected() as (stream, near):
        near.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await near.aclose()
        stream.last_words(close_frame(4001, "gone"))
        stream.last_words(close_frame(4001, "gone"))


async def test_a_refusal_reaches_a_client_that_goes_on_sending() -> None:
    async with connected() as (stream, near), trio.open_nursery() as nursery:

        async def flood() -> None:
            for _ in range(100):
                await near.send_all(b"x" * 10_000)
            client = HandMade(near)
            assert await client.frame() == (CLOSE, b"\x03\xf1too long")
            await near.aclose()

        nursery.start_soon(flood)
        await stream.receive_some()
        await stream.send_close(close_frame(1009, "too long"))
        await stream.refuse(close_frame(1002, "said already"))
        await stream.aclose()


async def test_a_refusal_of_a_client_that_is_gone_is_a_broken_connection() -> None:
    async with connected() as (stream, near):
        near.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await near.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await stream.refuse(close_frame(1009, "too long"))


# ---- TLS ------------------------------------------------------------------------------------------------------------


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
"""The server's and the client's."""


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    folder: Path = tmp_path_factory.mktemp("tls")
    pem, key = certificate(folder)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem, key)
    return server, ssl.create_default_context(cafile=str(pem))


@asynccontextmanager
async def tls_connected(
    contexts: Contexts, *, small: bool = False, https: bool = True
) -> AsyncIterator[tuple[ClientStream, trio.SSLStream[trio.SocketStream]]]:
    """Without `https` the client demands that the end is signed."""
    far, near = await tcp_pair(small=small)
    server = TlsStream(far, contexts[0])
    client = trio.SSLStream(near, contexts[1], server_hostname="localhost", https_compatible=https)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        nursery.start_soon(client.do_handshake)
    stream = ClientStream(server)
    if small:
        far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    try:
        with trio.fail_after(SOON_S):
            yield stream, client
    finally:
        await trio.aclose_forcefully(stream)
        await trio.aclose_forcefully(client)


async def test_over_tls_what_the_socket_takes_is_written_at_once(contexts: Contexts) -> None:
    async with tls_connected(contexts) as (stream, client):
        assert stream.fd == -1
        assert stream.write_now(b"hello") == 5
        stream.post(b", client")
        assert not stream.pending
        received = b""
        while len(received) < 13:
            received += await client.receive_some()
        assert received == b"hello, client"


async def test_over_tls_what_the_socket_does_not_take_is_pending_and_flushed_whole(contexts: Contexts) -> None:
    async with tls_connected(contexts, small=True) as (stream, client), trio.open_nursery() as nursery:
        told: list[int] = []
        stream.on_blocked = lambda: told.append(1)
        for number in range(40):
            stream.post(numbered(number, number * 701))
        assert told == [1]
        assert 0 < len(stream.pending) < 40
        assert stream.write_now(b"past it") == 0
        nursery.start_soon(read_numbered, client, 40, 2_000)
        await stream.flush()
        assert not stream.pending


async def test_over_tls_a_client_that_takes_nothing_holds_a_record_and_no_more(contexts: Contexts) -> None:
    """What is encrypted has to be sent, so no more is encrypted than one record; the rest stays with whoever has it."""
    async with tls_connected(contexts, small=True) as (stream, client), trio.open_nursery() as nursery:
        frames = [numbered(number, 3_000) for number in range(100)]
        written = stream.write_now(b"".join(frames))
        assert written < 300_000
        assert sum(map(len, stream.pending)) < 17 * 1024
        done = stream.settle(frames, written)
        assert sum(map(len, stream.pending)) < 21 * 1024, "one record, and the rest of one frame"
        nursery.start_soon(read_numbered, client, done, 2_000)
        await stream.flush()


async def test_over_tls_both_directions_go_on_while_a_client_does_not_read(contexts: Contexts) -> None:
    async with tls_connected(contexts, small=True) as (stream, client), trio.open_nursery() as nursery:
        stream.post(numbered(0, 300_000))
        nursery.start_soon(stream.flush)
        await trio.testing.wait_all_tasks_blocked()
        assert stream.pending
        await client.send_all(b"command")
        assert await stream.receive_some() == b"command"
        stream.last_words(close_frame(4000))
        reader = HandMade(client)
        await read_numbered(reader.stream, 1, 20_000)
        assert await reader.frame() == (CLOSE, (4000).to_bytes(2, "big"))


async def test_over_tls_a_single_write_is_one_record(contexts: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write deadline is judged by whole writes: they must be short enough for a slow client to take one in time."""
    async with tls_connected(contexts) as (stream, client), trio.open_nursery() as nursery:
        sent: list[int] = []

        def counting(fd: int, data: bytes) -> int:
            sent.append(len(data))
            return os.write(fd, data)

        monkeypatch.setattr("daemon.sessions.stream.os", SimpleNamespace(write=counting))
        nursery.start_soon(read_numbered, client, 3, 20_000)
        for number in range(3):
            stream.post(numbered(number, 30_000))
        await stream.flush()
        assert max(sent) < 16 * 1024 + 256
        assert sum(sent) >= 3 * 30_008


async def test_over_tls_nothing_follows_close_writing(contexts: Contexts) -> None:
    async with tls_connected(contexts) as (stream, _):
        stream.post(b"x")
        stream.close_writing()
        with pytest.raises(trio.ClosedResourceError):
            await stream.flush()


async def test_over_tls_a_refusal_arrives(contexts: Contexts) -> None:
    async with tls_connected(contexts) as (stream, client), trio.open_nursery() as nursery:
        nursery.start_soon(stream.refuse, close_frame(1007, "not UTF-8"))
        assert await HandMade(client).frame() == (CLOSE, b"\x03\xefnot UTF-8")
        await client.aclose()


async def test_over_tls_the_end_waits_for_whoever_waits_for_the_socket(contexts: Contexts) -> None:
    """A catch-up task waits like that, with nothing pending, when the daemon stops."""
    async with tls_connected(contexts, small=True, https=False) as (stream, client), trio.open_nursery() as nursery:
        posted = fill(stream)
        nursery.start_soon(stream.flush)
        received = b""
        while stream.pending:
            received += await client.receive_some(1000)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(stream.finish)
        await trio.testing.wait_all_tasks_blocked()
        while data := await client.receive_some():
            received += data
        assert received == posted
        await client.aclose()


async def test_over_tls_the_end_waits_for_what_is_not_encrypted_yet(contexts: Contexts) -> None:
    async with tls_connected(contexts, small=True, https=False) as (stream, client), trio.open_nursery() as nursery:
        posted = fill(stream)
        for _ in range(9):
            stream.post(b"y" * 20_000)
        nursery.start_soon(stream.finish)
        assert await exactly(client, len(posted) + 180_000) == posted + b"y" * 180_000
        assert await client.receive_some() == b""
        await client.aclose()


async def test_over_tls_the_end_arrives_though_the_client_goes_on_talking(contexts: Contexts) -> None:
    async with tls_connected(contexts, https=False) as (stream, client), trio.open_nursery() as nursery:
        finished = trio.Event()

        async def finish() -> None:
            await stream.finish()
            finished.set()

        await client.send_all(b"two words")
        assert await stream.receive_some(3) == b"two", "the rest is decrypted, and nobody will read it"
        stream.post(b"all of it")
        nursery.start_soon(finish)
        assert await exactly(client, 9) == b"all of it"
        assert await client.receive_some() == b""
        await client.send_all(b"and more of that")
        await trio.testing.wait_all_tasks_blocked()
        assert not finished.is_set(), "it did not wait for the client's own end"
        await client.aclose()
        await finished.wait()


@pytest.mark.parametrize("polite", [True, False])
async def test_over_tls_closing_signs_the_end_where_all_was_said_and_only_there(
    contexts: Contexts, polite: bool
) -> None:
    async with tls_connected(contexts, https=False) as (stream, client):
        await stream.send_all(text_frame(b"the first"))
        if polite:
            await stream.send_close(close_frame(1001, "bye"))
        stream.close_writing()
        await trio.aclose_forcefully(stream)
        reader = HandMade(client)
        assert await reader.frame() == (TEXT, b"the first")
        if polite:
            assert await reader.frame() == (CLOSE, b"\x03\xe9bye")
            assert await client.receive_some() == b""
        else:
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()


async def test_over_tls_nothing_is_signed_behind_a_record_that_is_torn(contexts: Contexts) -> None:
    async with tls_connected(contexts, small=True, https=False) as (stream, client):
        fill(stream)
        with trio.move_on_after(0.02):
            await stream.send_close(b"")
        await stream.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await exactly(client, 100_000_000)


async def test_over_tls_last_words_are_signed(contexts: Contexts) -> None:
    async with tls_connected(contexts, https=False) as (stream, client):
        posted = fill(stream)
        stream.last_words(close_frame(4000, "slow consumer"))
        await trio.aclose_forcefully(stream)
        assert await exactly(client, len(posted)) == posted
        assert await HandMade(client).frame() == (CLOSE, b"\x0f\xa0slow consumer")
        assert await client.receive_some() == b""


async def test_over_tls_a_refusal_ends_what_is_sent_and_then_waits_for_the_client(contexts: Contexts) -> None:
    async with tls_connected(contexts, https=False) as (stream, client), trio.open_nursery() as nursery:
        nursery.start_soon(stream.refuse, close_frame(1007, "not UTF-8"))
        assert await HandMade(client).frame() == (CLOSE, b"\x03\xefnot UTF-8")
        assert await client.receive_some() == b""
        await client.aclose()


async def test_a_broken_connection_says_so_to_whoever_flushes_though_nothing_is_pending() -> None:
    """A client that is gone must not keep its catch-up task busy."""
    async with connected() as (stream, peer):
        await peer.aclose()
        await stream.receive_some()
        stream.write_now(b"the first one is answered by a reset")
        await trio.sleep(0.05)
        assert stream.write_now(b"into the void") == 0
        with trio.fail_after(2), pytest.raises(trio.BrokenResourceError):
            await stream.flush()


async def test_nothing_is_written_past_what_is_pending_though_the_socket_takes_bytes_again() -> None:
    async with connected(small=True) as (stream, near):
        posted = fill(stream)
        left = sum(map(len, stream.pending))
        await exactly(near, len(posted) - left)
        with trio.fail_after(SOON_S):
            await trio.lowlevel.wait_writable(near.socket)
        assert stream.write_now(b"past it") == 0
        assert stream.full, "whoever catches up would not flush"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.flush)
            assert await exactly(near, left) == b"x" * left
        assert stream.write_now(b"behind it") == len(b"behind it")
        assert await exactly(near, 9) == b"behind it"
