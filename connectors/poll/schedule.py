"""When the next call may be made: a schedule of ticks, and the gate of a host that wants a rest.

Pure arithmetic: every method is told the time, in seconds of any one clock that never goes back.
"""

from __future__ import annotations

import math

from connectors.backoff import granted_s
from connectors.base import VenueThrottled


class Schedule:
    """Ticks at a fixed rate: at `first_s`, and then every `cadence_s`.

    The ticks stay on that grid whatever happens: a poll that took too long skips the ticks it slept
    through rather than catching up on them in a burst, and it does not shift those that follow.
    """

    def __init__(self, first_s: float, cadence_s: float) -> None:
        """Raises: ValueError, where the cadence is not positive."""
        if not cadence_s > 0:
            raise ValueError(f"a cadence of {cadence_s} s is not above 0")
        self._first_s = first_s
        self._cadence_s = cadence_s
        self._number = 0

    @property
    def next_s(self) -> float:
        """When the next poll is due. It may have passed: then that poll is late, and due at once."""
        return self._first_s + self._number * self._cadence_s

    def advance(self, now_s: float) -> None:
        """Go on to the first tick after the present one that has not passed."""
        passed = math.floor((now_s - self._first_s) / self._cadence_s)
        # At least one on: rounding may put a tick that is due now a hair before itself.
        self._number = max(self._number + 1, passed + 1)

    def hold(self, until_s: float) -> None:
        """Go on to the first tick that is not before `until_s`, if the next one is.

        A tick that misses it by less than a tenth of the cadence counts: `until_s` is reckoned from
        when an earlier tick woke, which is always a little late.
        """
        number = math.ceil((until_s - self._first_s) / self._cadence_s - 0.1)
        self._number = max(self._number, number)


class Gate:
    """Whether a host may be called: one per host, passed by every call of every poller of it.

    A venue counts calls per address, so when it asks one poller to wait, all of them wait. Binance
    answers calls made during a pause with a ban that grows from 2 minutes to 3 days.
    """

    def __init__(self) -> None:
        self._until_s = -math.inf
        self._reason = ""

    def close(self, now_s: float, seconds: float, reason: str) -> None:
        """Let no call pass for so many seconds, `LONGEST_WAIT_S` at most. A pause under way is never shortened."""
        until_s = now_s + (granted_s(seconds) or 0.0)
        if until_s > self._until_s:
            self._until_s = until_s
            self._reason = reason

    def closed_s(self, now_s: float) -> float:
        """For how much longer no call passes."""
        return max(0.0, self._until_s - now_s)

    def check(self, now_s: float) -> None:
        """Pass, or not.

        Raises:
            VenueThrottled: the gate is closed; with the reason, and the seconds until it opens.
        """
        if now_s < self._until_s:
            raise VenueThrottled(self._reason, retry_after_s=self._until_s - now_s)
