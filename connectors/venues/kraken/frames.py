"""The frames of Kraken's v2 websocket, as far as they are looked into, and their numbers and times.

Source: Kraken's API documentation, "Spot WebSocket v2" (ticker, trade, book, ohlc, instrument, status, heartbeat, ping,
subscribe), state of November 2026. Numbers are JSON numbers, so they are read as `Raw` and keep the digits that stood
there; times are RFC 3339; ids may be larger than 2**63 and are not looked into.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from connectors.limits.rows import Odd, quoted, shown
from protocol.messages import is_number

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_MOST_CHARS: Final = 40
"""Of a time: `2023-10-04T16:25:00.000000000Z` has 30."""


UNREADABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What decoding raises, whatever the bytes."""


class Result(msgspec.Struct, gc=False):
    """Of an answer."""

    channel: str = ""
    symbol: str = ""


class Frame(msgspec.Struct, gc=False):
    """Any frame: with `channel` it is data, with `method` an answer.

    `{"channel":"trade","type":"update","data":[...]}`
    `{"method":"subscribe","req_id":2,"success":true,"result":{"channel":"trade","symbol":"BTC/USD"}, ...}`
    `{"method":"subscribe","req_id":3,"success":false,"error":"Currency pair not supported XXX/USD", ...}`
    `{"method":"pong","req_id":101, ...}`
    """

    channel: str = ""
    type: str = ""
    data: Raw | UnsetType = UNSET
    method: str = ""
    success: bool | None = None
    error: str = ""
    req_id: int | None = None
    timestamp: str = ""


class Level(msgspec.Struct, gc=False):
    """`{"price":45283.5,"qty":0.10000000}`; a quantity of 0 removes the price."""

    price: Raw
    qty: Raw


class BookItem(msgspec.Struct, gc=False):
    """Of `book`: the whole book in a snapshot, the levels that changed in an update."""

    symbol: str
    bids: list[Level]
    asks: list[Level]
    checksum: int
    timestamp: str = ""


class BookFrame(msgspec.Struct, gc=False):
    """A frame of `book`: `{"channel":"book","type":"update","data":[...]}`."""

    type: Literal["snapshot", "update"]
    data: list[BookItem]


class Trade(msgspec.Struct, gc=False):
    """Of `trade`: the side is the taker's.

    `{"symbol":"BTC/USD","side":"buy","price":105944.2,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,
    "timestamp":"2023-09-25T07:49:37.708706Z"}`
    """

    symbol: str
    side: Literal["buy", "sell"]
    price: Raw
    qty: Raw
    trade_id: int
    timestamp: str


class Ticker(msgspec.Struct, gc=False):
    """Of `ticker`: a side without orders has a price of 0, or none.

    `{"symbol":"BTC/USD","bid":105944.20,"bid_qty":2.5,"ask":105944.30,"ask_qty":3.2,"last":105899.40, ...,
    "timestamp":"2022-12-25T09:30:59.123456Z"}`
    """

    symbol: str
    last: Raw
    bid: Raw
    bid_qty: Raw
    ask: Raw
    ask_qty: Raw
    timestamp: str = ""


class Ohlc(msgspec.Struct, gc=False):
    """Of `ohlc`: `interval` is in minutes.

    `{"symbol":"BTC/USD","interval":1,"interval_begin":"2023-10-04T16:25:00.000000000Z","open":106038.2, ...}`
    """

    symbol: str
    interval: int
    interval_begin: str
    open: Raw
    high: Raw
    low: Raw
    close: Raw
    volume: Raw


class Pair(msgspec.Struct, gc=False):
    """Of `instrument`: `{"symbol":"BTC/USD","status":"online","qty_precision":8,"price_precision":1, ...}`."""

    symbol: str
    status: str
    price_precision: int
    qty_precision: int


class Pairs(msgspec.Struct, gc=False):
    """`data` of `instrument`, which is no list: `{"assets":[...],"pairs":[...]}`."""

    pairs: list[Raw] = []


class System(msgspec.Struct, gc=False):
    """Of `status`: `{"system":"online","api_version":"v2","connection_id":13834774380200032777,"version":"2.0.0"}`."""

    system: str = ""


def plain(raw: Raw | bytes) -> str:
    """A number's digits; one with an exponent (`1e-08`) is written out (`0.00000001`).

    Raises:
        ValueError: it has an exponent and is no number, or is not UTF-8. Else it may be anything.
    """
    digits = bytes(raw).decode()
    if "e" not in digits and "E" not in digits:
        return digits
    if is_number(digits) is None:
        raise ValueError(f"not a number: {digits[:40]!r}")
    return f"{Decimal(digits):f}"


def ms(time: str, field: str) -> int:
    """A time in milliseconds since 1970. Raises: Odd."""
    try:
        if len(time) <= _MOST_CHARS:
            return (datetime.fromisoformat(time) - _EPOCH) // _MS
    except (ValueError, TypeError, OverflowError):
        pass
    raise Odd(f"{quoted(field)} is {shown(time)}, not a time")
