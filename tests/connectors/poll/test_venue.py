"""What is read out of an answer before any venue's rules: headers, and JSON fit to be spliced."""

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.backoff import LONGEST_ASKED_S
from connectors.poll.venue import LONGEST_LIFETIME_S, Answer

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
