"""Coinbase's times, which are texts (RFC 3339, up to nanoseconds), in milliseconds since 1970. Pure, and exact.

A second's text is read once and remembered, since thousands of trades and levels share it; only the digits behind the
point are read each time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from connectors.limits.rows import FIRST_MS, LAST_MS, Odd, quoted, shown

_SECOND_CHARS: Final = len("2026-04-07T14:30:02")
_MOST_DIGITS: Final = 9
_SECOND: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)


def since_1970_ms(text: str, field: str) -> int | None:
    """Whole milliseconds, cut off; None for a time before 2009, which stands for none (a snapshot's is 1970).

    Raises:
        Odd: it is no such time, or one that is far from today.
    """
    at_ms = _second_ms(text[:_SECOND_CHARS])
    if at_ms is not None and text[-1] == "Z":
        if len(text) != _SECOND_CHARS + 1:
            digits = text[_SECOND_CHARS + 1 : -1]
            known = text[_SECOND_CHARS] == "." and digits.isdecimal() and digits.isascii()
            if not known or len(digits) > _MOST_DIGITS:
                raise Odd(f"{quoted(field)} is {shown(text)}, not a time")
            at_ms += int(digits[:3].ljust(3, "0"))
        if at_ms < FIRST_MS:
            return None
        if at_ms <= LAST_MS:
            return at_ms
    raise Odd(f"{quoted(field)} is {shown(text)}, not a time")


@lru_cache(maxsize=256)
def _second_ms(text: str) -> int | None:
    """A time without its fraction; None for what is no time."""
    if _SECOND.fullmatch(text) is None:
        return None
    try:
        return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        return None
