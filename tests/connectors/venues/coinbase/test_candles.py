"""Coinbase's candles: one is closed when the next begins, and is told so once."""

import pytest

from connectors.venues.coinbase.candles import Candles, Told
from connectors.venues.coinbase.frames import Candle


def told(start_ms: int, close: str = "1") -> Told:
    """A row about the candle that began then."""
    candle = Candle(str(start_ms // 1000), "2", "1", "1", close, "5", "BTC-USD")
    return Told(f"{start_ms}:{close}".encode(), candle, start_ms)


def say(candles: Candles, *rows: Told, snapshot: bool = False) -> list[tuple[bytes, bool]]:
    """What is news of these rows: which, and whether it is closed."""
    return [(each.row, each.closed) for each in candles.take(rows, snapshot=snapshot)]


def test_a_candle_is_told_as_closed_just_before_its_successor() -> None:
    candles = Candles()
    assert say(candles, told(300_000)) == [(b"300000:1", False)]
    assert say(candles, told(300_000, "2")) == [(b"300000:2", False)]
    assert say(candles, told(600_000)) == [(b"300000:2", True), (b"600000:1", False)]


def test_rows_of_one_event_are_taken_in_order_and_a_candle_that_closes_in_it_is_told_once() -> None:
    candles = Candles()
    say(candles, told(300_000))
    assert say(candles, told(600_000), told(300_000, "9")) == [(b"300000:9", True), (b"600000:1", False)]


def test_of_a_snapshot_the_present_candle_is_news_and_the_one_before_it_which_is_closed() -> None:
    rows = [told(start) for start in (900_000, 600_000, 300_000)]
    assert say(Candles(), *rows, snapshot=True) == [(b"600000:1", True), (b"900000:1", False)]
    assert say(Candles(), told(300_000), snapshot=True) == [(b"300000:1", False)]


def test_a_snapshot_begins_anew() -> None:
    candles = Candles()
    say(candles, told(900_000))
    assert say(candles, told(600_000), snapshot=True) == [(b"600000:1", False)]


@pytest.mark.parametrize("snapshot", [True, False])
def test_nothing_is_news_of_nothing(snapshot: bool) -> None:
    assert Candles().take([], snapshot=snapshot) == []


def test_what_is_said_of_a_closed_candle_is_no_news() -> None:
    candles = Candles()
    say(candles, told(300_000), told(600_000))
    assert say(candles, told(300_000, "9")) == []
