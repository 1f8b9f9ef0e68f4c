"""How long candles are, when they end, and which rows are none."""

import pytest

from connectors.limits.rows import Odd
from connectors.poll.candles import Row, cells, end_ms, length_ms
from connectors.venues.registry import VENUES

NOW = 1_765_211_400_000


@pytest.mark.parametrize(
    ("interval", "ms"),
    [
        ("1s", 1_000),
        ("1m", 60_000),
        ("15m", 900_000),
        ("4h", 14_400_000),
        ("1d", 86_400_000),
        ("1w", 604_800_000),
        ("1M", 28 * 86_400_000),
        ("3M", 90 * 86_400_000),
    ],
)
def test_lengths(interval: str, ms: int) -> None:
    assert length_ms(interval) == ms


@pytest.mark.parametrize("interval", ["", "m", "0m", "1x", "-1m", "1.5h", "²m", "m1"])
def test_what_is_no_interval_is_refused_by_name(interval: str) -> None:
    with pytest.raises(ValueError, match="is no interval of candles"):
        length_ms(interval)


def test_every_interval_of_every_venue_has_a_length() -> None:
    for venue in VENUES.values():
        for interval in venue.intervals:
            assert end_ms(interval, NOW) >= NOW + length_ms(interval) - 86_400_000 * 28


@pytest.mark.parametrize(
    ("interval", "start", "end"),
    [
        ("1m", NOW, NOW + 60_000),
        ("1M", 1_764_547_200_000, 1_767_225_600_000),  # December 2025
        ("1M", 1_706_745_600_000, 1_709_251_200_000),  # February 2024, a leap year
        ("3M", 1_759_276_800_000, 1_767_225_600_000),  # October to December 2025
    ],
)
def test_ends(interval: str, start: int, end: int) -> None:
    assert end_ms(interval, start) == end


def row(**changes: object) -> Row:
    fields = {"start_ms": NOW, "open": "1", "high": "2.50", "low": "0.5", "close": "1", "volume": "0", "data": b"{}"}
    return Row(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_candle_without_trades_is_one() -> None:
    row().check()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start_ms": NOW // 1000}, "`start` is 1765211400, not in milliseconds"),
        ({"open": ""}, '`open` is "", not a number'),
        ({"high": "NaN"}, '`high` is "NaN", not a number'),
        ({"low": "-1"}, '`low` is "-1", below 0'),
        ({"close": "0"}, 'not trading: `close` is "0"'),
        ({"volume": "-1"}, '`volume` is "-1", not a quantity'),
        ({"volume": "x"}, '`volume` is "x", not a quantity'),
    ],
)
def test_what_is_wrong_with_a_row_is_named(change: dict[str, object], reason: str) -> None:
    with pytest.raises(Odd, match="^" + reason.replace("(", r"\(")):
        row(**change).check()


@pytest.mark.parametrize("raw", [b"", b"7", b"{}", b'["1"]', b"[" * 2000, b'[1,"2"', b"\xff"])
def test_what_is_no_row_is_odd(raw: bytes) -> None:
    with pytest.raises(Odd):
        cells(raw, tuple[str, str])
