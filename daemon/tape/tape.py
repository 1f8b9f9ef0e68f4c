"""The ticker tape: a bounded ring, in memory, of the last messages of all channels.

Every published message gets the next `seq` and becomes an *entry* on the tape, framed once for all clients. Clients
have no queues: each has a position on the tape (see `daemon.tape.cursor`). The tape's size bounds the memory of the
daemon, however many clients there are and however slow they are.

Sync and pure: no trio, no clock, no I/O.

Three kinds of entry share one sequence, so that every client sees them in the same order:

* data, of a topic (channel, instrument);
* a channel's status, of the topic (channel, STATUS);
* a notice, of the topic NOTICE to everybody (`POST /ws/test`), or of the topic CANARY to nobody but
  `daemon.sessions.canary`.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec

from connectors.base import Bytes, Count
from connectors.metric import Samples
from protocol.codes import ErrorCode
from protocol.frames import binary_frame, sse_event, text_frame
from protocol.messages import Error, Format, MessageError, encode_as, to_msgpack
from protocol.session import ALL, Selection

Topic: TypeAlias = tuple[str, str]
"""Channel and instrument; the instrument is "" if the channel is about a whole market."""

STATUS: Final = "!status"
"""In place of an instrument: the channel's status."""

NOTICE: Final[Topic] = ("!", "!notice")
"""The topic of messages to every client, subscribed or not."""

CANARY: Final[Topic] = ("!", "!canary")
"""The topic of messages that test whether the hub is alive (`daemon.sessions.canary`); no client can take it."""

LAST_POSITION: Final = 2**53 - 1
"""The largest integer that JavaScript holds exactly."""

_REMEMBERED: Final = 1024
"""So many positions per topic are remembered after their messages have left the ring."""


class TapeSettings(msgspec.Struct, frozen=True):
    """`[tape]`: how much history is kept (the bound reached first counts), and where; `path` "": only in memory."""

    entries: Count = 100_000
    bytes: Bytes = 67_108_864
    path: str = ""


class OutOfPositions(RuntimeError):
    """The next position is not reserved: another run of the daemon might use it again."""


class Entry(msgspec.Struct, gc=False, eq=False):
    """One message on the tape, with its frame in each format, built once for all clients.

    The garbage collector does not look at entries: they are in no circle, and a look at a full tape's entries would
    hold up everybody for a tenth of a second, again and again.

    Attributes:
        seq: its position.
        ordinal: its number among the messages of its topic, from 1. The difference of two is an exact count, also of
            messages that are gone.
        topic: its topic.
        epoch: the tape's.
        text: its JSON as a websocket's text frame.
        data: whether this is a data message: what snapshots, resumes and `missed` counts are about.
    """

    seq: int
    ordinal: int
    topic: Topic
    epoch: str
    text: bytes
    data: bool
    _others: dict[Format, bytes] | None = None

    @classmethod
    def of(cls, seq: int, ordinal: int, topic: Topic, payload: bytes, epoch: str) -> Entry:
        """The entry for a message, encoded as JSON."""
        data = topic[1] != STATUS and topic not in (NOTICE, CANARY)
        return cls(seq, ordinal, topic, epoch, text_frame(payload), data)

    @property
    def payload(self) -> bytes:
        """The message as JSON: the text frame without its header (RFC 6455 section 5.2: 2, 4 or 10 bytes)."""
        length = self.text[1]
        return self.text[2 if length < 126 else 4 if length == 126 else 10 :]

    def frame(self, format: Format) -> bytes:
        """The frame in that format. The JSON one is ready; the others are built on first use."""
        if format is Format.JSON:
            return self.text
        if self._others is None:
            self._others = {}
        frame = self._others.get(format)
        if frame is None:
            if format is Format.MSGPACK:
                frame = binary_frame(self._packed())
            else:
                # Only data has a position: messages at intervals come late, and a later status must not hide them.
                frame = sse_event(self.payload, f"{self.epoch}-{self.seq}" if self.data else None)
            self._others[format] = frame
        return frame

    def _packed(self) -> bytes:
        """The message as MessagePack; if its JSON has no such form, an `error` instead of it, rather than silence."""
        try:
            return to_msgpack(self.payload)
        except MessageError as why:
            reason = f"message {self.seq} of {self.topic[0]} cannot be written as MessagePack: {why}"
            _, _, rest = self.payload.partition(b'"timestamp":"')
            timestamp = rest.partition(b'"')[0].decode()
            return encode_as(Error(timestamp=timestamp, code=ErrorCode.INTERNAL, message=reason), Format.MSGPACK)


class Tape:
    """The ring.

    Positions grow by one with each message, except at the *breaks* that an unclean stop leaves (see
    `daemon.tape.archive`): positions up to a break may have been used, and nobody knows for which messages. So places
    in the ring are counted by arrival, and a short list of segments maps them to positions.

    Attributes:
        epoch: a random id of this tape; a position means something only together with it.
        head: the newest position, 0 if there is none. The newest entry is at the head, unless a break came after it.
        tail: `seq` of the oldest entry in the ring; `head + 1` if there is none.
        gone: no entry after this position has left the ring.
        broken_at: the position of the newest break, 0 if there is none. No message has this position, and no topic's
            chain of `prev_seq` crosses it: a client with an earlier position cannot know what it missed.
        limit: positions beyond this one are refused; the archive moves it.
        size_bytes: size of the frames held (JSON ones; every other format in use costs about the same again).
    """

    def __init__(self, max_entries: int, max_bytes: int, epoch: str | None = None) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.epoch = epoch if epoch is not None else secrets.token_urlsafe(9)
        self.head = 0
        self.tail = 1
        self.gone = 0
        self.broken_at = 0
        self.limit = LAST_POSITION
        self.size_bytes = 0
        self._ring: list[Entry | None] = [None] * max_entries
        self._arrived = 0
        self._left = 0
        self._segments: list[tuple[int, int]] = [(1, 0)]
        """Each unbroken run of positions: its first one, and how many entries had arrived before it."""
        self._latest: dict[str, dict[str, Entry]] = {}
        self._positions: dict[str, dict[str, Positions]] = {}
        self._forgotten: dict[Topic, Entry] = {}

    def __len__(self) -> int:
        return self._arrived - self._left

    def newest(self, topic: Topic) -> Entry | None:
        """The topic's newest message, or None."""
        return self._latest.get(topic[0], {}).get(topic[1])

    def last_seq(self, topic: Topic) -> int:
        """The next message's `prev_seq`: the `seq` of the topic's newest message, 0 if there is none.

        After a break it is the break's position. No message has that, so no client takes the chain for unbroken.
        """
        entry = self.newest(topic) or self._forgotten.get(topic)
        return self.broken_at if entry is None else max(entry.seq, self.broken_at)

    def append(self, topic: Topic, payload: bytes) -> Entry:
        """Put a message, encoded with `seq` = `head + 1`, on the tape; the oldest entries make room.

        Raises:
            OutOfPositions: The position is beyond `limit`.
        """
        if self.head >= self.limit:
            raise OutOfPositions(f"position {self.head + 1} is not reserved; {self.limit} is the last one that is")
        before = self.newest(topic) or self._forgotten.get(topic)
        ordinal = 1 if before is None else before.ordinal + 1
        return self.place(Entry.of(self.head + 1, ordinal, topic, payload, self.epoch))

    def place(self, entry: Entry) -> Entry:
        """Put an entry, made by `append` or read from the archive, at its position: the one after the head."""
        ring, capacity = self._ring, self.max_entries
        if self._arrived - self._left == capacity:
            self._evict()
        ring[self._arrived % capacity] = entry
        self._arrived += 1
        self.head = entry.seq
        self.size_bytes += len(entry.text)
        while self.size_bytes > self.max_bytes and self._arrived - self._left > 1:
            self._evict()
        channel, instrument = entry.topic
        self._latest.setdefault(channel, {})[instrument] = entry
        self._places(channel, instrument).add(entry.seq, entry.ordinal)
        return entry

    def outlive(self, entry: Entry) -> None:
        """Restore a topic's newest message that had already left the ring. Call this before any `place`."""
        self._latest.setdefault(entry.topic[0], {})[entry.topic[1]] = entry
        self.left(entry.topic, entry.seq, entry.ordinal)

    def left(self, topic: Topic, seq: int, ordinal: int) -> None:
        """Note that the topic's message with that ordinal, at `seq`, has left the ring."""
        positions = self._places(*topic)
        if ordinal >= positions.next_ordinal:
            positions.add(seq, ordinal)
        positions.leave(seq, ordinal)

    def start_at(self, tail: int) -> None:
        """Start at that position. Call this before any `place`."""
        self.head, self.tail, self.gone = tail - 1, tail, tail - 1
        self._segments = [(tail, 0)]

    def break_at(self, position: int) -> None:
        """Positions up to this one, which is beyond the head, may have been used: go on after it."""
        if self._segments[-1][1] == self._arrived:
            self._segments.pop()
        self._segments.append((position + 1, self._arrived))
        self.head = self.broken_at = position
        if not len(self):
            self.tail = position + 1

    def holds(self, after: int) -> bool:
        """Whether a client can go on from `after`: every later entry that was kept is still here, or yet to come.

        It cannot go on from inside a break: the messages there were sent, and are not known.
        """
        if not self.gone <= after <= self.head:
            return False
        for (first, arrival), (behind, next_arrival) in pairwise(self._segments):
            if first + next_arrival - arrival - 1 < after < behind - 1:
                return False
        return True

    def between(self, after: int, upto: int) -> Iterator[Entry]:
        """The entries in the ring with `after < seq <= upto`, in order."""
        ring, capacity = self._ring, self.max_entries
        for arrival in range(self._arrival(after), self._arrival(upto)):
            if (entry := ring[arrival % capacity]) is not None:
                yield entry

    def _arrival(self, after: int) -> int:
        """How many entries arrived before the first one beyond that position."""
        most = self._arrived
        for first, arrival in reversed(self._segments):
            if after >= first - 1:
                return max(min(arrival + after + 1 - first, most), self._left)
            most = arrival
        return self._left

    def before_first(self, selection: Selection, after: int, had: Mapping[Topic, int]) -> int:
        """The position before the first message of the selection beyond `after`; the head if there is none.

        The first `had` messages of each topic are skipped. This uses an index and does not walk the tape.
        """
        first = self.head + 1
        for topic, positions in self._selected(selection):
            seq = positions.first_beyond(after, had.get(topic, 0))
            if seq is not None and seq < first:
                first = seq
        return first - 1

    def counts(self, selection: Selection) -> dict[Topic, int]:
        """How many messages each topic of the selection has had so far, including topics that `forget` removed."""
        return {topic: positions.next_ordinal - 1 for topic, positions in self._selected(selection)}

    def _selected(self, selection: Selection) -> Iterator[tuple[Topic, Positions]]:
        """Every topic of the selection that has had a message, with its positions."""
        for channel, instrument in selection:
            topics = self._positions.get(channel, {})
            for name in topics if instrument == ALL else (instrument,):
                positions = topics.get(name)
                if positions is not None and (instrument != ALL or name != STATUS):
                    yield (channel, name), positions

    def whole(self, topic: Topic, after: int) -> bool:
        """Whether none of the topic's messages after that position has left the ring."""
        positions = self._known_places(topic)
        return positions is None or positions.newest_gone <= after

    def count_at(self, topic: Topic, position: int) -> int | None:
        """How many messages the topic had up to that position; None if that is no longer known."""
        positions = self._known_places(topic)
        return 0 if positions is None else positions.count_at(position)

    def before_next(self, topic: Topic, position: int) -> int:
        """The ordinal of the topic's first known message beyond that position, minus one."""
        positions = self._known_places(topic)
        return 0 if positions is None else positions.before_next(position)

    def _known_places(self, topic: Topic) -> Positions | None:
        return self._positions.get(topic[0], {}).get(topic[1])

    def _places(self, channel: str, instrument: str) -> Positions:
        topics = self._positions.get(channel)
        if topics is None:
            topics = self._positions[channel] = {}
        positions = topics.get(instrument)
        if positions is None:
            positions = topics[instrument] = Positions()
        return positions

    def latest(self, selection: Selection, after: int = 0) -> list[Entry]:
        """The newest entry of each topic of the selection, if its `seq` is beyond `after`; in `seq` order.

        A topic's newest entry is kept beyond its place in the ring, so a slow channel always has something to show.
        """
        found = {
            entry.seq: entry
            for channel in {channel for channel, _ in selection}
            for instrument, entry in self._latest.get(channel, {}).items()
            if entry.seq > after and selects(selection, (channel, instrument))
        }
        return [found[seq] for seq in sorted(found)]

    def payload(self, channel: str, instrument: str) -> bytes | None:
        """The newest message of that topic, as JSON, or None."""
        entry = self.newest((channel, instrument))
        return None if entry is None else entry.payload

    def payloads(self, channel: str, instrument: str = ALL) -> list[bytes]:
        """The newest message of each topic of the channel, as JSON; with `instrument`, of that topic only."""
        return [entry.payload for entry in self.latest(frozenset({(channel, instrument)}))]

    def forget(self, known: Callable[[Topic], bool]) -> None:
        """Stop showing the newest message of topics that no longer exist: it would be shown for ever.

        A topic that comes back continues its old chain and count: a new start would make it look like another topic.
        """
        for channel, newest in self._latest.items():
            self._forgotten |= {(channel, name): entry for name, entry in newest.items() if not known((channel, name))}
            self._latest[channel] = {name: entry for name, entry in newest.items() if known((channel, name))}

    def outliving(self) -> list[Entry]:
        """The newest entries of topics that have no entry left in the ring."""
        return [entry for newest in self._latest.values() for entry in newest.values() if entry.seq < self.tail]

    def _evict(self) -> None:
        at = self._left % self.max_entries
        if (entry := self._ring[at]) is None:
            return
        self._ring[at] = None
        self._left += 1
        self.size_bytes -= len(entry.text)
        self.gone = entry.seq
        channel, instrument = entry.topic
        self._positions[channel][instrument].leave(entry.seq, entry.ordinal)
        oldest = self._ring[self._left % self.max_entries]
        self.tail = self.head + 1 if oldest is None else oldest.seq
        if len(self._segments) > 1 and self._segments[1][1] <= self._left:
            del self._segments[0]

    def measure(self, samples: Samples) -> None:
        """Add how full the tape is."""
        samples.value("tickerd_tape_entries", "Messages on the tape.", len(self))
        samples.value("tickerd_tape_entries_max", "How many it holds.", self.max_entries)
        samples.value("tickerd_tape_bytes", "The size of these messages.", self.size_bytes)
        samples.value("tickerd_tape_bytes_max", "How large they may be together.", self.max_bytes)
        samples.value("tickerd_tape_position", "seq of the newest message.", self.head)


class Positions:
    """The positions of one topic's messages: those in the ring, and the last ones that have left it.

    This keeps counts of lost messages exact, and finds a place without walking the tape.

    Attributes:
        newest_gone: the position of the newest message that has left the ring, 0 if none has.
    """

    __slots__ = ("_first", "_gone", "_seqs", "_unbroken", "newest_gone")

    def __init__(self) -> None:
        self.newest_gone = 0
        self._seqs: list[int] = []
        self._first = self._unbroken = 1
        """The ordinals of the first one that is known, and of the one since which none is missing."""
        self._gone = 0

    @property
    def next_ordinal(self) -> int:
        """The ordinal that follows the last known one."""
        return self._first + len(self._seqs)

    def add(self, seq: int, ordinal: int) -> None:
        """Add a message. If some before it are missing, counts at earlier positions are no longer known.

        The messages before the missing ones are still found while they are in the ring; the missing ones count as had
        together with them.
        """
        missing = ordinal - self.next_ordinal
        if missing:
            self._unbroken = ordinal
            if self._gone < len(self._seqs):  # damaged rows of the tape's file: no more than fit into the ring
                self._seqs += [self._seqs[-1]] * missing
            else:
                self._seqs, self._first, self._gone = [], ordinal, 0
        self._seqs.append(seq)

    def leave(self, seq: int, ordinal: int) -> None:
        """The topic's oldest message in the ring leaves it."""
        self.newest_gone = seq
        self._gone = max(self._gone, ordinal - self._first + 1)
        if self._gone > 2 * _REMEMBERED:
            forgotten = self._gone - _REMEMBERED
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

    def before_next(self, position: int) -> int:
        """The ordinal of the first known message beyond that position, minus one."""
        return self._first - 1 + bisect_right(self._seqs, position)


def selects(selection: Selection, topic: Topic) -> bool:
    """Whether the selection includes the topic. `ALL` of a channel means its data; its status is selected by name."""
    return topic in selection or (topic[1] != STATUS and (topic[0], ALL) in selection)
