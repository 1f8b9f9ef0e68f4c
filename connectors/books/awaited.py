"""Whether a book waits in vain for its snapshot: its updates come, and the snapshot before them was lost. Pure."""

from __future__ import annotations

from typing import Final

SNAPSHOT_MS: Final = 90_000
"""How long updates may come without a snapshot before it is asked for again: longer than that takes at most (the pause
before a subscription is renewed, and the answers)."""


class Awaited:
    """The snapshot of one book on one connection. Where the clock is set back the time counts anew."""

    __slots__ = ("_since_ms",)

    def __init__(self) -> None:
        self._since_ms: int | None = None

    def came(self) -> None:
        """The snapshot is there, or was asked for just now."""
        self._since_ms = None

    def in_vain(self, now_ms: int) -> str:
        """One more update has come without it. What is wrong if that goes on for too long, else ""."""
        since_ms = self._since_ms
        if since_ms is None or now_ms < since_ms:
            self._since_ms = now_ms
        elif now_ms - since_ms >= SNAPSHOT_MS:
            self._since_ms = now_ms
            return f"no snapshot of it came in {SNAPSHOT_MS // 1000} s"
        return ""
