"""Of a venue that does not say so: a candle is closed when the next begins, and is told so once."""

from collections.abc import Iterable

import pytest

from connectors.push.candles import Candles, Told


def told(start_ms: int, row: bytes = b"row") -> Told[str]:
    """A row about the candle that began then."""
    return Told(row, "what is in it", start_ms)


def say(candles: Candles[str], rows: Iterable[Told[str]], *, snapshot: bool = False) -> list[tuple[int, bool, bytes]]:
    """What is news of these rows: which candle, whether it is closed, and which row tells of it."""
    return [(each.start_ms, each.closed, each.row) for each in candles.take(rows, snapshot=snapshot)]


def test_a_candle_is_closed_just_before_the_next_one_begins() -> None:
    candles = Candles[str]()
    assert say(candles, [told(0, b"first")]) == [(0, False, b"first")]
    assert say(candles, [told(0, b"second")]) == [(0, False, b"second")]
    assert say(candles, [told(60_000, b"third")]) == [(0, True, b"second"), (60_000, False, b"third")]


def test_rows_that_come_together_are_taken_in_order_and_a_candle_that_closes_by_them_is_told_once() -> None:
    candles = Candles[str]()
    say(candles, [told(300_000)])
    assert say(candles, [told(600_000), told(300_000, b"last")]) == [(300_000, True, b"last"), (600_000, False, b"row")]


def test_a_candle_that_is_closed_is_not_opened_again() -> None:
    candles = Candles[str]()
    say(candles, [told(60_000)])
    assert say(candles, [told(0)]) == []
    assert say(candles, [told(120_000)]) == [(60_000, True, b"row"), (120_000, False, b"row")]


def test_what_is_said_of_a_closed_candle_is_no_news() -> None:
    candles = Candles[str]()
    say(candles, [told(300_000), told(600_000)])
    assert say(candles, [told(300_000, b"late")]) == []


def test_of_a_snapshot_the_present_candle_is_news_and_the_one_before_it_which_is_closed() -> None:
    candles = Candles[str]()
    rows = [told(120_000), told(0), told(60_000)]
    assert say(candles, rows, snapshot=True) == [(60_000, True, b"row"), (120_000, False, b"row")]
    assert say(candles, [told(180_000)]) == [(120_000, True, b"row"), (180_000, False, b"row")]


def test_of_a_short_snapshot_what_there_is() -> None:
    candles = Candles[str]()
    assert say(candles, [], snapshot=True) == []
    assert say(candles, [told(0)], snapshot=True) == [(0, False, b"row")]


def test_a_snapshot_begins_anew() -> None:
    candles = Candles[str]()
    say(candles, [told(900_000)])
    assert say(candles, [told(600_000)], snapshot=True) == [(600_000, False, b"row")]


@pytest.mark.parametrize("snapshot", [True, False])
def test_nothing_is_news_of_nothing(snapshot: bool) -> None:
    assert Candles[str]().take([], snapshot=snapshot) == []
