"""Rows of text in columns, in a window of any width: what is worth least is left out, and no number is ever cut.

One column, the one that is worth most, holds the number that a row is about. Where it leaves no room for what says
whose number it is, it gets a line of its own. Widths are counted in the terminal's cells, of which a Chinese character
takes two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
from rich.cells import cell_len
from rich.text import Text

WIDE_GAP: Final = 2
NARROW_GAP: Final = 1

NOT_WHOLE: Final = "…"
"""Stands for a number that no line of the window can hold: some of its digits would be another number."""

_USUAL: Final = 12
"""Cells that most prices fit into."""

_INDENT: Final = "  "

Widest: TypeAlias = dict[tuple[int, str], int]
"""How wide the texts of a column have been so far in a window of that width, by the column's name."""


class Column(msgspec.Struct, frozen=True):
    """One column.

    Attributes:
        name: its heading.
        worth: in a narrow window the column that is worth least is left out first.
        right: whether it is aligned to the right.
        least: to how many cells its texts may be cut, at the end; 0: never, as they are numbers.
        key: how many cells of it the number of a row must leave, if that is possible: it says whose number it is.
    """

    name: str
    worth: int
    right: bool = False
    least: int = 0
    key: int = 0


class Layout:
    """How wide each column is. The one that is worth most is always there."""

    def __init__(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int, widest: Widest | None = None
    ) -> None:
        """Fit rows into a window; columns without any text take no room.

        Args:
            columns: what there is.
            rows: one cell for each column.
            width: cells of the window.
            widest: is kept up. So columns do not come and go with a digit.
        """
        widest = {} if widest is None else widest
        self._columns = columns
        self._width = max(1, width)
        *others, self._most = sorted(range(len(columns)), key=lambda at: columns[at].worth)
        self._widths = [0] * len(columns)
        for at in (*others, self._most):
            cells = [cell_len(row[at].plain) for row in rows]
            if at == self._most:
                self._room = self._room_beside(others)
                cells = [each for each in cells if each <= self._room]
            name = self._width, columns[at].name
            self._widths[at] = widest[name] = max([widest.get(name, 0), *cells])
        bare, self._widths = (
            self._widths,
            [
                max(cells, cell_len(column.name)) if cells else 0
                for column, cells in zip(columns, self._widths, strict=True)
            ],
        )
        if self._taken(NARROW_GAP) > self._width:
            self._widths = bare  # what is told comes before what it is called
        self._gap = WIDE_GAP if self._taken(WIDE_GAP) <= self._width else NARROW_GAP
        for at in others:
            self._squeeze(at)
        for at, column in enumerate(columns):
            lacking = cell_len(column.name) - self._widths[at]
            if self._widths[at] and 0 < lacking <= self._width - self._taken(self._gap):
                self._widths[at] += lacking

    def _room_beside(self, others: Sequence[int]) -> int:
        """How wide a number may be beside what says whose it is."""
        keys = [min(self._columns[at].key, self._widths[at]) for at in others]
        room = self._width - sum(key + NARROW_GAP for key in keys if key)
        if room >= _USUAL or not others:
            return room
        next_most = others[-1]
        least = min(self._columns[next_most].least, self._widths[next_most])
        return self._width - (least + NARROW_GAP if least else 0)

    def _taken(self, gap: int) -> int:
        shown = [width for width in self._widths if width]
        return sum(shown) + gap * (len(shown) - 1)

    def _squeeze(self, at: int) -> None:
        """Cut a column as far as needed and allowed; where that is not enough, leave it out."""
        over = self._taken(self._gap) - self._width
        if over > 0 and self._widths[at]:
            least, cut = self._columns[at].least, self._widths[at] - over
            self._widths[at] = cut if least and cut >= least else 0

    def shows(self, name: str) -> bool:
        """Whether the column of that name is seen."""
        return any(width and column.name == name for column, width in zip(self._columns, self._widths, strict=True))

    @property
    def head(self) -> Text:
        """The line of headings."""
        cells = [Text(column.name, "bold") for column in self._columns]
        for cell, width in zip(cells, self._widths, strict=True):
            cell.truncate(width)
        return self._joined(cells)

    def lines(self, row: Sequence[Text]) -> list[Text]:
        """The row: one line, or several where its number has lines of its own."""
        number = row[self._most]
        if cell_len(number.plain) <= self._room:
            return [self._joined(row)]
        beside = self._joined([Text() if at == self._most else cell for at, cell in enumerate(row)])
        whole = Text(_INDENT) + number
        parts = [whole] if cell_len(whole.plain) <= self._width else [self._word(word) for word in number.split(" ")]
        for part in parts:
            part.no_wrap = True
        return [*([beside] if beside.plain else []), *parts]

    def _word(self, word: Text) -> Text:
        return word if cell_len(word.plain) <= self._width else Text(NOT_WHOLE, word.style)

    def _joined(self, row: Sequence[Text]) -> Text:
        cells: list[Text] = []
        for column, width, cell in zip(self._columns, self._widths, row, strict=True):
            if not width:
                continue
            cell = cell.copy()
            if column.least:
                cell.truncate(width, overflow="ellipsis")
            room = max(0, width - cell_len(cell.plain))
            if column.right:
                cell.pad_left(room)
            else:
                cell.pad_right(room)
            cells.append(cell)
        line = Text(" " * self._gap).join(cells)
        line.rstrip()
        line.no_wrap = True
        return line


def laid_out(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Text]], width: int, widest: Widest
) -> tuple[Layout, list[Text]]:
    """The layout and the lines of these rows, whose cells are given by the names of the columns."""
    cells = [[row[column.name] for column in columns] for row in rows]
    layout = Layout(columns, cells, width, widest)
    return layout, [line for row in cells for line in layout.lines(row)]
