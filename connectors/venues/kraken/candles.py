"""Which candles of Kraken are closed. Pure.

The channel `ohlc` tells of the present candle at each trade, and does not say that one is closed (Kraken's API
documentation, "Spot WebSocket v2: ohlc", November 2026): it is when the next one begins. So each candle is told once
more, as closed, just before the first word of its successor; one that nobody traded after stays open until then. A
snapshot holds candles of before, oldest first; its last but one is closed, and was perhaps never told to be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from connectors.venues.kraken.frames import Ohlc


class Told(NamedTuple):
    """One candle, the row that tells of it, when it began (ms since 1970), and whether it is closed."""

    row: bytes
    candle: Ohlc
    start_ms: int
    closed: bool = False


class Candles:
    """The candles of one instrument and one interval."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: Told | None = None

    def snapshot(self, rows: Iterable[Told]) -> list[Told]:
        """What is news of a snapshot: the present candle, and the one before it, which is closed."""
        last = sorted(rows, key=lambda row: row.start_ms)[-2:]
        if last:
            self._latest = last[-1]
        return [row._replace(closed=row is not last[-1]) for row in last]

    def update(self, row: Told) -> list[Told]:
        """What is news of an update: nothing where it is about a candle that is closed."""
        latest, self._latest = self._latest, row
        if latest is None or row.start_ms == latest.start_ms:
            return [row]
        if row.start_ms < latest.start_ms:
            self._latest = latest
            return []
        return [latest._replace(closed=True), row]
