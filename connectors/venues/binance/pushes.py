"""Binance's pushes as events: trades, quotes, tickers and candles; and what is wrong with one. No I/O.

Source: `binance/binance-spot-api-docs`, web-socket-streams.md (payloads). All prices and quantities are text, times are
ms since 1970. Names that differ only by case are different fields (`b` and `B`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from connectors.base import Event
from connectors.limits.payload import spliced
from connectors.limits.rows import (
    FIRST_MS,
    LAST_MS,
    Ages,
    Odd,
    check_price,
    check_time,
    quantity,
    quoted,
    read_row,
    shown,
)
from connectors.venues.binance.sync import UpdateId
from protocol.fields import CandleFields, QuoteFields, TradeFields
from protocol.messages import is_number, middle

INTERVALS: Final = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
"""Lengths of candles; case matters."""


class Trade(msgspec.Struct, gc=False):
    """One trade; `m` says that the buyer was there first, so the taker sold.

    `{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782136,"m":true,"M":true}`
    """

    s: str
    t: UpdateId
    p: str
    q: str
    T: int
    m: bool


class Quote(msgspec.Struct, gc=False):
    """The best bid and ask; `u` is the book's update id. It names neither its type nor a time.

    `{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}`
    """

    u: UpdateId
    s: str
    b: str
    B: str
    a: str
    A: str


class Ticker(msgspec.Struct, gc=False):
    """The summary of 24 hours: `c` is the last price, `C` the end of the window.

    `{"e":"24hrTicker","E":1672515782136,"s":"BNBBTC","p":"0.0015",...,"c":"0.0025","Q":"10","b":"0.0024","B":"10",
    "a":"0.0026","A":"100",...,"O":0,"C":86400000,"F":0,"L":18150,"n":18151}`
    """

    E: int
    s: str
    c: str
    C: int = 0
    b: str | None = None
    a: str | None = None


class Span(msgspec.Struct, gc=False):
    """The candle itself: `t` is when it opened, `x` whether it is closed."""

    t: int
    i: str
    o: str
    c: str
    h: str
    low: str = msgspec.field(name="l")
    v: str
    x: bool


class Candle(msgspec.Struct, gc=False):
    """`{"e":"kline","E":1672515782136,"s":"BNBBTC","k":{"t":1672515780000,"i":"1m","o":"0.0010",...,"x":false,...}}`."""

    E: int
    s: str
    k: Span


class Stream(NamedTuple):
    """One stream: whose it is, and the channels that carry it.

    Attributes:
        name: as Binance writes it, `btcusdt@trade`.
        instrument: `BTC/USDT`.
        symbol: Binance's name of it.
        channels: their names.
        kind: a kind of channel that it is for.
        interval: of candles, how long each is.
    """

    name: str
    instrument: str
    symbol: str
    channels: tuple[str, ...]
    kind: str
    interval: str = ""


Make: TypeAlias = Callable[[Stream, Any, bytes, int, Ages], list[Event]]


def trade(stream: Stream, row: Trade, body: bytes, received_ms: int, _ages: Ages) -> list[Event]:
    """The trade, in the order of its id."""
    _positive(row.p, "p")
    _positive(row.q, "q")
    _time(row.T, "T")
    fields = TradeFields(Raw(row.q.encode()), "sell" if row.m else "buy", str(row.t))
    return [
        Event(name, stream.instrument, body, received_ms, row.p, row.T, fields=fields, order=row.t)
        for name in stream.channels
    ]


def quote(stream: Stream, row: Quote, body: bytes, received_ms: int, _ages: Ages) -> list[Event]:
    """The best bid and ask. A side without a quantity is empty."""
    bid, bid_size = _side(row.b, row.B, "b", "B")
    ask, ask_size = _side(row.a, row.A, "a", "A")
    if bid is UNSET and ask is UNSET:
        raise Odd("not trading: nobody bids or asks", "halted")
    price = "" if bid is UNSET or ask is UNSET else middle(row.b, row.a)
    fields = QuoteFields(bid, bid_size, ask, ask_size)
    return [
        Event(name, stream.instrument, body, received_ms, price, fields=fields, order=row.u) for name in stream.channels
    ]


def ticker(stream: Stream, row: Ticker, body: bytes, received_ms: int, ages: Ages) -> list[Event]:
    """The last price. Where the window's end stands still for long, it is none of today."""
    _positive(row.c, "c")
    _time(row.E, "E")
    if row.C >= FIRST_MS:
        ages.check(row.s, "C", row.C, received_ms)
    if _is_zero(row.b) and _is_zero(row.a):
        raise Odd("not trading: nobody bids or asks", "halted")
    return [Event(name, stream.instrument, body, received_ms, row.c, row.E, order=row.E) for name in stream.channels]


def candle(stream: Stream, row: Candle, body: bytes, received_ms: int, _ages: Ages) -> list[Event]:
    """The candle. A quiet instrument has none pushed while nothing is traded."""
    span = row.k
    if span.i != stream.interval:
        raise Odd(f"{quoted('i')} is {shown(span.i)}, in a push about {stream.interval}")
    _time(row.E, "E")
    _time(span.t, "t")
    prices = {"o": span.o, "h": span.h, "l": span.low, "c": span.c}
    for field, digits in prices.items():
        _positive(digits, field)
    volume = quantity(span.v, "v")
    opened, high, low, close = (Raw(digits.encode()) for digits in prices.values())
    fields = CandleFields(span.i, span.t, opened, high, low, close, volume, span.x)
    return [
        Event(name, stream.instrument, body, received_ms, span.c, row.E, fields=fields, order=row.E)
        for name in stream.channels
    ]


_ROWS: Final[dict[str, tuple[type[Any], Make]]] = {
    "trades": (Trade, trade),
    "quotes": (Quote, quote),
    "ticker": (Ticker, ticker),
    "candles": (Candle, candle),
}


def events(stream: Stream, body: bytes, received_ms: int, ages: Ages) -> list[Event]:
    """What an object of a stream becomes: one event for each channel that carries it.

    Raises:
        Odd: it is not what is documented, or is no price. Nothing else is raised, whatever the bytes.
    """
    type_, make = _ROWS[stream.kind]
    row = read_row(body, type_)
    check_symbol(stream, row.s)
    return make(stream, row, spliced(body), received_ms, ages)


def check_symbol(stream: Stream, symbol: str) -> None:
    """Raises: Odd, where that is another instrument's."""
    if symbol != stream.symbol:
        raise Odd(f"{quoted('s')} is {shown(symbol)}, in a push about {stream.symbol}")


def _time(since_1970_ms: int, field: str) -> None:
    if not FIRST_MS <= since_1970_ms <= LAST_MS:
        check_time(since_1970_ms, field)


def _positive(digits: str, field: str) -> None:
    """What is right is told apart here, what is wrong with others by `check_price`. Raises: Odd."""
    if is_number(digits) is None or not float(digits) > 0.0:
        check_price(digits, field)


def _side(price: str, size: str, field: str, size_field: str) -> tuple[Raw | UnsetType, Raw | UnsetType]:
    """A side's price and size. Raises: Odd."""
    found = quantity(size, size_field)
    if _is_zero(size) or _is_zero(price):
        return UNSET, UNSET
    _positive(price, field)
    return Raw(price.encode()), found


def _is_zero(digits: str | None) -> bool:
    return digits is not None and is_number(digits) is not None and float(digits) == 0.0
