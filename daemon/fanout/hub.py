"""The hub: writes the tape's entries to the clients' sockets.

The system call that hands bytes to a socket is the main cost of fan-out; the hub does hardly anything else per client:

1. The bus hands over the entries that a pass appended (`follow`). Clients with the same topics and the same format form
   a *group*: the group's new frames are joined once, and each caught-up client of the group gets these bytes by one
   non-blocking write to its file descriptor.
2. A client whose socket does not take all bytes falls *behind*: it gets a cursor, and is brought back to the head from
   the tape. A task of its own waits for its socket (`catch_up`); one queue shares the time between all of them
   (`daemon.fanout.steps`). No client ever waits for another one's socket.

Everything but `run` and `catch_up` is sync. That makes joining, resuming and catching up exact: nothing can be
published between the check that the cursor is at the head and the switch to direct writes. `daemon.fanout.subscriber`
has the table of a client's states; only this file moves a client from one state to another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from connectors.metric import Samples
from daemon.fanout.counts import Counts
from daemon.fanout.intervals import Intervals
from daemon.fanout.steps import Steps
from daemon.fanout.subscriber import Group, State, Subscriber
from daemon.host.clock import WallClock
from daemon.publish.bus import Appended
from daemon.tape.cursor import Chunk, Cursor, Place, had_now
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Entry, Tape, Topic, selects
from protocol.messages import Format, Lagged
from protocol.session import Selection

_CHUNK_BYTES: Final = 128 * 1024
"""Frames joined for one write to a client that is behind. A full chunk of usual messages (`CHUNK_ENTRIES`) fits."""

_SHORT_BYTES: Final = 16 * 1024
"""A chunk that ended at the tape's head is built again when the tape has grown, unless it is longer than this."""

_CHUNKS_KEPT: Final = 32
"""So many chunks are kept for further clients at the same place: 8 MiB at most, their frames included."""

_LAGGED: Final = "clients read more slowly than the tape turns over: each was told how much it missed"


class Statistics(msgspec.Struct, frozen=True):
    """How many clients there are, how many of them are behind, and how many groups get the same bytes."""

    subscribers: int
    behind: int
    groups: int


class Hub:
    """The fan-out. One per process, called synchronously by the bus and by sessions; a `Follower` of the bus."""

    def __init__(
        self, tape: Tape, ledger: Ledger, clock: WallClock, write: Callable[[int, bytes], int] = os.write
    ) -> None:
        """`write` is `os.write` except in tests: it raises OSError if the socket takes nothing."""
        self.counts = Counts()
        self.intervals = Intervals(tape, self.counts, self.blocked)
        self._tape = tape
        self._ledger = ledger
        self._clock = clock
        self._write = write
        self._steps = Steps()
        self._clients: set[Subscriber] = set()
        self._behind: set[Subscriber] = set()
        self._groups: dict[tuple[Format, Selection], Group] = {}
        self._routes: dict[Topic, list[Group]] = {}
        self._chunks: dict[tuple[Place, Format], Chunk] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the clients that take messages at intervals, and take the steps of those behind, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.intervals.run)
            await nursery.start(self._steps.run)
            task_status.started()

    # ---- the clients that are caught up ------------------------------------------------------------------------------

    def follow(self, appended: Appended) -> None:
        """Write new entries to every caught-up client that takes them."""
        counts, routes = self.counts, self._routes
        counts.passes += 1
        touched: list[Group] = []
        received: list[int] = []
        for entry, received_ms in zip(appended.entries, appended.received_ms, strict=True):
            groups = routes.get(entry.topic)
            if groups is None:
                groups = routes[entry.topic] = [g for g in self._groups.values() if selects(g.selection, entry.topic)]
            if groups:
                if received_ms:
                    received.append(received_ms)
                for group in groups:
                    if not group.fresh:
                        touched.append(group)
                    group.fresh.append(entry)
        for group in touched:
            entries, group.fresh = group.fresh, []
            self._deliver(group, entries, appended.before)
        if received:
            counts.written(received, self._clock.now_ms())

    def _deliver(self, group: Group, entries: Sequence[Entry], before: int) -> None:
        """Write these entries to each client of the group; `before` is the position of all of them until now."""
        counts, write = self.counts, self._write
        frames = [entry.frame(group.format) for entry in entries]
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        size = len(data)
        short: list[tuple[Subscriber, int]] = []
        for fd, subscriber in group.members.items():
            try:
                written = write(fd, data)
            except OSError:  # full, or broken: either way nothing was taken, and its catch-up task finds out why
                written = 0
            if written != size:
                short.append((subscriber, written))
        for subscriber in group.indirect:
            written = subscriber.stream.write_now(data)
            if written != size or subscriber.stream.pending:
                short.append((subscriber, written))
        clients = len(group.members) + len(group.indirect)
        counts.deliveries += clients * len(frames)
        counts.delivered_bytes += clients * size
        for subscriber, written in short:
            done = subscriber.stream.settle(frames, written)
            counts.deliveries -= len(frames) - done  # those are counted when they are written
            counts.delivered_bytes -= sum(map(len, frames[done:]))
            self._fall_behind(subscriber, before, entries, done)

    # ---- from one state to another -----------------------------------------------------------------------------------

    def attach(self, subscriber: Subscriber, *, is_client: bool = True) -> None:
        """Add a subscriber, caught up. It takes the topics of its `selection`, which for a new client is `NOTHING`.

        `is_client`: whether to count it as a client; the canary is not counted.
        """
        if is_client:
            self._clients.add(subscriber)
        subscriber.move(State.CAUGHT_UP)
        self._enter_group(subscriber)
        if subscriber.stream.pending:
            self.blocked(subscriber)

    def detach(self, subscriber: Subscriber) -> None:
        """Remove a client. Call this before its file descriptor is closed; a second call does nothing."""
        self._clients.discard(subscriber)
        self._leave_group(subscriber)
        self._forget_cursor(subscriber)
        self.intervals.leave_all(subscriber)
        subscriber.move(State.DETACHED)

    def blocked(self, subscriber: Subscriber) -> None:
        """Its socket did not take all bytes of a write outside the passes: a reply, a pong, a snapshot."""
        if subscriber.state is State.CAUGHT_UP:
            self._fall_behind(subscriber, self._tape.head, (), 0)

    def resume(
        self, subscriber: Subscriber, topics: Selection, after: int, shown: Iterable[Entry], *, early: bool
    ) -> None:
        """Move it back to `after` on these topics; of other topics, the messages in `shown` are still to come.

        `early`: it will be sent messages beyond `after` at once, because they do not stand on the tape any more.
        """
        if subscriber.state is State.CAUGHT_UP:
            self._fall_behind(subscriber, self._tape.head, (), 0)
        if subscriber.cursor is not None:
            subscriber.cursor.resume(self._tape, topics, after, shown)
            subscriber.cursor.early = subscriber.cursor.early or early

    def select(self, subscriber: Subscriber, selection: Selection) -> None:
        """From now on it takes this selection message by message; its state does not change."""
        if selection == subscriber.selection:
            return
        if subscriber.cursor is not None:
            subscriber.selection = selection
            subscriber.cursor = subscriber.cursor.selecting(self._tape, selection)
        elif subscriber.group is not None:
            self._leave_group(subscriber)
            subscriber.selection = selection
            self._enter_group(subscriber)

    def _fall_behind(self, subscriber: Subscriber, before: int, entries: Sequence[Entry], done: int) -> None:
        """A caught-up client at `before` got only the first `done` of these entries."""
        had = had_now(self._tape, subscriber.selection)
        for entry in reversed(entries[done:]):
            had[entry.topic] = entry.ordinal - 1
        position = self._tape.head if done == len(entries) else entries[done - 1].seq if done else before
        self._leave_group(subscriber)
        subscriber.cursor = Cursor(subscriber.selection, position, had)
        self._behind.add(subscriber)
        self.intervals.set_apart(subscriber)
        subscriber.stream.stalled()
        subscriber.move(State.BEHIND)
        subscriber.wake()

    def advance(self, subscriber: Subscriber) -> None:
        """Write the next chunk for a client that is behind and has nothing pending; move it if it has caught up.

        There is no checkpoint between that check and the first pass that writes to the client directly.
        """
        cursor = subscriber.cursor
        if cursor is None:
            return
        if cursor.overtaken(self._tape):
            self._tell_lagged(subscriber, cursor)
        elif (chunk := self._next_chunk(cursor, subscriber.format)).entries:
            cursor.advance(chunk, self._write_chunk(subscriber, chunk))
        else:
            cursor.advance(chunk, 0)
        at_head = cursor.position >= self._tape.head
        if at_head and cursor.early and not subscriber.stream.pending:
            cursor.early = False
            if not subscriber.intervals:
                subscriber.mark(self._tape)
        if at_head and not subscriber.stream.pending:
            self._forget_cursor(subscriber)
            subscriber.move(State.CAUGHT_UP)
            self._enter_group(subscriber)

    async def catch_up(self, subscriber: Subscriber) -> None:
        """Bring a client that is behind to the tape's head. Waits only for the client's own socket, and for its turn.

        Returns when the client has caught up or is detached; detaches it if its connection is broken. If cancelled, the
        client is still behind.
        """
        stream = subscriber.stream
        try:
            while subscriber.state is State.BEHIND:
                if stream.full or stream.pending:
                    await stream.flush()
                await self._steps.take(partial(self._step, subscriber))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.detach(subscriber)  # the reader of the connection sees the error, too, and ends the session

    def _step(self, subscriber: Subscriber) -> bool:
        """Write its next chunk. Returns whether it can be written another one at once: its socket took this one whole.

        So a client that reads fast is not asked after each chunk whether its socket takes bytes.
        """
        stream = subscriber.stream
        if not stream.pending:
            self.advance(subscriber)
        return subscriber.state is State.BEHIND and not stream.full and not stream.pending

    def _forget_cursor(self, subscriber: Subscriber) -> None:
        """Drop the cursor. With the last client that is behind, drop the kept chunks, too."""
        subscriber.cursor = None
        self._behind.discard(subscriber)
        if not self._behind:
            self._chunks.clear()

    # ---- the clients that are behind ---------------------------------------------------------------------------------

    def _next_chunk(self, cursor: Cursor, format: Format) -> Chunk:
        """The next chunk for a client that is behind; clients at the same place get the same object."""
        key = (cursor.place, format)
        chunk = self._chunks.get(key)
        if chunk is None or (chunk.to_head and chunk.reaches < self._tape.head and len(chunk.data) < _SHORT_BYTES):
            chunk = cursor.peek(self._tape, format, _CHUNK_BYTES)
            if len(self._chunks) >= _CHUNKS_KEPT:
                del self._chunks[next(iter(self._chunks))]
            self._chunks[key] = chunk
        return chunk

    def _write_chunk(self, subscriber: Subscriber, chunk: Chunk) -> int:
        """Write the chunk. Returns how many of its entries are on their way."""
        stream = subscriber.stream
        written = stream.write_now(chunk.data)
        done = len(chunk.frames) if written == len(chunk.data) else stream.settle(chunk.frames, written)
        self.counts.deliveries += done
        self.counts.delivered_bytes += chunk.size_bytes(done)
        return done

    def _tell_lagged(self, subscriber: Subscriber, cursor: Cursor) -> None:
        """Messages left the tape that this client has not had: tell it exactly how many, then send the newest state."""
        # An event stream resumes from one position for all of its channels, so there everything comes in order.
        skipped = cursor.skip(self._tape, in_order=subscriber.format is Format.SSE)
        missed = {channel: count for channel, count in skipped.missed.items() if count}
        if missed:
            total = sum(missed.values())
            self.counts.lagged += 1
            self._ledger.note("lagged", "", self._clock.now_ms(), messages=total, reason=_LAGGED)
            subscriber.say(
                Lagged(
                    timestamp=self._clock.timestamp(),
                    missed=total,
                    from_seq=skipped.after + 1,
                    to_seq=self._tape.head,
                    by_channel=missed,
                )
            )
        # Who is cut off in the midst of a state of several messages has not had it: it has no position within.
        subscriber.show(skipped.latest, upto=0 if self._tape.shows_changes(skipped.latest) else cursor.position)

    def tell_lagged(self, subscriber: Subscriber) -> None:
        """Tell a client now what it has missed, if it has been overtaken."""
        if subscriber.cursor is not None and subscriber.cursor.overtaken(self._tape):
            self._tell_lagged(subscriber, subscriber.cursor)

    # ---- groups ------------------------------------------------------------------------------------------------------

    def _enter_group(self, subscriber: Subscriber) -> None:
        """Put it into its group: from now on each pass writes to it."""
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
            group.indirect.add(subscriber)

    def _leave_group(self, subscriber: Subscriber) -> None:
        """Take it out of its group: passes no longer write to it. An empty group is removed."""
        group = subscriber.group
        if group is None:
            return
        subscriber.group = None
        group.indirect.discard(subscriber)
        group.members.pop(subscriber.fd, None)
        if not group.members and not group.indirect:
            del self._groups[group.format, group.selection]
            for topic, groups in self._routes.items():
                if selects(group.selection, topic):
                    groups.remove(group)

    def statistics(self) -> Statistics:
        """How many clients there are, how many are behind, and how many groups."""
        return Statistics(len(self._clients), len(self._behind), len(self._groups))

    def measure(self, samples: Samples) -> None:
        """Add the deliveries, the clients behind and the groups."""
        self.counts.measure(samples)
        samples.value("tickerd_clients_behind", "Clients that are being brought to the tape's head.", len(self._behind))
        samples.value("tickerd_groups", "Groups of clients that get the same bytes.", len(self._groups))
