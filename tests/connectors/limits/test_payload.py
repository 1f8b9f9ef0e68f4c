"""A venue's JSON: what is fit to be passed on, and what is passed on of it."""

import json
import re
import time
import tracemalloc

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.base import PayloadError
from connectors.limits.payload import MOST_DEPTH, brief, look_over, read, spliced
from connectors.poll.venue import MAX_BODY_BYTES


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


def fit(body: bytes) -> bool:
    """Whether a body is fit to be passed on, found out the long way: every value of it is made."""
    try:
        body.decode()
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return re.search(rb"[0-9]{300}", body) is None


SIGNS = tuple('[]{}:,"\\-+.eE')
VALUES = (
    "0",
    "1",
    "99",
    "true",
    "null",
    "ntrue",
    '"a"',
    '"a":',
    "1e5",
    "1e400",
    "1e-400",
    '"1e999"',
    "\\u00e9",
    "\\ud800",
)
LONG = ("1" * 199, "1" * 200, "9" * 299, "9" * 300, "e99", "e099", " ", "\n")
TOKENS = st.sampled_from(SIGNS + VALUES + LONG)


@given(st.lists(TOKENS, max_size=12).map("".join), st.sampled_from(["%s", "[%s]", '{"a":%s}', '["%s"]', "[1,%s]"]))
@example("1" * 299 + "e10", "%s")
@example("1" * 199 + "e99", "%s")
@example("1e0000000000000000000000000000400", "%s")
@example("-1E+309", "%s")
def test_it_is_looked_over_as_if_every_value_were_made(text: str, around: str) -> None:
    body = (around % text).encode()
    try:
        look_over(body)
    except PayloadError:
        assert not fit(body)
    else:
        assert fit(body)


@pytest.mark.parametrize("deep", [0, 1, 2, 255, 511, 512, 513, 600, 3_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a]":[1,', b"]}]")])
@pytest.mark.parametrize(
    "beside",
    [b"1", b'"]]]]"', b'"[[{{"', b'"\\\\"', b'"\\\\\\"]"', b'"\\"]}"', b'["","",{}]', b"[" + b"[]," * 2000 + b"[]]"],
)
def test_the_depth_is_bounded_whatever_the_interpreter_and_the_strings(
    deep: int, opening: bytes, closing: bytes, beside: bytes
) -> None:
    levels = opening.translate(None, b'"a]:').count(b"[") + opening.count(b"{")
    body = b'{"x":[' + beside + b"," + opening * deep + b"1" + closing * deep + b"," + beside + b"]}"
    if deep * levels + 2 > MOST_DEPTH:
        with pytest.raises(PayloadError, match="nested too deeply"):
            look_over(body)
    else:
        look_over(body)


@pytest.mark.parametrize("item", [b"[]", b"{}", b"1.5", b'"ab"', b'{"a":{}}', b"null"])
def test_the_largest_body_is_looked_over_in_a_moment_and_in_little_memory(item: bytes) -> None:
    body = b"[" + b",".join([item] * (MAX_BODY_BYTES // (len(item) + 1))) + b"]"
    tracemalloc.start()
    look_over(body)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    began_s = time.process_time()
    look_over(body)
    assert time.process_time() - began_s < 0.1
    assert peak_bytes < 4 * len(body)


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
