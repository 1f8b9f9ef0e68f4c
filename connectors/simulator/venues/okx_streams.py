"""OKX's websockets, simulated without I/O: the model of a `SocketVenue` (`connectors.simulator.venues.sockets`).

Source of every rule: OKX's v5 API documentation (overview: connect, subscribe, notification; order book trading:
trades, order book and candlesticks channels; error codes), state of July to September 2026. In short:

    trades     each trade: {"arg":{...},"data":[{"instId","tradeId","px","sz","side","ts","count","source","seqId"}]}
    bbo-tbt    best bid and ask, at most every 10 ms: {"data":[{"asks":[[price,size,"0",orders]],"bids","ts","seqId"}]}
    books      a snapshot (prevSeqId -1), then what changed, at most every 100 ms; each names the one before
               (`prevSeqId`); after 60 s without a change an empty one. Size "0" removes. `checksum` is always 0
    candle1m   on /ws/v5/business alone, at most once a second: nine texts, the last one "1" in a closed candle

Every value is a text, but for `seqId`, `prevSeqId` and `checksum`. Of one connection bbo-tbt goes before books. Its
tickers are pushed by the simulator, once for all connections (`simulator.py`).
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Sequence
from functools import partial

import msgspec

from connectors.simulator.http.request import VenueRequest
from connectors.simulator.venues.market import OKX, Listing, unpadded
from connectors.simulator.venues.okx import CANDLES, CHANNELS, OkxSubscriptions
from connectors.simulator.venues.sockets import Close, Push, PushKind, SocketRules, SocketSession
from connectors.simulator.venues.stream import BookChange, Candle, MarketStream, Trade, update_id

RULES = SocketRules(
    # Nothing was pushed, and the client did not ping.
    idle_s=30.0,
    idle=Close(4004, "No data received in 30s"),
    # All channels of one request together.
    message_bytes=64 * 1024,
    slow=Close(4005, "Buffer full"),
)
BOOKS_MS = 95
"""At most every 100 ms, and a little less, for the simulator's own pace is not even."""
BBO_MS = 9
CANDLES_MS = 950
HEARTBEAT_MS = 60_000

_ORDER = {"trades": 0, "trades-all": 0, "bbo-tbt": 1, "books": 2}
"""What goes before what of one step."""


class OkxStreams:
    """Both of OKX's public websockets.

    Args:
        stream: What happens in the market.
        known: The instIds that are listed at present.
    """

    name = "okx"
    rules = RULES

    def __init__(self, stream: MarketStream, known: Container[str] = OKX) -> None:
        self._stream = stream
        self._known = known

    def serves(self, path: str) -> bool:
        """`/ws/v5/public` and `/ws/v5/business`."""
        return path in CHANNELS

    def open(self, request: VenueRequest, number: int) -> OkxSession:
        """A connection."""
        conn_id = format(zlib.crc32(b"%d" % number), "08x")
        return OkxSession(OkxSubscriptions(conn_id, self._known, request.path), self._stream)


class _Served(msgspec.Struct):
    """A subscription that has been served: up to which step, when, and its `seqId` then."""

    step: int
    at_ms: int
    sequence: int = -1


class OkxSession(SocketSession):
    """One connection."""

    def __init__(self, subscriptions: OkxSubscriptions, stream: MarketStream) -> None:
        self.subscriptions = subscriptions
        self._stream = stream
        self._served: dict[tuple[str, str], _Served] = {}
        self._restarted: dict[str, int] = {}
        """Of instIds whose numbers began anew: what is taken off the market's."""

    def receive(self, text: str | bytes) -> Sequence[bytes]:
        """A request, or `ping`."""
        return self.subscriptions.receive(text)

    def refuse(self, text: str | bytes, listing: Listing, code: str) -> Sequence[bytes]:
        """An error with that code, 50013 by default."""
        return self.subscriptions.refuse(text, listing.symbol, code or "50013")

    def forget(self, listing: Listing) -> Sequence[bytes]:
        """An error 60018 for each subscription."""
        return self.subscriptions.delist(listing.symbol)

    def notice(self) -> Sequence[bytes]:
        """The notice 64008."""
        return [self.subscriptions.notice()]

    def restart(self, listing: Listing) -> None:
        """The next `seqId` is small; its `prevSeqId` is still the one before (order book channel: maintenance)."""
        served = self._served.get(("books", listing.symbol))
        if served is not None:
            self._restarted[listing.symbol] = update_id(served.step)

    def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
        """What is due."""
        held = self.subscriptions.held
        for gone in self._served.keys() - held.keys():
            del self._served[gone]
        texts: list[Push] = []
        for channel, symbol in sorted(held, key=lambda arg: _ORDER.get(arg[0], 9)):
            if channel != "tickers" and symbol in OKX:
                texts += self._due(channel, OKX[symbol], step, now_ms)
        return texts

    def _due(self, channel: str, listing: Listing, step: int, now_ms: int) -> Sequence[Push]:
        """Of one subscription."""
        arg = (channel, listing.symbol)
        served = self._served.get(arg)
        if served is None:
            served = self._served[arg] = _Served(step, now_ms)
            match channel:
                case "books":
                    return self._books(served, listing, None, now_ms)
                case "bbo-tbt":
                    return [self._best(listing, step, now_ms)]
                case "trades" | "trades-all":
                    return []
                case _:
                    candle = self._stream.candle(listing, CANDLES[channel], step)
                    return [_push(arg, listing, "candle", [_candle(listing, candle)])]
        since, waited_ms = served.step, now_ms - served.at_ms
        match channel:
            case "trades" | "trades-all":
                texts = [self._trade(arg, listing, t) for t in self._stream.trades_between(listing, since, step)]
            case "bbo-tbt":
                if step == since or waited_ms < BBO_MS:
                    return []
                texts = [self._best(listing, step, now_ms)]
            case "books":
                if waited_ms < (HEARTBEAT_MS if step == since else BOOKS_MS):
                    return []
                served.step, served.at_ms = step, now_ms
                return self._books(served, listing, since, now_ms)
            case _:
                if step == since or waited_ms < CANDLES_MS:
                    return []
                candles = self._stream.candles(listing, CANDLES[channel], since, step)
                texts = [_push(arg, listing, "candle", [_candle(listing, candle)]) for candle in candles]
        served.step, served.at_ms = step, now_ms
        return texts

    def _books(self, served: _Served, listing: Listing, since: int | None, now_ms: int) -> Sequence[Push]:
        """The snapshot, where `since` is None, else what changed."""
        step = served.step
        previous, served.sequence = served.sequence, self._sequence(listing, step)
        if since is None:
            previous, book = -1, self._stream.book(listing, step)
            change = BookChange(step, step, tuple(book.bids), tuple(book.asks))
        else:
            change = self._stream.change(listing, step, since)
        remake = partial(_book, listing, since is None, previous, served.sequence, now_ms)
        return [Push(remake(change), "book", listing, change, whole=since is None, remake=remake)]

    def _sequence(self, listing: Listing, step: int) -> int:
        return update_id(step) - self._restarted.get(listing.symbol, 0)

    def _best(self, listing: Listing, step: int, now_ms: int) -> Push:
        quote = self._stream.quote(listing, step)
        row = {
            "asks": _levels(listing, [(quote.ask, quote.ask_size)]),
            "bids": _levels(listing, [(quote.bid, quote.bid_size)]),
            "ts": str(now_ms),
            "seqId": self._sequence(listing, step),
        }
        return _push(("bbo-tbt", listing.symbol), listing, "quote", [row])

    def _trade(self, arg: tuple[str, str], listing: Listing, trade: Trade) -> Push:
        row: dict[str, object] = {
            "instId": listing.symbol,
            "tradeId": str(trade.id),
            "px": unpadded(trade.price, listing.price_digits),
            "sz": unpadded(trade.size, listing.size_digits),
            "side": trade.side,
            "ts": str(self._stream.time_ms(trade.step)),
        }
        if arg[0] == "trades":
            row["count"] = "1"
        return _push(arg, listing, "trade", [row | {"source": "0", "seqId": self._sequence(listing, trade.step)}])


def _push(arg: tuple[str, str], listing: Listing, kind: PushKind, rows: Sequence[object]) -> Push:
    return Push(msgspec.json.encode({"arg": {"channel": arg[0], "instId": arg[1]}, "data": rows}), kind, listing)


def _book(
    listing: Listing, whole: bool, previous: int, sequence: int, ts_ms: int, change: BookChange, spoiled: bool = False
) -> bytes:
    """A frame of `books`. OKX has no checksum any more, so none is spoiled."""
    row = {
        "asks": _levels(listing, change.asks),
        "bids": _levels(listing, change.bids),
        "ts": str(ts_ms),
        "checksum": 0,
        "prevSeqId": previous,
        "seqId": sequence,
    }
    return msgspec.json.encode(
        {
            "arg": {"channel": "books", "instId": listing.symbol},
            "action": "snapshot" if whole else "update",
            "data": [row],
        }
    )


def _levels(listing: Listing, levels: Sequence[tuple[int, int]]) -> list[tuple[str, str, str, str]]:
    """`[price, size, "0", orders]`; a removed level has size and orders `"0"`."""
    return [
        (
            unpadded(price, listing.price_digits),
            unpadded(size, listing.size_digits),
            "0",
            str(1 + size % 7) if size else "0",
        )
        for price, size in levels
    ]


def _candle(listing: Listing, candle: Candle) -> list[str]:
    digits, both = listing.price_digits, listing.price_digits + listing.size_digits
    prices = (candle.open, candle.high, candle.low, candle.close)
    return [
        str(candle.start_ms),
        *(unpadded(price, digits) for price in prices),
        unpadded(candle.volume, listing.size_digits),
        unpadded(candle.quote_volume, both),
        unpadded(candle.quote_volume, both),
        "1" if candle.closed else "0",
    ]
