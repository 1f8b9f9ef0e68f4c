"""A venue's JSON: what is fit to be passed on, and what is passed on of it."""

import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import PayloadError
from connectors.payload import brief, look_over, read, spliced


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


def test_many_long_numbers_are_looked_over_in_no_time() -> None:
    """A search that began at each digit took 2.6 s for a body of 8 MiB."""
    body = b"[" + b",".join([b"1" * 299] * 3_400) + b"]"
    began_s = time.process_time()
    look_over(body)
    assert time.process_time() - began_s < 0.5


def test_the_words_of_a_venue_are_cut_before_they_are_cleaned() -> None:
    began_s = time.process_time()
    assert brief("\0word " * 1_000_000).startswith("word word")
    assert time.process_time() - began_s < 0.05


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
