"""One client as the fan-out sees it: the topics it takes, its place on the tape, and the stream for its bytes.

For all topics that a client takes message by message it has one place on the tape. Only `daemon.fanout.hub.Hub` moves a
client from one state to another. These are all states and moves:

    state      its place    its bytes are written by     it becomes
    ---------  -----------  ---------------------------  --------------------------------------------------------------
    DETACHED   none         nobody                       CAUGHT_UP  when it is attached
    CAUGHT_UP  the head     each pass, directly          BEHIND     when its socket does not take all that it is given,
                                                                    or when it resumes from an older position
                                                         DETACHED   when its connection ends
    BEHIND     its cursor   steps of its own             CAUGHT_UP  when the cursor is at the head and nothing waits for
                            (`Hub.catch_up`)                        its socket
                                                         DETACHED   when its connection ends

So a caught-up client has nothing pending, and a client has a task of its own exactly while it is behind.

Topics that a client takes at intervals (`interval_ms`) are kept apart, in one membership per interval. A membership is
never behind: the client gets the newest message of each topic when it is due.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, Protocol

import trio

from daemon.tape.cursor import Cursor
from daemon.tape.tape import NOTICE, Entry, Tape, Topic, selects
from protocol.frames import binary_frame, sse_event, sse_position, text_frame
from protocol.messages import ControlMessage, Format, encode_as
from protocol.session import Selection

_JOINED_BYTES: Final = 64 * 1024
"""What is shown is posted in parts of this size: a frame at a time would cost a system call each. A larger frame is not
copied."""

NOTHING: Selection = frozenset({NOTICE})
"""The selection of a client without subscriptions: only messages that go to everybody."""


class Sink(Protocol):
    """Where a subscriber's bytes go; `daemon.sessions.stream.ClientStream` is the real one."""

    fd: int
    full: bool
    pending: list[bytes | memoryview]

    def post(self, data: bytes) -> None:
        """Send whole frames, at once if the socket takes them, else as soon as possible."""
        ...

    def write_now(self, data: bytes) -> int:
        """Write without waiting. Returns how many bytes the socket took; 0 while something is pending."""
        ...

    def settle(self, frames: Sequence[bytes], written: int) -> int:
        """The socket took `written` bytes of the joined frames. Returns how many frames are on their way."""
        ...

    def stalled(self) -> None:
        """The socket has just stopped taking bytes: the write deadline starts now."""
        ...

    async def flush(self) -> None:
        """Wait until the socket takes bytes, and until nothing is pending.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the connection is gone.
        """
        ...


class State(Enum):
    """Where a client is; see the table above."""

    DETACHED = "detached"
    CAUGHT_UP = "caught up"
    BEHIND = "behind"


class Group:
    """The caught-up clients with the same topics and format: a pass writes the same bytes to each.

    Attributes:
        members: clients that the hub writes to directly, by file descriptor.
        indirect: clients without a descriptor to write to (TLS): the hub hands the bytes to their stream.
        fresh: this pass's entries for this group.
    """

    __slots__ = ("format", "fresh", "indirect", "members", "selection")

    def __init__(self, format: Format, selection: Selection) -> None:
        self.format = format
        self.selection = selection
        self.members: dict[int, Subscriber] = {}
        self.indirect: set[Subscriber] = set()
        self.fresh: list[Entry] = []


class IntervalGroup:
    """The clients that take the same topics in the same format and are due at the same times.

    Attributes:
        key: its key in the timers.
        position: the tape's head when the group was last due: members have been sent, or have skipped, all up to here.
        members: clients that are served together.
        late: clients that are served one by one when next due: new ones, and those whose socket was full.
    """

    __slots__ = ("due_s", "format", "interval_s", "key", "late", "members", "position", "selection")

    def __init__(
        self,
        key: tuple[Format, Selection, int, int],
        format: Format,
        selection: Selection,
        interval_s: float,
        due_s: float,
        position: int,
    ) -> None:
        self.key = key
        self.format = format
        self.selection = selection
        self.interval_s = interval_s
        self.due_s = due_s
        self.position = position
        self.members: set[Subscriber] = set()
        self.late: dict[Subscriber, Membership] = {}

    def set_apart(self, subscriber: Subscriber, membership: Membership) -> None:
        """The client's socket is full: serve it by itself until the socket takes bytes again."""
        if not membership.late:
            self.members.discard(subscriber)
            membership.late, membership.floor, membership.had = True, self.position, {}
            self.late[subscriber] = membership

    @property
    def empty(self) -> bool:
        """Whether no client is left."""
        return not self.members and not self.late


class Membership:
    """What one subscriber takes at one interval.

    Attributes:
        group: the clients that take the same topics at the same times.
        not_before_s: when it is first due; it joined only after the group's earlier times.
        late: whether it is next served by itself, from `floor` and `had`, rather than with the group.
        floor: every message up to this `seq` has been sent or skipped.
        had: for topics beyond the floor, the newest `seq` that has been sent or skipped.
    """

    __slots__ = ("floor", "group", "had", "late", "not_before_s")

    def __init__(self, group: IntervalGroup, not_before_s: float, floor: int, had: dict[Topic, int]) -> None:
        self.group = group
        self.not_before_s = not_before_s
        self.late = True
        self.floor = floor
        self.had = had

    def had_seq(self, topic: Topic) -> int:
        """The `seq` up to which this topic's messages have been sent or skipped."""
        return self.had.get(topic, self.floor) if self.late else self.group.position


class Subscriber:
    """One client.

    Attributes:
        state: set only by the hub.
        selection: the topics it takes message by message, its channels' status included.
        cursor: its place on the tape while it is behind, else None.
        group: its group while it is caught up, else None.
        fd: its file descriptor in that group, or -1.
        intervals: its memberships, by `interval_ms`.
        wake: called when it falls behind; must start `Hub.catch_up` in a task.
    """

    __slots__ = ("_settled", "cursor", "fd", "format", "group", "intervals", "selection", "state", "stream", "wake")

    def __init__(self, format: Format, stream: Sink, wake: Callable[[], None]) -> None:
        self.format = format
        self.stream = stream
        self.wake = wake
        self.state = State.DETACHED
        self.selection = NOTHING
        self.cursor: Cursor | None = None
        self.group: Group | None = None
        self.fd = -1
        self.intervals: dict[int, Membership] = {}
        self._settled: trio.Event | None = None  # made only when somebody waits: an idle client must cost little

    async def wait_caught_up(self) -> None:
        """Wait until the client has everything that is on the tape, or is gone."""
        while self.state is State.BEHIND:
            self._settled = self._settled or trio.Event()
            await self._settled.wait()

    def move(self, state: State) -> None:
        """Set the state. Only for the hub."""
        self.state = state
        if state is not State.BEHIND and self._settled is not None:
            self._settled.set()
            self._settled = None

    def say(self, message: ControlMessage) -> None:
        """Send a message to this client only, after everything that it has been sent so far."""
        payload = encode_as(message, self.format)
        if self.format is Format.JSON:
            self.stream.post(text_frame(payload))
        elif self.format is Format.MSGPACK:
            self.stream.post(binary_frame(payload))
        else:
            self.stream.post(sse_event(payload))

    def show(self, entries: Sequence[Entry], *, beyond: int = 0, upto: int) -> None:
        """Send this client messages of the tape outside the passes: a snapshot, or what it missed.

        Of those from `beyond` to `upto` it has had every earlier message, or was told which ones will not come. From
        the others it cannot resume, and an event stream gives them no position (`id`).
        """
        joined: list[bytes] = []
        size_bytes = 0
        for entry in entries:
            if self.format is Format.SSE and not beyond < entry.seq <= upto:
                frame = sse_event(entry.payload)
            else:
                frame = entry.frame(self.format)
            if joined and size_bytes + len(frame) > _JOINED_BYTES:
                self.stream.post(b"".join(joined))
                joined, size_bytes = [], 0
            joined.append(frame)
            size_bytes += len(frame)
        if joined:
            self.stream.post(joined[0] if len(joined) == 1 else b"".join(joined))

    def mark(self, tape: Tape) -> None:
        """Tell an event stream that it has had everything up to the head: from there it resumes."""
        if self.format is Format.SSE:
            self.stream.post(sse_position(f"{tape.epoch}-{tape.head}"))

    def keep_alive(self, tape: Tape) -> bytes:
        """A comment for a quiet event stream, with the position if the client has everything up to the head.

        A client that is behind has not; nor has one that takes messages at intervals, until it is next due.
        """
        if self.cursor is not None or self.intervals:
            return b": ping\n\n"
        return b": ping\n" + sse_position(f"{tape.epoch}-{tape.head}")

    def takes(self, topic: Topic) -> bool:
        """Whether this client is sent messages of that topic, one by one or at an interval."""
        return selects(self.selection, topic) or any(
            selects(membership.group.selection, topic) for membership in self.intervals.values()
        )

    def had_seq(self, topic: Topic, tape: Tape) -> int:
        """The newest `seq` of that topic that this client has had or skipped.

        Ask only for topics that it takes. For a client that is behind the answer is the topic's newest message if it
        has had that, else 0.
        """
        for membership in self.intervals.values():
            if selects(membership.group.selection, topic):
                return membership.had_seq(topic)
        newest = tape.newest(topic)
        if newest is None or (self.cursor is not None and self.cursor.had.get(topic, 0) < newest.ordinal):
            return 0
        return newest.seq
