"""What is published of one instrument's book: a snapshot, then every change; and its best levels now and then.

A venue's conversation keeps a `Book` right by the venue's rule and tells this of it. While the book is not to be
trusted (`lost`), nothing of it is published, and the channels are noted as having a gap. When it is right again
(`began`), a snapshot with `reset` comes first.

Pure: told the time, ms since 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from connectors.base import Event, TopicNote
from connectors.books.book import Book, Changes, Level
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields
from protocol.kinds import TopicState
from protocol.messages import between

_encode: Final = msgspec.json.Encoder().encode
_NEVER: Final = -(10**15)


class _Top:
    """A channel of the best levels: what it was told last, and when; whether they may be others since (`waits`)."""

    __slots__ = ("channel", "every_ms", "levels", "told", "told_ms", "waits")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel.name
        self.levels = channel.levels
        self.every_ms = channel.every_ms
        self.told: tuple[list[Level], list[Level]] | None = None
        self.told_ms = _NEVER
        self.waits = False


class BookTopic:
    """One instrument's book, as its channels carry it.

    Attributes:
        book: kept by the venue's rule.
        is_whole: whether it is right, as far as is known.
    """

    __slots__ = (
        "_best",
        "_between",
        "_depth",
        "_exchange_ms",
        "_source",
        "_tops",
        "book",
        "instrument",
        "is_whole",
        "symbol",
    )

    def __init__(self, instrument: str, symbol: str, channels: Sequence[Channel]) -> None:
        """`channels` are those of the kinds `depth` and `book` that carry it; `symbol` is the venue's name of it."""
        self.instrument = instrument
        self.symbol = symbol
        self.book = Book()
        self.is_whole = False
        deltas = [channel for channel in channels if channel.kind.state is TopicState.DELTA]
        self._depth = tuple(channel.name for channel in deltas)
        self._tops = [_Top(channel) for channel in channels if channel not in deltas]
        self._source = _encode({"symbol": symbol})
        self._exchange_ms: int | None = None
        self._best: tuple[str, str] | None = None
        """The best prices at which `_middle` was looked up last, and what it was."""
        self._between = ""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that carry it."""
        return (*self._depth, *(top.channel for top in self._tops))

    def began(self, received_ms: int, exchange_ms: int | None, source: bytes = b"") -> list[Event]:
        """The book is right now, after whatever was before: its snapshot, with `reset`, and its best levels.

        `source` is the JSON object of what else the venue said, `symbol` included.
        """
        self.is_whole = True
        self._exchange_ms = exchange_ms
        for top in self._tops:
            top.told, top.told_ms = None, _NEVER
        return [*self._snapshots(received_ms, source), *self._due(received_ms)]

    def changed(self, changes: Changes, received_ms: int, exchange_ms: int | None, source: bytes = b"") -> list[Event]:
        """The book has changed by these levels, and is right."""
        self._exchange_ms = exchange_ms
        if not changes:
            return []
        events: list[Event] = []
        if self._depth:
            fields = DepthFields(Raw(_encode(changes.bids)), Raw(_encode(changes.asks)))
            price, data = self._middle, source or self._source
            events = [
                Event(name, self.instrument, data, received_ms, price, exchange_ms, fields=fields)
                for name in self._depth
            ]
        return events + self._due(received_ms) if self._tops else events

    def lost(self, reason: str) -> list[TopicNote]:
        """The book is not to be trusted any more: what is told of it, at once."""
        self.is_whole = False
        return [TopicNote(name, self.instrument, "gap", reason) for name in self.channels]

    def waits_ms(self, now_ms: int) -> float | None:
        """In how many milliseconds `tick` has to look whether the best levels are others; None while it has not."""
        if not self._tops or not self.is_whole:
            return None
        # A clock that was set back must not keep anybody waiting, here and in `_due`.
        waits = [
            max(0, wait_ms) if (wait_ms := top.told_ms + top.every_ms - now_ms) <= top.every_ms else 0
            for top in self._tops
            if top.waits
        ]
        return min(waits, default=None)

    def tick(self, now_ms: int) -> list[Event]:
        """The best levels that are due."""
        return self._due(now_ms, waiting=True) if self.is_whole else []

    def restate(self, now_ms: int) -> list[Event]:
        """The whole book and its best levels, once more; nothing while it is not right."""
        return self.began(now_ms, self._exchange_ms) if self.is_whole else []

    @property
    def _middle(self) -> str:
        bid, ask = self.book.bids.best, self.book.asks.best
        if not bid or not ask:
            return ""
        # Most changes are not at the top.
        best = bid[0], ask[0]
        if best != self._best:
            # A ladder has looked at its prices: the middle of two is a number that JSON takes, too.
            self._best, self._between = best, between(*best)
        return self._between

    def _snapshots(self, received_ms: int, source: bytes) -> list[Event]:
        if not self._depth:
            return []
        bids, asks = self.book.bids.top(len(self.book.bids)), self.book.asks.top(len(self.book.asks))
        fields = SnapshotFields(Raw(_encode(bids)), Raw(_encode(asks)))
        price, data = self._middle, source or self._source
        return [
            Event(name, self.instrument, data, received_ms, price, self._exchange_ms, fields=fields)
            for name in self._depth
        ]

    def _due(self, now_ms: int, *, waiting: bool = False) -> list[Event]:
        """The best levels of each channel whose time has come, if they are others than those told last.

        `waiting`: of those channels only that wait since a change.
        """
        events: list[Event] = []
        for top in self._tops:
            if waiting and not top.waits:
                continue
            top.waits = 0 <= now_ms - top.told_ms < top.every_ms
            if top.waits:
                continue
            best = self.book.top(top.levels)
            if best == top.told:
                continue
            top.told, top.told_ms = best, now_ms
            data = _encode({"symbol": self.symbol, "bids": best[0], "asks": best[1]})
            events.append(Event(top.channel, self.instrument, data, now_ms, self._middle, self._exchange_ms))
        return events
