"""From the tape to the clients' sockets.

The system call that hands bytes to a socket is the cost of fan-out; the way below does next to nothing else per client.

1. The bus hands over what a pass appended (`follow`). Clients with the same topics and the same format form a *group*:
   the group's new frames are joined once, and every client of the group that is caught up gets these bytes by one
   non-blocking write to its file descriptor.
2. A client whose socket does not take all of it falls *behind*: it gets a cursor, and a task of its own (`catch_up`)
   brings it to the head again, from the tape. No client is ever waited for in the path of another.

Everything but `run` and `catch_up` is sync. That is what makes joining, resuming and catching up exact: between "the
cursor is at the head" and "so write to it directly" nothing can be published. `daemon.fanout.subscriber` has the table
of the states that a client can be in; this is the only file that moves one from a state to another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
import trio

from connectors.metric import Samples
from daemon.fanout.counts import Counts
from daemon.fanout.intervals import Intervals
from daemon.fanout.subscriber import Group, State, Subscriber
from daemon.fanout.turns import Turns
from daemon.host.clock import WallClock
from daemon.publish.bus import Appended
from daemon.tape.cursor import Chunk, Cursor, Place, had_now
from daemon.tape.gaps import Ledger
from daemon.tape.tape import Entry, Tape, Topic, selects
from protocol.messages import Format, Lagged
from protocol.session import Selection

_CHUNK_BYTES: Final = 64 * 1024
"""Frames joined for one write to a client that is behind: about what a socket takes at once."""

_SHORT_BYTES: Final = 16 * 1024
"""A stretch that reached the tape's head is made anew when the tape has grown since, unless it is longer than this."""

_CHUNKS_KEPT: Final = 32
"""Joined stretches of the tape that are kept for the next client to come by, with their frames: 4 MiB at most."""

_LAGGED: Final = "clients read more slowly than the tape turns over: each was told how much it missed"


class Statistics(msgspec.Struct, frozen=True):
    """Who is here: clients, those of them that are behind, and groups of those that get the same bytes."""

    subscribers: int
    behind: int
    groups: int


class Hub:
    """The fan-out. One per process, called synchronously by the bus and by sessions; a `Follower` of the bus."""

    def __init__(
        self, tape: Tape, ledger: Ledger, clock: WallClock, write: Callable[[int, bytes], int] = os.write
    ) -> None:
        """`write` is `os.write` but in tests: it raises OSError where the socket takes nothing."""
        self.counts = Counts()
        self.intervals = Intervals(tape, self.counts, self.blocked)
        self._tape = tape
        self._ledger = ledger
        self._clock = clock
        self._write = write
        self._turns = Turns()
        self._clients: set[Subscriber] = set()
        self._behind: set[Subscriber] = set()
        self._groups: dict[tuple[Format, Selection], Group] = {}
        self._routes: dict[Topic, list[Group]] = {}
        self._chunks: dict[tuple[Place, Format], Chunk] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve what clients take at intervals, and give those that are behind their turns, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.intervals.run)
            await nursery.start(self._turns.run)
            task_status.started()

    # ---- the clients that are caught up ------------------------------------------------------------------------------

    def follow(self, appended: Appended) -> None:
        """Write new entries to every client that takes them and is caught up."""
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
        """Write these entries to each client of the group; `before` is where they all were."""
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
        """Caught up from now on. It takes what its `selection` says, which for a new client is `NOTHING`.

        `is_client`: whether it is counted; the canary is not.
        """
        if is_client:
            self._clients.add(subscriber)
        subscriber.move(State.CAUGHT_UP)
        self._enter_group(subscriber)
        if subscriber.stream.pending:
            self.blocked(subscriber)

    def detach(self, subscriber: Subscriber) -> None:
        """A client is gone; to be called before its file descriptor is closed. Doing so twice changes nothing."""
        self._clients.discard(subscriber)
        self._leave_group(subscriber)
        self._forget_cursor(subscriber)
        self.intervals.leave_all(subscriber)
        subscriber.move(State.DETACHED)

    def blocked(self, subscriber: Subscriber) -> None:
        """Its socket did not take all of something else than a pass's frames: a reply, a pong, a snapshot."""
        if subscriber.state is State.CAUGHT_UP:
            self._fall_behind(subscriber, self._tape.head, (), 0)

    def resume(self, subscriber: Subscriber, topics: Selection, after: int, shown: Iterable[Entry]) -> None:
        """Put it back to where it was on these topics, and before these newest messages of others."""
        if subscriber.state is State.CAUGHT_UP:
            self._fall_behind(subscriber, self._tape.head, (), 0)
        if subscriber.cursor is not None:
            subscriber.cursor.resume(self._tape, topics, after, shown)

    def select(self, subscriber: Subscriber, selection: Selection) -> None:
        """It takes this message by message from now on; its state stays."""
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
        """A caught-up client got only the first `done` of these entries; before them it was at `before`."""
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
        """Write what is next for a client that is behind and has nothing pending; or find that it has caught up.

        There is no checkpoint between that finding and the first pass that writes to the client directly.
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
        if cursor.position >= self._tape.head and not subscriber.stream.pending:
            self._forget_cursor(subscriber)
            subscriber.move(State.CAUGHT_UP)
            self._enter_group(subscriber)

    async def catch_up(self, subscriber: Subscriber) -> None:
        """Bring a client that is behind to the tape's head. Waits only for this client's own socket, and for its turn.

        Ends when it has caught up or is detached; detaches it where its connection is broken. If cancelled, it is still
        behind.
        """
        stream = subscriber.stream
        try:
            while subscriber.state is State.BEHIND:
                if stream.full or stream.pending:
                    await stream.flush()
                # A socket that took all of the last stretch is not asked again before the next.
                await self._turns.wait()
                began_s = time.perf_counter()
                if not stream.pending:
                    self.advance(subscriber)
                self._turns.took(time.perf_counter() - began_s)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.detach(subscriber)  # whoever reads from the client finds out as well, and ends the session

    def _forget_cursor(self, subscriber: Subscriber) -> None:
        """Its place is the head, or nowhere. What was made for those who are behind goes with the last of them."""
        subscriber.cursor = None
        self._behind.discard(subscriber)
        if not self._behind:
            self._chunks.clear()

    # ---- the clients that are behind ---------------------------------------------------------------------------------

    def _next_chunk(self, cursor: Cursor, format: Format) -> Chunk:
        """What comes next for a client that is behind; the same object for all who are at the same place."""
        key = (cursor.place, format)
        chunk = self._chunks.get(key)
        if chunk is None or (chunk.to_head and chunk.reaches < self._tape.head and len(chunk.data) < _SHORT_BYTES):
            chunk = cursor.peek(self._tape, format, _CHUNK_BYTES)
            if len(self._chunks) >= _CHUNKS_KEPT:
                del self._chunks[next(iter(self._chunks))]
            self._chunks[key] = chunk
        return chunk

    def _write_chunk(self, subscriber: Subscriber, chunk: Chunk) -> int:
        """Returns how many of its entries are on their way."""
        stream = subscriber.stream
        written = stream.write_now(chunk.data)
        done = len(chunk.frames) if written == len(chunk.data) else stream.settle(chunk.frames, written)
        self.counts.delivered(chunk.frames[:done])
        return done

    def _tell_lagged(self, subscriber: Subscriber, cursor: Cursor) -> None:
        """The tape's tail has overtaken this client: say exactly what is missing, and go on with the newest state."""
        first = cursor.position + 1
        missed, latest = cursor.skip(self._tape)
        if missed:
            self.counts.lagged += 1
            self._ledger.note("lagged", "", self._clock.now_ms(), messages=missed, reason=_LAGGED)
            subscriber.say(
                Lagged(timestamp=self._clock.timestamp(), missed=missed, from_seq=first, to_seq=self._tape.head)
            )
        for entry in latest:
            subscriber.stream.post(entry.frame(subscriber.format))

    def tell_lagged(self, subscriber: Subscriber) -> None:
        """Tell a client now what it has missed, if the tape's tail has overtaken it."""
        if subscriber.cursor is not None and subscriber.cursor.overtaken(self._tape):
            self._tell_lagged(subscriber, subscriber.cursor)

    # ---- groups ------------------------------------------------------------------------------------------------------

    def _enter_group(self, subscriber: Subscriber) -> None:
        """From now on each pass writes to it."""
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
        """It is no longer written to directly. A group without members is forgotten."""
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
        """Who is here."""
        return Statistics(len(self._clients), len(self._behind), len(self._groups))

    def measure(self, samples: Samples) -> None:
        """Add what was delivered, and who is here."""
        self.counts.measure(samples)
        samples.value("tickerd_clients_behind", "Clients that are being brought to the tape's head.", len(self._behind))
        samples.value("tickerd_groups", "Groups of clients that get the same bytes.", len(self._groups))
