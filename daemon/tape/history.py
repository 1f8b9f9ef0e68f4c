"""What the tape still has of some topics, further and further back.

A topic's messages are found by its index (`daemon.tape.positions`), so a stretch costs what it holds, however full the
tape is. What has left the tape is not there; `complete_from` says where that ends. A topic's newest message is kept
beyond its place on the tape, and counts as there.

Sync and pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final

import msgspec

from daemon.tape.entry import Entry, Topic, subject
from daemon.tape.tape import Tape


class Stretch:
    """The newest messages of some topics before a position, taken step by step: to take hundreds is long for one step.

    Attributes:
        more: whether the tape has others before those that were taken.
    """

    def __init__(self, tape: Tape, topics: Sequence[Topic], before: int, limit: int, most_bytes: int) -> None:
        """At most `limit` messages, and at most so many bytes; one comes even if it is larger."""
        self.more = False
        self._tape = tape
        self._topics = topics
        self._limit = limit
        self._most_bytes = most_bytes
        self._walk = _backwards(tape, topics, before, limit + 1)
        self._taken: list[Entry] = []
        self._size_bytes = 0

    def step(self, count: int) -> bool:
        """Take so many messages more. Returns whether that was not all of it."""
        for entry in islice(self._walk, count):
            self._size_bytes += len(entry.text)
            if len(self._taken) == self._limit or (self._taken and self._size_bytes > self._most_bytes):
                self.more = True
                return False
            self._taken.append(entry)
            count -= 1
        return count == 0

    @property
    def entries(self) -> list[Entry]:
        """The messages, in order."""
        return self._taken[::-1]

    @property
    def complete_from(self) -> int:
        """From this position on, no message of these topics is missing on the tape."""
        return complete_from(self._tape, self._topics)


def complete_from(tape: Tape, topics: Iterable[Topic]) -> int:
    """The position from which on no message of these topics is missing: after what has left, and after a break."""
    return max([tape.broken_at, *(tape.newest_gone(topic) for topic in topics)]) + 1


def _backwards(tape: Tape, topics: Sequence[Topic], before: int, most: int) -> Iterator[Entry]:
    """The messages of all topics, the newest first; at least the first `most`."""
    newest = [tape.newest(topic) for topic in topics if subject(topic) == topic and topic not in tape.deltas]
    kept = {entry.seq: entry for entry in newest if entry is not None and entry.seq < before and not tape.stands(entry)}
    places = [reversed(tape.standing(topic, before, most)) for topic in topics]
    last = 0
    for seq in merge(*places, sorted(kept, reverse=True), reverse=True):
        # Damaged rows of the tape's file may name a position twice (`Positions.add`).
        if seq != last and (entry := kept.get(seq) or tape.at(seq)) is not None:
            yield entry
        last = seq


class Candle(msgspec.Struct, gc=False):
    """What is looked into of a `candle_update`: when the candle began (ms since 1970), and whether it is closed."""

    interval: str
    start_ms: int
    closed: bool


_candle: Final = msgspec.json.Decoder(Candle)


def candles(tape: Tape, topic: Topic, before: int, interval: str) -> Iterator[tuple[Candle, Entry]]:
    """The candles that the tape has, the newest first, each by its newest message before that position.

    Where older ones are of another interval, because the configuration was changed, it ends.
    A connector tells of candles in their order, so of each only its last message is looked at, and a few on the way.
    """
    places = tape.standing(topic, before, len(tape))
    at, count = len(places) - 1, 1
    if at < 0:
        newest = tape.newest(topic)
        if newest is not None and newest.seq < before and not tape.stands(newest):
            candle = _candle.decode(newest.payload)
            if candle.interval == interval:
                yield candle, newest
        return
    while at >= 0:
        entry = tape.at(places[at])
        if entry is None:
            # It has left while somebody else had a turn, and so have all before it.
            return
        candle = _candle.decode(entry.payload)
        if candle.interval != interval:
            return
        yield candle, entry
        last = _last_before(tape, places, at, candle.start_ms, count)
        at, count = last, at - last


def oldest_candle(tape: Tape, topic: Topic) -> Candle | None:
    """The oldest candle on the tape; None if there is none."""
    entry = tape.oldest(topic)
    return None if entry is None else _candle.decode(entry.payload)


def _last_before(tape: Tape, places: Sequence[int], at: int, start_ms: int, count: int) -> int:
    """The last place before `at` whose candle began earlier; -1 if there is none.

    As a rule a candle has about as many messages as the next one, which had `count`. So it is looked for from there on
    in strides that double, and then between the last two.
    """
    low = high = max(-1, at - count)
    stride = 1
    if low >= 0 and _start_ms(tape, places[low]) >= start_ms:
        while low >= 0 and _start_ms(tape, places[low]) >= start_ms:
            high, low, stride = low, max(-1, low - stride), 2 * stride
    else:
        while high < at and (high < 0 or _start_ms(tape, places[high]) < start_ms):
            low, high, stride = high, min(at, high + stride), 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        if _start_ms(tape, places[middle]) >= start_ms:
            high = middle
        else:
            low = middle
    return low


def _start_ms(tape: Tape, seq: int) -> int:
    """When the candle of that message began; 0 if the message has left."""
    entry = tape.at(seq)
    return 0 if entry is None else _candle.decode(entry.payload).start_ms
