"""The reference of the tape: every message of every topic, as the witnesses got it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any, Final

import msgspec

from tests.soak.book import Book
from tests.soak.record import Format, Topic

_NUMBERS: Final = frozenset(
    {"price", "size", "bid", "bid_size", "ask", "ask_size", "open", "high", "low", "close", "volume"}
)
"""The members that are the venue's digits."""

_raws: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def packed(payload: bytes) -> bytes:
    """A message's MessagePack form by the contract: the same members, prices and sizes as strings of their digits."""
    message: dict[str, Any] = msgspec.json.decode(payload)
    if not _NUMBERS.isdisjoint(message):
        raws = _raws.decode(payload)
        message |= {name: bytes(raws[name]).decode() for name in message if name in _NUMBERS}
    return msgspec.msgpack.encode(message)


def shortest(payload: bytes) -> bytes:
    """A MessagePack message with the shortest head of its map: a longer one is right, too, and means the same."""
    if payload[:2] == b"\xde\x00" and payload[2] < 16:
        return bytes((0x80 | payload[2],)) + payload[3:]
    return payload


class _Depth(msgspec.Struct):
    type: str
    bids: list[tuple[str, str]] = []
    asks: list[tuple[str, str]] = []


_depth: Final = msgspec.json.Decoder(_Depth)


class Reference:
    """Chains of `seq` by topic, and the digest of each message in both formats.

    Digests are Python's own hashes of bytes, which are worth something within this process only.

    Attributes:
        head: The newest position seen.
        broken: Where a witness's own chain was broken; such a reference is worth nothing.
    """

    def __init__(self) -> None:
        self.head = 0
        self.broken: list[str] = []
        self._chains: dict[Topic, list[int]] = {}
        self._before: dict[Topic, int] = {}
        self._digests: dict[int, dict[Format, int]] = {}
        self._books: dict[Topic, Book] = {}
        self._resets: dict[Topic, list[int]] = {}
        self._book_digests: dict[tuple[Topic, int], int] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, topic: Topic, seq: int, prev_seq: int, payload: bytes) -> None:
        """The next message of a topic, as JSON."""
        chain = self._chains.setdefault(topic, [])
        if not chain:
            self._before[topic] = prev_seq
        elif prev_seq != chain[-1] or seq <= prev_seq:
            self.broken.append(f"{topic}: {seq} with prev_seq {prev_seq} came behind {chain[-1]}")
        chain.append(seq)
        self._digests[seq] = {"json": hash(payload), "msgpack": hash(packed(payload))}
        self.head = max(self.head, seq)
        if payload.startswith(b'{"type":"depth_'):
            self._rebuild(topic, seq, prev_seq, _depth.decode(payload))

    def begin(self, topic: Topic, through: int, payload: bytes) -> None:
        """A keyframe with which a witness begins: the topic's whole book at that position."""
        whole = _depth.decode(payload)
        self._resets.setdefault(topic, [])
        book = self._books[topic] = Book()
        book.begin(through, whole.bids, whole.asks)
        self._look_at(topic, book)

    def _rebuild(self, topic: Topic, seq: int, prev_seq: int, message: _Depth) -> None:
        book = self._books.setdefault(topic, Book())
        resets = self._resets.setdefault(topic, [])
        if message.type == "depth_snapshot":
            resets.append(seq)
            book.begin(seq, message.bids, message.asks)
        elif not book.change(seq, prev_seq, message.bids, message.asks):
            self.broken.append(f"{topic}: {seq} changes a book that the witness was not given")
            return
        self._look_at(topic, book)

    def _look_at(self, topic: Topic, book: Book) -> None:
        assert book.seq is not None
        self._book_digests[topic, book.seq] = book.digest
        if book.is_crossed:
            self.broken.append(f"{topic}: the book is crossed at {book.seq}")

    def is_depth(self, topic: Topic) -> bool:
        """Whether the topic's messages are changes of a book."""
        return topic in self._resets

    def books(self) -> dict[Topic, Book]:
        """The book of each such topic as it is now."""
        return self._books

    def begins(self, topic: Topic, seq: int) -> bool:
        """Whether the book begins anew with that message."""
        resets = self._resets[topic]
        place = bisect_left(resets, seq)
        return place < len(resets) and resets[place] == seq

    def begun(self, topic: Topic, upto: int) -> int:
        """Where the book began anew last, up to a position; 0 where that was before our time."""
        resets = self._resets[topic]
        place = bisect_right(resets, upto)
        return resets[place - 1] if place else 0

    def book(self, topic: Topic, seq: int) -> int | None:
        """The digest of the topic's book as of that message; None where there is no such."""
        return self._book_digests.get((topic, seq))

    def topics(self, channel: str, instruments: tuple[str, ...] | None) -> list[Topic]:
        """The topics of a channel that a filter lets through; a whole market's is not filtered."""
        return [
            topic
            for topic in self._chains
            if topic[0] == channel and (instruments is None or topic[1] in ("", *instruments))
        ]

    def channels(self) -> dict[str, int]:
        """How many messages of each channel there were."""
        counts: dict[str, int] = {}
        for (channel, _), chain in self._chains.items():
            counts[channel] = counts.get(channel, 0) + len(chain)
        return counts

    def digest(self, seq: int, format: Format) -> int | None:
        """Of the message at that position; None where there is none."""
        digests = self._digests.get(seq)
        return None if digests is None else digests[format]

    def covers(self, topic: Topic, seq: int) -> bool:
        """Whether a message at that position would be here: what is older than our first one of the topic need not."""
        chain = self._chains.get(topic)
        return chain is None or seq >= chain[0]

    def counts(self, topic: Topic, after: int) -> bool:
        """Whether every message of the topic after that position is here, so that they can be counted."""
        return after >= self._before[topic]

    def newest(self, topic: Topic, upto: int) -> int | None:
        """The topic's newest `seq` up to a position, 0 where there was none yet; None: before our time."""
        chain = self._chains[topic]
        place = bisect_right(chain, upto)
        if place:
            return chain[place - 1]
        before = self._before[topic]
        return before if before <= upto else None

    def previous(self, topic: Topic, seq: int) -> int:
        """The `prev_seq` of a message that is here (or of our first one, where it is older than that)."""
        chain = self._chains[topic]
        place = bisect_left(chain, seq)
        return chain[place - 1] if place else self._before[topic]

    def between(self, topic: Topic, after: int, before: int) -> list[int]:
        """The topic's messages strictly between two positions."""
        chain = self._chains[topic]
        return chain[bisect_right(chain, after) : bisect_left(chain, before)]
