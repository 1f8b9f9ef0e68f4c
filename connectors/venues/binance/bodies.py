"""Binance Spot's bodies as events, row by row; and what is wrong with single rows. No I/O.

Source: `binance/binance-spot-api-docs`, rest-api.md. A pair that is halted or delisted is still answered: with its last
row for ever, price and `closeTime` of its last trade, and no bid or ask (ccxt/node-binance-api#289). Pairs that hardly
trade were recorded with a `closeTime` seven minutes behind the newest of the same body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Raw

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.limits.payload import brief, is_deeper, spliced
from connectors.limits.rows import Ages, Odd, check_price, check_time, member, quoted, read_row, shown
from protocol.messages import is_number, middle
from protocol.payloads import BookData, PriceData

_MOST_DEPTH: Final = 900
"""Of the whole list. What Python 3.11 cannot read is no list of rows; what others could read is none either."""

MOST_ROWS: Final = 100
"""Tickers in one body; 20 of them were asked for at most."""

UpdateId: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Ticker(msgspec.Struct, rename="camel", gc=False):
    """The part of a 24 h ticker that is looked into.

    `{"symbol":"BNBBTC","priceChange":"-94.99999800","priceChangePercent":"-95.960","lastPrice":
    "4.00000200","openTime":1499783499040,"closeTime":1499869899040,"count":76,...}`; digits are text.
    """

    symbol: str
    last_price: str
    price_change_percent: str
    close_time: int
    bid_price: str | None = None
    ask_price: str | None = None


class Book(msgspec.Struct, rename="camel", gc=False):
    """The best levels, best first; the body names neither its symbol nor a time.

    `{"lastUpdateId":1027024,"bids":[["4.00000000","431.00000000"]],"asks":[["4.00000200","12.00"]]}`
    """

    last_update_id: UpdateId
    bids: Raw
    asks: Raw


class _Coded(msgspec.Struct):
    code: int


Data: TypeAlias = Callable[[Ticker, Raw], bytes]


def short(ticker: Ticker, _raw: Raw) -> bytes:
    """`data` of a last price."""
    return msgspec.json.encode(PriceData(ticker.symbol, ticker.last_price, ticker.price_change_percent))


def whole(_ticker: Ticker, raw: Raw) -> bytes:
    """`data` of a day: the row as it is."""
    return spliced(raw)


def tickers(
    body: bytes,
    data: Data,
    *,
    channel: str,
    instruments: Mapping[str, str],
    received_ms: int,
    ages: Ages,
    venue_ms: int | None = None,
) -> Rows:
    """`GET /api/v3/ticker/24hr`, row by row.

    Args:
        body: of the answer.
        data: makes `data` of a row.
        channel: the channel's name.
        instruments: those that were asked for, by venue symbol; rows of others are left out.
        received_ms: when the body came.
        ages: what is known of the rows before.
        venue_ms: the venue's own clock, where it said; its rows are as old as the kinder of the two clocks says.

    Raises:
        PayloadError: the body is no list of rows, or has far too many.
    """
    try:
        rows = msgspec.json.decode(body, type=list[Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PayloadError(f"not the body that is documented: {error}"[:200]) from error
    if is_deeper(body, _MOST_DEPTH):
        raise PayloadError("the body is nested too deeply")
    if len(rows) > MOST_ROWS:
        raise PayloadError(f"the body has {len(rows)} tickers, of which at most {MOST_ROWS} are looked at")
    now_ms = received_ms if venue_ms is None else min(received_ms, venue_ms)
    made = Rows([], [])
    raws: dict[str, bytes] = {}
    unnamed: list[str] = []
    for raw in rows:
        row = bytes(raw)
        try:
            ticker = read_row(row, Ticker)
            instrument = instruments.get(ticker.symbol)
            if instrument is None or raws.get(instrument) == row:
                continue
            if instrument in raws:
                made.events = [event for event in made.events if event.instrument != instrument]
                raise Odd("it is in the body twice, with different values")
            raws[instrument] = row
            _check(ticker, now_ms, ages)
        except Odd as odd:
            symbol = member(row, "symbol")
            instrument = instruments.get(symbol) if isinstance(symbol, str) else None
            if instrument is None:
                unnamed.append(str(odd))
            else:
                raws[instrument] = row
                made.notes.append(TopicNote(channel, instrument, odd.cause, str(odd)))
            continue
        made.events.append(
            Event(channel, instrument, data(ticker, raw), received_ms, ticker.last_price, ticker.close_time)
        )
    also = f"; a row without a known symbol: {unnamed[0]}" if unnamed else ""
    for instrument in instruments.values():
        if instrument not in raws:
            made.notes.append(TopicNote(channel, instrument, "silent", f"missing from Binance's answer{also}"))
    return made


def _check(ticker: Ticker, now_ms: int, ages: Ages) -> None:
    """Raises: Odd, where it is no price of today."""
    check_price(ticker.last_price, "lastPrice")
    check_time(ticker.close_time, "closeTime")
    ages.check(ticker.symbol, "closeTime", ticker.close_time, now_ms)
    if _is_zero(ticker.bid_price) and _is_zero(ticker.ask_price):
        raise Odd("not trading: nobody bids or asks", "halted")


def _is_zero(digits: str | None) -> bool:
    return digits is not None and is_number(digits) is not None and float(digits) == 0.0


def book(body: bytes, *, channel: str, instrument: str, symbol: str, received_ms: int) -> Rows:
    """`GET /api/v3/depth`: one event, a full replacement of the instrument's levels; without one, why.

    A book with one empty side is passed on without a price, and remarked on; with two it is that of a pair that is not
    traded.

    Raises:
        PayloadError: the body is no object, or is an error's.
    """
    if not body.lstrip().startswith(b"{"):
        raise PayloadError(f"not the body that is documented: {brief(body[:200].decode(errors='replace'))}")
    code = member(body, "code")
    if isinstance(code, int) and code:
        raise PayloadError(f"not the body that is documented: an error, {code}")
    try:
        seen = read_row(body, Book)
        sides = [_levels(bytes(raw), name) for raw, name in ((seen.bids, "bids"), (seen.asks, "asks"))]
        empty = [name for side, name in zip(sides, ("bids", "asks"), strict=True) if not side]
        if len(empty) == len(sides):
            raise Odd("not trading: its book is empty", "halted")
    except Odd as odd:
        return Rows([], [TopicNote(channel, instrument, odd.cause, str(odd))])
    bids, asks = Raw(spliced(seen.bids)), Raw(spliced(seen.asks))
    data = msgspec.json.encode(BookData(symbol, seen.last_update_id, bids, asks))
    price = "" if empty else middle(sides[0][0][0], sides[1][0][0])
    event = Event(channel, instrument, data, received_ms, price)
    remarks = [TopicNote(channel, instrument, "halted", f"its book has no {name}", partial=True) for name in empty]
    return Rows([event], remarks)


def _levels(raw: bytes, name: str) -> list[tuple[str, str]]:
    """A side of a book. Raises: Odd."""
    try:
        levels = msgspec.json.decode(raw, type=list[tuple[str, str]])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Odd(f"{quoted(name)} is {shown(msgspec.json.decode(raw))}, not a list of prices and quantities") from None
    for price, quantity in levels:
        if is_number(price) is None or float(price) <= 0.0:
            raise Odd(f"{quoted(name)} has the price {shown(price)}")
        if is_number(quantity) is None or float(quantity) < 0.0:
            raise Odd(f"{quoted(name)} has the quantity {shown(quantity)}")
    return levels
