"""Keyframes: the books that were published, so that whoever comes late can be given them whole.

Of each topic whose messages are changes (`TopicState.DELTA`) the book is kept as its readers have it, by the messages
that went onto the tape: per side the quantity of each price, as text. A *keyframe* is a message with all of it. It goes
onto the tape in a topic of its own, which nobody takes; `daemon.tape.delta` shows it, and every message since, to those
who need the topic's present state.

The sequencer makes one at the end of a pass, after the messages are on their way, when `UPDATES` changes or `EVERY_S`
seconds of a topic that changes have gone by since the last. One of more than `LARGE_BYTES` would push its channel's
changes off the tape, so it waits until the changes are as large as itself, or `MOST_UPDATES`; and it is written block
by block, over several passes. One of at most `QUICK_BYTES` is also made when somebody is about to be shown changes of
more than twice its size.

After a restart the books are unknown until the venue's own come; what is shown meanwhile is on the tape.

Sync and pure: no trio, no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from connectors.base import Event
from daemon.publish.side import Side
from daemon.tape import deltas
from daemon.tape.delta import Delta
from daemon.tape.tape import Entry, Tape, Topic
from protocol.channels import Catalogue
from protocol.fields import DepthFields, SnapshotFields

UPDATES: Final = 500
"""After so many changes of a topic a keyframe is due."""

EVERY_S: Final = 10.0
"""After so long a keyframe is due, if the topic has changed."""

LARGE_BYTES: Final = 262_144
"""A keyframe of more waits until the changes since the last one are as large."""

MOST_UPDATES: Final = 4000
"""It waits for no more changes than these."""

QUICK_BYTES: Final = 65_536
"""A keyframe of at most this size takes less than a millisecond, so it can be made while somebody waits for it."""


_PREPARED_BLOCKS: Final = 32
"""So many blocks of a side are written at the end of one pass: that takes a millisecond or two."""


class _Book:
    """The book of one topic as it was published, the last event of it, that one's `seq`, and when a keyframe was made.

    `keyframe_bytes` is the size of the last one, or of the message with which the book began.
    """

    __slots__ = ("asks", "bids", "event", "keyframe_bytes", "made_ms", "seq")

    def __init__(self, fields: SnapshotFields, entry: Entry, now_ms: int) -> None:
        self.bids = Side(fields.bids, best_is_highest=True)
        self.asks = Side(fields.asks, best_is_highest=False)
        self.keyframe_bytes = len(entry.text)
        self.made_ms = now_ms
        self.seq = entry.seq


class Keyframes:
    """The books of all topics whose messages are changes.

    Attributes:
        due: the topics of which a keyframe is due, in the order in which it became so.
        made: how many were made.
    """

    def __init__(self, tape: Tape, publish: Callable[[Event, int], Entry]) -> None:
        """`publish` puts an event onto the tape as a keyframe; it is given the `seq` that the message follows."""
        self.due: dict[Topic, None] = {}
        self.made = 0
        self._tape = tape
        self._publish = publish
        self._books: dict[Topic, tuple[_Book, Event]] = {}
        tape.freshen = self._freshen

    def adopt(self, catalogue: Catalogue) -> None:
        """Follow a change of the catalogue. What is new has the state that stands on the tape."""
        for topic in deltas.adopt(self._tape, catalogue):
            self._books.pop(topic, None)
            self.due.pop(topic, None)

    def took(self, topic: Topic, event: Event, entry: Entry, now_ms: int) -> None:
        """This event has become this message of the topic."""
        delta = self._tape.deltas.get(topic)
        if delta is None:
            delta = self._tape.deltas[topic] = Delta()
        fields = event.fields
        try:
            if isinstance(fields, SnapshotFields):
                delta.begin(entry, entry.ordinal)
                self._books[topic] = _Book(fields, entry, now_ms), event
                self.due.pop(topic, None)
                return
            book, _ = self._books[topic]
            if isinstance(fields, DepthFields):
                book.bids.change(fields.bids)
                book.asks.change(fields.asks)
        except (KeyError, ValueError, OverflowError):
            # Changes of a book that nobody has, or that nobody can read: there is no state until it begins anew.
            self._books.pop(topic, None)
            self.due.pop(topic, None)
            delta.end()
            return
        self._books[topic] = book, event
        book.seq = entry.seq
        delta.add(entry)
        count = len(delta.since)
        if count >= UPDATES or not 0 <= now_ms - book.made_ms < EVERY_S * 1000:
            large = book.keyframe_bytes > LARGE_BYTES
            if not large or delta.size_bytes >= book.keyframe_bytes or count >= MOST_UPDATES:
                self.due[topic] = None

    def prepare(self, topic: Topic) -> bool:
        """Do a part of the work for a keyframe that is due. Returns whether little is left of it."""
        book, _ = self._books[topic]
        left = book.bids.write_some(_PREPARED_BLOCKS) + book.asks.write_some(_PREPARED_BLOCKS)
        return left < _PREPARED_BLOCKS or len(self._tape.deltas[topic].since) >= 2 * MOST_UPDATES

    def make(self, topic: Topic, now_ms: int) -> None:
        """Put a keyframe of the topic onto the tape: from now on it is what its present state begins with."""
        self.due.pop(topic, None)
        book, event = self._books[topic]
        fields = SnapshotFields(book.bids.write(), book.asks.write(), reset=False, through=book.seq)
        through = self._tape.newest(topic)
        entry = self._publish(msgspec.structs.replace(event, fields=fields), book.seq)
        self.made += 1
        book.keyframe_bytes, book.made_ms = len(entry.text), now_ms
        self._tape.deltas[topic].begin(entry, 0 if through is None else through.ordinal)

    def _freshen(self, topic: Topic) -> None:
        """Make one if that makes the present state much shorter, and takes no time to speak of."""
        if (known := self._books.get(topic)) is not None:
            book, _ = known
            if 2 * book.keyframe_bytes < self._tape.deltas[topic].size_bytes and book.keyframe_bytes <= QUICK_BYTES:
                self.make(topic, book.made_ms)
