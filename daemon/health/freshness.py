"""The freshness contract: by when a channel must deliver data, and what to report if it does not.

An open connection proves nothing about data, even if it answers pings: venues have sent nothing for hours over healthy
connections. So this watches only data, channel by channel:

* a *scheduled* channel declares its cadence: it is late after `SCHEDULED` cadences;
* for a *pushed* channel the usual pauses are learned (see `Pauses`). So a market that trades once an hour is not called
  stale every minute, and one that moves ten times a second is called stale after two seconds;
* `stale_after_s` in the configuration overrides both.

The *repeats* of a scheduled channel keep it alive only for as long as the source's own cadence explains them: a fresh
or confirmed body says for how long it may be repeated (`Event.lifetime_s`: cache headers, the plan's budget). After
that time, plus the allowance for a late message, repeats count as silence.

This concerns a channel's data. `connectors.push.pulse` decides whether the *connection* is silent and must be replaced.
The two agree by this rule: while a connector itself reports that it is not connected, or that its channel is stale,
nothing is reported here; at each new attempt, and after a time in which the daemon itself was too busy to look, the
channel's time starts again.

Pure: every method is given the time (monotonic seconds), so jumps of the wall clock do not matter. Where more time has
passed than that clock says, because the daemon or its machine stood still, `aged` is told so: the channel's data is
that much older.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

from connectors.base import StateChange
from daemon.health.board import Seen
from protocol.channels import Channel

SCHEDULED: Final = 2.5
"""A channel is late after so many cadences: one slow answer may cost a message."""

SHORTEST_S: Final = 2.0
"""No channel is late sooner than this."""

UNKNOWN_S: Final = 30.0
"""Until its usual pauses are known, a pushed channel is not late sooner than this."""

ORDINARY_S: Final = 60.0
"""The longest limit for a channel with several messages a minute."""

LONGEST_S: Final = 14_400.0
"""The longest limit for any channel."""

FIRST_S: Final = 15.0
"""Connecting, handshake and first message may take this long in total: a pushing venue starts with current data."""

WAKING_S: Final = 0.5
"""So long after a pause of the daemon's what came meanwhile may still lie unread."""

BUSY_S: Final = 1.0
"""If two looks are further apart than this, the daemon was busy, rather than the venue silent."""


class Pauses:
    """The pauses between a pushed channel's messages, and the limit derived from them.

    The longest pause of each minute is kept, for the last `MINUTES` minutes (a pause longer than a minute counts as one
    minute). The limit is four times their median: single outages do not shift it, and it grows in time when a market
    calms down over night.
    """

    MINUTES: Final = 15
    KNOWN: Final = 3
    """So many minutes must be known before a limit below `UNKNOWN_S` is used."""

    def __init__(self, unknown_s: float = UNKNOWN_S) -> None:
        """`unknown_s`: until enough is known, no pause is too long that is not longer than this."""
        self._unknown_s = unknown_s
        self._longest_s: deque[float] = deque(maxlen=self.MINUTES)
        self._minute_s = 0.0
        self._in_minute_s = 0.0

    def add(self, pause_s: float) -> None:
        """Note the time between two messages."""
        self._minute_s += pause_s
        self._in_minute_s = max(self._in_minute_s, pause_s)
        if self._minute_s >= 60.0:
            self._longest_s.append(self._in_minute_s)
            self._minute_s = self._in_minute_s = 0.0

    @property
    def usual_s(self) -> float:
        """The longest pause of a typical minute; 0 if nothing is known."""
        return median(self._longest_s) if self._longest_s else 0.0

    @property
    def limit_s(self) -> float:
        """The pause that is too long."""
        usual_s = self.usual_s
        limit_s = min(4 * usual_s, max(ORDINARY_S, 2 * usual_s), LONGEST_S)
        return max(limit_s, SHORTEST_S if len(self._longest_s) >= self.KNOWN else self._unknown_s)


def too_quiet(channel: Channel, quiet_s: float, usual_s: float | None) -> str:
    """Why so long a silence is too long, in words; `usual_s` is the usual longest pause of a minute, if it is known."""
    said = f"no message for {quiet_s:.1f} s"
    if channel.stale_after_s is not None:
        return f"{said}, over the limit of {channel.stale_after_s:g} s"
    if channel.cadence_s is not None:
        return f"{said}, where one is due every {channel.cadence_s:g} s"
    return f"{said}, where the longest pause of a minute is usually {usual_s:.1f} s" if usual_s else said


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
        """By when a fresh body must come; None before the first one."""
        self._reason = ""

    @property
    def stale_after_s(self) -> float:
        """How long the channel may currently be silent."""
        return self._limit_s

    def look(self, connector: StateChange, seen: Seen, now_s: float) -> str:
        """What is wrong with the channel's data; "" if nothing is. The wording stays the same while it lasts.

        Args:
            connector: what the channel's connector reported last.
            seen: what the channel has delivered.
            now_s: the time. Call this several times a second.
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

    def aged(self, seconds: float, now_s: float) -> None:
        """The daemon stood still for so long, up to `now_s`, a time that its clock does not know of.

        An attempt to connect that was under way has as much time left as it had.
        """
        if self._connector is not None and self._connector.state == "connecting":
            return
        self._heard_s -= seconds
        self._due_s = max(self._due_s - seconds, min(self._due_s, now_s + WAKING_S))
        if self._repeats_s is not None:
            self._repeats_s = max(self._repeats_s - seconds, min(self._repeats_s, now_s + WAKING_S))
        self._anew = True

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
        """The connector starts anew, or reports a state itself: its time starts now, and this pause is not learned."""
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
        return too_quiet(channel, now_s - self._heard_s, self._pauses.usual_s)

    def _repetition(self) -> str:
        return f"only repeats: {self.channel.exchange} has sent nothing fresh for longer than its cadence explains"
