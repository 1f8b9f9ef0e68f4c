"""Where a feed's connections hand on what they have: one sequence of events and state changes for the daemon.

Each connection has a `Side` of the `Merge`. While there is one connection, its events go straight through. While
another one takes over from it, both go through an `Overlap`, which leaves out what the other side has delivered. The
`Handover` says when that begins and ends; the events themselves never touch it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from connectors.base import Context, Event, StateChange, TopicNote
from connectors.limits.notes import NoteLimit
from connectors.push.intake import FeedStatistics
from connectors.push.once import Once
from connectors.push.overlap import Overlap, Topic
from protocol.fields import DepthFields, SnapshotFields

_BOOK: Final = (DepthFields, SnapshotFields)


class Side:
    """All that one connection talks to: a `Context`, and where it says that it will end.

    Attributes:
        notice: why the venue is about to end the connection; "" while it has not said so.
        noticed: set with the notice, and by whoever runs the connection at its end.
        restate: gives the present state of what cannot be merged event by event (`Conversation.restate`).
        must_restate: whether that goes out before anything else of these topics.
        withheld: what it reported of channels while another connection spoke for them; None once it speaks itself.
        gaps: what it noted then of topics that it has lost, until their data comes again.
    """

    def __init__(self, merge: Merge, *, speaks: bool) -> None:
        self.restate: Callable[[], list[Event]] = list
        self.must_restate = False
        self.notice = ""
        self.noticed = trio.Event()
        self.withheld: dict[str, StateChange] | None = None if speaks else {}
        self.gaps: dict[Topic, TopicNote] = {}
        self._merge = merge

    async def publish(self, events: Sequence[Event]) -> None:
        """See `Context.publish`. Events that the other side has delivered are left out."""
        await self._merge.take(self, events)

    async def report(self, change: StateChange) -> None:
        """See `Context.report`. While another connection speaks for the channel, the last report waits."""
        if self.withheld is None:
            await self._merge.context.report(change)
        else:
            self.withheld[change.channel] = change

    async def note(self, notes: Sequence[TopicNote]) -> None:
        """See `Context.note`. While another connection speaks for the channels, only what is lost is remembered.

        All else would be noted again.
        """
        if self.withheld is None:
            await self._merge.context.note(notes)
            return
        lost = [note for note in notes if note.cause == "gap" and not note.partial]
        self.gaps |= {(note.channel, note.instrument): note for note in lost}

    def now_ms(self) -> int:
        """See `Context.now_ms`."""
        return self._merge.context.now_ms()

    def announce_end(self, reason: str) -> None:
        """The venue is about to end this connection."""
        self.notice = self.notice or reason
        self.noticed.set()


class Merge:
    """The sides of one run of a feed, and what goes on to the daemon."""

    def __init__(self, context: Context, counts: FeedStatistics, once: Once | None = None) -> None:
        """`counts.duplicates` and `counts.repeats` are kept here. `once` knows the trades of former runs."""
        self.context = context
        self._once = Once(consecutive=False) if once is None else once
        self._notes = NoteLimit()
        self._counts = counts
        self._latest: dict[Topic, Event] = {}
        self._overlap: Overlap | None = None
        self._new: Side | None = None
        """In `_overlap`: the one that takes over."""
        self._lock = trio.Lock()
        """Two connections publish one after the other, in the order in which their events were sifted."""
        self._unpublished: list[Event] = []
        """Sifted, but whoever published it was cancelled: it goes before all else."""

    async def take(self, side: Side, events: Sequence[Event]) -> None:
        """Publish what a side delivered, unless the other one has delivered it."""
        try:
            # Nearly always free, and publishing is a checkpoint in any case.
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            if side.must_restate:
                side.must_restate = False
                events = [event for event in events if not isinstance(event.fields, _BOOK)] + side.restate()
            overlap = self._overlap
            if overlap is None:
                latest = self._latest
                for event in events:
                    latest[event.channel, event.instrument] = event
                await self._put_out(events)
            elif side is self._new:
                if side.withheld:
                    for event in events:
                        side.withheld.pop(event.channel, None)
                if side.gaps:
                    for event in events:
                        side.gaps.pop((event.channel, event.instrument), None)
                await self._put_out(overlap.from_new(events, trio.current_time()))
            else:
                await self._put_out(overlap.from_old(events))
        finally:
            self._lock.release()

    def begin(self, new: Side) -> Overlap:
        """From now on `new` delivers beside the other one. Returns what is known of the two, to be read."""
        overlap = self._overlap = Overlap(self._latest, self._overlap)
        self._latest = overlap.latest
        self._new = new
        return overlap

    async def release_overdue(self, overlap: Overlap) -> None:
        """Publish what has waited long enough for the old connection."""
        async with self._lock:
            await self._put_out(overlap.overdue(trio.current_time()))

    async def drop_new(self, overlap: Overlap) -> None:
        """The connection that was to take over is gone, and the old one goes on."""
        async with self._lock:
            await self._put_out(overlap.end(new_is_gone=True))

    async def drop_old(self, overlap: Overlap, new: Side, lost: Mapping[str, str]) -> None:
        """The old connection is gone; the new one goes on, and speaks for the channels.

        `lost` tells channels that depended on the old one, and why: those that the new one has not delivered yet are
        reported as `reconnecting`.
        """
        async with self._lock:
            await self._put_out(overlap.end(new_is_gone=False))
            new.must_restate = True
            delivered = {channel for channel, _ in overlap.met}
            for channel, reason in lost.items():
                if channel not in delivered:
                    await self.context.report(StateChange(channel, "reconnecting", reason))
            while new.withheld:
                await self.context.report(new.withheld.popitem()[1])
            new.withheld = None
            if new.gaps:
                await self.context.note(list(new.gaps.values()))
                new.gaps = {}

    async def _put_out(self, events: Sequence[Event]) -> None:
        """Publish what has been sifted; only with the lock."""
        overlap = self._overlap
        if overlap is not None:
            self._counts.duplicates += overlap.dropped
            overlap.dropped = 0
            if overlap.is_over:
                self._overlap = self._new = None
        admitted, notes = self._once.admit(events)
        self._counts.repeats = self._once.repeats
        self._unpublished += admitted
        if due := self._notes.due(notes, trio.current_time()):
            await self.context.note(due)
        if self._unpublished:
            await self.context.publish(self._unpublished)
            self._unpublished = []
