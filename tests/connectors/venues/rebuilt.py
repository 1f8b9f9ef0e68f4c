"""A book rebuilt from what is published of it, and of nothing else: a few lines, as a client would write them."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from connectors.books.book import Level
from protocol.fields import DepthFields, SnapshotFields

_levels = msgspec.json.Decoder(list[tuple[str, str]])


class _Top(msgspec.Struct):
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class Rebuilt:
    """Both sides, by price as it is written."""

    def __init__(self) -> None:
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}

    @classmethod
    def of(cls, fields: SnapshotFields) -> Rebuilt:
        """What a snapshot says."""
        assert fields.reset
        made = cls()
        made.bids, made.asks = dict(_levels.decode(fields.bids)), dict(_levels.decode(fields.asks))
        return made

    def apply(self, fields: DepthFields) -> None:
        """What an update says."""
        for side, levels in ((self.bids, fields.bids), (self.asks, fields.asks)):
            for price, quantity in _levels.decode(levels):
                if quantity == "0":
                    del side[price]
                else:
                    side[price] = quantity

    def best(self, levels: int) -> tuple[list[Level], list[Level]]:
        """The best levels, best first."""
        bids = sorted(self.bids.items(), key=lambda level: -Decimal(level[0]))
        asks = sorted(self.asks.items(), key=lambda level: Decimal(level[0]))
        return bids[:levels], asks[:levels]

    @staticmethod
    def top(data: bytes) -> tuple[list[Level], list[Level]]:
        """What a message of the best levels says."""
        top = msgspec.json.decode(data, type=_Top)
        return top.bids, top.asks
