"""How long to wait before running a failed connector again: pure arithmetic, no clock of its own.

Two rules, both about being a good guest:

* *Full jitter*: the wait is drawn between 0 and a limit that doubles with each failure in a row, so
  that many connectors that lost one venue at once do not all come back at once.
* *Circuit breaker*: after several failures in a row, or one refusal, the breaker is open. Then one
  trial follows after each long pause, until an attempt holds for a while.

A failure is "in a row" until an attempt has held for `stable_after_s`. A connector that delivers
for a second and fails, again and again, therefore slows down like one that delivers nothing.

A venue may ask for a longer wait (`Retry-After`). It gets what can be meant, and no more: neither a mistake nor malice
may switch a channel off for years.
"""

from __future__ import annotations

import email.utils
import math
import random as _random
import re
from collections.abc import Callable
from typing import Final

LONGEST_WAIT_S: Final = 3 * 86_400.0
"""The longest wait that any venue is granted: Binance's longest ban (rest-api.md, "IP Limits")."""

LONGEST_ASKED_S: Final = 3_600.0
"""The longest wait that a venue's `Retry-After` is granted, where the venue documents no longer one."""

_SECONDS: Final = re.compile(r"0*([0-9]{1,12})")

_MOST_DOUBLINGS: Final = 62
"""Beyond it the limit is the cap in any configuration, and the power would outgrow a float."""


class Backoff:
    """The waits of one connector. Not shared: each connector has its own.

    Args:
        base_s: limit of the first wait.
        cap_s: limit of any wait while the breaker is closed.
        stable_after_s: an attempt that ran this long ends the row of failures. Longer than a
            connector's own deadlines, or an attempt that only waited for an answer counts as one
            that held.
        breaker_after: failures in a row that open the breaker.
        breaker_s: longest wait before a trial while the breaker is open; the shortest is half.
        random: a draw from [0, 1).

    Raises:
        ValueError: a limit is not positive, or the cap is below the base.
    """

    def __init__(
        self,
        base_s: float,
        cap_s: float,
        stable_after_s: float,
        breaker_after: int,
        breaker_s: float,
        random: Callable[[], float] = _random.random,
    ) -> None:
        if not 0 < base_s <= cap_s:
            raise ValueError(f"the base of {base_s} s must be above 0 and up to the cap, {cap_s} s")
        if stable_after_s <= 0 or breaker_s <= 0 or breaker_after < 1:
            raise ValueError("stable_after_s, breaker_s and breaker_after must be above 0")
        self._base_s = base_s
        self._cap_s = cap_s
        self._stable_after_s = stable_after_s
        self._breaker_after = breaker_after
        self._breaker_s = breaker_s
        self._random = random
        self._started_s: float | None = None
        self._failures = 0
        self._open = False

    @property
    def open(self) -> bool:
        """Whether the breaker is open, as of the last failure. An attempt under way is its trial."""
        return self._open

    @property
    def failures(self) -> int:
        """Failures in a row, as of the last one."""
        return self._failures

    def started(self, now_s: float) -> None:
        """An attempt begins. `now_s` is any clock that never goes back."""
        self._started_s = now_s

    def next_delay_s(self, now_s: float, retry_after_s: float | None = None, *, refused: bool = False) -> float:
        """The attempt has just failed: how many seconds to wait before the next.

        Args:
            now_s: the same clock as for `started`.
            retry_after_s: no attempt is to be made sooner, but for `LONGEST_WAIT_S`, which no wait exceeds by this.
            refused: the venue will not serve us as we are, which opens the breaker at once.
        """
        if self._started_s is not None and now_s - self._started_s >= self._stable_after_s:
            self._failures = 0
            self._open = False
        self._started_s = None
        self._failures += 1
        self._open = self._open or refused or self._failures >= self._breaker_after
        if self._open:
            delay_s = self._breaker_s * (1 + self._random()) / 2
        else:
            doublings = min(self._failures - 1, _MOST_DOUBLINGS)
            delay_s = self._random() * min(self._cap_s, self._base_s * 2.0**doublings)
        return max(delay_s, granted_s(retry_after_s) or 0.0)


def granted_s(asked_s: float | None, longest_s: float = LONGEST_WAIT_S) -> float | None:
    """What is granted of the wait that a venue asks for: from 0 to `longest_s`; None where it asks for none."""
    if asked_s is None or math.isnan(asked_s):
        return None
    return min(max(asked_s, 0.0), longest_s)


def retry_after_s(value: str, now_ms: int, longest_s: float = LONGEST_ASKED_S, date: str = "") -> float | None:
    """`Retry-After` (RFC 9110 section 10.2.3) as seconds from now, as far as they are granted; None for nonsense.

    `now_ms` is when it came, ms since 1970: the header may name a date. The server's own `date` (section 6.6.1) says
    better what it was then by the same clock; ours may be wrong.
    """
    value = value.strip()
    if found := _SECONDS.fullmatch(value):
        return granted_s(float(found[1]), longest_s)
    try:
        until_s = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return granted_s(until_s - server_ms(date, now_ms) / 1_000, longest_s)


def server_ms(date: str, now_ms: int) -> int:
    """What time it is at a server that has just sent this `Date`, ms since 1970; without a usable one what we think."""
    try:
        return round(email.utils.parsedate_to_datetime(date.strip()).timestamp() * 1_000)
    except (ValueError, TypeError, IndexError, OverflowError):
        return now_ms
