"""The splitter against wsproto, and the inlet as a stream that trio-websocket can live with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream, wrap_server_stream
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, TextMessage

from connectors.push.inlet import BATCHES, REST_S, Batch, Inlet, Splitter
from protocol.frames import binary_frame, close_frame, ping_frame, text_frame

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
LIMIT = 1000


def frame(first: int, payload: bytes, mask: int = 0) -> bytes:
    """A frame of any kind, lawful or not."""
    return bytes((first, mask | len(payload))) + payload


def fragments(parts: list[bytes], between: bytes = b"") -> bytes:
    """A fragmented text message with something between its fragments."""
    opcodes = [0x1, *[0x0] * (len(parts) - 1)]
    opcodes[-1] |= 0x80
    return between.join(frame(o, p) for o, p in zip(opcodes, parts, strict=True))


texts = st.one_of(st.text(max_size=40), st.text("x", min_size=124, max_size=128), st.just("y" * 70_000)).map(str.encode)
short = st.binary(max_size=5)
controls = st.one_of(short.map(ping_frame), short.map(lambda p: frame(0x8A, p)))
lawful = st.one_of(
    texts.map(text_frame),
    st.binary(max_size=200).map(binary_frame),
    controls,
    st.builds(
        fragments, st.lists(st.text(max_size=9).map(str.encode), min_size=2, max_size=4), controls | st.just(b"")
    ),
)
broken = st.one_of(
    st.just(close_frame(4004, "No data received in 30s")),
    short.map(lambda p: frame(0xC1, p)),  # a reserved bit
    short.map(lambda p: frame(0x83, p)),  # a reserved opcode
    short.map(lambda p: frame(0x81, b"mask" + p, mask=0x80)),
    short.map(lambda p: frame(0x80, p)),  # a continuation of nothing
    short.map(lambda p: frame(0x09, p)),  # a fragmented ping
    st.just(fragments([b"a", b"b"])[:3] + text_frame(b"in the middle of a message")),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """What a server sends behind its head, and the same cut into chunks."""
    frames = draw(st.lists(lawful, max_size=12))
    if draw(st.booleans()):
        frames += [draw(broken), *draw(st.lists(lawful, max_size=2))]
    stream = b"".join(frames)
    cuts = draw(st.lists(st.integers(0, len(HEAD + stream)), max_size=30))
    edges = [0, *sorted(cuts), len(HEAD + stream)]
    return stream, [(HEAD + stream)[a:b] for a, b in pairwise(edges)]


class Judge:
    """wsproto on one connection: the messages, and all other events up to the close."""

    def __init__(self) -> None:
        self.connection = Connection(ConnectionType.CLIENT)
        self.messages: list[bytes] = []
        self.others: list[Event] = []
        self.part = b""
        self.closed = False

    def receive(self, data: bytes) -> None:
        if self.closed:
            return
        self.connection.receive_data(data)
        for event in self.connection.events():
            if isinstance(event, TextMessage | BytesMessage):
                data = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
                self.part += data
                if event.message_finished:
                    self.messages.append(self.part)
                    self.part = b""
                continue
            self.others.append(event)
            if isinstance(event, CloseConnection):
                self.closed = True
                return


def split_all(chunks: list[bytes], splitter: Splitter) -> list[tuple[list[bytes], bytes]]:
    """What comes out, in the steps in which the inlet would take it."""
    steps = []
    for chunk in chunks:
        payloads, passed, _ = splitter.split(chunk)
        steps.append((payloads, passed))
        while splitter.holds_more:
            payloads, passed, _ = splitter.split(b"")
            steps.append((payloads, passed))
    return steps


@given(streams())
def test_with_the_splitter_in_front_wsproto_sees_the_same_conversation(drawn: tuple[bytes, list[bytes]]) -> None:
    stream, chunks = drawn
    alone = Judge()
    alone.receive(stream)
    behind = Judge()
    head = len(HEAD)
    for payloads, passed in split_all(chunks, Splitter()):
        if not behind.closed:
            behind.messages += payloads
        skip = min(head, len(passed))
        head -= skip
        behind.receive(passed[skip:])
    assert behind.messages == alone.messages
    assert behind.others == alone.others


@given(streams())
def test_any_cut_gives_the_same_payloads_and_the_same_passed_bytes(drawn: tuple[bytes, list[bytes]]) -> None:
    stream, chunks = drawn
    for limit in (LIMIT, 10**6):
        whole = split_all([HEAD + stream], Splitter(limit))
        cut = split_all(chunks, Splitter(limit))
        assert [p for payloads, _ in cut for p in payloads] == [p for payloads, _ in whole for p in payloads]
        assert b"".join(passed for _, passed in cut) == b"".join(passed for _, passed in whole)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_any_cut_of_arbitrary_bytes_gives_the_same(noise: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(noise)) for cut in cuts), len(noise)]
    whole = split_all([HEAD + noise], Splitter())
    cut = split_all([HEAD, *(noise[a:b] for a, b in pairwise(edges))], Splitter())
    assert [p for payloads, _ in cut for p in payloads] == [p for payloads, _ in whole for p in payloads]
    # Broken frames are passed as soon as they are seen to be broken, but all of them.
    assert b"".join(passed for _, passed in cut) == b"".join(passed for _, passed in whole)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_all_three_lengths_of_a_frame(size: int) -> None:
    payload = bytes(size)
    splitter = Splitter()
    splitter.split(HEAD)
    assert splitter.split(binary_frame(payload) * 2) == ([payload, payload], b"", False)


def test_a_longer_length_than_necessary_is_left_to_the_judge() -> None:
    long_form = b"\x81\x7e\x00\x02hi"
    splitter = Splitter()
    splitter.split(HEAD)
    assert splitter.split(long_form) == ([], long_form, False)


def test_a_frame_over_the_limit_is_passed_on_before_it_is_whole() -> None:
    splitter = Splitter(LIMIT)
    splitter.split(HEAD)
    fits, too_long = text_frame(b"x" * LIMIT), text_frame(b"x" * (LIMIT + 1))
    assert splitter.split(fits + too_long[:4]) == ([b"x" * LIMIT], too_long[:4], False)
    assert splitter.split(too_long[4:] + fits) == ([], too_long[4:] + fits, False)


def test_after_a_close_nothing_is_taken() -> None:
    splitter = Splitter()
    splitter.split(HEAD)
    rest = close_frame(1000) + text_frame(b"late")
    assert splitter.split(text_frame(b"in time") + rest) == ([b"in time"], rest, False)


def test_payloads_behind_a_fragmented_message_wait_for_the_next_call() -> None:
    splitter = Splitter()
    splitter.split(HEAD)
    message = fragments([b"a", b"b"])
    assert splitter.split(text_frame(b"1") + message + text_frame(b"2")) == ([b"1"], message, True)
    assert splitter.holds_more
    assert splitter.split(b"") == ([b"2"], b"", False)
    assert not splitter.holds_more


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"\n\n", b"x" * 70_000])
def test_an_answer_that_is_no_upgrade_is_passed_with_all_that_follows(answer: bytes) -> None:
    splitter = Splitter()
    assert splitter.split(answer) == ([], answer, False)
    assert splitter.split(text_frame(b"no")) == ([], text_frame(b"no"), False)


# ---- the inlet ------------------------------------------------------------------------------------------------------


def clock() -> int:
    return 1_765_211_445_122


def bare(stream: trio.abc.Stream) -> Inlet:
    """An inlet that passes whatever comes, for no opening handshake is answered."""
    return Inlet(stream, now_ms=clock, max_answer_bytes=2**40)


async def test_it_is_a_lawful_stream_while_it_passes_everything() -> None:
    async def pair() -> tuple[Inlet, Inlet]:
        near, far = trio.testing.memory_stream_pair()
        return bare(near), bare(far)

    async def full() -> tuple[Inlet, Inlet]:
        near, far = trio.testing.lockstep_stream_pair()
        return bare(near), bare(far)

    await trio.testing.check_two_way_stream(pair, full)


@asynccontextmanager
async def websocket_pair() -> AsyncIterator[tuple[Inlet, WebSocketConnection, WebSocketConnection, trio.abc.Stream]]:
    """An inlet with its client, the server, and the server's bare stream. The queue of the client is passed on."""
    near, far = trio.testing.memory_stream_pair()
    inlet = Inlet(near, now_ms=clock)

    async def pass_on(client: WebSocketConnection) -> None:
        try:
            while True:
                await inlet.deliver(await client.get_message())
        except ConnectionClosed:
            inlet.finish()

    async with trio.open_nursery() as nursery:
        servers: list[WebSocketConnection] = []

        async def accept() -> None:
            request = await wrap_server_stream(nursery, far)
            servers.append(await request.accept())

        async with trio.open_nursery() as opening:
            opening.start_soon(accept)
            # Annotated for sockets; any stream is welcome.
            client = await wrap_client_stream(nursery, inlet, "venue", "/", receive_buffer_size=7)  # type: ignore[arg-type]
        nursery.start_soon(pass_on, client)
        yield inlet, client, servers[0], far
        nursery.cancel_scope.cancel()


async def next_payloads(inlet: Inlet, count: int) -> list[bytes]:
    payloads: list[bytes] = []
    while len(payloads) < count:
        batch = await inlet.batches.receive()
        assert batch.received_ms == clock()
        payloads += batch.payloads
    return payloads


async def test_messages_of_all_kinds_arrive_in_order(autojump_clock: trio.testing.MockClock) -> None:
    async with websocket_pair() as (inlet, _, _, far):
        mixed = b"".join(
            (
                text_frame(b"1"),
                fragments([b"2", b"", b"two"], between=ping_frame(b"?")),
                text_frame(b"3"),
                text_frame(b"4"),
                fragments([b"5", b"five"]),
                fragments([b"", b""]),
                text_frame(b"6"),
            )
        )
        await far.send_all(mixed)
        assert await next_payloads(inlet, 7) == [b"1", b"2two", b"3", b"4", b"5five", b"", b"6"]


async def test_pings_are_answered_and_the_close_is_shaken_back(autojump_clock: trio.testing.MockClock) -> None:
    async with websocket_pair() as (inlet, client, server, _):
        with trio.fail_after(5):
            await server.send_message("before")
            await server.ping(b"are you there")
            await server.aclose(4004, "No data received in 30s")
        assert client.closed is not None
        assert (client.closed.code, client.closed.reason) == (4004, "No data received in 30s")
        assert [batch.payloads async for batch in inlet.batches] == [[b"before"]]


async def test_frames_in_the_chunk_of_the_handshake_are_taken() -> None:
    near, far = trio.testing.memory_stream_pair()
    inlet = Inlet(near, now_ms=clock)
    await far.send_all(HEAD + text_frame(b"early") + ping_frame(b"p") + text_frame(b"bird"))
    assert await inlet.receive_some() == HEAD + ping_frame(b"p")
    assert await inlet.batches.receive() == Batch([b"early", b"bird"], clock())


async def test_at_most_as_many_bytes_as_asked_for_are_returned() -> None:
    near, far = trio.testing.memory_stream_pair()
    inlet = Inlet(near, now_ms=clock)
    await far.send_all(HEAD + ping_frame(b"p"))
    assert await inlet.receive_some(len(HEAD) - 1) == HEAD[:-1]
    with trio.testing.assert_checkpoints():
        assert await inlet.receive_some(2) == HEAD[-1:] + ping_frame(b"p")[:1]
    assert await inlet.receive_some(99) == ping_frame(b"p")[1:]
    with pytest.raises(ValueError, match="at least 1"):
        await inlet.receive_some(0)


async def test_while_nobody_reads_the_batches_nothing_is_read_off_the_socket(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.lockstep_stream_pair()
    inlet = Inlet(near, now_ms=clock)
    sent = 0

    async def blast() -> None:
        nonlocal sent
        await far.send_all(HEAD)
        while True:
            await far.send_all(text_frame(b"%d" % sent))
            sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(blast)
        assert await inlet.receive_some() == HEAD
        nursery.start_soon(inlet.receive_some)
        await trio.sleep(1)
        assert BATCHES <= sent <= BATCHES + 1
        stalled = sent
        assert (await inlet.batches.receive()).payloads == [b"0"]
        await trio.sleep(1)
        assert sent == stalled + 1
        nursery.cancel_scope.cancel()


async def test_a_frame_after_a_pause_is_taken_at_once_and_many_are_taken_together(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.memory_stream_pair()
    inlet = Inlet(near, now_ms=clock)
    await far.send_all(HEAD)
    assert await inlet.receive_some() == HEAD
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inlet.receive_some)
        await trio.sleep(1)
        began_s = trio.current_time()
        await far.send_all(text_frame(b"0"))
        assert (await inlet.batches.receive()).payloads == [b"0"]
        assert trio.current_time() == began_s
        for number in range(1, 4):
            await far.send_all(text_frame(b"%d" % number))
            await trio.sleep(REST_S / 3)
        seen = [(await inlet.batches.receive()).payloads]
        while sum(map(len, seen)) < 3:
            seen.append((await inlet.batches.receive()).payloads)
        assert len(seen) < 3
        assert [payload for payloads in seen for payload in payloads] == [b"1", b"2", b"3"]
        nursery.cancel_scope.cancel()


async def test_the_end_of_the_stream_is_noticed_also_within_a_frame() -> None:
    near, far = trio.testing.memory_stream_pair()
    inlet = Inlet(near, now_ms=clock)
    await far.send_all(HEAD + text_frame(b"torn")[:-1])
    assert await inlet.receive_some() == HEAD
    assert not inlet.ended.is_set()
    await far.aclose()
    assert await inlet.receive_some() == b""
    assert inlet.ended.is_set()
    await inlet.aclose()
    assert [batch async for batch in inlet.batches] == []
    with pytest.raises(trio.ClosedResourceError):
        await inlet.receive_some()


async def test_behind_half_a_frame_nothing_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    near, _ = trio.testing.lockstep_stream_pair()
    inlet = Inlet(near, now_ms=clock)
    with trio.move_on_after(1):
        await inlet.send_all(b"nobody reads this")
    with pytest.raises(trio.BrokenResourceError, match="cut off"):
        await inlet.send_all(b"close frame")
