"""One instrument's book, rebuilt by the contract alone: a snapshot, and changes one after the other. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TypeAlias

Levels: TypeAlias = Iterable[tuple[str, str]]
"""Price and quantity, as text."""


class Book:
    """The book of one topic. Prices are numbers here, and quantities the digits that came.

    Attributes:
        seq: The position of the last change in it; None where it is not whole.
    """

    def __init__(self) -> None:
        self.seq: int | None = None
        self._bids: dict[Decimal, str] = {}
        self._asks: dict[Decimal, str] = {}

    def begin(self, seq: int, bids: Levels, asks: Levels) -> None:
        """This is the whole book at that position."""
        self.seq = seq
        self._bids, self._asks = {}, {}
        _apply(self._bids, bids)
        _apply(self._asks, asks)

    def change(self, seq: int, prev_seq: int, bids: Levels, asks: Levels) -> bool:
        """Apply changes; returns whether they fit. Where they do not, the book is whole no more until it begins."""
        if self.seq is None or prev_seq != self.seq:
            self.seq = None
            return False
        self.seq = seq
        _apply(self._bids, bids)
        _apply(self._asks, asks)
        return True

    @property
    def sides(self) -> tuple[dict[Decimal, str], dict[Decimal, str]]:
        """The bids and asks: quantities by price."""
        return self._bids, self._asks

    @property
    def is_crossed(self) -> bool:
        """Whether somebody bids as much as somebody else asks."""
        return bool(self._bids and self._asks) and max(self._bids) >= min(self._asks)

    @property
    def digest(self) -> int:
        """The same for the same book; worth something within this process only."""
        return hash((frozenset(self._bids.items()), frozenset(self._asks.items())))


def _apply(side: dict[Decimal, str], levels: Levels) -> None:
    for price, quantity in levels:
        if quantity == "0":
            side.pop(Decimal(price), None)
        else:
            side[Decimal(price)] = quantity
