"""Is the venue alive? Two clocks: frames of any kind, and data.

A venue's answer to a ping proves only that something answers pings; venues have been mute for hours
while answering. So the heartbeat looks at frames, the verdict "silent" at data. While the daemon
itself is busy nothing is read, and neither clock runs.

Pure: every method is told the time (monotonic seconds).
"""

from __future__ import annotations

from math import inf
from typing import Final

from connectors.base import VenueTimeout
from connectors.push.venue import FeedRules


class Pulse:
    """The signs of life of one connection.

    Attributes:
        answers: whether an answer to a ping has ever come.
        talks: how often data came.
        is_silent: whether `check` has found that no data came for too long.
    """

    def __init__(self, title: str, rules: FeedRules, *, silence_s: float, now_s: float) -> None:
        """The connection opened at `now_s`; `silence_s` without data is too long."""
        self.answers = self.is_silent = False
        self.talks = 0
        self._title = title
        self._rules = rules
        self._silence_s = silence_s
        self._frame_s = self._data_s = self._ping_s = now_s
        self._pinged = self._busy = False

    @property
    def is_busy(self) -> bool:
        """Whether frames are being worked off, so that nothing is read."""
        return self._busy

    def open(self, now_s: float) -> None:
        """The connection is open: both clocks start here."""
        self._frame_s = self._data_s = self._ping_s = now_s

    def work(self) -> None:
        """Frames came and are being worked off; nothing more is read until `rest`."""
        self._busy = True

    def rest(self, now_s: float, *, had_data: bool) -> None:
        """They are worked off, and reading goes on."""
        self._busy = self._pinged = False
        self._frame_s = now_s
        if had_data:
            self.talks += 1
            self._data_s = now_s

    def ping_due(self, now_s: float) -> bool:
        """Whether a ping is to be sent now; it counts as sent."""
        if self._busy or now_s < self._next_ping_s():
            return False
        self._pinged = True
        self._ping_s = now_s
        return True

    def next_due_s(self, now_s: float) -> float:
        """When to ask again."""
        rules = self._rules
        if self._busy:
            return now_s + min(rules.pong_s, self._silence_s)
        late_s = self._frame_s + rules.ping_after_s + rules.pong_s if self._pinged else inf
        return min(self._next_ping_s(), late_s, self._data_s + self._silence_s)

    def _next_ping_s(self) -> float:
        """When the next ping is due; of those for silence only one is sent."""
        for_silence_s = inf if self._pinged else self._frame_s + self._rules.ping_after_s
        return min(for_silence_s, self._ping_s + self._rules.ping_every_s)

    def check(self, now_s: float) -> None:
        """See whether the venue still talks.

        Raises:
            VenueTimeout: it has been silent for too long.
        """
        if self._busy:
            return
        rules = self._rules
        # Added in the order of `next_due_s`, or rounding could make one of them wait for the other.
        if self._pinged and now_s >= self._frame_s + rules.ping_after_s + rules.pong_s:
            quiet_s = rules.ping_after_s + rules.pong_s
            raise VenueTimeout(f"{self._title} sent nothing for {quiet_s:g} s, not even an answer to a ping")
        if now_s >= self._data_s + self._silence_s:
            self.is_silent = True
            though = " though it answers pings" if self.answers else ""
            raise VenueTimeout(f"{self._title} sent no data for {self._silence_s:g} s{though}")


class Patience:
    """How long a feed's connections may be without data: as configured, and longer where that teaches nothing.

    The market of a rare instrument may be silent for minutes, and then a new connection brings its newest message and
    is silent again, for ever. So each connection that brought no more than the first message of each topic allows its
    successor twice the time, up to `MOST_S`. One that brought nothing at all is another matter (that venue is mute),
    and one that brought more ends the exception.
    """

    MOST_S: Final = 900.0

    def __init__(self, topics: int) -> None:
        """`topics`: how many first messages a connection brings."""
        self._topics = topics
        self._factor = 1

    def silence_s(self, configured_s: float) -> float:
        """How long the next connection may be without data."""
        return max(configured_s, min(configured_s * self._factor, self.MOST_S))

    def ended(self, *, talks: int, silent: bool) -> None:
        """A connection is over, on which data came `talks` times, and which was silent too long or not."""
        if silent and 0 < talks <= self._topics:
            self._factor = min(self._factor * 2, 1024)
        elif talks > self._topics or silent:
            self._factor = 1
