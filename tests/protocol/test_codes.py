import msgspec
import pytest

from protocol.codes import CloseCode, ErrorCode
from protocol.messages import Error, Format, decode_message, encode


def test_who_is_told_to_come_back() -> None:
    come_back = {code for code in CloseCode if code.may_reconnect}
    assert come_back == {1001, 1011, 1013, 4000, 4001}


def test_close_codes_are_those_of_the_contract() -> None:
    assert {int(code) for code in CloseCode} == {1000, 1001, 1003, 1007, 1008, 1009, 1011, 1013, 4000, 4001}


def test_error_codes_are_written_as_their_names() -> None:
    assert all(code.value == code.name.lower() for code in ErrorCode)
    assert f"{ErrorCode.UNKNOWN_CHANNEL}" == "unknown_channel"


def test_a_later_versions_code_is_read_and_is_none_of_ours() -> None:
    later = decode_message('{"type":"error","timestamp":"t","code":"brand_new","message":"m"}', Format.JSON)
    assert isinstance(later, Error)
    assert (later.code, later.code.value, later.code.is_known, f"{later.code}") == (
        "brand_new",
        "brand_new",
        False,
        "brand_new",
    )
    assert later.code.meaning
    assert b'"code":"brand_new"' in encode(later)
    assert later.code not in list(ErrorCode)
    assert ErrorCode.FULL.is_known
    assert ErrorCode._missing_(7) is None
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(7, ErrorCode)
