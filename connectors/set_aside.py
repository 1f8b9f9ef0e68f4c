"""What a venue refuses to serve, and when it is asked for again: after a minute, then twice as long, up to an hour.

No refusal is for ever. A venue says "there is no such instrument" also while it relists one, restarts a matching engine
or has lost a part of its tables for a while, in the very words of a definite refusal (OKX 60018, Binance -1121). So
every refusal is put to the test again soon; each one in a row doubles the wait, which bounds what a name that is
misspelt costs to one request an hour.

Pure: every method is told the time (seconds of any one clock that never goes back).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

FIRST_S: Final = 60.0
"""The wait after a first refusal: the length of a venue's hiccup, and no burden for either side."""

LONGEST_S: Final = 3_600.0
"""The longest wait, however often it was refused."""

_MOST_DOUBLINGS: Final = 10
"""By then the wait is the longest in any case."""


class Aside(msgspec.Struct, frozen=True):
    """Something that the venue refused: asked for again at `until_s`, not before; `wait_s` was the whole wait."""

    until_s: float
    reason: str
    wait_s: float


class SetAside:
    """What one venue refuses at present, by any key. It outlives connections and failed runs."""

    def __init__(self) -> None:
        self._aside: dict[str, Aside] = {}
        self._refusals: dict[str, int] = {}
        """How often each was refused in a row; what is asked for again keeps its count until it is served."""

    def __contains__(self, key: object) -> bool:
        return key in self._aside

    def __len__(self) -> int:
        return len(self._aside)

    def __iter__(self) -> Iterator[str]:
        return iter(self._aside)

    def get(self, key: str) -> Aside | None:
        """What is known of its refusal; None where it is not set aside."""
        return self._aside.get(key)

    def reasons(self) -> list[str]:
        """Why, each reason once."""
        return list(dict.fromkeys(aside.reason for aside in self._aside.values()))

    def refused(self, key: str, reason: str, now_s: float) -> Aside:
        """The venue refused it: set it aside, for twice as long as the last time."""
        count = self._refusals[key] = min(self._refusals.get(key, 0) + 1, _MOST_DOUBLINGS)
        wait_s = min(FIRST_S * 2.0 ** (count - 1), LONGEST_S)
        aside = self._aside[key] = Aside(now_s + wait_s, reason, wait_s)
        return aside

    def release(self, now_s: float) -> list[str]:
        """Those whose time is over, which are to be asked for now: they are not set aside any more."""
        over = [key for key, aside in self._aside.items() if aside.until_s <= now_s]
        for key in over:
            del self._aside[key]
        return over

    def asked(self, key: str) -> None:
        """It is asked for: it is not set aside any more, but what it was refused before still counts."""
        self._aside.pop(key, None)

    def served(self, key: str) -> None:
        """The venue serves it: its refusals are forgotten."""
        self._refusals.pop(key, None)
        self._aside.pop(key, None)

    def is_suspect(self, key: str) -> bool:
        """Whether it has been refused since it was served last."""
        return key in self._refusals


def in_words(wait_s: float) -> str:
    """`1 min`, `2 h`: a wait as people say it."""
    minutes = max(1, round(wait_s / 60))
    return f"{minutes / 60:g} h" if minutes % 60 == 0 else f"{minutes} min"
