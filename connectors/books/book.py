"""One instrument's order book: two ladders of exact prices, with the venue's own digits.

Each side is a sorted list of keys with the best last, so a change near the top moves hardly anything, however deep the
book is. A key is the price as a whole number of 10**-18 (bids) or minus that (asks): exact, never a float, and two
spellings of one price (`0.10`, `0.1`) are one level. What a level is called is how it was spelled first, until it is
gone, so that readers who go by the text find it.

Pure: no I/O and no clock. It knows no venue; the rules by which it is kept right are each venue's own (`sync.py` in
the venue's folder).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Container, Iterable, Sequence
from decimal import Context, Decimal
from typing import Final, TypeAlias

import msgspec

from protocol.messages import is_number

Level: TypeAlias = tuple[str, str]
"""Price and quantity, the venue's digits."""

PLACES: Final = 18
"""Digits behind the point that a price may have."""

_ONE: Final = 10**PLACES
_REMEMBERED_MOST: Final = 256
"""So many prices of a side are remembered beside those that have a level: some times as many as change at once."""

_MOST_WHOLE: Final = 30
"""Digits before the point that a price may have, as `protocol.payloads.DIGITS`."""
_EXACT: Final = Context(prec=200)


class Changes(msgspec.Struct, gc=False):
    """The levels of each side that are not what they were; the quantity "0" says that one is gone."""

    bids: list[Level]
    asks: list[Level]

    def __bool__(self) -> bool:
        return bool(self.bids or self.asks)


_NOTHING: Final[Level] = ("", "")
"""The level of a rung at which there is none."""


class _Rung(msgspec.Struct, gc=False, eq=False):
    """One price of a side: its key, and the level that is there."""

    at: int
    level: Level = _NOTHING


class Ladder:
    """One side."""

    __slots__ = ("_keys", "_most", "_prices", "_rungs", "_sign", "bound")

    def __init__(self, *, rising: bool) -> None:
        """`rising`: the best price is the highest, as of bids."""
        self._sign = 1 if rising else -1
        self._keys: list[int] = []
        self._rungs: list[_Rung] = []
        """Those with a level, each at the place of its key."""
        self._prices: dict[str, _Rung] = {}
        """By price as it is spelled: those with a level, and those of late, since the prices of a book come again."""
        self._most = _REMEMBERED_MOST
        """How many prices are remembered before those without a level are forgotten."""
        self.bound: int | None = None
        """The key of the worst level that is known to be complete; worse ones are not taken. None: all are known."""

    def __len__(self) -> int:
        return len(self._keys)

    def replace(self, levels: Collection[Sequence[str]], *, complete: bool = True) -> None:
        """Have these levels and no others, in any order; those of no quantity are left out.

        `complete`: they are all that there is; else what is worse than the worst of them is unknown.

        Raises:
            ValueError: a price or quantity is no number.
        """
        found: dict[int, _Rung] = {}
        sign, zeros = self._sign, zeros_among(levels)
        for level in levels:
            price, quantity = level[0], level[1]
            if quantity not in zeros:
                at = sign * key(price)
                found[at] = _Rung(at, (price, quantity))
        self._keys = sorted(found)
        self._rungs = [found[at] for at in self._keys]
        self.bound = None if complete or not found else self._keys[0]
        self._forget()

    def apply(self, levels: Collection[Sequence[str]]) -> list[Level]:
        """Set each level's quantity, in order; 0 removes it. Returns what is different now.

        Raises:
            ValueError: a price or quantity is no number. What stood before it is applied.
        """
        return self.set_to(levels, zeros_among(levels))

    def set_to(self, levels: Iterable[Sequence[str]], zeros: Container[str]) -> list[Level]:
        """The same, where `zeros` are known to be those of the quantities that are none (`zeros_among`)."""
        changed: list[Level] = []
        prices, keys, rungs, bound = self._prices, self._keys, self._rungs, self.bound
        for level in levels:
            price, quantity = level[0], level[1]
            rung = prices.get(price) or self._remember(price)
            before = rung.level
            if before is _NOTHING:
                at = rung.at
                if bound is not None and at < bound:
                    continue
                place = bisect_left(keys, at)
                if place == len(keys) or keys[place] != at:
                    if quantity not in zeros:
                        keys.insert(place, at)
                        rungs.insert(place, rung)
                        rung.level = now = (price, quantity)
                        changed.append(now)
                    continue
                # It is there, and is spelled differently.
                rung = prices[price] = rungs[place]
                before = rung.level
            if quantity in zeros:
                place = bisect_left(keys, rung.at)
                del keys[place], rungs[place]
                rung.level = _NOTHING
                changed.append((before[0], "0"))
            elif before[1] != quantity:
                rung.level = now = (before[0], quantity)
                changed.append(now)
        return changed

    def _remember(self, price: str) -> _Rung:
        """A price that is new, or was forgotten. Raises: ValueError: it is no price."""
        at = self._sign * key(price)
        if len(self._prices) >= self._most:
            self._forget()
        rung = self._prices[price] = _Rung(at)
        return rung

    def _forget(self) -> None:
        """Forget the prices at which there is no level."""
        self._prices.clear()
        self._prices.update({rung.level[0]: rung for rung in self._rungs})
        self._most = len(self._prices) + _REMEMBERED_MOST

    def truncate(self, depth: int) -> list[Level]:
        """Keep the best `depth` levels. Returns what is gone."""
        excess = len(self._keys) - depth
        if excess <= 0:
            return []
        fallen = self._rungs[:excess]
        del self._keys[:excess], self._rungs[:excess]
        gone = [(rung.level[0], "0") for rung in fallen]
        for rung in fallen:
            rung.level = _NOTHING
        return gone

    def top(self, levels: int) -> list[Level]:
        """The best levels, best first."""
        return [rung.level for rung in reversed(self._rungs[-levels:])] if levels else []

    @property
    def best(self) -> Level | None:
        """The best level."""
        return self._rungs[-1].level if self._rungs else None

    @property
    def best_key(self) -> int | None:
        """The best price as a whole number of 10**-18."""
        return self._sign * self._keys[-1] if self._keys else None


class Book:
    """Both sides."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = Ladder(rising=True)
        self.asks = Ladder(rising=False)

    def replace(
        self, bids: Collection[Sequence[str]], asks: Collection[Sequence[str]], *, complete: bool = True
    ) -> None:
        """Have these levels and no others; see `Ladder.replace`. Raises: ValueError."""
        self.bids.replace(bids, complete=complete)
        self.asks.replace(asks, complete=complete)

    def apply(
        self, bids: Collection[Sequence[str]], asks: Collection[Sequence[str]], *, depth: int | None = None
    ) -> Changes:
        """Set these levels' quantities; see `Ladder.apply`. Then keep the best `depth` levels of each side.

        Raises: ValueError.
        """
        zeros = zeros_among(bids, asks)
        changes = Changes(self.bids.set_to(bids, zeros), self.asks.set_to(asks, zeros))
        if depth is not None:
            changes.bids += self.bids.truncate(depth)
            changes.asks += self.asks.truncate(depth)
        return changes

    def truncate(self, depth: int) -> Changes:
        """Keep the best levels of each side. Returns what is gone."""
        return Changes(self.bids.truncate(depth), self.asks.truncate(depth))

    def top(self, levels: int) -> tuple[list[Level], list[Level]]:
        """The best bids and asks, best first."""
        return self.bids.top(levels), self.asks.top(levels)

    @property
    def is_crossed(self) -> bool:
        """Whether somebody would buy for as much as somebody sells for, or more."""
        bids, asks = self.bids._keys, self.asks._keys
        # The key of an ask is minus its price.
        return bool(bids) and bool(asks) and bids[-1] + asks[-1] >= 0

    def say_crossed(self) -> str:
        """What is wrong with a book that is crossed, for `TopicNote.reason`."""
        bid, ask = self.bids.best, self.asks.best
        return f"crossed: the best bid {bid and bid[0]} is not below the best ask {ask and ask[0]}"


def key(price: str) -> int:
    """A price as a whole number of 10**-18.

    Raises:
        ValueError: it is no number as JSON writes one, or not above 0, or has more than 18 digits behind the point.
    """
    whole, point, fraction = price.partition(".")
    found = 0
    # What nearly all venues write, without a regular expression; a whole part that begins with 0 is "0".
    if whole.isdecimal() and price.isascii() and len(whole) <= _MOST_WHOLE and (whole[0] != "0" or whole == "0"):
        if not point:
            found = int(whole) * _ONE
        elif fraction.isdecimal() and len(fraction) <= PLACES:
            found = int(whole + fraction.ljust(PLACES, "0"))
    found = found or _key(price)
    if found <= 0:
        raise ValueError(f"not a price: {price[:40]!r}")
    return found


def _key(price: str) -> int:
    """The same for other spellings, as `1e-08`; 0 for what is no price."""
    if is_number(price) is None:
        return 0
    # Exact: a number of JSON has at most 60 digits here, and is moved by its exponent only.
    scaled = Decimal(price).scaleb(PLACES, _EXACT)
    whole = int(scaled)
    return whole if whole == scaled and whole < _ONE * 10**_MOST_WHOLE else 0


_NUMBER: Final = r"(?:0|[1-9][0-9]{0,29}+)(?:\.[0-9]{1,30}+)?+"
"""What nearly all venues write: digits and a point."""

_is_plain: Final = re.compile(_NUMBER).fullmatch
_are_plain: Final = re.compile(f"{_NUMBER}(?:,{_NUMBER})*+").fullmatch
_PLAIN_ZEROS: Final = frozenset(("0", *("0." + "0" * places for places in range(1, 31))))
_FEW: Final = 4
"""Of fewer quantities one look at them together costs more than one at each."""


class _Zeros:
    """Of any quantities those that are none, however they are spelled."""

    def __contains__(self, quantity: object) -> bool:
        """Raises: ValueError: it is no quantity."""
        return isinstance(quantity, str) and is_zero(quantity)


_ANY_ZEROS: Final = _Zeros()


def zeros_among(levels: Collection[Sequence[str]], others: Collection[Sequence[str]] = ()) -> Container[str]:
    """What has those of all these levels' quantities that are none, and no others of them.

    Each may be judged only when it is asked about, which raises ValueError for what is no quantity.
    """
    if len(levels) + len(others) >= _FEW:
        quantities = [level[1] for level in levels]
        if others:
            quantities += [level[1] for level in others]
        together = ",".join(quantities)
        # A comma in one of them would part it into two.
        if _are_plain(together) and together.count(",") == len(quantities) - 1:
            return _PLAIN_ZEROS
    return _ANY_ZEROS


def is_zero(quantity: str) -> bool:
    """Whether that quantity is none.

    Raises:
        ValueError: it is no number as JSON writes one, or below 0.
    """
    if quantity in _PLAIN_ZEROS:
        return True
    if _is_plain(quantity):
        return False
    if is_number(quantity) is not None:
        value = Decimal(quantity)
        if value >= 0:
            return value == 0
    raise ValueError(f"not a quantity: {quantity[:40]!r}")
