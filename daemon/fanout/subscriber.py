"""One client as the hub sees it: what it takes, where it is on the tape, and the stream its bytes go to.

A subscriber is either *caught up* (no cursor: its place is the head, and the hub writes to it directly) or *behind* (a
cursor, and a catch-up task of its session that brings it to the head again). What it takes at a rate of its own
choosing (`interval_ms`) is kept apart, in one lane per interval: such a lane is never behind, it simply has the
newest of each topic when its time comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from daemon.tape.tape import NOTICE, Entry, Tape, Topic, selects
from protocol.frames import binary_frame, sse_event, sse_position, text_frame
from protocol.messages import ControlMessage, Format, encode_as
from protocol.session import Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.fanout.group import Group
    from daemon.fanout.intervals import IntervalGroup
    from daemon.tape.cursor import Cursor

NOTHING: Selection = frozenset({NOTICE})
"""What a client takes that has not subscribed to anything: only what is sent to everybody."""


class Sink(Protocol):
    """Where a subscriber's bytes go; `daemon.sessions.stream.ClientStream` is the real one."""

    fd: int
    pending: list[bytes | memoryview]

    def post(self, data: bytes) -> None:
        """Send whole frames, at once or as soon as possible."""
        ...

    def write_now(self, data: bytes) -> int:
        """How many bytes the socket takes without waiting; none while something is pending."""
        ...

    def settle(self, frames: Sequence[bytes], written: int) -> int:
        """How many of the frames are on their way after `written` bytes of them joined were taken."""
        ...

    def stalled(self) -> None:
        """The socket stopped taking bytes just now: the write deadline runs from here."""
        ...


class Lane:
    """The topics that one subscriber takes at one interval.

    Attributes:
        group: those who take the same at the same moments.
        not_before_s: moments of the group before this one are not its own: it joined just now.
        late: whether it is served by itself at the next moment, going by `floor` and `had`, and not with the group.
        floor: every message up to this `seq` has been sent or passed over.
        had: for topics that are further on than the floor, the `seq` they are at.
    """

    __slots__ = ("floor", "group", "had", "late", "not_before_s")

    def __init__(self, group: IntervalGroup, not_before_s: float, floor: int, had: dict[Topic, int]) -> None:
        self.group = group
        self.not_before_s = not_before_s
        self.late = True
        self.floor = floor
        self.had = had

    def had_seq(self, topic: Topic) -> int:
        """The `seq` up to which this topic has been dealt with."""
        return self.had.get(topic, self.floor) if self.late else self.group.position


class Subscriber:
    """One client.

    Attributes:
        selection: what it takes message by message, its channels' status included.
        cursor: its place on the tape while it is behind; None while it is caught up.
        group: the group it is written to with while it is caught up; None while it is behind.
        fd: the file descriptor under which that group knows it, or -1.
        lanes: what it takes at intervals, by `interval_ms`.
        wake: called when it has fallen behind, so that its session starts to catch it up.
    """

    __slots__ = ("cursor", "fd", "format", "group", "lanes", "selection", "stream", "wake")

    def __init__(self, format: Format, stream: Sink, wake: Callable[[], None]) -> None:
        self.format = format
        self.stream = stream
        self.wake = wake
        self.selection = NOTHING
        self.cursor: Cursor | None = None
        self.group: Group | None = None
        self.fd = -1
        self.lanes: dict[int, Lane] = {}

    def say(self, message: ControlMessage) -> None:
        """Send this client a message of its own, behind what it has been sent already."""
        payload = encode_as(message, self.format)
        if self.format is Format.JSON:
            self.stream.post(text_frame(payload))
        elif self.format is Format.MSGPACK:
            self.stream.post(binary_frame(payload))
        else:
            self.stream.post(sse_event(payload))

    def show(self, entry: Entry, *, next_in_order: bool) -> None:
        """Send this client a message of the tape beside the passes: of a snapshot, or of what it missed.

        `next_in_order`: it has had everything before, or was told what will not come. Else the message is no place to
        resume from, and an event stream does not name it as one.
        """
        if self.format is Format.SSE and not next_in_order:
            self.stream.post(sse_event(entry.payload))
        else:
            self.stream.post(entry.frame(self.format))

    def mark(self, tape: Tape) -> None:
        """Tell an event stream that it has had everything up to the head: from there it resumes."""
        if self.format is Format.SSE:
            self.stream.post(sse_position(f"{tape.epoch}-{tape.head}"))

    def keep_alive(self, tape: Tape) -> bytes:
        """A comment for an event stream that may be quiet; with its position, where that is the head.

        A client that is behind is not there yet, and what is taken at an interval is on its way until the next moment.
        """
        if self.cursor is not None or self.lanes:
            return b": ping\n\n"
        return b": ping\n" + sse_position(f"{tape.epoch}-{tape.head}")

    def takes(self, topic: Topic) -> bool:
        """Whether this client is sent messages of that topic, one by one or at an interval."""
        return selects(self.selection, topic) or any(
            selects(lane.group.selection, topic) for lane in self.lanes.values()
        )

    def had_seq(self, topic: Topic, tape: Tape) -> int:
        """The newest `seq` of that topic that this client has had or passed over.

        To be asked only for topics that it takes. A client that is behind has had the topic's newest message, or (as
        far as this answer goes) none.
        """
        for lane in self.lanes.values():
            if selects(lane.group.selection, topic):
                return lane.had_seq(topic)
        newest = tape.newest(topic)
        if newest is None or (self.cursor is not None and self.cursor.had.get(topic, 0) < newest.ordinal):
            return 0
        return newest.seq
