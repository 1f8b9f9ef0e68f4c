"""What an event of a stream has beside the fields of all events: trades, quotes, books, candles.

A connector makes these; the names are those of the message that it becomes (`protocol/messages.py`). Prices and sizes
are the venue's digits as JSON numbers, made by `protocol.messages.number`; levels are JSON lists of
`[price, quantity]`, both as text.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from protocol.messages import Side


class TradeFields(msgspec.Struct, frozen=True, gc=False):
    """One trade: its size, what the taker did, the venue's id of it."""

    size: Raw
    side: Side
    trade_id: str


class QuoteFields(msgspec.Struct, frozen=True, gc=False):
    """The best bid and ask; a side that is empty has neither price nor size."""

    bid: Raw | UnsetType = UNSET
    bid_size: Raw | UnsetType = UNSET
    ask: Raw | UnsetType = UNSET
    ask_size: Raw | UnsetType = UNSET


class ConsolidatedFields(msgspec.Struct, frozen=True, gc=False):
    """The best bid and ask over all venues, and whose they are."""

    bid: Raw | UnsetType = UNSET
    bid_size: Raw | UnsetType = UNSET
    bid_exchange: str | UnsetType = UNSET
    ask: Raw | UnsetType = UNSET
    ask_size: Raw | UnsetType = UNSET
    ask_exchange: str | UnsetType = UNSET


class DepthFields(msgspec.Struct, frozen=True, gc=False):
    """The levels of a book that changed; the quantity "0" removes one."""

    bids: Raw
    asks: Raw


class SnapshotFields(msgspec.Struct, frozen=True, gc=False):
    """A whole book, best first. `reset`: it begins anew here for everybody; else it is a keyframe.

    `through`: of a keyframe the `seq` of the last update in it.
    """

    bids: Raw
    asks: Raw
    reset: bool = True
    through: int | UnsetType = UNSET


class CandleFields(msgspec.Struct, frozen=True, gc=False):
    """One candle; `start_ms` is when it opened, ms since 1970."""

    interval: str
    start_ms: int
    open: Raw
    high: Raw
    low: Raw
    close: Raw
    volume: Raw
    closed: bool


Fields: TypeAlias = TradeFields | QuoteFields | ConsolidatedFields | DepthFields | SnapshotFields | CandleFields
"""What an event of a stream has beside the common fields."""
