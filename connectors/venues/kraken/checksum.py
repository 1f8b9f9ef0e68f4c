"""Kraken's checksum of a book: CRC-32 over the best ten levels of each side. Pure.

Source of every rule: Kraken's guide "Spot WebSockets (v2): book checksum", state of November 2026. Each level is its
price and then its quantity, each with all the digits of the pair's precision, without the point and without zeros in
front (`45285.2` and `0.001`, at precisions of 1 and 8, are `452852` and `100000`). The asks come first, lowest first,
then the bids, highest first; there are fewer than ten of a side that is thin.

So zeros at the end count, and how many there are cannot be told from a JSON number. The channel `instrument` says which
precisions a pair has. Of a few pairs the book has one digit more than that says (ccxt/ccxt#24461, and the notes of
nautechsystems/nautilus_trader): `find_precision` finds the precisions with which a snapshot has its checksum. They are
unambiguous: with other ones there would be other digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from zlib import crc32

from connectors.books.book import Book

LEVELS: Final = 10
"""Of each side, whatever the depth of the book."""

MOST_PLACES: Final = 12
"""Digits behind the point that are tried: Kraken has up to 10."""

_REMEMBERED_MOST: Final = 256
"""Numbers whose digits are remembered, before all are forgotten: some times as many as a checksum covers."""


class Precision(NamedTuple):
    """How many digits behind the point a pair's prices and quantities have."""

    price: int
    quantity: int


class Checksum:
    """The checksum of one pair's books."""

    __slots__ = ("_prices", "_quantities", "precision")

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self._prices = _Written(precision.price)
        self._quantities = _Written(precision.quantity)

    def of(self, book: Book) -> int:
        """The book's checksum as it is now."""
        prices, quantities = self._prices, self._quantities
        levels = book.asks.top(LEVELS) + book.bids.top(LEVELS)
        return crc32("".join([prices[price] + quantities[quantity] for price, quantity in levels]).encode())


class _Written(dict[str, str]):
    """How numbers are written at a precision: most of them are the same from one frame to the next."""

    __slots__ = ("_places",)

    def __init__(self, places: int) -> None:
        super().__init__()
        self._places = places

    def __missing__(self, number: str) -> str:
        if len(self) >= _REMEMBERED_MOST:
            self.clear()
        digits = self[number] = written(number, self._places)
        return digits


def written(number: str, places: int) -> str:
    """A decimal number with so many digits behind the point, without the point and without zeros in front."""
    whole, _, fraction = number.partition(".")
    if len(fraction) > places and not fraction[places:].strip("0"):
        fraction = fraction[:places]
    return (whole + fraction.ljust(places, "0")).lstrip("0")


def find_precision(book: Book, checksum: int) -> Precision | None:
    """The precisions with which the book has that checksum; None where there are none, or where it is empty."""
    asks, bids = book.asks.top(LEVELS), book.bids.top(LEVELS)
    levels = [*asks, *bids]
    if not levels:
        return None
    prices = _ways([price for price, _ in levels])
    quantities = _ways([quantity for _, quantity in levels])
    for price, prices_digits in prices.items():
        for quantity, quantities_digits in quantities.items():
            digits = "".join(map("".join, zip(prices_digits, quantities_digits, strict=True)))
            if crc32(digits.encode()) == checksum:
                return Precision(price, quantity)
    return None


def _ways(numbers: Sequence[str]) -> dict[int, list[str]]:
    """How these numbers are written at each precision that has room for them all."""
    fewest = max(len(number.partition(".")[2].rstrip("0")) for number in numbers)
    return {places: [written(number, places) for number in numbers] for places in range(fewest, MOST_PLACES + 1)}
