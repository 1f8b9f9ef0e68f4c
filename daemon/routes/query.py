"""The query of a plain request: each field once, and numbers within their range."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from daemon.front.http import Refused, Request
from protocol.codes import ErrorCode

LONGEST_SHOWN: Final = 100
"""So many characters of what a client sent are repeated to it."""

LAST: Final = 2**53
"""Beyond this a browser's numbers are no longer exact."""


def fields(request: Request, known: Collection[str]) -> dict[str, str]:
    """The fields of the query; others than the known ones are ignored, as everywhere.

    Raises:
        Refused: 400, one of them is there more than once.
    """
    asked: dict[str, str] = {}
    for name, value in request.query:
        if name in asked and name in known:
            raise Refused(400, ErrorCode.INVALID_FIELD, f"{name} is given more than once")
        asked[name] = value
    return asked


def number(asked: Mapping[str, str], name: str, least: int, most: int, default: int) -> int:
    """A whole number of the query; the default where it is not there.

    Raises:
        Refused: 400, with the value and what is allowed.
    """
    text = asked.get(name)
    if text is None:
        return default
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(most)) else -1
    if not least <= value <= most:
        seen = f"{name} is {text[:LONGEST_SHOWN]!r}; allowed: a whole number from {least} to {most}"
        raise Refused(400, ErrorCode.INVALID_FIELD, seen)
    return value
