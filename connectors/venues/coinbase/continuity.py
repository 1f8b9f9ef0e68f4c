"""Is anything of a Coinbase connection missing? The numbers of its frames, and how far they are believed. Pure.

Every frame has a `sequence_num` (Coinbase's documentation of Advanced Trade, `advanced-trade-asyncapi.json`, November
2026). That it rises by one from frame to frame over the whole connection, all channels, heartbeats and acknowledgements
counted, stands nowhere; clients that run by this rule say so. So:

* A number that was had is a repetition, which is left out. One that is not the next is a *break*: something is lost,
  and nobody knows of which channel or product. So all books of the connection are lost, and another connection is
  needed: it begins with a snapshot of each, and with the trades of before.
* The rule may be wrong for a kind of connection, for a while or for ever; then reconnecting would never end. So after
  `MOST_BREAKS` within `SPAN_MS` it is distrusted: further breaks are noted only, and the data goes on. It is believed
  again `SPAN_MS` after the last break; if it breaks soon after that, it is distrusted at once, for twice as long, up to
  a day. The connection stays. When no more breaks come (`streams.QUIET_MS`), each of its books is asked for anew, one
  by one, so that none stays wrong.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, TypeAlias

MOST_BREAKS: Final = 5
SPAN_MS: Final = 600_000
"""So many breaks in so long are acted on."""

LONGEST_MS: Final = 86_400_000
"""The longest time for which the rule is distrusted after a break."""

Step: TypeAlias = Literal["next", "repeated", "break"]


class Numbers:
    """The numbers of one connection, from its first frame on, whatever that has.

    Attributes:
        next: the number that follows the last one.
        due: what `next` was when the last one came.
    """

    __slots__ = ("_first", "due", "next")

    def __init__(self) -> None:
        self.next = self.due = 0
        self._first: int | None = None

    def take(self, number: int) -> Step:
        """A frame has this number. After a break it goes on from there."""
        due = self.due = self.next
        if number == due and self._first is not None:
            self.next = number + 1
            return "next"
        if self._first is None:
            self._first, self.next = number, number + 1
            return "next"
        if self._first <= number < due:
            return "repeated"
        self._first, self.next = number, number + 1
        return "break"


class Trust:
    """Whether breaks are acted on; it outlives connections. Where the clock is set back nothing waits longer."""

    def __init__(self) -> None:
        self._breaks_ms: deque[int] = deque(maxlen=MOST_BREAKS)
        self._spells = 0
        """How often it was distrusted in a row."""
        self._pause_ms = 0
        self._until_ms = 0
        """Until when it is distrusted, if it is, or was."""

    def broke(self, now_ms: int) -> bool:
        """There is a break. Returns whether to act on it."""
        if self.waits_ms(now_ms):
            self._until_ms = now_ms + self._pause_ms
            return False
        if self._spells and 0 <= now_ms - self._until_ms < SPAN_MS:
            return self._distrust(now_ms)
        self._spells = 0
        full = len(self._breaks_ms) == MOST_BREAKS
        if full and 0 <= now_ms - self._breaks_ms[0] < SPAN_MS:
            return self._distrust(now_ms)
        self._breaks_ms.append(now_ms)
        return True

    def waits_ms(self, now_ms: int) -> int:
        """In how many milliseconds the rule is believed again, if there is no break until then; 0: it is believed."""
        return max(0, min(self._until_ms - now_ms, self._pause_ms)) if self._spells else 0

    def _distrust(self, now_ms: int) -> bool:
        self._pause_ms = min(SPAN_MS * 2**self._spells, LONGEST_MS)
        self._spells = min(self._spells + 1, 30)
        self._until_ms = now_ms + self._pause_ms
        self._breaks_ms.clear()
        return False
