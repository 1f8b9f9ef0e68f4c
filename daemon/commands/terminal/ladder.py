"""One instrument's order book, as `tickerd watch --kind book` shows it: bids and asks side by side, the best on top.

A book that is told in updates is rebuilt by `daemon.client.Book`. While something of it is missing it is not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from rich.text import Text

from daemon.client import Book, Data, Received, Status
from daemon.commands.terminal.columns import Column, Widest, laid_out
from daemon.commands.terminal.contents import digits, levels, take_levels, view
from daemon.commands.terminal.headline import Headline
from daemon.commands.terminal.peer import clean
from daemon.commands.terminal.picture import Picture
from daemon.commands.terminal.trades import troubles
from protocol.kinds import View as Content

_MOST: Final = 500
"""Levels of each side that can be scrolled to."""

_COLUMNS: Final = (
    Column("bid size", 70, right=True),
    Column("bid", 100, right=True),
    Column("ask", 90, right=True),
    Column("ask size", 80, right=True),
)

_STACKED: Final = (Column("", 90), Column("price", 100, right=True), Column("size", 80, right=True))


class Ladder:
    """What is seen."""

    def __init__(self, title: str) -> None:
        """`title`: who is watched, and which book."""
        self._headline = Headline(title)
        self._book = Book()
        self._sides: tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]] | None = None
        self._states: dict[str, Status] = {}
        self._widest: Widest = {}

    def take(self, received: Received, now_s: float, wall_s: float | None = None) -> None:
        """Take what a subscription has yielded; see `View`."""
        match received:
            case Data():
                self._data(received)
            case Status():
                self._states[received.channel] = received
            case _:
                self._headline.take(received, now_s)

    def _data(self, message: Data) -> None:
        if view(message) is Content.DEPTH:
            take_levels(self._book, message)
            self._sides = self._book.top(_MOST) if self._book.is_whole else None
        elif (found := levels(message)) is not None:
            both = ([[digits(each) for each in level] for level in side] for side in (found.bids, found.asks))
            bids, asks = both
            self._sides = bids[:_MOST], asks[:_MOST]

    def draw(self, now_s: float, wall_s: float, width: int) -> Picture:
        """The book in so many cells."""
        style = "dim" if self._headline.is_away else ""
        bids, asks = ([], []) if self._sides is None else self._sides
        rows = [
            {
                "bid size": Text(_at(bid, 1), style),
                "bid": Text(_at(bid, 0), style or "green"),
                "ask": Text(_at(ask, 0), style or "red"),
                "ask size": Text(_at(ask, 1), style),
            }
            for bid, ask in zip_longest(bids, asks, fillvalue=())
        ]
        layout, body = laid_out(_COLUMNS, rows, width, self._widest)
        if not all(layout.shows(side) for side in ("bid", "ask") if any(row[side] for row in rows)):
            # One below the other, where there is no room for both prices.
            rows = [
                {"": Text(side), "price": row[side], "size": row[f"{side} size"]}
                for row in rows
                for side in ("bid", "ask")
                if row[side]
            ]
            layout, body = laid_out(_STACKED, rows, width, self._widest)
        if not body:
            body = [Text("no whole book yet" if self._sides is None else "an empty book", "dim", overflow="ellipsis")]
        return Picture(self._headline.line(now_s, width), layout.head, [*troubles(self._states), *body])


def _at(level: Sequence[str], place: int) -> str:
    return clean(level[place]) if len(level) > place else ""
