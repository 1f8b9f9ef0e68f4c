"""The place on the tape of a client that is behind: what it is still to be sent.

A client that keeps up has none of this: its place is the head. When it falls behind it gets a cursor: a position, and
per topic how many of that topic's messages it has had (by `Entry.ordinal`). The two together say everything:

* what comes next: from the position on, the selected entries whose ordinal is beyond what the client has had. So a
  topic's messages come in order and each at most once, whatever the client does to its subscription meanwhile: a topic
  that joins at the head is marked as had up to there; a resume moves the position back, and what the client had of the
  other topics is passed over;
* how much was missed when the tape's tail has overtaken the position: the difference of the ordinals, an exact count,
  though the messages are gone.

Sync and pure. Nothing is taken off until it has been written: `peek` gives entries, `advance` says how far they made
it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

from daemon.tape.tape import Entry, Tape, Topic, selects
from protocol.messages import Format
from protocol.session import Selection

SCAN_AT_MOST: Final = 64
"""Entries looked at in vain before the tape is asked where the next one for this client stands."""

CHUNK_ENTRIES: Final = 128
"""Chunks end at multiples of this, so that clients which fell behind at different places soon take the same ones."""


class Chunk:
    """Entries to be written together.

    Attributes:
        entries: in order.
        frames: their frames, in the client's format, and `data`: the same, joined.
        last: per topic, the ordinal of the last of them.
        reaches: the position that is reached when all of them are written.
        to_head: whether it ends where the tape ended, so that there may be more of it by now. Any other is always what
            comes next at its place.
    """

    __slots__ = ("data", "entries", "frames", "last", "reaches", "to_head")

    def __init__(self, entries: list[Entry], reaches: int, format: Format, *, to_head: bool) -> None:
        self.entries = entries
        self.reaches = reaches
        self.to_head = to_head
        self.frames = [entry.frame(format) for entry in entries]
        self.data = b"".join(self.frames)
        self.last = {entry.topic: entry.ordinal for entry in entries}


class Place(NamedTuple):
    """Everything that decides what comes next for a client that is behind. Clients at the same place share it.

    Attributes:
        ahead: topics of which the client has had more than its position says, with how many it has had.
    """

    selection: Selection
    position: int
    ahead: frozenset[tuple[Topic, int]]


_NOTHING_AHEAD: Final[frozenset[tuple[Topic, int]]] = frozenset()


class Cursor:
    """Where one client is on the tape, while that is not the head.

    Attributes:
        selection: the topics it is sent.
        position: every entry up to here has been written or is not for this client.
        had: per topic, the ordinal of the last message it has had.
    """

    __slots__ = ("_ahead", "_level_at", "had", "position", "selection")

    def __init__(self, selection: Selection, position: int, had: dict[Topic, int]) -> None:
        """`had` must be what the position says; see `resume` and `selecting` for the rest."""
        self.selection = selection
        self.position = position
        self.had = had
        self._ahead = _NOTHING_AHEAD
        self._level_at = position  # from this position on `had` says nothing that the position does not

    @property
    def place(self) -> Place:
        """Where it is, as a key for what comes next."""
        ahead = self._ahead if self.position < self._level_at else _NOTHING_AHEAD
        return Place(self.selection, self.position, ahead)

    def overtaken(self, tape: Tape) -> bool:
        """Whether something that this client was to get may have left the tape."""
        return self.position < tape.gone

    def peek(self, tape: Tape, format: Format, max_bytes: int) -> Chunk:
        """The next entries for this client, `max_bytes` of frames at most (but one entry at least, however long it is).

        Nothing after the position may have left the tape (see `overtaken`). No more than `SCAN_AT_MOST` and
        `CHUNK_ENTRIES` entries together are looked at, however long the tape is and however little of it is for this
        client. An empty chunk reaches the head: there is nothing for this client.
        """
        entries: list[Entry] = []
        size_bytes = 0
        reaches = self._before_next(tape)
        for entry in tape.between(reaches, tape.head):
            if entry.ordinal > self.had.get(entry.topic, 0) and selects(self.selection, entry.topic):
                size_bytes += len(entry.frame(format))
                if size_bytes > max_bytes and entries:
                    return Chunk(entries, reaches, format, to_head=False)
                entries.append(entry)
            reaches = entry.seq
            if reaches % CHUNK_ENTRIES == 0:
                return Chunk(entries, reaches, format, to_head=False)
        # The tape may end with a break, behind which nothing has come yet.
        return Chunk(entries, tape.head, format, to_head=True)

    def _before_next(self, tape: Tape) -> int:
        """The position before the next entry for this client; the head where there is none."""
        position = self.position
        for entry in islice(tape.between(position, tape.head), SCAN_AT_MOST):
            if entry.ordinal > self.had.get(entry.topic, 0) and selects(self.selection, entry.topic):
                return position
            position = entry.seq
        return tape.before_first(self.selection, position, self.had)

    def advance(self, chunk: Chunk, written: int) -> None:
        """The first `written` entries of the chunk are on their way to the client."""
        if written == len(chunk.entries):
            self.had.update(chunk.last)
            self.position = chunk.reaches
            return
        for entry in chunk.entries[:written]:
            self.had[entry.topic] = entry.ordinal
            self.position = entry.seq

    def skip(self, tape: Tape) -> tuple[int, list[Entry]]:
        """Give up what lies between here and the head, but for the latest message of each topic.

        Returns:
            How many data messages the client will not get, and the entries it is to be sent instead, in order.
        """
        missed = 0
        latest = [entry for entry in tape.latest(self.selection) if entry.ordinal > self.had.get(entry.topic, 0)]
        for entry in latest:
            if entry.data:
                missed += entry.ordinal - self.had.get(entry.topic, 0) - 1
            self.had[entry.topic] = entry.ordinal
        self.position = tape.head
        return missed, latest

    def resume(self, tape: Tape, selection: Selection, after: int, shown: Iterable[Entry] = ()) -> None:
        """Take the topics of `selection` from position `after` on: what is here of them, and what is yet to come.

        `shown` are the newest messages of other topics, beyond `after` and still here, of which nothing older is to
        come. None of the messages of `selection` after that position may have left the tape, though others may.
        """
        after = max(after, tape.gone)
        for entry in tape.latest(selection):
            self.had[entry.topic] = tape.before_next(entry.topic, after)
        for entry in shown:
            self.had[entry.topic] = entry.ordinal - 1
        self.position = min(self.position, after)
        self._compare(tape)

    def selecting(self, tape: Tape, selection: Selection) -> Cursor:
        """The same place for another selection. A topic that is new to the client counts as had up to the head."""
        kept = {topic: had for topic, had in self.had.items() if selects(selection, topic)}
        for topic, newest in had_now(tape, selection).items():
            if topic not in kept:
                # One that it takes already, and has had none of, had its first message while the client was behind.
                kept[topic] = 0 if selects(self.selection, topic) else newest
        other = Cursor(selection, self.position, kept)
        other._compare(tape)
        return other

    def _compare(self, tape: Tape) -> None:
        """Find out of which topics the client has had more than its position says."""
        ahead: set[tuple[Topic, int]] = set()
        self._level_at = self.position
        for entry in tape.latest(self.selection):
            had = self.had.get(entry.topic, 0)
            if had > tape.before_next(entry.topic, self.position):
                ahead.add((entry.topic, had))
                self._level_at = max(self._level_at, entry.seq)
        self._ahead = frozenset(ahead)


def had_now(tape: Tape, selection: Selection) -> dict[Topic, int]:
    """What a client that is at the head has had of each topic of its selection."""
    return {entry.topic: entry.ordinal for entry in tape.latest(selection)}
