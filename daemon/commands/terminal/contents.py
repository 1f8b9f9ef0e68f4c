"""What a message says to a reader, in the venue's own digits and safe to print."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from daemon.client import Book, Data
from daemon.commands.terminal.peer import clean
from protocol.kinds import VIEWS, View


class Levels(msgspec.Struct):
    """The levels of a book, best first, as a message's `data` has them."""

    bids: list[list[Raw]]
    asks: list[list[Raw]]


class Best:
    """The best bid and ask of books that are told in updates: they follow from all messages of a topic so far."""

    def __init__(self) -> None:
        self._books: dict[tuple[str, str], Book] = {}

    def shown(self, message: Data) -> str:
        """What the message says: of a book's changes the best levels now, "" while something of it is missing."""
        if view(message) is not View.DEPTH:
            return shown(message)
        book = self._books.setdefault((message.connector_id, instrument(message)), Book())
        take_levels(book, message)
        bids, asks = book.top(1)
        return clean(" / ".join(side[0][0] if side else "-" for side in (bids, asks))) if book.is_whole else ""


def take_levels(book: Book, message: Data) -> None:
    """Apply a message whose view is `depth`. A book that cannot take it waits for the next snapshot."""
    try:
        book.take(cast("Any", message))  # whatever has this view is one of a book's
    except ValueError:
        book.forget()


def view(message: Data) -> View | None:
    """What a reader finds in it."""
    return VIEWS.get(str(message.__struct_config__.tag))


def instrument(message: Data) -> str:
    """Its instrument, "" where it is about a whole market."""
    return "" if isinstance(message.instrument, UnsetType) else message.instrument


def shown(message: Data) -> str:
    """The price, or what its view has instead.

    A trade's price is followed by its size and side, a candle's close by its interval. Of a book and of a quote it is
    the best bid and ask, of all venues' with whose they are. A book's changes alone say nothing; see `Best`.
    """
    match view(message):
        case View.BOOK:
            book = levels(message)
            if book is None:
                return ""
            return " / ".join(digits(side[0][0]) if side and side[0] else "-" for side in (book.bids, book.asks))
        case View.TRADE:
            return f"{said(message, 'price')} {said(message, 'size')} {said(message, 'side')}"
        case View.QUOTE:
            return f"{said(message, 'bid') or '-'} / {said(message, 'ask') or '-'}"
        case View.BEST:
            sides = (f"{said(message, side)} {said(message, f'{side}_exchange')}" for side in ("bid", "ask"))
            return " / ".join(side.strip() or "-" for side in sides)
        case View.CANDLE:
            return f"{said(message, 'close')} {said(message, 'interval')}"
        case _:
            return said(message, "price")


def said(message: Data, field: str) -> str:
    """What stands in a field of a message; "" where there is nothing."""
    value: Raw | str | UnsetType = getattr(message, field, UNSET)
    match value:
        case UnsetType():
            return ""
        case str():
            return clean(value)
        case _:
            return clean(bytes(value).decode(errors="replace"))


def levels(message: Data) -> Levels | None:
    """The levels in the `data` of a message whose view is `book`; None where it has none."""
    try:
        return msgspec.json.decode(message.data, type=Levels)
    except msgspec.DecodeError:
        return None


def digits(raw: Raw) -> str:
    """A number that JSON writes as text or as a number."""
    return clean(bytes(raw).decode(errors="replace").strip('"'))
