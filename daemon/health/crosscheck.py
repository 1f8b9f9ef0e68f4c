"""The cross-check: compares venues with each other, because data can be fresh and still wrong.

* **Apart**: the prices of one instrument on two venues differ by more than a band for some time. (If one venue is
  polled and the other pushes, a fast move looks like a difference until the next poll.)
* **Frozen**: a price stays exactly the same while the other venue's price moves.
* **Crossed**: the best bid of a book is not below its best ask, which no venue's matching allows.

None of these shows which venue is right, so nothing is held back and no state changes: each channel concerned (both, if
there are two) carries a remark in its `status`. The wording stays the same for as long as the remark lasts.

Pure: `look` is given the time (monotonic seconds) and the newest quotes. It is called about once a second with quotes
from the tape, so it costs nothing on a message's path.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Final, TypeAlias

import msgspec

from connectors.base import Percent, Seconds

_HEALED: Final = 0.9
"""A difference ends only below this fraction of the band, so that it does not come and go at the edge."""


class Quote(msgspec.Struct, frozen=True):
    """A channel's newest price of an instrument, or the best `bid` and `ask` of its book; 0 for what it lacks."""

    channel: str
    exchange: str
    instrument: str
    price: float = 0.0
    bid: float = 0.0
    ask: float = 0.0


class Tolerances(msgspec.Struct, frozen=True):
    """`[crosscheck]`: how much two venues may differ on one instrument without a remark.

    Attributes:
        band_percent: how far two venues may be apart.
        for_s: for how long they may be further apart than that.
        frozen_s: how long a price may stay the same while the other venue's moves by `frozen_percent`.
        frozen_percent: see `frozen_s`.
    """

    band_percent: Percent = 1.0
    for_s: Seconds = 30.0
    frozen_s: Seconds = 60.0
    frozen_percent: Percent = 0.2


_Pair: TypeAlias = tuple[str, str, str]
"""Instrument and two channels."""


class _Standing:
    """A price, and since when it has not moved."""

    __slots__ = ("price", "since_s")

    def __init__(self, price: float, since_s: float) -> None:
        self.price = price
        self.since_s = since_s


class _Range:
    """How far one channel's price has moved while another one's stood still, and the remark about it."""

    __slots__ = ("high", "low", "reason", "since_s")

    def __init__(self, price: float, since_s: float) -> None:
        self.low = self.high = price
        self.since_s = since_s
        self.reason = ""


class CrossCheck:
    """Compares all pairs of channels that carry the same instrument on different venues."""

    def __init__(self, tolerances: Tolerances) -> None:
        self._tolerances = tolerances
        self._apart_s: dict[_Pair, float] = {}
        self._reasons: dict[_Pair, str] = {}
        self._standing: dict[tuple[str, str], _Standing] = {}
        self._ranges: dict[_Pair, _Range] = {}
        self._crossed: dict[tuple[str, str], str] = {}
        self.concerned: dict[str, frozenset[str]] = {}
        """By channel the instruments that its remark is about."""

    def look(self, quotes: Iterable[Quote], now_s: float) -> dict[str, str]:
        """Returns the remarks by channel, and sets `concerned`. Only the given quotes are compared."""
        concerned: dict[str, set[str]] = {}
        priced: dict[str, list[Quote]] = {}
        crossed: dict[tuple[str, str], str] = {}
        for quote in quotes:
            if quote.price > 0:
                priced.setdefault(quote.instrument, []).append(quote)
            if quote.bid >= quote.ask > 0:
                key = (quote.channel, quote.instrument)
                told = f"{quote.instrument}: crossed book, best bid {quote.bid:g} and best ask {quote.ask:g}"
                crossed[key] = self._crossed.get(key) or told
        self._crossed = crossed
        said: dict[str, list[str]] = {}
        for (channel, instrument), reason in crossed.items():
            said.setdefault(channel, []).append(reason)
            concerned.setdefault(channel, set()).add(instrument)
        self._note_standing(priced, now_s)
        pairs: set[_Pair] = set()
        for instrument, of_it in priced.items():
            for one, other in combinations(sorted(of_it, key=lambda quote: quote.channel), 2):
                if one.exchange == other.exchange:
                    continue
                there, back = (instrument, one.channel, other.channel), (instrument, other.channel, one.channel)
                pairs |= {there, back}
                for reason in (
                    self._apart(there, one, other, now_s),
                    self._frozen(there, one, other, now_s),
                    self._frozen(back, other, one, now_s),
                ):
                    if reason:
                        said.setdefault(one.channel, []).append(reason)
                        said.setdefault(other.channel, []).append(reason)
                        concerned.setdefault(one.channel, set()).add(instrument)
                        concerned.setdefault(other.channel, set()).add(instrument)
        self._forget(pairs)
        self.concerned = {channel: frozenset(instruments) for channel, instruments in concerned.items()}
        return {channel: "; ".join(dict.fromkeys(reasons)) for channel, reasons in said.items()}

    def _note_standing(self, priced: dict[str, list[Quote]], now_s: float) -> None:
        standing: dict[tuple[str, str], _Standing] = {}
        for of_it in priced.values():
            for quote in of_it:
                key = (quote.channel, quote.instrument)
                before = self._standing.get(key)
                same = before is not None and before.price == quote.price
                standing[key] = before if before is not None and same else _Standing(quote.price, now_s)
        self._standing = standing

    def _apart(self, pair: _Pair, one: Quote, other: Quote, now_s: float) -> str:
        tolerances = self._tolerances
        percent = abs(one.price - other.price) / min(one.price, other.price) * 100
        told = self._reasons.get(pair, "")
        if percent <= tolerances.band_percent * (_HEALED if told else 1.0):
            self._apart_s.pop(pair, None)
            self._reasons.pop(pair, None)
            return ""
        since_s = self._apart_s.setdefault(pair, now_s)
        if not told and now_s - since_s >= tolerances.for_s:
            told = self._reasons[pair] = (
                f"{one.instrument}: {_named(one)} and {_named(other)} are {percent:.2f} % apart"
                f" ({one.price:.10g} and {other.price:.10g}),"
                f" over {tolerances.band_percent:g} % for {now_s - since_s:.0f} s"
            )
        return told

    def _frozen(self, pair: _Pair, still: Quote, moving: Quote, now_s: float) -> str:
        """The remark if `still` has stood still for too long while `moving` moved; else ""."""
        standing, tolerances = self._standing[still.channel, still.instrument], self._tolerances
        range_ = self._ranges.get(pair)
        if range_ is None or range_.since_s != standing.since_s:
            range_ = self._ranges[pair] = _Range(moving.price, standing.since_s)
        range_.low, range_.high = min(range_.low, moving.price), max(range_.high, moving.price)
        percent = (range_.high - range_.low) / range_.low * 100
        stood_s = now_s - standing.since_s
        if not range_.reason and stood_s >= tolerances.frozen_s and percent >= tolerances.frozen_percent:
            range_.reason = (
                f"{still.instrument}: {_named(still)} has stood at {still.price:.10g} for {stood_s:.0f} s"
                f" while {_named(moving)} moved by {percent:.2f} %"
            )
        return range_.reason

    def _forget(self, pairs: set[_Pair]) -> None:
        """Drop the state of pairs that are no longer quoted."""
        for pair in self._apart_s.keys() - pairs:
            del self._apart_s[pair]
        for pair in self._reasons.keys() - pairs:
            del self._reasons[pair]
        for pair in self._ranges.keys() - pairs:
            del self._ranges[pair]


def _named(quote: Quote) -> str:
    return f"{quote.exchange} ({quote.channel})"
