"""How often the daemon is told about one topic: at once, and then every few seconds while it goes on. Pure.

A venue may send a bad row ten times a second, and for a thousand instruments. What is told is bounded by the number of
topics, whatever it sends; nothing is lost but repetitions, which are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from connectors.base import TopicNote
from protocol.messages import TopicCause

RENEW_S: Final = 5.0
"""What goes on is told again after so long: whoever hears nothing for some times of it knows that it is over."""

_Key: TypeAlias = tuple[str, str, TopicCause]


class NoteLimit:
    """What one connector has told of its topics."""

    def __init__(self) -> None:
        self._told_s: dict[_Key, float] = {}
        self._untold: dict[_Key, int] = {}

    def due(self, notes: Iterable[TopicNote], now_s: float) -> list[TopicNote]:
        """Those that are to be told now, with the count of all since the last time. `now_s` never goes back."""
        due: dict[_Key, TopicNote] = {}
        for note in notes:
            key = (note.channel, note.instrument, note.cause)
            count = self._untold.get(key, 0) + note.count
            if key in due or now_s - self._told_s.get(key, now_s - RENEW_S) >= RENEW_S:
                due[key] = msgspec.structs.replace(note, count=count)
                self._told_s[key] = now_s
            self._untold[key] = count
        for key in due:
            self._untold[key] = 0
        return list(due.values())

    def clear(self) -> None:
        """Begin anew: everything is told again at once."""
        self._told_s.clear()
        self._untold.clear()
