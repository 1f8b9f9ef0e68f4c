"""Coinbase's times: exact to the millisecond, whatever the number of digits; and what is no time."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.limits.rows import Odd
from connectors.venues.coinbase.times import since_1970_ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-04-07T14:30:02Z", 1_775_572_202_000),
        ("2026-04-07T14:30:02.7Z", 1_775_572_202_700),
        ("2026-04-07T14:30:02.05Z", 1_775_572_202_050),
        ("2026-04-07T14:30:02.789Z", 1_775_572_202_789),
        ("2026-04-07T14:30:02.789999999Z", 1_775_572_202_789),
        ("1970-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("2008-12-31T23:59:59.999Z", None),
        ("2009-01-01T00:00:00.000Z", 1_230_768_000_000),
    ],
)
def test_a_time_is_cut_to_milliseconds_and_what_is_before_2009_is_none(text: str, ms: int | None) -> None:
    assert since_1970_ms(text, "time") == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "2026-04-07",
        "2026-04-07T14:30:02",
        "2026-04-07T14:30:02.",
        "2026-04-07T14:30:02.Z",
        "2026-04-07T14:30:02,5Z",
        "2026-04-07T14:30:02.5+01:00",
        "2026-04-07T14:30:02.1234567890Z",
        "2026-04-07T14:30:02.\uff11Z",
        "2026-13-07T14:30:02Z",
        "2026-02-30T14:30:02Z",
        "2026-04-07T14:30:60Z",
        "2026-W15-2T14:30:0Z",
        "\uff12026-04-07T14:30:02Z",
        "2101-01-01T00:00:00Z",
    ],
)
def test_what_is_no_time_is_named_with_its_field(text: str) -> None:
    with pytest.raises(Odd, match=r"`time` is .*, not a time"):
        since_1970_ms(text, "time")


@given(st.datetimes(datetime(2009, 1, 1), datetime(2099, 1, 1)), st.integers(0, 9))  # noqa: DTZ001
def test_any_time_reads_as_it_was_written(at: datetime, digits: int) -> None:
    fraction = f".{at.microsecond:06d}000"[: digits + 1] if digits else ""
    text = f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z"
    whole_ms = round(at.replace(microsecond=0, tzinfo=UTC).timestamp()) * 1000
    kept = fraction[1:4].ljust(3, "0") if digits else "000"
    assert since_1970_ms(text, "time") == whole_ms + int(kept)


@given(st.text(max_size=40))
def test_nothing_but_a_time_or_odd_comes_of_any_text(text: str) -> None:
    with suppress(Odd):
        since_1970_ms(text, "time")
