"""What a client may have: which channels, and by whose leave."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

import msgspec

ALL_CHANNELS: Final = ("*",)


class Grant(msgspec.Struct, frozen=True):
    """The leave that one token gives.

    Attributes:
        name: the token's name, "" where no token was needed.
        patterns: the names of the channels it covers; `*` stands for any characters and `?` for one.
        mark: the digest of the token, by which two grants of one name are told apart. It is not shown.
    """

    name: str
    patterns: tuple[str, ...] = ALL_CHANNELS
    mark: bytes = b""

    def covers(self, channel: str) -> bool:
        """Whether the channel is one of those that may be had."""
        return any(fnmatchcase(channel, pattern) for pattern in self.patterns)

    def __repr__(self) -> str:
        return f"Grant({self.name!r}, {self.patterns!r})"


ANYONE: Final = Grant("")
"""What everybody has where no tokens are configured: all channels."""
