"""Make before break: a new connection takes over from one that is to end, and nobody notices.

A connection is to end when the venue says so or when it has the age at which it is rotated. Then another one is opened
beside it, and what both deliver becomes one sequence again in the `Overlap`. The old one is closed once the new one has
delivered every topic that the old one had. If the new one fails, the old one goes on and another is tried; if the old
one dies, the new one goes on. Only when none is left does the run end, with the reason of the last.

Tasks: one for each connection (`_run`), and the one that called `run`, which decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Final, Protocol

import trio

from connectors.backoff import Backoff
from connectors.base import ConnectorError, Context, Event, StateChange, VenueRefused, VenueTimeout, VenueUnavailable
from connectors.push.intake import FeedStatistics
from connectors.push.overlap import Overlap, Topic
from connectors.push.venue import FeedVenue

_log: Final = logging.getLogger(__name__)

PATIENCE_S: Final = 12.0
"""How long after its opening a new connection may lack what the old one delivers; a little longer than a venue may take
to answer subscriptions. What has been silent on both for so long is not waited for."""

APART_S: Final = 10.0
"""Least time between two switches: a venue that announces the end of each new connection at once is not humoured."""

_LOOK_S: Final = 0.05
"""How often two connections side by side are looked at."""


class Connection(Protocol):
    """What `Handover` runs."""

    @property
    def opened_s(self) -> float:
        """When the opening handshake was done; infinite until then."""
        ...

    @property
    def is_settled(self) -> bool:
        """Whether each subscription is acknowledged, or set aside for good."""
        ...

    async def run(self) -> ConnectorError:
        """One connection, to its end; returns why. If cancelled, it is closed within a moment."""
        ...


Connect = Callable[[Context, Callable[[str], None]], Connection]
"""Makes a connection that publishes and reports through the context, and calls the function when its end is near."""


class _Turn:
    """One connection while it runs, and its way out: the `Context` that it is given."""

    def __init__(self, handover: Handover, connect: Connect, *, beside_another: bool) -> None:
        self.began_s = trio.current_time()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.error: ConnectorError | None = None
        self.notice = ""
        self.stirred = trio.Event()
        """There was a notice, or it has ended."""
        self.withheld: dict[str, StateChange] | None = {} if beside_another else None
        """What it would tell of channels, while it is not the one that tells."""
        self._handover = handover
        self.connection = connect(self, self._noticed)

    async def publish(self, events: Sequence[Event]) -> None:
        await self._handover.publish(self, events)

    async def report(self, change: StateChange) -> None:
        if self.withheld is None:
            await self._handover.context.report(change)
        else:
            self.withheld[change.channel] = change

    def now_ms(self) -> int:
        return self._handover.context.now_ms()

    async def run(self) -> None:
        with self.scope:
            self.error = await self.connection.run()
            _log.debug("a connection has ended: %s", self.error)
        self.ended.set()
        self.stirred.set()

    async def close(self) -> None:
        """Bounded by what the connection takes to say goodbye."""
        self.scope.cancel()
        await self.ended.wait()

    def _noticed(self, reason: str) -> None:
        self.notice = self.notice or reason
        self.stirred.set()


class Handover:
    """One run of a feed: connections, each taking over from the one before."""

    def __init__(
        self,
        venue: FeedVenue,
        context: Context,
        counts: FeedStatistics,
        connect: Connect,
        *,
        rotate_after_s: float,
        set_aside: Callable[[], Collection[str]],
    ) -> None:
        """`rotate_after_s` is the age at which a connection is replaced; 0: none is for its age.

        `set_aside` tells the channels of which the venue refuses at least a part.
        """
        self.context = context
        self._venue = venue
        self._counts = counts
        self._connect = connect
        self._rotate_after_s = rotate_after_s or inf
        self._set_aside = set_aside
        self._latest: dict[Topic, Event] = {}
        self._overlap: Overlap | None = None
        self._new: _Turn | None = None
        """In `_overlap`: the one that takes over."""
        self._switched_s = -inf
        self._lock = trio.Lock()
        """Two connections publish one after the other, in the order in which their events were sifted."""
        self._unpublished: list[Event] = []
        """Sifted, but whoever published it was cancelled: it goes before all else."""

    async def run(self) -> ConnectorError:
        """Returns when no connection is left: why the last one ended."""
        async with trio.open_nursery() as nursery:
            turn = self._begin(nursery, beside_another=False)
            while True:
                with trio.move_on_at(turn.began_s + self._rotate_after_s):
                    await turn.stirred.wait()
                if turn.error is None:
                    turn = await self._replace(nursery, turn)
                if turn.error is not None:
                    return turn.error

    async def publish(self, turn: _Turn, events: Sequence[Event]) -> None:
        """Publish what a connection delivered, unless another one has delivered it."""
        try:
            # Nearly always free, and publishing is a checkpoint in any case.
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            overlap = self._overlap
            if overlap is None:
                self._latest.update({(event.channel, event.instrument): event for event in events})
                await self._put_out(events)
            elif turn is self._new:
                if turn.withheld:
                    for event in events:
                        turn.withheld.pop(event.channel, None)
                await self._put_out(overlap.from_new(events, trio.current_time()))
            else:
                await self._put_out(overlap.from_old(events))
        finally:
            self._lock.release()

    async def _put_out(self, events: Sequence[Event]) -> None:
        """Publish what has been sifted; only with the lock."""
        overlap = self._overlap
        if overlap is not None:
            self._counts.duplicates += overlap.dropped
            overlap.dropped = 0
            if overlap.is_over:
                self._overlap = self._new = None
        self._unpublished += events
        if self._unpublished:
            await self.context.publish(self._unpublished)
            self._unpublished = []

    def _begin(self, nursery: trio.Nursery, *, beside_another: bool) -> _Turn:
        turn = _Turn(self, self._connect, beside_another=beside_another)
        nursery.start_soon(turn.run)
        return turn

    async def _replace(self, nursery: trio.Nursery, old: _Turn) -> _Turn:
        """Have another connection take over. Returns the one that goes on, or the old one if it ended before."""
        why = old.notice or f"the connection is {self._rotate_after_s:g} s old"
        _log.info("%s: %s: another one is to take over", self._venue.name, why)
        tries = Backoff(base_s=1.0, cap_s=15.0, stable_after_s=3600.0, breaker_after=10, breaker_s=120.0)
        pause_s = max(0.0, self._switched_s + APART_S - trio.current_time())
        while True:
            with trio.move_on_after(pause_s):
                await old.ended.wait()
            if old.error is not None:
                return old
            tries.started(trio.current_time())
            overlap = self._overlap = Overlap(self._latest, self._venue.order_key, self._overlap)
            self._latest = overlap.latest
            new = self._new = self._begin(nursery, beside_another=True)
            failure = await self._side_by_side(old, new, overlap)
            if failure is None:
                await self._take_over(old, new, overlap)
                return new
            await new.close()
            async with self._lock:
                await self._put_out(overlap.end(new_is_gone=True))
            refused = isinstance(failure, VenueRefused)
            pause_s = tries.next_delay_s(trio.current_time(), failure.retry_after_s, refused=refused)
            text = "%s: the connection that was to take over: %s; next try in %.1f s"
            _log.warning(text, self._venue.name, failure, pause_s)

    async def _side_by_side(self, old: _Turn, new: _Turn, overlap: Overlap) -> ConnectorError | None:
        """Wait until the new one can go on alone, or has to. Returns why it cannot."""
        while True:
            if new.error is not None or old.error is not None:
                return new.error
            missing = overlap.latest.keys() - overlap.met
            if overlap.met and not missing:
                return None
            if trio.current_time() >= new.connection.opened_s + PATIENCE_S:
                return self._lacking(new, overlap, missing)
            await trio.sleep(_LOOK_S)
            async with self._lock:
                await self._put_out(overlap.overdue(trio.current_time()))

    def _lacking(self, new: _Turn, overlap: Overlap, missing: Collection[Topic]) -> VenueUnavailable | None:
        """What the new connection ought to have delivered by now; topics that are silent on both are no fault of it."""
        aside, title = self._set_aside(), self._venue.title
        lacking = [topic for topic in missing if topic in overlap.told_by_old and topic[0] not in aside]
        if lacking:
            named = ", ".join(sorted({instrument or channel for channel, instrument in lacking}))
            return VenueTimeout(f"{title} sent no data in {PATIENCE_S:g} s: {named}")
        if not new.connection.is_settled:
            return VenueTimeout(f"{title} did not take all subscriptions in {PATIENCE_S:g} s")
        return None

    async def _take_over(self, old: _Turn, new: _Turn, overlap: Overlap) -> None:
        """The old connection has died or is closed now, and the new one goes on alone."""
        error, began_s = old.error, new.began_s
        await old.close()
        async with self._lock:
            await self._put_out(overlap.end(new_is_gone=False))
            if error is not None:
                told = {channel for channel, _ in overlap.met}
                for channel in self._venue.channels:
                    if channel not in told:
                        await self.context.report(StateChange(channel, "reconnecting", str(error)))
            while new.withheld:
                await self.context.report(new.withheld.popitem()[1])
            new.withheld = None
        self._switched_s = trio.current_time()
        if error is None:
            self._counts.switches += 1
            took_s = self._switched_s - began_s
            _log.info("%s: another connection has taken over, after %.1f s side by side", self._venue.name, took_s)
        else:
            _log.warning("%s: %s; the connection that was to take over goes on", self._venue.name, error)
