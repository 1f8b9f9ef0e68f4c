"""The live table of `tickerd watch`: the data by channel and instrument, and how it is drawn.

`Sheet` takes what a subscription gives and keeps what is to be seen; drawing it again shows ages that have grown and
flashes that have faded. Texts are put in as they are: nothing in them is markup.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, assert_never, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from daemon.client import Book, Data, Gap, Lagged, Lost, Received, Reconnecting, Resumed, Status, Test
from daemon.commands.terminal.peer import clean
from protocol.kinds import VIEWS, View

STYLES: Final = {"live": "green", "stale": "yellow", "reconnecting": "yellow", "connecting": "dim", "down": "bold red"}
"""How a state is shown."""

_FLASH_S: Final = 0.8
_NOTE_S: Final = 10.0
"""How long a past event is shown."""

_WIDE: Final = 60
"""Columns of a terminal that has room for the table."""

_RISE: Final = ("▲", "bold green")
_FALL: Final = ("▼", "bold red")


class _Row(msgspec.Struct):
    """One topic: its last message, when its price last changed, and when the daemon had it (ms since 1970).

    `taken_s` is when it came here: by a clock that is never set.
    """

    shown: str
    received_ms: int
    taken_s: float
    changed_s: float = float("-inf")
    change: tuple[str, str] = ("", "")


class _Book(msgspec.Struct):
    bids: list[list[Raw]]
    asks: list[list[Raw]]


class Sheet:
    """What is seen.

    Args:
        title: who is watched.
        ahead_s: how far the daemon's clock is ahead of this machine's: ages are by the daemon's. Either may be set
            meanwhile, so each new message says it anew, and no age is less than the time that a message has been here.
        replayed: whether a recording is played: then what is new is as old as nothing, whenever it was recorded.
    """

    def __init__(self, title: str, ahead_s: float, *, replayed: bool = False) -> None:
        self._title = clean(title)
        self._replayed = replayed
        self._ahead_s = ahead_s
        self._rows: dict[tuple[str, str], _Row] = {}
        self._books: dict[tuple[str, str], Book] = {}
        self._states: dict[str, Status] = {}
        self._away: tuple[Reconnecting, float] | None = None
        self._note: tuple[str, float] = ("", float("-inf"))

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
            case Reconnecting():
                self._away = (received, now_s)
            case Resumed():
                self._away = None
                self._note = (words(received), now_s)
            case Lagged() | Lost() | Gap() | Test():
                self._note = (words(received), now_s)
            case _:
                assert_never(received)

    def _data(self, message: Data, now_s: float) -> None:
        instrument = "" if isinstance(message.instrument, UnsetType) else message.instrument
        topic = (message.connector_id, instrument)
        shown = self._best(topic, message) if _view(message) is View.DEPTH else _shown(message)
        row = _Row(shown, message.received_ms, now_s)
        before = self._rows.get(topic)
        if before is not None and before.shown:
            row.changed_s, row.change = before.changed_s, before.change
            if shown != before.shown:
                row.changed_s, row.change = now_s, _change(before.shown, shown)
        self._rows[topic] = row

    def _best(self, topic: tuple[str, str], message: Data) -> str:
        """The best bid and ask of the book that an instrument's changes make; "" while something of it is missing."""
        book = self._books.setdefault(topic, Book())
        try:
            book.take(cast("Any", message))  # whatever has this view is one of a book's
        except ValueError:
            book.forget()
        bids, asks = book.top(1)
        return clean(" / ".join(side[0][0] if side else "-" for side in (bids, asks))) if book.is_whole else ""

    def draw(self, now_s: float, wall_s: float, rows: int, width: int = _WIDE) -> RenderableType:
        """The table with at most that many rows, under two lines about the connection.

        Where the width is small, each row is a line that begins with the price, cut with an ellipsis where it must be:
        half of a price's digits would be another price.
        """
        table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
        for name in ("channel", "instrument", "price", "", "age", "state"):
            right = name in ("price", "age")
            table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
        mute = self._states.keys() - {channel for channel, _ in self._rows}
        topics = sorted([*self._rows, *((channel, "") for channel in mute)], key=self._order)
        fitting = len(topics) if len(topics) <= rows else max(1, rows - 1)
        lines: list[RenderableType] = []
        for topic in topics[:fitting]:
            cells = self._cells(topic, now_s, wall_s)
            table.add_row(*cells)
            words = Text(" ").join(cells[at] for at in (2, 3, 1 if topic[1] else 0, 5) if cells[at])
            words.no_wrap, words.overflow = True, "ellipsis"
            lines.append(words)
        parts: list[RenderableType] = [self._line(now_s), *([table] if width >= _WIDE else lines)]
        if fitting < len(topics):
            more = f"{len(topics) - fitting} more rows do not fit; name channels, or make the window higher"
            parts.append(Text(more, "dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _order(self, topic: tuple[str, str]) -> tuple[int, str]:
        """Channels in the daemon's order, each sorted by name."""
        channel, instrument = topic
        names = list(self._states)
        return (names.index(channel) if channel in self._states else len(names)), instrument

    def _cells(self, topic: tuple[str, str], now_s: float, wall_s: float) -> list[Text]:
        row, status = self._rows.get(topic, _Row("", 0, now_s)), self._states.get(topic[0])
        state = "" if status is None else status.state
        told = Text(state, STYLES.get(state, ""))
        if status is not None and status.reason and state != "live":
            told.append(f" {clean(status.reason)}", "default")
        faded = "dim" if state in ("stale", "down", "reconnecting") or self._away is not None else ""
        flash = row.change[1] if now_s - row.changed_s < _FLASH_S else faded
        age_s = max(wall_s + self._ahead_s - row.received_ms / 1000, now_s - row.taken_s)
        return [
            Text(clean(topic[0]), faded),
            Text(clean(topic[1]), faded),
            Text(row.shown, flash),
            Text(row.change[0], flash),
            Text(seconds(age_s) if row.received_ms else "", faded),
            told,
        ]

    def _line(self, now_s: float) -> Text:
        line = Text(self._title, "bold", no_wrap=True, overflow="ellipsis")
        if self._away is not None:
            lost, at_s = self._away
            wait_s = max(0.0, at_s + lost.retry_in_s - now_s)
            line.append(f"  reconnecting in {wait_s:.1f} s: {clean(lost.reason)}", "bold yellow")
        elif now_s - self._note[1] < _NOTE_S:
            line.append(f"  {self._note[0]}", "yellow")
        return line


def change(received: Received, seen: dict[tuple[str, object], str]) -> str:
    """One plain line for what is new in a message, "" where nothing is. `seen` keeps the last line of each topic."""
    match received:
        case Data():
            topic: tuple[str, object] = (received.connector_id, received.instrument)
            name = "" if isinstance(received.instrument, UnsetType) else f" {received.instrument}"
            line = f"{received.connector_id}{name} {_shown(received) or 'a new message'}"
        case Status():
            topic = (received.channel, None)
            line = f"{received.channel} is {received.state}{f': {received.reason}' if received.reason else ''}"
        case _:
            return words(received)
    if seen.get(topic) == line:
        return ""
    seen[topic] = line
    return clean(line)


def words(event: Lagged | Lost | Gap | Test | Reconnecting | Resumed) -> str:
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


def seconds(age_s: float) -> str:
    """An age, short."""
    if age_s < 59.95:
        return f"{age_s:.1f} s"
    age_s = max(age_s, 60)
    minutes, rest_s = divmod(int(age_s), 60)
    return f"{minutes}:{rest_s:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"


def _shown(message: Data) -> str:
    """What a message says, in the venue's own digits: the price, or what its view has instead.

    A trade's price is followed by its size and side, a candle's close by its interval. Of a book and of a quote it is
    the best bid and ask, of all venues' with whose they are; of a book's changes how many levels they are about.
    """
    match _view(message):
        case View.BOOK:
            try:
                book = msgspec.json.decode(message.data, type=_Book)
                best = (bytes(side[0][0]).decode().strip('"') if side else "-" for side in (book.bids, book.asks))
                return clean(" / ".join(best))
            except (msgspec.DecodeError, UnicodeError, IndexError):
                return ""
        case View.TRADE:
            return f"{_said(message, 'price')} {_said(message, 'size')} {_said(message, 'side')}"
        case View.QUOTE:
            return f"{_said(message, 'bid') or '-'} / {_said(message, 'ask') or '-'}"
        case View.BEST:
            sides = (f"{_said(message, side)} {_said(message, f'{side}_exchange')}" for side in ("bid", "ask"))
            return " / ".join(side.strip() or "-" for side in sides)
        case View.DEPTH:
            return f"levels: {_levels(message, 'bids')} bids, {_levels(message, 'asks')} asks"
        case View.CANDLE:
            return f"{_said(message, 'close')} {_said(message, 'interval')}"
        case _:
            return _said(message, "price")


def _view(message: Data) -> View | None:
    return VIEWS.get(str(message.__struct_config__.tag))


def _said(message: Data, field: str) -> str:
    """What stands in a field of a message, safe to print; "" where there is nothing."""
    value: Raw | str | UnsetType = getattr(message, field, UNSET)
    match value:
        case UnsetType():
            return ""
        case str():
            return clean(value)
        case _:
            return clean(bytes(value).decode(errors="replace"))


def _levels(message: Data, side: str) -> int:
    """How many a message has; 0 for what is no list."""
    levels: Raw = getattr(message, side)
    try:
        return len(msgspec.json.decode(levels, type=list[Raw]))
    except msgspec.DecodeError:
        return 0


def _change(before: str, after: str) -> tuple[str, str]:
    """Up or down, if it is a number that has changed; other digits of the same number are no move.

    What stands behind the number of a trade or a candle is no part of it.
    """
    try:
        old, new = (Decimal(text if " / " in text else text.partition(" ")[0]) for text in (before, after))
        return _RISE if new > old else _FALL if new < old else ("", "")
    except InvalidOperation:
        return ("", "bold")
