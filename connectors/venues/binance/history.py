"""Binance's own history of candles: `GET /api/v3/klines`. No I/O.

Source: `binance/binance-spot-api-docs`, rest-api.md "Kline/Candlestick data": weight 2, at most 1 000 rows, the oldest
first; `startTime` and `endTime` are times of opening, both included. The host that serves public data only has it too
(faqs/market_data_only.md). A row is a list:

    [1499040000000,"0.01634790","0.80000000","0.01575800","0.01577100","148976.11427815",1499644799999,"2434.19055334",
     308,"1756.87402397","28.46694368","0"]
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from connectors.base import ConnectorError
from connectors.limits.payload import read, spliced
from connectors.poll.candles import Row, Stretch, cells
from connectors.poll.listing import query
from connectors.poll.venue import Answer, Pause
from connectors.venues.binance.polls import VENUE, explain, venue_symbol, weight_pause
from connectors.venues.binance.pushes import INTERVALS

PATH: Final = "/api/v3/klines"


class _Kline(msgspec.Struct, array_like=True, gc=False):
    """A row, as far as it is looked into."""

    start_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    end_ms: int


class BinanceHistory:
    """A `CandleHistory`. Fewer rows than there may be: reading more at once would hold others up."""

    title = VENUE
    intervals = INTERVALS
    rows = 300
    reach = None
    per_minute = 60

    def path(self, stretch: Stretch, now_ms: int) -> str:
        """See `CandleHistory`."""
        asked = query(
            symbol=venue_symbol(stretch.instrument),
            interval=stretch.interval,
            startTime=str(stretch.from_ms),
            endTime=str(stretch.until_ms - 1),
            limit=str(self.rows),
        )
        return f"{PATH}?{asked}"

    def explain(self, answer: Answer) -> ConnectorError | None:
        """See `CandleHistory`."""
        return None if 200 <= answer.status < 300 else explain(answer)

    def pause(self, answer: Answer) -> Pause | None:
        """A rest until the minute turns, where the address has used most of its request weight."""
        return weight_pause(answer)

    def read(self, body: bytes) -> list[Raw]:
        """Raises: PayloadError."""
        return read(body, list[Raw])

    def row(self, raw: bytes, stretch: Stretch) -> Row:
        """Raises: Odd."""
        kline = cells(raw, _Kline)
        data = b'{"symbol":"%s","kline":%s}' % (venue_symbol(stretch.instrument).encode(), spliced(raw))
        return Row(kline.start_ms, kline.open, kline.high, kline.low, kline.close, kline.volume, data)
