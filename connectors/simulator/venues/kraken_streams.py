"""Kraken's websocket (v2), simulated without I/O: a `SocketVenue` (`connectors.simulator.venues.sockets`).

Source of every rule: Kraken's API documentation, "Spot WebSocket v2" and its channels, and the guides "WebSockets:
introduction" and "Spot WebSockets (v2): book", state of November 2026. In short:

    status       by itself when the connection opens, and when it changes: {"system":"online", ...}
    heartbeat    each second, from the first subscription on
    ping         {"method":"ping"} is answered by {"method":"pong"}, with the `req_id` of the request
    subscribe    one answer per symbol, all with the `req_id` of the request; so does unsubscribe, which names the depth
    instrument   all assets and pairs with their status and precision, then each pair that changes
    ticker       after each trade, or with `event_trigger` `bbo` when the best bid or ask changes
    trade        the last 50 if a snapshot is wanted, then each trade
    book         the best `depth` levels, then what changed; nothing is said of what fell out at the bottom. `checksum`
                 is CRC-32 of the best ten asks and bids, digits without point and zeros in front
    ohlc         the present candle at each trade; none says that it is closed

Numbers are JSON numbers without zeros at the end.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from zlib import crc32

import msgspec
from msgspec import Raw

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.market import KRAKEN, Listing, Quote, unpadded
from connectors.simulator.venues.sockets import Close, Push, PushKind, SocketRules, SocketSession
from connectors.simulator.venues.stream import BookChange, Candle, MarketStream, Trade

PATH: Final = "/v2"
RULES: Final = SocketRules(
    # A connection without a subscription, so without heartbeats, is closed after about a minute.
    idle_s=60.0,
    idle=Close(None),
    # Cloudflare's, for each address.
    connects=150,
    connects_s=600.0,
)
HEARTBEAT_MS: Final = 1_000
HISTORY: Final = 50
"""Trades of a snapshot."""

DEPTHS: Final[tuple[int, ...]] = (10, 25, 100, 500, 1000)
INTERVALS: Final[tuple[int, ...]] = (1, 5, 15, 30, 60, 240, 1440, 10080, 21600)
LEVELS: Final = 10
"""Of each side that are under the checksum."""

_CANDLES_BEFORE: Final = 3
"""How many closed candles a snapshot has; of the long ones, of which each takes a while to compute, none."""
_LONG_MINUTES: Final = 5

_ORDER: Final = {"instrument": 0, "trade": 1, "ticker": 2, "book": 3, "ohlc": 4}
"""What goes before what of one step."""

_Key = tuple[str, str, int]
"""A subscription: the channel, the symbol, and of a book the depth, of candles the minutes, of a ticker 0."""
_INSTRUMENT: Final[_Key] = ("instrument", "", 0)

_encode: Final = msgspec.json.Encoder().encode


class KrakenStreams:
    """Kraken's public websocket.

    Args:
        stream: What happens in the market.
        known: The symbols that are listed at present.
    """

    name = "kraken"
    rules = RULES

    def __init__(self, stream: MarketStream, known: Container[str] = KRAKEN) -> None:
        self._stream = stream
        self._known = known

    def serves(self, path: str) -> bool:
        """`/v2`."""
        return path == PATH

    def open(self, request: VenueRequest, number: int) -> KrakenSession:
        """A connection."""
        return KrakenSession(self._stream, self._known, number)


class _Served(msgspec.Struct):
    """A subscription: up to which step it has been served (None: not yet), and what it asked for.

    Attributes:
        snapshot: whether one is wanted.
        quotes: of a ticker, whether it comes when the best bid or ask changes.
        quote: the best bid and ask with their sizes, as told last.
    """

    snapshot: bool
    quotes: bool = False
    step: int | None = None
    quote: tuple[int, ...] = ()


class KrakenSession(SocketSession):
    """One connection."""

    def __init__(self, stream: MarketStream, known: Container[str], number: int) -> None:
        self._stream = stream
        self._known = known
        self._number = number
        self._held: dict[_Key, _Served] = {}
        self._delisted: set[str] = set()
        self._is_greeted = False
        self._beat_ms: int | None = None
        self._time = ""

    @property
    def held(self) -> set[_Key]:
        """What is subscribed to."""
        return set(self._held)

    def receive(self, text: str | bytes) -> Sequence[bytes]:
        """A request."""
        try:
            request = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return [_encode({"error": "Malformed request", "success": False})]
        match request:
            case {"method": "ping"}:
                return [_encode({"method": "pong"} | self._times(request))]
            case {"method": "subscribe" | "unsubscribe" as method, "params": {"channel": str(channel)} as params}:
                symbols = [""] if channel == "instrument" else params.get("symbol")
                if isinstance(symbols, list) and symbols and all(isinstance(symbol, str) for symbol in symbols):
                    ask = self._subscribe if method == "subscribe" else self._unsubscribe
                    return [self._answer(request, symbol, ask(channel, symbol, params)) for symbol in symbols]
        return [self._answer(request if isinstance(request, dict) else {}, "", "Malformed request")]

    def refuse(self, text: str | bytes, listing: Listing, code: str) -> Sequence[bytes]:
        """An error with that text, by default that there is no such pair."""
        request = msgspec.json.decode(text)
        match request:
            case {"method": "subscribe", "params": {"symbol": [symbol]}} if symbol == listing.symbol:
                return [self._answer(request, symbol, code or f"Currency pair not supported {symbol}")]
        return ()

    def forget(self, listing: Listing) -> Sequence[bytes]:
        """Nothing comes of it until it is listed again; the list of pairs says both."""
        told = self._held.get(_INSTRUMENT)
        if told is None or told.step is None:
            return ()
        self._delisted.add(listing.symbol)
        return [_pair_frame(listing, "delisted")]

    def restart(self, listing: Listing) -> None:
        """Kraken numbers nothing."""

    def notice(self) -> Sequence[bytes]:
        """The status `maintenance`."""
        return [self._status("maintenance")]

    def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
        """What is due."""
        self._time = _time(now_ms)
        texts: list[Push] = []
        if not self._is_greeted:
            self._is_greeted = True
            texts.append(Push(self._status("online")))
        for symbol in sorted(symbol for symbol in self._delisted if symbol in self._known):
            self._delisted.discard(symbol)
            texts.append(Push(_pair_frame(KRAKEN[symbol], "online")))
        for key in sorted(self._held, key=lambda key: (_ORDER[key[0]], key)):
            served = self._held[key]
            if key != _INSTRUMENT and key[1] not in self._known:
                served.step = None
            elif served.step != step:
                texts += self._due(key, served, step)
                served.step = step
        if self._held and (self._beat_ms is None or not 0 <= now_ms - self._beat_ms < HEARTBEAT_MS):
            self._beat_ms = now_ms
            texts.append(Push(b'{"channel":"heartbeat"}'))
        return texts

    def _subscribe(self, channel: str, symbol: str, params: dict[str, Any]) -> str:
        """Returns what is wrong; "" where nothing is."""
        key = _key(channel, symbol, params)
        if key is None:
            return f"Unsupported channel or parameter: {channel}"
        if channel != "instrument" and symbol not in self._known:
            return f"Currency pair not supported {symbol}"
        if key in self._held:
            return f"Already subscribed to one {channel} on {symbol}"
        snapshot = params.get("snapshot", channel != "trade") is True
        self._held[key] = _Served(snapshot, params.get("event_trigger") == "bbo")
        return ""

    def _unsubscribe(self, channel: str, symbol: str, params: dict[str, Any]) -> str:
        key = _key(channel, symbol, params)
        if key is None or key not in self._held:
            return "Subscription Not Found"
        del self._held[key]
        return ""

    def _answer(self, request: dict[str, Any], symbol: str, error: str) -> bytes:
        """To a request, about one of its symbols."""
        answer: dict[str, Any] = {"method": request.get("method", ""), "success": not error} | self._times(request)
        if error:
            answer |= {"error": error} | ({"symbol": symbol} if symbol else {})
        else:
            asked = {name: value for name, value in request["params"].items() if name != "symbol"}
            answer["result"] = asked | ({"symbol": symbol} if symbol else {})
        return _encode(answer)

    def _times(self, request: dict[str, Any]) -> dict[str, Any]:
        times = {"time_in": self._time, "time_out": self._time}
        return times | ({"req_id": request["req_id"]} if isinstance(request.get("req_id"), int) else {})

    def _status(self, system: str) -> bytes:
        """Its id is beyond what 63 bits hold, as Kraken's are."""
        row = {"api_version": "v2", "connection_id": 13_834_774_380_200_032_777 + self._number, "version": "2.0.0"}
        return _frame("status", "update", [row | {"system": system}])

    def _due(self, key: _Key, served: _Served, step: int) -> Sequence[Push]:
        """Of one subscription, which has not been served at this step."""
        channel, symbol, number = key
        if channel == "instrument":
            return [] if served.step is not None else [Push(self._instruments())]
        listing = KRAKEN[symbol]
        match channel:
            case "trade":
                return self._trades(served, listing, step)
            case "ticker":
                return self._ticker(served, listing, step)
            case "book":
                return self._book(served, listing, step, number)
            case _:
                return self._candles(served, listing, step, number)

    def _instruments(self) -> bytes:
        pairs = [_pair(listing, "online") for symbol, listing in KRAKEN.items() if symbol in self._known]
        names = sorted({name for listing in KRAKEN.values() for name in (listing.base, listing.quote)})
        assets = [{"id": name, "status": "enabled", "precision": 10, "precision_display": 5} for name in names]
        return _frame("instrument", "snapshot", {"assets": assets, "pairs": pairs})

    def _trades(self, served: _Served, listing: Listing, step: int) -> Sequence[Push]:
        if served.step is None:
            if not served.snapshot:
                return []
            rows = [self._trade(listing, trade) for trade in self._stream.newest_trades(listing, step, HISTORY)]
            return [Push(_frame("trade", "snapshot", rows), "trade", listing, history=True)]
        pushes = []
        for one in range(served.step + 1, step + 1):
            if trades := self._stream.trades(listing, one):
                rows = [self._trade(listing, trade) for trade in trades]
                pushes.append(Push(_frame("trade", "update", rows), "trade", listing))
        return pushes

    def _trade(self, listing: Listing, trade: Trade) -> dict[str, object]:
        return {
            "symbol": listing.symbol,
            "side": trade.side,
            "price": _number(trade.price, listing.price_digits),
            "qty": _number(trade.size, listing.size_digits),
            "ord_type": "limit",
            "trade_id": trade.id,
            "timestamp": _time(self._stream.time_ms(trade.step)),
        }

    def _ticker(self, served: _Served, listing: Listing, step: int) -> Sequence[Push]:
        quote = self._stream.quote(listing, step)
        best, before = (quote.bid, quote.bid_size, quote.ask, quote.ask_size), served.quote
        served.quote = best
        kind: PushKind = "quote" if served.quotes else "ticker"
        if served.step is None:
            row = self._day(listing, quote)
            return [Push(_frame("ticker", "snapshot", [row]), kind, listing)] if served.snapshot else []
        is_due = best != before if served.quotes else any(self._stream.trades_between(listing, served.step, step))
        return [Push(_frame("ticker", "update", [self._day(listing, quote)]), kind, listing)] if is_due else []

    def _day(self, listing: Listing, quote: Quote) -> dict[str, object]:
        price, size = listing.price_digits, listing.size_digits
        change = quote.last - quote.open
        return {
            "symbol": listing.symbol,
            "bid": _number(quote.bid, price),
            "bid_qty": _number(quote.bid_size, size),
            "ask": _number(quote.ask, price),
            "ask_qty": _number(quote.ask_size, size),
            "last": _number(quote.last, price),
            "volume": _number(quote.volume, size),
            "vwap": _number(quote.average, price),
            "low": _number(quote.low, price),
            "high": _number(quote.high, price),
            "change": _number(change, price),
            "change_pct": round(100 * change / quote.open, 2),
            "timestamp": self._time,
        }

    def _book(self, served: _Served, listing: Listing, step: int, depth: int) -> Sequence[Push]:
        book, since = self._stream.book(listing, step, depth), served.step
        if since is None:
            change = BookChange(step, step, tuple(book.bids), tuple(book.asks))
        else:
            change = self._stream.change(listing, step, since, depth, trimmed=True)
            if not change.bids and not change.asks:
                return []
        remake = partial(_book_frame, listing, since is None, _checksum(book.bids, book.asks), self._time)
        return [Push(remake(change), "book", listing, change, whole=since is None, remake=remake)]

    def _candles(self, served: _Served, listing: Listing, step: int, minutes: int) -> Sequence[Push]:
        length_ms = minutes * 60_000
        if served.step is None:
            candle = self._stream.candle(listing, length_ms, step)
            count = _CANDLES_BEFORE if minutes <= _LONG_MINUTES else 0
            starts_ms = [candle.start_ms - length_ms * back for back in range(count, 0, -1)]
            candles = [self._stream.closed_candle(listing, length_ms, start_ms) for start_ms in starts_ms]
            told = [*candles, *([candle] if candle.trades else [])]
            if not served.snapshot or not told:
                return []
            return [self._ohlc("snapshot", listing, minutes, told)]
        if not any(self._stream.trades_between(listing, served.step, step)):
            return []
        candles = self._stream.candles(listing, length_ms, served.step, step)
        return [self._ohlc("update", listing, minutes, [candle]) for candle in candles if candle.trades]

    def _ohlc(self, type_: str, listing: Listing, minutes: int, candles: Sequence[Candle]) -> Push:
        rows = [_ohlc(listing, minutes, candle) for candle in candles]
        return Push(_frame("ohlc", type_, rows, self._time), "candle", listing)


def _key(channel: str, symbol: str, params: dict[str, Any]) -> _Key | None:
    """A subscription's; None where there is no such channel, or not with such parameters."""
    number, allowed = 0, DEPTHS
    match channel:
        case "book":
            number = params.get("depth", DEPTHS[0])
        case "ohlc":
            number, allowed = params.get("interval", INTERVALS[0]), INTERVALS
        case "ticker" if params.get("event_trigger", "trades") in ("trades", "bbo"):
            return (channel, symbol, 0)
        case "trade" | "instrument":
            return (channel, symbol, 0)
        case _:
            return None
    return (channel, symbol, number) if number in allowed else None


def _frame(channel: str, type_: str, data: object, timestamp: str = "") -> bytes:
    frame = {"channel": channel, "type": type_, "data": data}
    return _encode(frame | ({"timestamp": timestamp} if timestamp else {}))


def _book_frame(
    listing: Listing, whole: bool, checksum: int, timestamp: str, change: BookChange, spoiled: bool = False
) -> bytes:
    row = {
        "symbol": listing.symbol,
        "bids": _levels(listing, change.bids),
        "asks": _levels(listing, change.asks),
        "checksum": checksum ^ 1 if spoiled else checksum,
        "timestamp": timestamp,
    }
    return _frame("book", "snapshot" if whole else "update", [row])


def _levels(listing: Listing, levels: Sequence[tuple[int, int]]) -> list[dict[str, Raw]]:
    return [
        {"price": _number(price, listing.price_digits), "qty": _number(size, listing.size_digits)}
        for price, size in levels
    ]


def _checksum(bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> int:
    """In smallest steps numbers have neither point nor zeros in front."""
    return crc32("".join(f"{price}{size}" for price, size in (*asks[:LEVELS], *bids[:LEVELS])).encode())


def _ohlc(listing: Listing, minutes: int, candle: Candle) -> dict[str, object]:
    price = listing.price_digits
    vwap = candle.quote_volume // candle.volume if candle.volume else candle.close
    return {
        "symbol": listing.symbol,
        "open": _number(candle.open, price),
        "high": _number(candle.high, price),
        "low": _number(candle.low, price),
        "close": _number(candle.close, price),
        "trades": candle.trades,
        "volume": _number(candle.volume, listing.size_digits),
        "vwap": _number(vwap, price),
        "interval_begin": _time(candle.start_ms, 9),
        "interval": minutes,
        "timestamp": _time(candle.end_ms),
    }


def _pair(listing: Listing, status: str) -> dict[str, object]:
    return {
        "symbol": listing.symbol,
        "base": listing.base,
        "quote": listing.quote,
        "status": status,
        "qty_precision": listing.size_digits,
        "qty_increment": Raw(f"1e-{listing.size_digits:02d}".encode()),
        "price_precision": listing.price_digits,
        "price_increment": _number(1, listing.price_digits),
    }


def _pair_frame(listing: Listing, status: str) -> bytes:
    return _frame("instrument", "update", {"assets": [], "pairs": [_pair(listing, status)]})


def _number(value: int, digits: int) -> Raw:
    return Raw(f"{'-' if value < 0 else ''}{unpadded(abs(value), digits)}".encode())


def _time(since_1970_ms: int, places: int = 6) -> str:
    """RFC 3339, with so many digits of a second."""
    seconds, ms = divmod(since_1970_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}{'0' * (places - 3)}Z"
