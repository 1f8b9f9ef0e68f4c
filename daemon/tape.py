"""The ticker tape: a bounded ring, in memory, of the last messages of all channels.

Every published message gets the next `seq` and stands on the tape as an *entry*, framed once for everybody. Clients
have no queues: each has a position on the tape (see `daemon.cursor`). The tape's size bounds the memory of the
daemon, whatever the number of clients and however slow they are.

Sync and pure: no trio, no clock, no I/O.

Three kinds of entry share the one sequence, so that their order is the same for everyone:

* data, of a topic (channel, instrument);
* a channel's status, of the topic (channel, STATUS);
* a notice to everybody (`POST /ws/test`), of the topic NOTICE.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final, TypeAlias

from protocol.codes import ErrorCode
from protocol.frames import binary_frame, sse_event, text_frame
from protocol.messages import Error, Format, MessageError, encode_as, to_msgpack
from protocol.session import ALL, Selection

Topic: TypeAlias = tuple[str, str]
"""Channel and instrument; the instrument is "" where the channel is about a whole market."""

STATUS: Final = "!status"
"""In place of an instrument: the state of the channel's connector."""

NOTICE: Final[Topic] = ("!", "!notice")
"""The topic of what goes to every client, subscribed or not."""


class Entry:
    """One message on the tape, with its bytes for each way of writing it, made once for all who need them."""

    __slots__ = ("_others", "data", "epoch", "ordinal", "seq", "text", "topic")

    def __init__(self, seq: int, ordinal: int, topic: Topic, payload: bytes, epoch: str) -> None:
        self.seq = seq
        self.ordinal = ordinal
        """The how-many-eth of its topic, from 1: the difference of two is an exact count, also of what is gone."""
        self.topic = topic
        self.epoch = epoch
        self.data = topic[1] != STATUS and topic != NOTICE
        """Whether this is a data message: what snapshots, resumes and `missed` counts are about."""
        self.text = text_frame(payload)
        self._others: dict[Format, bytes] | None = None

    @property
    def payload(self) -> bytes:
        """The message as JSON: the text frame less its header (RFC 6455 section 5.2: 2, 4 or 10 bytes)."""
        length = self.text[1]
        return self.text[2 if length < 126 else 4 if length == 126 else 10 :]

    def frame(self, format: Format) -> bytes:
        """The bytes for a client of that format. JSON is ready; the others are made on first use."""
        if format is Format.JSON:
            return self.text
        if self._others is None:
            self._others = {}
        frame = self._others.get(format)
        if frame is None:
            if format is Format.MSGPACK:
                frame = binary_frame(self._packed())
            else:
                frame = sse_event(self.payload, f"{self.epoch}-{self.seq}")
            self._others[format] = frame
        return frame

    def _packed(self) -> bytes:
        """The message as MessagePack; where its JSON has no such form, an `error` in its place rather than silence."""
        try:
            return to_msgpack(self.payload)
        except MessageError as why:
            reason = f"message {self.seq} of {self.topic[0]} cannot be written as MessagePack: {why}"
            _, _, rest = self.payload.partition(b'"timestamp":"')
            timestamp = rest.partition(b'"')[0].decode()
            return encode_as(Error(timestamp=timestamp, code=ErrorCode.INTERNAL, message=reason), Format.MSGPACK)


class Tape:
    """The ring.

    Attributes:
        epoch: a random id of this tape; a position is worth something only together with it.
        head: `seq` of the newest entry, 0 where there is none.
        tail: `seq` of the oldest entry still here; `head + 1` where there is none.
        size_bytes: frames held (the JSON ones; another format costs the same again while somebody uses it).
    """

    def __init__(self, max_entries: int, max_bytes: int, epoch: str | None = None) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.epoch = epoch if epoch is not None else secrets.token_urlsafe(9)
        self.head = 0
        self.tail = 1
        self.size_bytes = 0
        self._ring: list[Entry | None] = [None] * max_entries
        self._latest: dict[str, dict[str, Entry]] = {}

    def newest(self, topic: Topic) -> Entry | None:
        """The topic's newest message, or None where there is none."""
        return self._latest.get(topic[0], {}).get(topic[1])

    def last_seq(self, topic: Topic) -> int:
        """`seq` of the topic's newest message, 0 where there is none: the next one's `prev_seq`."""
        entry = self.newest(topic)
        return 0 if entry is None else entry.seq

    def append(self, topic: Topic, payload: bytes) -> Entry:
        """Put a message, encoded with `seq` = `head + 1`, on the tape; the oldest ones make room."""
        newest = self._latest.setdefault(topic[0], {})
        before = newest.get(topic[1])
        self.head += 1
        entry = Entry(self.head, 1 if before is None else before.ordinal + 1, topic, payload, self.epoch)
        while self.tail < self.head - self.max_entries + 1:
            self._evict()
        self._ring[self.head % self.max_entries] = entry
        self.size_bytes += len(entry.text)
        while self.size_bytes > self.max_bytes and self.tail < self.head:
            self._evict()
        newest[topic[1]] = entry
        return entry

    def holds(self, after: int) -> bool:
        """Whether everything after position `after` is still here (or is yet to come)."""
        return self.tail - 1 <= after <= self.head

    def between(self, after: int, upto: int) -> Iterator[Entry]:
        """The entries with `after < seq <= upto`, in order. Everything asked for must be on the tape (see `holds`)."""
        ring, capacity = self._ring, self.max_entries
        for seq in range(after + 1, upto + 1):
            if (entry := ring[seq % capacity]) is not None:
                yield entry

    def latest(self, selection: Selection, after: int = 0) -> list[Entry]:
        """The newest entry of each topic of the selection whose `seq` is beyond `after`, in `seq` order.

        A topic's newest entry outlives its place in the ring: a page is never empty because a channel is slow.
        """
        found = {
            entry.seq: entry
            for channel in {channel for channel, _ in selection}
            for instrument, entry in self._latest.get(channel, {}).items()
            if entry.seq > after and selects(selection, (channel, instrument))
        }
        return [found[seq] for seq in sorted(found)]

    def _evict(self) -> None:
        at = self.tail % self.max_entries
        if (entry := self._ring[at]) is not None:
            self.size_bytes -= len(entry.text)
        self._ring[at] = None
        self.tail += 1


def selects(selection: Selection, topic: Topic) -> bool:
    """Whether the selection takes that topic. "All of a channel" means its data; its status is selected by name."""
    return topic in selection or (topic[1] != STATUS and (topic[0], ALL) in selection)
