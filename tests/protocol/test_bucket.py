"""How much may be taken, and when there will be more."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.bucket import Bucket


def test_it_is_full_at_first_and_fills_up_again() -> None:
    bucket = Bucket(3, 100.0)
    assert [bucket.take(1, 2, 3, 100.0) for _ in range(3)] == [0.0] * 3
    assert bucket.take(1, 2, 3, 100.0) == 0.5
    assert bucket.take(1, 2, 3, 100.25) == 0.25
    assert bucket.take(1, 2, 3, 100.5) == 0.0
    assert bucket.level(2, 3, 200.0) == 3


def test_what_is_owed_has_to_come_first() -> None:
    bucket = Bucket(1, 0.0)
    bucket.owe(3, most=1)
    assert bucket.level(1, 1, 0.0) == -1
    assert bucket.take(1, 1, 1, 0.0) == 2.0
    assert bucket.take(1, 1, 1, 2.0) == 0.0


def test_other_limits_hold_from_the_next_time_on() -> None:
    bucket = Bucket(10, 0.0)
    assert bucket.level(1, 2, 0.0) == 2
    assert bucket.level(1, 10, 3.0) == 5
    assert bucket.take(1, 0, 10, 3.0) == 0.0
    assert bucket.take(5, 0, 10, 3.0) == math.inf


def test_what_is_refused_is_never_to_be_had_at_once() -> None:
    bucket = Bucket(1, 0.0)
    bucket.take(1, 1e-9, 1, 0.0)
    assert bucket.take(1e-12, 1e9, 1, 0.0) == pytest.approx(0.001)


@given(
    st.floats(0.01, 1000),
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 5)), max_size=50),
)
def test_no_more_is_taken_than_the_burst_and_what_has_come_since(
    per_s: float, burst: int, steps: list[tuple[float, float]]
) -> None:
    now_s = taken = 0.0
    bucket = Bucket(burst, now_s)
    for wait_s, cost in steps:
        now_s += wait_s
        if not bucket.take(cost, per_s, burst, now_s):
            taken += cost
    assert taken <= (burst + now_s * per_s) * (1 + 1e-9)
