"""The lines of a recording: whatever bytes a frame has, they come back, and a frame is what captures have."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.capture.described import Unreadable, described, restored
from connectors.capture.lines import Fetched, Line, decoder, seconds, written, written_frames
from connectors.venues.registry import VENUES
from daemon.config.load import parse
from daemon.config.presets import PRESETS

NOW = 1_765_211_445_122

frames = st.text().map(str.encode) | st.binary() | st.sampled_from([b'{"a":"\\u0000"}', b'{"a":"\\"\\n"}', b"", b"\0"])


@given(st.lists(frames, min_size=1, max_size=5), st.integers(0, 2**42), st.integers(1, 3))
def test_frames_come_back_byte_for_byte(payloads: list[bytes], at_ms: int, connection: int) -> None:
    lines = decoder.decode_lines(written_frames(payloads, at_ms, connection))
    assert [(line.payload, line.at_ms, line.conn) for line in lines] == [
        (payload, at_ms, connection) for payload in payloads
    ]


def test_a_frame_is_what_a_capture_of_a_websocket_has() -> None:
    text = written_frames([b'{"last":"42150.50"}'], NOW, 1)
    assert text == b'{"recv_ts":1765211445.122,"frame":"{\\"last\\":\\"42150.50\\"}"}\n'
    assert msgspec.json.decode(text) == {"recv_ts": 1765211445.122, "frame": '{"last":"42150.50"}'}


def test_a_line_that_is_no_frame_has_nothing_but_what_it_says() -> None:
    fetched = Line(seconds(NOW), conn=2, fetched=Fetched("BTCUSDT", "/api/v3/depth", '{"bids":[]}'))
    assert written(fetched) == (
        b'{"recv_ts":1765211445.122,"conn":2,"fetched":{"id":"BTCUSDT","path":"/api/v3/depth","body":"{\\"bids\\":[]}"}}\n'
    )
    assert decoder.decode(written(fetched)) == fetched
    assert fetched.payload is None


def test_every_channel_comes_back_from_its_description() -> None:
    config = parse(f"[catalogue]\npresets = {list(PRESETS)}".replace("'", '"'), {}, "a test")
    assert len(config.channels) > 30
    for channel in config.channels:
        values = msgspec.json.decode(msgspec.json.encode(described(channel)))
        assert restored(values | {"of_a_later_version": 1}) == channel


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "x", "kind": "gossip"}, "the channel 'x' is of kind 'gossip'; known are prices, "),
        ({"name": "x", "kind": "ticker"}, "the channel 'x' cannot be read: Missing required argument 'exchange'"),
    ],
)
def test_a_description_of_nothing_known_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(Unreadable) as refused:
        restored(values)
    assert str(refused.value).startswith(said)


def test_no_settings_of_a_venue_that_are_public_hold_a_secret() -> None:
    for venue in VENUES.values():
        public = venue.settings().public()
        assert not {"proxy", "api_key"} & public.keys()
        assert msgspec.convert(public, venue.settings) == venue.settings()
