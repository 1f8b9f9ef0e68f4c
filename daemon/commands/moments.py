"""Moments on the command line: ISO-8601, or milliseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime

ALLOWED = "ISO-8601, as 2025-12-08T16:30:45.123Z (UTC without an offset), or milliseconds since 1970"


def moment(text: str) -> int:
    """The moment as milliseconds since 1970.

    Raises:
        ValueError: it is none; the text names it, and what is allowed.
    """
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"got {text!r}; allowed: {ALLOWED}") from None
    return round((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp() * 1000)
