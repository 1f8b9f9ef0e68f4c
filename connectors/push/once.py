"""Trades once each: across connections that break, that take over from one another, and that repeat history.

Every connection to a venue has its own beginning, and some begin with trades of before. What was published is known by
the order of the topic's last trade (`Event.order`, the venue's id) and the bytes of those with the same order. Three
rules:

* What is not beyond the last one was published before, and is dropped. A venue may begin its ids anew: a trade whose
  own time is `ANEW_MS` beyond the last one's is new, whatever its id.
* What is `past` is history: of a topic without a trade it is not news, and only tells where live trades go on. After a
  break it fills the hole.
* Where the venue's ids rise by one, a hole is noted, with how many are missing.

Pure: no I/O and no clock. It belongs to a feed, and so outlives its connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from connectors.base import Event, TopicNote
from protocol.fields import TradeFields

ANEW_MS: Final = 60_000
"""A trade so much later than the last one, with a smaller id, begins a new sequence: no connection is so far behind."""

SAME_ORDER_MOST: Final = 1024
"""How many trades with one order are remembered: Bybit's `seq` may span several messages of up to 1 024 trades."""


class _Last(msgspec.Struct):
    """The last trade of one topic: its order, the data of all with that order, and when it was made."""

    order: int
    said: list[bytes]
    exchange_ms: int


class Once:
    """What one feed has published of trades.

    Attributes:
        repeats: how many trades were dropped because they had been published, or are history.
        missing: how many are known to be missing.
    """

    def __init__(self, *, consecutive: bool) -> None:
        """`consecutive`: an instrument's orders rise by one."""
        self.repeats = self.missing = 0
        self._consecutive = consecutive
        self._last: dict[tuple[str, str], _Last] = {}

    def admit(self, events: Sequence[Event]) -> tuple[Sequence[Event], list[TopicNote]]:
        """Of these events all but the trades that were published before; and what is missing between them."""
        for event in events:
            if type(event.fields) is TradeFields:
                break
        else:
            return events, []
        passed: list[Event] = []
        notes: list[TopicNote] = []
        for event in events:
            order = event.order
            if order is None or type(event.fields) is not TradeFields or self._is_new(event, order, notes):
                passed.append(event)
            else:
                self.repeats += 1
        return passed, notes

    def _is_new(self, event: Event, order: int, notes: list[TopicNote]) -> bool:
        topic = (event.channel, event.instrument)
        last = self._last.get(topic)
        made_ms = event.exchange_ms or 0
        if last is None:
            self._last[topic] = _Last(order, [event.data], made_ms)
            return not event.past
        if order == last.order:
            if event.data in last.said:
                return False
            last.said = [*last.said[1 - SAME_ORDER_MOST :], event.data]
            return True
        begins_anew = order < last.order and made_ms > last.exchange_ms + ANEW_MS
        if order < last.order and not begins_anew:
            return False
        missing = order - last.order - 1
        if self._consecutive and missing > 0 and not begins_anew:
            self.missing += missing
            between = f"between the ids {last.order} and {order}"
            reason = f"{missing} trade{'' if missing == 1 else 's'} {'is' if missing == 1 else 'are'} missing {between}"
            notes.append(TopicNote(event.channel, event.instrument, "gap", reason, missing, partial=True))
        last.order, last.said, last.exchange_ms = order, [event.data], max(made_ms, last.exchange_ms)
        return True
