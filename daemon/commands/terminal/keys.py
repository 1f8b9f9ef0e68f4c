"""The keys of `tickerd watch`: what a terminal sends for each of them. Pure."""

from __future__ import annotations

import enum
import re
from typing import Final


class Key(enum.Enum):
    """What a key asks for."""

    UP = "up"
    DOWN = "down"
    PAGE_UP = "page up"
    PAGE_DOWN = "page down"
    HOME = "home"
    END = "end"
    REDRAW = "redraw"
    QUIT = "quit"


_SEQUENCE: Final = re.compile(rb"\x1b\[[0-9;]*[@-~]|\x1bO[@-~]|.", re.DOTALL)
_UNFINISHED: Final = re.compile(rb"\x1b(?:\[[0-9;]*|O)\Z")
_MODIFIERS: Final = re.compile(rb"(?<=\[)1;[0-9]+(?=[A-H])|;[0-9]+(?=~)")
"""Shift and the like: `ESC [ 1 ; 2 A` is the arrow with shift."""

_LONGEST: Final = 16

_KEYS: Final = {
    **dict.fromkeys((b"\x1b[A", b"\x1bOA", b"k"), Key.UP),
    **dict.fromkeys((b"\x1b[B", b"\x1bOB", b"j", b"\n", b"\r"), Key.DOWN),
    **dict.fromkeys((b"\x1b[5~", b"b"), Key.PAGE_UP),
    **dict.fromkeys((b"\x1b[6~", b" ", b"f"), Key.PAGE_DOWN),
    **dict.fromkeys((b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"\x1b[7~", b"g"), Key.HOME),
    **dict.fromkeys((b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"\x1b[8~", b"G"), Key.END),
    b"\x0c": Key.REDRAW,
    **dict.fromkeys((b"q", b"Q"), Key.QUIT),
}
"""xterm's sequences, those of terminals in application mode, rxvt's and the console's; and the letters of `less`."""


class Keyboard:
    """Makes keys of what was read. A sequence that is cut short waits for its rest; all that has no meaning is left."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> list[Key]:
        """The keys in what was just read."""
        data = self._rest + data
        unfinished = _UNFINISHED.search(data)
        cut = unfinished.start() if unfinished and len(unfinished[0]) <= _LONGEST else len(data)
        data, self._rest = data[:cut], data[cut:]
        found = (_MODIFIERS.sub(b"", sequence) for sequence in _SEQUENCE.findall(data))
        return [_KEYS[sequence] for sequence in found if sequence in _KEYS]
