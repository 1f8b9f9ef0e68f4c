"""What is counted of a client's frames, and that it does not matter how the network cut them."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.frame_meter import LEAST_FRAMES_BURST, LEAST_FRAMES_PER_S, FrameMeter

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0
BURST = 30


def frame(opcode: int, size: int = 0, *, fin: bool = True, masked: bool = True) -> bytes:
    """A client's frame; its payload looks like heads of pings, so that losing the place is noticed."""
    bit = 0x80 if masked else 0
    first = opcode | (0x80 if fin else 0)
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    key = b"\x89\x80\x89\x80" if masked else b""
    return head + key + (b"\x89\x80" * (size // 2 + 1))[:size]


def meter(rate_per_s: float = 10.0, burst: int = BURST) -> FrameMeter:
    return FrameMeter(rate_per_s, burst, 0.0)


def counted(sent: bytes) -> int:
    """How many of a burst these bytes take."""
    one = meter()
    assert one.feed(sent, 0.0)
    left = 0
    while one.feed(frame(PING), 0.0):
        left += 1
    return BURST - left


@pytest.mark.parametrize(
    ("sent", "count"),
    [
        (b"", 0),
        (frame(TEXT), 0),
        (frame(TEXT, 125), 0),
        (frame(BINARY, 126), 0),
        (frame(BINARY, 65536), 0),
        (frame(TEXT, 40, masked=False), 0),
        (frame(PING), 1),
        (frame(PONG, 125), 1),
        (frame(0xB), 1),
        (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION), 3),
        (frame(CONTINUATION), 1),
        (frame(TEXT, 1000) + frame(PING, 3) + frame(TEXT, 70_000) + frame(PONG), 2),
        (frame(TEXT, 1000, masked=False) + frame(PING), 1),
    ],
)
def test_what_carries_no_whole_message_is_counted(sent: bytes, count: int) -> None:
    assert counted(sent) == count


def test_the_burst_is_the_limit_and_time_gives_it_back() -> None:
    one = meter()
    assert one.feed(frame(PING) * BURST, 0.0)
    assert one.feed(frame(TEXT) * 100, 0.0)
    assert one.feed(frame(PING), 0.1)
    assert not one.feed(frame(PING), 0.1)
    assert meter().feed(frame(PONG) * BURST, 1000.0)
    assert not meter().feed(frame(PONG) * (BURST + 1), 1000.0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    one = FrameMeter(10.0, BURST, 100.0)
    assert one.feed(frame(PING) * BURST, 100.0)
    assert not one.feed(frame(PING), 50.0)


def test_however_few_commands_are_allowed_a_client_may_ping_now_and_then() -> None:
    one = FrameMeter(0.01, 1, 0.0)
    assert one.limit == f"{LEAST_FRAMES_PER_S:g} control frames and fragments/s (in a burst {LEAST_FRAMES_BURST})"
    assert one.feed(frame(PING) * LEAST_FRAMES_BURST, 0.0)
    assert all(one.feed(frame(PING), at / LEAST_FRAMES_PER_S) for at in range(1, 100))
    assert FrameMeter(50.0, 100, 0.0).limit == "50 control frames and fragments/s (in a burst 100)"


def test_the_answer_to_our_ping_is_not_counted_and_only_one() -> None:
    one = meter()
    assert one.feed(frame(PING) * BURST, 0.0)
    one.pinged()
    one.pinged()
    assert one.feed(frame(PONG, 4), 0.0)
    assert one.feed(frame(PONG), 0.0)
    assert not one.feed(frame(PONG), 0.0)


def test_pongs_cannot_be_saved_up() -> None:
    one = meter()
    assert one.feed(frame(PING) * BURST, 0.0)
    for _ in range(1000):
        one.pinged()
    assert not one.feed(frame(PONG) * 10, 0.0)


def test_nothing_counts_behind_a_close_frame() -> None:
    one = meter()
    assert one.feed(frame(CLOSE, 2) + frame(PING) * 100, 0.0)
    assert one.feed(frame(PING) * 100, 0.0)


def test_a_length_that_nobody_could_send_is_walked_all_the_same() -> None:
    one = meter()
    assert one.feed(b"\x82\xff" + b"\xff" * 8 + b"1234", 0.0)
    assert one.feed(frame(PING) * 1000, 0.0)


FRAMES = st.lists(
    st.builds(
        frame,
        st.sampled_from([TEXT, BINARY, PING, PONG, CONTINUATION]),
        st.sampled_from([0, 1, 125, 126, 300]),
        fin=st.booleans(),
        masked=st.booleans(),
    ),
    max_size=8,
)


@given(FRAMES, st.lists(st.integers(0, 2500), max_size=12))
def test_any_cut_gives_the_same_count(frames: list[bytes], cuts: list[int]) -> None:
    sent = b"".join(frames)
    places = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    one, other = meter(burst=20), meter(burst=20)
    one.feed(sent, 0.0)
    for begin, end in pairwise(places):
        other.feed(sent[begin:end], 0.0)
    probes = [one.feed(frame(PING), 0.0) for _ in range(25)]
    assert [other.feed(frame(PING), 0.0) for _ in range(25)] == probes


@given(st.binary(max_size=200))
def test_any_bytes_are_walked_byte_by_byte_as_all_at_once(sent: bytes) -> None:
    one, other = meter(), meter()
    one.feed(sent, 0.0)
    for at in range(len(sent)):
        other.feed(sent[at : at + 1], 0.0)
    assert (one._skip, one._head, one._closed, one._tokens) == (
        other._skip,
        other._head,
        other._closed,
        other._tokens,
    )
