"""One side of a book as its readers have it, by the messages that were published: the quantity of each price, as text.

Sync and pure.
"""

from __future__ import annotations

from decimal import Decimal
from operator import eq
from typing import Final

import msgspec
from msgspec import Raw

_levels: Final = msgspec.json.Decoder(list[tuple[str, str]])
_encode: Final = msgspec.json.Encoder().encode

_BLOCK: Final = 128
"""Levels of a block of a side, about. What changes lies in few blocks: most of a large keyframe is written already."""


class Side:
    """The quantity of each price, in blocks of neighbouring prices, and the JSON of the blocks that have not changed.

    The block of a price follows from its float, which never falls while the price rises.
    """

    __slots__ = ("_best_is_highest", "_blocks", "_changed", "_scale", "_written")

    def __init__(self, levels: Raw, *, best_is_highest: bool) -> None:
        """Raises: msgspec.DecodeError, ValueError: these are no levels."""
        found = _levels.decode(levels)
        self._best_is_highest = best_is_highest
        self._scale = 0.0
        if len(found) > 2 * _BLOCK:
            # By the half in the middle: the worst prices are often absurd.
            middle = abs(float(found[len(found) * 3 // 4][0]) - float(found[len(found) // 4][0]))
            self._scale = len(found) / (2 * _BLOCK * middle) if middle else 0.0
        self._blocks: dict[int, dict[str, str]] = {}
        self._written: dict[int, bytes] = {}
        self._changed: set[int] = set()
        """The blocks that are not written as they are."""
        for at, level in zip((int(float(level[0]) * self._scale) for level in found), found, strict=True):
            block = self._blocks.get(at)
            if block is None:
                block = self._blocks[at] = {}
            block[level[0]] = level[1]
        self._changed.update(self._blocks)

    def change(self, changes: Raw) -> None:
        """Raises: msgspec.DecodeError, ValueError: these are no levels."""
        blocks, changed, scale = self._blocks, self._changed, self._scale
        for price, quantity in _levels.decode(changes):
            at = int(float(price) * scale)
            changed.add(at)
            block = blocks.get(at)
            if block is None:
                block = blocks[at] = {}
            if quantity != "0":
                block[price] = quantity
            else:
                block.pop(price, None)

    def write_some(self, blocks: int) -> int:
        """Write so many blocks, at most. Returns how many are not written then."""
        while self._changed and blocks:
            at, blocks = self._changed.pop(), blocks - 1
            block = self._blocks[at] = _ordered(self._blocks[at], best_is_highest=self._best_is_highest)
            self._written[at] = _encode(list(block.items()))[1:-1]
        return len(self._changed)

    def write(self) -> Raw:
        """All levels as JSON, best first."""
        self.write_some(len(self._changed))
        parts = [self._written[at] for at in sorted(self._blocks, reverse=self._best_is_highest)]
        return Raw(b"[" + b",".join(filter(None, parts)) + b"]")


def _ordered(side: dict[str, str], *, best_is_highest: bool) -> dict[str, str]:
    """The levels, best first. Floats tell the order of prices, but where two are the same float."""
    prices = sorted(side, key=float, reverse=best_is_highest)
    keys = list(map(float, prices))
    if any(map(eq, keys, keys[1:])):
        prices.sort(key=Decimal, reverse=best_is_highest)
    return {price: side[price] for price in prices}
