"""The cursor: the place on the tape of a client that is behind, and with it what it must still be sent.

A caught-up client needs no cursor: its place is the head. A client that falls behind gets one: a position, and for each
topic how many of its messages the client has had (by `Entry.ordinal`). These two determine

* what comes next: from the position on, the selected entries with an ordinal beyond what the client has had. So a
  topic's messages come in order and each at most once, however the client changes its subscription meanwhile: a topic
  that joins at the head counts as had up to there; a resume moves the position back, and messages of other topics that
  the client has had are skipped;
* whether messages that the client has not had have left the tape, and of which topics: then the client has been
  *overtaken* there, and only there. Of the channels concerned it goes on with the newest messages, and the difference
  of the ordinals says exactly how many it misses, although they are gone. Of all other channels it loses nothing.

Sync and pure. The cursor moves only after a write: `peek` gives the next entries, `advance` says how many were written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from typing import Final, NamedTuple

from daemon.tape.entry import Entry, Topic, is_data, selects
from daemon.tape.tape import Tape
from protocol.messages import Format
from protocol.session import Selection

SCAN_AT_MOST: Final = 64
"""After so many entries that are not for this client, the tape's index is asked for the next one."""

CHUNK_ENTRIES: Final = 128
"""The most entries that one chunk walks over. Chunks end at multiples of this, or where such a position is missing at
the roundest position within reach, so that clients which fell behind at different places soon share chunks."""


class Chunk:
    """Entries to be written together.

    Attributes:
        entries: in order.
        frames: their frames, in the client's format, and `data`: the same, joined.
        last: per topic, the ordinal of the last of them.
        reaches: the cursor's position after all of them are written.
        to_head: whether it ends at the tape's head, so that more may follow by now. Any other chunk stays valid for its
            place.
    """

    __slots__ = ("data", "entries", "frames", "last", "reaches", "to_head")

    def __init__(self, entries: list[Entry], reaches: int, format: Format, *, to_head: bool) -> None:
        self.entries = entries
        self.reaches = reaches
        self.to_head = to_head
        self.frames = [entry.frame(format) for entry in entries]
        self.data = b"".join(self.frames)
        self.last = {entry.topic: entry.ordinal for entry in entries}

    def size_bytes(self, entries: int) -> int:
        """The size of its first `entries` frames."""
        return len(self.data) if entries == len(self.frames) else sum(map(len, self.frames[:entries]))


class Place(NamedTuple):
    """Everything that determines a client's next chunk. Clients at the same place share their chunks.

    Attributes:
        ahead: topics of which the client has had more messages than its position implies, and how many it has had.
    """

    selection: Selection
    position: int
    ahead: frozenset[tuple[Topic, int]]


_NOTHING_AHEAD: Final[frozenset[tuple[Topic, int]]] = frozenset()


class Skipped(NamedTuple):
    """What a client that was overtaken will not get.

    Attributes:
        missed: per channel, how many data messages.
        after: all of them stand beyond this position.
        latest: newest messages of the channels concerned, to be sent now, in order.
    """

    missed: dict[str, int]
    after: int
    latest: list[Entry]


class Cursor:
    """The place of one client on the tape while it is not at the head.

    Attributes:
        selection: the topics the client takes.
        position: every entry up to here has been written, or is not for this client.
        had: per topic, the ordinal of the last message it has had.
        early: whether the client was sent something before its turn, so that its last position is not all that it had.
    """

    __slots__ = ("_ahead", "_level_at", "_skipped", "early", "had", "position", "selection")

    def __init__(self, selection: Selection, position: int, had: dict[Topic, int]) -> None:
        """`had` must match the position; `resume` and `selecting` handle the cases in which it does not."""
        self.selection = selection
        self.position = position
        self.had = had
        self._ahead = _NOTHING_AHEAD
        self._level_at = position  # from this position on `had` follows from the position
        self.early = False
        self._skipped: dict[str, int] = {}
        """Per channel, the position up to which it was skipped when it was overtaken: all later ones are to come."""

    @property
    def place(self) -> Place:
        """The place, as a key for the next chunk."""
        ahead = self._ahead if self.position < self._level_at else _NOTHING_AHEAD
        return Place(self.selection, self.position, ahead)

    def overtaken(self, tape: Tape) -> bool:
        """Whether messages that this client has not had have left the tape."""
        return bool(tape.lost(self.selection, self.position, self.had))

    def peek(self, tape: Tape, format: Format, max_bytes: int) -> Chunk:
        """The next entries for this client: at most `max_bytes` of frames, but at least one entry of any length.

        Nothing that is still to come may have left the tape (see `overtaken`). This looks at no more than
        `SCAN_AT_MOST` plus `CHUNK_ENTRIES` entries, however long the tape is and however few entries are for this
        client. An empty chunk reaches the head: there is nothing for this client.
        """
        entries: list[Entry] = []
        walked: list[int] = []
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
            walked.append(reaches)
            if len(walked) == CHUNK_ENTRIES:
                reaches = _roundest(walked)
                return Chunk([each for each in entries if each.seq <= reaches], reaches, format, to_head=False)
        # The tape may end with a break, after which nothing has been appended yet.
        return Chunk(entries, tape.head, format, to_head=True)

    def _before_next(self, tape: Tape) -> int:
        """The position before the next entry for this client; the head if there is none."""
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

    def skip(self, tape: Tape, *, in_order: bool = False) -> Skipped:
        """Skip what can no longer come, and with it all but the newest messages of the channels that lost data.

        They go on with the newest message of each topic, because whoever is overtaken on a busy channel would soon be
        overtaken again; with the present state, where that is more than one message. A topic of which only statuses,
        notices or nothing but the newest message has left is skipped alone: its channel misses nothing. The newest
        messages are to be sent now; with `in_order` those that still stand on the tape come in their turn, behind older
        ones of other channels. States of several messages are sent now all the same.
        """
        tape.renew(self.selection)
        lost = tape.lost(self.selection, self.position, self.had)
        counts = tape.counts(self.selection)
        channels = {
            topic[0]
            for topic in lost
            if is_data(topic) and counts[topic] > self.had.get(topic, 0) + (tape.newest(topic) is not None)
        }
        after = min((self._skipped.get(channel, 0) for channel in channels), default=0)
        after = max(after, self.position)
        missed = dict.fromkeys(sorted(channels), 0)
        self._skipped.update(dict.fromkeys(channels, tape.head))
        latest: list[Entry] = []
        for topic, count in counts.items():
            had = self.had.get(topic, 0)
            if count <= had or not (topic[0] in channels or topic in lost):
                continue
            # Of changes that it has had up to the present state's beginning, or longer, the rest is kept.
            rest = tape.beyond(topic, had) if topic in tape.deltas else None
            shown = tape.state(topic) if rest is None else rest
            newest = shown[-1] if shown else None
            self.had[topic] = count
            if newest is not None and in_order and topic not in tape.deltas and tape.stands(newest):
                self.had[topic] = count - 1
                if topic[0] in channels:
                    self._skipped[topic[0]] = min(self._skipped[topic[0]], newest.seq - 1)
            else:
                latest += shown
            if is_data(topic) and topic[0] in channels and rest is None:
                passed_over = count if newest is None else tape.passed_over(topic)
                missed[topic[0]] += passed_over - had
        self.position = tape.before_first(self.selection, self.position, self.had)
        self.early = self.early or tape.shows_changes(latest) or any(entry.seq > self.position for entry in latest)
        self._compare(tape)
        return Skipped(missed, after, sorted(latest, key=_seq))

    def resume(self, tape: Tape, selection: Selection, after: int, shown: Iterable[Entry] = ()) -> None:
        """Take the topics of `selection` from position `after` on: the kept messages, and those yet to come.

        `shown`: the newest messages of other topics, beyond `after` and still on the tape; older ones of these topics
        will not come. No message of `selection` after that position may have left the tape; others may have.
        """
        for entry in tape.latest(selection):
            self.had[entry.topic] = tape.before_next(entry.topic, after)
        for entry in shown:
            self.had[entry.topic] = entry.ordinal - 1
        self.position = min(self.position, after)
        self._compare(tape)

    def selecting(self, tape: Tape, selection: Selection) -> Cursor:
        """A cursor at the same place with another selection. New topics count as had up to the head."""
        kept = {topic: had for topic, had in self.had.items() if selects(selection, topic)}
        for topic, newest in had_now(tape, selection).items():
            if topic not in kept:
                # A topic that it already takes but is not in `had` got its first message while the client was behind.
                kept[topic] = 0 if selects(self.selection, topic) else newest
        other = Cursor(selection, self.position, kept)
        other._skipped, other.early = self._skipped, self.early
        other._compare(tape)
        return other

    def _compare(self, tape: Tape) -> None:
        """Find the topics of which the client has had more messages than its position implies."""
        ahead: set[tuple[Topic, int]] = set()
        self._level_at = self.position
        for topic, had in self.had.items():
            if had > tape.before_next(topic, self.position):
                ahead.add((topic, had))
                self._level_at = max(self._level_at, tape.last_seq(topic))
        self._ahead = frozenset(ahead)


def _roundest(positions: Sequence[int]) -> int:
    """The one of these rising positions, except the last, behind which the largest power of two ends."""
    return max(pairwise(positions), key=_crosses, default=(positions[-1], 0))[0]


def _crosses(neighbours: tuple[int, int]) -> int:
    """The highest bit that changes from one position to the next, both counted from 0."""
    return ((neighbours[0] - 1) ^ (neighbours[1] - 1)).bit_length()


def _seq(entry: Entry) -> int:
    return entry.seq


def had_now(tape: Tape, selection: Selection) -> dict[Topic, int]:
    """For each topic of the selection, the ordinal that a client at the head has had."""
    return tape.counts(selection)
