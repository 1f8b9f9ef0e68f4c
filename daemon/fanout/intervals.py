"""Conflation: a client that chose an `interval_ms` gets only the newest message of each topic per interval.

Clients with the same topics, format and interval share a *group*, and with it one timer and one joined buffer, as in
`daemon.fanout.hub`. A client is first due one interval after it subscribes. Due times are rounded up to sixteenths of
the interval, so that clients can share timers.

A client cannot fall behind here: if its socket is full at one due time, it gets the newest messages at the next.
`prev_seq` shows which messages were skipped, as the client asked.

If more is due than there is time for, groups are served late, but nothing else is delayed: the timer works in short
steps, and rests after each in proportion to how long it took, as the sequencer does.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from typing import Final, TypeAlias

import trio

from daemon.fanout.counts import Counts
from daemon.fanout.subscriber import IntervalGroup, Membership, Subscriber
from daemon.tape.tape import Entry, Tape, Topic, selects
from protocol.messages import Format
from protocol.session import Selection

_SLOTS: Final = 16
"""How many different due times there are within one interval."""

_SPARE: Final = 64
"""So many due times of removed groups may stay in the heap before it is rebuilt."""

_STEP_S: Final = 0.01
"""A step that has taken so long serves no other group: the others that are due wait for the next one."""

_REST_RATIO: Final = 0.5
"""The rest after a step, as a fraction of how long the step took."""

_Key: TypeAlias = tuple[Format, Selection, int, int]


class Intervals:
    """All interval groups, and the one timer for them."""

    def __init__(self, tape: Tape, counts: Counts, blocked: Callable[[Subscriber], None]) -> None:
        """`blocked` is called when a client's socket did not take all bytes."""
        self._tape = tape
        self._counts = counts
        self._blocked = blocked
        self._groups: dict[_Key, IntervalGroup] = {}
        self._due: list[tuple[float, int, _Key, IntervalGroup]] = []
        self._count = itertools.count()
        self._sooner = trio.Event()

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def next_due_s(self) -> float:
        """The next time, on trio's clock, at which `tick` has something to do; infinity if there is none."""
        return self._due[0][0] if self._due else math.inf

    def select(self, subscriber: Subscriber, wanted: dict[int, Selection], had: dict[Topic, int]) -> None:
        """From now on this client takes these selections at intervals, by `interval_ms`, and no others.

        `had`: for each topic that it already takes, the newest `seq` that it has had.
        """
        for interval_ms, membership in tuple(subscriber.intervals.items()):
            if wanted.get(interval_ms) != membership.group.selection:
                self._leave(subscriber, interval_ms)
        for interval_ms in wanted.keys() - subscriber.intervals.keys():
            selection = wanted[interval_ms]
            self._enter(subscriber, interval_ms, selection, {t: seq for t, seq in had.items() if selects(selection, t)})

    def leave_all(self, subscriber: Subscriber) -> None:
        """Stop serving this client at intervals."""
        for interval_ms in tuple(subscriber.intervals):
            self._leave(subscriber, interval_ms)

    def set_apart(self, subscriber: Subscriber) -> None:
        """This client's socket is full: serve it apart from its groups until the socket takes bytes again."""
        for membership in subscriber.intervals.values():
            membership.group.set_apart(subscriber, membership)

    def _enter(self, subscriber: Subscriber, interval_ms: int, selection: Selection, had: dict[Topic, int]) -> None:
        interval_s = interval_ms / 1000
        slot_s = interval_s / _SLOTS
        slot = math.ceil(trio.current_time() / slot_s)
        due_s = (slot + _SLOTS) * slot_s
        key = (subscriber.format, selection, interval_ms, slot % _SLOTS)
        group = self._groups.get(key)
        if group is None:
            group = IntervalGroup(key, subscriber.format, selection, interval_s, due_s, self._tape.head)
            self._groups[key] = group
            heapq.heappush(self._due, (due_s, next(self._count), key, group))
            self._sooner.set()
        # The floor must lie below every message that it has not had yet. An existing group may be due sooner than this
        # client, which was sent its newest messages just now.
        newest = {entry.topic: entry.seq for entry in self._tape.latest(selection)}
        newest.update(had)
        membership = Membership(group, due_s - slot_s / 2, min(newest.values(), default=self._tape.head), newest)
        group.late[subscriber] = membership
        subscriber.intervals[interval_ms] = membership

    def _leave(self, subscriber: Subscriber, interval_ms: int) -> None:
        """Leave one group; the last member removes the group."""
        group = subscriber.intervals.pop(interval_ms).group
        group.members.discard(subscriber)
        group.late.pop(subscriber, None)
        if group.empty:
            del self._groups[group.key]
            if len(self._due) > 2 * len(self._groups) + _SPARE:
                self._due = [due for due in self._due if self._groups.get(due[2]) is due[3]]
                heapq.heapify(self._due)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve every group when it is due, until cancelled."""
        task_status.started()
        while True:
            self._sooner = trio.Event()
            with trio.move_on_at(self.next_due_s):
                await self._sooner.wait()
            began_s = time.perf_counter()
            self.tick(trio.current_time(), began_s + _STEP_S)
            await trio.sleep((time.perf_counter() - began_s) * _REST_RATIO)

    def tick(self, now_s: float, until_s: float = math.inf) -> None:
        """Serve the groups that are due, and set when each is due next.

        At `until_s`, by `time.perf_counter`, it stops between two groups. The groups that are left stay due.
        """
        while self._due and self._due[0][0] <= now_s:
            _, _, key, group = heapq.heappop(self._due)
            if self._groups.get(key) is not group:
                continue
            self._serve(group)
            missed = max(0, math.floor((now_s - group.due_s) / group.interval_s))
            group.due_s += group.interval_s * (missed + 1)
            heapq.heappush(self._due, (group.due_s, next(self._count), key, group))
            if time.perf_counter() >= until_s:
                return

    def _serve(self, group: IntervalGroup) -> None:
        before, group.position = group.position, self._tape.head
        entries, counts = self._tape.latest(group.selection, before), self._counts
        if entries and group.members:
            frames = [entry.frame(group.format) for entry in entries]
            data = b"".join(frames)
            for subscriber in tuple(group.members):
                written = subscriber.stream.write_now(data)
                if written == len(data) and not subscriber.stream.pending:
                    counts.deliveries += len(frames)
                    counts.delivered_bytes += written
                else:
                    done = subscriber.stream.settle(frames, written)
                    counts.delivered(frames[:done])
                    self._cut_short(group, subscriber, before, entries[:done])
        for subscriber, membership in tuple(group.late.items()):
            self._serve_alone(group, subscriber, membership)

    def _cut_short(self, group: IntervalGroup, subscriber: Subscriber, before: int, done: list[Entry]) -> None:
        """A member's socket took only these entries: it falls behind, and gets the others when it is due next."""
        membership = next(each for each in subscriber.intervals.values() if each.group is group)
        group.set_apart(subscriber, membership)
        membership.floor, membership.had = before, {entry.topic: entry.seq for entry in done}
        self._blocked(subscriber)

    def _serve_alone(self, group: IntervalGroup, subscriber: Subscriber, membership: Membership) -> None:
        if subscriber.cursor is not None or group.due_s < membership.not_before_s:
            return
        entries = [
            entry
            for entry in self._tape.latest(group.selection, membership.floor)
            if entry.seq > membership.had_seq(entry.topic)
        ]
        membership.floor, membership.had = group.position, {}
        del group.late[subscriber]
        membership.late = False
        group.members.add(subscriber)
        frames = [entry.frame(group.format) for entry in entries]
        for frame in frames:
            subscriber.stream.post(frame)
        self._counts.delivered(frames)
