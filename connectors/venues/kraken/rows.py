"""What rows of Kraken's become that stand for themselves: trades, tickers, quotes, candles. Pure.

What is wrong with one is noted of its instrument; the others of the frame go on. `frames.py` has what rows look like.
`ohlc` tells of the present candle at each trade, and does not say that one is closed; a snapshot holds candles of
before, oldest first (Kraken's API documentation, "Spot WebSocket v2: ohlc", November 2026).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, Raw

from connectors.base import Event, PayloadError, Rows
from connectors.limits.payload import brief, look_over, spliced
from connectors.limits.rows import Odd, check_price, member, notes, quantity, read_row
from connectors.push.candles import Candles, Told
from connectors.venues.kraken.frames import UNREADABLE, Frame, Ohlc, Ticker, Trade, ms, plain
from connectors.venues.kraken.plan import Subscription
from protocol.fields import CandleFields, QuoteFields, TradeFields
from protocol.messages import middle, number

_rows: Final = msgspec.json.Decoder(list[Raw])
_trade: Final = msgspec.json.Decoder(Trade)
_ticker: Final = msgspec.json.Decoder(Ticker)
_ohlc: Final = msgspec.json.Decoder(Ohlc)

_Row = TypeVar("_Row", Trade, Ticker, Ohlc)


class _Fed:
    """A subscription's channels: those whose data stands for itself, by name."""

    __slots__ = ("instrument", "names")

    def __init__(self, subscription: Subscription) -> None:
        self.instrument = subscription.instrument
        self.names = tuple(channel.name for channel in subscription.channels)


class KrakenRows:
    """Those of one connection.

    Attributes:
        halted: the symbols of which nothing is published, because they are not traded.
    """

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        """Of these those that are of trades, tickers, quotes and candles."""
        self.halted: frozenset[str] = frozenset()
        self._trades: dict[str, _Fed] = {}
        self._tickers: dict[str, _Fed] = {}
        self._quotes: dict[str, _Fed] = {}
        self._candles: dict[tuple[str, int], tuple[_Fed, str, Candles[Ohlc]]] = {}
        self._quoted: dict[str, tuple[bytes, ...]] = {}
        """The best bid and ask of each symbol, as they were told last."""
        for each in subscriptions:
            symbol, fed = each.instrument, _Fed(each)
            match each.stream:
                case "trade":
                    self._trades[symbol] = fed
                case "ticker":
                    self._tickers[symbol] = fed
                case "quotes":
                    self._quotes[symbol] = fed
                case "ohlc":
                    self._candles[symbol, each.minutes] = (fed, each.channels[0].interval, Candles())

    def halt(self, symbols: frozenset[str]) -> None:
        """Nothing is published of these, and of no others; their quotes are told anew when they trade again."""
        self.halted = symbols
        for symbol in symbols:
            self._quoted.pop(symbol, None)

    def trade_rows(self, data: Raw, payload: bytes, received_ms: int, *, past: bool) -> list[Event] | Rows:
        """Trades; `past`: of before the subscription. Raises: msgspec.DecodeError, as `_sound`."""
        made = Rows([], [])
        for body, row in self._sound(data, payload, _trade, Trade, made):
            fed = self._trades.get(row.symbol)
            if fed is None or row.symbol in self.halted:
                continue
            try:
                price, size, made_ms = plain(row.price), quantity(plain(row.qty), "qty"), ms(row.timestamp, "timestamp")
                check_price(price, "price")
            except (Odd, ValueError) as error:
                made.notes += notes(fed.names, fed.instrument, _odd(error))
                continue
            fields = TradeFields(size, row.side, str(row.trade_id))
            made.events += [
                Event(
                    name,
                    fed.instrument,
                    body,
                    received_ms,
                    price,
                    made_ms,
                    fields=fields,
                    order=row.trade_id,
                    past=past,
                )
                for name in fed.names
            ]
        if len(made.events) > 1:
            # What is behind a later trade would be taken for a repetition of before.
            made.events.sort(key=lambda event: event.order or 0)
        return made if made.notes else made.events

    def ticker_rows(self, data: Raw, payload: bytes, received_ms: int) -> list[Event] | Rows:
        """Tickers or quotes: a connection has one of them, see `plan.py`. Raises: msgspec.DecodeError, as `_sound`."""
        made = Rows([], [])
        for body, row in self._sound(data, payload, _ticker, Ticker, made):
            symbol = row.symbol
            if symbol in self.halted:
                continue
            for fed, make in ((self._tickers.get(symbol), _ticker_event), (self._quotes.get(symbol), self._quote)):
                if fed is None:
                    continue
                try:
                    event = make(row, body, received_ms)
                except (Odd, ValueError) as error:
                    made.notes += notes(fed.names, fed.instrument, _odd(error))
                    continue
                if event is not None:
                    made.events += [msgspec.structs.replace(event, channel=name) for name in fed.names]
        return made if made.notes else made.events

    def _quote(self, row: Ticker, body: bytes, received_ms: int) -> Event | None:
        """None where neither side has changed. Raises: Odd, ValueError."""
        said = (bytes(row.bid), bytes(row.bid_qty), bytes(row.ask), bytes(row.ask_qty))
        if self._quoted.get(row.symbol) == said:
            return None
        bid, ask = _side(row.bid, "bid"), _side(row.ask, "ask")
        if not bid and not ask:
            raise Odd("not trading: it has neither bid nor ask", "halted")
        fields = QuoteFields(
            bid=number(bid) if bid else UNSET,
            bid_size=quantity(plain(row.bid_qty), "bid_qty") if bid else UNSET,
            ask=number(ask) if ask else UNSET,
            ask_size=quantity(plain(row.ask_qty), "ask_qty") if ask else UNSET,
        )
        exchange_ms = ms(row.timestamp, "timestamp") if row.timestamp else None
        self._quoted[row.symbol] = said
        price = middle(bid, ask) if bid and ask else ""
        return Event("", row.symbol, body, received_ms, price, exchange_ms, fields=fields)

    def candle_rows(self, frame: Frame, data: Raw, payload: bytes, received_ms: int) -> list[Event] | Rows:
        """Candles. Raises: msgspec.DecodeError, as `_sound`."""
        made = Rows([], [])
        is_snapshot = frame.type == "snapshot"
        try:
            exchange_ms = ms(frame.timestamp, "timestamp") if frame.timestamp else None
        except Odd as odd:
            raise msgspec.ValidationError(str(odd)) from None
        rows: dict[tuple[str, int], list[Told[Ohlc]]] = {}
        for body, row in self._sound(data, payload, _ohlc, Ohlc, made):
            key = (row.symbol, row.interval)
            if key not in self._candles or row.symbol in self.halted:
                continue
            fed = self._candles[key][0]
            try:
                start_ms = ms(row.interval_begin, "interval_begin")
                for field in ("open", "high", "low", "close"):
                    check_price(plain(getattr(row, field)), field)
                quantity(plain(row.volume), "volume")
            except (Odd, ValueError) as error:
                made.notes += notes(fed.names, fed.instrument, _odd(error))
                continue
            rows.setdefault(key, []).append(Told(body, row, start_ms))
        for key, found in rows.items():
            fed, interval, candles = self._candles[key]
            made.events += [
                _candle_event(name, fed.instrument, interval, told, received_ms, exchange_ms)
                for told in candles.take(found, snapshot=is_snapshot)
                for name in fed.names
            ]
        return made if made.notes else made.events

    def _sound(
        self, data: Raw, payload: bytes, decoder: msgspec.json.Decoder[_Row], type_: type[_Row], made: Rows
    ) -> Iterator[tuple[bytes, _Row]]:
        """The rows that can be read, and may be passed on as they are; the others are noted in `made`.

        Raises:
            msgspec.DecodeError: `data` is no list, or has a row that cannot be read and is about no instrument.
        """
        try:
            look_over(payload)
            is_sound = True
        except PayloadError:
            is_sound = False
        for raw in _rows.decode(data):
            body = spliced(raw)
            if is_sound:
                try:
                    yield body, decoder.decode(body)
                    continue
                except UNREADABLE:
                    pass
            try:
                row = read_row(body, type_)
            except Odd as odd:
                symbol = str(member(body, "symbol"))
                names = self._carrying(symbol, type_)
                if not names:
                    raise msgspec.ValidationError(str(odd)) from None
                made.notes += notes(names, symbol, odd)
                continue
            yield body, row

    def _carrying(self, symbol: str, type_: type[Trade | Ticker | Ohlc]) -> list[str]:
        """The channels that carry such rows of that symbol."""
        if type_ is Ohlc:
            fed = [fed for (name, _), (fed, _, _) in self._candles.items() if name == symbol]
        elif type_ is Trade:
            fed = [self._trades[symbol]] if symbol in self._trades else []
        else:
            fed = [feds[symbol] for feds in (self._tickers, self._quotes) if symbol in feds]
        return [name for each in fed for name in each.names]


def _ticker_event(row: Ticker, body: bytes, received_ms: int) -> Event:
    """Raises: Odd, ValueError."""
    price = plain(row.last)
    check_price(price, "last")
    return Event("", row.symbol, body, received_ms, price, ms(row.timestamp, "timestamp") if row.timestamp else None)


def _candle_event(
    name: str, instrument: str, interval: str, told: Told[Ohlc], received_ms: int, exchange_ms: int | None
) -> Event:
    candle = told.candle
    close = plain(candle.close)
    fields = CandleFields(
        interval,
        told.start_ms,
        number(plain(candle.open)),
        number(plain(candle.high)),
        number(plain(candle.low)),
        number(close),
        number(plain(candle.volume)),
        told.closed,
    )
    return Event(name, instrument, told.row, received_ms, close, exchange_ms, fields=fields)


def _side(raw: Raw, field: str) -> str:
    """A side's best price; "" where it has none. Raises: Odd, ValueError."""
    digits = plain(raw)
    if digits == "null":
        return ""
    try:
        check_price(digits, field)
    except Odd as odd:
        if odd.cause == "halted":
            return ""
        raise
    return digits


def _odd(error: Odd | ValueError) -> Odd:
    return error if isinstance(error, Odd) else Odd(brief(str(error)))
