"""What a client may have: which channels, and by which token."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

import msgspec

ALL_CHANNELS: Final = ("*",)


class Grant(msgspec.Struct, frozen=True):
    """The permission that one token gives.

    Attributes:
        name: the token's name, "" if no token was needed.
        patterns: the names of the channels it covers; `*` stands for any characters and `?` for one.
        mark: the digest of the token, which tells apart two grants of the same name. It is not shown.
        test: whether the token may send test messages to all clients (`POST /ws/test`).
    """

    name: str
    patterns: tuple[str, ...] = ALL_CHANNELS
    mark: bytes = b""
    test: bool = False

    def covers(self, channel: str) -> bool:
        """Whether the grant includes the channel."""
        return any(fnmatchcase(channel, pattern) for pattern in self.patterns)

    def __repr__(self) -> str:
        return f"Grant({self.name!r}, {self.patterns!r})"


ANYONE: Final = Grant("")
"""The grant of every client if no tokens are configured: all channels."""
