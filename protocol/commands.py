"""Every client command, and how a client's bytes become one.

`protocol/messages.py` is the other direction. It re-exports every name of this module, so that one import serves both.
A field's name here is its name on the wire.

Errors: `decode_command` raises only `CommandError`, whatever the bytes are.
"""

from __future__ import annotations

import enum
import re
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from protocol.codes import ErrorCode

Id: TypeAlias = str | int | float
"""A command's `id`: any JSON string or number, echoed in the answer."""

LEAST_INTERVAL_MS: Final = 50
MOST_INTERVAL_MS: Final = 3_600_000

_INTERVAL: Final = Meta(extra_json_schema={"minimum": LEAST_INTERVAL_MS, "maximum": MOST_INTERVAL_MS})
_NAMES: Final = Meta(extra_json_schema={"minItems": 1})
_PLACE: Final = Meta(extra_json_schema={"minimum": 0})
"""Only for the schemas: `protocol/session.py` checks these limits, and words the errors itself."""

MOST_REASON_CHARS: Final = 300
"""The longest `message` of an `error` reply: it shows what the client sent, but does not send it all back."""


class Format(enum.Enum):
    """The encoding of the messages of one connection."""

    JSON = "tickerd.v1.json"
    MSGPACK = "tickerd.v1.msgpack"
    SSE = "text/event-stream"


SUBPROTOCOLS: Final = {Format.JSON.value: Format.JSON, Format.MSGPACK.value: Format.MSGPACK}
"""The websocket subprotocols, by name, the default first."""


class Position(msgspec.Struct, frozen=True):
    """A place on a tape: which tape (`epoch`), and the last message seen there (`seq`)."""

    epoch: str
    seq: Annotated[int, _PLACE]


class Subscribe(msgspec.Struct, frozen=True, tag_field="type", tag="subscribe", omit_defaults=True):
    """The command `subscribe`.

    `{"type":"subscribe","channels":["binance_prices"],"instruments":["BTC/USDT"],"id":7}`.
    """

    channels: Annotated[list[str], _NAMES]
    instruments: Annotated[list[str], _NAMES] | None = None
    interval_ms: Annotated[int, _INTERVAL] | None = None
    snapshot: bool = True
    since: Position | None = None
    id: Id | None = None


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="type", tag="unsubscribe", omit_defaults=True):
    """`{"type":"unsubscribe","channels":["binance_prices"],"id":8}`."""

    channels: Annotated[list[str], _NAMES]
    id: Id | None = None


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping", omit_defaults=True):
    """`{"type":"ping","id":9}`: the application's heartbeat, apart from RFC 6455's ping frames.

    `data` holds bytes in the format of the ping.
    """

    id: Id | None = None
    data: Raw | UnsetType = UNSET


Command: TypeAlias = Subscribe | Unsubscribe | Ping

_COMMANDS: Final = ("subscribe", "unsubscribe", "ping")


class CommandError(Exception):
    """A client's bytes are not a command.

    Attributes:
        code: the code of the `error` reply.
        reason: what is wrong, what was seen, what is allowed; at most `MOST_REASON_CHARS` long.
        id: the command's id, if it could be read.
    """

    def __init__(self, code: ErrorCode, reason: str, id: Id | None = None) -> None:
        self.code = code
        self.reason = cut(reason)
        self.id = id
        super().__init__(self.reason)


_HEARTBEAT_BYTES: Final = 200
_HEARTBEAT: Final = re.compile(
    rb"\s*|[^a-z]*\bh\b[^a-z]*|.*(?:ping|pong|heart_?-?beat|keep_?-?alive).*", re.IGNORECASE | re.DOTALL
)
_HOW_TO_PING: Final = 'to ping, send {"type":"ping"}; nobody has to, the daemon pings by itself'
"""For a client that sends another server's heartbeat: `ping`, `{"op":"ping"}`, or nothing at all."""


class _Envelope(msgspec.Struct):
    """What may still be readable of a command that failed to decode: two values, each decoded by itself."""

    type: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET


class _Reading(NamedTuple):
    """The decoders of one format."""

    name: str
    command: msgspec.json.Decoder[Command] | msgspec.msgpack.Decoder[Command]
    envelope: msgspec.json.Decoder[_Envelope] | msgspec.msgpack.Decoder[_Envelope]
    tag: msgspec.json.Decoder[str] | msgspec.msgpack.Decoder[str]
    id: msgspec.json.Decoder[Id | None] | msgspec.msgpack.Decoder[Id | None]


_JSON: Final = _Reading(
    "JSON",
    msgspec.json.Decoder(Command),
    msgspec.json.Decoder(_Envelope),
    msgspec.json.Decoder(str),
    msgspec.json.Decoder(Id | None),
)
_MSGPACK: Final = _Reading(
    "MessagePack",
    msgspec.msgpack.Decoder(Command),
    msgspec.msgpack.Decoder(_Envelope),
    msgspec.msgpack.Decoder(str),
    msgspec.msgpack.Decoder(Id | None),
)


def decode_command(raw: str | bytes, format: Format) -> Command:
    """Decode one client frame's payload.

    Raises:
        CommandError: it is not a command. No input can cause any other exception.
    """
    reading = _MSGPACK if format is Format.MSGPACK else _JSON
    try:
        payload = raw.encode() if isinstance(raw, str) else raw
        if reading is _JSON:
            # msgspec does not check a value that it keeps as Raw, and `data` is echoed.
            payload.decode()
    except UnicodeError:
        raise CommandError(ErrorCode.MALFORMED, f"not UTF-8; seen {_shown(raw)}") from None
    try:
        return reading.command.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _explain(payload, reading, str(error)) from None


def cut(text: str, most_chars: int = MOST_REASON_CHARS) -> str:
    """`text`, cut to `most_chars` and marked by an ellipsis if it is longer."""
    return text if len(text) <= most_chars else text[: most_chars - 1] + "…"


def _explain(payload: bytes, reading: _Reading, error: str) -> CommandError:
    """Explain why the bytes are not a command, to the person who wrote them."""
    found = _explained(payload, reading, error)
    heartbeat = len(payload) <= _HEARTBEAT_BYTES and _HEARTBEAT.fullmatch(payload)
    if heartbeat and found.code is not ErrorCode.INVALID_FIELD:
        return CommandError(found.code, f"{found.reason}; {_HOW_TO_PING}", found.id)
    return found


def _explained(payload: bytes, reading: _Reading, error: str) -> CommandError:
    try:
        envelope = reading.envelope.decode(payload)
    except msgspec.ValidationError as why:
        reason = f"a command is one {reading.name} object: {why}; seen {_shown(payload)}"
        return CommandError(ErrorCode.MALFORMED, reason)
    except RecursionError:
        return CommandError(ErrorCode.MALFORMED, f"nested too deeply; seen {_shown(payload)}")
    except (msgspec.DecodeError, UnicodeError) as why:
        reason = f"not {reading.name}: {why}; seen {_shown(payload)}"
        return CommandError(ErrorCode.MALFORMED, reason)
    id_ = _read_id(envelope.id, reading)
    if isinstance(envelope.type, UnsetType):
        seen = "missing"
    else:
        try:
            tag = reading.tag.decode(envelope.type)
        except (msgspec.DecodeError, UnicodeError):
            seen = _shown(bytes(envelope.type))
        else:
            if tag in _COMMANDS:
                return CommandError(ErrorCode.INVALID_FIELD, f"{tag}: {error}", id_)
            seen = _shown(repr(tag))
    reason = f"`type` is {seen}; allowed: {', '.join(_COMMANDS)}"
    return CommandError(ErrorCode.UNKNOWN_TYPE, reason, id_)


def _read_id(raw: Raw | UnsetType, reading: _Reading) -> Id | None:
    """The `id`, or None if there is none that can be echoed."""
    if isinstance(raw, UnsetType):
        return None
    try:
        return reading.id.decode(raw)
    except (msgspec.DecodeError, UnicodeError):
        return None


def _shown(raw: str | bytes) -> str:
    """The first characters of the input, safe to put into a message."""
    # A character takes at most four bytes; the rest is cut off without decoding it.
    head = raw[:61].encode(errors="replace") if isinstance(raw, str) else raw[:244]
    return cut(head.decode(errors="replace"), 60) or "nothing"
