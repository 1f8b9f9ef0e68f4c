"""The first line of what `tickerd watch` shows: who is watched, and how the connection does."""

from __future__ import annotations

from typing import Final, assert_never

from rich.cells import cell_len
from rich.text import Text

from daemon.client import Gap, Lagged, Lost, Reconnecting, Resumed, Test
from daemon.commands.terminal.peer import clean

Happening = Lagged | Lost | Gap | Test | Reconnecting | Resumed
"""What a subscription yields beside data and states."""

_NOTE_S: Final = 10.0
"""How long a past event is shown."""


class Headline:
    """That line. `is_away`: whether there is no connection, so that nothing shown is current."""

    def __init__(self, title: str) -> None:
        """`title`: who is watched; it is made harmless."""
        self._title = clean(title)
        self._away: tuple[Reconnecting, float] | None = None
        self._note: tuple[str, float] = ("", float("-inf"))

    @property
    def is_away(self) -> bool:
        """See the class."""
        return self._away is not None

    def take(self, event: Happening, now_s: float) -> None:
        """Something has happened (monotonic)."""
        if isinstance(event, Reconnecting):
            self._away = (event, now_s)
            return
        if isinstance(event, Resumed):
            self._away = None
        self._note = (words(event), now_s)

    def line(self, now_s: float, width: int) -> Text:
        """The line as it is now. In a narrow window what has happened comes before the title."""
        said = Text()
        if self._away is not None:
            lost, at_s = self._away
            wait_s = max(0.0, at_s + lost.retry_in_s - now_s)
            said = Text(f"reconnecting in {wait_s:.1f} s: {clean(lost.reason)}", "bold yellow")
        elif now_s - self._note[1] < _NOTE_S:
            said = Text(self._note[0], "yellow")
        title = Text(self._title, "bold")
        line = Text("  ").join([title, said]) if said else title
        if said and cell_len(line.plain) > width:
            line = said
        line.no_wrap, line.overflow = True, "ellipsis"
        return line


def words(event: Happening) -> str:
    """An event in one line, safe to print."""
    match event:
        case Lagged():
            return f"lagged: {event.missed} messages were missed; the newest follow"
        case Lost():
            missed = sum(event.missed.values())
            counted = f" ({missed} messages)" if missed else ""
            return clean(f"lost{counted} of {', '.join(event.channels)}: {event.reason}")
        case Gap():
            return clean(f"gap: {event.channel} {event.instrument} between {event.after} and {event.before}")
        case Test():
            return clean(f"test: {event.message}")
        case Reconnecting():
            return clean(f"reconnecting in {event.retry_in_s:.1f} s: {event.reason}")
        case Resumed():
            how = "the daemon was restarted" if event.restarted else "nothing was lost"
            what = f"messages of {', '.join(event.lost)} were lost" if event.lost else how
            return clean(f"resumed after {event.away_s:.1f} s: {what}")
        case _:
            assert_never(event)
