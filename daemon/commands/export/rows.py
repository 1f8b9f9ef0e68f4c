"""What of an event stands in a table: one row for a trade, a quote or a candle, one for each changed level of a book.

Prices and sizes are the venue's digits as text here; what a file makes of them is its own affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from connectors.base import Event
from protocol.fields import CandleFields, DepthFields, QuoteFields, SnapshotFields, TradeFields
from protocol.kinds import View

Type: TypeAlias = Literal["text", "digits", "moment", "number", "flag"]
"""What a column holds: `digits` is a decimal number as text, `moment` ms since 1970."""

Value: TypeAlias = str | int | bool | None
Row: TypeAlias = tuple[Value, ...]

_COMMON: Final[dict[str, Type]] = {
    "venue": "text",
    "channel": "text",
    "instrument": "text",
    "exchange_ms": "moment",
    "received_ms": "moment",
}

COLUMNS: Final[dict[View, dict[str, Type]]] = {
    View.TRADE: {**_COMMON, "price": "digits", "size": "digits", "side": "text", "trade_id": "text"},
    View.QUOTE: {**_COMMON, "bid": "digits", "bid_size": "digits", "ask": "digits", "ask_size": "digits"},
    View.CANDLE: {
        **_COMMON,
        "interval": "text",
        "start_ms": "moment",
        **dict.fromkeys(("open", "high", "low", "close", "volume"), "digits"),
        "closed": "flag",
    },
    View.DEPTH: {**_COMMON, "update": "number", "reset": "flag", "side": "text", "price": "digits", "size": "digits"},
}
"""The columns of a table, in order, by what a reader finds in the messages of its kind of channel."""

_levels: Final = msgspec.json.Decoder(list[tuple[str, str]])


class Rows:
    """Makes rows of events of one kind.

    `depth`: `update` counts the messages of a topic, from 1 on; with `reset` the book begins anew by that message: what
    was before is void. A size of 0 removes the level. A book that begins empty has no row.
    """

    def __init__(self, venues: dict[str, str]) -> None:
        """`venues` are those of the channels, by the channel's name."""
        self._venues = venues
        self._updates: dict[tuple[str, str], int] = {}

    def of(self, event: Event) -> Iterator[Row]:
        """The rows of an event; none where it is of another kind."""
        common = (
            self._venues.get(event.channel, ""),
            event.channel,
            event.instrument,
            event.exchange_ms,
            event.received_ms,
        )
        match event.fields:
            case TradeFields() as trade:
                yield *common, event.price, _text(trade.size), trade.side, trade.trade_id
            case QuoteFields() as quote:
                yield *common, *map(_text, (quote.bid, quote.bid_size, quote.ask, quote.ask_size))
            case CandleFields() as candle:
                digits = map(_text, (candle.open, candle.high, candle.low, candle.close, candle.volume))
                yield *common, candle.interval, candle.start_ms, *digits, candle.closed
            case DepthFields() | SnapshotFields() as book:
                topic = (event.channel, event.instrument)
                number = self._updates[topic] = self._updates.get(topic, 0) + 1
                reset = isinstance(book, SnapshotFields)
                for side, levels in (("bid", book.bids), ("ask", book.asks)):
                    for price, size in _levels.decode(levels):
                        yield *common, number, reset, side, price, size
            case _:
                return


def _text(digits: Raw | UnsetType) -> str | None:
    return None if digits is UNSET else bytes(digits).decode()
