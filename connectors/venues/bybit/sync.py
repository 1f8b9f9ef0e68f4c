"""When a book of Bybit's is right: the rule of the update ids. Pure.

Each message of a topic `orderbook.50`, `.200` or `.1000` has an id `u`, which counts the messages of that depth of that
symbol alone (Bybit, v5, Orderbook, websocket, read in July 2026):

* A snapshot may come at any time, and replaces everything.
* A delta whose `u` is the last one plus 1 follows. The page on the book of REST says that `u` is "always in
  sequence", and somebody saw 104 111 deltas without a hole (on linear); the page on these topics does not say it. So a
  hole is a loss; but where there are many, the rule must be wrong, and the book goes on with a remark instead of
  beginning anew for ever.
* `u` is 1 after a restart of Bybit's service; that message is a snapshot, and a delta with it follows nothing.
"""

from __future__ import annotations

import enum
from typing import Final

GAPS: Final = 3
WINDOW_MS: Final = 600_000
"""After so many gaps within so long the ids are not believed any more."""


class Step(enum.Enum):
    """What is to be done with a delta."""

    APPLY = "apply"
    """It follows."""

    SKIP = "skip"
    """There is no book to apply it to: a snapshot is awaited."""

    GAP = "gap"
    """Something before it is missing: the book is lost, and has to begin anew."""

    UNVERIFIED = "unverified"
    """It is applied, though nobody can tell whether it follows."""

    RENEW = "renew"
    """The same; and holes have become rare, so that a book that begins anew could be verified again."""


class UpdateIds:
    """The ids of one topic on one connection.

    Attributes:
        last: the id of the message that was applied last; None while a snapshot is awaited.
        is_verified: whether every delta since the snapshot is known to follow.
    """

    __slots__ = ("_gaps_ms", "is_verified", "last")

    def __init__(self) -> None:
        """A snapshot is awaited."""
        self.last: int | None = None
        self.is_verified = True
        self._gaps_ms: list[int] = []

    def began(self, u: int) -> None:
        """A snapshot with this id came."""
        self.last, self.is_verified = u, True

    def lost(self) -> None:
        """The book cannot be used any more, for a reason that is not in the ids."""
        self.last = None

    def follow(self, u: int, now_ms: int) -> Step:
        """A delta with this id came; what to do with it counts as done. `now_ms` is on any clock, even one set back."""
        last, self.last = self.last, u
        if last is None or u == 1:
            self.last = None
            return Step.SKIP if last is None else Step.GAP
        follows = u == last + 1
        if follows and self.is_verified:
            return Step.APPLY
        recent = [gap_ms for gap_ms in self._gaps_ms if abs(now_ms - gap_ms) < WINDOW_MS]
        if follows:
            # Of a book that is not verified. It is to begin anew but once.
            self._gaps_ms = recent or [now_ms]
            return Step.UNVERIFIED if recent else Step.RENEW
        self._gaps_ms = [*recent[1 - GAPS :], now_ms]
        if len(recent) < GAPS:
            self.last = None
            return Step.GAP
        self.is_verified = False
        return Step.UNVERIFIED
