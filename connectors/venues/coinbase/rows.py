"""What rows of Coinbase's become that stand for themselves: trades, tickers, quotes, candles. Pure.

What is wrong with one is noted of its instrument; the others of the frame go on. `frames.py` has what rows look like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from connectors.base import Event, PayloadError, Rows
from connectors.limits.payload import look_over, spliced
from connectors.limits.rows import Odd, check_price, member, notes, quantity, quoted, read_row, shown
from connectors.push.candles import Candles, Told
from connectors.venues.coinbase.frames import UNREADABLE, Candle, Frame, ProductEvent, RowsEvent, Ticker, Trade
from connectors.venues.coinbase.plan import INTERVAL, Subscription
from connectors.venues.coinbase.times import since_1970_ms
from protocol.fields import CandleFields, QuoteFields, TradeFields
from protocol.kinds import View
from protocol.messages import Side, is_number, middle, number

_MOST_DIGITS: Final = 12
_TAKERS: Final[Mapping[str, Side]] = {"BUY": "sell", "SELL": "buy"}

_rows: Final = msgspec.json.Decoder(list[RowsEvent])
_product: Final = msgspec.json.Decoder(ProductEvent)
_trade: Final = msgspec.json.Decoder(Trade)
_ticker: Final = msgspec.json.Decoder(Ticker)
_candle: Final = msgspec.json.Decoder(Candle)

_Row = TypeVar("_Row", Trade, Ticker, Candle)


class _Fed(NamedTuple):
    """One instrument, and the channels that it is published in."""

    instrument: str
    names: tuple[str, ...]


class CoinbaseRows:
    """Those of one connection."""

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        """Of these those that are of trades, tickers and candles."""
        self._tickers: dict[str, list[_Fed]] = {}
        """Of these three the last has what the others have: all that Coinbase's `ticker` feeds."""
        self._quotes: dict[str, list[_Fed]] = {}
        self._by_ticker: dict[str, list[_Fed]] = {}
        self._quoted: dict[str, tuple[str, str, str, str]] = {}
        """The best bid and ask of each product, as they were told last."""
        self._trades: dict[str, list[_Fed]] = {}
        self._candles: dict[str, list[_Fed]] = {}
        self._buckets: dict[str, Candles[Candle]] = {}
        for each in subscriptions:
            self._add(each)

    def _add(self, each: Subscription) -> None:
        product, instrument = each.product, each.instrument
        fed = _Fed(instrument, tuple(channel.name for channel in each.channels))
        match each.stream:
            case "ticker":
                self._by_ticker.setdefault(product, []).append(fed)
                quotes = tuple(channel.name for channel in each.channels if channel.kind.view is View.QUOTE)
                tickers = tuple(name for name in fed.names if name not in quotes)
                if tickers:
                    self._tickers.setdefault(product, []).append(_Fed(instrument, tickers))
                if quotes:
                    self._quotes.setdefault(product, []).append(_Fed(instrument, quotes))
            case "market_trades":
                self._trades.setdefault(product, []).append(fed)
            case "candles":
                self._candles.setdefault(product, []).append(fed)
                self._buckets[product] = Candles()

    def trades(self) -> Iterator[tuple[str, str]]:
        """The topics that are made of trades: channel and instrument."""
        for feds in self._trades.values():
            for instrument, names in feds:
                for name in names:
                    yield name, instrument

    def trade_rows(self, raw_events: Raw, payload: bytes, received_ms: int) -> list[Event] | Rows:
        """Trades, in the order of their ids; of a snapshot, which are of before, as such.

        Raises: msgspec.DecodeError, where `events` is no list of such.
        """
        made = Rows([], [])
        for event in _rows.decode(raw_events):
            past = event.type == "snapshot"
            found: list[Event] = []
            for body, row, feds in _sound(event.trades, payload, _trade, Trade, self._trades, made):
                try:
                    price, size, id_ = row.price, row.size, row.trade_id
                    if is_number(price) is None or not float(price) > 0.0:
                        check_price(price, "price")
                    fields = TradeFields(quantity(size, "size"), _TAKERS[row.side], id_)
                    made_ms = since_1970_ms(row.time, "time")
                except Odd as odd:
                    made.notes += [note for fed in feds for note in notes(fed.names, fed.instrument, odd)]
                    continue
                order = int(id_) if id_.isdecimal() and id_.isascii() and len(id_) <= 18 else None
                found += [
                    Event(name, instrument, body, received_ms, price, made_ms, fields=fields, order=order, past=past)
                    for instrument, names in feds
                    for name in names
                ]
            if len(found) > 1:
                found.sort(key=_order)
            made.events += found
        return made if made.notes else made.events

    def ticker_rows(self, frame: Frame, raw_events: Raw, payload: bytes, received_ms: int) -> list[Event] | Rows:
        """Tickers, and the quotes that are made of them.

        Raises: msgspec.DecodeError, where `events` is no list of such.
        """
        made = Rows([], [])
        exchange_ms = _envelope_ms(frame)
        for event in _rows.decode(raw_events):
            for body, row, _ in _sound(event.tickers, payload, _ticker, Ticker, self._by_ticker, made):
                for fed in self._tickers.get(row.product_id, ()):
                    try:
                        check_price(row.price, "price")
                    except Odd as odd:
                        made.notes += notes(fed.names, fed.instrument, odd)
                        continue
                    made.events += [
                        Event(name, fed.instrument, body, received_ms, row.price, exchange_ms) for name in fed.names
                    ]
                if feds := self._quotes.get(row.product_id):
                    self._quote(row, body, feds, made, received_ms, exchange_ms)
        return made if made.notes else made.events

    def _quote(
        self, row: Ticker, body: bytes, feds: Sequence[_Fed], made: Rows, received_ms: int, exchange_ms: int | None
    ) -> None:
        """Nothing where neither side has changed."""
        said = (row.best_bid, row.best_bid_quantity, row.best_ask, row.best_ask_quantity)
        if self._quoted.get(row.product_id) == said:
            return
        try:
            bid, bid_size = _side(row.best_bid, row.best_bid_quantity, "best_bid")
            ask, ask_size = _side(row.best_ask, row.best_ask_quantity, "best_ask")
            if not bid and not ask:
                raise Odd("not trading: it has neither bid nor ask", "halted")
        except Odd as odd:
            made.notes += [note for fed in feds for note in notes(fed.names, fed.instrument, odd)]
            return
        self._quoted[row.product_id] = said
        fields = QuoteFields(
            bid=number(bid) if bid else UNSET, bid_size=bid_size, ask=number(ask) if ask else UNSET, ask_size=ask_size
        )
        price = middle(bid, ask) if bid and ask else ""
        made.events += [
            Event(name, instrument, body, received_ms, price, exchange_ms, fields=fields)
            for instrument, names in feds
            for name in names
        ]

    def candle_rows(self, frame: Frame, raw_events: Raw, payload: bytes, received_ms: int) -> list[Event] | Rows:
        """Candles. Raises: msgspec.DecodeError, where `events` is no list of such."""
        made = Rows([], [])
        exchange_ms = _envelope_ms(frame)
        for event in _rows.decode(raw_events):
            found: dict[str, list[Told[Candle]]] = {}
            for body, row, feds in _sound(event.candles, payload, _candle, Candle, self._candles, made):
                try:
                    for field in ("open", "high", "low", "close"):
                        check_price(getattr(row, field), field)
                    quantity(row.volume, "volume")
                    found.setdefault(row.product_id, []).append(Told(body, row, _start_ms(row.start)))
                except Odd as odd:
                    made.notes += [note for fed in feds for note in notes(fed.names, fed.instrument, odd)]
            for product, rows in found.items():
                for told in self._buckets[product].take(rows, snapshot=event.type == "snapshot"):
                    made.events += _candle_events(told, self._candles[product], received_ms, exchange_ms)
        return made if made.notes else made.events


def _sound(
    raws: Sequence[Raw] | None,
    payload: bytes,
    decoder: msgspec.json.Decoder[_Row],
    type_: type[_Row],
    wanted: Mapping[str, list[_Fed]],
    made: Rows,
) -> Iterator[tuple[bytes, _Row, list[_Fed]]]:
    """The rows that can be read and are wanted, fit to be passed on; what is wrong with others is noted."""
    if not raws:
        return
    try:
        look_over(payload)
        is_sound, is_one_line = True, b"\n" not in payload and b"\r" not in payload
    except PayloadError:
        is_sound = is_one_line = False
    for raw in raws:
        body = bytes(raw) if is_one_line else spliced(raw)
        try:
            row = decoder.decode(body) if is_sound else read_row(body, type_)
        except (Odd, *UNREADABLE):
            product = _product_of(body)
            try:
                read_row(body, type_)
            except Odd as odd:
                made.notes += [
                    note for fed in wanted.get(product, ()) for note in notes(fed.names, fed.instrument, odd)
                ]
            continue
        feds = wanted.get(row.product_id)
        if feds is not None:
            yield body, row, feds


def _product_of(body: bytes) -> str:
    """Whose row it is that cannot be read; "" where that cannot be told."""
    try:
        return _product.decode(body).product_id
    except UNREADABLE:
        found = member(body, "product_id")
        return found if isinstance(found, str) else ""


def _order(event: Event) -> int:
    return event.order or 0


def _side(price: str, size: str, field: str) -> tuple[str, Raw | UnsetType]:
    """One side of a quote; "" where it is empty. Raises: Odd."""
    if not price:
        return "", UNSET
    try:
        check_price(price, field)
    except Odd as odd:
        if odd.cause == "halted":
            return "", UNSET
        raise
    return price, quantity(size, f"{field}_quantity")


def _start_ms(text: str) -> int:
    """When a candle began. Raises: Odd."""
    if not (text.isdecimal() and text.isascii() and len(text) <= _MOST_DIGITS):
        raise Odd(f"{quoted('start')} is {shown(text)}, not in seconds since 1970")
    return int(text) * 1000


def _candle_events(
    told: Told[Candle], feds: Sequence[_Fed], received_ms: int, exchange_ms: int | None
) -> Iterator[Event]:
    row = told.candle
    fields = CandleFields(
        INTERVAL,
        told.start_ms,
        number(row.open),
        number(row.high),
        number(row.low),
        number(row.close),
        number(row.volume),
        told.closed,
    )
    for instrument, names in feds:
        for name in names:
            yield Event(name, instrument, told.row, received_ms, row.close, exchange_ms, fields=fields)


def _envelope_ms(frame: Frame) -> int | None:
    """When the venue sent it; None where it does not say so, for that is no reason to leave its rows out."""
    try:
        return since_1970_ms(frame.timestamp, "timestamp") if frame.timestamp else None
    except Odd:
        return None
