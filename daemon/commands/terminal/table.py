"""The live table of `tickerd watch`: the newest of each channel and instrument, and how it is drawn.

`Sheet` takes what a subscription gives and keeps what is to be seen; drawing it again shows ages that have grown and
flashes that have faded. Texts are put in as they are: nothing in them is markup.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec
from rich.text import Text

from daemon.client import Data, Received, Status
from daemon.commands.terminal.columns import Column, Widest, laid_out
from daemon.commands.terminal.contents import Best, instrument
from daemon.commands.terminal.headline import Headline
from daemon.commands.terminal.peer import clean
from daemon.commands.terminal.picture import Picture

STYLES: Final = {"live": "green", "stale": "yellow", "reconnecting": "yellow", "connecting": "dim", "down": "bold red"}
"""How a state is shown."""

FADED: Final = frozenset({"stale", "down", "reconnecting"})
"""States in which what is shown is not current."""

_FLASH_S: Final = 0.8

_RISE: Final = ("▲", "bold green")
_FALL: Final = ("▼", "bold red")
_SICK: Final = "!"
"""Beside what is not current: in a narrow window there is no more room for the state."""

_COLUMNS: Final = (
    Column("channel", 70, least=8, key=8),
    Column("instrument", 90, least=4, key=8),
    Column("price", 100, right=True),
    Column("", 80, key=1),
    Column("age", 40, right=True),
    Column("state", 60),
    Column("why", 20, least=8),
)


class _Row(msgspec.Struct):
    """One topic: its last message, when its price last changed, and when the daemon had it (ms since 1970).

    `taken_s` is when it came here: by a clock that is never set.
    """

    shown: str
    received_ms: int
    taken_s: float
    changed_s: float = float("-inf")
    change: tuple[str, str] = ("", "")


class Sheet:
    """What is seen.

    Args:
        title: who is watched.
        ahead_s: how far the daemon's clock is ahead of this machine's: ages are by the daemon's. Either may be set
            meanwhile, so each new message says it anew, and no age is less than the time that a message has been here.
        replayed: whether a recording is played: then what is new is as old as nothing, whenever it was recorded.
    """

    def __init__(self, title: str, ahead_s: float, *, replayed: bool = False) -> None:
        self._headline = Headline(title)
        self._replayed = replayed
        self._ahead_s = ahead_s
        self._rows: dict[tuple[str, str], _Row] = {}
        self._best = Best()
        self._states: dict[str, Status] = {}
        self._widest: Widest = {}

    def take(self, received: Received, now_s: float, wall_s: float | None = None) -> None:
        """Take what a subscription has yielded.

        Args:
            received: the message or event.
            now_s: the time, monotonic.
            wall_s: the same, since 1970 by this machine's clock, if the message has just been published.
        """
        match received:
            case Data():
                if wall_s is not None and self._replayed:
                    self._ahead_s = received.received_ms / 1000 - wall_s
                elif wall_s is not None:
                    self._ahead_s = datetime.fromisoformat(received.timestamp).timestamp() - wall_s
                self._data(received, now_s)
            case Status():
                self._states[received.channel] = received
            case _:
                self._headline.take(received, now_s)

    def _data(self, message: Data, now_s: float) -> None:
        topic = (message.connector_id, instrument(message))
        row = _Row(self._best.shown(message), message.received_ms, now_s)
        before = self._rows.get(topic)
        if before is not None and before.shown:
            row.changed_s, row.change = before.changed_s, before.change
            if row.shown != before.shown:
                row.changed_s, row.change = now_s, _change(before.shown, row.shown)
        self._rows[topic] = row

    def draw(self, now_s: float, wall_s: float, width: int) -> Picture:
        """The table in so many columns of the terminal. In a narrow one a row is an instrument and its price."""
        mute = self._states.keys() - {channel for channel, _ in self._rows}
        places = {name: place for place, name in enumerate(self._states)}
        # Channels in the daemon's order, each sorted by name.
        topics = sorted(
            [*self._rows, *((channel, "") for channel in mute)],
            key=lambda topic: (places.get(topic[0], len(places)), topic[1]),
        )
        rows = [self._cells(topic, now_s, wall_s) for topic in topics]
        layout, body = laid_out(_COLUMNS, rows, width, self._widest)
        if not layout.shows("channel") and any(not row["instrument"] for row in rows):
            # What is about a whole market is known by its channel.
            rows = [row if row["instrument"] else {**row, "instrument": row["channel"]} for row in rows]
            layout, body = laid_out(_COLUMNS, rows, width, self._widest)
        return Picture(self._headline.line(now_s, width), layout.head, body)

    def _cells(self, topic: tuple[str, str], now_s: float, wall_s: float) -> dict[str, Text]:
        row, status = self._rows.get(topic, _Row("", 0, now_s)), self._states.get(topic[0])
        state = "" if status is None else status.state
        sick = state in FADED or self._headline.is_away
        faded = "dim" if sick else ""
        flash = row.change[1] if now_s - row.changed_s < _FLASH_S else faded
        age_s = max(wall_s + self._ahead_s - row.received_ms / 1000, now_s - row.taken_s)
        why = clean(status.reason) if status is not None and state != "live" else ""
        return {
            "channel": Text(clean(topic[0]), faded),
            "instrument": Text(clean(topic[1]), faded),
            "price": Text(row.shown, flash),
            "": Text(_SICK, "bold yellow") if sick else Text(row.change[0], flash),
            "age": Text(seconds(age_s) if row.received_ms else "", faded),
            "state": Text(state, STYLES.get(state, "")),
            "why": Text(why),
        }


def seconds(age_s: float) -> str:
    """An age, short."""
    if age_s < 59.95:
        return f"{age_s:.1f} s"
    age_s = max(age_s, 60)
    minutes, rest_s = divmod(int(age_s), 60)
    return f"{minutes}:{rest_s:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"


def _change(before: str, after: str) -> tuple[str, str]:
    """Up or down, if it is a number that has changed; other digits of the same number are no move.

    What stands behind the number of a trade or a candle is no part of it.
    """
    try:
        old, new = (Decimal(text if " / " in text else text.partition(" ")[0]) for text in (before, after))
        return _RISE if new > old else _FALL if new < old else ("", "")
    except InvalidOperation:
        return ("", "bold")
