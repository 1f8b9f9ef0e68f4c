"""Coinbase's own history of candles: `GET /api/v3/brokerage/market/products/{id}/candles`, which needs no key. No I/O.

Source: Coinbase's documentation of Advanced Trade, "Get Public Product Candles" (November 2026): `start` and `end` are
UNIX times in seconds and needed, `limit` is 350 at most; the newest comes first; a span in which nothing was traded has
no candle. Advanced Trade's public endpoints take 10 requests a second of one address. All values are text:

    {"candles":[{"start":"1639508050","low":"140.21","high":"140.21","open":"140.21","close":"140.21","volume":"5.6"}]}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from connectors.base import Connector, ConnectorError, VenueSettings
from connectors.limits.payload import read, spliced
from connectors.limits.rows import Odd, quoted, shown
from connectors.poll.candles import Row, Stretch, cells
from connectors.poll.host import Host
from connectors.poll.listing import beside, explained, query
from connectors.poll.past_candles import past_candles
from connectors.poll.venue import Answer, Pause
from connectors.venues.coinbase.listing import PATH as PRODUCTS
from connectors.venues.coinbase.listing import CoinbaseListing
from connectors.venues.coinbase.plan import INTERVALS
from connectors.venues.coinbase.products import product_of
from protocol.channels import Channel

_TITLE: Final = "Coinbase"
_GRANULARITY: Final = "FIVE_MINUTE"
_MOST_DIGITS: Final = 12


class _Candle(msgspec.Struct, gc=False):
    start: str
    open: str
    high: str
    low: str
    close: str
    volume: str


class _Body(msgspec.Struct):
    candles: list[Raw]


class CoinbaseHistory:
    """A `CandleHistory` of the one length that Coinbase pushes."""

    title = _TITLE
    intervals = INTERVALS
    rows = 300
    reach = None
    per_minute = 120

    def path(self, stretch: Stretch, now_ms: int) -> str:
        """See `CandleHistory`."""
        asked = query(
            start=str(stretch.from_ms // 1000),
            end=str((stretch.until_ms - 1) // 1000),
            granularity=_GRANULARITY,
            limit=str(self.rows),
        )
        return f"{PRODUCTS}/{product_of(stretch.instrument)}/candles?{asked}"

    def explain(self, answer: Answer) -> ConnectorError | None:
        """By the status alone."""
        return explained(_TITLE, answer, what="its candles")

    def pause(self, answer: Answer) -> Pause | None:
        """Never."""
        return None

    def read(self, body: bytes) -> list[Raw]:
        """Raises: PayloadError."""
        return read(body, _Body).candles

    def row(self, raw: bytes, stretch: Stretch) -> Row:
        """Raises: Odd."""
        candle = cells(raw, _Candle)
        start = candle.start
        if not (start.isdigit() and start.isascii() and len(start) <= _MOST_DIGITS):
            raise Odd(f"{quoted('start')} is {shown(start)}, not in seconds since 1970")
        return Row(int(start) * 1000, candle.open, candle.high, candle.low, candle.close, candle.volume, spliced(raw))


def build(channels: Sequence[Channel], settings: VenueSettings, user_agent: str, timeout_s: float) -> list[Connector]:
    """What asks for the past candles of these channels, if there are any of candles. Raises: ValueError."""

    def host() -> Host:
        url = beside(settings.address, CoinbaseListing.hosts)
        return Host(_TITLE, url, timeout_s=timeout_s, user_agent=user_agent, proxy=settings.proxy)

    return past_candles("coinbase", channels, CoinbaseHistory(), host)
