"""Stamps as the wire has them."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from daemon.host.clock import WallClock

moments_ms = st.integers(0, 4_102_444_800_000)


@given(st.lists(moments_ms, max_size=5))
def test_a_moment_is_iso_8601_in_utc_with_milliseconds_whatever_was_asked_before(moments: list[int]) -> None:
    clock = WallClock()
    for ms in moments:
        expected = datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03d}Z"
        assert clock.iso(ms) == expected


def test_the_present_is_read_anew_each_time() -> None:
    moments = iter([1_765_211_445_123_999_999, 1_765_211_445_124_000_000, 1_765_211_446_000_000_000])
    clock = WallClock(lambda: next(moments))
    assert clock.now_ms() == 1_765_211_445_123
    assert [clock.timestamp(), clock.timestamp()] == ["2025-12-08T16:30:45.124Z", "2025-12-08T16:30:46.000Z"]
