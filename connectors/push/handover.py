"""Make before break: a new connection takes over from one that is to end, and nobody notices.

A connection is to end when the venue says so or when it has the age at which it is rotated. Then another one is opened
beside it, and the `Merge` makes one sequence of what both deliver. The old one is closed once the new one has
delivered every topic that the old one had. If the new one fails, the old one goes on and another is tried; if the old
one dies, the new one goes on. Only when none is left does the run end, with the reason of the last.

Tasks: one for each connection (`_Attempt.run`), and the one that called `Handover.run`, which decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from math import inf
from typing import Final, Protocol

import trio

from connectors.backoff import Backoff
from connectors.base import ConnectorError, VenueRefused, VenueTimeout, VenueUnavailable
from connectors.push.intake import FeedStatistics
from connectors.push.merge import Merge, Side
from connectors.push.overlap import Overlap, Topic
from connectors.push.venue import FeedVenue

_log: Final = logging.getLogger(__name__)

PATIENCE_S: Final = 12.0
"""How long after its opening a new connection may lack what the old one delivers; a little longer than a venue may take
to answer subscriptions; a venue may ask for more (`FeedRules.settles_s`). What has been silent on both for so long is
not waited for."""

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


Connect = Callable[[Side], Connection]
"""Makes a connection that hands on what it has at this side."""


class _Attempt:
    """One connection while it runs."""

    def __init__(self, connection: Connection, side: Side) -> None:
        self.connection = connection
        self.side = side
        self.began_s = trio.current_time()
        self.ended = trio.Event()
        self.error: ConnectorError | None = None
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        with self._scope:
            self.error = await self.connection.run()
            _log.debug("a connection has ended: %s", self.error)
        self.ended.set()
        self.side.noticed.set()

    async def close(self) -> None:
        """Bounded by what the connection takes to say goodbye."""
        self._scope.cancel()
        await self.ended.wait()


class Handover:
    """One run of a feed: connections, each taking over from the one before."""

    def __init__(
        self,
        venue: FeedVenue,
        merge: Merge,
        counts: FeedStatistics,
        connect: Connect,
        *,
        rotate_after_s: float,
        set_aside: Callable[[], Collection[str]],
    ) -> None:
        """`rotate_after_s` is the age at which a connection is replaced; 0: none is for its age.

        `set_aside` tells the channels of which the venue refuses at least a part.
        """
        self._venue = venue
        self._merge = merge
        self._counts = counts
        self._connect = connect
        self._rotate_after_s = rotate_after_s or inf
        self._set_aside = set_aside
        self._patience_s = PATIENCE_S + venue.rules.settles_s
        self._switched_s = -inf

    async def run(self) -> ConnectorError:
        """Returns when no connection is left: why the last one ended."""
        async with trio.open_nursery() as nursery:
            attempt = self._begin(nursery, Side(self._merge, speaks=True))
            while True:
                with trio.move_on_at(attempt.began_s + self._rotate_after_s):
                    await attempt.side.noticed.wait()
                if attempt.error is None:
                    attempt = await self._replace(nursery, attempt)
                if attempt.error is not None:
                    return attempt.error

    def _begin(self, nursery: trio.Nursery, side: Side) -> _Attempt:
        attempt = _Attempt(self._connect(side), side)
        nursery.start_soon(attempt.run)
        return attempt

    async def _replace(self, nursery: trio.Nursery, old: _Attempt) -> _Attempt:
        """Have another connection take over. Returns the one that goes on, or the old one if it ended before."""
        why = old.side.notice or f"the connection is {self._rotate_after_s:g} s old"
        _log.info("%s: %s: another one is to take over", self._venue.name, why)
        tries = Backoff(base_s=1.0, cap_s=15.0, stable_after_s=3600.0, breaker_after=10, breaker_s=120.0)
        pause_s = max(0.0, self._switched_s + APART_S - trio.current_time())
        while True:
            with trio.move_on_after(pause_s):
                await old.ended.wait()
            if old.error is not None:
                return old
            tries.started(trio.current_time())
            side = Side(self._merge, speaks=False)
            overlap = self._merge.begin(side)
            new = self._begin(nursery, side)
            failure = await self._side_by_side(old, new, overlap)
            if failure is None:
                await self._take_over(old, new, overlap)
                return new
            await new.close()
            await self._merge.drop_new(overlap)
            refused = isinstance(failure, VenueRefused)
            pause_s = tries.next_delay_s(trio.current_time(), failure.retry_after_s, refused=refused)
            text = "%s: the connection that was to take over: %s; next try in %.1f s"
            _log.warning(text, self._venue.name, failure, pause_s)

    async def _side_by_side(self, old: _Attempt, new: _Attempt, overlap: Overlap) -> ConnectorError | None:
        """Wait until the new one can go on alone, or has to. Returns why it cannot."""
        while True:
            if new.error is not None or old.error is not None:
                return new.error
            missing = overlap.latest.keys() - overlap.met
            if overlap.met and not missing:
                return None
            if trio.current_time() >= new.connection.opened_s + self._patience_s:
                return self._lacking(new, overlap, missing)
            await trio.sleep(_LOOK_S)
            await self._merge.release_overdue(overlap)

    def _lacking(self, new: _Attempt, overlap: Overlap, missing: Collection[Topic]) -> VenueUnavailable | None:
        """What the new connection ought to have delivered by now; topics that are silent on both are no fault of it."""
        aside, title = self._set_aside(), self._venue.title
        lacking = [topic for topic in missing if topic in overlap.told_by_old and topic[0] not in aside]
        if lacking:
            named = ", ".join(sorted({instrument or channel for channel, instrument in lacking}))
            return VenueTimeout(f"{title} sent no data in {self._patience_s:g} s: {named}")
        if not new.connection.is_settled:
            return VenueTimeout(f"{title} did not take all subscriptions in {self._patience_s:g} s")
        return None

    async def _take_over(self, old: _Attempt, new: _Attempt, overlap: Overlap) -> None:
        """The old connection has died or is closed now, and the new one goes on alone."""
        error = old.error
        await old.close()
        whole = [name for name in self._venue.channels if name not in self._venue.parts]
        lost = {} if error is None else dict.fromkeys(whole, str(error))
        await self._merge.drop_old(overlap, new.side, lost)
        self._switched_s = trio.current_time()
        if error is None:
            self._counts.switches += 1
            took_s = self._switched_s - new.began_s
            _log.info("%s: another connection has taken over, after %.1f s side by side", self._venue.name, took_s)
        else:
            _log.warning("%s: %s; the connection that was to take over goes on", self._venue.name, error)
