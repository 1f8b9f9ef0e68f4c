"""What `data` and `price` of the data messages hold.

`data` is spliced into a message as bytes (`Raw`) and not read on its way; only this module describes its content. The
daemon itself writes two of these objects, `PriceData` and `BookData`. All others are the venue's own, and the venue's
documentation names the rest of their fields. A new venue adds its ticker here, and to `TICKERS`.

`protocol/kinds.py` says which messages hold which objects. They are for JSON Schemas only: decoding a message does not
check them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

DIGITS: Final = r"-?(?:0|[1-9][0-9]{0,29})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?"
"""A JSON number (RFC 8259 section 6) that every JSON reader can take: at most 30 digits before the point, 30 after it,
and two in the exponent. Its magnitude fits into a 64-bit float."""

SCHEMAS: Final = "#/components/schemas/"
"""The place of the schemas in the description that the daemon publishes."""

LEVELS: Final = Meta(
    description="A book's levels, best first, or its changes; each is `[price, quantity]`, the venue's digits as text.",
    extra_json_schema={
        "type": "array",
        "items": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
    },
)


class VenueObject(msgspec.Struct):
    """The venue's own object, passed on unchanged: it has the fields that are named here, and others."""


class PriceData(msgspec.Struct, rename="camel", gc=False):
    """Binance's last price: `{"symbol":"BTCUSDT","price":"42150.50","priceChangePercent":"2.45"}`."""

    symbol: str
    price: str
    price_change_percent: str


class BookData(msgspec.Struct, rename="camel", gc=False):
    """Binance's best levels: the venue's body, with the symbol added, which it lacks."""

    symbol: str
    last_update_id: int
    bids: Annotated[Raw, LEVELS]
    asks: Annotated[Raw, LEVELS]


class OkxTicker(VenueObject):
    """OKX's ticker object: every value is text; `ts` is in milliseconds since 1970, or empty."""

    last: str
    ts: str


class DayTicker(VenueObject, rename="camel"):
    """Binance's full 24 h ticker object: digits are text, times (ms since 1970) and counts are integers."""

    symbol: str
    last_price: str
    price_change_percent: str
    close_time: int


class GlobalMarket(VenueObject):
    """The `data` object of CoinGecko's `/global`; `updated_at` is in seconds since 1970."""

    total_market_cap: dict[str, Any]
    updated_at: int | None = None


class Coin(VenueObject):
    """A row of CoinGecko's `/coins/markets`; fields that are not named here may be null."""

    id: str
    symbol: str
    name: str


class TopCoins(msgspec.Struct):
    """CoinGecko's `/coins/markets`: the list, largest market capitalisation first."""

    coins: list[Coin]


class Trending(VenueObject):
    """CoinGecko's `/search/trending` object."""

    coins: list[dict[str, Any]]


class BinanceTicker(VenueObject):
    """Binance's `@ticker` object: `c` is the last price, `E` the event time in milliseconds since 1970."""

    s: str
    c: str
    E: int


class CoinbaseTicker(VenueObject):
    """A ticker of Coinbase Advanced Trade's channel `ticker`: digits are text."""

    product_id: str
    price: str


class KrakenTicker(VenueObject):
    """An item of Kraken's v2 channel `ticker`: digits are numbers."""

    symbol: str
    last: float


class BybitTicker(VenueObject, rename="camel"):
    """Bybit's spot ticker: digits are text; `price24hPcnt` is a ratio, 0.0196 for 1.96 %."""

    symbol: str
    last_price: str


class StreamObject(VenueObject):
    """The venue's own object for a trade, a quote or a candle, under the names of its own documentation."""


class BookLevels(msgspec.Struct, gc=False):
    """The best levels of a book: all of them each time."""

    symbol: str
    bids: Annotated[Raw, LEVELS]
    asks: Annotated[Raw, LEVELS]


class DepthSource(VenueObject):
    """What the venue says beside the levels: its own sequence numbers, or checksum."""

    symbol: str


class VenueQuote(msgspec.Struct, gc=False):
    """One venue's part in a consolidated quote.

    Attributes:
        exchange: the venue.
        bid, bid_size, ask, ask_size: its best bid and ask, the venue's digits as text; "" where a side is empty.
        age_ms: how long ago the daemon received it; null where none has come yet.
        counts: whether it is among those compared.
        reason: why it does not count; "" if it does.
    """

    exchange: str
    bid: str
    bid_size: str
    ask: str
    ask_size: str
    age_ms: int | None
    counts: bool
    reason: str = ""


class ConsolidatedVenues(msgspec.Struct, gc=False):
    """All venues of an instrument, those that do not count included."""

    symbol: str
    venues: list[VenueQuote]


TICKERS: Final = (OkxTicker, BinanceTicker, CoinbaseTicker, KrakenTicker, BybitTicker)
"""The ticker objects, one per venue."""

NUMBER: Final = Meta(extra_json_schema={"type": "number"})
"""Annotates a `Raw` field that holds a number."""
