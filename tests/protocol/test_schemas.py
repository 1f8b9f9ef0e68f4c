"""The JSON Schemas are valid, say what the Structs say, and fit what the encoder makes of them."""

import json
import re
from typing import Any, get_args

import msgspec
import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from msgspec import Raw

from protocol.answers import Cause, ChannelList, ClusterReport, GapList, Health, Readiness, Snapshot, TestRequest
from protocol.codes import CloseCode, ErrorCode
from protocol.commands import Command
from protocol.kinds import MESSAGES, PAYLOADS
from protocol.messages import (
    ControlMessage,
    DataMessage,
    Error,
    Format,
    OrderbookUpdate,
    PriceUpdate,
    Status,
    Subscribe,
    decode_message,
    encode,
    encode_as,
)
from protocol.payloads import BookData, PriceData
from protocol.schemas import docstring, schema_name, schemas

REPORTS = (Health, Readiness, ChannelList, Snapshot, GapList, ClusterReport, TestRequest)
MADE = schemas([*get_args(Command), *MESSAGES, *get_args(ControlMessage), *REPORTS, *PAYLOADS, CloseCode])

STAMP = "2025-12-08T16:30:45.123Z"
BOOK = BookData("BTCUSDT", 7, Raw(b'[["1.0","2.0"]]'), Raw(b"[]"))
PRICE = PriceUpdate(
    connector_id="binance_prices",
    exchange="binance",
    instrument="BTC/USDT",
    price=Raw(b"42150.50"),
    timestamp=STAMP,
    seq=2,
    prev_seq=1,
    received_ms=3,
    data=Raw(msgspec.json.encode(PriceData("BTCUSDT", "42150.50", "2.45"))),
)


def errors(value: Any, name: str) -> list[str]:
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": MADE}}
    return [
        error.message
        for validator in (Draft7Validator, Draft202012Validator)
        for error in validator(schema).iter_errors(value)
    ]


@pytest.mark.parametrize("name", MADE)
def test_every_schema_is_valid_in_both_drafts_and_refers_to_others_that_exist(name: str) -> None:
    Draft7Validator.check_schema(MADE[name])
    Draft202012Validator.check_schema(MADE[name])
    for reference in re.findall(r'"\$ref": "([^"]*)"', json.dumps(MADE[name])):
        assert reference.removeprefix("#/components/schemas/") in MADE


def test_every_struct_has_its_schema_and_its_type() -> None:
    for struct in (*get_args(Command), *get_args(DataMessage), *get_args(ControlMessage), *REPORTS):
        schema = MADE[struct.__name__]
        assert schema["description"] == docstring(struct)[0] != ""
        tag = struct.__struct_config__.tag
        if tag is not None:
            assert schema["properties"]["type"] == {"enum": [tag]}
            assert "type" in schema["required"]


def test_no_schema_forbids_what_a_later_version_may_add() -> None:
    assert all(schema.get("additionalProperties", True) is not False for schema in MADE.values())


def test_what_is_written_is_as_the_schema_says() -> None:
    status = Status(timestamp=STAMP, channel="binance_prices", state="live", since=STAMP)
    error = Error(timestamp=STAMP, code=ErrorCode.MALFORMED, message="not JSON", id=1.5)
    snapshot = Snapshot(timestamp=STAMP, channel="binance_prices", epoch="e", seq=2, messages=[Raw(encode(PRICE))])
    for struct in (PRICE, status, error, snapshot, Subscribe(["*"], id="x")):
        assert errors(json.loads(encode(struct)), type(struct).__name__) == []


def test_the_price_is_a_number_in_json_and_text_in_messagepack() -> None:
    in_json = json.loads(encode(PRICE))
    packed = msgspec.msgpack.decode(encode_as(PRICE, Format.MSGPACK))
    assert (in_json["price"], packed["price"]) == (42150.50, "42150.50")
    assert errors(packed, schema_name(PriceUpdate, packed=True)) == []
    assert errors(packed, schema_name(PriceUpdate, packed=False)) != []
    assert errors(in_json, schema_name(PriceUpdate, packed=True)) != []
    assert schema_name(Error, packed=True) == "Error"


def test_the_limits_of_commands_are_named() -> None:
    right: dict[str, Any] = {"type": "subscribe", "channels": ["*"], "instruments": ["A/B"], "interval_ms": 50}
    right["since"] = {"epoch": "e", "seq": 0}
    assert errors(right, "Subscribe") == []
    wrongs: list[dict[str, Any]] = [{"channels": []}, {"instruments": []}, {"interval_ms": 49}]
    for wrong in (*wrongs, {"since": {"epoch": "e", "seq": -1}}):
        assert errors({**right, **wrong}, "Subscribe") != [], wrong


def test_data_is_described_per_type() -> None:
    book = json.loads(msgspec.json.encode(BOOK))
    message = {**json.loads(encode(PRICE)), "type": "orderbook_update", "data": book}
    assert errors(message, OrderbookUpdate.__name__) == []
    assert errors({**message, "data": {**book, "lastUpdateId": None}}, OrderbookUpdate.__name__) == [], "a stream's"
    for wrong in ({**book, "bids": [["1.0", 2.0]]}, {**book, "asks": [["1.0"]]}, {**book, "symbol": 7}, {}):
        assert errors({**message, "data": wrong}, OrderbookUpdate.__name__) != [], wrong


def test_what_data_is_described_as_is_not_looked_at_when_a_message_is_read() -> None:
    """It is spliced, not read: the schema is for those who want to know."""
    raw = encode(msgspec.structs.replace(PRICE, data=Raw(b'{"else":1}'), timestamp="yesterday"))
    assert encode(decode_message(raw, Format.JSON)) == raw


def test_a_struct_s_attributes_become_the_descriptions_of_its_fields() -> None:
    class Above(msgspec.Struct):
        """Inherited.

        Attributes:
            old: is told
                on two lines.
            other: not a field of it.
        """

        old: int

    class Below(Above):
        """What it is.

        And more.

        Attributes:
            new: its own.
            code: stands beside a reference.
        """

        new: int
        code: ErrorCode
        bare: int

    made = schemas([Below, *PAYLOADS, *get_args(DataMessage), Error, CloseCode])["Below"]
    assert made["description"] == "What it is.\n\nAnd more."
    properties = made["properties"]
    assert properties["old"]["description"] == "is told on two lines."
    assert properties["new"]["description"] == "its own."
    assert properties["code"] == {"$ref": "#/components/schemas/ErrorCode"}
    assert properties["bare"] == {"type": "integer"}
    assert docstring(type("Plain", (), {})) == ("", {})


def test_codes_say_what_they_mean_and_whether_to_come_back() -> None:
    every: tuple[type[ErrorCode | CloseCode], ...] = (ErrorCode, CloseCode)
    for codes in every:
        made = MADE[codes.__name__]
        assert made["enum"] == [code.value for code in codes]
        assert made["x-enum-varnames"] == [code.name for code in codes]
        described = dict(zip(made["enum"], made["x-enum-descriptions"], strict=True))
        for code in codes:
            assert described[code.value].startswith(code.meaning)
            assert f"`{code}`: {described[code.value]}" in made["description"]
    back = dict(zip(CloseCode, MADE["CloseCode"]["x-enum-may-reconnect"], strict=True))
    assert back == {code: code.may_reconnect for code in CloseCode}


def test_the_causes_of_gaps_are_listed() -> None:
    assert MADE["GapReport"]["properties"]["cause"]["enum"] == sorted(get_args(Cause))
