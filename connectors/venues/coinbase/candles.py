"""Which candles of Coinbase are closed. Pure.

The channel `candles` tells of the present candle of five minutes each second, and does not say that one is closed
(Coinbase's documentation of Advanced Trade, "WebSocket channels: candles", November 2026): it is when the next one
begins. So each candle is told once more, as closed, just before the first word of its successor. A snapshot has candles
of before; its last but one is closed, and was perhaps never told to be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from connectors.venues.coinbase.frames import Candle

INTERVAL: Final = "5m"


class Told(NamedTuple):
    """One candle, the row that tells of it, when it began (ms since 1970), and whether it is closed."""

    row: bytes
    candle: Candle
    start_ms: int
    closed: bool = False


class Candles:
    """The candles of one instrument."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: Told | None = None

    def take(self, rows: Iterable[Told], *, snapshot: bool) -> list[Told]:
        """What is news of these: nothing where they are about candles that are closed."""
        told = sorted(rows, key=lambda row: row.start_ms)
        if snapshot:
            told = told[-2:]
            self._latest = None
        news: list[Told] = []
        for row in told:
            latest = self._latest
            if latest is not None and row.start_ms < latest.start_ms:
                continue
            if latest is not None and row.start_ms > latest.start_ms:
                if news and news[-1] is latest:
                    news.pop()  # it is told to be closed at once
                news.append(latest._replace(closed=True))
            self._latest = row
            news.append(row)
        return news
