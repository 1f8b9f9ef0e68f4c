"""Coinbase's Advanced Trade websocket, simulated without I/O: a `SocketVenue` (`connectors.simulator.venues.sockets`).

Source of every rule: Coinbase's documentation of Advanced Trade, "WebSocket overview", "WebSocket channels", "WebSocket
rate limits" and `advanced-trade-asyncapi.json`, state of November 2026; what is not there is known from clients
(nautilus_trader's fixtures, ccxt, JKorf/Coinbase.Net#19). In short:

    subscribe      one channel, any products; answered by the list of all that the connection has. Who asks for nothing
                   in the first 5 s is cut off, and so is who is sent nothing for a minute
    error          {"type":"error","message":"..."}: names no request, and has no number. One for too many books
    sequence_num   rises by one from frame to frame, over all channels, the lists included
    heartbeats     each second, with a counter of its own
    ticker         the present one, then after each match
    market_trades  trades of before, newest first; then those of a moment together. `side` is the maker's
    level2         arrives as `l2_data`: the whole book, with times of 1970, then what changed; sides are bid and offer
    candles        of five minutes: some of before, then the present one each second, and once more the one that ended

A product against USDC is the same as the one against USD, by whose name its data comes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.market import COINBASE, Listing, unpadded
from connectors.simulator.venues.sockets import Close, Push, PushKind, SocketRules, SocketSession
from connectors.simulator.venues.stream import BookChange, Candle, MarketStream, Trade

RULES: Final = SocketRules(
    first_s=5.0,
    idle_s=60.0,
    idle=Close(None),
    # Of an address; here of a connection.
    requests=8,
    requests_s=1.0,
    connects=8,
    connects_s=1.0,
)
CHANNELS: Final = ("heartbeats", "market_trades", "ticker", "level2", "candles")
"""In the order in which what is of one step is sent."""
MOST_BOOKS: Final = 30
"""Products of `level2` on one connection: 16 were seen to work, 32 to be refused."""
HISTORY: Final = 50
"""Trades of a snapshot."""

SECOND_MS: Final = 1_000
CANDLE_MS: Final = 300_000
_CANDLES_BEFORE: Final = 3
_NO_TIME: Final = "1970-01-01T00:00:00Z"

_encode: Final = msgspec.json.Encoder().encode


class _Command(msgspec.Struct):
    """`{"type":"subscribe","channel":"level2","product_ids":["BTC-USD"]}`."""

    type: str
    channel: str
    product_ids: list[str] | None = None


class CoinbaseStreams:
    """Coinbase's public websocket.

    Args:
        stream: What happens in the market.
        known: The symbols that are listed at present.
    """

    name = "coinbase"
    rules = RULES

    def __init__(self, stream: MarketStream, known: Container[str] = COINBASE) -> None:
        self._stream = stream
        self._known = known

    def serves(self, path: str) -> bool:
        """The root."""
        return path in ("", "/")

    def open(self, request: VenueRequest, number: int) -> CoinbaseSession:
        """A connection."""
        return CoinbaseSession(self._stream, self._known)


class _Served(msgspec.Struct):
    """A product of a channel: up to which step it has been served, and when last; None: not yet."""

    step: int | None = None
    at_ms: int = 0


class CoinbaseSession(SocketSession):
    """One connection.

    Args:
        stream: What happens in the market.
        known: The symbols that are listed at present.
    """

    def __init__(self, stream: MarketStream, known: Container[str]) -> None:
        self._stream = stream
        self._known = known
        self._held: dict[str, dict[str, _Served]] = {}
        """By channel, then by the product that was asked for."""
        self._number = 0
        self._beat_ms: int | None = None
        self._beats = 0
        self._time = ""

    def receive(self, text: str | bytes) -> Sequence[bytes]:
        """A request."""
        try:
            command = msgspec.json.decode(text, type=_Command)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return [_error("failed to parse the message")]
        if command.type not in ("subscribe", "unsubscribe"):
            return [_error(f"type `{command.type}` is not supported")]
        if command.channel not in CHANNELS:
            return [_error(f"channel `{command.channel}` is not supported")]
        wrong = self._subscribe(command) if command.type == "subscribe" else self._unsubscribe(command)
        return [_error(wrong)] if wrong else [self._list()]

    def refuse(self, text: str | bytes, listing: Listing, code: str) -> Sequence[bytes]:
        """An error with that text, by default that there is no such product."""
        command = msgspec.json.decode(text, type=_Command)
        if command.type == "subscribe" and command.product_ids == [listing.symbol]:
            return [_error(code or f"{listing.symbol} is not a valid product")]
        return ()

    def forget(self, listing: Listing) -> Sequence[bytes]:
        """Coinbase says nothing; nothing comes of it any more."""
        return ()

    def restart(self, listing: Listing) -> None:
        """Coinbase numbers no book by itself."""

    def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
        """What is due."""
        self._time = _time(now_ms)
        due: list[Push] = []
        for channel in CHANNELS[1:]:
            for product, served in self._held.get(channel, {}).items():
                listing = COINBASE[_listed(product)]
                if listing.symbol not in self._known:
                    served.step = None
                elif served.step != step or channel == "candles":
                    due += self._due(channel, listing, served, step, now_ms)
        if "heartbeats" in self._held and (self._beat_ms is None or not 0 <= now_ms - self._beat_ms < SECOND_MS):
            self._beat_ms = now_ms
            self._beats += 1
            beat = {"current_time": f"{self._time} m=+{self._beats}.0", "heartbeat_counter": self._beats}
            due.append(Push(self._frame("heartbeats", beat)))
        return due

    def _subscribe(self, command: _Command) -> str:
        """Returns what is wrong; "" where nothing is."""
        if command.channel == "heartbeats":
            self._held.setdefault("heartbeats", {})
            return ""
        if not command.product_ids:
            return "product_ids is required"
        for product in command.product_ids:
            if _listed(product) not in self._known:
                return f"{product} is not a valid product"
        held = self._held.get(command.channel, {})
        wanted = held | {product: held.get(product, _Served()) for product in command.product_ids}
        if command.channel == "level2" and len(wanted) > MOST_BOOKS:
            return "too many L2 streams requested in a single session"
        self._held[command.channel] = wanted
        return ""

    def _unsubscribe(self, command: _Command) -> str:
        """Without products: from the whole channel."""
        held = self._held.get(command.channel, {})
        left = {product: served for product, served in held.items() if product not in (command.product_ids or held)}
        if left:
            self._held[command.channel] = left
        else:
            self._held.pop(command.channel, None)
        return ""

    def _list(self) -> bytes:
        """All that there is on this connection."""
        held = {
            channel: ["heartbeats"] if channel == "heartbeats" else list(products)
            for channel, products in self._held.items()
        }
        return self._frame("subscriptions", {"subscriptions": held})

    def _frame(self, channel: str, *events: object) -> bytes:
        """The next frame."""
        number, self._number = self._number, self._number + 1
        return _frame(channel, self._time, number, events)

    def _due(self, channel: str, listing: Listing, served: _Served, step: int, now_ms: int) -> Sequence[Push]:
        """Of one product of a channel."""
        since = served.step
        match channel:
            case "market_trades":
                due = self._trades(listing, since, step)
            case "ticker":
                due = self._ticker(listing, since, step)
            case "level2":
                due = self._book(listing, since, step)
            case _:
                if since is not None and 0 <= now_ms - served.at_ms < SECOND_MS:
                    return []
                due = self._candles(listing, since, step)
        served.step, served.at_ms = step, now_ms
        return due

    def _trades(self, listing: Listing, since: int | None, step: int) -> Sequence[Push]:
        if since is None:
            past = self._stream.newest_trades(listing, step, HISTORY)
            return [self._rows("market_trades", "trades", "snapshot", listing, self._told(listing, past))]
        new = list(self._stream.trades_between(listing, since, step))
        return [self._rows("market_trades", "trades", "update", listing, self._told(listing, new))] if new else []

    def _told(self, listing: Listing, trades: Sequence[Trade]) -> list[dict[str, str]]:
        """Newest first."""
        return [
            {
                "trade_id": str(trade.id),
                "product_id": listing.symbol,
                "price": unpadded(trade.price, listing.price_digits),
                "size": unpadded(trade.size, listing.size_digits),
                "side": "SELL" if trade.side == "buy" else "BUY",
                "time": _time(self._stream.time_ms(trade.step)),
            }
            for trade in reversed(trades)
        ]

    def _ticker(self, listing: Listing, since: int | None, step: int) -> Sequence[Push]:
        if since is not None and not any(self._stream.trades_between(listing, since, step)):
            return []
        quote = self._stream.quote(listing, step)
        price, size = (partial(_digits, digits) for digits in (listing.price_digits, listing.size_digits))
        row = {
            "type": "ticker",
            "product_id": listing.symbol,
            "price": price(quote.last),
            "volume_24_h": size(quote.volume),
            "low_24_h": price(quote.low),
            "high_24_h": price(quote.high),
            "low_52_w": price(quote.low // 2),
            "high_52_w": price(quote.high * 2),
            "price_percent_chg_24_h": f"{100 * (quote.last - quote.open) / quote.open:.14f}",
            "best_bid": price(quote.bid),
            "best_bid_quantity": size(quote.bid_size),
            "best_ask": price(quote.ask),
            "best_ask_quantity": size(quote.ask_size),
        }
        return [self._rows("ticker", "tickers", "snapshot" if since is None else "update", listing, [row])]

    def _book(self, listing: Listing, since: int | None, step: int) -> Sequence[Push]:
        if since is None:
            book = self._stream.book(listing, step)
            change = BookChange(step, step, tuple(book.bids), tuple(book.asks))
        else:
            change = self._stream.change(listing, step, since)
            if not change.bids and not change.asks:
                return []
        at = _NO_TIME if since is None else _time(self._stream.time_ms(step))
        number, self._number = self._number, self._number + 1
        remake = partial(_book_frame, listing, since is None, self._time, at, number)
        return [Push(remake(change), "book", listing, change, whole=since is None, remake=remake)]

    def _candles(self, listing: Listing, since: int | None, step: int) -> Sequence[Push]:
        if since is None:
            candle = self._stream.candle(listing, CANDLE_MS, step)
            starts_ms = [candle.start_ms - CANDLE_MS * back for back in range(1, _CANDLES_BEFORE + 1)]
            told = [candle, *(self._stream.closed_candle(listing, CANDLE_MS, start_ms) for start_ms in starts_ms)]
            type_ = "snapshot"
        else:
            told = self._stream.candles(listing, CANDLE_MS, since, step)
            type_ = "update"
        return [self._rows("candles", "candles", type_, listing, [_candle(listing, each) for each in told])]

    def _rows(self, channel: str, name: str, type_: str, listing: Listing, rows: list[dict[str, str]]) -> Push:
        kind: PushKind = "trade" if name == "trades" else "ticker" if name == "tickers" else "candle"
        text = self._frame(channel, {"type": type_, name: rows})
        return Push(text, kind, listing, history=kind == "trade" and type_ == "snapshot")


def _listed(product: str) -> str:
    """The product whose data it is."""
    same = product.removesuffix("C")
    return same if product.endswith("-USDC") and same in COINBASE else product


def _error(text: str) -> bytes:
    return _encode({"type": "error", "message": text})


def _frame(channel: str, time: str, number: int, events: Sequence[object]) -> bytes:
    return _encode({"channel": channel, "timestamp": time, "sequence_num": number, "events": events})


def _book_frame(
    listing: Listing, whole: bool, time: str, at: str, number: int, change: BookChange, spoiled: bool = False
) -> bytes:
    """There is no checksum to spoil."""
    updates = [*_levels(listing, "bid", change.bids, at), *_levels(listing, "offer", change.asks, at)]
    event = {"type": "snapshot" if whole else "update", "product_id": listing.symbol, "updates": updates}
    return _frame("l2_data", time, number, [event])


def _levels(listing: Listing, side: str, levels: Iterable[tuple[int, int]], at: str) -> list[dict[str, str]]:
    return [
        {
            "side": side,
            "event_time": at,
            "price_level": unpadded(price, listing.price_digits),
            "new_quantity": unpadded(size, listing.size_digits),
        }
        for price, size in levels
    ]


def _candle(listing: Listing, candle: Candle) -> dict[str, str]:
    price = partial(_digits, listing.price_digits)
    return {
        "start": str(candle.start_ms // 1000),
        "high": price(candle.high),
        "low": price(candle.low),
        "open": price(candle.open),
        "close": price(candle.close),
        "volume": unpadded(candle.volume, listing.size_digits),
        "product_id": listing.symbol,
    }


def _digits(digits: int, value: int) -> str:
    return unpadded(value, digits)


def _time(since_1970_ms: int) -> str:
    """RFC 3339, in nanoseconds."""
    seconds, ms = divmod(since_1970_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}000000Z"
