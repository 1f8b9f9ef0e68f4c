"""The simulated market: what every simulated venue would say at a given step.

Pure: no I/O, no clock, no state that changes. A value is a function of (seed, instrument, step) and
of nothing else, so two runs with one seed agree whenever and however often they are asked, and any
step can be computed without the steps before it.

A price is a start price times a random walk. A walk is made once from the seed as two *bridges*
(walks that end where they began) of coprime lengths, repeated for ever and added. That gives a walk
which does not repeat within four million steps, stays within a few percent of its start, and costs
two list look-ups a step. Prices and moves are integers (the venue's smallest price step, parts per
million), so that they are the same on every machine.

The same walk drives an instrument on all venues; a venue adds its own small constant offset, tick
size and lot size.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate, islice
from itertools import count as count_from

import msgspec

MILLION = 1_000_000
LONG_BRIDGE, SHORT_BRIDGE = 4_093, 1_021
"""Lengths of the two bridges; both prime, so their sum repeats only after their product."""

SIZES = 251
"""Length of a listing's table of order sizes; prime, so that strides through it visit all of it."""

_CELLS_KNOWN = 1_000
"""So many cells of a listing are remembered, before all are forgotten: some times as many as a book has."""

BOOK_LEVELS = 100
"""Most levels a book has on one side."""


class Listing(msgspec.Struct, frozen=True):
    """One instrument on one venue.

    Attributes:
        symbol: The venue's spelling, `BTCUSDT` or `BTC-USDT`.
        price: Price at the start of the walk, in quote units.
        price_digits: The smallest price step is 10 to the minus this.
        size_digits: The smallest quantity step is 10 to the minus this.
        volume: Base units traded in 24 hours, about.
        venue: Where two venues spell a symbol the same: which one this is.
    """

    symbol: str
    base: str
    quote: str
    price: float
    price_digits: int
    size_digits: int
    volume: int
    venue: str = ""

    @property
    def instrument(self) -> str:
        """As the daemon names it: `BTC/USDT`."""
        return f"{self.base}/{self.quote}"


class Quote(msgspec.Struct, frozen=True, gc=False):
    """One listing at one step.

    Prices are integers in the listing's smallest price step, sizes and `volume` in its smallest
    quantity step. `quote_volume` is in the product of both. The day's open lies within `low` and
    `high`, and so does every `last`.
    """

    step: int
    last: int
    last_size: int
    bid: int
    bid_size: int
    ask: int
    ask_size: int
    open: int
    high: int
    low: int
    average: int
    volume: int
    quote_volume: int


class Book(msgspec.Struct, frozen=True):
    """Both sides of a book, best first, as (price, size) in smallest steps. Never crossed."""

    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


# base, start price, price digits (Binance, OKX), quantity digits (Binance, OKX), base units a day
_INSTRUMENTS = (
    ("BTC", 97_000.0, 2, 1, 5, 8, 24_000),
    ("ETH", 3_400.0, 2, 2, 4, 6, 310_000),
    ("BNB", 640.0, 2, 1, 3, 4, 420_000),
    ("SOL", 210.0, 2, 2, 3, 6, 3_900_000),
    ("XRP", 2.3, 4, 4, 1, 2, 420_000_000),
    ("ADA", 0.95, 4, 4, 1, 2, 210_000_000),
    ("DOGE", 0.35, 5, 5, 0, 2, 1_900_000_000),
    ("AVAX", 41.0, 2, 2, 2, 4, 5_200_000),
    ("LINK", 22.0, 2, 3, 2, 4, 6_400_000),
    ("DOT", 7.5, 3, 3, 2, 4, 9_800_000),
)

BINANCE: dict[str, Listing] = {
    f"{base}USDT": Listing(f"{base}USDT", base, "USDT", price, digits, size_digits, volume)
    for base, price, digits, _, size_digits, _, volume in _INSTRUMENTS
}
"""Binance's listings by symbol."""

OKX: dict[str, Listing] = {
    f"{base}-USDT": Listing(f"{base}-USDT", base, "USDT", price, digits, size_digits, volume // 2)
    for base, price, _, digits, _, size_digits, volume in _INSTRUMENTS
}
"""OKX's listings by instId."""

# base, price digits (Coinbase, Kraken, Bybit), quantity digits (Coinbase, Kraken, Bybit)
_DIGITS = {
    "BTC": (2, 1, 1, 8, 8, 6),
    "ETH": (2, 2, 2, 8, 8, 5),
    "BNB": (2, 2, 1, 4, 5, 4),
    "SOL": (2, 2, 2, 8, 8, 3),
    "XRP": (4, 5, 4, 6, 8, 2),
    "ADA": (4, 6, 4, 8, 8, 2),
    "DOGE": (5, 7, 5, 1, 8, 1),
    "AVAX": (2, 2, 2, 8, 8, 3),
    "LINK": (3, 5, 3, 2, 8, 2),
    "DOT": (3, 4, 3, 8, 8, 3),
}
_DOLLARS = ("BTC", "ETH")
"""What is listed against USD too, where a venue has it."""


def _listed(venue: str, place: int, between: str, volume_part: int, *, dollars: bool) -> dict[str, Listing]:
    listings = (
        Listing(
            f"{base}{between}{quote}",
            base,
            quote,
            price,
            _DIGITS[base][place],
            _DIGITS[base][place + 3],
            volume // volume_part,
            venue,
        )
        for base, price, *_, volume in _INSTRUMENTS
        for quote in (("USD", "USDT") if dollars and base in _DOLLARS else ("USDT",))
    )
    return {listing.symbol: listing for listing in listings}


COINBASE: dict[str, Listing] = _listed("coinbase", 0, "-", 3, dollars=True)
"""Coinbase's listings by product id."""

KRAKEN: dict[str, Listing] = _listed("kraken", 1, "/", 8, dollars=True)
"""Kraken's listings by v2 symbol."""

BYBIT: dict[str, Listing] = _listed("bybit", 2, "", 2, dollars=False)
"""Bybit's listings by symbol."""

LISTINGS: dict[str, dict[str, Listing]] = {
    "binance": BINANCE,
    "okx": OKX,
    "coinbase": COINBASE,
    "kraken": KRAKEN,
    "bybit": BYBIT,
}
"""All venues' listings: by venue, then by the venue's own symbol."""


def _bridge(rng: random.Random, length: int) -> list[int]:
    """A random walk that ends where it began, so that it can be repeated; ppm."""
    walk = list(accumulate(byte - 128 for byte in rng.randbytes(length)))
    drift = walk[-1]
    return [(value - drift * (i + 1) // length) // 2 for i, value in enumerate(walk)]


class Walk:
    """A seeded, repeatable, bounded random walk in parts per million around zero."""

    def __init__(self, seed: int, name: str) -> None:
        rng = random.Random(f"{seed}/{name}")
        self._long = _bridge(rng, LONG_BRIDGE)
        self._short = _bridge(rng, SHORT_BRIDGE)
        self.highest = max(self._long) + max(self._short)
        self.lowest = min(self._long) + min(self._short)

    def at(self, step: int) -> int:
        """The walk's distance from its start, in parts per million."""
        return self._long[step % LONG_BRIDGE] + self._short[step % SHORT_BRIDGE]


class _Tables:
    """What is constant about one listing for one seed."""

    def __init__(self, seed: int, listing: Listing, walk: Walk) -> None:
        rng = random.Random(f"{seed}/{listing.venue}/{listing.symbol}" if listing.venue else f"{seed}/{listing.symbol}")
        # Up to 0.02 % between venues: enough to see, far below what a cross-check would call wrong.
        price = listing.price * (1 + rng.randrange(-100, 101) / MILLION)
        self.start = round(price * 10**listing.price_digits)
        typical = 6_000 / listing.price * 10**listing.size_digits
        draws = [rng.random() for _ in range(SIZES)]
        self.sizes = [1 + int(typical * draw * draw * draw) for draw in draws]
        self.spacing = max(1, self.start // 100_000)
        low = self.start * (MILLION + walk.lowest) // MILLION
        high = self.start * (MILLION + walk.highest) // MILLION + 3
        self.open = self.start * (1_000 + rng.randrange(-45, 46)) // 1_000
        self.low = min(low, self.open) * 997 // 1_000
        self.high = max(high, self.open) * 1_004 // 1_000
        self.volume = listing.volume * 10**listing.size_digits
        self._cells: dict[int, tuple[int, int, int, int]] = {}
        """Of cells: the price in it, and what the size there is reckoned from."""

    def rungs(self, cells: Iterable[int], step: int) -> Iterator[tuple[int, int]]:
        """What waits in these cells (stretches of prices, `spacing` wide): one price and a size in each."""
        sizes, spacing, known = self.sizes, self.spacing, self._cells
        if len(known) > _CELLS_KNOWN:
            known.clear()
        for cell in cells:
            found = known.get(cell)
            if found is None:
                price = cell * spacing + sizes[cell % SIZES] % spacing
                found = known[cell] = price, 3 * cell, 5 + cell % 13, 31 * cell
            price, ahead, every, first = found
            yield price, sizes[(first + 7 * ((step + ahead) // every)) % SIZES]


class Market:
    """Every venue's prices, sizes and books for one seed."""

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self._walks: dict[str, Walk] = {}
        self._tables: dict[tuple[str, str], _Tables] = {}

    def walk(self, base: str) -> Walk:
        """The walk of an asset, made on first use so that starting costs nothing."""
        walk = self._walks.get(base)
        if walk is None:
            walk = self._walks[base] = Walk(self.seed, base)
        return walk

    def _table(self, listing: Listing) -> _Tables:
        name = (listing.venue, listing.symbol)
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = _Tables(self.seed, listing, self.walk(listing.base))
        return table

    def quote(self, listing: Listing, step: int) -> Quote:
        """The listing's ticker at `step` (0 or more)."""
        table = self._table(listing)
        ppm = self.walk(listing.base).at(step)
        sizes = table.sizes
        draw = sizes[step % SIZES]
        bid = table.start * (MILLION + ppm) // MILLION
        ask = bid + 1 + (draw & 1)
        last = ask if draw & 2 else bid
        average = (table.open + table.high + table.low + last) // 4
        volume = table.volume * (MILLION + 8 * ppm) // MILLION
        return Quote(
            step=step,
            last=last,
            last_size=draw,
            bid=bid,
            bid_size=sizes[(step * 3 + 1) % SIZES],
            ask=ask,
            ask_size=sizes[(step * 5 + 2) % SIZES],
            open=table.open,
            high=table.high,
            low=table.low,
            average=average,
            volume=volume,
            quote_volume=volume * average,
        )

    def book(self, listing: Listing, step: int, levels: int = BOOK_LEVELS) -> Book:
        """The best `levels` (at most `BOOK_LEVELS`) of both sides.

        The first ones are bid and ask of `quote` at the same step. The others are where orders wait: at prices that do
        not move with the market, so that most levels of one step are those of the step before. From time to time a
        level's size changes.
        """
        table = self._table(listing)
        quote = self.quote(listing, step)
        count = min(levels, BOOK_LEVELS) - 1
        cell = quote.bid // table.spacing
        bids, asks = [(quote.bid, quote.bid_size)], [(quote.ask, quote.ask_size)]
        bids += islice((level for level in table.rungs(count_from(cell, -1), step) if level[0] < quote.bid), count)
        asks += islice((level for level in table.rungs(count_from(cell), step) if level[0] > quote.ask), count)
        return Book(bids, asks)

    def usd_price(self, base: str, step: int) -> float:
        """An asset's price in dollars, as an aggregator that follows the venues would give it."""
        listing = BINANCE[f"{base}USDT"]
        quote = self.quote(listing, step)
        return float((quote.bid + quote.ask) / 2 / 10**listing.price_digits)


def padded(value: int, digits: int, places: int = 8) -> str:
    """`value` times 10 to the minus `digits` with `places` decimals, as Binance writes numbers."""
    scaled = abs(value) * 10 ** (places - digits)
    whole, fraction = divmod(scaled, 10**places)
    return f"{'-' if value < 0 else ''}{whole}.{fraction:0{places}d}"


@lru_cache(maxsize=1 << 15)
def unpadded(value: int, digits: int) -> str:
    """`value` (0 or more) times 10 to the minus `digits`, as OKX writes it: `8477`, `8477.3`."""
    if digits == 0:
        return str(value)
    whole, fraction = divmod(value, 10**digits)
    return f"{whole}.{fraction:0{digits}d}".rstrip("0").rstrip(".") if fraction else str(whole)
