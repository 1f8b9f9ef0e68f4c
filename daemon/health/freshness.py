"""The freshness contract: by when a channel must have delivered, and what is told when it has not.

A connection that is up, and even one that answers pings, says nothing about data: venues have been mute for hours while
they looked well. So what is watched here is data and nothing else, channel by channel:

* a *scheduled* channel declares its cadence: it is late after `SCHEDULED` cadences;
* of a channel that is *pushed*, the pauses teach what is usual (see `Pauses`). So a market that trades once an hour is
  not called stale every minute, and one that moves ten times a second is called stale after two seconds;
* `stale_after_s` of the configuration wins over both.

What a scheduled channel *repeats* keeps the channel alive only as long as the source's own cadence explains it: a fresh
body, or one that the venue has confirmed, says for how long it may be repeated (`Event.lifetime_s`: cache headers, the
plan's budget). After that, and the grace of a late message, repeats are silence.

This is about a channel's data; whether the *connection* is mute, so that it has to be made anew, is for
`connectors.push.pulse` to decide. The two agree by this rule: while a connector says itself that it is not connected,
or that its channel is stale, nothing is held here; from each new attempt on, and after a spell in which the daemon
itself was too busy to look, the channel has its time again.

Pure: every method is told the time (monotonic seconds). The wall clock may jump as it likes.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

from connectors.base import StateChange
from daemon.health.board import Seen
from protocol.channels import Channel

SCHEDULED: Final = 2.5
"""Late after so many cadences: one message may be lost to a slow answer."""

SHORTEST_S: Final = 2.0
"""Nothing is called late sooner than this."""

UNKNOWN_S: Final = 30.0
"""As long as a pushed channel's pauses are not known, nothing is called late sooner than this."""

ORDINARY_S: Final = 60.0
"""The longest that is waited for what comes several times a minute."""

LONGEST_S: Final = 14_400.0
"""The longest that is waited for anything."""

FIRST_S: Final = 15.0
"""Connecting, the handshake and the first message may take so long together: who pushes begins with what there is."""

BUSY_S: Final = 1.0
"""Looks that are further apart than this mean that the daemon was busy, and not the venue silent."""


class Pauses:
    """The pauses between a pushed channel's messages, and after how long a pause is too long.

    Of each minute the longest pause is kept, for the last `MINUTES` of them (a pause that takes longer than a minute
    fills one by itself). Four times their median is too long: single outages do not shift it, and a market that calms
    down over the night does so before it is called stale.
    """

    MINUTES: Final = 15
    KNOWN: Final = 3
    """So many minutes have to be known before a short limit is believed."""

    def __init__(self) -> None:
        self._longest_s: deque[float] = deque(maxlen=self.MINUTES)
        self._minute_s = 0.0
        self._in_minute_s = 0.0

    def add(self, pause_s: float) -> None:
        """Two messages were so far apart."""
        self._minute_s += pause_s
        self._in_minute_s = max(self._in_minute_s, pause_s)
        if self._minute_s >= 60.0:
            self._longest_s.append(self._in_minute_s)
            self._minute_s = self._in_minute_s = 0.0

    @property
    def usual_s(self) -> float:
        """The longest pause of an ordinary minute; 0 where nothing is known."""
        return median(self._longest_s) if self._longest_s else 0.0

    @property
    def limit_s(self) -> float:
        """The pause that is too long."""
        usual_s = self.usual_s
        limit_s = min(4 * usual_s, max(ORDINARY_S, 2 * usual_s), LONGEST_S)
        return max(limit_s, SHORTEST_S if len(self._longest_s) >= self.KNOWN else UNKNOWN_S)


class Freshness:
    """One channel's contract."""

    def __init__(self, channel: Channel, now_s: float) -> None:
        self.channel = channel
        self._pauses = Pauses()
        self._look_s = now_s
        self._connector: StateChange | None = None
        self._events = self._fresh = 0
        self._heard_s = now_s
        self._due_s = now_s + self._first_s
        self._anew = True
        self._repeats_s: float | None = None
        """By when something fresh must come; None where nothing has come that could be repeated."""
        self._reason = ""

    @property
    def stale_after_s(self) -> float:
        """How long the channel may be silent, as things stand."""
        return self._limit_s

    def look(self, connector: StateChange, seen: Seen, now_s: float) -> str:
        """What is wrong with the channel's data, in words that stay the same as long as it lasts; "" for nothing.

        Args:
            connector: what the channel's connector reported last.
            seen: what the channel has delivered.
            now_s: the time; to be called several times a second.
        """
        busy_s, self._look_s = now_s - self._look_s, now_s
        if busy_s > BUSY_S:
            self._excuse(busy_s)
        if connector is not self._connector:
            self._connector = connector
            if connector.state != "live":
                self._begin(now_s)
        if seen.events != self._events:
            self._hear(seen, now_s)
        if connector.state not in ("connecting", "live"):
            self._reason = ""
        elif now_s >= self._due_s:
            self._reason = self._reason or self._silence(now_s)
        elif self._repeats_s is not None and now_s >= self._repeats_s:
            self._reason = self._reason or self._repetition()
        else:
            self._reason = ""
        return self._reason

    @property
    def _limit_s(self) -> float:
        channel = self.channel
        if channel.stale_after_s is not None:
            return channel.stale_after_s
        if channel.cadence_s is not None:
            return max(SCHEDULED * channel.cadence_s, SHORTEST_S)
        return self._pauses.limit_s

    @property
    def _first_s(self) -> float:
        """How long the first message of an attempt may take."""
        channel = self.channel
        learned = channel.stale_after_s is None and channel.cadence_s is None
        return FIRST_S if learned else max(FIRST_S, self._limit_s)

    def _hear(self, seen: Seen, now_s: float) -> None:
        if not self._anew:
            self._pauses.add(now_s - self._heard_s)
        self._anew = False
        self._heard_s, self._events = now_s, seen.events
        self._due_s = now_s + self._limit_s
        if seen.fresh != self._fresh:
            self._fresh = seen.fresh
            lifetime_s = 0.0 if seen.newest is None else seen.newest.lifetime_s
            self._repeats_s = now_s + lifetime_s + self._limit_s

    def _begin(self, now_s: float) -> None:
        """The connector begins anew, or has something to say itself: its time runs from here, and teaches nothing."""
        self._anew = True
        self._due_s = now_s + self._first_s
        if self._repeats_s is not None:
            self._repeats_s = max(self._repeats_s, self._due_s)
        self._heard_s = now_s
        self._reason = ""

    def _excuse(self, spell_s: float) -> None:
        self._due_s += spell_s
        self._heard_s += spell_s
        if self._repeats_s is not None:
            self._repeats_s += spell_s

    def _silence(self, now_s: float) -> str:
        channel = self.channel
        if self._connector is not None and self._connector.state == "connecting":
            return f"no data for {now_s - self._heard_s:.1f} s since the attempt to connect"
        said = f"no message for {now_s - self._heard_s:.1f} s"
        if channel.stale_after_s is not None:
            return f"{said}, over the limit of {channel.stale_after_s:g} s"
        if channel.cadence_s is not None:
            return f"{said}, where one is due every {channel.cadence_s:g} s"
        usual_s = self._pauses.usual_s
        return f"{said}, where the longest pause of a minute is usually {usual_s:.1f} s" if usual_s else said

    def _repetition(self) -> str:
        return f"only repeats: {self.channel.exchange} has sent nothing fresh for longer than its cadence explains"
