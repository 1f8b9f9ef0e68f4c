"""The waits between two runs of a connector."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.backoff import LONGEST_WAIT_S, Backoff, retry_after_s, server_ms

draws = st.floats(0.0, 1.0, exclude_max=True)


def backoff(
    random: Callable[[], float] = lambda: 0.999_999,
    *,
    base_s: float = 1.0,
    cap_s: float = 30.0,
    breaker_after: int = 1_000,
) -> Backoff:
    return Backoff(base_s, cap_s, 60.0, breaker_after, 300.0, random)


@given(
    base_s=st.floats(0.001, 100.0),
    factor=st.floats(1.0, 1_000.0),
    draw=draws,
    failures=st.integers(1, 200),
)
def test_a_wait_lies_between_nothing_and_the_doubling_limit(
    base_s: float, factor: float, draw: float, failures: int
) -> None:
    waits = backoff(lambda: draw, base_s=base_s, cap_s=base_s * factor)
    for failure in range(failures):
        delay_s = waits.next_delay_s(0.0)
        assert 0.0 <= delay_s <= min(base_s * factor, base_s * 2.0**failure)


@given(draw=draws)
def test_waits_never_shrink_while_failures_go_on_and_end_at_the_cap(draw: float) -> None:
    waits = backoff(lambda: draw)
    delays = [waits.next_delay_s(0.0) for _ in range(1_200)]
    assert delays[:999] == sorted(delays[:999])
    assert delays[998] == draw * 30.0
    assert waits.open


@given(
    asked_s=st.floats(0.0, LONGEST_WAIT_S),
    draw=draws,
    refused=st.booleans(),
    earlier=st.integers(0, 20),
)
def test_a_wait_is_never_shorter_than_the_venue_asked(asked_s: float, draw: float, refused: bool, earlier: int) -> None:
    waits = backoff(lambda: draw, breaker_after=5)
    for _ in range(earlier):
        waits.next_delay_s(0.0)
    assert waits.next_delay_s(0.0, asked_s, refused=refused) >= asked_s


@pytest.mark.parametrize("asked_s", [999_999_999.0, float("inf"), 1e300])
def test_a_venue_that_asks_for_years_is_granted_its_longest_ban(asked_s: float) -> None:
    assert backoff().next_delay_s(0.0, asked_s) == LONGEST_WAIT_S == 3 * 86_400


@pytest.mark.parametrize("asked_s", [-5.0, float("-inf"), float("nan")])
def test_a_wait_that_is_none_changes_nothing(asked_s: float) -> None:
    assert backoff().next_delay_s(0.0, asked_s) == backoff().next_delay_s(0.0)


@given(st.text() | st.text("0123456789-+., :GMTJanMonZ"), st.integers(0, 2**60), st.floats(0.0, 1e9))
def test_whatever_retry_after_says_it_is_a_wait_within_the_bound_or_none(text: str, now_ms: int, most_s: float) -> None:
    asked_s = retry_after_s(text, now_ms, most_s)
    assert asked_s is None or 0.0 <= asked_s <= most_s


@pytest.mark.parametrize("wrong_ms", [-86_400_000, -3_600_000, 0, 3_600_000, 86_400_000])
def test_a_date_is_reckoned_by_the_servers_clock_where_it_says_what_time_it_is(wrong_ms: int) -> None:
    until, date, now_ms = "Mon, 08 Dec 2025 16:31:45 GMT", "Mon, 08 Dec 2025 16:30:45 GMT", 1_765_211_445_000
    assert retry_after_s(until, now_ms + wrong_ms, date=date) == 60.0
    assert retry_after_s("7", now_ms + wrong_ms, date=date) == 7.0


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Dec 2025 16:30:45 GMT", "0" * 400])
def test_without_a_usable_date_our_own_clock_has_to_do(date: str) -> None:
    assert retry_after_s("Mon, 08 Dec 2025 16:31:45 GMT", 1_765_211_445_000, date=date) == 60.0
    assert server_ms(date, 5) == 5


def test_an_attempt_that_held_starts_the_row_anew() -> None:
    waits = backoff()
    for now_s in (0.0, 10.0, 20.0):
        waits.started(now_s)
        waits.next_delay_s(now_s + 1.0)
    assert waits.failures == 3

    waits.started(100.0)
    assert waits.next_delay_s(159.9) > 7.0, "59.9 s are not yet stable"
    waits.started(200.0)
    assert waits.next_delay_s(260.0) < 1.0
    assert waits.failures == 1


def test_a_start_is_counted_once() -> None:
    waits = backoff()
    waits.started(0.0)
    waits.next_delay_s(1.0)
    waits.next_delay_s(500.0)
    assert waits.failures == 2, "the second failure had no start of its own to have held since"


@given(breaker_after=st.integers(1, 10), draw=draws)
def test_the_breaker_opens_after_so_many_failures_and_stays_open_for_failed_trials(
    breaker_after: int, draw: float
) -> None:
    waits = backoff(lambda: draw, breaker_after=breaker_after)
    for failure in range(1, breaker_after + 4):
        waits.started(0.0)
        delay_s = waits.next_delay_s(1.0)
        assert waits.open == (failure >= breaker_after)
        if waits.open:
            assert 150.0 <= delay_s <= 300.0


def test_a_refusal_opens_the_breaker_at_once_and_a_trial_that_holds_closes_it() -> None:
    waits = backoff()
    assert waits.next_delay_s(0.0, refused=True) > 150.0
    assert waits.open
    waits.started(300.0)
    assert waits.next_delay_s(310.0) > 150.0, "the trial failed"
    waits.started(700.0)
    assert waits.next_delay_s(800.0) < 1.0
    closed = not waits.open
    assert closed


@pytest.mark.parametrize(
    ("base_s", "cap_s", "stable_s", "after", "breaker_s"),
    [
        (0.0, 1.0, 1.0, 1, 1.0),
        (2.0, 1.0, 1.0, 1, 1.0),
        (1.0, 1.0, 0.0, 1, 1.0),
        (1.0, 1.0, 1.0, 0, 1.0),
        (1.0, 1.0, 1.0, 1, 0.0),
    ],
)
def test_limits_without_sense_are_refused(
    base_s: float, cap_s: float, stable_s: float, after: int, breaker_s: float
) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Backoff(base_s, cap_s, stable_s, after, breaker_s)
