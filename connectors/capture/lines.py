r"""The lines of a recording: one JSON object each, and what it stands for.

A file belongs to one connector of one venue, and to one hour. It begins with a header. Each line has `recv_ts`, when
it was received or done, in seconds since 1970 with three digits behind the point, and one of the other fields:

    {"recv_ts":1765211445.101,"record":{"format":1,"venue":"okx","connector":"okx", ...}}
    {"recv_ts":1765211445.120,"opened":"ws.okx.com/ws/v5/public"}
    {"recv_ts":1765211445.121,"sent":"{\"op\":\"subscribe\", ...}"}
    {"recv_ts":1765211445.180,"frame":"{\"arg\":{\"channel\":\"tickers\", ...}"}
    {"recv_ts":1765211445.201,"lost":{"frames":12,"bytes":4711,"from_ms":...,"to_ms":...,"why":"..."}}
    {"recv_ts":1765211447.000,"closed":"OKX dropped the connection"}
    {"recv_ts":1765211448.000,"end":"the daemon is stopping"}

So a frame is `{"recv_ts": seconds, "frame": text}`, as captures of websockets have it. A connector may have several
connections, one after the other or for a while side by side: `conn` counts them, and is left out where it is 1.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import msgspec

FORMAT: Final = 1
"""The version of the format: readers refuse a higher one."""

_SEPARATOR: Final = b"\0"
"""Stands in no JSON text as it is, and becomes this when it is written as JSON: """
_WRITTEN: Final = b"\\u0000"


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line of a file: all that is needed to make the same venue objects again.

    Attributes:
        format: the version of the format.
        venue: as in the registry: `okx`.
        connector: the connection's name: `okx-candles`.
        carries: the names of those channels that it feeds.
        run: which run of the daemon it is, ms since 1970: files of one run belong together.
        channels: the venue's channels as they were configured; see `connectors.replay.build`.
        settings: what the venue was told, without secrets.
        daemon: the daemon's version.
    """

    format: int
    venue: str
    connector: str
    carries: tuple[str, ...] = ()
    run: int = 0
    channels: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    daemon: str = ""


class Fetched(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the venue's HTTP interface answered to a need of a conversation (`connectors.push.venue.Fetch`).

    `id` says what it was for. `reason` is why there is no body.
    """

    id: str
    path: str
    body: str | None = None
    reason: str = ""


class Exchange(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request of a poller, and its answer, or why there was none.

    `url` is path and query, without a host and without what could be a secret; `headers` are those that matter.
    """

    method: str
    url: str
    status: int = 0
    headers: dict[str, str] = {}
    body: str | None = None
    reason: str = ""
    took_ms: int = 0


class Lost(msgspec.Struct, frozen=True):
    """What was received and could not be recorded: how much, from when to when (ms since 1970), and why."""

    frames: int
    bytes: int
    from_ms: int
    to_ms: int
    why: str


class Line(msgspec.Struct, omit_defaults=True, gc=False):
    """One line; see the module. `binary` is base64 of a frame or body that is no UTF-8."""

    recv_ts: float
    frame: str | None = None
    conn: int = 1
    binary: str | None = None
    opened: str | None = None
    sent: str | None = None
    closed: str | None = None
    fetched: Fetched | None = None
    tick: bool = False
    http: Exchange | None = None
    lost: Lost | None = None
    end: str | None = None
    record: Header | None = None

    @property
    def at_ms(self) -> int:
        """When, ms since 1970."""
        return round(self.recv_ts * 1000)

    @property
    def payload(self) -> bytes | None:
        """The bytes of the frame; None where it is none."""
        if self.frame is not None:
            return self.frame.encode()
        return None if self.binary is None else base64.b64decode(self.binary)


_encode: Final = msgspec.json.Encoder().encode


def seconds(at_ms: int) -> float:
    """`recv_ts` of that moment."""
    return at_ms / 1000


def written(line: Line) -> bytes:
    """A line that is no frame, with its end."""
    return _encode(line) + b"\n"


def written_frames(payloads: Sequence[bytes], received_ms: int, connection: int) -> bytes:
    """The lines of frames that were received together.

    All of them are made one JSON text in one step, because they may be tens of thousands a second.
    """
    head = b'{"recv_ts":%d.%03d,' % divmod(received_ms, 1000)
    if connection != 1:
        head += b'"conn":%d,' % connection
    begin, count = head + b'"frame":"', len(payloads)
    try:
        text = _encode(_SEPARATOR.join(payloads).decode())
        if text.count(_WRITTEN) == count - 1:
            return begin + text[1:-1].replace(_WRITTEN, b'"}\n' + begin) + b'"}\n'
    except UnicodeDecodeError:
        pass
    return b"".join(_one(payload, head) for payload in payloads)


def _one(payload: bytes, head: bytes) -> bytes:
    """A frame by itself: it is no UTF-8, or has a byte that separates others, or stands beside such a one."""
    try:
        return head + b'"frame":' + _encode(payload.decode()) + b"}\n"
    except UnicodeDecodeError:
        return head + b'"binary":"' + base64.b64encode(payload) + b'"}\n'


decoder: Final = msgspec.json.Decoder(Line)
"""Reads a line, or many of them (`decode_lines`)."""
