"""Rows of text in columns, in a window of any width: what is worth least is left out, and no number is ever cut.

Widths are counted in the terminal's cells: a Chinese character takes two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from rich.cells import cell_len
from rich.text import Text

WIDE_GAP: Final = 2
NARROW_GAP: Final = 1

NOT_WHOLE: Final = "…"
"""Stands for a number that no line of the window can hold: some of its digits would be another number."""


class Column(msgspec.Struct, frozen=True):
    """One column.

    Attributes:
        name: its heading.
        worth: in a narrow window the column that is worth least is left out first.
        right: whether it is aligned to the right.
        least: to how many cells its texts may be cut, at the end; 0: never, as they are numbers.
    """

    name: str
    worth: int
    right: bool = False
    least: int = 0


class Layout:
    """How wide each column is. The one that is worth most is always there."""

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[Text]],
        width: int,
        widest: dict[str, int] | None = None,
    ) -> None:
        """Fit rows into a window; columns without any text take no room.

        Args:
            columns: what there is.
            rows: one cell for each column.
            width: cells of the window.
            widest: how wide each column's texts have been so far, by name; it is kept up. So columns do not come and go
                with a digit.
        """
        widest = {} if widest is None else widest
        self._columns = columns
        self._width = max(1, width)
        for at, column in enumerate(columns):
            widest[column.name] = max([widest.get(column.name, 0), *(cell_len(row[at].plain) for row in rows)])
        self._widths = [widest[column.name] for column in columns]
        bare, headed = (
            self._widths,
            [
                max(cells, cell_len(column.name)) if cells else 0
                for column, cells in zip(columns, self._widths, strict=True)
            ],
        )
        self._widths = headed
        if self._taken(NARROW_GAP) > self._width:
            self._widths = bare  # what is told comes before what it is called
        self._gap = WIDE_GAP if self._taken(WIDE_GAP) <= self._width else NARROW_GAP
        *others, most = sorted(range(len(columns)), key=lambda at: columns[at].worth)
        for at in others:
            self._squeeze(at)
        self._widths[most] = min(self._widths[most], self._width)

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
        """The row: one line, or several where its number has to be parted at its blanks."""
        if len([width for width in self._widths if width]) == 1:
            at = next(at for at, width in enumerate(self._widths) if width)
            if not self._columns[at].least and cell_len(row[at].plain) > self._width:
                return [self._word(word) for word in row[at].split(" ") if word.plain]
        return [self._joined(row)]

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
    columns: Sequence[Column], rows: Sequence[Mapping[str, Text]], width: int, widest: dict[str, int]
) -> tuple[Text, list[Text]]:
    """The heading and the lines of these rows, whose cells are given by the names of the columns; see `Layout`."""
    cells = [[row[column.name] for column in columns] for row in rows]
    layout = Layout(columns, cells, width, widest)
    return layout.head, [line for row in cells for line in layout.lines(row)]
