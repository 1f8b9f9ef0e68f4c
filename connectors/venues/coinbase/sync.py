"""One book of Coinbase's `level2`, which arrives as `l2_data`: when it is right. Pure.

Source: Coinbase's documentation of Advanced Trade, "WebSocket channels: level2" (November 2026). The first event is a
`snapshot`, the whole book; each `update` has levels with their absolute `new_quantity`, 0 removes one; sides are `bid`
and `offer`. That nothing is missing between them is seen by the connection's numbers (`continuity.py`).

A book that is crossed is wrong, or is half way through a change: times of levels are not in order from frame to
frame, so one side may be ahead of the other for a moment. So a crossed book is not published, but what changed is kept,
and goes out with the change that uncrosses it. One that stays crossed for `CROSSED_MS` is lost; then its product
alone is unsubscribed from, and subscribed to again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from connectors.base import Event, TopicNote
from connectors.books.awaited import Awaited
from connectors.books.book import Changes, Level
from connectors.books.topic import BookTopic

CROSSED_MS: Final = 1_000


class CoinbaseBook:
    """One instrument's.

    Attributes:
        topic: what is published of it.
        id: of the subscription that feeds it.
        is_renewed: whether it was lost on this connection, and its next snapshot has not come yet.
    """

    __slots__ = ("_awaited", "_crossed_ms", "_held", "id", "is_renewed", "topic")

    def __init__(self, topic: BookTopic, id_: str) -> None:
        self.topic = topic
        self.id = id_
        self.is_renewed = False
        self._awaited = Awaited()
        self._held: Changes | None = None
        self._crossed_ms = 0

    @property
    def is_published(self) -> bool:
        """Whether the topic is what the venue has, as far as is known."""
        return self.topic.is_whole and self._held is None

    def snapshot(
        self, bids: Sequence[Level], asks: Sequence[Level], received_ms: int, exchange_ms: int | None
    ) -> list[Event] | None:
        """The whole book; None where it is crossed, which is no book.

        Raises:
            ValueError: a price or quantity is none.
        """
        self.topic.book.replace(bids, asks)
        self._held = None
        if self.topic.book.is_crossed:
            return None
        self.is_renewed = False
        self._awaited.came()
        return self.topic.began(received_ms, exchange_ms)

    def update(
        self, bids: Sequence[Level], asks: Sequence[Level], received_ms: int, exchange_ms: int | None
    ) -> list[Event]:
        """Levels that changed; only of a book that is whole.

        Raises:
            ValueError: a price or quantity is none.
        """
        book = self.topic.book
        changes = book.apply(bids, asks)
        if book.is_crossed:
            if self._held is None:
                self._crossed_ms = received_ms
            self._held = _together(self._held, changes)
            return []
        if self._held is not None:
            changes, self._held = _together(self._held, changes), None
        return self.topic.changed(changes, received_ms, exchange_ms)

    def lost(self, reason: str) -> list[TopicNote]:
        """It is not to be trusted until the next snapshot."""
        self.is_renewed, self._held = True, None
        self._awaited.came()
        return self.topic.lost(reason)

    def in_vain(self, now_ms: int) -> str:
        """One more update has come without a snapshot before it: what is wrong; "" where it may still come."""
        if not self.is_renewed:
            return "an update came without a snapshot before it"
        return self._awaited.in_vain(now_ms)

    def crossed_for_ms(self, now_ms: int) -> int | None:
        """How long it has been crossed; None while it is not. A clock that was set back counts as the whole time."""
        if self._held is None:
            return None
        return now_ms - self._crossed_ms if now_ms >= self._crossed_ms else CROSSED_MS

    def waits_ms(self, now_ms: int) -> float | None:
        """In how many milliseconds it is to be looked at; None while it has not."""
        crossed_ms = self.crossed_for_ms(now_ms)
        return self.topic.waits_ms(now_ms) if crossed_ms is None else max(0, CROSSED_MS - crossed_ms)

    def tick(self, now_ms: int) -> list[Event]:
        """The best levels that are due."""
        return self.topic.tick(now_ms) if self._held is None else []


def _together(held: Changes | None, changes: Changes) -> Changes:
    """Changes one after the other, the last word on each level."""
    if held is None:
        return changes
    return Changes(
        list((dict(held.bids) | dict(changes.bids)).items()), list((dict(held.asks) | dict(changes.asks)).items())
    )
