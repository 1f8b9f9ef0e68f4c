"""Trades once each: across connections that break, that take over from one another, and that repeat history.

Every connection to a venue has its own beginning, and some begin with trades of before. What was published is known by
the order of the topic's last trade (`Event.order`, the venue's id) and the ids of those with the same order; the bytes
may be others in a repetition, so they count only where there is no id. Three rules:

* What is not beyond the last one was published before, and is dropped. A venue may begin its ids anew: a trade whose
  own time is `ANEW_MS` beyond that of all before is new, whatever its id.
* What is `past` is history: while nothing of the topic has been published it is not news, and only tells where live
  trades go on. After a break it fills the hole.
* Where the venue's ids rise by one, a hole is noted, with how many are missing.

Pure: no I/O and no clock. It belongs to a feed, and so outlives its connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from connectors.base import Event, TopicNote
from protocol.fields import TradeFields

ANEW_MS: Final = 5_000
"""A trade so much later than all before, with a smaller id, begins a new sequence. What is repeated, or comes late, is
no later than that; only the clocks of a venue's own servers may differ by a little."""

SAME_ORDER_MOST: Final = 1024
"""How many trades with one order are remembered: Bybit's `seq` may span several messages of up to 1 024 trades."""


class _Last(msgspec.Struct):
    """The last trade of one topic.

    Attributes:
        order: its order.
        said: the ids of all with that order, the newest last; of those without one the data.
        exchange_ms: when the latest of all trades was made.
        is_published: whether any was published.
    """

    order: int
    said: dict[str | bytes, None]
    exchange_ms: int
    is_published: bool


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
            if type(event.fields) is not TradeFields or self._is_new(event, event.fields, notes):
                passed.append(event)
            else:
                self.repeats += 1
        return passed, notes

    def _is_new(self, event: Event, trade: TradeFields, notes: list[TopicNote]) -> bool:
        order = event.order
        if order is None:
            return not event.past
        id_ = trade.trade_id or event.data
        topic = (event.channel, event.instrument)
        last = self._last.get(topic)
        made_ms = event.exchange_ms or 0
        if last is None:
            self._last[topic] = _Last(order, {id_: None}, made_ms, not event.past)
            return not event.past
        is_anew = order < last.order and made_ms > last.exchange_ms + ANEW_MS
        if order < last.order and not is_anew:
            return False
        if order == last.order:
            if id_ in last.said:
                return False
            if len(last.said) == SAME_ORDER_MOST:
                del last.said[next(iter(last.said))]
            last.said[id_] = None
        else:
            missing = order - last.order - 1
            if self._consecutive and missing > 0:
                self.missing += missing
                notes.append(_hole(event, last.order, order, missing))
            last.order, last.said = order, {id_: None}
        last.exchange_ms = max(made_ms, last.exchange_ms)
        last.is_published = last.is_published or not event.past
        return last.is_published


def _hole(event: Event, before: int, after: int, missing: int) -> TopicNote:
    what = f"{missing} trade is" if missing == 1 else f"{missing} trades are"
    reason = f"{what} missing between the ids {before} and {after}"
    return TopicNote(event.channel, event.instrument, "gap", reason, missing, partial=True)
