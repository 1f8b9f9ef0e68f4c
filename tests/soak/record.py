"""What a client writes down of each of its sessions: the data messages it got, and what changed the rules for them.

A message is kept as its topic, `seq`, `prev_seq` and the digest of its payload, in arrays: a long soak has millions.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import inf
from typing import Literal, NamedTuple, TypeAlias

import msgspec

Topic: TypeAlias = tuple[str, str]
"""Channel and instrument; the instrument is "" where the channel is about a whole market."""

Format: TypeAlias = Literal["json", "msgpack"]


class Got(NamedTuple):
    """A data message."""

    topic: Topic
    seq: int
    prev_seq: int
    digest: int


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """The answer `subscribed`, with what the command had asked for.

    Attributes:
        channels: For which the command took effect.
        seq: The tape's head at that moment.
        instruments: The filter; None for all.
        interval_ms: 0 for every message.
        snapshot: Whether the newest messages were to follow.
        since: The position from which to resume; None where there was none.
        known: Whether the position was one of this tape.
        honest: Whether the client really had everything of these channels up to that position.
        recovered: As answered, per channel.
        missed: As answered, per channel that is not recovered, where known.
        asked: The channels that the command named ("*" in full); empty where nobody wrote that down.
        id: The command's.
    """

    channels: tuple[str, ...]
    seq: int
    instruments: tuple[str, ...] | None = None
    interval_ms: int = 0
    snapshot: bool = True
    since: int | None = None
    known: bool = True
    honest: bool = False
    recovered: dict[str, bool] = {}
    missed: dict[str, int] = {}
    asked: tuple[str, ...] = ()
    id: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The answer `interval_refused`, with what the command had asked for; `channels` are those that it names."""

    channels: tuple[str, ...]
    asked: tuple[str, ...]
    instruments: tuple[str, ...] | None = None
    interval_ms: int
    id: int = 0


class Keyframe(msgspec.Struct, frozen=True):
    """A whole book for somebody who comes late (`depth_snapshot` without `reset`), and the digest of what is in it."""

    topic: Topic
    seq: int
    prev_seq: int
    through: int
    digest: int


class Held(msgspec.Struct, frozen=True):
    """The book that the client has rebuilt, as of that position."""

    topic: Topic
    seq: int
    digest: int


class Left(msgspec.Struct, frozen=True):
    """The answer `unsubscribed`."""

    channels: tuple[str, ...]


class Lagged(msgspec.Struct, frozen=True):
    """As the daemon said it; `by_channel` is empty where it did not say which channels lost something."""

    missed: int
    from_seq: int
    to_seq: int
    by_channel: dict[str, int] = {}


Mark: TypeAlias = Joined | Refused | Left | Lagged | Keyframe | Held


class Session:
    """One connection of one client, from its welcome on.

    Attributes:
        complete_to: Everything up to this position must have come; None where the client left too soon to say so.
        longest_ms: But for what is taken at longer intervals than this: the client did not wait for that.
        unanswered: Commands that got no answer though there was time for one.
        remarks: What was wrong beside the messages: an internal error, a close that nothing explains.
        evidence: What daemon and kernel said about the client when its patience was at an end.
        deeds: What the client did, with `trio.current_time()`: shown where something is wrong.
    """

    def __init__(self, client: int, number: int, format: Format) -> None:
        self.client = client
        self.number = number
        self.format = format
        self.complete_to: int | None = None
        self.longest_ms: float = inf
        self.unanswered: tuple[str, ...] = ()
        self.remarks: list[str] = []
        self.evidence = ""
        self.deeds: list[tuple[float, str]] = []
        self._names: list[Topic] = []
        self._index: dict[Topic, int] = {}
        self._topics = array("H")
        self._seqs = array("q")
        self._prev_seqs = array("q")
        self._digests = array("q")
        self._marks: list[tuple[int, Mark]] = []

    def __len__(self) -> int:
        return len(self._seqs)

    def got(self, topic: Topic, seq: int, prev_seq: int, digest: int) -> None:
        """A data message came."""
        index = self._index.get(topic)
        if index is None:
            index = self._index[topic] = len(self._names)
            self._names.append(topic)
        self._topics.append(index)
        self._seqs.append(seq)
        self._prev_seqs.append(prev_seq)
        self._digests.append(digest)

    def mark(self, mark: Mark) -> None:
        """Something came that changes what is to follow."""
        self._marks.append((len(self), mark))

    def entries(self) -> Iterator[Got | Mark]:
        """All of it, in the order in which it came."""
        marks = iter([*self._marks, (-1, None)])
        at, mark = next(marks)
        for number, index in enumerate(self._topics):
            while at == number and mark is not None:
                yield mark
                at, mark = next(marks)
            yield Got(self._names[index], self._seqs[number], self._prev_seqs[number], self._digests[number])
        while mark is not None:
            yield mark
            at, mark = next(marks)
