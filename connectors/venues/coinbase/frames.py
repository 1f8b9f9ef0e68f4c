"""What Coinbase's frames look like, as far as they are looked into.

Source: Coinbase's documentation of Advanced Trade, "WebSocket channels" and `advanced-trade-asyncapi.json`, November
2026. Prices, sizes and trade ids are text; times are RFC 3339 with up to nanoseconds (`times.py`).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

SequenceNumber: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]


UNREADABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What decoding raises, whatever the bytes."""


class Frame(msgspec.Struct, gc=False):
    """Any frame.

    `{"channel":"heartbeats","timestamp":"2026-04-07T14:30:10.000000Z","sequence_num":7,"events":[...]}`
    `{"type":"error","message":"too many L2 streams requested in a single session"}`
    """

    channel: str = ""
    type: str = ""
    message: str = ""
    reason: str = ""
    timestamp: str = ""
    sequence_num: SequenceNumber | None = None
    events: Raw | UnsetType = UNSET


class Level(msgspec.Struct, gc=False):
    """`{"side":"bid","event_time":"2026-04-07T14:30:01.1Z","price_level":"21921.73","new_quantity":"0.063"}`."""

    side: Literal["bid", "offer"]
    price_level: str
    new_quantity: str
    event_time: str = ""


class BookEvent(msgspec.Struct, gc=False):
    """`{"type":"snapshot","product_id":"BTC-USD","updates":[...]}`; some snapshots of empty books have null."""

    type: Literal["snapshot", "update"]
    product_id: str
    updates: list[Level] | None = None


class BookFrame(msgspec.Struct, gc=False):
    """A frame of `l2_data`, decoded at once."""

    channel: Literal["l2_data"]
    sequence_num: SequenceNumber
    events: list[BookEvent]


class ProductEvent(msgspec.Struct, gc=False):
    """Of whatever channel: whose it is."""

    product_id: str = ""


class RowsEvent(msgspec.Struct, gc=False):
    """An event that holds rows, each of any product: of its three lists it has one."""

    type: str = ""
    tickers: list[Raw] | None = None
    trades: list[Raw] | None = None
    candles: list[Raw] | None = None


class Ticker(msgspec.Struct, gc=False):
    """`{"type":"ticker","product_id":"BTC-USD","price":"68900.50","best_bid":"68900.00","best_bid_quantity":"1.5",...}`.

    And `volume_24_h`, `low_24_h`, `high_24_h`, `low_52_w`, `high_52_w`, `price_percent_chg_24_h`.
    """

    product_id: str
    price: str
    best_bid: str = ""
    best_bid_quantity: str = ""
    best_ask: str = ""
    best_ask_quantity: str = ""


class Trade(msgspec.Struct, gc=False):
    """`{"trade_id":"995098700","product_id":"BTC-USD","price":"68900.50","size":"0.0015","side":"BUY","time":"...Z"}`.

    `side` is the maker's.
    """

    trade_id: str
    product_id: str
    price: str
    size: str
    side: Literal["BUY", "SELL"]
    time: str


class Candle(msgspec.Struct, gc=False):
    """`{"start":"1775521800","high":"...","low":"...","open":"...","close":"...","volume":"...","product_id":"BTC-USD"}`.

    `start` is in seconds since 1970.
    """

    start: str
    high: str
    low: str
    open: str
    close: str
    volume: str
    product_id: str


class SubscriptionsEvent(msgspec.Struct, gc=False):
    """`{"subscriptions":{"level2":["BTC-USD"],"heartbeats":["heartbeats"]}}`: all that the connection has."""

    subscriptions: dict[str, list[str] | None]
