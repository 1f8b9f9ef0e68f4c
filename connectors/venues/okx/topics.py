"""OKX's topics, each one channel of OKX's and one instrument: what its frames become. Pure.

Source: OKX's v5 API documentation, order book trading (tickers, trades, order book and candlesticks channels), state of
July 2026. Every value is a text, but for `seqId`, `prevSeqId` and `checksum`.

* `tickers`: at most every 100 ms, on a trade or a change of the best bid or ask, else nothing; `ts` is the moment of
  that change, and after a subscription the present one comes at once. `vol24h` is in base units, `volCcy24h` in quote
  units. Values are empty on pairs that have not traded yet.
* `trades`: one message for each taker's order, price and source; `count` trades stand behind it, and `tradeId` is the
  last one's. `side` is the taker's. Whether ids rise by `count` is not said, so a hole is no loss.
* `bbo-tbt`: the best bid and ask, at most every 10 ms; the same image again after some 60 s without a change. `ts` is
  the matching engine's.
* `books`: 400 levels of each side: a snapshot, then what changed, at most every 100 ms (`sequence.py`). A level is
  `[price, size, "0", orders]`; size `"0"` removes it. What falls out of the 400 is removed by OKX, too (so it is in
  what was recorded). `checksum` has been 0 since June 2026; it is looked at only in
  what was recorded before there were ids.
* `candle1m` and the like: at most once a second; nine texts `[ts, open, high, low, close, vol, volCcy, volCcyQuote,
  confirm]`, of which `vol` is in base units on spot, and `confirm` is "1" once the candle is closed.

A row that cannot be read is left out, and noted of its instrument; the others of the frame go on. A row of a book is
another matter: without it the book would be wrong, so the book begins anew.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from connectors.base import Event, PayloadError, Rows
from connectors.books.awaited import Awaited
from connectors.books.book import key
from connectors.books.topic import BookTopic
from connectors.limits.payload import brief, look_over, spliced
from connectors.limits.rows import (
    LAST_MS,
    Ages,
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
from connectors.venues.okx.checksum import checksum
from connectors.venues.okx.sequence import Sequence as Chain
from protocol.channels import Channel
from protocol.fields import CandleFields, QuoteFields, TradeFields
from protocol.messages import Side, is_number, middle

TICKERS: Final = "tickers"
TRADES: Final = "trades"
QUOTES: Final = "bbo-tbt"
BOOKS: Final = "books"
CANDLES: Final = "candle"
"""Beginning of the channels of candles."""

INTERVALS: Final = {
    "1s": "1s",
    "1m": "1m",
    "3m": "3m",
    "5m": "5m",
    "15m": "15m",
    "30m": "30m",
    "1h": "1H",
    "2h": "2H",
    "4h": "4H",
    "6h": "6Hutc",
    "12h": "12Hutc",
    "1d": "1Dutc",
    "2d": "2Dutc",
    "3d": "3Dutc",
    "5d": "5Dutc",
    "1w": "1Wutc",
    "1M": "1Mutc",
    "3M": "3Mutc",
}
"""How long candles may be, and OKX's word for it. From 6 hours on they open by Hong Kong's time, unless `utc` is said
(get candlesticks, `bar`)."""

_NOT_TEXT: Final = re.compile(rb':[^"]')
"""In a ticker: a value that is no text, or a text with a colon. OKX sends neither; both are looked over by the byte."""

_MOST_DIGITS_OF_TIME: Final = 15
"""In milliseconds since 1970, until the year 33658."""

_FRESH_MS: Final = 60_000
"""A ticker of the last minute is looked at no further; `halted_after_s` may be as short."""

_SIDES: Final[dict[str, Side]] = {"buy": "buy", "sell": "sell"}


class _Ticker(msgspec.Struct, gc=False):
    """The fields that are looked at."""

    last: str
    ts: str
    instId: str = ""


class _Trade(msgspec.Struct, gc=False):
    tradeId: str
    px: str
    sz: str
    side: str
    ts: str
    instId: str = ""


class _Book(msgspec.Struct, gc=False):
    """Of `books` and of `bbo-tbt`, which has no `prevSeqId`."""

    asks: list[tuple[str, ...]]
    bids: list[tuple[str, ...]]
    ts: str
    seqId: int | None = None
    prevSeqId: int | None = None
    checksum: int = 0
    instId: str = ""


_ticker: Final = msgspec.json.Decoder(_Ticker)
_trade: Final = msgspec.json.Decoder(_Trade)
_book: Final = msgspec.json.Decoder(_Book)
_texts: Final = msgspec.json.Decoder(list[str])


class Topic(ABC):
    """One subscription on one connection.

    Attributes:
        channel: OKX's word for it, as `tickers`.
        inst_id: as `BTC-USDT`.
        instrument: `BTC/USDT`.
        names: the channels that it feeds.
        id: of its request: letters and digits alone.
    """

    def __init__(self, channel: str, inst_id: str, instrument: str, channels: Sequence[Channel], id_: str) -> None:
        """`channels` are those that it feeds."""
        self.channel = channel
        self.inst_id = inst_id
        self.instrument = instrument
        self.names = tuple(each.name for each in channels)
        self.id = id_

    def quick(self, body: bytes, action: str, received_ms: int) -> list[Event] | Rows:
        """One row as OKX writes it.

        Raises:
            Odd, msgspec.DecodeError, UnicodeError, RecursionError: it is not; `row` says what is wrong.
        """
        return self.row(body, action, received_ms)

    @abstractmethod
    def row(self, body: bytes, action: str, received_ms: int) -> list[Event] | Rows:
        """One row of a push.

        Raises:
            Odd: it cannot be used.
        """

    def left_out(self, odd: Odd) -> Rows:
        """What follows from a row that cannot be used."""
        return Rows([], notes(self.names, self.instrument, odd))

    def _check_id(self, inst_id: str) -> None:
        """Raises: Odd, if the row is about another instrument."""
        if inst_id != self.inst_id and inst_id:
            raise Odd(f"{quoted('instId')} is {shown(inst_id)}, in a push about {self.inst_id}")


class Tickers(Topic):
    """The price of the last trade, and the day's summary."""

    def __init__(
        self, channel: str, inst_id: str, instrument: str, channels: Sequence[Channel], id_: str, ages: Ages
    ) -> None:
        """`ages` says which are too old."""
        super().__init__(channel, inst_id, instrument, channels, id_)
        self._ages = ages

    def quick(self, body: bytes, action: str, received_ms: int) -> list[Event]:
        """The object alone is decoded, which proves that it is one."""
        return self._events(body, _ticker.decode(body), received_ms)

    def row(self, body: bytes, action: str, received_ms: int) -> list[Event]:
        """See `Topic.row`."""
        return self._events(body, read_row(body, _Ticker), received_ms)

    def _events(self, body: bytes, ticker: _Ticker, received_ms: int) -> list[Event]:
        """One event per channel.

        Raises:
            Odd: it is no price.
            UnicodeDecodeError: `body` is not UTF-8, which msgspec does not look at in fields that it skips.
        """
        if not body.isascii():
            body.decode()
        if _NOT_TEXT.search(body):
            try:
                look_over(body)
            except PayloadError as error:
                raise Odd(str(error)) from None
        last, ts = ticker.last, ticker.ts
        self._check_id(ticker.instId)
        if not last:
            raise Odd("not trading: it has no last price yet", "halted")
        # What is right is told apart here, without a call; what is wrong with the others, by these.
        if is_number(last) is None or not float(last) > 0.0:
            check_price(last, "last")
        exchange_ms = _time(ts)
        if exchange_ms is not None and not received_ms - _FRESH_MS <= exchange_ms <= LAST_MS:
            check_time(exchange_ms, "ts")
            self._ages.check(self.inst_id, "ts", exchange_ms, received_ms)
        # A push has the same bytes, and so the same `ts`, on every connection.
        instrument = self.instrument
        return [Event(name, instrument, body, received_ms, last, exchange_ms, order=exchange_ms) for name in self.names]


class Trades(Topic):
    """Trades, as OKX merges them."""

    def quick(self, body: bytes, action: str, received_ms: int) -> list[Event]:
        """See `Topic.quick`."""
        return self._events(body, _trade.decode(body), received_ms)

    def row(self, body: bytes, action: str, received_ms: int) -> list[Event]:
        """See `Topic.row`."""
        return self._events(spliced(body), read_row(body, _Trade), received_ms)

    def _events(self, body: bytes, trade: _Trade, received_ms: int) -> list[Event]:
        """One event per channel. Raises: Odd, UnicodeDecodeError."""
        body.decode()
        if b"\n" in body or b"\r" in body:
            raise Odd("it has several lines")
        self._check_id(trade.instId)
        check_price(trade.px, "px")
        size = quantity(trade.sz, "sz", "a number above 0", zero=False)
        side = _SIDES.get(trade.side)
        if side is None:
            raise Odd(f"{quoted('side')} is {shown(trade.side)}, neither buy nor sell")
        id_ = trade.tradeId
        if not id_.isdecimal() or not id_.isascii() or len(id_) > 18:
            raise Odd(f"{quoted('tradeId')} is {shown(id_)}, not a whole number")
        made_ms = _time(trade.ts)
        if made_ms is not None:
            check_time(made_ms, "ts")
        fields = TradeFields(size, side, id_)
        return [
            Event(name, self.instrument, body, received_ms, trade.px, made_ms, fields=fields, order=int(id_))
            for name in self.names
        ]


class Quotes(Topic):
    """The best bid and ask, whenever they change."""

    def __init__(self, channel: str, inst_id: str, instrument: str, channels: Sequence[Channel], id_: str) -> None:
        super().__init__(channel, inst_id, instrument, channels, id_)
        self._told: tuple[list[tuple[str, ...]], list[tuple[str, ...]]] | None = None

    def quick(self, body: bytes, action: str, received_ms: int) -> list[Event]:
        """See `Topic.quick`."""
        return self._events(body, _book.decode(body), received_ms)

    def row(self, body: bytes, action: str, received_ms: int) -> list[Event]:
        """See `Topic.row`."""
        return self._events(spliced(body), read_row(body, _Book), received_ms)

    def _events(self, body: bytes, book: _Book, received_ms: int) -> list[Event]:
        """One event per channel; none where the quote was told last. Raises: Odd, UnicodeDecodeError."""
        body.decode()
        if b"\n" in body or b"\r" in body:
            raise Odd("it has several lines")
        self._check_id(book.instId)
        bid, bid_size = _best(book.bids, "bids")
        ask, ask_size = _best(book.asks, "asks")
        if bid and ask and key(bid) >= key(ask):
            # As in a call auction. Then the next one is told, even if it was told last.
            self._told = None
            raise Odd(f"not trading: the best bid {bid} is not below the best ask {ask}", "halted")
        image = ([level[:2] for level in book.bids[:1]], [level[:2] for level in book.asks[:1]])
        made_ms = _time(book.ts)
        if made_ms is not None:
            check_time(made_ms, "ts")
        if image == self._told:
            return []
        self._told = image
        fields = QuoteFields(_raw(bid), _raw(bid_size), _raw(ask), _raw(ask_size))
        price = middle(bid, ask) if bid and ask else ""
        return [
            Event(name, self.instrument, body, received_ms, price, made_ms, fields=fields, order=made_ms)
            for name in self.names
        ]


class Books(Topic):
    """A whole book, and its best levels.

    A book that is crossed is not told. If an update crosses it, something may be missing, so it begins anew. If its
    snapshot is crossed already, as in a call auction, that is OKX's own state: the book is followed, and told whenever
    it is not crossed. From then on updates may cross it, too, or an auction would use up the requests of an hour.

    Attributes:
        published: what is published of it.
    """

    def __init__(self, channel: str, inst_id: str, instrument: str, channels: Sequence[Channel], id_: str) -> None:
        super().__init__(channel, inst_id, instrument, channels, id_)
        self.published = BookTopic(instrument, inst_id, channels)
        self._chain = Chain()
        self._awaited = Awaited()
        self._must_begin = True
        """Whether the next message has to be a snapshot. Until a renewal is answered, those from before come, too."""
        self._may_cross = False
        """Whether OKX's own book was crossed on this connection."""
        self._symbol = msgspec.json.encode(inst_id).decode()

    def acknowledged(self) -> None:
        """OKX took the subscription, perhaps anew."""
        self._must_begin = True

    def quick(self, body: bytes, action: str, received_ms: int) -> list[Event] | Rows:
        """See `Topic.quick`."""
        return self._follow(_book.decode(body), action, received_ms)

    def row(self, body: bytes, action: str, received_ms: int) -> list[Event] | Rows:
        """See `Topic.row`. A snapshot that cannot be used is asked for anew."""
        try:
            return self._follow(read_row(body, _Book), action, received_ms)
        except Odd as odd:
            if action != "snapshot":
                raise
            return self._lost(f"a snapshot cannot be used: {odd}")

    def _follow(self, row: _Book, action: str, received_ms: int) -> list[Event] | Rows:
        """Raises: Odd. The book is as it was then."""
        self._check_id(row.instId)
        made_ms = _time(row.ts)
        if made_ms is not None:
            check_time(made_ms, "ts")
        seq, previous = row.seqId, row.prevSeqId
        if seq is None or previous is None:
            if not row.checksum:
                raise Odd(f"{quoted('seqId')} or {quoted('prevSeqId')} is missing")
            # Recorded before there were ids: each message follows, and the checksum says whether that is so.
            seq, previous = 0, 0
        source = f'{{"symbol":{self._symbol},"prevSeqId":{previous},"seqId":{seq}}}'.encode()
        published = self.published
        if action == "snapshot":
            try:
                published.book.replace(row.bids, row.asks)
            except (ValueError, IndexError) as error:
                return self._lost(f"a snapshot cannot be read: {error}")
            self._chain.begin(seq)
            self._awaited.came()
            if published.book.is_crossed:
                self._may_cross = True
                return self._not_told()
            return published.began(received_ms, made_ms, source)
        if action != "update":
            raise Odd(f"{quoted('action')} is {shown(action)}, neither snapshot nor update")
        before = self._chain.last
        if before is None:
            if self._must_begin:
                return self._lost("an update came without a snapshot before it")
            reason = self._awaited.in_vain(received_ms)
            return self._lost(reason) if reason else []
        if not self._chain.follows(previous, seq):
            return self._lost(f"the update after {previous} does not follow {before}")
        try:
            changes = published.book.apply(row.bids, row.asks)
        except (ValueError, IndexError) as error:
            return self._lost(f"an update cannot be read: {error}")
        if row.seqId is None and checksum(published.book) != row.checksum:
            return self._lost("the checksum of the book is not the one that was sent")
        if published.book.is_crossed:
            if not published.is_whole:
                return []
            return self._not_told() if self._may_cross else self._lost(published.book.say_crossed())
        if not published.is_whole:
            return published.began(received_ms, made_ms, source)
        return published.changed(changes, received_ms, made_ms, source)

    def left_out(self, odd: Odd) -> Rows:
        """Without this row the book would be another one than OKX's."""
        is_renewed = self._chain.last is None and not self._must_begin
        return super().left_out(odd) if is_renewed else self._lost(str(odd))

    def _not_told(self) -> Rows:
        """The book is OKX's, and crossed."""
        return Rows([], self.published.lost(f"{self.published.book.say_crossed()}, as OKX has it"))

    def _lost(self, reason: str) -> Said:
        """The book is not OKX's any more: that is told, and it is to begin anew."""
        self._chain.lose()
        self._awaited.came()
        self._must_begin = False
        told = self.published.lost(brief(reason))
        return Said([], told, [Renew(self.id, f"the book of {self.inst_id}: {brief(reason)}")])


class Candles(Topic):
    """Candles of one length."""

    def __init__(self, channel: str, inst_id: str, instrument: str, channels: Sequence[Channel], id_: str) -> None:
        super().__init__(channel, inst_id, instrument, channels, id_)
        self._interval = channels[0].interval

    def row(self, body: bytes, action: str, received_ms: int) -> list[Event]:
        """See `Topic.row`."""
        try:
            cells = _texts.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Odd(f"a candle cannot be read: {brief(str(error))}") from None
        if len(cells) < 9:
            raise Odd(f"a candle has {len(cells)} values, not 9")
        start, opened, high, low, close, volume, confirm = *cells[:6], cells[8]
        start_ms = _time(start)
        if start_ms is None:
            raise Odd(f"{quoted('ts')} is empty")
        check_time(start_ms, "ts")
        for name, value in (("o", opened), ("h", high), ("l", low), ("c", close)):
            check_price(value, name)
        traded = quantity(volume, "vol")
        if confirm not in ("0", "1"):
            raise Odd(f"{quoted('confirm')} is {shown(confirm)}, neither 0 nor 1")
        o, h, low_, c = (Raw(value.encode()) for value in (opened, high, low, close))
        fields = CandleFields(self._interval, start_ms, o, h, low_, c, traded, confirm == "1")
        data = msgspec.json.encode({"instId": self.inst_id, "candle": cells})
        return [
            Event(name, self.instrument, data, received_ms, close, fields=fields, order=start_ms) for name in self.names
        ]


def _time(ts: str) -> int | None:
    """Ms since 1970; None where OKX gives none. Raises: Odd, if it is no number."""
    if ts.isdigit() and ts.isascii() and len(ts) <= _MOST_DIGITS_OF_TIME:
        return int(ts)
    if ts:
        raise Odd(f"{quoted('ts')} is {shown(ts)}, not in milliseconds since 1970")
    return None


def _best(levels: list[tuple[str, ...]], field: str) -> tuple[str, str]:
    """Price and size of the best level; two empty texts where there is none. Raises: Odd."""
    if not levels:
        return "", ""
    if len(levels[0]) < 2:
        raise Odd(f"{quoted(field)} has a level of {len(levels[0])} values")
    price, size = levels[0][:2]
    check_price(price, field)
    try:
        key(price)
    except ValueError as error:
        raise Odd(f"{quoted(field)} has {error}") from None
    if is_number(size) is None or float(size) < 0.0:
        raise Odd(f"{quoted(field)} has the size {shown(size)}")
    return price, size


def _raw(digits: str) -> Raw | UnsetType:
    return Raw(digits.encode()) if digits else UNSET
