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

from typing import Final

from daemon.tape import Entry, Tape, Topic, selects
from protocol.messages import Format
from protocol.session import Selection

SCAN_AT_MOST: Final = 4096
"""Entries looked at in one `peek`: about a millisecond, so that a sparse selection on a long tape starves nobody."""


class Chunk:
    """Entries to be written together, and the position that is reached when all of them are."""

    __slots__ = ("entries", "reaches")

    def __init__(self, entries: list[Entry], reaches: int) -> None:
        self.entries = entries
        self.reaches = reaches


class Cursor:
    """Where one client is on the tape, while that is not the head.

    Attributes:
        selection: the topics it is sent.
        position: every entry up to here has been written or is not for this client.
        had: per topic, the ordinal of the last message it has had.
    """

    __slots__ = ("had", "position", "selection")

    def __init__(self, selection: Selection, position: int, had: dict[Topic, int]) -> None:
        self.selection = selection
        self.position = position
        self.had = had

    def overtaken(self, tape: Tape) -> bool:
        """Whether something that this client was to get may have left the tape."""
        return not tape.holds(self.position)

    def peek(self, tape: Tape, format: Format, max_bytes: int) -> Chunk:
        """The next entries for this client, `max_bytes` of frames at most (but one entry at least, however long it is).

        The position must be on the tape (see `overtaken`). An empty chunk that does not reach the head means that a
        long stretch had nothing for this client: advance, and look again.
        """
        entries: list[Entry] = []
        size_bytes = 0
        reaches = self.position
        for entry in tape.between(self.position, min(tape.head, self.position + SCAN_AT_MOST)):
            if entry.ordinal > self.had.get(entry.topic, 0) and selects(self.selection, entry.topic):
                size_bytes += len(entry.frame(format))
                if size_bytes > max_bytes and entries:
                    break
                entries.append(entry)
            reaches = entry.seq
        return Chunk(entries, reaches)

    def advance(self, chunk: Chunk, written: int) -> None:
        """The first `written` entries of the chunk are on their way to the client."""
        for entry in chunk.entries[:written]:
            self.had[entry.topic] = entry.ordinal
            self.position = entry.seq
        if written == len(chunk.entries):
            self.position = chunk.reaches

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

    def resume(self, tape: Tape, selection: Selection, after: int) -> None:
        """Take the topics of `selection` from position `after` on, which must be on the tape.

        One walk over the tape finds out what the client had of each of them at that position.
        """
        for entry in tape.latest(selection):
            self.had[entry.topic] = entry.ordinal
        for entry in tape.between(after, tape.head):
            if selects(selection, entry.topic):
                self.had[entry.topic] = min(self.had[entry.topic], entry.ordinal - 1)
        self.position = min(self.position, after)


def had_now(tape: Tape, selection: Selection) -> dict[Topic, int]:
    """What a client that is at the head has had of each topic of its selection."""
    return {entry.topic: entry.ordinal for entry in tape.latest(selection)}
