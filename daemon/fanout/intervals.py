"""What clients take at a rate of their own choosing (`interval_ms`): the newest message per topic, once in a while.

Clients with the same topics, format and interval share a *group*, and with it one timer and one joined buffer, as in
`daemon.fanout.hub`. When a client subscribes it is due one interval later; so that not every client needs a timer of
its own, the moments are rounded up to sixteenths of the interval.

There is no falling behind here: a client whose socket is full when its moment comes has the newest messages at the next
one. `prev_seq` shows it what was left out, as it asked.
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING, Final

import trio

from daemon.fanout.subscriber import Lane, Subscriber
from daemon.tape.tape import Entry, Tape, Topic
from protocol.messages import Format
from protocol.session import Selection

if TYPE_CHECKING:
    from daemon.fanout.hub import Hub

_SLOTS: Final = 16
"""How many different moments within one interval there are."""


class IntervalGroup:
    """The clients that take the same topics in the same format at the same moments.

    Attributes:
        position: `seq` of the tape's head at the last moment: what members have been sent or spared.
        members: those written to directly.
        late: those served by themselves at the next moment: new ones, those whose socket was full, those on TLS.
    """

    __slots__ = ("due_s", "format", "interval_s", "late", "members", "position", "selection")

    def __init__(self, format: Format, selection: Selection, interval_s: float, due_s: float, position: int) -> None:
        self.format = format
        self.selection = selection
        self.interval_s = interval_s
        self.due_s = due_s
        self.position = position
        self.members: set[Subscriber] = set()
        self.late: dict[Subscriber, Lane] = {}

    def fall_behind(self, subscriber: Subscriber, lane: Lane) -> None:
        """The client's socket is full: it is served by itself when it can be."""
        if not lane.late:
            self.members.discard(subscriber)
            lane.late, lane.floor, lane.had = True, self.position, {}
            self.late[subscriber] = lane

    @property
    def empty(self) -> bool:
        """Whether nobody is left."""
        return not self.members and not self.late


class Intervals:
    """All interval groups, and the one timer for them."""

    def __init__(self, tape: Tape, hub: Hub) -> None:
        self._tape = tape
        self._hub = hub
        self._groups: dict[tuple[Format, Selection, int, int], IntervalGroup] = {}
        self._due: list[tuple[float, int, tuple[Format, Selection, int, int]]] = []
        self._count = itertools.count()
        self._sooner = trio.Event()

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def next_due_s(self) -> float:
        """The next moment, on trio's clock, at which `tick` has something to do; infinity where there is none."""
        return self._due[0][0] if self._due else math.inf

    def enter(self, subscriber: Subscriber, interval_ms: int, selection: Selection, had: dict[Topic, int]) -> None:
        """This client takes that selection at that interval from now on; `had` is the newest `seq` it had per topic."""
        interval_s = interval_ms / 1000
        slot_s = interval_s / _SLOTS
        slot = math.ceil(trio.current_time() / slot_s)
        due_s = (slot + _SLOTS) * slot_s
        key = (subscriber.format, selection, interval_ms, slot % _SLOTS)
        group = self._groups.get(key)
        if group is None:
            group = IntervalGroup(subscriber.format, selection, interval_s, due_s, self._tape.head)
            self._groups[key] = group
            heapq.heappush(self._due, (due_s, next(self._count), key))
            self._sooner.set()
        # The floor must lie below whatever it has not had yet. A group that was there already may be due sooner than
        # this client, which was sent its newest messages just now.
        newest = {entry.topic: entry.seq for entry in self._tape.latest(selection)}
        newest.update(had)
        lane = Lane(group, due_s - slot_s / 2, min(newest.values(), default=self._tape.head), newest)
        group.late[subscriber] = lane
        subscriber.lanes[interval_ms] = lane

    def leave(self, subscriber: Subscriber, lane: Lane) -> None:
        """This client takes nothing at that interval any more. An empty group ends at its next moment."""
        lane.group.late.pop(subscriber, None)
        lane.group.fall_behind(subscriber, lane)
        lane.group.late.pop(subscriber, None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve every group at its moments, until cancelled."""
        task_status.started()
        while True:
            self._sooner = trio.Event()
            with trio.move_on_at(self.next_due_s):
                await self._sooner.wait()
            self.tick(trio.current_time())
            await trio.lowlevel.checkpoint()

    def tick(self, now_s: float) -> None:
        """Serve the groups that are due, and set each one's next moment."""
        while self._due and self._due[0][0] <= now_s:
            _, _, key = heapq.heappop(self._due)
            group = self._groups[key]
            if group.empty:
                del self._groups[key]
                continue
            self._serve(group)
            missed = max(0, math.floor((now_s - group.due_s) / group.interval_s))
            group.due_s += group.interval_s * (missed + 1)
            heapq.heappush(self._due, (group.due_s, next(self._count), key))

    def _serve(self, group: IntervalGroup) -> None:
        before, group.position = group.position, self._tape.head
        entries, counts = self._tape.latest(group.selection, before), self._hub.counts
        if entries and group.members:
            frames = [entry.frame(group.format) for entry in entries]
            data = b"".join(frames)
            for subscriber in tuple(group.members):
                written = subscriber.stream.write_now(data)
                if written == len(data):
                    counts.deliveries += len(frames)
                    counts.delivered_bytes += written
                else:
                    done = subscriber.stream.settle(frames, written)
                    counts.delivered(frames[:done])
                    self._cut_short(group, subscriber, before, entries[:done])
        for subscriber, lane in tuple(group.late.items()):
            self._serve_alone(group, subscriber, lane)

    def _cut_short(self, group: IntervalGroup, subscriber: Subscriber, before: int, done: list[Entry]) -> None:
        """A member's socket took only these entries: it falls behind, and has the others at the next moment."""
        lane = next(lane for lane in subscriber.lanes.values() if lane.group is group)
        group.fall_behind(subscriber, lane)
        lane.floor, lane.had = before, {entry.topic: entry.seq for entry in done}
        self._hub.blocked(subscriber)

    def _serve_alone(self, group: IntervalGroup, subscriber: Subscriber, lane: Lane) -> None:
        if subscriber.cursor is not None or group.due_s < lane.not_before_s:
            return
        entries = [
            entry for entry in self._tape.latest(group.selection, lane.floor) if entry.seq > lane.had_seq(entry.topic)
        ]
        lane.floor, lane.had = group.position, {}
        if subscriber.stream.fd >= 0:
            del group.late[subscriber]
            lane.late = False
            group.members.add(subscriber)
        frames = [entry.frame(group.format) for entry in entries]
        for frame in frames:
            subscriber.stream.post(frame)
        self._hub.counts.delivered(frames)
