"""One instrument's book, rebuilt from the messages of a channel of books.

    books: dict[str, Book] = {}
    async for message in client.subscribe("kraken_depth"):
        if isinstance(message, DepthSnapshot | DepthUpdate):
            book = books.setdefault(str(message.instrument), Book())
            if book.take(message):
                print(message.instrument, book.bids[:1], book.asks[:1])

Exact: prices are compared as decimals, and each level is as the venue wrote it. Sync and pure.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, UnsetType

from connectors.books.book import Book as Ladders
from connectors.books.book import Level
from protocol.messages import DepthSnapshot, DepthUpdate, Format

_DECODE: Final = {
    Format.JSON: msgspec.json.Decoder(list[tuple[str, str]]).decode,
    Format.MSGPACK: msgspec.msgpack.Decoder(list[tuple[str, str]]).decode,
}


class Book:
    """The book of one instrument.

    Attributes:
        is_whole: whether it is the venue's as of the last message. If not, it is empty until a snapshot comes: before
            the first one, and where a change is missing.
        seq: the position of the last change in it.
    """

    def __init__(self, format: Format = Format.JSON) -> None:
        """`format`: how the levels of the messages are encoded. The messages of a `Client` are JSON."""
        self.is_whole = False
        self.seq = 0
        self._ladders = Ladders()
        self._decode = _DECODE[Format.MSGPACK if format is Format.MSGPACK else Format.JSON]

    def take(self, message: DepthSnapshot | DepthUpdate) -> bool:
        """Take the instrument's next message. Returns whether the book is whole, and has changed by it.

        Changes that are in the book already are passed over.

        Raises:
            ValueError: the levels are not what the contract says.
        """
        if isinstance(message, DepthSnapshot):
            self._ladders.replace(self._levels(message.bids), self._levels(message.asks))
            self.is_whole = True
            self.seq = message.seq if isinstance(message.through, UnsetType) else message.through
            return True
        if message.seq <= self.seq or not self.is_whole:
            return False
        if message.prev_seq != self.seq:
            self.forget()
            return False
        self._ladders.apply(self._levels(message.bids), self._levels(message.asks))
        self.seq = message.seq
        return True

    def forget(self) -> None:
        """Wait for a snapshot: something is missing."""
        self.is_whole = False
        self._ladders = Ladders()

    def _levels(self, raw: Raw) -> list[tuple[str, str]]:
        try:
            return self._decode(raw)
        except msgspec.DecodeError as error:
            raise ValueError(f"no levels of a book: {error}") from None

    @property
    def bids(self) -> list[Level]:
        """What is bid, the best first: price and quantity."""
        return self._ladders.bids.top(len(self._ladders.bids))

    @property
    def asks(self) -> list[Level]:
        """What is asked, the best first."""
        return self._ladders.asks.top(len(self._ladders.asks))

    def top(self, levels: int) -> tuple[list[Level], list[Level]]:
        """The best bids and asks, so many of each."""
        return self._ladders.top(levels)
