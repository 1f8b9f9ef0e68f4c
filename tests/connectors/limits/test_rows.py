"""What is wrong with one row is said with its field and value, in a short line, whatever the bytes."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.limits.rows import Ages, Odd, check_price, check_time, member, read_row, shown


class Row(msgspec.Struct):
    name: str
    size: int = 0


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"7", "the row is 7, not an object"),
        (b"{}", "`name` is missing"),
        (b'{"name":7}', "`name` is 7"),
        (b'{"name":null}', "`name` is null"),
        (
            b'{"name":{"a":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}}',
            '`name` is {"a":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,…',
        ),
        (b'{"name":"a","size":"b"}', '`size` is "b"'),
        (b'{"name":"a","more":1e400}', "not the row that is documented: Number out of range"),
        (b"[" * 400 + b"]" * 400, "the row is "),
        (b'{"name":', "not the row that is documented: "),
    ],
)
def test_the_reason_names_the_field_and_the_value(raw: bytes, reason: str) -> None:
    with pytest.raises(Odd) as odd:
        read_row(raw, Row)
    assert str(odd.value).startswith(reason)
    assert len(str(odd.value)) < 250


@given(
    st.binary()
    | st.dictionaries(st.sampled_from(["name", "size"]), st.none() | st.text()).map(json.dumps).map(str.encode)
)
def test_any_bytes_are_a_row_or_odd(raw: bytes) -> None:
    try:
        read_row(raw, Row)
        said = ""
    except Odd as odd:
        said = str(odd)
    assert said.isprintable()
    member(raw, "name")


@pytest.mark.parametrize(
    ("digits", "cause"),
    [("1.5", ""), ("5.9e-06", ""), ("0", "halted"), ("0.000", "halted"), ("-0", "halted"), ("-1", "unreadable")]
    + [(text, "unreadable") for text in ("", "NaN", "Infinity", ".5", "1e400", "1 ")],
)
def test_a_price_is_a_number_over_0(digits: str, cause: str) -> None:
    try:
        check_price(digits, "last")
        told = ""
    except Odd as odd:
        told = odd.cause
    assert told == cause


def test_a_time_is_of_our_day_and_in_milliseconds() -> None:
    check_time(1_765_211_445_000, "ts")
    for wrong in (-1, 0, 1_765_211_445, 1_765_211_445_000_000, 2**63):
        with pytest.raises(Odd, match=f"`ts` is {wrong}, not in milliseconds"):
            check_time(wrong, "ts")


def test_what_is_old_and_stands_still_is_halted() -> None:
    ages = Ages(100.0)
    ages.check("x", "ts", 1_000_000, 1_100_000)
    with pytest.raises(Odd, match="not trading: `ts` is 3 h old") as odd:
        ages.check("x", "ts", 1_000_000, 11_800_000)
    assert odd.value.cause == "halted"
    with pytest.raises(Odd):
        ages.check("x", "ts", 1_000_000, 11_800_001)
    ages.check("x", "ts", 1_000_001, 11_800_002)
    with pytest.raises(Odd, match="30 days old"):
        ages.check("y", "ts", 0, 30 * 86_400_000)


@pytest.mark.parametrize("value", [None, float("nan"), 2**70, object(), "x" * 100_000, ["\x00\n"], {1: 2}])
def test_any_value_can_be_shown(value: object) -> None:
    assert len(shown(value)) <= 40
    assert shown(value).isprintable()
