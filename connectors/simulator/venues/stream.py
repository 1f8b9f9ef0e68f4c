"""What happens in the simulated market from step to step: changes of books, trades, candles. Pure.

All of it is a function of (seed, listing, step), as in `connectors.simulator.venues.market`, of which these are
streams: any step can be asked for without the steps before it, by as many venues and connections as there are. What is
kept here is kept for speed.

A book of the market (`market.BOOK_LEVELS` a side) is the whole book: what leaves it is told as removed. So a client
that applies every change to any earlier book has the present one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Final, Literal
from zlib import crc32

import msgspec

from connectors.simulator.venues.market import BOOK_LEVELS, Book, Listing, Market, Quote

FIRST_UPDATE_ID: Final = 1_000_000_000
UPDATES_A_STEP: Final = 17
"""A step's change stands for so many changes: venues that number changes one by one name the first and the last."""

FIRST_TRADE_ID: Final = 10_000_000
_COUNTS: Final = (0, 1, 2, 0, 4, 1, 3, 1)
"""How many trades successive steps have, again and again; where in it a listing begins, its name decides."""
_BEFORE: Final = tuple(sum(_COUNTS[:place]) for place in range(len(_COUNTS)))
_ROUND: Final = sum(_COUNTS)

_SAMPLES: Final = 8
"""At so many steps the market is looked at for a candle from before the market began."""

_KEPT: Final = 1024
"""Books, and candles that have closed, that are kept of each kind."""


def update_id(step: int) -> int:
    """The id of a book's newest change at `step`: rising from step to step, the same for all listings."""
    return FIRST_UPDATE_ID + UPDATES_A_STEP * step


class BookChange(msgspec.Struct, frozen=True, gc=False):
    """What became of a book between two steps.

    Levels are (price, size) in the listing's smallest steps, best first; size 0 removes. Either side may be empty.
    """

    since: int
    step: int
    bids: tuple[tuple[int, int], ...]
    asks: tuple[tuple[int, int], ...]

    @property
    def first_id(self) -> int:
        """The id that follows that of the book at `since`."""
        return update_id(self.since) + 1

    @property
    def last_id(self) -> int:
        """The id of the book at `step`."""
        return update_id(self.step)


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade, in the listing's smallest steps. `side` is the taker's."""

    id: int
    step: int
    price: int
    size: int
    side: Literal["buy", "sell"]


class Candle(msgspec.Struct, frozen=True, gc=False):
    """The trades of an interval, up to a step.

    Without a trade all prices are the last one of the market at the beginning. `volume` is in the listing's smallest
    quantity step, as is `bought` (the part that takers bought), `quote_volume` in the product of both steps.
    """

    start_ms: int
    end_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    bought: int
    quote_volume: int
    trades: int
    first_id: int
    last_id: int
    closed: bool


class MarketStream:
    """The market, step by step.

    Args:
        market: Which.
        steps_per_s: How many steps it makes.

    Attributes:
        market: The same.
        began_ms: When step 0 was, in milliseconds since 1970. It decides where candles begin, and no price.
    """

    def __init__(self, market: Market, steps_per_s: float = 5.0, began_ms: int = 0) -> None:
        self.market = market
        self.began_ms = began_ms
        self._steps_per_ms = steps_per_s / 1000
        self._books: dict[tuple[Listing, int], Book] = {}
        self._growing: dict[tuple[Listing, int], _Growing] = {}
        self._closed: dict[tuple[Listing, int, int], Candle] = {}

    def time_ms(self, step: int) -> int:
        """When a step is."""
        return self.began_ms + math.ceil(step / self._steps_per_ms)

    def step_at(self, time_ms: int) -> int:
        """The first step that is not before that time; negative where step 0 came later."""
        step = math.ceil((time_ms - self.began_ms) * self._steps_per_ms)
        # Both divisions round.
        while self.time_ms(step - 1) >= time_ms:
            step -= 1
        while self.time_ms(step) < time_ms:
            step += 1
        return step

    def quote(self, listing: Listing, step: int) -> Quote:
        """Best bid and ask, the last price and the day so far."""
        return self.market.quote(listing, step)

    def book(self, listing: Listing, step: int, depth: int = BOOK_LEVELS) -> Book:
        """The best `depth` levels of both sides; the first ones are those of `quote`."""
        book = self._books.get((listing, step))
        if book is None:
            if len(self._books) >= _KEPT:
                # The older half: those of the last few steps are what the next changes are made of.
                for old in list(islice(self._books, _KEPT // 2)):
                    del self._books[old]
            book = self._books[listing, step] = self.market.book(listing, step)
        return book if depth >= BOOK_LEVELS else Book(book.bids[:depth], book.asks[:depth])

    def change(
        self, listing: Listing, step: int, since: int | None = None, depth: int = BOOK_LEVELS, *, trimmed: bool = False
    ) -> BookChange:
        """What became of the best `depth` levels since another step, by default the one before.

        `trimmed`: the client cuts each side to `depth` itself, so that a level fell out behind it is not told.
        """
        since = step - 1 if since is None else since
        old, new = self.book(listing, since, depth), self.book(listing, step, depth)
        bids, asks = _difference(old.bids, new.bids), _difference(old.asks, new.asks)
        if trimmed:
            bid, ask = new.bids[-1][0], new.asks[-1][0]
            bids = [level for level in bids if level[1] or level[0] > bid]
            asks = [level for level in asks if level[1] or level[0] < ask]
        return BookChange(since, step, tuple(sorted(bids, reverse=True)), tuple(sorted(asks)))

    def trades(self, listing: Listing, step: int) -> list[Trade]:
        """The trades of one step, none to four, oldest first."""
        count = _COUNTS[_place(listing, step)]
        if not count:
            return []
        quote = self.market.quote(listing, step)
        first = trade_id(listing, step)
        return [_trade(number, step, quote) for number in range(first, first + count)]

    def trades_between(self, listing: Listing, since: int, step: int) -> Iterator[Trade]:
        """The trades after the step `since`, up to `step`."""
        for one in range(since + 1, step + 1):
            yield from self.trades(listing, one)

    def newest_trades(self, listing: Listing, step: int, count: int) -> list[Trade]:
        """The newest so many trades up to `step`, oldest first."""
        rounds = count // _ROUND + 1
        return list(self.trades_between(listing, step - rounds * len(_COUNTS), step))[-count:]

    def candle(self, listing: Listing, interval_ms: int, step: int) -> Candle:
        """The candle of the interval that `step` is in, up to and with that step."""
        start_ms = self.time_ms(step) // interval_ms * interval_ms
        growing = self._growing.get((listing, interval_ms))
        if growing is None or growing.start_ms != start_ms or growing.step > step:
            first = self.step_at(start_ms)
            growing = self._growing[listing, interval_ms] = _Growing(start_ms, first, self.market.quote(listing, first))
        for trade in self.trades_between(listing, growing.step, step):
            growing.add(trade)
        growing.step = step
        return growing.candle(interval_ms, trade_id(listing, step + 1), closed=False)

    def closed_candle(self, listing: Listing, interval_ms: int, start_ms: int) -> Candle:
        """The whole candle that began at `start_ms`, a multiple of the interval.

        One that ended before the market began has the trades of no step: a history of hundreds of them would take
        seconds. It is made of a few looks at the market, the same ones each time.
        """
        name = (listing, interval_ms, start_ms)
        candle = self._closed.get(name)
        if candle is None:
            if len(self._closed) >= _KEPT * 4:
                self._closed.clear()
            first, last = self.step_at(start_ms), self.step_at(start_ms + interval_ms) - 1
            if start_ms + interval_ms <= self.began_ms:
                candle = self._closed[name] = self._sketched(listing, interval_ms, start_ms, first, last)
                return candle
            growing = _Growing(start_ms, first, self.market.quote(listing, first))
            for trade in self.trades_between(listing, first - 1, last):
                growing.add(trade)
            candle = self._closed[name] = growing.candle(interval_ms, trade_id(listing, last + 1), closed=True)
        return candle

    def _sketched(self, listing: Listing, interval_ms: int, start_ms: int, first: int, last: int) -> Candle:
        looks = [first + (last - first) * part // (_SAMPLES - 1) for part in range(_SAMPLES)]
        quotes = [self.market.quote(listing, step) for step in looks]
        prices = [quote.last for quote in quotes]
        first_id, next_id = trade_id(listing, first), trade_id(listing, last + 1)
        trades = next_id - first_id
        volume = trades * sum(quote.last_size for quote in quotes) // (2 * _SAMPLES)
        return Candle(
            start_ms=start_ms,
            end_ms=start_ms + interval_ms,
            open=prices[0],
            high=max(prices),
            low=min(prices),
            close=prices[-1],
            volume=volume,
            bought=volume // 2,
            quote_volume=volume * sum(prices) // len(prices),
            trades=trades,
            first_id=first_id,
            last_id=next_id - 1,
            closed=True,
        )

    def candles(self, listing: Listing, interval_ms: int, since: int, step: int) -> list[Candle]:
        """What a venue tells of an interval's candles after the step `since`: those that closed, then the open one."""
        told = []
        start_ms = self.time_ms(since) // interval_ms * interval_ms
        while start_ms + interval_ms <= self.time_ms(step):
            told.append(self.closed_candle(listing, interval_ms, start_ms))
            start_ms += interval_ms
        return [*told, self.candle(listing, interval_ms, step)]


class _Growing:
    """A candle that takes trades; `step` is the newest one whose trades it has."""

    def __init__(self, start_ms: int, first: int, quote: Quote) -> None:
        self.start_ms = start_ms
        self.step = first - 1
        self._open = self._high = self._low = self._close = quote.last
        self._volume = self._bought = self._quote_volume = self._trades = 0

    def add(self, trade: Trade) -> None:
        """One more trade, after those before."""
        if not self._trades:
            self._open = self._high = self._low = trade.price
        self._trades += 1
        self._high = max(self._high, trade.price)
        self._low = min(self._low, trade.price)
        self._close = trade.price
        self._volume += trade.size
        self._bought += trade.size if trade.side == "buy" else 0
        self._quote_volume += trade.size * trade.price

    def candle(self, interval_ms: int, next_id: int, *, closed: bool) -> Candle:
        """As it is now; `next_id` is that of the first trade that is not in it."""
        return Candle(
            start_ms=self.start_ms,
            end_ms=self.start_ms + interval_ms,
            open=self._open,
            high=self._high,
            low=self._low,
            close=self._close,
            volume=self._volume,
            bought=self._bought,
            quote_volume=self._quote_volume,
            trades=self._trades,
            first_id=next_id - self._trades,
            last_id=next_id - 1,
            closed=closed,
        )


def trade_id(listing: Listing, step: int) -> int:
    """The id of the first trade at or after `step`."""
    rounds = (step + _phase(listing)) // len(_COUNTS)
    return FIRST_TRADE_ID + rounds * _ROUND + _BEFORE[_place(listing, step)]


def _phase(listing: Listing) -> int:
    return crc32(listing.symbol.encode()) % len(_COUNTS)


def _place(listing: Listing, step: int) -> int:
    return (step + _phase(listing)) % len(_COUNTS)


def _trade(number: int, step: int, quote: Quote) -> Trade:
    """At the best price of the other side, or better where there is room between bid and ask."""
    draw = crc32(number.to_bytes(8, "big", signed=True))
    side: Literal["buy", "sell"] = "buy" if draw & 1 else "sell"
    price = quote.ask if draw & 1 else quote.bid
    if draw & 6 == 6 and quote.ask - quote.bid > 1:
        price = quote.bid + 1
    best = quote.ask_size if draw & 1 else quote.bid_size
    return Trade(number, step, price, 1 + draw % best, side)


def _difference(old: list[tuple[int, int]], new: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The levels that are new or have another size, and those that are gone, with size 0."""
    before, after = dict(old), dict(new)
    changed = [level for level in new if before.get(level[0]) != level[1]]
    return changed + [(price, 0) for price in before if price not in after]
