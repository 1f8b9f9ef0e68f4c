"""The books of one connection to Binance: each kept by `Sync` and published by its `BookTopic`; who needs a snapshot.

A snapshot is asked for at once, and again after 1, 2, 4 ... 60 s where one book needs many; beside a book that goes on,
`SPACED_MS` after the last one at the earliest. What is lost is said again every few seconds, as long as it is.

Pure: told the time, ms since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.books.topic import BookTopic
from connectors.limits.notes import RENEW_S
from connectors.push.venue import Fetch, Said
from connectors.venues.binance.sync import Diff, Lost, Snapshot, Sync, Unusable
from protocol.channels import Channel
from protocol.kinds import TopicState

LEVELS: Final = 1_000
MOST_LEVELS: Final = 5_000
"""Levels of a snapshot on each side: request weight 50 and 250 (rest-api.md, order book)."""

LASTED_MS: Final = 120_000
"""A book that has lasted so long since its last snapshot is asked for at once the next time."""

LONGEST_MS: Final = 60_000
"""The longest pause before a snapshot is asked for."""

SPACED_MS: Final = 10_000
"""The same while the book goes on without it."""

PENDING_MS: Final = 1_000
"""Where the first snapshot takes longer, that is told: clients may still have the book of the connection before."""

_NOT_YET: Final = "its book is not complete: its snapshot has not come yet"
_FAR_MS: Final = 61_000
"""Nothing is ever due so late: then the clock has been set back."""

_snapshot: Final = msgspec.json.Decoder(Snapshot)


def levels_needed(channels: Iterable[Channel]) -> int:
    """How many levels of each side these channels show; those of all levels ask for none in particular."""
    return max((each.levels for each in channels if each.kind.state is not TopicState.DELTA), default=0)


def snapshot_levels(channels: Iterable[Channel]) -> int:
    """How many levels a snapshot for these channels has."""
    return LEVELS if levels_needed(channels) <= LEVELS // 5 else MOST_LEVELS


class _Book:
    """One instrument's book.

    Attributes:
        topic, sync: what is published of it, and the rule.
        need: its snapshot.
        opening: of the object that goes along with what is published of it.
        is_asked: whether a snapshot is under way.
        asked_ms, asks: when the last one was asked for, and how many in a row; the first of all does not count.
        reason: why there is no book.
    """

    def __init__(self, instrument: str, symbol: str, channels: Sequence[Channel]) -> None:
        levels = snapshot_levels(channels)
        self.topic = BookTopic(instrument, symbol, channels)
        self.sync = Sync(levels=levels, needed=levels_needed(channels))
        self.need = Fetch(symbol, f"/api/v3/depth?symbol={quote(symbol, safe='')}&limit={levels}")
        self.opening = msgspec.json.encode({"symbol": symbol})[:-1]
        self.is_asked = False
        self.asked_ms: int | None = None
        self.asks = -1
        self.reason = _NOT_YET

    def ask(self, now_ms: int) -> Fetch:
        """The snapshot is asked for now."""
        self.is_asked = True
        self.asked_ms = None if self.asks < 0 else now_ms
        self.asks = max(0, self.asks)
        return self.need


class Books:
    """All of one connection."""

    def __init__(self, carried: Iterable[tuple[str, str, Sequence[Channel]]]) -> None:
        """For each instrument its venue symbol, and the channels of the kinds `depth` and `book` that carry it."""
        self._books = {symbol: _Book(instrument, symbol, channels) for instrument, symbol, channels in carried}
        self._tells: dict[str, float] = {}
        self._asks: dict[str, float] = {}
        self._renotes: dict[str, float] = {}
        """By symbol when best levels are to be told, a snapshot asked for, and a loss told again."""
        self._now_ms = 0

    def change(self, symbol: str, diff: Diff, received_ms: int) -> list[Event] | Said:
        """What a change of a book means."""
        book = self._books[symbol]
        sync = book.sync
        changes = sync.change(diff)
        if isinstance(changes, Lost):
            return self._lost(symbol, book, changes, received_ms)
        events: list[Event] = []
        if changes:
            source = book.opening + b',"U":%d,"u":%d}' % (diff.U, diff.u)
            events = book.topic.changed(changes, received_ms, diff.E, source)
            self._tell_later(symbol, book, received_ms)
        if sync.wants and not book.is_asked:
            if sync.last is None:
                self._renotes.setdefault(symbol, received_ms + PENDING_MS)
            if needs := self._ask(symbol, book, received_ms):
                return Said(events, [], needs)
        return events

    def unreadable(self, symbol: str, reason: str, received_ms: int) -> Said:
        """A change has come that cannot be read."""
        book = self._books[symbol]
        lost = book.sync.unreadable(reason)
        if lost is None:
            return Said([], [], [] if book.is_asked else self._ask(symbol, book, received_ms))
        return self._lost(symbol, book, lost, received_ms)

    def fetched(self, symbol: str, body: bytes, received_ms: int) -> list[Event]:
        """What a snapshot means. Raises: PayloadError, where it cannot be used."""
        book = self._books.get(symbol)
        if book is None:
            return []
        try:
            book.sync.splice(_snapshot.decode(body))
        except Unusable as error:
            raise PayloadError(f"Binance's book of {book.topic.instrument}: {error}") from None
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            why = f"not the body that is documented: {error}"[:200]
            raise PayloadError(f"Binance's book of {book.topic.instrument}: {why}") from None
        book.is_asked = False
        self._asks.pop(symbol, None)
        self._renotes.pop(symbol, None)
        book.topic.book = book.sync.book
        source = book.opening + b',"lastUpdateId":%d}' % (book.sync.last or 0)
        events = book.topic.began(received_ms, book.sync.made_ms, source)
        self._tell_later(symbol, book, received_ms)
        return events

    def unfetched(self, symbol: str, reason: str) -> list[TopicNote]:
        """What there is to say because a snapshot could not be had."""
        book = self._books.get(symbol)
        if book is None or book.sync.last is not None:
            return []
        book.reason = f"its book is not complete: {reason}"
        self._renotes[symbol] = self._now_ms + RENEW_S * 1000
        return book.topic.lost(book.reason)

    def waits_ms(self, now_ms: int) -> float | None:
        """In how many milliseconds `tick` is due."""
        self._now_ms = now_ms
        dues = [min(dues.values()) for dues in (self._tells, self._asks, self._renotes) if dues]
        if not dues:
            return None
        wait_ms = min(dues) - now_ms
        return max(0.0, wait_ms) if wait_ms <= _FAR_MS else 0.0

    def tick(self, now_ms: int) -> list[Event] | Rows:
        """What is due."""
        said = Said([], [], [])
        for symbol in _due(self._tells, now_ms):
            book = self._books[symbol]
            said.events += book.topic.tick(now_ms)
            self._tell_later(symbol, book, now_ms)
        needs = [self._books[symbol].ask(now_ms) for symbol in _due(self._asks, now_ms)]
        for symbol in _due(self._renotes, now_ms):
            book = self._books[symbol]
            said.notes += book.topic.lost(book.reason)
            self._renotes[symbol] = now_ms + RENEW_S * 1000
        said.needs = needs
        return said if needs or said.notes else said.events

    def restate(self, now_ms: int) -> list[Event]:
        """Each book that there is; of the others it is told soon that they are not there."""
        for symbol, book in self._books.items():
            if book.sync.last is None:
                self._renotes[symbol] = now_ms
        return [event for book in self._books.values() for event in book.topic.restate(now_ms)]

    def _lost(self, symbol: str, book: _Book, lost: Lost, now_ms: int) -> Said:
        book.reason = f"its book is not complete: {lost.reason}"
        self._tells.pop(symbol, None)
        self._renotes[symbol] = now_ms + RENEW_S * 1000
        return Said([], book.topic.lost(book.reason), [] if book.is_asked else self._ask(symbol, book, now_ms))

    def _ask(self, symbol: str, book: _Book, now_ms: int) -> list[Fetch]:
        """Ask for a snapshot, now or later."""
        since_ms = LASTED_MS if book.asked_ms is None else max(0, now_ms - book.asked_ms)
        if book.sync.last is not None:
            wait_ms = max(0, SPACED_MS - since_ms)
        elif symbol in self._asks and book.asks > 0:
            return []
        elif book.asks < 0:
            wait_ms = 0
        else:
            book.asks = book.asks + 1 if since_ms < LASTED_MS else 0
            wait_ms = min(1000 * 2 ** (book.asks - 1), LONGEST_MS) if book.asks else 0
        if wait_ms:
            self._asks[symbol] = min(self._asks.get(symbol, now_ms + wait_ms), now_ms + wait_ms)
            return []
        self._asks.pop(symbol, None)
        return [book.ask(now_ms)]

    def _tell_later(self, symbol: str, book: _Book, now_ms: int) -> None:
        wait_ms = book.topic.waits_ms(now_ms)
        if wait_ms is None:
            self._tells.pop(symbol, None)
        else:
            self._tells[symbol] = now_ms + wait_ms


def _due(dues: dict[str, float], now_ms: int) -> list[str]:
    """Those whose time has come; they are taken out."""
    found = [symbol for symbol, due_ms in dues.items() if due_ms <= now_ms or due_ms > now_ms + _FAR_MS]
    for symbol in found:
        del dues[symbol]
    return found
