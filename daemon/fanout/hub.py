"""From normalised events to the clients' sockets: stamp, encode once, frame once, append to the tape, write.

The system call that hands bytes to a socket is the cost of fan-out; the way below does next to nothing else per client.

1. One *pass* takes what is ready, works on it without a checkpoint in between, and so nothing can change meanwhile.
2. Clients with the same topics and the same format form a *group*. A pass joins the group's new frames once, and every
   client of the group that is caught up gets these bytes by one non-blocking write to its file descriptor.
3. A client whose socket does not take all of it falls *behind*: it gets a cursor, and its session's catch-up task
   brings it to the head again, from the tape (`advance`). No client is ever waited for in the path of another.
4. Between two passes the hub *rests* in proportion to what the last one cost: the first message after a pause leaves at
   once, and under load the batches grow by themselves, so that the cost per delivery falls as the load rises.

Everything but `run` is sync. That is what makes joining, resuming and catching up exact: between "the cursor is at the
head" and "so write to it directly" nothing can be published.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import trio

from connectors.base import Event, StateChange
from daemon.fanout.counts import Counts, Statistics, Turn
from daemon.fanout.counts import Pace as Pace
from daemon.fanout.group import Group
from daemon.fanout.intervals import Intervals
from daemon.fanout.stamp import stamped
from daemon.fanout.subscriber import Subscriber
from daemon.health.board import Board, Verdict, status
from daemon.host.clock import WallClock
from daemon.tape.cursor import Chunk, Cursor, had_now
from daemon.tape.gaps import Ledger
from daemon.tape.tape import NOTICE, STATUS, Entry, Tape, Topic, selects
from protocol.channels import Catalogue
from protocol.messages import Format, Lagged, Test, encode
from protocol.session import ALL, Selection

Item: TypeAlias = Sequence[Event] | StateChange | Turn
"""What comes through the memory channel: from the connectors, and what is to happen in order with that."""

_WRITE_BYTES = 64 * 1024
"""Frames joined for one write: about what a socket takes at once, so that a burst leaves nobody behind who keeps up."""

_CHUNKS_KEPT = 32
"""Joined stretches of the tape that are kept for the next client to come by, with their frames: 4 MiB at most."""

_REFUSED = "messages of an unknown channel, or with a price that is no number"
_LAGGED = "clients read more slowly than the tape turns over: each was told how much it missed"


class Hub:
    """The fan-out. One per process; owned by one task (`run`), called synchronously by sessions and routes."""

    def __init__(
        self,
        tape: Tape,
        board: Board,
        catalogue: Catalogue,
        clock: WallClock,
        pace: Pace,
        write: Callable[[int, bytes], int] = os.write,
        ledger: Ledger | None = None,
    ) -> None:
        """`write` is `os.write` but in tests: it raises OSError where the socket takes nothing."""
        self.tape = tape
        self.board = board
        self.catalogue = catalogue
        self.clock = clock
        self.ledger = Ledger() if ledger is None else ledger
        self.pace = pace
        self._write = write
        self._groups: dict[tuple[Format, Selection], Group] = {}
        self._routes: dict[Topic, list[Group]] = {}
        self._subscribers: set[Subscriber] = set()
        self.counts = Counts()
        self._fresh_bytes = 0
        self._behind: set[Subscriber] = set()
        self._chunks: dict[tuple[Selection, Format, int], Chunk] = {}
        self.room: Callable[[], Awaitable[None]] | None = None
        """Waits until the tape has positions for another pass; None where it always has."""
        self.intervals = Intervals(tape, self)

    # ---- the passes ---------------------------------------------------------------------------------------------

    async def run(
        self,
        inbox: trio.MemoryReceiveChannel[Item],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Publish what the connectors send, until the memory channel ends or this is cancelled.

        If cancelled, what it has taken out of the memory channel is on the tape and written.
        """
        task_status.started()
        rested_s = -math.inf
        async for item in inbox:
            try:
                if trio.current_time() < rested_s:
                    await trio.sleep_until(rested_s)
            except trio.Cancelled:
                self.publish([item])
                raise
            batch = [item]
            events = len(item) if isinstance(item, Sequence) else 1
            while events < self.pace.batch_events:
                try:
                    item = inbox.receive_nowait()
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
                batch.append(item)
                events += len(item) if isinstance(item, Sequence) else 1
            began_s = time.perf_counter()
            self.publish(batch)
            took_s = time.perf_counter() - began_s
            self.counts.batches.add(events)
            self.counts.turns_s.add(took_s)
            rest_s = min(took_s * self.pace.rest_ratio, self.pace.rest_max_s)
            rested_s = trio.current_time() + rest_s
            if self.room is not None:
                await self.room()

    def publish(self, batch: Sequence[Item | Verdict]) -> None:
        """One pass: everything of the batch goes onto the tape, and to every client that is caught up."""
        head = self.tape.head
        touched: list[Group] = []
        now_ms = self.clock.now_ms()
        timestamp = self.clock.iso(now_ms)
        for item in batch:
            if isinstance(item, StateChange | Verdict):
                if (state := self.board.apply(item, now_ms)) is not None:
                    self.ledger.channel(item.channel, self.board.state(item.channel), now_ms)
                    payload = encode(status(item.channel, state, self.clock, timestamp))
                    self._append((item.channel, STATUS), payload, touched)
            elif isinstance(item, Turn):
                self._flush(touched, head)
                item.act()
                touched, head = [], self.tape.head
            else:
                for event in item:
                    self._stamp(event, timestamp, touched)
                    if self._fresh_bytes >= _WRITE_BYTES:
                        self._flush(touched, head)
                        touched, head = [], self.tape.head
        self._flush(touched, head)

    def broadcast_test(self, message: str) -> int:
        """Send a `test` message to every client. Returns how many there are."""
        self.tell(NOTICE, encode(Test(timestamp=self.clock.timestamp(), message=message)))
        return len(self._subscribers)

    def tell(self, topic: Topic, payload: bytes) -> None:
        """Put a message that is no data on the tape, and write it at once to whoever takes its topic."""
        touched, head = list[Group](), self.tape.head
        self._append(topic, payload, touched)
        self._flush(touched, head)

    def _stamp(self, event: Event, timestamp: str, touched: list[Group]) -> None:
        """An event becomes a message with its place on the tape.

        One of an unknown channel, or with a price that is no number, is refused and counted: one connector's fault must
        not end the fan-out of all.
        """
        topic, channel = (event.channel, event.instrument), self.catalogue.get(event.channel)
        try:
            place = self.tape.head + 1, self.tape.last_seq(topic)
            payload = b"" if channel is None else stamped(event, channel, timestamp, *place)
        except ValueError:
            payload = b""
        if not payload:
            self.counts.refused += 1
            self.ledger.note("refused", event.channel, self.clock.now_ms(), reason=_REFUSED)
            return
        self.counts.events += 1
        self.board.saw(event)
        if self._append(topic, payload, touched) and not event.cached:
            self.counts.taken_ms.append(event.received_ms)

    def _append(self, topic: Topic, payload: bytes, touched: list[Group]) -> bool:
        """Put it on the tape. Returns whether a client takes it that is caught up."""
        entry = self.tape.append(topic, payload)
        self._fresh_bytes += len(payload)
        groups = self._routes.get(topic)
        if groups is None:
            groups = self._routes[topic] = [g for g in self._groups.values() if selects(g.selection, topic)]
        for group in groups:
            if not group.fresh:
                touched.append(group)
            group.fresh.append(entry)
        return bool(groups)

    def _flush(self, touched: list[Group], head: int) -> None:
        """Write each group's new frames to its clients. `head` is where they were before."""
        counts = self.counts
        counts.passes += 1
        self._fresh_bytes = 0
        for group in touched:
            entries, group.fresh = group.fresh, []
            frames = [entry.frame(group.format) for entry in entries]
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            size, write = len(data), self._write
            short: list[tuple[Subscriber, int]] = []
            for fd, subscriber in group.members.items():
                try:
                    written = write(fd, data)
                except OSError:  # full, or broken: either way nothing was taken, and its catch-up task finds out why
                    written = 0
                if written != size:
                    short.append((subscriber, written))
            counts.deliveries += len(group.members) * len(frames)
            counts.delivered_bytes += len(group.members) * size
            for subscriber, written in short:
                done = subscriber.stream.settle(frames, written)
                counts.deliveries -= len(frames) - done  # those are counted when they are written
                counts.delivered_bytes -= sum(map(len, frames[done:]))
                self._fall_behind(subscriber, head, entries, done)
            for subscriber in tuple(group.parked):
                self._fall_behind(subscriber, head, entries, 0)
        if counts.taken_ms:
            counts.written(self.clock.now_ms())

    def _fall_behind(self, subscriber: Subscriber, head: int, entries: Sequence[Entry], done: int) -> None:
        """A caught-up client got only the first `done` of these entries; before them it was at `head`."""
        had = had_now(self.tape, subscriber.selection)
        for entry in reversed(entries[done:]):
            had[entry.topic] = entry.ordinal - 1
        position = self.tape.head if done == len(entries) else entries[done - 1].seq if done else head
        self.leave_group(subscriber)
        subscriber.cursor = Cursor(subscriber.selection, position, had)
        self._behind.add(subscriber)
        for lane in subscriber.lanes.values():
            lane.group.fall_behind(subscriber, lane)
        subscriber.stream.stalled()
        subscriber.wake()

    # ---- the clients that are behind ------------------------------------------------------------------------------

    def blocked(self, subscriber: Subscriber) -> None:
        """Its socket did not take all of something else than a pass's frames: a reply, a pong, a snapshot."""
        if subscriber.cursor is None and subscriber.group is not None:
            self._fall_behind(subscriber, self.tape.head, (), 0)

    def advance(self, subscriber: Subscriber) -> bool:
        """Write what is next for a client that is behind; its socket is writable, as far as is known.

        Returns:
            False where it has caught up and is written to directly from now on; there is no checkpoint between that
            test and the return. True where there is more to do, once its socket is writable again.
        """
        cursor, stream = subscriber.cursor, subscriber.stream
        if cursor is None:
            return False
        if cursor.overtaken(self.tape):
            self._tell_lagged(subscriber, cursor)
            return True
        chunk = self._next_chunk(cursor, subscriber.format)
        if not chunk.entries:
            cursor.advance(chunk, 0)
            if cursor.position < self.tape.head:
                return True
            self._forget_cursor(subscriber)
            self.enter_group(subscriber)
            return False
        if stream.fd < 0:
            stream.pending.extend(chunk.frames)
            done = len(chunk.frames)
        else:
            written = stream.write_now(chunk.data)
            done = len(chunk.frames) if written == len(chunk.data) else stream.settle(chunk.frames, written)
        self.counts.delivered(chunk.frames[:done])
        cursor.advance(chunk, done)
        return True

    def _forget_cursor(self, subscriber: Subscriber) -> None:
        """Its place is the head, or nowhere. What was made for those who are behind goes with the last of them."""
        subscriber.cursor = None
        self._behind.discard(subscriber)
        if not self._behind:
            self._chunks.clear()

    def _next_chunk(self, cursor: Cursor, format: Format) -> Chunk:
        """What comes next for a client that is behind; the same object for all who are at the same place."""
        if cursor.position < cursor.settled:
            return cursor.peek(self.tape, format, _WRITE_BYTES)
        place = (cursor.selection, format, cursor.position)
        chunk = self._chunks.get(place)
        if chunk is None:
            chunk = cursor.peek(self.tape, format, _WRITE_BYTES)
            if chunk.reaches < self.tape.head:  # at the head there may be more in a moment
                if len(self._chunks) >= _CHUNKS_KEPT:
                    self._chunks.clear()
                self._chunks[place] = chunk
        return chunk

    def _tell_lagged(self, subscriber: Subscriber, cursor: Cursor) -> None:
        """The tape's tail has overtaken this client: say exactly what is missing, and go on with the newest state."""
        first = cursor.position + 1
        missed, latest = cursor.skip(self.tape)
        if missed:
            self.counts.lagged += 1
            self.ledger.note("lagged", "", self.clock.now_ms(), messages=missed, reason=_LAGGED)
            subscriber.say(
                Lagged(timestamp=self.clock.timestamp(), missed=missed, from_seq=first, to_seq=self.tape.head)
            )
        for entry in latest:
            subscriber.stream.post(entry.frame(subscriber.format))

    # ---- who is where ---------------------------------------------------------------------------------------------

    def attach(self, subscriber: Subscriber) -> None:
        """A new client. It takes nothing yet but what is sent to everybody."""
        self._subscribers.add(subscriber)
        self.enter_group(subscriber)

    def detach(self, subscriber: Subscriber) -> None:
        """A client is gone; to be called before its file descriptor is closed. Doing so twice changes nothing."""
        self._subscribers.discard(subscriber)
        self.leave_group(subscriber)
        self._forget_cursor(subscriber)
        for lane in subscriber.lanes.values():
            self.intervals.leave(subscriber, lane)
        subscriber.lanes.clear()

    def enter_group(self, subscriber: Subscriber) -> None:
        """A client whose place is the head: from now on each pass writes to it."""
        key = (subscriber.format, subscriber.selection)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(*key)
            for topic, groups in self._routes.items():
                if selects(group.selection, topic):
                    groups.append(group)
        subscriber.group = group
        subscriber.fd = subscriber.stream.fd
        if subscriber.fd >= 0:
            group.members[subscriber.fd] = subscriber
        else:
            group.parked.add(subscriber)
        if subscriber.stream.pending:
            self.blocked(subscriber)

    def leave_group(self, subscriber: Subscriber) -> None:
        """A client that is no longer written to directly. A group without members is forgotten."""
        group = subscriber.group
        if group is None:
            return
        subscriber.group = None
        group.parked.discard(subscriber)
        group.members.pop(subscriber.fd, None)
        if not group.members and not group.parked:
            del self._groups[group.format, group.selection]
            for topic, groups in self._routes.items():
                if selects(group.selection, topic):
                    groups.remove(group)

    def latest(self, channel: str, instrument: str | None = None) -> list[bytes]:
        """The latest message of each topic of a channel, as JSON, for `GET /snapshot`."""
        selection = frozenset({(channel, ALL if instrument is None else instrument)})
        return [entry.payload for entry in self.tape.latest(selection)]

    def statistics(self) -> Statistics:
        """What happened since the start, and who is here."""
        counts = self.counts
        return Statistics(
            events=counts.events,
            refused=counts.refused,
            passes=counts.passes,
            deliveries=counts.deliveries,
            delivered_bytes=counts.delivered_bytes,
            lagged=counts.lagged,
            subscribers=len(self._subscribers),
            behind=len(self._behind),
            groups=len(self._groups),
        )
