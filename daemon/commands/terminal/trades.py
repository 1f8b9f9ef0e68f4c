"""The tape of trades of `tickerd watch --kind trades`: each trade a line, the newest at the top."""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import UnsetType
from rich.text import Text

from daemon.client import Data, Received, Status, Trade
from daemon.commands.terminal.columns import Column, Widest, laid_out
from daemon.commands.terminal.contents import instrument, said
from daemon.commands.terminal.headline import Headline
from daemon.commands.terminal.peer import clean
from daemon.commands.terminal.picture import Picture
from daemon.commands.terminal.table import STYLES

_MOST: Final = 2000
"""Trades that can be scrolled back to."""

_SIDES: Final = {"buy": "green", "sell": "red"}

_COLUMNS: Final = (
    Column("time", 50),
    Column("channel", 40),
    Column("instrument", 70, least=4),
    Column("side", 90),
    Column("price", 100, right=True),
    Column("size", 80, right=True),
)


class TradeTape:
    """What is seen."""

    def __init__(self, title: str) -> None:
        """`title`: who is watched."""
        self._headline = Headline(title)
        self._rows: deque[dict[str, Text]] = deque(maxlen=_MOST)
        self._states: dict[str, Status] = {}
        self._grown = 0
        self._widest: Widest = {}

    def take(self, received: Received, now_s: float, wall_s: float | None = None) -> None:
        """Take what a subscription has yielded; see `View`."""
        match received:
            case Trade():
                self._rows.appendleft(_cells(received))
                self._grown += 1
            case Status():
                self._states[received.channel] = received
            case Data():
                pass  # whoever asks for trades gets no other data
            case _:
                self._headline.take(received, now_s)

    def draw(self, now_s: float, wall_s: float, width: int) -> Picture:
        """The tape in so many cells, under the channels that are not live."""
        layout, body = laid_out(_COLUMNS, self._rows, width, self._widest)
        grown, self._grown = self._grown, 0
        return Picture(self._headline.line(now_s, width), layout.head, [*troubles(self._states), *body], grown)


def troubles(states: dict[str, Status]) -> list[Text]:
    """A line for each channel that is not live."""
    lines: list[Text] = []
    for status in states.values():
        if status.state != "live":
            line = Text.assemble(clean(status.channel), " ", (status.state, STYLES.get(status.state, "")))
            if status.reason:
                line.append(f" {clean(status.reason)}")
            line.overflow = "ellipsis"
            lines.append(line)
    return lines


def _cells(trade: Trade) -> dict[str, Text]:
    at_ms = trade.received_ms if isinstance(trade.exchange_ms, UnsetType) else trade.exchange_ms
    style = _SIDES.get(trade.side, "")
    return {
        "time": Text(_time_of_day(at_ms), "dim"),
        "channel": Text(clean(trade.connector_id)),
        "instrument": Text(clean(instrument(trade))),
        "side": Text(clean(trade.side), style),
        "price": Text(said(trade, "price"), style),
        "size": Text(said(trade, "size")),
    }


def _time_of_day(ms: int) -> str:
    """UTC, whatever a daemon says: such a number need not be a date."""
    seconds, rest_ms = divmod(ms % 86_400_000, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest_ms:03}"
