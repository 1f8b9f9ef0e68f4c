"""The body of a venue's answer, taken in as it comes: decoded within bounds, whatever the venue sends. Pure.

A few kilobytes can unpack to gigabytes, and codings can be piled on one another, so what comes out is counted while it
is unpacked, and only what was asked for is unpacked: `Accept-Encoding: gzip`, once.
"""

from __future__ import annotations

import zlib
from typing import Final

ACCEPTED_CODINGS: Final = "gzip"
"""What `Accept-Encoding` asks for (RFC 9110 section 12.5.3); `identity` may always be sent."""

MOST_CHUNKS: Final = 16_384
"""In how many pieces a body may come: each costs time, however small it is."""

_PLAIN: Final = frozenset({"", "identity"})
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
"""For `zlib`: the largest window, and a gzip header (RFC 1952)."""


class Body:
    """One answer's body.

    Attributes:
        refused: why it is not taken, in words; "" while nothing is wrong with it.
    """

    def __init__(self, venue: str, coding: str, most_bytes: int) -> None:
        """`coding` is the `Content-Encoding` header; `most_bytes` is how large the body may be, packed and unpacked."""
        coding = coding.strip().lower()
        self.refused = ""
        self._venue = venue
        self._most_bytes = most_bytes
        self._unpacker = zlib.decompressobj(_GZIP_WINDOW) if coding in _GZIP else None
        self._taken = bytearray()
        self._came_bytes = 0
        self._chunks = 0
        if coding not in _PLAIN | _GZIP:
            self._refuse(f"a body in a coding that was not asked for: {coding[:40]!r}")

    def add(self, chunk: bytes) -> bool:
        """The next piece of it. False where no more of it is to be read, because it is refused."""
        if self.refused:
            return False
        self._chunks += 1
        self._came_bytes += len(chunk)
        if self._chunks > MOST_CHUNKS:
            return self._refuse(f"a body in more than {MOST_CHUNKS} pieces")
        if self._unpacker is not None:
            try:
                # One byte more than there may be, so that too much is noticed.
                chunk = self._unpacker.decompress(chunk, self._most_bytes - len(self._taken) + 1)
            except zlib.error:
                return self._refuse("a body that cannot be decompressed")
        self._taken += chunk
        if max(len(self._taken), self._came_bytes) > self._most_bytes:
            return self._refuse(f"a body of more than {self._most_bytes} bytes")
        return True

    def end(self) -> bytes:
        """That was all of it: the body, as far as it was taken. Look at `refused` first."""
        if self._unpacker is not None and not self._unpacker.eof and self._came_bytes:
            self._refuse("a body that cannot be decompressed")
        return b"" if self.refused else bytes(self._taken)

    def _refuse(self, what: str) -> bool:
        self.refused = self.refused or f"{self._venue} sent {what}"
        self._taken = bytearray()
        return False
