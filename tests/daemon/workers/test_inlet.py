"""What comes down to a worker, over a real socket; the clock is jumped."""

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from daemon.publish.sequencer import Passes
from daemon.workers.inlet import Inlet, rest_s
from daemon.workers.messages import LinkError, framed_part


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, Inlet]]:
    """The parent's end, and what reads the worker's."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        ours.setblocking(False)
        yield theirs, Inlet(ours)


async def bodies(inlet: Inlet) -> list[bytes] | None:
    with trio.fail_after(60):
        frames = await inlet.read()
    return None if frames is None else [body for _, body in frames]


async def test_what_comes_while_it_rests_is_one_pass(
    link: tuple[socket.socket, Inlet], autojump_clock: trio.testing.MockClock
) -> None:
    parent, inlet = link
    parent.send(framed_part(b"first"))
    assert await bodies(inlet) == [b"first"]
    # The first time it looks and then rests, from then on it looks when the rest is over: outside that is the same.
    for _ in range(3):
        began_s = trio.current_time()
        inlet.rest(5)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send() -> None:
                for number in range(4):
                    parent.send(framed_part(b"%d" % number))
                    await trio.sleep(1)

            assert await bodies(inlet) == [b"0", b"1", b"2", b"3"]
        assert trio.current_time() - began_s == pytest.approx(5)


async def test_what_comes_after_the_rest_is_taken_at_once(
    link: tuple[socket.socket, Inlet], autojump_clock: trio.testing.MockClock
) -> None:
    parent, inlet = link
    for was_busy in (False, True, False):
        if was_busy:
            inlet.rest(1)
            parent.send(framed_part(b"busy"))
            assert await bodies(inlet) == [b"busy"]
        inlet.rest(5)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send() -> None:
                await trio.sleep(7)
                parent.send(framed_part(b"late"))

            began_s = trio.current_time()
            assert await bodies(inlet) == [b"late"]
            assert trio.current_time() - began_s == pytest.approx(7)


async def test_a_frame_that_comes_in_pieces_is_whole(link: tuple[socket.socket, Inlet]) -> None:
    parent, inlet = link
    frame = framed_part(b"in pieces")
    parent.send(frame[:7])
    assert await bodies(inlet) == []
    parent.send(frame[7:] + framed_part(b"next"))
    assert await bodies(inlet) == [b"in pieces", b"next"]


async def test_the_links_end_is_told_even_while_it_is_busy(
    link: tuple[socket.socket, Inlet], autojump_clock: trio.testing.MockClock
) -> None:
    parent, inlet = link
    inlet.rest(5)
    parent.send(framed_part(b"last"))
    assert await bodies(inlet) == [b"last"]
    inlet.rest(5)
    parent.close()
    assert await bodies(inlet) is None


async def test_what_is_no_frame_is_refused(link: tuple[socket.socket, Inlet]) -> None:
    parent, inlet = link
    parent.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(LinkError):
        await bodies(inlet)


async def test_who_is_cancelled_while_it_rests_has_lost_nothing(
    link: tuple[socket.socket, Inlet], autojump_clock: trio.testing.MockClock
) -> None:
    parent, inlet = link
    inlet.rest(5)
    parent.send(framed_part(b"kept"))
    with trio.move_on_after(1) as scope:
        await inlet.read()
    assert scope.cancelled_caught
    assert await bodies(inlet) == [b"kept"]


@pytest.mark.parametrize(
    ("passes", "took_s", "is_large", "rests_s"),
    [
        (Passes(), 0.01, False, 0.01),
        (Passes(), 0.01, True, 0.005),
        (Passes(), 0.0001, False, 0.002),
        (Passes(), 10.0, False, 0.1),
        (Passes(rest_ratio=0), 0.01, False, 0.002),
        (Passes(rest_ratio=2), 0.01, False, 0.04),
        (Passes(rest_max_ms=4), 0.01, False, 0.004),
    ],
)
def test_a_worker_rests_as_long_as_its_pass_took_as_the_configuration_has_it(
    passes: Passes, took_s: float, is_large: bool, rests_s: float
) -> None:
    assert rest_s(passes, took_s, is_large=is_large) == pytest.approx(rests_s)
