"""The checksum of a book as OKX sent it until June 2026: for what was recorded before it sent `seqId`. Pure.

Source: OKX's v5 API documentation, order book channel, "Checksum", as it was until 2026-06-23, when the field became 0.
The best 25 bids and asks by turns, price and size of each as they were sent, joined by colons; CRC-32, signed.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from connectors.books.book import Book

LEVELS: Final = 25


def checksum(book: Book) -> int:
    """Of the book as it is now."""
    bids, asks = book.top(LEVELS)
    parts: list[str] = []
    for rank in range(max(len(bids), len(asks))):
        parts += [*bids[rank][:2]] if rank < len(bids) else []
        parts += [*asks[rank][:2]] if rank < len(asks) else []
    value = crc32(":".join(parts).encode())
    return value - (1 << 32) if value >= 1 << 31 else value
