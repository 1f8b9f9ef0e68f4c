"""What Coinbase answers to requests, which names no request: what that means for each of them. Pure.

Source: Coinbase's documentation of Advanced Trade, "WebSocket overview" (November 2026); what its frames look like is
known from clients (nautilus_trader's fixtures, ccxt, JKorf/Coinbase.Net#19).

* A request is answered with the list of all that the connection is subscribed to, channel by channel. Whatever stands
  there is acknowledged; what was to end and does not stand there has ended.
* An error is a frame of its own, `{"type":"error","message":"..."}`, which repeats nothing of the request. Who is
  meant is found out: of the requests without an answer those whose product stands in the text, else those of a channel
  that stands in it ("L2" for `level2`), else all; of these the first that has not been blamed yet, because requests are
  answered in order. A wrong guess mends itself: what is blamed wrongly is served by its data or by the next list, and
  what was meant stays unanswered, is asked for again, and is blamed then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from connectors.limits.payload import brief
from connectors.push.venue import Control, Ignored, Several, SubscribeAck, SubscribeEnded, SubscribeRefused
from connectors.venues.coinbase.plan import Subscription

HEARTBEATS: Final = "heartbeats"
"""The channel, and the id of its subscription."""

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "level2": ("l2", "level2"),
    "market_trades": ("market_trades", "market trades"),
    "ticker": ("ticker",),
    "candles": ("candle",),
    HEARTBEATS: ("heartbeat",),
}
"""By which a channel is known in the text of an error."""

_BUSY: Final = (
    "rate limit",
    "too many requests",
    "temporar",
    "unavailable",
    "try again",
    "internal",
    "busy",
    "timeout",
)
"""In an error that the next request may not meet. There are no codes, so others count as lasting."""


class Answers:
    """The requests of one connection that want an answer, and what was answered."""

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        """In the order in which they are asked for; after that of `heartbeats`."""
        self._asked = {HEARTBEATS: (HEARTBEATS, "", HEARTBEATS)} | {
            each.id: (each.stream, each.product, each.instrument) for each in subscriptions
        }
        self._unanswered = dict.fromkeys(self._asked)
        self._leaving: dict[str, None] = {}
        self._blamed: dict[str, None] = {}
        """The last one that was blamed stands last."""

    def leave(self, id_: str) -> None:
        """It is to be ended, and asked for again."""
        self._leaving[id_] = None

    def listed(self, held: Mapping[str, Iterable[str] | None]) -> Control:
        """The list of all subscriptions has come: the products of each channel."""
        controls: list[SubscribeAck | SubscribeEnded] = []
        there = {name: frozenset(products or ()) for name, products in held.items()}
        for id_ in [id_ for id_ in self._leaving if not self._is_there(id_, there)]:
            del self._leaving[id_]
            self._unanswered[id_] = None
            controls.append(SubscribeEnded(id_))
        for id_ in [id_ for id_ in self._unanswered if self._is_there(id_, there)]:
            del self._unanswered[id_]
            self._blamed.pop(id_, None)
            controls.append(SubscribeAck(id_))
        match controls:
            case []:
                return Ignored("a list of subscriptions")
            case [single]:
                return single
            case _:
                return Several(tuple(controls))

    def error(self, message: str) -> SubscribeRefused:
        """An error has come."""
        why = brief(message) or "an error without a text"
        is_busy = any(word in message.lower() for word in _BUSY)
        meant, is_named = self._meant(message.casefold())
        if meant is None:
            return SubscribeRefused("", f"Coinbase says: {why}", retry=True)
        self._blamed.pop(meant, None)
        self._blamed[meant] = None
        stream, _, subject = self._asked[meant]
        what = subject if stream == HEARTBEATS else f"{subject} ({stream})"
        guess = "" if is_named else "; which one it means it does not say"
        if is_busy:
            return SubscribeRefused(meant, f"Coinbase cannot serve {what} now: {why}{guess}", retry=True)
        return SubscribeRefused(meant, f"refused by Coinbase: {what}: {why}{guess}", retry=False)

    def _is_there(self, id_: str, there: Mapping[str, frozenset[str]]) -> bool:
        stream, product, _ = self._asked[id_]
        return stream in there and (not product or product in there[stream])

    def _meant(self, text: str) -> tuple[str | None, bool]:
        """Whom an error means, and whether its text says so."""
        candidates = list(self._unanswered)
        named = [id_ for id_ in candidates if (product := self._asked[id_][1]) and product.casefold() in text]
        candidates = named or candidates
        of_channel = [id_ for id_ in candidates if any(word in text for word in _WORDS[self._asked[id_][0]])]
        candidates = of_channel or candidates
        if not candidates:
            return None, False
        fresh = [id_ for id_ in candidates if id_ not in self._blamed]
        # The one that was blamed longest ago, if all were.
        return (fresh or [id_ for id_ in self._blamed if id_ in candidates])[0], bool(named)
