"""What the venues say, held against each other: data may be fresh and wrong all the same.

* **Apart**: the same instrument on two venues further apart than a band, for a while (one is polled and the other
  pushed, so that a fast move looks like a difference for as long as a poll takes).
* **Frozen**: a price that stays exactly where it is while the other venue's moves.
* **Crossed**: a book whose best bid is not below its best ask, which no venue's matching lets happen.

None of these says which venue is right, so nothing is held back and no state changes: the channels concerned carry a
remark in their `status`, both of them where there are two. Its words stay the same as long as it lasts.

Pure: `look` is told the time (monotonic seconds) and the newest quotes. It is called about once a second with what
stands on the tape, so the way of a message costs nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Final, TypeAlias

import msgspec

from connectors.base import Percent, Seconds

_HEALED: Final = 0.9
"""A difference has to fall below this part of the band to be over: at its edge it would come and go."""


class Quote(msgspec.Struct, frozen=True):
    """The newest that a channel says of an instrument; `bid` and `ask` are the best of a book, else 0."""

    channel: str
    exchange: str
    instrument: str
    price: float = 0.0
    bid: float = 0.0
    ask: float = 0.0


class Tolerances(msgspec.Struct, frozen=True):
    """`[crosscheck]`: what two venues may say of one instrument before it is remarked on.

    Attributes:
        band_percent: how far two venues may be apart.
        for_s: for how long they may be further apart than that.
        frozen_s: how long a price may stay the same ...
        frozen_percent: ... while the other venue's has moved by as much as this.
    """

    band_percent: Percent = 1.0
    for_s: Seconds = 30.0
    frozen_s: Seconds = 60.0
    frozen_percent: Percent = 0.2


_Pair: TypeAlias = tuple[str, str, str]
"""Instrument and two channels."""


class _Standing:
    """Since when a price stands where it is."""

    __slots__ = ("price", "since_s")

    def __init__(self, price: float, since_s: float) -> None:
        self.price = price
        self.since_s = since_s


class _Range:
    """How far one channel's price went since another one's has stood still; what is told about it."""

    __slots__ = ("high", "low", "reason", "since_s")

    def __init__(self, price: float, since_s: float) -> None:
        self.low = self.high = price
        self.since_s = since_s
        self.reason = ""


class CrossCheck:
    """All pairs of channels that say something about the same instrument on different venues."""

    def __init__(self, tolerances: Tolerances) -> None:
        self._tolerances = tolerances
        self._apart_s: dict[_Pair, float] = {}
        self._reasons: dict[_Pair, str] = {}
        self._standing: dict[tuple[str, str], _Standing] = {}
        self._ranges: dict[_Pair, _Range] = {}
        self._crossed: dict[tuple[str, str], str] = {}

    def look(self, quotes: Iterable[Quote], now_s: float) -> dict[str, str]:
        """The remark of each channel that there is one about; what is not among the quotes is not judged."""
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
        for (channel, _), reason in crossed.items():
            said.setdefault(channel, []).append(reason)
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
        self._forget(pairs)
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
        """`still` has not moved, and how far `moving` went since then."""
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
        """What is no longer quoted is no longer held against anybody."""
        for pair in self._apart_s.keys() - pairs:
            del self._apart_s[pair]
        for pair in self._reasons.keys() - pairs:
            del self._reasons[pair]
        for pair in self._ranges.keys() - pairs:
            del self._ranges[pair]


def _named(quote: Quote) -> str:
    return f"{quote.exchange} ({quote.channel})"
