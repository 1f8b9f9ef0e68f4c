"""Every server message, and how it is encoded; with `protocol/commands.py` the whole vocabulary.

Only these two modules, `protocol/payloads.py` (what `data` holds) and `protocol/answers.py` (the HTTP bodies) define
names on the wire. A field's name here is its name on the wire. Names are final: they may be added, but not renamed. One
Struct serves both formats:

* **JSON** (`tickerd.v1.json`, text frames). `price` and `data` are spliced in as the venue's own bytes, so that
  `42150.50` stays `42150.50`: no digit passes through a float.
* **MessagePack** (`tickerd.v1.msgpack`, binary frames): the same messages. MessagePack has no decimal number, so
  `price` is a string of the same digits there; numbers inside `data` are integers or 64-bit floats.

Errors: `decode_message` and `to_msgpack` raise only `MessageError`, whatever the bytes are. This module re-exports the
names of `protocol/commands.py`, `decode_command` and `CommandError` included.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from protocol.codes import ErrorCode
from protocol.commands import SUBPROTOCOLS as SUBPROTOCOLS
from protocol.commands import Command as Command
from protocol.commands import CommandError as CommandError
from protocol.commands import Format as Format
from protocol.commands import Id as Id
from protocol.commands import Ping as Ping
from protocol.commands import Position as Position
from protocol.commands import Subscribe as Subscribe
from protocol.commands import Unsubscribe as Unsubscribe
from protocol.commands import decode_command as decode_command
from protocol.payloads import DIGITS, LEVELS, NUMBER

State: TypeAlias = Literal["connecting", "live", "stale", "reconnecting", "down"]
"""A channel's state as clients see it. Only data makes it `live`; an acknowledgement does not."""

TopicCause: TypeAlias = Literal["silent", "unreadable", "halted", "refused", "gap"]
"""What is wrong with one topic.

* `silent`: its data does not come, though it should;
* `unreadable`: the venue's data about it is not what the venue documents, and is left out;
* `halted`: the venue does not trade it, or has not touched its price for hours; that is not published as a price;
* `refused`: the venue does not serve it, as it does not know it, say. It is asked again;
* `gap`: something is missing in what the venue sent of it. A book is asked for anew, and nothing comes until it is
  whole; of trades the others go on.
"""

Side: TypeAlias = Literal["buy", "sell"]
"""What the taker of a trade did."""

_STAMP: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"

Timestamp: TypeAlias = Annotated[str, Meta(extra_json_schema={"format": "date-time", "pattern": _STAMP})]
"""ISO-8601, UTC, milliseconds, `Z`."""

Number: TypeAlias = Annotated[Raw, NUMBER]
"""The venue's digits, unchanged: a number in JSON, text in MessagePack."""

Levels: TypeAlias = Annotated[Raw, LEVELS]
"""Levels of a book, each `[price, quantity]`, as text."""

# ---- data messages: server to client -------------------------------------------------------------


class Data(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """What every data message carries.

    Attributes:
        connector_id: the channel's name.
        exchange: the venue.
        instrument: `BASE/QUOTE`; absent if the message is about a whole market.
        price: the venue's digits, unchanged; for an order book the middle of its best bid and best ask. Absent if the
            message is about a whole market, or if a side of the book is empty.
        timestamp: when this daemon published it, ISO-8601, UTC, milliseconds.
        seq: position on the tape.
        prev_seq: `seq` of the previous message of the same topic, 0 for the first.
        exchange_ms: the venue's event time (ms since 1970), if the venue gives one.
        received_ms: when the daemon received the venue's bytes (ms since 1970).
        cached: whether a scheduled channel repeats a body that the venue has not refreshed.
        data: the venue's data, in the venue's own field names.
    """

    connector_id: str
    exchange: str
    instrument: str | UnsetType = UNSET
    price: Number | UnsetType = UNSET
    timestamp: Timestamp
    seq: int
    prev_seq: int
    exchange_ms: int | UnsetType = UNSET
    received_ms: int
    cached: bool = False
    data: Raw


class PriceUpdate(Data, frozen=True, kw_only=True, tag="price_update"):
    """The last price of one instrument."""


class TickerUpdate(Data, frozen=True, kw_only=True, tag="ticker_update"):
    """The 24 h summary of one instrument."""


class OrderbookUpdate(Data, frozen=True, kw_only=True, tag="orderbook_update"):
    """The best levels of one instrument's book; each message replaces the previous one."""


class MarketUpdate(Data, frozen=True, kw_only=True, tag="market_update"):
    """The global market."""


class TopUpdate(Data, frozen=True, kw_only=True, tag="top_update"):
    """The largest coins."""


class TrendingUpdate(Data, frozen=True, kw_only=True, tag="trending_update"):
    """The coins that people search for most."""


class Trade(Data, frozen=True, kw_only=True, tag="trade"):
    """One trade: `price`, `size`, the taker's `side`, and the venue's `trade_id`."""

    size: Number
    side: Side
    trade_id: str


class QuoteUpdate(Data, frozen=True, kw_only=True, tag="quote_update"):
    """The best bid and the best ask of one instrument; a side that is empty has neither price nor size."""

    bid: Number | UnsetType = UNSET
    bid_size: Number | UnsetType = UNSET
    ask: Number | UnsetType = UNSET
    ask_size: Number | UnsetType = UNSET


class DepthUpdate(Data, frozen=True, kw_only=True, tag="depth_update"):
    """The levels of a book that have changed, to be applied in order. The quantity `"0"` removes one."""

    bids: Levels
    asks: Levels


class DepthSnapshot(Data, frozen=True, kw_only=True, tag="depth_snapshot"):
    """A whole book, best first: forget what you had.

    Attributes:
        bids, asks: all levels.
        reset: whether the book begins anew here for everybody: after a start, a gap at the venue, a change of
            connection. Else it was made for those who come late, and is only sent to them.
        through: of the latter, the `seq` of the last update in it, which the next update's `prev_seq` refers to.
    """

    bids: Levels
    asks: Levels
    reset: bool = False
    through: int | UnsetType = UNSET


class CandleUpdate(Data, frozen=True, kw_only=True, tag="candle_update"):
    """One candle of one instrument, so far or `closed`. `start_ms` is when it opened, ms since 1970."""

    interval: str
    start_ms: int
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number
    closed: bool


class ConsolidatedQuote(Data, frozen=True, kw_only=True, tag="consolidated_quote"):
    """The best bid and the best ask over all venues of one instrument, and whose they are."""

    bid: Number | UnsetType = UNSET
    bid_size: Number | UnsetType = UNSET
    bid_exchange: str | UnsetType = UNSET
    ask: Number | UnsetType = UNSET
    ask_size: Number | UnsetType = UNSET
    ask_exchange: str | UnsetType = UNSET


DataMessage: TypeAlias = (
    PriceUpdate
    | TickerUpdate
    | OrderbookUpdate
    | MarketUpdate
    | TopUpdate
    | TrendingUpdate
    | Trade
    | QuoteUpdate
    | DepthUpdate
    | DepthSnapshot
    | CandleUpdate
    | ConsolidatedQuote
)
"""All data messages. `protocol/kinds.py` has their kinds of channel, and what their `data` holds."""


# ---- control messages: server to client ----------------------------------------------------------


class Control(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """What every control message carries. `timestamp` as in `Data`."""

    timestamp: Timestamp


class ServerInfo(msgspec.Struct, frozen=True):
    """The name and version of the server, and of the node that it runs as (see `GET /cluster`)."""

    name: str
    version: str
    node: str | UnsetType = UNSET


class ReplayInfo(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A recording that is played instead of live data: from when to when, and how fast.

    `speed` is how many times as fast as it was recorded, or `max`: as fast as can be.
    """

    from_: Timestamp
    to: Timestamp
    speed: float | Literal["max"]


class Welcome(Control, frozen=True, kw_only=True, tag="welcome"):
    """The first message of a session: the tape's identity and head, the channels, the keepalive's period.

    `simulated`: whether the venues are simulated, so that no price is a real one. `replay` says that the daemon plays a
    recording.
    """

    server: ServerInfo
    epoch: str
    seq: int
    channels: tuple[str, ...]
    heartbeat_s: float
    simulated: bool = False
    replay: ReplayInfo | UnsetType = UNSET


class Subscribed(Control, frozen=True, kw_only=True, tag="subscribed"):
    """The answer to `subscribe`: the channels it took effect for, and the position from which messages follow.

    `recovered` answers a `since`, per channel; if it is false, `missed` counts the lost messages, if the number is
    known, and `reason` says why.
    """

    channels: tuple[str, ...]
    id: Id | None = None
    epoch: str
    seq: int
    recovered: dict[str, bool] | UnsetType = UNSET
    missed: dict[str, int] | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class Unsubscribed(Control, frozen=True, kw_only=True, tag="unsubscribed"):
    """The answer to `unsubscribe`."""

    channels: tuple[str, ...]
    id: Id | None = None
    epoch: str
    seq: int


class TopicStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One topic that does not do as well as its channel.

    Attributes:
        state: `live` where its data comes and there is a remark; `stale` where it does not come; `down` where none is
            to be expected until the venue changes its mind.
        cause: why, in one word.
        since: since when, ISO-8601.
        reason: why, in words.
    """

    state: State
    cause: TopicCause
    since: Timestamp
    reason: str


class Status(Control, frozen=True, kw_only=True, tag="status"):
    """The state of a channel, since when (ISO-8601), why, and when its connector tries again.

    It names the channel in `channel`, because clients take a message with `connector_id` for data and read its `data`.

    Attributes:
        topics: the instruments that do not do as well as the channel, by name; all others do as the channel does.
            `reason` names the first of them too. Of a channel about a whole market there is one, named "".
        topics_left_out: how many more of them there are.
    """

    channel: str
    state: State
    since: Timestamp
    reason: str = ""
    retry_in_s: float | UnsetType = UNSET
    topics: dict[str, TopicStatus] | UnsetType = UNSET
    topics_left_out: int = 0


class Lagged(Control, frozen=True, kw_only=True, tag="lagged"):
    """`missed` messages between `from_seq` and `to_seq`, both included, will not come.

    `by_channel` says how many of them each channel has. Of these channels the newest message of each of the client's
    topics follows; all others go on where they were.
    """

    missed: int
    from_seq: int
    to_seq: int
    by_channel: dict[str, int] | UnsetType = UNSET


class Pong(Control, frozen=True, kw_only=True, tag="pong"):
    """The answer to `ping`, with what the ping carried."""

    id: Id | None = None
    data: Raw | UnsetType = UNSET


class Error(Control, frozen=True, kw_only=True, tag="error"):
    """A command could not be carried out: what is wrong, the value seen, what is allowed."""

    code: ErrorCode
    message: str
    id: Id | None = None
    channels: tuple[str, ...] = ()


class Test(Control, frozen=True, kw_only=True, tag="test"):
    """A message to all clients, sent by `POST /ws/test`."""

    __test__ = False  # the name is the wire's; pytest must not take it for a test class

    message: str


class TestResponse(Control, frozen=True, kw_only=True, tag="test_response"):
    """The HTTP answer to `POST /ws/test`."""

    __test__ = False

    message: str
    clients: int


class Goodbye(Control, frozen=True, kw_only=True, tag="goodbye"):
    """Before a planned close: the close code to come, why, and how long to wait (jittered per client)."""

    code: int
    reason: str
    retry_after_s: float


ControlMessage: TypeAlias = (
    Welcome | Subscribed | Unsubscribed | Status | Lagged | Pong | Error | Test | TestResponse | Goodbye
)
Message: TypeAlias = DataMessage | ControlMessage


# ---- encode and decode ---------------------------------------------------------------------------


class MessageError(Exception):
    """A server's bytes are not a message of this contract, or have no MessagePack form."""


is_number: Final = re.compile(DIGITS).fullmatch
"""Whether `number` takes that text; a match, or None."""

_packer: Final = msgspec.msgpack.Encoder()
_json_message: Final[msgspec.json.Decoder[Message]] = msgspec.json.Decoder(Message)
_pack_message: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(Message)

encode: Final = msgspec.json.Encoder().encode
"""A message (or any Struct of this module) as JSON bytes."""


def number(digits: str) -> Raw:
    """A venue's decimal digits as a JSON number, unchanged.

    Raises:
        ValueError: `digits` is not a number as JSON writes one (RFC 8259 section 6), such as "",
            "NaN", ".5" or "+1"; or it has more digits than readers take (see `DIGITS`), such as "1e400".
    """
    if is_number(digits) is None:
        raise ValueError(f"not a JSON number: {digits[:40]!r}")
    return Raw(digits.encode())


def middle(bid: str, ask: str) -> str:
    """The price half way between a book's best bid and best ask, as a JSON number.

    Exact for prices of up to 27 digits, rounded beyond. "" if one of the two is not a number, or if the result has more
    digits than `number` takes.
    """
    if is_number(bid) is None or is_number(ask) is None:
        return ""
    middle = between(bid, ask)
    return middle if is_number(middle) else ""


def between(bid: str, ask: str) -> str:
    """The same of two that are known to be numbers, and in digits that nobody has looked at."""
    return f"{(Decimal(bid) + Decimal(ask)) / 2:f}"


def encode_as(message: Message, format: Format) -> bytes:
    """A message's payload in the given format (SSE carries JSON).

    The `Raw` fields of a data message hold JSON in any format, because venues send JSON. The `data` of a `Pong` is the
    client's own, and holds bytes of the given format.

    Raises:
        MessageError: a data message that `to_msgpack` refuses.
    """
    if format is not Format.MSGPACK:
        return encode(message)
    if isinstance(message, Data):
        return to_msgpack(encode(message))
    return _packer.encode(message)


def to_msgpack(payload: bytes) -> bytes:
    """The MessagePack form of a message in JSON. The tape calls this once per message, on first use.

    Raises:
        MessageError: `payload` is not a message, or `data` holds a number that does not fit into 64 bits, or text that
            is not UTF-8.
    """
    message = decode_message(payload, Format.JSON)
    try:
        if isinstance(message, Data):
            raws = {
                name: pack(raw)
                for name, pack in _packers(type(message)).items()
                if isinstance(raw := getattr(message, name), Raw)
            }
            message = msgspec.structs.replace(message, **raws)
        elif isinstance(message, Pong) and not isinstance(message.data, UnsetType):
            message = msgspec.structs.replace(message, data=_pack_raw(message.data))
        return _packer.encode(message)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError(f"has no MessagePack form: {error}") from error


def decode_message(payload: bytes | str, format: Format) -> Message:
    """Decode one server message, for clients in Python. `Raw` fields hold bytes of that format.

    Raises:
        MessageError: the payload is not a message of this contract.
    """
    try:
        if format is Format.MSGPACK:
            return _pack_message.decode(payload if isinstance(payload, bytes) else payload.encode())
        return _json_message.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MessageError(str(error)) from error


_Pack: TypeAlias = "Callable[[Raw], Raw]"


@cache
def number_fields(message: type[Data]) -> tuple[str, ...]:
    """The fields of such a message that are the venue's digits: a number in JSON, text in MessagePack."""
    return tuple(
        name for name, kind in _raw_fields(message).items() if kind.extra_json_schema == NUMBER.extra_json_schema
    )


@cache
def _packers(message: type[Data]) -> dict[str, _Pack]:
    """The fields of such a message that hold JSON, and what makes MessagePack of each."""
    numbers = number_fields(message)
    return {name: _pack_number if name in numbers else _pack_raw for name in ("data", *_raw_fields(message))}


def _raw_fields(message: type[Data]) -> dict[str, msgspec.inspect.Metadata]:
    """The fields of such a message, but `data`, that hold JSON as it came, and what is said of each."""
    found: dict[str, msgspec.inspect.Metadata] = {}
    for field in msgspec.structs.fields(message):
        info = msgspec.inspect.type_info(field.type)
        for kind in info.types if isinstance(info, msgspec.inspect.UnionType) else (info,):
            if isinstance(kind, msgspec.inspect.Metadata) and isinstance(kind.type, msgspec.inspect.RawType):
                found[field.name] = kind
    return found


def _pack_number(raw: Raw) -> Raw:
    """A JSON number as the text of its digits."""
    return Raw(_packer.encode(bytes(number(bytes(raw).decode())).decode()))


def _pack_raw(raw: Raw) -> Raw:
    """A JSON value as MessagePack. That has no integers beyond 64 bits, so these become floats."""
    value = msgspec.json.decode(raw)
    try:
        return Raw(_packer.encode(value))
    except OverflowError:
        return Raw(_packer.encode(_within_64_bits(value)))


def _within_64_bits(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _within_64_bits(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_within_64_bits(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value)
    return value
