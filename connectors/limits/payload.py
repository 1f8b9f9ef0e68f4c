"""A venue's JSON: looked over before any of it is passed on, and what is passed on of it.

Clients get the venue's own bytes. So these must be fit for any reader of JSON: UTF-8 throughout, well formed, not
nested too deeply, and without a number that a 64-bit float cannot hold or that goes on for ever.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from connectors.base import PayloadError

T = TypeVar("T")

MOST_DEPTH: Final = 512
"""Of arrays and objects within each other. An interpreter's own limit is no bound: Python 3.11 reads a thousand, 3.13
thousands more, and what it passed on no client in 3.11 could read."""

MOST_DIGITS: Final = 300
"""Of a number: more is not what a venue means, and readers that take digits one by one are slow or refuse."""

# Looked for where a run of digits begins, and nowhere else: else many long runs would take time by their square.
_TOO_LONG: Final = re.compile(rb"(?<![0-9])[0-9]{%d}" % MOST_DIGITS)

# Every digit as 0, every e as e, no sign: what is looked for in it are plain strings, which is far quicker.
_SHAPE: Final = bytes(ord("0") if c in b"0123456789" else ord("e") if c in b"eE" else ord(" ") for c in range(256))
_SIGNS: Final = b"+-"

# What a number that a 64-bit float cannot hold has: 200 digits, or three in its exponent. (199 and two are 1e298.)
_MANY: Final = b"0" * 200
_LARGE: Final = b"0e000"

# Every brace as a bracket, every colon as a comma; the rest of what is no quote is left out.
_STEPS: Final = bytes.maketrans(b"{}:", b"[],")
_SILENT: Final = bytes(set(range(256)) - set(b'[]{},:"'))
_STRING: Final = re.compile(rb'"[^"]*"')
_OPEN: Final = ord("[")
_PIECE: Final = 256

_SHORT_CHARS: Final = 160

_syntax: Final = msgspec.json.Decoder(msgspec.Raw)


def look_over(payload: bytes) -> None:
    """Make sure that all of it is fit to be passed on.

    Raises:
        PayloadError: it is not. Nothing else is raised, whatever the bytes.
    """
    try:
        payload.decode()
        # Stepped over, all of it: that is the syntax, without an object for each value.
        _syntax.decode(payload)
        if is_deeper(payload, MOST_DEPTH):
            raise PayloadError("the body is nested too deeply")
        shape = payload.translate(_SHAPE, _SIGNS)
        many = _MANY in shape
        if many or _LARGE in shape:
            # A number, or a text that looks like one: then every value is made.
            msgspec.json.decode(payload)
    except RecursionError:
        raise PayloadError("the body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise PayloadError(f"not the body that is documented: {error}"[:200]) from error
    if many and _TOO_LONG.search(payload):
        raise PayloadError(f"the body has a number of {MOST_DIGITS} digits")


def is_deeper(payload: bytes, most: int) -> bool:
    """Whether a payload that is JSON is nested more deeply than that, whatever the interpreter takes.

    It takes a few passes over the bytes, and no object for each value.
    """
    if payload.count(b"[") + payload.count(b"{") <= most:
        return False
    # Only what quotes and nests stays, and what parts two strings, so that the quotes of two never meet.
    left = payload.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_STEPS, _SILENT).replace(b'""', b"")
    if b'"' in left:
        left = _STRING.sub(b"", left)  # strings that have such signs in them
    left = left.translate(None, b",")
    depth = 0
    for at in range(0, len(left), _PIECE):
        piece = left[at : at + _PIECE]
        opened = piece.count(b"[")
        if depth + opened > most:
            # Perhaps so deep: looked at step by step.
            within = depth
            for sign in piece:
                within += 1 if sign == _OPEN else -1
                if within > most:
                    return True
        depth += 2 * opened - len(piece)
    return False


def read(payload: bytes, type_: type[T]) -> T:
    """A venue's JSON as `type_`, whose `Raw` parts are then fit to be spliced into a message.

    msgspec steps over a `Raw` part, and over a member that no field names, without a look at its numbers and its depth,
    so all of it is looked over first.

    Raises:
        PayloadError: it is anything else. Nothing else is raised, whatever the bytes.
    """
    look_over(payload)
    try:
        return msgspec.json.decode(payload, type=type_)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PayloadError(f"not the body that is documented: {error}"[:200]) from error


def spliced(raw: msgspec.Raw | bytes) -> bytes:
    """A part of a payload that has been looked over, as it was; but on one line, if it had several.

    A line break inside a message is legal JSON, but would have to be escaped in server-sent events.
    """
    data = bytes(raw).strip()
    if b"\n" in data or b"\r" in data:
        return msgspec.json.format(data, indent=-1)
    return data


def brief(text: str) -> str:
    """A venue's own words, as a part of one sentence: on one line, printable, and not too long."""
    # Only the beginning is looked at, or a text of megabytes would take its time.
    start = text[: 4 * _SHORT_CHARS]
    line = " ".join("".join(c if c.isprintable() else " " for c in start).split()).rstrip(". ")
    return line if len(line) <= _SHORT_CHARS else line[: _SHORT_CHARS - 1] + "…"


def beginning(payload: bytes) -> str:
    """The first of what a venue sent, quoted, as a part of one sentence."""
    return repr(brief(payload[:60].decode(errors="replace")))
