"""Bybit's topics: how each is named, and what its frames become. Pure.

The pages are those of Bybit's v5 documentation, websocket, public, as read in July 2026; what they do not say is marked
with where it was seen. Digits are text, and not padded; times and ids are numbers.

* Ticker: `tickers.BTCUSDT`, every 50 ms; on spot only snapshots, and without bid or ask. `cs` is the cross sequence.
* Trade: `publicTrade.BTCUSDT`, at once, oldest first, at most 1 024 in a message. `S` is what the taker did. One `seq`
  may span several messages; the ids `i` of a symbol have holes, as one counter serves all symbols (archived v3 page).
* Orderbook: `orderbook.1.BTCUSDT`, 10 ms, only snapshots; the same one again when 3 s have passed without a change.
  `orderbook.50`, `.200` and `.1000`, every 20, 100 and 200 ms: a snapshot, then deltas with absolute sizes, of which 0
  removes a level. Levels that leave the window come as removed (seen by a third party, on linear). `seq` orders
  messages of one symbol, whatever their depth; `cts` is by the clock of the trades' `T`.
* Kline: `kline.1.BTCUSDT`, every 1 to 60 s; `confirm` once it is closed; `timestamp` is that of the last trade in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from connectors.base import Event, Rows, TopicNote
from connectors.books.book import is_zero, key
from connectors.books.topic import BookTopic
from connectors.limits.payload import brief, spliced
from connectors.limits.rows import (
    FIRST_MS,
    LAST_MS,
    Odd,
    check_price,
    check_time,
    notes,
    quantity,
    quoted,
    read_row,
    shown,
)
from connectors.push.venue import Renew, Said
from connectors.venues.bybit.sync import GAPS, WINDOW_MS, Step, UpdateIds
from protocol.channels import Channel
from protocol.fields import CandleFields, QuoteFields, TradeFields
from protocol.messages import Side, middle

DEPTHS: Final = (50, 200, 1000)
"""How many levels of each side the topics of whole books have."""

INTERVALS: Final = {
    "1m": "1",
    "3m": "3",
    "5m": "5",
    "15m": "15",
    "30m": "30",
    "1h": "60",
    "2h": "120",
    "4h": "240",
    "6h": "360",
    "12h": "720",
    "1d": "D",
    "1w": "W",
    "1M": "M",
}
"""How long candles may be, and Bybit's word for it."""

SILENCE_MS: Final = 5_000
"""Without a quote for so long, though it repeats one every 3 s, the connection is dead or the pair is halted."""

REMARK_MS: Final = 5_000
"""How often a book that is not verified is remarked on."""

_SIDES: Final[dict[str, Side]] = {"Buy": "buy", "Sell": "sell"}

_T = TypeVar("_T")
_Id: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]


_Best: TypeAlias = tuple[str, str] | None
"""Price and size; None where a side is empty."""


class Frame(msgspec.Struct, gc=False):
    """Any frame; `op` is there in those that are no data. In spot's, `ts` stands before `type`.

    `{"topic":"tickers.BTCUSDT","ts":1673853746003,"type":"snapshot","cs":2588407389,"data":{...}}`
    `{"success":true,"ret_msg":"subscribe","conn_id":"2324d924-...","req_id":"10001","op":"subscribe"}`
    """

    topic: str = ""
    type: str = ""
    ts: int | None = None
    cts: int | None = None
    cs: _Id | None = None
    data: Raw | UnsetType = UNSET
    op: str = ""
    success: bool | None = None
    ret_msg: str = ""
    req_id: str | None = None


class _Ticker(msgspec.Struct, gc=False):
    """`{"symbol":"BTCUSDT","lastPrice":"21109.77","highPrice24h":"21426.99",...,"price24hPcnt":"0.0196"}`."""

    lastPrice: str
    symbol: str = ""


class _Trade(msgspec.Struct, gc=False):
    """`{"i":"2290000001225843671","T":1791365009230,"p":"83805.1","v":"0.001466","S":"Buy","seq":115058640184,...}`."""

    i: str
    T: int
    p: str
    v: str
    S: str
    s: str = ""
    seq: _Id | None = None


class _Book(msgspec.Struct, gc=False):
    """`{"s":"BTCUSDT","b":[["83797.3","0"]],"a":[],"u":18521289,"seq":115058638880}`."""

    b: list[tuple[str, str]]
    a: list[tuple[str, str]]
    u: _Id
    seq: _Id
    s: str = ""


class _Candle(msgspec.Struct, gc=False):
    """`{"start":1672324800000,"end":1672325099999,"interval":"5","open":"16649.5",...,"confirm":false,...}`."""

    start: int
    interval: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    confirm: bool
    timestamp: int


_rows: Final = msgspec.json.Decoder(list[Raw])
_book: Final = msgspec.json.Decoder(_Book)


class Topic(ABC):
    """One topic on one connection.

    Attributes:
        name: Bybit's name of it, as `publicTrade.BTCUSDT`.
        instrument: `BTC/USDT`.
        symbol: `BTCUSDT`.
        channels: the names of the channels that it feeds.
    """

    def __init__(self, name: str, instrument: str, channels: Sequence[Channel]) -> None:
        """`channels` are those that it feeds."""
        self.name = name
        self.instrument = instrument
        self.symbol = name.rpartition(".")[2]
        self.channels = tuple(channel.name for channel in channels)

    def take(self, frame: Frame, received_ms: int) -> list[Event] | Rows:
        """What a frame of this topic means."""
        try:
            if isinstance(frame.data, UnsetType):
                raise Odd(f"{quoted('data')} is missing")
            return self._read(frame, bytes(frame.data), received_ms)
        except Odd as odd:
            return self.left_out(odd)

    def left_out(self, odd: Odd) -> Rows:
        """What follows from a frame that cannot be used."""
        return Rows([], notes(self.channels, self.instrument, odd))

    @abstractmethod
    def _read(self, frame: Frame, data: bytes, received_ms: int) -> list[Event] | Rows:
        """Raises: Odd, where nothing of the frame can be used."""

    def _check_symbol(self, symbol: str, field: str) -> None:
        """Raises: Odd, if the row is about another one."""
        if symbol and symbol != self.symbol:
            raise Odd(f"{quoted(field)} is {shown(symbol)}, in a frame about {self.symbol}")


class Ticker(Topic):
    """The price of the last trade, and the day's summary."""

    def _read(self, frame: Frame, data: bytes, received_ms: int) -> list[Event]:
        row = read_row(data, _Ticker)
        self._check_symbol(row.symbol, "symbol")
        check_price(row.lastPrice, "lastPrice")
        data, at_ms, order = spliced(data), _time(frame.ts), frame.cs
        return [
            Event(name, self.instrument, data, received_ms, row.lastPrice, at_ms, order=order) for name in self.channels
        ]


class Trades(Topic):
    """Every trade."""

    def _read(self, frame: Frame, data: bytes, received_ms: int) -> list[Event] | Rows:
        made = Rows([], [])
        for raw in _decoded(_rows, data):
            try:
                made.events += self._trade(bytes(raw), received_ms)
            except Odd as odd:
                made.notes += notes(self.channels, self.instrument, odd)
        return made if made.notes else made.events

    def _trade(self, data: bytes, received_ms: int) -> list[Event]:
        """Raises: Odd."""
        row = read_row(data, _Trade)
        self._check_symbol(row.s, "s")
        check_price(row.p, "p")
        size = quantity(row.v, "v", "a number above 0", zero=False)
        check_time(row.T, "T")
        side = _SIDES.get(row.S)
        if side is None:
            raise Odd(f"{quoted('S')} is {shown(row.S)}, neither Buy nor Sell")
        if not row.i:
            raise Odd(f"{quoted('i')} is empty")
        data, fields = spliced(data), TradeFields(size, side, row.i)
        return [
            Event(name, self.instrument, data, received_ms, row.p, row.T, fields=fields, order=row.seq)
            for name in self.channels
        ]


class Quotes(Topic):
    """The best bid and ask, whenever they change."""

    def __init__(self, name: str, instrument: str, channels: Sequence[Channel]) -> None:
        super().__init__(name, instrument, channels)
        self._told: tuple[_Best, _Best] | None = None
        self._heard_ms: int | None = None

    def _read(self, frame: Frame, data: bytes, received_ms: int) -> list[Event]:
        row = read_row(data, _Book)
        self._check_symbol(row.s, "s")
        if frame.type != "snapshot":
            raise Odd(f"{quoted('type')} is {shown(frame.type)}, though there are only snapshots of this topic")
        self._heard_ms = received_ms
        bid, ask = _best(row.b, "b"), _best(row.a, "a")
        if bid and ask and key(bid[0]) >= key(ask[0]):
            raise Odd(f"crossed: the best bid {bid[0]} is not below the best ask {ask[0]}")
        if (bid, ask) == self._told:
            return []
        self._told = (bid, ask)
        fields = QuoteFields(*_numbers(bid), *_numbers(ask))
        price = middle(bid[0], ask[0]) if bid and ask else ""
        data, at_ms, order = spliced(data), _time(frame.cts) or _time(frame.ts), row.seq
        return [
            Event(name, self.instrument, data, received_ms, price, at_ms, fields=fields, order=order)
            for name in self.channels
        ]

    def silence(self, now_ms: int) -> list[TopicNote]:
        """What is to be told because no quote came for too long; the next one is told, even if it is the same again."""
        heard_ms = self._heard_ms
        if heard_ms is None or 0 <= now_ms - heard_ms <= SILENCE_MS:
            return []
        if now_ms < heard_ms:
            # The clock was set back.
            self._heard_ms = now_ms
            return []
        self._told = None
        reason = f"no quote for {SILENCE_MS // 1000} s, though Bybit repeats one every 3 s"
        return [TopicNote(name, self.instrument, "silent", reason) for name in self.channels]


class Book(Topic):
    """A whole book, to some depth: what is published of it is up to its `BookTopic`.

    Attributes:
        published: what is published of it.
        awaits_snapshot: whether it was lost, or never began, and is being renewed.
    """

    def __init__(self, name: str, instrument: str, channels: Sequence[Channel], depth: int) -> None:
        """`depth` is in the name, too."""
        super().__init__(name, instrument, channels)
        self.awaits_snapshot = False
        self._depth = depth
        self.published = BookTopic(instrument, self.symbol, channels)
        self._ids = UpdateIds()
        self._remarked_ms: int | None = None
        self._source = b'{"symbol":%b,"u":%%d,"seq":%%d}' % msgspec.json.encode(self.symbol).replace(b"%", b"%%")

    def left_out(self, odd: Odd) -> Rows:
        """Without this frame the book would be another one than Bybit's."""
        return super().left_out(odd) if self.awaits_snapshot else self._lost(str(odd))

    def _read(self, frame: Frame, data: bytes, received_ms: int) -> list[Event] | Rows:
        row = _decoded(_book, data)
        self._check_symbol(row.s, "s")
        at_ms = _time(frame.cts) or _time(frame.ts)
        source = self._source % (row.u, row.seq)
        if frame.type == "snapshot":
            return self._began(row, received_ms, at_ms, source)
        if frame.type != "delta":
            raise Odd(f"{quoted('type')} is {shown(frame.type)}, neither snapshot nor delta")
        before = self._ids.last
        step = self._ids.follow(row.u, received_ms)
        if step is Step.SKIP:
            return [] if self.awaits_snapshot else self._lost("an update came without a snapshot before")
        if step is Step.GAP:
            return self._lost(f"the update {row.u} does not follow {before}")
        book = self.published.book
        try:
            changes = book.apply(row.b, row.a, depth=self._depth)
        except ValueError as error:
            return self._lost(f"an update cannot be read: {error}")
        if book.is_crossed:
            return self._lost(self.published.book.say_crossed())
        events = self.published.changed(changes, received_ms, at_ms, source)
        return events if step is Step.APPLY else self._unverified(events, received_ms, step)

    def _began(self, row: _Book, received_ms: int, at_ms: int | None, source: bytes) -> list[Event] | Rows:
        try:
            self.published.book.replace(row.b, row.a)
        except ValueError as error:
            return self._lost(f"a snapshot cannot be read: {error}")
        if self.published.book.is_crossed:
            return self._lost(self.published.book.say_crossed())
        self.published.book.truncate(self._depth)
        self._ids.began(row.u)
        self._remarked_ms = None
        self.awaits_snapshot = False
        return self.published.began(received_ms, at_ms, source)

    def _lost(self, reason: str) -> Said:
        """The book is not Bybit's any more: it is told, and to begin anew."""
        self._ids.lost()
        self.awaits_snapshot = True
        why = f"{self.instrument}: {reason}"
        return Said([], self.published.lost(reason), [Renew(self.name, why)])

    def _unverified(self, events: list[Event], now_ms: int, step: Step) -> list[Event] | Rows:
        """These events, and every few seconds what is to be thought of them."""
        needs = [Renew(self.name, f"{self.instrument}: its book may be verified again")] if step is Step.RENEW else []
        if not needs and self._remarked_ms is not None and 0 <= now_ms - self._remarked_ms < REMARK_MS:
            return events
        self._remarked_ms = now_ms
        reason = f"unverified: more than {GAPS} gaps in {WINDOW_MS // 60_000} minutes, so updates are applied unchecked"
        told = [TopicNote(name, self.instrument, "gap", reason, partial=True) for name in self.channels]
        return Said(events, told, needs)


class Candles(Topic):
    """What was traded in a span of time."""

    def __init__(self, name: str, instrument: str, channels: Sequence[Channel]) -> None:
        super().__init__(name, instrument, channels)
        self._interval = channels[0].interval

    def _read(self, frame: Frame, data: bytes, received_ms: int) -> list[Event] | Rows:
        made = Rows([], [])
        for raw in _decoded(_rows, data):
            try:
                made.events += self._candle(bytes(raw), received_ms, _time(frame.ts))
            except Odd as odd:
                made.notes += notes(self.channels, self.instrument, odd)
        return made if made.notes else made.events

    def _candle(self, data: bytes, received_ms: int, at_ms: int | None) -> list[Event]:
        """Raises: Odd."""
        row = read_row(data, _Candle)
        if row.interval != INTERVALS[self._interval]:
            raise Odd(f"{quoted('interval')} is {shown(row.interval)}, in a frame of {self.name}")
        check_time(row.start, "start")
        check_time(row.timestamp, "timestamp")
        for field, digits in (("open", row.open), ("high", row.high), ("low", row.low), ("close", row.close)):
            check_price(digits, field)
        volume = quantity(row.volume, "volume", "a number of at least 0")
        prices = (_raw(row.open), _raw(row.high), _raw(row.low), _raw(row.close))
        data = spliced(data)
        fields = CandleFields(self._interval, row.start, *prices, volume, row.confirm)
        return [
            Event(name, self.instrument, data, received_ms, row.close, at_ms, fields=fields, order=row.timestamp)
            for name in self.channels
        ]


def name_of(channel: Channel, instrument: str, depth: int) -> str:
    """The topic that one instrument of a channel needs; `depth` is that of books that need no more levels."""
    symbol = instrument.replace("/", "")
    match channel.kind.name:
        case "ticker":
            return f"tickers.{symbol}"
        case "trades":
            return f"publicTrade.{symbol}"
        case "quotes":
            return f"orderbook.1.{symbol}"
        case "candles":
            return f"kline.{INTERVALS[channel.interval]}.{symbol}"
        case "depth":
            return f"orderbook.{depth}.{symbol}"
        case "book":
            enough = next((each for each in DEPTHS if each >= max(depth, channel.levels)), DEPTHS[-1])
            return f"orderbook.{enough}.{symbol}"
        case kind:
            raise ValueError(f"Bybit has no channels of kind {kind!r}")


def make(name: str, instrument: str, channels: Sequence[Channel]) -> Topic:
    """The topic of that name, as it is at the beginning of a connection."""
    stem, _, rest = name.partition(".")
    if stem == "tickers":
        return Ticker(name, instrument, channels)
    if stem == "publicTrade":
        return Trades(name, instrument, channels)
    if stem == "kline":
        return Candles(name, instrument, channels)
    depth = int(rest.partition(".")[0])
    return Quotes(name, instrument, channels) if depth == 1 else Book(name, instrument, channels, depth)


def _decoded(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    """Raises: Odd."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Odd(f"{quoted('data')} is not what is documented: {brief(str(error))}") from None


def _time(since_1970_ms: int | None) -> int | None:
    """A time, if it can be one."""
    return since_1970_ms if since_1970_ms is not None and FIRST_MS <= since_1970_ms <= LAST_MS else None


def _best(levels: Sequence[tuple[str, str]], field: str) -> _Best:
    """The best level of a side. Raises: Odd."""
    for price, size in levels:
        try:
            key(price)
            if not is_zero(size):
                return price, size
        except ValueError as error:
            raise Odd(f"{quoted(field)} has {error}") from None
    return None


def _numbers(level: _Best) -> tuple[Raw | UnsetType, Raw | UnsetType]:
    return (UNSET, UNSET) if level is None else (_raw(level[0]), _raw(level[1]))


def _raw(digits: str) -> Raw:
    """Digits that have been looked at, as a JSON number."""
    return Raw(digits.encode())
