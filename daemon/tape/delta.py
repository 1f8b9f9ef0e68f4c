"""The state of a topic whose messages are changes, as those of a book: where it begins, and every message since.

It begins with a *base*: a message of the topic that says all (`reset`), or a *keyframe*, which stands on the tape in a
topic of its own (`keyframe_topic`), so that it is sent only to those who need it. Both hold the whole state. The base
and the messages since are kept here even if they have left the tape meanwhile: `daemon.publish.keyframes` sees to it
that they do not become many. So whoever needs the state gets it whole, or nothing.

After a restart the state is what the tape's file has, if that is whole (`restored`).

Sync and pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import UNSET, UnsetType

from daemon.tape.entry import Entry, is_data


class Delta:
    """The state of one topic.

    Attributes:
        base: the message with which the state begins; None if there is none that could be shown.
        through: the ordinal, in the topic, of the last message that `base` contains.
        since: every message of the topic after that.
        size_bytes: the size of their frames.
    """

    __slots__ = ("base", "since", "size_bytes", "through")

    def __init__(self) -> None:
        self.base: Entry | None = None
        self.through = 0
        self.since: list[Entry] = []
        self.size_bytes = 0

    def begin(self, base: Entry, through: int) -> None:
        """The state begins with this message, which contains the topic's first `through` messages."""
        self.base, self.through = base, through
        self.since, self.size_bytes = [], 0

    def end(self) -> None:
        """There is no state that could be shown, until it begins anew."""
        self.base, self.through = None, 0
        self.since, self.size_bytes = [], 0

    def add(self, entry: Entry) -> None:
        """The topic's next message."""
        self.since.append(entry)
        self.size_bytes += len(entry.text)

    @property
    def entries(self) -> list[Entry]:
        """The whole state: the base, and what changed since; empty if it cannot be shown."""
        return [] if self.base is None else [self.base, *self.since]

    def beyond(self, had: int) -> list[Entry] | None:
        """The messages that follow the topic's first `had`; None if they are not all here."""
        if self.base is None or had < self.through:
            is_next = self.base is not None and had == self.through - 1 and is_data(self.base.topic)
            return self.entries if is_next else None
        return self.since[had - self.through :]


class _Message(msgspec.Struct):
    seq: int
    prev_seq: int
    type: str
    through: int | UnsetType = UNSET


_message = msgspec.json.Decoder(_Message)


def restored(keyframe: Entry | None, entries: Iterable[Entry], begins: str) -> Delta:
    """The state of a topic as the tape has it; one without a base if that is not whole.

    Args:
        keyframe: the newest one, if there is any.
        entries: the topic's messages that are known, in order.
        begins: the `type` of those messages that say all.
    """
    delta, after = Delta(), 0
    try:
        since: list[tuple[Entry, _Message]] = []
        for entry in reversed(list(entries)):
            if keyframe is not None and entry.seq < keyframe.seq:
                last: Entry | None = entry
                break
            message = _message.decode(entry.payload)
            since.append((entry, message))
            if message.type == begins:
                last = None
                break
        else:
            last = None
        since.reverse()
        if since and since[0][1].type == begins:
            (base, said), *since = since
            delta.begin(base, base.ordinal)
            after = said.seq
        elif keyframe is not None:
            said = _message.decode(keyframe.payload)
            after = said.seq if isinstance(said.through, UnsetType) else said.through
            before = since[0][0].ordinal - 1 if since else 0 if last is None else last.ordinal
            delta.begin(keyframe, before)
        for entry, message in since:
            if delta.base is None or message.prev_seq != after:
                delta.end()
                return delta
            after = message.seq
            delta.add(entry)
    except msgspec.DecodeError:
        delta.end()
    return delta
