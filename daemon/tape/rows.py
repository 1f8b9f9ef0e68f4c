"""Which rows stand in the tape's file, so that exactly those are deleted of which the messages have left the tape.

Channels lose their oldest messages one by one (`daemon.tape.shares`), so there is no position up to which all rows can
be deleted. Per channel there is one. The archive follows the tape by this list, and no part of the file has to be
searched. It holds no more than the positions of the rows. Sync and pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from daemon.tape.entry import Entry


class Rows:
    """The positions of all rows in the file."""

    def __init__(self) -> None:
        self._by_channel: dict[str, deque[int]] = {}
        self._apart: set[int] = set()
        """Rows of messages that have left the tape: newest ones of their topics, and damaged ones."""

    def clear(self) -> None:
        """The file is empty."""
        self._by_channel.clear()
        self._apart.clear()

    def add(self, entries: Iterable[Entry]) -> None:
        """These are in the file now, beyond all others."""
        for entry in entries:
            self._by_channel.setdefault(entry.topic[0], deque()).append(entry.seq)

    def set_apart(self, seq: int) -> None:
        """There is a row that is no message of the tape."""
        self._apart.add(seq)

    def leaving(self, gone: Mapping[str, int], kept: Collection[int], most: int) -> list[int]:
        """The first `most` rows to be deleted: what has left the tape, but `kept`. `gone`: up to where, per channel."""
        found = [seq for seq in self._apart if seq not in kept][:most]
        for channel, upto in gone.items():
            for seq in self._by_channel.get(channel, ()):
                if seq > upto or len(found) >= most:
                    break
                if seq not in kept:
                    found.append(seq)
        return found

    def deleted(self, seqs: Iterable[int], gone: Mapping[str, int], kept: Collection[int]) -> None:
        """These rows were deleted. `gone` and `kept` as when `leaving` was asked."""
        deleted = set(seqs)
        self._apart -= deleted
        for channel, upto in gone.items():
            rows = self._by_channel.get(channel)
            while rows and rows[0] <= upto and (rows[0] in deleted or rows[0] in kept):
                seq = rows.popleft()
                if seq not in deleted:
                    self._apart.add(seq)
