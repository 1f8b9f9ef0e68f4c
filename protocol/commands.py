"""Every client command, and how a client's bytes become one.

`protocol/messages.py` is the other direction, and hands on every name of this module, so that one
import serves both. A field's name here is its name on the wire.

Errors: `decode_command` raises `CommandError` and nothing else, whatever the bytes are.
"""

from __future__ import annotations

import enum
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
"""For the schemas; `protocol/session.py` looks, and says in its own words what is wrong."""

MOST_REASON_CHARS: Final = 300
"""The longest `message` of an `error` reply: what a client sent is shown to it, not sent back."""


class Format(enum.Enum):
    """How messages are written on one connection."""

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

    `data` holds the bytes of the format that the ping came in.
    """

    id: Id | None = None
    data: Raw | UnsetType = UNSET


Command: TypeAlias = Subscribe | Unsubscribe | Ping

_COMMANDS: Final = ("subscribe", "unsubscribe", "ping")


class CommandError(Exception):
    """A client's bytes that are no command.

    Attributes:
        code: for the `error` reply.
        reason: what is wrong, what was seen, what is allowed; at most `MOST_REASON_CHARS` long.
        id: the command's, where it could be read.
    """

    def __init__(self, code: ErrorCode, reason: str, id: Id | None = None) -> None:
        self.code = code
        self.reason = cut(reason)
        self.id = id
        super().__init__(self.reason)


class _Envelope(msgspec.Struct):
    """What can be told of a command that failed to decode: two values, each to be read alone."""

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
    """One client frame's payload.

    Raises:
        CommandError: it is no command; the only exception that any input whatever can cause.
    """
    reading = _MSGPACK if format is Format.MSGPACK else _JSON
    try:
        payload = raw.encode() if isinstance(raw, str) else raw
        if reading is _JSON:
            # msgspec does not look into a value that it keeps as Raw, and `data` is echoed.
            payload.decode()
    except UnicodeError:
        raise CommandError(ErrorCode.MALFORMED, f"not UTF-8; seen {_shown(raw)}") from None
    try:
        return reading.command.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _explain(payload, reading, str(error)) from None


def cut(text: str, most_chars: int = MOST_REASON_CHARS) -> str:
    """`text`, or as much of its beginning as fits together with a mark that it goes on."""
    return text if len(text) <= most_chars else text[: most_chars - 1] + "…"


def _explain(payload: bytes, reading: _Reading, error: str) -> CommandError:
    """Why the bytes are no command, in words for the person who wrote them."""
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
    """The `id`, or None where there is none that could be echoed."""
    if isinstance(raw, UnsetType):
        return None
    try:
        return reading.id.decode(raw)
    except (msgspec.DecodeError, UnicodeError):
        return None


def _shown(raw: str | bytes) -> str:
    """The first characters of what was sent, safe to put into a message."""
    # Four bytes are the most that a character takes; the rest need not be decoded to be cut off.
    head = raw[:61].encode(errors="replace") if isinstance(raw, str) else raw[:244]
    return cut(head.decode(errors="replace"), 60) or "nothing"
