"""What a client may send: read in both formats, refused with the place where it is wrong."""

import json
import math
import struct

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from protocol.codes import ErrorCode
from protocol.commands import (
    MOST_REASON_CHARS,
    SUBPROTOCOLS,
    Command,
    CommandError,
    Format,
    Ping,
    Position,
    Subscribe,
    Unsubscribe,
    cut,
    decode_command,
)

PACKED = Format.MSGPACK
TEXT = st.text(st.characters(codec="utf-8"))
INT_64 = st.integers(-(2**63), 2**64 - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | INT_64 | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
IDS = st.none() | TEXT | INT_64 | FLOAT
NAMES = st.lists(TEXT, max_size=5)
COMMANDS = (
    st.builds(
        Subscribe,
        channels=NAMES,
        instruments=st.none() | NAMES,
        interval_ms=st.none() | INT_64,
        snapshot=st.booleans(),
        since=st.none() | st.builds(Position, epoch=TEXT, seq=INT_64),
        id=IDS,
    )
    | st.builds(Unsubscribe, channels=NAMES, id=IDS)
    | st.builds(Ping, id=IDS)
)


def begun(value: object) -> str:
    """A parameter's name in pytest's report, which some payloads would fill."""
    return str(value)[:40]


def outcome(raw: str | bytes, wire: Format) -> Command | CommandError:
    try:
        return decode_command(raw, wire)
    except CommandError as error:
        return error


def refused(raw: str | bytes, wire: Format = Format.JSON) -> CommandError:
    refusal = outcome(raw, wire)
    assert isinstance(refusal, CommandError)
    return refusal


def assert_sendable(outcome: Command | CommandError) -> None:
    if isinstance(outcome, CommandError):
        assert 0 < len(outcome.reason) <= MOST_REASON_CHARS
        assert msgspec.json.encode(outcome.reason)


@pytest.mark.parametrize(
    ("raw", "command"),
    [
        (
            '{"type": "subscribe", "channels": ["binance_prices", "binance_orderbook"]}',
            Subscribe(channels=["binance_prices", "binance_orderbook"]),
        ),
        ('{"type": "unsubscribe", "channels": ["binance_prices"]}', Unsubscribe(channels=["binance_prices"])),
        ('{"type": "ping"}', Ping()),
    ],
)
def test_the_three_commands_of_the_first_description(raw: str, command: Command) -> None:
    assert decode_command(raw, Format.JSON) == command
    assert decode_command(raw.encode(), Format.JSON) == command
    assert decode_command(raw, Format.SSE) == command
    assert decode_command(msgspec.msgpack.encode(json.loads(raw)), PACKED) == command


def test_every_option_of_subscribe() -> None:
    raw = (
        '{"type":"subscribe","channels":["binance_prices"],"instruments":["BTC/USDT"],"interval_ms":1000,'
        '"snapshot":false,"since":{"epoch":"k3v","seq":1287},"id":7,"what comes later":[{}]}'
    )
    assert decode_command(raw, Format.JSON) == Subscribe(
        channels=["binance_prices"],
        instruments=["BTC/USDT"],
        interval_ms=1000,
        snapshot=False,
        since=Position(epoch="k3v", seq=1287),
        id=7,
    )


@given(COMMANDS)
def test_every_command_round_trips_in_both_formats(command: Command) -> None:
    assert decode_command(msgspec.json.encode(command), Format.JSON) == command
    assert decode_command(msgspec.json.encode(command).decode(), Format.JSON) == command
    assert decode_command(msgspec.msgpack.encode(command), PACKED) == command


@given(JSON, st.sampled_from([None, 2]))
def test_the_data_of_a_ping_is_kept_to_the_byte(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    command = decode_command(f'{{"type": "ping",\n "data": {text} \r\n}}', Format.JSON)
    assert isinstance(command, Ping)
    assert isinstance(command.data, Raw)
    assert bytes(command.data) == text.encode()
    packed = decode_command(msgspec.msgpack.encode({"type": "ping", "data": value}), PACKED)
    assert isinstance(packed, Ping)
    assert isinstance(packed.data, Raw)
    assert bytes(packed.data) == msgspec.msgpack.encode(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -0.0])
def test_messagepack_has_more_numbers_for_an_id(value: float) -> None:
    command = decode_command(msgspec.msgpack.encode({"type": "ping", "id": value}), PACKED)
    assert isinstance(command, Ping)
    assert isinstance(command.id, float)
    assert struct.pack("!d", command.id) == struct.pack("!d", value)


@pytest.mark.parametrize(
    "id_text", ["1", "-1", "1.5", '"x"', '""', "123456789012345678901234567890", "1" * 4300], ids=begun
)
def test_an_id_is_kept_whatever_its_size(id_text: str) -> None:
    command = decode_command(f'{{"type":"ping","id":{id_text}}}', Format.JSON)
    assert command == Ping(id=json.loads(id_text))
    assert msgspec.json.encode(command.id).decode() == id_text
    assert refused(f'{{"type":"nope","id":{id_text}}}').id == json.loads(id_text)


def test_of_a_doubled_key_the_last_one_counts() -> None:
    assert decode_command('{"type":"ping","id":1,"id":"x"}', Format.JSON) == Ping(id="x", data=UNSET)
    assert refused('{"type":"ping","type":"subscribe"}').code is ErrorCode.INVALID_FIELD


MALFORMED = ErrorCode.MALFORMED
UNKNOWN_TYPE = ErrorCode.UNKNOWN_TYPE
INVALID = ErrorCode.INVALID_FIELD


@pytest.mark.parametrize(
    ("raw", "code", "words", "id_"),
    [
        ("", MALFORMED, "not JSON: Input data was truncated; seen nothing", None),
        ("hello", MALFORMED, "not JSON: JSON is malformed: invalid character (byte 0); seen hello", None),
        ('{"type":"ping"} x', MALFORMED, "trailing characters (byte 17)", None),
        ('\ufeff{"type":"ping"}', MALFORMED, "not JSON", None),
        ('{"type":"ping","id":NaN}', MALFORMED, 'invalid character (byte 20); seen {"type":"ping","id":NaN}', None),
        ('{"type":"foo","id":NaN}', MALFORMED, "invalid character (byte 19)", None),
        ('{"type":"ping","data":}', MALFORMED, "(byte 22)", None),
        ('{"type":"ping","data":01}', MALFORMED, "(byte 23)", None),
        ('{"type":"ping","data":"\x01"}', MALFORMED, "(byte 23)", None),
        ("[]", MALFORMED, "a command is one JSON object: Expected `object`, got `array`; seen []", None),
        ("null", MALFORMED, "Expected `object`, got `null`; seen null", None),
        ('"\ud800"', MALFORMED, 'not UTF-8; seen "?"', None),
        ('{"type":"ping","x":' + "[" * 50_000 + "]" * 50_000 + "}", MALFORMED, "nested too deeply", None),
        ("{}", UNKNOWN_TYPE, "`type` is missing; allowed: subscribe, unsubscribe, ping", None),
        ('{"id":7}', UNKNOWN_TYPE, "`type` is missing", 7),
        ('{"type":"sub","id":"a"}', UNKNOWN_TYPE, "`type` is 'sub'; allowed: subscribe", "a"),
        ('{"type":null,"id":1.5}', UNKNOWN_TYPE, "`type` is null; allowed", 1.5),
        ('{"type":["ping"]}', UNKNOWN_TYPE, '`type` is ["ping"]; allowed', None),
        ('{"type":"x","id":{"no":"id"}}', UNKNOWN_TYPE, "`type` is 'x'", None),
        ('{"type":"subscribe","id":9}', INVALID, "subscribe: Object missing required field `channels`", 9),
        ('{"type":"subscribe","channels":[1]}', INVALID, "Expected `str`, got `int` - at `$.channels[0]`", None),
        ('{"type":"unsubscribe","channels":"x"}', INVALID, "unsubscribe: Expected `array`, got `str`", None),
        ('{"type":"subscribe","channels":[],"interval_ms":5.5}', INVALID, "at `$.interval_ms`", None),
        ('{"type":"subscribe","channels":[],"snapshot":null}', INVALID, "at `$.snapshot`", None),
        ('{"type":"subscribe","channels":[],"since":{"epoch":"x"}}', INVALID, "field `seq` - at `$.since`", None),
        ('{"type":"ping","id":true}', INVALID, "ping: Expected `int | float | str | null`, got `bool`", None),
        ('{"type":"ping","id":[1]}', INVALID, "at `$.id`", None),
        ('{"type":"ping","id":1e999}', INVALID, "ping: Number out of range - at `$.id`", None),
    ],
    ids=begun,
)
def test_a_refusal_says_where(raw: str, code: ErrorCode, words: str, id_: object) -> None:
    error = refused(raw)
    assert (error.code, error.id) == (code, id_)
    assert words in error.reason
    assert str(error) == error.reason


@pytest.mark.parametrize(
    ("raw", "code", "words", "id_"),
    [
        (b"", MALFORMED, "not MessagePack: Input data was truncated; seen nothing", None),
        (b"\xc1", MALFORMED, "invalid opcode", None),
        (b"\x90", MALFORMED, "a command is one MessagePack object: Expected `object`, got `array`", None),
        (b"\x81\x01\x02", MALFORMED, "Expected `str`, got `int`", None),
        (b"\x82\xa4type\xa4ping\xa4data" + b"\x91" * 90_000 + b"\xc0", MALFORMED, "nested too deeply", None),
        (b"\x81\xa4type\xa4pingx", MALFORMED, "trailing characters", None),
        (b"\x81\xa4type\xc4\x04ping", UNKNOWN_TYPE, "`type` is", None),
        (b"\x82\xa4type\xa1\xff\xa2id\x05", UNKNOWN_TYPE, "`type` is", 5),
        (b"\x82\xa4type\xd6\xff\x00\x00\x00\x00\xa2id\x01", UNKNOWN_TYPE, "`type` is", 1),
        (b"\x82\xa4type\xa3foo\xa2id\xd4\x05\x00", UNKNOWN_TYPE, "`type` is 'foo'", None),
        (b"\x82\xa4type\xa4ping\xa2id\xc4\x02xx", INVALID, "got `bytes` - at `$.id`", None),
        (b"\x82\xa4type\xa4ping\xa2id\xa1\xff", INVALID, "ping: 'utf-8' codec can't decode", None),
        (b"\x82\xa4type\xa9subscribe\xa8channels\xdd\xff\xff\xff\xff", MALFORMED, "truncated", None),
        ('{"type":"ping"}', MALFORMED, "Expected `object`, got `int`", None),
    ],
    ids=begun,
)
def test_a_refusal_says_where_in_messagepack(raw: bytes | str, code: ErrorCode, words: str, id_: object) -> None:
    error = refused(raw, PACKED)
    assert (error.code, error.id) == (code, id_)
    assert words in error.reason


def test_json_that_is_not_utf_8_is_refused_also_where_it_would_only_be_echoed() -> None:
    assert refused(b'{"type":"ping","data":"\xff"}').reason == 'not UTF-8; seen {"type":"ping","data":"\ufffd"}'


@pytest.mark.parametrize(
    "raw",
    [
        "x" * 65_536,
        '{"type":"' + "x" * 65_536 + '"}',
        '{"type":{"' + "x" * 65_536 + '":1}}',
        '{"' + "x" * 65_536 + '":1',
        '{"type":"ping","id":["' + "\x7f" * 65_536 + '"]}',
        '{"type":"ping","' + "ä" * 65_536,
        "\ud800" * 65_536,
    ],
    ids=begun,
)
def test_what_a_client_sent_is_shown_to_it_but_not_sent_back(raw: str) -> None:
    assert_sendable(refused(raw))


@given(st.text() | st.binary(), st.sampled_from(Format))
@example("\ud800", PACKED)
@example('{"type":"ping","data":"\\ud800"}', Format.JSON)
@example('{"type":"subscribe","channels":["a"],"interval_ms":' + "9" * 4300 + "}", Format.JSON)
@example('{"type":"ping","id":' + "1" * 5000 + "}", Format.JSON)
@example('{"type":"subscribe","channels":' + "[" * 60_000, Format.JSON)
def test_any_input_is_a_command_or_the_declared_error(raw: str | bytes, wire: Format) -> None:
    assert_sendable(outcome(raw, wire))


MUTATED = st.tuples(COMMANDS, st.integers(0), st.binary(max_size=3), st.integers(0, 3))


@given(MUTATED, st.booleans())
def test_a_damaged_command_is_a_command_or_the_declared_error(
    damage: tuple[Command, int, bytes, int], packed: bool
) -> None:
    command, place, inserted, removed = damage
    whole = msgspec.msgpack.encode(command) if packed else msgspec.json.encode(command)
    place %= len(whole) + 1
    raw = whole[:place] + inserted + whole[place + removed :]
    assert_sendable(outcome(raw, PACKED if packed else Format.JSON))


def test_the_reason_of_a_refusal_is_bounded() -> None:
    assert len(CommandError(INVALID, "x" * 65_536).reason) == MOST_REASON_CHARS


def test_a_text_is_cut_with_a_mark() -> None:
    assert cut("x" * 300) == "x" * 300
    assert cut("x" * 301) == "x" * 299 + "…"
    assert cut("abcdef", 4) == "abc…"


def test_the_default_subprotocol_comes_first() -> None:
    assert list(SUBPROTOCOLS) == ["tickerd.v1.json", "tickerd.v1.msgpack"]
    assert all(SUBPROTOCOLS[wire.value] is wire for wire in (Format.JSON, PACKED))
