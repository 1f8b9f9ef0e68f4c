"""Wraps payloads into RFC 6455 server frames and Server-Sent Events.

A server's frames are never masked (RFC 6455 section 5.1), so the bytes for one message are the same for every client.
That makes fan-out cheap: a message is framed here once, and the very same bytes go to thousands of sockets.
"""

from __future__ import annotations

import struct
from typing import Final

MAX_CONTROL_PAYLOAD_BYTES: Final = 125
"""RFC 6455 section 5.5: a control frame carries at most 125 bytes."""

_FIN: Final = 0x80
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9

_head_16: Final = struct.Struct("!BBH").pack
"""The header of a payload of 126 to 65535 bytes."""


def text_frame(payload: bytes) -> bytes:
    """One unfragmented, unmasked text frame. `payload` must be UTF-8 (RFC 6455 section 5.6)."""
    size = len(payload)
    # Nearly all messages are of this length.
    return _head_16(_FIN | _TEXT, 126, size) + payload if 126 <= size < 65536 else _frame(_TEXT, payload)


def binary_frame(payload: bytes) -> bytes:
    """One unfragmented, unmasked binary frame."""
    return _frame(_BINARY, payload)


def ping_frame(payload: bytes = b"") -> bytes:
    """One ping frame (RFC 6455 section 5.5.2).

    Raises:
        ValueError: the payload is longer than a control frame may carry.
    """
    if len(payload) > MAX_CONTROL_PAYLOAD_BYTES:
        raise ValueError(f"ping payload of {len(payload)} bytes; at most {MAX_CONTROL_PAYLOAD_BYTES} are allowed")
    return _frame(_PING, payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """One close frame (RFC 6455 section 5.5.1).

    The reason is cut, at a character boundary, to fit beside the two-byte code: half a character would not be UTF-8,
    and the peer would have to answer 1007.
    """
    text = reason.encode(errors="replace")[: MAX_CONTROL_PAYLOAD_BYTES - 2].decode(errors="ignore").encode()
    return _frame(_CLOSE, struct.pack("!H", code) + text)


def sse_event(payload: bytes, event_id: str | None = None) -> bytes:
    """One Server-Sent Event whose `id` a browser's EventSource sends back as `Last-Event-ID`.

    Without an id there is no `id` line at all: an empty one would make the browser forget the last id.

    A line break inside the payload starts another `data:` line (WHATWG HTML, section 9.2.6), so that a venue's
    pretty-printed JSON arrives whole.

    Raises:
        ValueError: `event_id` holds a line break, which would end the field, or a NUL, for which a browser ignores it.
    """
    lines = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data = b"".join(b"data: " + line + b"\n" for line in lines)
    return (b"" if event_id is None else _id_line(event_id)) + data + b"\n"


def sse_position(event_id: str) -> bytes:
    """Only an id: the browser dispatches no event, but sends this id back from now on (section 9.2.6).

    Raises:
        ValueError: as `sse_event`.
    """
    return _id_line(event_id) + b"\n"


def _id_line(event_id: str) -> bytes:
    if any(mark in event_id for mark in "\r\n\0"):
        raise ValueError(f"a line break or NUL in the event id {event_id!r}")
    return b"id: " + event_id.encode() + b"\n"


def _frame(opcode: int, payload: bytes) -> bytes:
    """Header and payload, with one of the three length forms of RFC 6455 section 5.2."""
    size = len(payload)
    if size < 126:
        return bytes((_FIN | opcode, size)) + payload
    if size < 65536:
        return _head_16(_FIN | opcode, 126, size) + payload
    return struct.pack("!BBQ", _FIN | opcode, 127, size) + payload
