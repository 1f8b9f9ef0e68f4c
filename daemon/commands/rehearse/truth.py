"""Whether a book that was rebuilt from messages is one that the simulated market had. Pure.

The simulated market is the same for the same seed, so a right book is that of some step, level for level.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias

from connectors.simulator.venues.market import Listing, Market

Side: TypeAlias = dict[int, int]
"""Sizes by price, both in smallest steps."""


class Truth:
    """One listing's books, by what is best in them."""

    def __init__(self, market: Market, listing: Listing) -> None:
        self._market = market
        self._listing = listing
        self._steps: dict[tuple[int, int, int, int], list[int]] = {}
        self._known = 0

    def level(self, price: str, size: str) -> tuple[int, int]:
        """A level in smallest steps. Raises: ValueError, where it is none."""
        return _exact(price, self._listing.price_digits), _exact(size, self._listing.size_digits)

    def has(self, bids: Side, asks: Side, until: int) -> bool:
        """Whether these were the best levels of the venue's book at some step up to that one."""
        if not bids or not asks:
            return False
        for step in range(self._known, until):
            quote = self._market.quote(self._listing, step)
            self._steps.setdefault((quote.bid, quote.bid_size, quote.ask, quote.ask_size), []).append(step)
        self._known = max(self._known, until)
        bid, ask = max(bids), min(asks)
        ours = sorted(bids.items(), reverse=True), sorted(asks.items())
        for step in self._steps.get((bid, bids[bid], ask, asks[ask]), ()):
            book = self._market.book(self._listing, step)
            if ours == (book.bids[: len(bids)], book.asks[: len(asks)]):
                return True
        return False


def _exact(text: str, digits: int) -> int:
    scaled = Decimal(text).scaleb(digits)
    if scaled != int(scaled):
        raise ValueError(f"{text} has more than {digits} digits")
    return int(scaled)
