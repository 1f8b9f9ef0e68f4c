"""What a view of `tickerd watch` draws, and which part of it a window shows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from rich.text import Text

from daemon.client import Received
from daemon.commands.terminal.keys import Key

_ROOM_FOR_HEAD: Final = 4
_ROOM_FOR_FOOT: Final = 5
"""Lines of a window that has room for the headings, and for a line that says what can be done."""


class Picture(msgspec.Struct):
    """What there is to see, a line each, in the width that was asked for.

    Attributes:
        title: always the first line.
        head: the headings.
        body: what scrolls under them.
        grown: how many lines the body has got at its top since the picture before.
    """

    title: Text
    head: Text
    body: Sequence[Text]
    grown: int = 0


class View(Protocol):
    """What `tickerd watch` can show."""

    def take(self, received: Received, now_s: float, wall_s: float | None = None) -> None:
        """Take what a subscription has yielded, at that time (monotonic; since 1970 if it is new)."""
        ...

    def draw(self, now_s: float, wall_s: float, width: int) -> Picture:
        """What there is to see now, in so many cells."""
        ...


class Scroll:
    """Which line of the body is the first in the window. At the top it stays there, else it stays with its line."""

    def __init__(self) -> None:
        self._top = 0
        self._room = 1

    def press(self, key: Key) -> None:
        """Scroll. What goes too far is put right by the next `frame`."""
        page = max(1, self._room - 1)
        match key:
            case Key.UP:
                self._top -= 1
            case Key.DOWN:
                self._top += 1
            case Key.PAGE_UP:
                self._top -= page
            case Key.PAGE_DOWN:
                self._top += page
            case Key.HOME:
                self._top = 0
            case Key.END:
                self._top = 2**31
            case Key.REDRAW | Key.QUIT:
                pass
        self._top = max(0, self._top)

    def frame(self, picture: Picture, height: int) -> list[Text]:
        """The lines of a window of that height: at most so many."""
        lines = [picture.title] if height > 1 else []
        lines += [picture.head] if height >= _ROOM_FOR_HEAD else []
        has_foot = height >= _ROOM_FOR_FOOT
        self._room = max(1, height - len(lines) - has_foot)
        count = len(picture.body)
        if self._top:
            self._top += picture.grown
        self._top = max(0, min(self._top, count - self._room))
        lines += picture.body[self._top : self._top + self._room]
        if has_foot:
            lines += [Text()] * (height - 1 - len(lines))
            foot = Text("q ends", "dim")
            if count > self._room:
                seen = f"{self._top + 1}-{self._top + self._room} of {count}"
                foot = Text(f"{seen}; arrows and PgUp, PgDn scroll; q ends", "dim")
            lines.append(foot)
        for line in lines:
            line.no_wrap = True
            line.overflow = line.overflow or "crop"
        return lines
