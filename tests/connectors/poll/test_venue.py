"""What is read out of an answer before any venue's rules: headers, and JSON fit to be spliced."""

import email.utils
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.backoff import LONGEST_ASKED_S
from connectors.base import PayloadError
from connectors.poll.venue import LONGEST_LIFETIME_S, Answer, brief, read, spliced

NOW_S = 1_765_211_445


def answer(**headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(200, named, b"", NOW_S * 1_000, 0.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        (email.utils.formatdate(NOW_S + 90, usegmt=True), 90.0),
        (email.utils.formatdate(NOW_S - 90, usegmt=True), 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 30, None),
        ("999999999", 3600.0),
        ("000000000000000060", 60.0),
        (email.utils.formatdate(NOW_S + 999_999_999, usegmt=True), 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("Mon, 99 Jan 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert answer(retry_after=value).retry_after_s == seconds


@given(st.text())
def test_no_header_is_too_strange(value: str) -> None:
    asked_s = answer(retry_after=value).retry_after_s
    assert asked_s is None or 0.0 <= asked_s <= LONGEST_ASKED_S
    lifetime_s = answer(cache_control=value, age=value).lifetime_s
    assert lifetime_s is None or 0.0 <= lifetime_s <= LONGEST_LIFETIME_S


@pytest.mark.parametrize(
    ("control", "age", "seconds"),
    [
        ("public, max-age=60", "", 60.0),
        ("public, max-age=60", "45", 15.0),
        ("max-age=60", "61", 0.0),
        ("Max-Age=60", "old", 60.0),
        ('max-age="60"', "", 60.0),
        ("no-cache, max-age=60", "", 0.0),
        ("no-store", "", 0.0),
        ("s-maxage=60", "", None),
        ("", "", None),
        ("max-age=31536000", "", LONGEST_LIFETIME_S),
    ],
)
def test_a_body_is_fresh_for_max_age_less_age(control: str, age: str, seconds: float | None) -> None:
    assert answer(cache_control=control, age=age).lifetime_s == seconds


class Part(msgspec.Struct):
    part: msgspec.Raw


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"part":',
        b'{"part":"\xff"}',
        b'{"part":"\xed\xa0\x80"}',
        b'{"part":"\\ud800"}',
        b'{"part":NaN}',
        b'{"part":1e999}',
        b'{"part":' + b"1" * 400 + b"}",
        b'{"part":' + b"[" * 850 + b"]" * 850 + b"}",
        b'{"part":' + b"[" * 100_000,
        b'{"part":1}],[{"part":1}',
        b'{"part":1} x',
    ],
)
def test_what_could_not_be_spliced_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadError) as refused:
        read(body, Part)
    assert len(str(refused.value)) <= 200


@given(st.binary() | st.from_regex(rb'\{"part": ?.*\}', fullmatch=True))
def test_nothing_but_a_payload_error_comes_out_of_any_bytes(body: bytes) -> None:
    try:
        part = read(body, Part).part
    except PayloadError:
        return
    json.loads(spliced(part))


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(json_values, st.sampled_from([None, 0, 2]), st.booleans())
def test_a_spliced_part_is_one_line_of_the_same_value(value: object, indent: int | None, ascii_only: bool) -> None:
    body = json.dumps({"part": value}, indent=indent, ensure_ascii=ascii_only).encode()
    data = spliced(read(body, Part).part)
    assert json.loads(data) == value
    assert b"\n" not in data
    assert b"\r" not in data


def test_digits_stay_as_they_were() -> None:
    body = b'{"part": [1.500000000000000000000001,\r\n 5.9e-06, 42150.50]}'
    assert spliced(read(body, Part).part) == b"[1.500000000000000000000001,5.9e-06,42150.50]"


@given(st.text())
def test_a_venues_words_become_part_of_one_short_line(text: str) -> None:
    line = brief(text)
    assert len(line) <= 160
    assert line == "" or line.isprintable()
    assert not line.endswith(".") or line.endswith("…")
