"""When a candle of Kraken is closed."""

import msgspec

from connectors.venues.kraken.candles import Candles, Told
from connectors.venues.kraken.frames import Ohlc

ROW = (
    b'{"symbol":"BTC/USD","interval":1,"interval_begin":"2023-10-04T16:25:00Z","open":1,"high":1,"low":1,"close":1,'
    b'"volume":0}'
)


def told(start_ms: int, row: bytes = ROW) -> Told:
    return Told(row, msgspec.json.decode(ROW, type=Ohlc), start_ms)


def said(news: list[Told]) -> list[tuple[int, bool, bytes]]:
    return [(each.start_ms, each.closed, each.row) for each in news]


def test_a_candle_is_closed_when_the_next_one_begins() -> None:
    candles = Candles()
    assert said(candles.update(told(0, b"first"))) == [(0, False, b"first")]
    assert said(candles.update(told(0, b"second"))) == [(0, False, b"second")]
    assert said(candles.update(told(60_000, b"third"))) == [(0, True, b"second"), (60_000, False, b"third")]


def test_a_candle_that_is_closed_is_not_opened_again() -> None:
    candles = Candles()
    candles.update(told(60_000))
    assert candles.update(told(0)) == []
    assert said(candles.update(told(120_000))) == [(60_000, True, ROW), (120_000, False, ROW)]


def test_of_a_snapshot_the_present_candle_and_the_one_before_are_news() -> None:
    candles = Candles()
    assert said(candles.snapshot([told(120_000), told(0), told(60_000)])) == [
        (60_000, True, ROW),
        (120_000, False, ROW),
    ]
    assert said(candles.update(told(180_000))) == [(120_000, True, ROW), (180_000, False, ROW)]


def test_of_a_short_snapshot_what_there_is() -> None:
    candles = Candles()
    assert candles.snapshot([]) == []
    assert said(candles.snapshot([told(0)])) == [(0, False, ROW)]
