"""How one instrument's book of Kraken is kept right. Pure.

Source of every rule: Kraken's guide "Spot WebSockets (v2): book", state of November 2026.

1. A snapshot replaces the book; updates before it are not for us.
2. The levels of an update are applied in order; the same price may occur twice, and the last one wins; a quantity of 0
   removes it.
3. Then each side is cut to the depth that was subscribed to, since no removal is sent of what falls out
   (knowm/XChange#4571).
4. Then the checksum must be that of the frame. There are no sequence numbers: the checksum alone shows a loss.

A checksum that does not match ends the book at once: it is `lost`, and asked for anew. When that happens for the third
time without a good frame between, the reason is no loss but how we write the digits, and asking for ever would bring
nothing: from then on the pair's book is published without being checked, with a remark that says so, for as long as the
connection lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from connectors.base import Event, TopicNote
from connectors.books.awaited import Awaited
from connectors.books.book import Level
from connectors.books.topic import BookTopic
from connectors.limits.rows import Odd
from connectors.push.venue import Renew, Said
from connectors.venues.kraken.checksum import Checksum, Precision, find_precision
from connectors.venues.kraken.frames import BookItem, ms, plain
from connectors.venues.kraken.frames import Level as RawLevel

MISMATCHES: Final = 3
"""So many in a row, and the book is not checked any more."""

UNVERIFIED: Final = f"unverified: its checksum did not match {MISMATCHES} times in a row"

_encode: Final = msgspec.json.Encoder().encode


class _Source(msgspec.Struct, omit_defaults=True):
    """What Kraken says of a book beside its levels."""

    symbol: str
    checksum: int
    timestamp: str = ""


class KrakenBook:
    """One instrument's book on one connection.

    Attributes:
        topic: what is published of it.
        is_checked: whether its checksums are looked at.
        is_muted: whether nothing is published of it, because the venue does not trade the pair; it is kept right.
    """

    __slots__ = ("_awaited", "_checksum", "_depth", "_id", "_mismatches", "is_checked", "is_muted", "topic")

    def __init__(self, topic: BookTopic, id_: str, depth: int) -> None:
        """`id_` is its subscription's, `depth` how many levels of each side were subscribed to."""
        self.topic = topic
        self.is_checked = True
        self.is_muted = False
        self._id = id_
        self._depth = depth
        self._checksum: Checksum | None = None
        self._mismatches = 0
        self._awaited = Awaited()

    def learn(self, precision: Precision) -> None:
        """What the venue says of the pair's precision; it is put to the test at the next snapshot."""
        if self._checksum is None or not self.topic.is_whole:
            self._checksum = Checksum(precision)

    def snapshot(self, item: BookItem, received_ms: int) -> Said:
        """The whole book."""
        self._awaited.came()
        try:
            exchange_ms = ms(item.timestamp, "timestamp") if item.timestamp else None
            self.topic.book.replace(*_sides(item))
        except (ValueError, Odd) as error:
            return self._lost(f"a snapshot that cannot be read: {error}")
        self.topic.book.truncate(self._depth)
        if self.is_checked and not self._matches_at_any_precision(item.checksum):
            self._mismatches += 1
            if self._mismatches < MISMATCHES:
                return self._lost("the checksum of its snapshot does not match")
            self.is_checked = False
        elif self.is_checked:
            self._mismatches = 0
        if self.topic.book.is_crossed:
            return self._lost("its snapshot is crossed")
        return self._said(self.topic.began(received_ms, exchange_ms, _source(item)))

    def update(self, item: BookItem, received_ms: int) -> list[Event] | Said:
        """The levels that changed; nothing comes of it while a snapshot is awaited."""
        topic = self.topic
        if not topic.is_whole:
            reason = self._awaited.in_vain(received_ms)
            return self._lost(reason) if reason else []
        book = topic.book
        try:
            exchange_ms = ms(item.timestamp, "timestamp") if item.timestamp else None
            changes = book.apply(*_sides(item), depth=self._depth)
        except (ValueError, Odd) as error:
            return self._lost(f"an update that cannot be read: {error}")
        if self.is_checked and not self._matches(item.checksum):
            self._mismatches += 1
            return self._lost(f"its checksum is {item.checksum} at Kraken, and not here")
        self._mismatches = 0
        if book.is_crossed:
            return self._lost("it is crossed")
        events = topic.changed(changes, received_ms, exchange_ms, _source(item))
        if self.is_checked:
            return [] if self.is_muted else events
        return self._said(events)

    def lost(self, reason: str) -> Said:
        """Something of it could not be read: it is told, and the book is asked for anew."""
        return self._lost(reason)

    def mute(self, *, is_muted: bool, now_ms: int) -> list[Event]:
        """The venue does not trade the pair, or does again: then where the book stands."""
        was_muted, self.is_muted = self.is_muted, is_muted
        return self.topic.restate(now_ms) if was_muted and not is_muted else []

    def _matches(self, checksum: int) -> bool:
        """An empty book is the same at any precision."""
        if self._checksum is not None:
            return self._checksum.of(self.topic.book) == checksum
        return self._matches_at_any_precision(checksum)

    def _matches_at_any_precision(self, checksum: int) -> bool:
        book = self.topic.book
        if not len(book.bids) and not len(book.asks):
            return checksum == 0
        if self._checksum is not None and self._checksum.of(book) == checksum:
            return True
        found = find_precision(book, checksum)
        if found is None:
            return False
        self._checksum = Checksum(found)
        return True

    def _lost(self, reason: str) -> Said:
        instrument = self.topic.instrument
        return Said([], self.topic.lost(reason), [Renew(self._id, f"the book of {instrument}: {reason}")])

    def _said(self, events: list[Event]) -> Said:
        notes = []
        if not self.is_checked:
            names = self.topic.channels
            notes = [TopicNote(name, self.topic.instrument, "gap", UNVERIFIED, partial=True) for name in names]
        return Said([] if self.is_muted else events, notes)


def _sides(item: BookItem) -> tuple[list[Level], list[Level]]:
    """Bids and asks. Raises: ValueError, where a number cannot be one; others are found where they are used."""
    levels = _levels(item.bids + item.asks)
    bids = len(item.bids)
    return levels[:bids], levels[bids:]


def _levels(levels: Sequence[RawLevel]) -> list[Level]:
    if not levels:
        return []
    # All at once: a `Raw` is a buffer. One with a space in it is no number, nor are its parts.
    prices = str(b" ".join([level.price for level in levels]), "ascii")
    quantities = str(b" ".join([level.qty for level in levels]), "ascii")
    if "e" in prices or "e" in quantities or "E" in prices or "E" in quantities:
        return [(plain(level.price), plain(level.qty)) for level in levels]
    return list(zip(prices.split(" "), quantities.split(" "), strict=True))


def _source(item: BookItem) -> bytes:
    return _encode(_Source(item.symbol, item.checksum, item.timestamp))
