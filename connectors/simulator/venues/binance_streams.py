"""Binance's market streams, simulated without I/O (`connectors.simulator.venues.sockets`).

Source of every rule: `binance/binance-spot-api-docs`, web-socket-streams.md, state of July 2026. In short:

    /stream?streams=a/b    what is named in the address is pushed, each object as {"stream":"a","data":{...}}
    /ws/a/b                the same, each object by itself; /stream and /ws alone begin with nothing
    SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, SET_PROPERTY, GET_PROPERTY
                           are answered by {"result":...,"id":...}, which is never in an envelope
    <symbol>@trade         each trade
    <symbol>@bookTicker    best bid and ask, with the book's update id; no type, no time
    <symbol>@ticker        every second
    <symbol>@depth         what changed, every second, or with @100ms so often; update ids `U` to `u`, as REST counts
                           them (`GET /api/v3/depth`). There is no snapshot, and quantity 0 removes
    <symbol>@kline_1m      every two seconds where something was traded, and once it is closed

The stream of an unknown symbol is taken, and stays silent. A ping every 20 s must be answered within a minute; a client
may send five messages a second, have 1 024 streams on a connection, and connect 300 times in five minutes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.market import BINANCE, Listing, padded
from connectors.simulator.venues.sockets import Close, Push, PushKind, SocketRules, SocketSession
from connectors.simulator.venues.stream import BookChange, Candle, MarketStream, Trade, update_id

RULES: Final = SocketRules(
    ping_every_s=20.0,
    pong_within_s=60.0,
    requests=5,
    requests_s=1.0,
    too_many=Close(1008, "Too many requests"),
    connects=300,
    connects_s=300.0,
)
MOST_STREAMS: Final = 1_024

INTERVALS: Final[Mapping[str, int]] = {
    name: int(name[:-1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}[name[-1]] * 1000
    for name in ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w")
}
"""Lengths of candles in milliseconds; those of a month are not simulated."""

_NAME: Final = re.compile(
    r"(?P<symbol>[^@/ ]{1,50})@(?:(?P<plain>trade|bookTicker|ticker)|depth(?P<fast>@100ms)?|kline_(?P<interval>\w+))"
)
_MARGIN_MS: Final = 5
"""The simulator's own pace is not even."""


class _Request(msgspec.Struct):
    method: str
    id: int | str | None = None
    params: list[Any] = []


class BinanceStreams:
    """Binance's websockets.

    Args:
        stream: What happens in the market.
        known: The symbols that are listed at present.
    """

    name = "binance"
    rules = RULES

    def __init__(self, stream: MarketStream, known: Container[str] = BINANCE) -> None:
        self._stream = stream
        self._known = known

    def serves(self, path: str) -> bool:
        """`/stream`, `/ws`, and `/ws/` with streams."""
        return path in ("/stream", "/ws") or (path.startswith("/ws/") and "@" in unquote(path))

    def open(self, request: VenueRequest, number: int) -> BinanceSession:
        """A connection, for the streams in its address."""
        if request.path == "/stream":
            named = request.parameter("streams") or ""
        else:
            named = unquote(request.path.removeprefix("/ws").lstrip("/"))
        return BinanceSession(
            self._stream, self._known, named.split("/") if named else [], combined=request.path == "/stream"
        )


class _Served(msgspec.Struct):
    """A stream that has been served: up to which step, and when."""

    step: int
    at_ms: int


class BinanceSession(SocketSession):
    """One connection."""

    def __init__(
        self, stream: MarketStream, known: Container[str], streams: Sequence[str], *, combined: bool = True
    ) -> None:
        self.streams: dict[str, re.Match[str]] = {}
        """What is subscribed, in order."""
        self._market = stream
        self._known = known
        self._combined = combined
        self._served: dict[str, _Served] = {}
        for name in streams:
            if found := _NAME.fullmatch(name):
                self.streams[name] = found

    def receive(self, text: str | bytes) -> Sequence[bytes | Close]:
        """A request."""
        try:
            request = msgspec.json.decode(text, type=_Request)
        except msgspec.ValidationError as error:
            return [_json({"code": 2, "msg": f"Invalid request: {error}"})]
        except (msgspec.DecodeError, UnicodeError) as error:
            return [_json({"code": 3, "msg": f"Invalid JSON: {error}"})]
        match request.method, request.params:
            case "SUBSCRIBE", params:
                return self._subscribe(request, params)
            case "UNSUBSCRIBE", params:
                for name in params:
                    self.streams.pop(name, None)
                return [_json({"result": None, "id": request.id})]
            case "LIST_SUBSCRIPTIONS", _:
                return [_json({"result": list(self.streams), "id": request.id})]
            case "GET_PROPERTY", ["combined"]:
                return [_json({"result": self._combined, "id": request.id})]
            case "SET_PROPERTY", ["combined", bool(combined)]:
                self._combined = combined
                return [_json({"result": None, "id": request.id})]
            case (("GET_PROPERTY" | "SET_PROPERTY"), _):
                return [_json({"code": 0, "msg": "Unknown property", "id": request.id})]
            case method, _:
                return [_json({"code": 2, "msg": f"Invalid request: unknown variant `{method}`", "id": request.id})]

    def restart(self, listing: Listing) -> None:
        """Nothing: REST and all connections count by one id."""
        return

    def notice(self) -> Sequence[bytes]:
        """`serverShutdown`, which comes unasked."""
        return [self._enveloped("!serverShutdown", {"e": "serverShutdown", "E": self._market.began_ms})]

    def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
        """What is due."""
        for gone in self._served.keys() - self.streams.keys():
            del self._served[gone]
        texts: list[Push] = []
        for name, found in self.streams.items():
            symbol = found["symbol"].upper()
            if symbol in BINANCE and symbol in self._known:
                texts += self._due(name, found, BINANCE[symbol], step, now_ms)
        return texts

    def _subscribe(self, request: _Request, names: Sequence[Any]) -> Sequence[bytes | Close]:
        found = {str(name): _NAME.fullmatch(str(name)) for name in names}
        wanted = {name: match for name, match in found.items() if match is not None}
        if len(wanted) < len(found) or not found:
            error = {"code": 2, "msg": "Invalid request: invalid stream"}
            return [_json({"error": error, "id": request.id})]
        self.streams |= wanted
        if len(self.streams) > MOST_STREAMS:
            return [Close(1008, "Too many streams")]
        return [_json({"result": None, "id": request.id})]

    def _due(self, name: str, found: re.Match[str], listing: Listing, step: int, now_ms: int) -> Iterator[Push]:
        """Of one stream."""
        served = self._served.get(name)
        if served is None:
            # Nothing of before is repeated, and there are no snapshots.
            self._served[name] = _Served(step, now_ms)
            return
        since, waited_ms = served.step, now_ms - served.at_ms + _MARGIN_MS
        if step == since:
            return
        interval = found["interval"]
        if interval is not None:
            if interval not in INTERVALS or waited_ms < (1_000 if interval == "1s" else 2_000):
                return
        elif found["plain"] not in ("trade", "bookTicker") and waited_ms < (100 if found["fast"] else 1_000):
            return
        served.step, served.at_ms = step, now_ms
        match found["plain"]:
            case "trade":
                for trade in self._market.trades_between(listing, since, step):
                    yield self._push(name, "trade", listing, _trade(listing, trade, self._market.time_ms(trade.step)))
            case "bookTicker":
                yield self._push(name, "quote", listing, self._best(listing, step))
            case "ticker":
                yield self._push(name, "ticker", listing, self._day(listing, step, now_ms))
            case _ if interval is None:
                yield self._book(name, listing, self._changes(listing, since, step), now_ms)
            case _:
                for candle in self._market.candles(listing, INTERVALS[interval], since, step):
                    if candle.trades or candle.closed:
                        yield self._push(name, "candle", listing, _candle(listing, candle, interval, now_ms))

    def _changes(self, listing: Listing, since: int, step: int) -> BookChange:
        """All levels that were another at any of the steps, as they are at the last one.

        What came and went in between is told as gone: a snapshot of then has it.
        """
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        for one in range(since + 1, step + 1):
            change = self._market.change(listing, one)
            bids |= dict(change.bids)
            asks |= dict(change.asks)
        return BookChange(since, step, tuple(sorted(bids.items(), reverse=True)), tuple(sorted(asks.items())))

    def _book(self, name: str, listing: Listing, change: BookChange, now_ms: int) -> Push:
        def remake(change: BookChange, spoiled: bool = False) -> bytes:
            return self._enveloped(name, _depth(listing, now_ms, change))

        return Push(remake(change), "book", listing, change, remake=remake)

    def _push(self, name: str, kind: PushKind, listing: Listing, row: object) -> Push:
        return Push(self._enveloped(name, row), kind, listing)

    def _enveloped(self, name: str, row: object) -> bytes:
        return _json({"stream": name, "data": row} if self._combined else row)

    def _best(self, listing: Listing, step: int) -> object:
        quote = self._market.quote(listing, step)
        price, size = _writers(listing)
        return {
            "u": update_id(step),
            "s": listing.symbol,
            "b": price(quote.bid),
            "B": size(quote.bid_size),
            "a": price(quote.ask),
            "A": size(quote.ask_size),
        }

    def _day(self, listing: Listing, step: int, now_ms: int) -> object:
        quote = self._market.quote(listing, step)
        price, size = _writers(listing)
        count = 100_000 + listing.volume % 900_000
        first_id = 1_000_000 + 3 * step
        return {
            "e": "24hrTicker",
            "E": now_ms,
            "s": listing.symbol,
            "p": price(quote.last - quote.open),
            "P": padded((quote.last - quote.open) * 100_000 // quote.open, 3, 3),
            "w": price(quote.average),
            "x": price(quote.open),
            "c": price(quote.last),
            "Q": size(quote.last_size),
            "b": price(quote.bid),
            "B": size(quote.bid_size),
            "a": price(quote.ask),
            "A": size(quote.ask_size),
            "o": price(quote.open),
            "h": price(quote.high),
            "l": price(quote.low),
            "v": size(quote.volume),
            "q": padded(quote.quote_volume, listing.price_digits + listing.size_digits),
            "O": now_ms - 86_400_000,
            "C": now_ms,
            "F": first_id,
            "L": first_id + count - 1,
            "n": count,
        }


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _writers(listing: Listing) -> tuple[Callable[[int], str], Callable[[int], str]]:
    """What writes a price, and a quantity, with eight decimals."""
    return partial(padded, digits=listing.price_digits), partial(padded, digits=listing.size_digits)


def _trade(listing: Listing, trade: Trade, time_ms: int) -> object:
    price, size = _writers(listing)
    return {
        "e": "trade",
        "E": time_ms,
        "s": listing.symbol,
        "t": trade.id,
        "p": price(trade.price),
        "q": size(trade.size),
        "T": time_ms,
        "m": trade.side == "sell",
        "M": True,
    }


def _depth(listing: Listing, now_ms: int, change: BookChange) -> object:
    price, size = _writers(listing)
    return {
        "e": "depthUpdate",
        "E": now_ms,
        "s": listing.symbol,
        "U": change.first_id,
        "u": change.last_id,
        "b": [(price(at), size(quantity)) for at, quantity in change.bids],
        "a": [(price(at), size(quantity)) for at, quantity in change.asks],
    }


def _candle(listing: Listing, candle: Candle, interval: str, now_ms: int) -> object:
    price, size = _writers(listing)
    both = listing.price_digits + listing.size_digits
    return {
        "e": "kline",
        "E": now_ms,
        "s": listing.symbol,
        "k": {
            "t": candle.start_ms,
            "T": candle.end_ms - 1,
            "s": listing.symbol,
            "i": interval,
            "f": candle.first_id if candle.trades else -1,
            "L": candle.last_id if candle.trades else -1,
            "o": price(candle.open),
            "c": price(candle.close),
            "h": price(candle.high),
            "l": price(candle.low),
            "v": size(candle.volume),
            "n": candle.trades,
            "x": candle.closed,
            "q": padded(candle.quote_volume, both),
            "V": size(candle.bought),
            "Q": padded(candle.bought * candle.close, both),
            "B": "0",
        },
    }
