"""Limits the frames of a client that are not commands. Pure: bytes in, a verdict out.

The session counts commands, but other frames cost as much to read: pings (each must be answered, RFC 6455 section
5.5.2), unsolicited pongs (section 5.5.3) and the fragments of a message (section 5.4). A `FrameMeter` sees every byte
of a client first. It reads only the frames' heads, however the network has split them, and reports when such frames
come faster than allowed.

It checks nothing else: the next reader handles a frame that breaks the protocol.
"""

from __future__ import annotations

from typing import Final

LEAST_FRAMES_PER_S: Final = 1.0
LEAST_FRAMES_BURST: Final = 20
"""Lower bounds: even if very few commands are allowed, a client may keep its connection alive by pings."""

_HEAD_BYTES: Final = 2
"""The fixed part of every frame's head (RFC 6455 section 5.2); longer lengths and the masking key follow."""

_FIN: Final = 0x80
_OPCODE: Final = 0x0F
_CONTROL: Final = 0x08
_CLOSE: Final = 0x8
_PONG: Final = 0xA
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_KEY_BYTES: Final = 4
_MOST_OWED: Final = 4
"""The most pongs that can be outstanding: a client that answers several pings by one pong cannot save up the rest."""

_LENGTH_BYTES: Final = {126: 2, 127: 8}


class FrameMeter:
    """Counts one client's control frames and fragments, and says whether there are too many (a token bucket).

    A message in one frame is not counted here, nor is the one pong that each of our own pings asks for.
    """

    __slots__ = ("_burst", "_closed", "_head", "_pongs", "_rate_per_s", "_refilled_s", "_skip", "_tokens")

    def __init__(self, rate_per_s: float, burst: int, now_s: float) -> None:
        """Rate and burst are those of the commands; `now_s` is on the same monotonic clock as in `feed`."""
        self._rate_per_s = max(rate_per_s, LEAST_FRAMES_PER_S)
        self._burst = max(burst, LEAST_FRAMES_BURST)
        self._tokens = float(self._burst)
        self._refilled_s = now_s
        self._head = b""  # the beginning of a frame's head that has not come whole
        self._skip = 0  # how many bytes of a frame's payload are still to come
        self._pongs = 0
        self._closed = False

    @property
    def limit(self) -> str:
        """The limit, in words."""
        return f"{self._rate_per_s:g} control frames and fragments/s (in a burst {self._burst})"

    def pinged(self) -> None:
        """Note that we sent a ping: its pong is not counted. One pong may answer several pings, but not the reverse."""
        self._pongs = min(self._pongs + 1, _MOST_OWED)

    def feed(self, data: bytes, now_s: float) -> bool:
        """Take the client's next bytes. Returns False if it has sent too many frames: then close the connection.

        Bytes after a close frame are ignored (RFC 6455 section 5.5.1).
        """
        if self._closed:
            return True
        size = len(data)
        if self._skip >= size:
            self._skip -= size
            return True
        at, self._skip = self._skip, 0
        if self._head:
            data, self._head = self._head + data[at:], b""
            at, size = 0, len(data)
        count = 0
        while at < size:
            head_bytes = _head_bytes(data, at, size)
            if head_bytes > size - at:
                self._head = data[at:]
                break
            first, length = data[at], data[at + 1] & _LENGTH
            if length in _LENGTH_BYTES:
                length = int.from_bytes(data[at + _HEAD_BYTES : at + _HEAD_BYTES + _LENGTH_BYTES[length]], "big")
            opcode = first & _OPCODE
            if opcode == _CLOSE:
                self._closed = True
                break
            if opcode == _PONG and self._pongs:
                self._pongs -= 1
            elif opcode & _CONTROL or not opcode or not first & _FIN:
                count += 1
            at += head_bytes + length
        if at > size:
            self._skip = at - size
        return not count or self._take(count, now_s)

    def _take(self, count: int, now_s: float) -> bool:
        grown = self._tokens + max(0.0, now_s - self._refilled_s) * self._rate_per_s
        self._tokens = min(grown, float(self._burst)) - count
        self._refilled_s = now_s
        return self._tokens >= 0


def _head_bytes(data: bytes, at: int, size: int) -> int:
    """The length of the head that begins at `at`; more than the data if its second byte has not come yet."""
    if size - at < _HEAD_BYTES:
        return _HEAD_BYTES
    second = data[at + 1]
    key_bytes = _KEY_BYTES if second & _MASKED else 0
    return _HEAD_BYTES + _LENGTH_BYTES.get(second & _LENGTH, 0) + key_bytes
