"""Every server message in both formats: nothing lost, no digit changed, one declared error."""

import contextlib
import json
import math
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET, Raw, UnsetType

from protocol.codes import ErrorCode
from protocol.kinds import MESSAGES
from protocol.messages import (
    CandleUpdate,
    ConsolidatedQuote,
    ControlMessage,
    Data,
    DataMessage,
    DepthSnapshot,
    DepthUpdate,
    Error,
    Format,
    Goodbye,
    Lagged,
    Message,
    MessageError,
    Pong,
    PriceUpdate,
    QuoteUpdate,
    ServerInfo,
    State,
    Status,
    Subscribed,
    Test,
    TestResponse,
    Trade,
    Unsubscribed,
    Welcome,
    decode_message,
    encode,
    encode_as,
    middle,
    number,
    number_fields,
    to_msgpack,
)
from protocol.payloads import DIGITS as DIGITS_OF_PAYLOADS

TEXT = st.text(st.characters(codec="utf-8"))
INT_64 = st.integers(-(2**63), 2**64 - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | INT_64 | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
RAW_JSON = st.builds(
    lambda value, indent, ascii_only: Raw(json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()),
    JSON,
    st.sampled_from([None, 1]),
    st.booleans(),
)
DIGITS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?", fullmatch=True
) | st.sampled_from(["42150.50", "0.00000010", "1e-7", "-0", "0", "100000000000000000000.000000000000000001"])
IDS = st.none() | TEXT | INT_64 | FLOAT
NAMES = st.lists(TEXT, max_size=4).map(tuple)


def unset(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.just(UNSET) | strategy


NUMBERS = DIGITS.map(number)
LEVELS = st.lists(st.tuples(DIGITS, DIGITS), max_size=3).map(lambda levels: Raw(json.dumps(levels).encode()))
QUOTE = dict.fromkeys(("bid", "bid_size", "ask", "ask_size"), unset(NUMBERS))
BOOK = {"bids": LEVELS, "asks": LEVELS}
OWN: dict[type[DataMessage], dict[str, st.SearchStrategy[Any]]] = {
    Trade: {"size": NUMBERS, "side": st.sampled_from(["buy", "sell"]), "trade_id": TEXT},
    QuoteUpdate: QUOTE,
    ConsolidatedQuote: {**QUOTE, "bid_exchange": unset(TEXT), "ask_exchange": unset(TEXT)},
    DepthUpdate: BOOK,
    DepthSnapshot: {**BOOK, "reset": st.booleans(), "through": unset(INT_64)},
    CandleUpdate: {
        "interval": TEXT,
        "start_ms": INT_64,
        "closed": st.booleans(),
        **dict.fromkeys(("open", "high", "low", "close", "volume"), NUMBERS),
    },
}
"""What messages of these types have beside the common fields."""


def data(kind: type[DataMessage]) -> st.SearchStrategy[DataMessage]:
    return st.builds(
        kind,
        connector_id=TEXT,
        exchange=TEXT,
        instrument=unset(TEXT),
        price=unset(NUMBERS),
        timestamp=TEXT,
        seq=INT_64,
        prev_seq=INT_64,
        exchange_ms=unset(INT_64),
        received_ms=INT_64,
        cached=st.booleans(),
        data=RAW_JSON,
        **OWN.get(kind, {}),
    )


COMMON = {"timestamp": TEXT}
PLACE = {**COMMON, "epoch": TEXT, "seq": INT_64, "channels": NAMES}
CONTROL: dict[type[ControlMessage], st.SearchStrategy[ControlMessage]] = {
    Welcome: st.builds(Welcome, **PLACE, server=st.builds(ServerInfo, name=TEXT, version=TEXT), heartbeat_s=FLOAT),
    Subscribed: st.builds(
        Subscribed,
        **PLACE,
        id=IDS,
        recovered=unset(st.dictionaries(TEXT, st.booleans())),
        missed=unset(st.dictionaries(TEXT, INT_64)),
        reason=unset(TEXT),
    ),
    Unsubscribed: st.builds(Unsubscribed, **PLACE, id=IDS),
    Status: st.builds(
        Status,
        **COMMON,
        channel=TEXT,
        state=st.sampled_from(get_args(State)),
        since=TEXT,
        reason=TEXT,
        retry_in_s=unset(FLOAT),
    ),
    Lagged: st.builds(Lagged, **COMMON, missed=INT_64, from_seq=INT_64, to_seq=INT_64),
    Pong: st.builds(Pong, **COMMON, id=IDS, data=unset(RAW_JSON)),
    Error: st.builds(Error, **COMMON, code=st.sampled_from(ErrorCode), message=TEXT, id=IDS, channels=NAMES),
    Test: st.builds(Test, **COMMON, message=TEXT),
    TestResponse: st.builds(TestResponse, **COMMON, message=TEXT, clients=INT_64),
    Goodbye: st.builds(Goodbye, **COMMON, code=INT_64, reason=TEXT, retry_after_s=FLOAT),
}
SENT = st.one_of([data(kind) for kind in MESSAGES] + list(CONTROL.values()))


def begun(value: object) -> str:
    """A parameter's name in pytest's report, which some payloads would fill."""
    return str(value)[:40]


def tree(message: Message) -> dict[str, Any]:
    """A message as plain values; its Raw fields as text, which can be compared."""
    fields: dict[str, Any] = {"type": message.__struct_config__.tag}
    for name in message.__struct_fields__:
        value = getattr(message, name)
        fields[name] = bytes(value) if isinstance(value, Raw) else value
    return fields


def price_update(price: str = "42150.50", body: str = '{"symbol":"BTCUSDT"}') -> PriceUpdate:
    return PriceUpdate(
        connector_id="binance_prices",
        exchange="binance",
        instrument="BTC/USDT",
        price=number(price),
        timestamp="2025-12-08T16:30:45.123Z",
        seq=1287,
        prev_seq=1279,
        received_ms=1765211445122,
        data=Raw(body.encode()),
    )


def test_no_type_of_message_is_left_out_of_these_tests() -> None:
    assert set(CONTROL) | set(MESSAGES) == set(get_args(Message))


def test_whoever_looks_for_a_connector_id_finds_data() -> None:
    """The user's examples take `data` apart wherever `connector_id` is theirs, without another look at the type."""
    for kind in get_args(Message):
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        assert ("connector_id" in fields) == issubclass(kind, Data), kind
        assert "connector_id" not in fields or fields["data"].required, kind
        assert fields["timestamp"].required, kind


@given(SENT)
def test_every_message_round_trips_in_json(message: Message) -> None:
    payload = encode(message)
    assert encode_as(message, Format.JSON) == encode_as(message, Format.SSE) == payload
    read = decode_message(payload, Format.JSON)
    assert tree(read) == tree(message)
    assert encode(read) == payload
    assert tree(decode_message(payload.decode(), Format.JSON)) == tree(message)


@given(SENT)
def test_every_message_round_trips_in_messagepack(message: Message) -> None:
    packed = to_msgpack(encode(message))
    read = tree(decode_message(packed, Format.MSGPACK))
    sent = tree(message)
    numbers = number_fields(type(message)) if isinstance(message, Data) else ()
    for spliced in ("data", "bids", "asks", *numbers):
        if isinstance(sent.get(spliced), bytes):
            read[spliced] = msgspec.msgpack.decode(read[spliced])
            sent[spliced] = sent[spliced].decode() if spliced in numbers else json.loads(sent[spliced])
    assert read == sent


@given(SENT)
def test_both_ways_to_messagepack_agree(message: Message) -> None:
    # Only the data of a pong is already in the connection's own format.
    if not isinstance(message, Pong):
        assert encode_as(message, Format.MSGPACK) == to_msgpack(encode(message))


@given(IDS, unset(JSON))
def test_a_pong_carries_back_the_bytes_of_its_own_format(id_: str | float | None, value: object) -> None:
    raw: Raw | UnsetType = UNSET if value is UNSET else Raw(msgspec.msgpack.encode(value))
    packed = encode_as(Pong(timestamp="t", id=id_, data=raw), Format.MSGPACK)
    expected: dict[str, object] = {"type": "pong", "timestamp": "t"}
    expected |= {} if id_ is None else {"id": id_}
    expected |= {} if value is UNSET else {"data": value}
    assert msgspec.msgpack.decode(packed) == expected


@given(DIGITS)
@example("0.00000010")
@example("1e-7")
@example("42150.50")
def test_no_digit_of_a_price_is_changed(digits: str) -> None:
    payload = encode(price_update(digits))
    assert f'"price":{digits},"timestamp"'.encode() in payload
    assert json.loads(payload, parse_int=str, parse_float=str)["price"] == digits
    assert msgspec.msgpack.decode(to_msgpack(payload))["price"] == digits
    assert msgspec.msgpack.decode(encode_as(price_update(digits), Format.MSGPACK))["price"] == digits


@pytest.mark.parametrize(
    "digits",
    [
        "9" * 5_000,
        "9" * 31,
        "0." + "3" * 31,
        "1." + "0" * 5_000,
        "1e400",
        "1e-400",
        "1E+100",
        "1e" + "0" * 5_000,
        "-" + "1" * 400,
    ],
)
def test_a_number_that_readers_could_not_take_is_none(digits: str) -> None:
    with pytest.raises(ValueError, match="not a JSON number") as refused:
        number(digits)
    assert len(str(refused.value)) < 100


@given(st.from_regex(DIGITS_OF_PAYLOADS, fullmatch=True))
def test_every_number_that_there_may_be_is_read_by_everyone(digits: str) -> None:
    payload = encode(price_update(digits))
    assert abs(float(digits)) < 1e130
    assert math.isfinite(json.loads(payload)["price"])
    assert math.isfinite(msgspec.json.decode(payload)["price"])
    assert len(digits) <= 66


def test_fields_stand_in_the_order_of_the_first_description() -> None:
    assert encode(price_update()) == (
        b'{"type":"price_update","connector_id":"binance_prices","exchange":"binance","instrument":"BTC/USDT",'
        b'"price":42150.50,"timestamp":"2025-12-08T16:30:45.123Z","seq":1287,"prev_seq":1279,'
        b'"received_ms":1765211445122,"data":{"symbol":"BTCUSDT"}}'
    )


@given(st.one_of([data(kind) for kind in MESSAGES]))
def test_data_comes_last_of_what_all_have_and_what_is_unset_is_left_out(message: DataMessage) -> None:
    keys = list(json.loads(encode(message)))
    assert keys == list(msgspec.msgpack.decode(to_msgpack(encode(message))))
    own = [key for key in keys if key in OWN.get(type(message), {})]
    assert (keys[0], keys[-1 - len(own)], keys[len(keys) - len(own) :]) == ("type", "data", own)
    for name in ("instrument", "price", "exchange_ms"):
        assert (name in keys) is not isinstance(getattr(message, name), UnsetType)
    assert ("cached" in keys) is message.cached


@given(SENT)
def test_every_message_has_what_a_validator_asks_for(message: Message) -> None:
    assert {"type", "timestamp"} <= set(json.loads(encode(message)))


@pytest.mark.parametrize(
    "digits", ["", "NaN", "Infinity", ".5", "5.", "+1", "01", "1e", "0x1", "1 ", "1\n", "1_0", "--1", "٣", '"1"']
)
def test_what_is_no_json_number_is_no_price(digits: str) -> None:
    with pytest.raises(ValueError, match="not a JSON number"):
        number(digits)


@given(st.text())
def test_a_number_is_what_json_says_it_is(digits: str) -> None:
    try:
        raw = number(digits)
    except ValueError:
        return
    assert bytes(raw).decode() == digits
    assert isinstance(json.loads(digits), int | float)


@pytest.mark.parametrize(
    ("bid", "ask", "half_way"),
    [
        ("42150.10", "42150.21", "42150.155"),
        ("1", "2", "1.5"),
        ("0.00000001", "0.00000002", "0.000000015"),
        ("-1.5", "1.5", "0.0"),
        ("1e3", "1E+3", "1000"),
        ("1e400", "1", ""),
        ("1e-400", "1e-400", ""),
        ("1e99999999999999999999", "1", ""),
        ("9" * 5_000, "1", ""),
        ("", "1", ""),
        ("1", "NaN", ""),
        ("1", "1_0", ""),
    ],
)
def test_the_middle_is_exact_or_none(bid: str, ask: str, half_way: str) -> None:
    assert middle(bid, ask) == half_way
    if half_way:
        number(half_way)


DIGITS_OF_A_PRICE = st.decimals(min_value=0, max_value=10**12, places=8).map(str)


@given(DIGITS_OF_A_PRICE | DIGITS, DIGITS_OF_A_PRICE | DIGITS)
def test_a_middle_is_a_number_between(bid: str, ask: str) -> None:
    half_way = middle(bid, ask)
    if half_way:
        number(half_way)
        low, high = sorted((float(bid), float(ask)))
        assert low - abs(low) * 1e-9 <= float(half_way) <= high + abs(high) * 1e-9
        assert len(half_way) < 70


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", float(2**64)),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", float(-(2**63) - 1)),
        ('{"a":[1,true,1.5,null,"x",1000000000000000000000]}', {"a": [1, True, 1.5, None, "x", 1e21]}),
        (
            "[18446744073709551615,18446744073709551616,-9223372036854775808,-9223372036854775809]",
            [2**64 - 1, float(2**64), -(2**63), float(-(2**63) - 1)],
        ),
        ('{"a":1,"a":2}', {"a": 2}),
        ('"\\ud83d\\ude00"', "😀"),
        ("[" * 500 + "]" * 500, None),
    ],
    ids=begun,
)
def test_numbers_that_messagepack_lacks_become_floats(body: str, value: object) -> None:
    read = msgspec.msgpack.decode(to_msgpack(encode(price_update(body=body))))["data"]
    assert read == (json.loads(body) if value is None else value)
    # 2**63 equals its float, but is written differently.
    assert repr(read) == repr(json.loads(body) if value is None else value)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"{}",
        b'{"type":"nope"}',
        b'{"type":"pong"}',
        b'{"type":"pong","timestamp":1}',
        b'{"type":"pong","timestamp":"t","data":' + b"[" * 100_000,
        encode(price_update(body='"\\ud800"')),
    ],
    ids=begun,
)
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        decode_message(payload, Format.JSON)
    with pytest.raises(MessageError):
        decode_message(payload, Format.MSGPACK)
    with pytest.raises(MessageError):
        to_msgpack(payload)


@pytest.mark.parametrize(
    "payload",
    [
        encode(price_update(body="1e999")),
        encode(price_update(body="1" * 400)),
        encode(price_update(body="1" * 5000)),
        encode(price_update()).replace(b'{"symbol":"BTCUSDT"}', b'"\xff"'),
        encode(price_update()).replace(b"42150.50", b'"42150.50"'),
        encode(price_update()).replace(b"42150.50", b'"\xff"'),
        encode(price_update()).replace(b"1287", b"1" * 30),
        b'{"type":"pong","timestamp":"t","id":' + b"1" * 30 + b"}",
        b'{"type":"pong","timestamp":"t","data":' + b"1" * 400 + b"}",
    ],
    ids=begun,
)
def test_what_messagepack_cannot_say_is_refused(payload: bytes) -> None:
    assert isinstance(decode_message(payload, Format.JSON), Data | Pong)
    with pytest.raises(MessageError, match="has no MessagePack form"):
        to_msgpack(payload)


@given(st.text() | st.binary(), st.sampled_from(Format))
@example("\ud800", Format.JSON)
@example("\ud800", Format.MSGPACK)
def test_any_input_is_a_message_or_the_declared_error(raw: str | bytes, wire: Format) -> None:
    with contextlib.suppress(MessageError):
        assert type(decode_message(raw, wire)) in get_args(Message)


@given(SENT, st.integers(0), st.binary(max_size=3), st.integers(0, 3))
def test_a_damaged_message_is_a_message_or_the_declared_error(
    message: Message, place: int, inserted: bytes, removed: int
) -> None:
    payload = encode(message)
    place %= len(payload) + 1
    damaged = payload[:place] + inserted + payload[place + removed :]
    with contextlib.suppress(MessageError):
        packed = to_msgpack(damaged)
        read = decode_message(packed[:place] + inserted + packed[place + removed :], Format.MSGPACK)
        assert type(read) in get_args(Message)
