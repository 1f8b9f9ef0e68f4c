"""Bybit's websocket (v5, public, spot), simulated without I/O: a `SocketVenue` (`connectors.simulator.venues.sockets`).

Source of every rule: Bybit's v5 API documentation, "Connect" and the public topics, state of July 2026; what it does
not say (the texts of failures, that an unsubscribed connection ends) as clients have seen it. In short:

    requests     at most 10 args; one answer for each, and where one arg is wrong none of them takes effect
    ping         {"op":"ping"} is answered by {"success":true,"ret_msg":"pong","op":"ping"}
    tickers      the present one, then at most every 50 ms; without bid and ask; `cs` is the cross sequence
    publicTrade  the trades since, oldest first
    orderbook.1  a snapshot whenever the best prices change, at most every 10 ms; after 3 s the same one, `u` included
    orderbook.N  a snapshot, then deltas whose `u` rises by one, at most every 20, 100 or 200 ms; size "0" removes, also
                 what leaves the window. After a restart of the service a snapshot with `u` 1
    kline.N      every second; `confirm` in the last one of a candle

Values are texts without zeros at the end; times and ids are numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

import msgspec

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.market import BYBIT, Listing, Quote, unpadded
from connectors.simulator.venues.sockets import Close, Push, PushKind, SocketRules, SocketSession
from connectors.simulator.venues.stream import BookChange, Candle, MarketStream, Trade, update_id

PATH: Final = "/v5/public/spot"
RULES: Final = SocketRules(
    # Neither pings nor data.
    idle_s=600.0,
    idle=Close(None),
    connections=1000,
    connects=500,
    connects_s=300.0,
    refused_status=403,
    slow=Close(None),
)
MOST_ARGS: Final = 10
MOST_CHARACTERS: Final = 21_000
"""Of the args of a connection."""

BOOKS_MS: Final = MappingProxyType({50: 18, 200: 95, 1000: 190})
"""The depths of books, and how often each comes: every 20, 100, 200 ms, and a little less, for the simulator's own pace
is not even."""
FIRST_U: Final = 18_000_000
"""Of a book at step 0; only after a restart of the service does it begin at 1."""
BEST_MS: Final = 9
REPEAT_MS: Final = 3_000
TICKERS_MS: Final = 45
CANDLES_MS: Final = 950
_MINUTE_MS: Final = 60_000
CANDLES: Final = MappingProxyType(
    {str(minutes): minutes * _MINUTE_MS for minutes in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)}
    | {"D": 1440 * _MINUTE_MS}
)
"""The intervals of candles, and how long each is. Bybit's weeks and months are not simulated."""


class _Request(msgspec.Struct):
    """`{"req_id":"10001","op":"subscribe","args":["orderbook.200.BTCUSDT","publicTrade.BTCUSDT"]}`."""

    op: str
    args: list[str] = []
    req_id: str | None = None


class _Answer(msgspec.Struct, omit_defaults=True):
    success: bool = msgspec.field()
    ret_msg: str = msgspec.field()
    conn_id: str = msgspec.field()
    req_id: str | None = None
    op: str = ""


class _Served(msgspec.Struct):
    """A topic that has been served: up to which step, when, and the `u` that was sent then."""

    step: int
    at_ms: int
    u: int = 0


class BybitStreams:
    """The venue.

    Args:
        stream: What happens in the market.
        known: The symbols that are listed at present.
    """

    name = "bybit"
    rules = RULES

    def __init__(self, stream: MarketStream, known: Container[str] = BYBIT) -> None:
        self._stream = stream
        self._known = known

    def serves(self, path: str) -> bool:
        """`/v5/public/spot`."""
        return path == PATH

    def open(self, request: VenueRequest, number: int) -> BybitSession:
        """A connection."""
        return BybitSession(self._stream, self._known, f"{zlib.crc32(b'%d' % number):08x}-0000")


class BybitSession(SocketSession):
    """One connection.

    Attributes:
        held: The topics that are subscribed, each with its listing, in the order of their subscriptions.
    """

    def __init__(self, stream: MarketStream, known: Container[str], conn_id: str) -> None:
        self.held: dict[str, Listing] = {}
        self._stream = stream
        self._known = known
        self._conn_id = conn_id
        self._served: dict[str, _Served] = {}
        self._restarted: set[str] = set()
        """Books whose `u` begins anew."""

    def receive(self, text: str | bytes) -> Sequence[bytes]:
        """A request."""
        try:
            request = msgspec.json.decode(text, type=_Request)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return [self._answer(_Request(""), "error:invalid request")]
        match request.op:
            case "ping":
                return [self._answer(request, "pong", success=True)]
            case "subscribe":
                failure = self._failure(request.args)
                if failure:
                    return [self._answer(request, failure)]
                self.held |= {topic: BYBIT[topic.rpartition(".")[2]] for topic in request.args}
                return [self._answer(request, "subscribe", success=True)]
            case "unsubscribe":
                for topic in request.args:
                    self._drop(topic)
                return [self._answer(request, "", success=True)]
            case _:
                return [self._answer(request, f"error:handler not found,op:{request.op}")]

    def _failure(self, args: Sequence[str]) -> str:
        """Why these cannot be subscribed; "" if they can."""
        if len(args) > MOST_ARGS:
            return "args size >10"
        if sum(len(topic) + 3 for topic in {*args, *self.held}) > MOST_CHARACTERS:
            return "args length >21000"
        for topic in args:
            stem, _, symbol = topic.rpartition(".")
            if not _is_served(stem):
                return f"error:handler not found,topic:{topic}"
            if symbol not in self._known or symbol not in BYBIT:
                return f"Invalid symbol :[{topic}]"
            if topic in self.held:
                return f"error:already subscribed,topic:{topic}"
        return ""

    def _answer(self, request: _Request, ret_msg: str, *, success: bool = False) -> bytes:
        return msgspec.json.encode(_Answer(success, ret_msg, self._conn_id, request.req_id, request.op))

    def _drop(self, topic: str) -> None:
        self.held.pop(topic, None)
        self._served.pop(topic, None)
        self._restarted.discard(topic)

    def refuse(self, text: str | bytes, listing: Listing, code: str) -> Sequence[bytes]:
        """A failure with that text, by default one that passes."""
        try:
            request = msgspec.json.decode(text, type=_Request)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ()
        symbols = {topic.rpartition(".")[2] for topic in request.args}
        if request.op != "subscribe" or symbols != {listing.symbol}:
            return ()
        return [self._answer(request, code or "error:server is busy")]

    def forget(self, listing: Listing) -> Sequence[bytes]:
        """Its topics end without a word."""
        for topic in [topic for topic, held in self.held.items() if held == listing]:
            self._drop(topic)
        return ()

    def restart(self, listing: Listing) -> None:
        """The next message of its books is a snapshot with `u` 1."""
        self._restarted |= {topic for topic, held in self.held.items() if held == listing and _depth(topic) > 1}

    def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
        """What is due."""
        return [push for topic, listing in self.held.items() for push in self._due(topic, listing, step, now_ms)]

    def _due(self, topic: str, listing: Listing, step: int, now_ms: int) -> Sequence[Push]:
        """Of one topic."""
        served = self._served.get(topic)
        is_new = served is None
        if served is None:
            served = self._served[topic] = _Served(step, now_ms, FIRST_U + step)
        since, waited_ms = served.step, now_ms - served.at_ms
        stem, word = topic.split(".")[:2]
        pushes: Sequence[Push] = ()
        if stem == "publicTrade":
            pushes = self._trades(topic, listing, since, step, now_ms)
        elif stem == "tickers":
            if is_new or (step != since and waited_ms >= TICKERS_MS):
                quote = self._stream.quote(listing, step)
                pushes = [_push(topic, listing, "ticker", _ticker(listing, quote), now_ms, cs=update_id(step))]
        elif stem == "kline":
            if is_new:
                pushes = [self._candle(topic, listing, self._stream.candle(listing, CANDLES[word], step), step, now_ms)]
            elif step != since and waited_ms >= CANDLES_MS:
                told = self._stream.candles(listing, CANDLES[word], since, step)
                pushes = [self._candle(topic, listing, candle, step, now_ms) for candle in told]
        elif word == "1":
            pushes = self._best(topic, listing, served, step, now_ms, is_new=is_new)
        else:
            pushes = self._book(topic, listing, served, step, now_ms, is_new=is_new)
        if pushes or stem == "publicTrade":
            served.step, served.at_ms = step, now_ms
        return pushes

    def _trades(self, topic: str, listing: Listing, since: int, step: int, now_ms: int) -> Sequence[Push]:
        """A message for each step that has trades."""
        pushes = []
        for one in range(since + 1, step + 1):
            rows = [_trade(listing, trade, self._stream.time_ms(one)) for trade in self._stream.trades(listing, one)]
            if rows:
                pushes.append(_push(topic, listing, "trade", rows, now_ms))
        return pushes

    def _best(
        self, topic: str, listing: Listing, served: _Served, step: int, now_ms: int, *, is_new: bool
    ) -> Sequence[Push]:
        """The best bid and ask, if they are others than those told last, or if that is long ago."""
        waited_ms = now_ms - served.at_ms
        quote, before = self._stream.quote(listing, step), self._stream.quote(listing, served.step)
        best = (quote.bid, quote.bid_size, quote.ask, quote.ask_size)
        changed = best != (before.bid, before.bid_size, before.ask, before.ask_size)
        if not is_new and waited_ms < (BEST_MS if changed else REPEAT_MS):
            return ()
        if changed:
            served.u = FIRST_U + step
        change = BookChange(step, step, ((quote.bid, quote.bid_size),), ((quote.ask, quote.ask_size),))
        return [_push(topic, listing, "quote", _levels(listing, change, served.u), now_ms, cts=self._cts(step))]

    def _book(
        self, topic: str, listing: Listing, served: _Served, step: int, now_ms: int, *, is_new: bool
    ) -> Sequence[Push]:
        """The snapshot, and then what changed."""
        depth, since = _depth(topic), served.step
        whole = is_new or topic in self._restarted
        if whole:
            if topic in self._restarted:
                served.u = 1
                self._restarted.discard(topic)
            book = self._stream.book(listing, step, depth)
            change = BookChange(step, step, tuple(book.bids), tuple(book.asks))
        else:
            if step == since or now_ms - served.at_ms < BOOKS_MS[depth]:
                return ()
            served.u += 1
            change = self._stream.change(listing, step, since, depth)
        remake = partial(_remade, topic, listing, whole, served.u, now_ms, self._cts(step))
        return [Push(remake(change), "book", listing, change, whole=whole, remake=remake)]

    def _candle(self, topic: str, listing: Listing, candle: Candle, step: int, now_ms: int) -> Push:
        digits, size_digits = listing.price_digits, listing.size_digits
        row = {
            "start": candle.start_ms,
            "end": candle.end_ms - 1,
            "interval": topic.split(".")[1],
            "open": unpadded(candle.open, digits),
            "close": unpadded(candle.close, digits),
            "high": unpadded(candle.high, digits),
            "low": unpadded(candle.low, digits),
            "volume": unpadded(candle.volume, size_digits),
            "turnover": unpadded(candle.quote_volume, digits + size_digits),
            "confirm": candle.closed,
            "timestamp": min(self._cts(step), candle.end_ms - 1),
        }
        return _push(topic, listing, "candle", [row], now_ms)

    def _cts(self, step: int) -> int:
        return self._stream.time_ms(step)


def _is_served(stem: str) -> bool:
    """Whether there are topics of that name before their symbol."""
    name, _, word = stem.partition(".")
    if name in ("tickers", "publicTrade"):
        return not word
    if name == "orderbook":
        return word in ("1", *map(str, BOOKS_MS))
    return name == "kline" and word in CANDLES


def _depth(topic: str) -> int:
    """Of a book; 0 of other topics."""
    stem, word = topic.split(".")[:2]
    return int(word) if stem == "orderbook" else 0


def _push(topic: str, listing: Listing, kind: PushKind, data: object, now_ms: int, **more: int) -> Push:
    return Push(_frame(topic, "snapshot", data, now_ms, **more), kind, listing)


def _frame(topic: str, type_: str, data: object, now_ms: int, **more: int) -> bytes:
    """On spot `ts` stands before `type`."""
    return msgspec.json.encode({"topic": topic, "ts": now_ms, "type": type_, **more, "data": data})


def _remade(
    topic: str, listing: Listing, whole: bool, u: int, now_ms: int, cts: int, change: BookChange, spoiled: bool = False
) -> bytes:
    """A frame of a book. Bybit has no checksum, so none is spoiled."""
    data = _levels(listing, change, u)
    return _frame(topic, "snapshot" if whole else "delta", data, now_ms, cts=cts)


def _levels(listing: Listing, change: BookChange, u: int) -> dict[str, object]:
    digits, size_digits = listing.price_digits, listing.size_digits
    sides = {
        name: [(unpadded(price, digits), unpadded(size, size_digits)) for price, size in levels]
        for name, levels in (("b", change.bids), ("a", change.asks))
    }
    return {"s": listing.symbol, **sides, "u": u, "seq": change.last_id}


def _ticker(listing: Listing, quote: Quote) -> dict[str, str]:
    digits, size_digits = listing.price_digits, listing.size_digits
    return {
        "symbol": listing.symbol,
        "lastPrice": unpadded(quote.last, digits),
        "highPrice24h": unpadded(quote.high, digits),
        "lowPrice24h": unpadded(quote.low, digits),
        "prevPrice24h": unpadded(quote.open, digits),
        "volume24h": unpadded(quote.volume, size_digits),
        "turnover24h": unpadded(quote.quote_volume, digits + size_digits),
        "price24hPcnt": f"{quote.last / quote.open - 1:.4f}",
        "usdIndexPrice": "",
    }


def _trade(listing: Listing, trade: Trade, time_ms: int) -> dict[str, object]:
    """One counter numbers the trades of all symbols, so those of one have holes; trades of a step share a `seq`."""
    return {
        "i": f"229{trade.id:012}{zlib.crc32(listing.symbol.encode()) % 10_000:04}",
        "T": time_ms,
        "p": unpadded(trade.price, listing.price_digits),
        "v": unpadded(trade.size, listing.size_digits),
        "S": "Buy" if trade.side == "buy" else "Sell",
        "seq": update_id(trade.step),
        "s": listing.symbol,
        "BT": False,
        "RPI": False,
    }
