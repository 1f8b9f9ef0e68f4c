"""The entries on the tape in the order of their positions: added at the end, removed anywhere, found by position.

Channels lose their oldest entries one by one (`daemon.tape.shares`), so the positions that are left have holes of any
size. The entries stand in short blocks. Removing one moves the rest of its block only, and blocks that have become
short are joined. So there is nothing to be tidied up later, no step takes long however full the tape is, and a walk
meets nothing that has left.

Sync and pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

from daemon.tape.entry import Entry

_BLOCK: Final = 256
"""The most entries of one block. Any two neighbours have more than half of that together, but for the newest block."""

_STEP: Final = 16
"""How many entries a block loses before it is looked at again whether it fits to a neighbour."""


class Order:
    """The entries in order."""

    __slots__ = ("_entries", "_firsts", "_seqs")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        """Per block a position that is beyond all earlier blocks and not beyond its own first entry."""
        self._seqs: list[list[int]] = []
        self._entries: list[list[Entry]] = []

    @property
    def first(self) -> int | None:
        """The position of the oldest entry; None if there is none."""
        return self._seqs[0][0] if self._seqs else None

    def append(self, entry: Entry) -> None:
        """Add an entry beyond all others."""
        seq = entry.seq
        if not self._seqs or len(self._seqs[-1]) >= _BLOCK:
            self._firsts.append(seq)
            self._seqs.append([seq])
            self._entries.append([entry])
            return
        self._seqs[-1].append(seq)
        self._entries[-1].append(entry)

    def remove(self, seq: int) -> None:
        """Remove the entry at that position, which must be there."""
        block = bisect_right(self._firsts, seq) - 1
        seqs = self._seqs[block]
        at = bisect_left(seqs, seq)
        del seqs[at], self._entries[block][at]
        if len(seqs) <= _BLOCK // 2 and len(seqs) % _STEP == 0:
            self._join(block)

    def _join(self, block: int) -> None:
        """Remove the block if it is empty, or join it with a neighbour if both fit into one."""
        for left in (block - 1, block):
            if left >= 0 and left + 1 < len(self._seqs) and self._fit(left):
                self._seqs[left] += self._seqs[left + 1]
                self._entries[left] += self._entries[left + 1]
                del self._firsts[left + 1], self._seqs[left + 1], self._entries[left + 1]
                return
        if not self._seqs[block]:
            del self._firsts[block], self._seqs[block], self._entries[block]

    def _fit(self, left: int) -> bool:
        return len(self._seqs[left]) + len(self._seqs[left + 1]) <= _BLOCK

    def at(self, seq: int) -> Entry | None:
        """The entry at that position; None if there is none."""
        block = bisect_right(self._firsts, seq) - 1
        if block < 0:
            return None
        seqs = self._seqs[block]
        place = bisect_left(seqs, seq)
        return self._entries[block][place] if place < len(seqs) and seqs[place] == seq else None

    def between(self, after: int, upto: int) -> Iterator[Entry]:
        """The entries with `after < seq <= upto`, in order."""
        block = max(0, bisect_right(self._firsts, after) - 1)
        at = bisect_right(self._seqs[block], after) if self._seqs else 0
        while block < len(self._seqs):
            entries = self._entries[block]
            for place in range(at, len(entries)):
                entry = entries[place]
                if entry.seq > upto:
                    return
                yield entry
            block, at = block + 1, 0

    def count_beyond(self, position: int) -> int:
        """How many entries stand beyond that position."""
        block = bisect_right(self._firsts, position) - 1
        within = len(self._seqs[block]) - bisect_right(self._seqs[block], position) if block >= 0 else 0
        return within + sum(map(len, self._seqs[block + 1 :]))
