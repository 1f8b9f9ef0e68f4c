"""Where one topic's messages stand, also the last ones that have left the tape. Sync and pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Final

import msgspec

from daemon.tape.entry import Entry

_REMEMBERED: Final = 1024
"""So many positions per topic are remembered after their messages have left the tape."""

_SEQ: Final = "q"
"""How positions are kept: in eight bytes each, where a list of integers takes forty."""

_MOST_REMEMBERED: Final = 2 * _REMEMBERED
"""With so many the older half is forgotten, all at once."""


class Past(msgspec.Struct, array_like=True, gc=False):
    """What is known of one topic's messages that are no longer on the tape.

    Attributes:
        shown: whether the topic is shown to clients.
        first: the ordinal of the first message that is known.
        unbroken: the ordinal of the message since which none is missing.
        newest_gone: the position of the newest message that has left the tape, 0 if none has.
        seqs: the positions of those that have left and are remembered.
    """

    shown: bool
    first: int
    unbroken: int
    newest_gone: int
    seqs: list[int]


class Positions:
    """The positions of one topic's messages: those on the tape, and the last ones that have left it.

    This keeps counts of lost messages exact, and finds a place without walking the tape. A topic's messages leave in
    their order, the oldest first.

    Attributes:
        newest: the newest message, which is kept beyond its place on the tape.
        shown: whether it is shown to clients: not if the topic no longer exists.
        newest_gone: the position of the newest message that has left the tape, 0 if none has.
    """

    __slots__ = ("_first", "_gone", "_seqs", "_unbroken", "newest", "newest_gone", "shown")

    def __init__(self) -> None:
        self.newest: Entry | None = None
        self.shown = True
        self.newest_gone = 0
        self._seqs = array(_SEQ)
        self._first = self._unbroken = 1
        """The ordinals of the first one that is known, and of the one since which none is missing."""
        self._gone = 0

    @classmethod
    def of(cls, past: Past) -> Positions:
        """The positions of a topic without a message on the tape."""
        positions = cls()
        positions.shown, positions.newest_gone = past.shown, past.newest_gone
        positions._seqs, positions._first, positions._unbroken = array(_SEQ, past.seqs), past.first, past.unbroken
        positions._gone = len(past.seqs)
        return positions

    def past(self, floor: int = 0, remembered: int = _MOST_REMEMBERED) -> Past:
        """What is known of the messages that have left the tape: the positions of so many, at most.

        Those that stand up to the position `floor` count as having left.
        """
        gone = max(self._gone, bisect_right(self._seqs, floor))
        newest_gone = self._seqs[gone - 1] if gone > self._gone else self.newest_gone
        forgotten = max(0, gone - remembered)
        return Past(self.shown, self._first + forgotten, self._unbroken, newest_gone, list(self._seqs[forgotten:gone]))

    @property
    def next_ordinal(self) -> int:
        """The ordinal that follows the last known one."""
        return self._first + len(self._seqs)

    @property
    def gone_ordinal(self) -> int:
        """The ordinal of the newest message that has left the tape; 0 if none has."""
        return self._first + self._gone - 1

    @property
    def oldest(self) -> int | None:
        """The position of the oldest message on the tape; None if there is none."""
        return self._seqs[self._gone] if self._gone < len(self._seqs) else None

    def add(self, seq: int, ordinal: int) -> None:
        """Add a message. If some before it are missing, counts at earlier positions are no longer known.

        The messages before the missing ones are still found while they are on the tape; the missing ones count as had
        together with them.
        """
        missing = ordinal - self._first - len(self._seqs)
        if missing:
            self._unbroken = ordinal
            if self._gone < len(self._seqs):  # damaged rows of the tape's file: no more than fit on the tape
                self._seqs.extend([self._seqs[-1]] * missing)
            else:
                self._seqs, self._first, self._gone = array(_SEQ), ordinal, 0
        self._seqs.append(seq)

    def leave(self, seq: int, ordinal: int) -> None:
        """The topic's oldest message on the tape leaves it."""
        self.newest_gone = seq
        gone = ordinal - self._first + 1
        if gone <= self._gone:
            return
        self._gone = gone
        if gone > _MOST_REMEMBERED:
            forgotten = gone - _REMEMBERED
            del self._seqs[:forgotten]
            self._first += forgotten
            self._gone = _REMEMBERED

    def count_at(self, position: int) -> int | None:
        """How many messages the topic had up to that position; None if that is no longer known."""
        count = self.before_next(position)
        return None if count < max(self._first, self._unbroken) > 1 else count

    def first_beyond(self, position: int, had: int) -> int | None:
        """The position of the first known message beyond `position` and beyond the first `had` messages, or None."""
        if self._seqs and had >= self._first:
            position = max(position, self._seqs[min(had - self._first, len(self._seqs) - 1)])
        place = bisect_right(self._seqs, position)
        return self._seqs[place] if place < len(self._seqs) else None

    def standing(self, before: int, most: int) -> list[int]:
        """The positions of the newest messages on the tape before that position, at most so many, in order."""
        end = bisect_left(self._seqs, before)
        return list(self._seqs[max(self._gone, end - most) : end])

    def before_next(self, position: int) -> int:
        """The ordinal of the first known message beyond that position, minus one."""
        return self._first - 1 + bisect_right(self._seqs, position)
