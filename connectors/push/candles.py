"""Which candles are closed, of a venue that does not say so: one is when the next begins. Pure.

Each candle is told once more, as closed, just before the first word of its successor; one that nobody traded after
stays open until then. A snapshot holds candles of before; its last but one is closed, and was perhaps never told to be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

_Row = TypeVar("_Row")


class Told(NamedTuple, Generic[_Row]):
    """One candle: the bytes that tell of it, what is in them, when it began (ms since 1970), whether it is closed."""

    row: bytes
    candle: _Row
    start_ms: int
    closed: bool = False


class Candles(Generic[_Row]):
    """The candles of one instrument and one interval."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: Told[_Row] | None = None

    def take(self, rows: Iterable[Told[_Row]], *, snapshot: bool = False) -> list[Told[_Row]]:
        """What is news of these, in any order: nothing where they are about candles that are closed."""
        told = sorted(rows, key=lambda row: row.start_ms)
        if snapshot:
            told = told[-2:]
            self._latest = None
        news: list[Told[_Row]] = []
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
