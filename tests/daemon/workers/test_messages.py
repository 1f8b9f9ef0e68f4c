"""What the parent and its workers tell each other, and how it travels."""

from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.poll import candles
from connectors.poll.candles import PastCandle
from connectors.poll.past_candles import Past
from daemon.config.load import parse
from daemon.front.certificate import Pair
from daemon.health.board import ChannelState
from daemon.publish import parts
from daemon.publish.parts import Part
from daemon.publish.replica import Noted
from daemon.tape.copying import Row
from daemon.workers.messages import (
    MESSAGE,
    MOST_BYTES,
    PART,
    AskCluster,
    AskPast,
    Broadcast,
    CloseDoor,
    Down,
    Family,
    Filled,
    Frames,
    Gone,
    LinkError,
    Look,
    Measured,
    PastFound,
    Progress,
    Ready,
    Reload,
    SayGoodbye,
    Scrape,
    Scraped,
    Seen,
    Setup,
    Stood,
    Told,
    Up,
    framed,
    framed_part,
    read_down,
    read_up,
)
from protocol.messages import ServerInfo

TOKENS = """
[server]
host = ["127.0.0.1", "::1"]
workers = 3
origins = ["https://example.org"]
[limits]
clients = 7
[tokens.partner]
hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
channels = ["binance_*"]
"""
CONFIG = parse(TOKENS, {}, "a test").serving()
CANDLE = candles.Row(300_000, "1", "1.50", "2e0", "1", "1.10", b'{"venue":"says"}')
PAST = Past([PastCandle.of(CANDLE, 7)], "the venue is sick", begins=True)

DOWN: tuple[Down, ...] = (
    Setup(
        2,
        ServerInfo("tickerd", "1", "here"),
        CONFIG,
        Pair(b"certificate", b"key"),
        True,
        (5, 6),
        7,
        8,
        3,
        16384,
        True,
        Told(),
    ),
    Filled(),
    Reload(CONFIG, None),
    Look(9),
    Told("cannot be written", "", "", "no route", ("binance",), "the engine is away"),
    CloseDoor(),
    SayGoodbye("the daemon is stopping", 9.5, 12),
    Scraped(3, 200, b"body", "text/plain", (("Retry-After", "5"),)),
    PastFound.of(4, PAST),
)
UP: tuple[Up, ...] = (
    Ready(),
    Seen(4),
    Progress(77, [Noted("lagged", "", 2, 12, "slow")], [Stood(1, 2, "stopped")]),
    Broadcast("hello"),
    Scrape(1, openmetrics=True),
    AskCluster(2),
    AskPast(3, "okx", "BTC/USDT", "5m", ((1, 2), (5, 9))),
    Gone(),
    Measured(1, [Family("counter", "n", "text", [("n_total", {"code": "full"}, 2.0)])]),
)


@pytest.mark.parametrize("message", DOWN)
def test_what_is_said_down_is_what_is_heard(message: Down) -> None:
    [(kind, body)] = Frames().feed(framed(message))
    assert kind == MESSAGE
    assert read_down(body) == message


@pytest.mark.parametrize("message", UP)
def test_what_is_said_up_is_what_is_heard(message: Up) -> None:
    [(_, body)] = Frames().feed(framed(message))
    assert read_up(body) == message


def test_past_candles_come_with_the_venues_own_digits() -> None:
    [(_, body)] = Frames().feed(framed(PastFound.of(4, PAST)))
    heard = read_down(body)
    assert isinstance(heard, PastFound)
    assert msgspec.json.encode(heard.past) == msgspec.json.encode(PAST)
    assert bytes(heard.past.candles[0].high) == b"1.50"


def test_a_worker_has_the_policy_of_its_parent() -> None:
    [(_, body)] = Frames().feed(framed(Reload(CONFIG, None)))
    heard = read_down(body)
    assert isinstance(heard, Reload)
    assert heard.config.policy() == parse(TOKENS, {}, "a test").policy()


def test_a_part_travels_as_it_was_encoded() -> None:
    part = Part(6, [Row(7, 1, "a", "X/U", b"{}", 5)], {"a": ChannelState("live", 5)})
    [(kind, body)] = Frames().feed(framed_part(parts.encode(part)))
    assert kind == PART
    assert parts.decode_part(body) == part


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 2000), max_size=8))
def test_frames_come_whole_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(framed_part, bodies))
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    frames, found = Frames(), list[bytes]()
    for start, end in pairwise(places):
        found += [body for _, body in frames.feed(stream[start:end])]
    assert found == bodies


@given(st.lists(st.binary(max_size=30), min_size=2, max_size=6), st.integers(1, 5))
def test_whoever_stops_in_the_midst_goes_on_there(bodies: list[bytes], taken: int) -> None:
    frames = Frames()
    found = []
    for count, (_, body) in enumerate(frames.feed(b"".join(map(framed_part, bodies))), 1):
        found.append(body)
        if count == taken:
            break
    found += [body for _, body in frames.feed(b"")]
    assert found == bodies


@pytest.mark.parametrize(
    "stream",
    [b"\0\0\0\0P", b"\0\0\0\1X", (MOST_BYTES + 1).to_bytes(4) + b"P"],
    ids=["nothing", "another kind", "too long"],
)
def test_what_is_no_frame_of_ours_is_refused(stream: bytes) -> None:
    with pytest.raises(LinkError, match=r"a frame of \d+ bytes and kind \d+"):
        list(Frames().feed(stream))


@given(st.binary(max_size=50))
def test_of_arbitrary_bytes_nothing_else_comes_than_an_error(body: bytes) -> None:
    for read in (read_down, read_up):
        with suppress(LinkError):
            read(body)
