"""One client as the fan-out sees it: what it takes, where it is on the tape, and the stream that its bytes go to.

What a client takes message by message has one place on the tape. `daemon.fanout.hub.Hub` alone moves a client from one
state to another, and this is all there is:

    state      its place    its bytes are written by     it becomes
    ---------  -----------  ---------------------------  --------------------------------------------------------------
    DETACHED   none         nobody                       CAUGHT_UP  when it is attached
    CAUGHT_UP  the head     each pass, directly          BEHIND     when its socket does not take all that it is given,
                                                                    or when it resumes from an older position
                                                         DETACHED   when its connection ends
    BEHIND     its cursor   a task of its own            CAUGHT_UP  when the cursor is at the head and nothing waits for
                            (`Hub.catch_up`)                        its socket
                                                         DETACHED   when its connection ends

So while a client is caught up nothing of its stream is pending, and a task of its own runs exactly while it is behind.

What a client takes at intervals (`interval_ms`) is kept apart, in one membership per interval. A membership is never
behind: the client gets the newest message of each topic when its moment comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

import trio

from daemon.tape.cursor import Cursor
from daemon.tape.tape import NOTICE, Entry, Tape, Topic, selects
from protocol.frames import binary_frame, sse_event, sse_position, text_frame
from protocol.messages import ControlMessage, Format, encode_as
from protocol.session import Selection

NOTHING: Selection = frozenset({NOTICE})
"""What a client takes that has not subscribed to anything: only what is sent to everybody."""


class Sink(Protocol):
    """Where a subscriber's bytes go; `daemon.sessions.stream.ClientStream` is the real one."""

    fd: int
    full: bool
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
    """The caught-up clients with the same topics and the same format: a pass gives all of them the same bytes.

    Attributes:
        members: by file descriptor, those that are written to directly.
        indirect: those that have none (TLS): their stream is handed the bytes.
        fresh: the entries of this pass for this group.
    """

    __slots__ = ("format", "fresh", "indirect", "members", "selection")

    def __init__(self, format: Format, selection: Selection) -> None:
        self.format = format
        self.selection = selection
        self.members: dict[int, Subscriber] = {}
        self.indirect: set[Subscriber] = set()
        self.fresh: list[Entry] = []


class IntervalGroup:
    """The clients that take the same topics in the same format at the same moments.

    Attributes:
        key: under which the timers know it.
        position: `seq` of the tape's head at the last moment: what members have been sent or spared.
        members: those that are written to directly.
        late: those that are served one by one at the next moment: new ones, those whose socket was full, those on TLS.
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
        """The client's socket is full: it is served by itself when it can be."""
        if not membership.late:
            self.members.discard(subscriber)
            membership.late, membership.floor, membership.had = True, self.position, {}
            self.late[subscriber] = membership

    @property
    def empty(self) -> bool:
        """Whether nobody is left."""
        return not self.members and not self.late


class Membership:
    """What one subscriber takes at one interval.

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
        state: where it is; set by the hub alone.
        selection: what it takes message by message, its channels' status included.
        cursor: its place on the tape while it is behind, else None.
        group: the group it is written to with while it is caught up, else None.
        fd: the file descriptor under which that group knows it, or -1.
        intervals: what it takes at intervals, by `interval_ms`.
        wake: called when it falls behind; it has to start `Hub.catch_up` in a task.
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
        self._settled: trio.Event | None = None  # made by whoever waits: an idle client is to cost little

    async def wait_caught_up(self) -> None:
        """Wait until the client has everything that is on the tape, or is gone."""
        while self.state is State.BEHIND:
            self._settled = self._settled or trio.Event()
            await self._settled.wait()

    def move(self, state: State) -> None:
        """It is in that state now. For the hub."""
        self.state = state
        if state is not State.BEHIND and self._settled is not None:
            self._settled.set()
            self._settled = None

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
        if self.cursor is not None or self.intervals:
            return b": ping\n\n"
        return b": ping\n" + sse_position(f"{tape.epoch}-{tape.head}")

    def takes(self, topic: Topic) -> bool:
        """Whether this client is sent messages of that topic, one by one or at an interval."""
        return selects(self.selection, topic) or any(
            selects(membership.group.selection, topic) for membership in self.intervals.values()
        )

    def had_seq(self, topic: Topic, tape: Tape) -> int:
        """The newest `seq` of that topic that this client has had or passed over.

        To be asked only for topics that it takes. A client that is behind has had the topic's newest message, or (as
        far as this answer goes) none.
        """
        for membership in self.intervals.values():
            if selects(membership.group.selection, topic):
                return membership.had_seq(topic)
        newest = tape.newest(topic)
        if newest is None or (self.cursor is not None and self.cursor.had.get(topic, 0) < newest.ordinal):
            return 0
        return newest.seq
