"""The schedule's grid and the host's gate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.backoff import LONGEST_WAIT_S
from connectors.base import VenueUnavailable
from connectors.poll.schedule import Gate, Schedule


@given(
    first_s=st.floats(0.0, 1e6),
    cadence_s=st.floats(0.05, 3_600.0),
    polls=st.lists(st.floats(0.0, 100.0), max_size=50),
)
def test_ticks_stay_on_the_grid_and_each_is_had_once(first_s: float, cadence_s: float, polls: list[float]) -> None:
    schedule = Schedule(first_s, cadence_s)
    now_s = first_s
    for lasted_cadences in polls:
        tick_s = schedule.next_s
        now_s = max(now_s, tick_s) + lasted_cadences * cadence_s
        schedule.advance(now_s)
        steps = (schedule.next_s - tick_s) / cadence_s
        assert steps >= 0.999, "no tick is had twice"
        assert math.isclose(steps, round(steps), abs_tol=1e-3), "the grid does not shift"
        assert schedule.next_s - now_s <= cadence_s * 1.001, "no tick to come is left out"


def test_a_poll_that_overslept_skips_its_ticks() -> None:
    schedule = Schedule(100.0, 10.0)
    assert schedule.next_s == 100.0
    schedule.advance(100.2)
    assert schedule.next_s == 110.0
    schedule.advance(145.0)
    assert schedule.next_s == 150.0


@pytest.mark.parametrize(
    ("until_s", "next_s"),
    [(0.0, 110.0), (110.0, 110.0), (155.0, 160.0), (160.0, 160.0), (160.9, 160.0), (161.1, 170.0)],
)
def test_a_schedule_can_be_held_but_never_goes_back(until_s: float, next_s: float) -> None:
    schedule = Schedule(100.0, 10.0)
    schedule.advance(100.2)
    schedule.hold(until_s)
    assert schedule.next_s == next_s


@pytest.mark.parametrize("cadence_s", [0.0, -1.0, math.nan])
def test_a_cadence_must_be_positive(cadence_s: float) -> None:
    with pytest.raises(ValueError, match="cadence"):
        Schedule(0.0, cadence_s)


def test_a_gate_is_open_until_it_is_closed_and_again_after_the_pause() -> None:
    gate = Gate()
    gate.check(0.0)
    gate.close(10.0, 120.0, "Binance asked for a pause of 120 s (HTTP 429)")
    with pytest.raises(VenueUnavailable, match="pause of 120 s") as closed:
        gate.check(30.0)
    assert closed.value.retry_after_s == 100.0
    gate.check(130.0)


@given(pauses=st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(-5.0, 1e12)), min_size=1))
def test_a_pause_is_never_shortened_and_never_for_ever(pauses: list[tuple[float, float]]) -> None:
    gate = Gate()
    until_s = 0.0
    for now_s, seconds in pauses:
        gate.close(now_s, seconds, "pause")
        until_s = max(until_s, now_s + min(max(seconds, 0.0), LONGEST_WAIT_S))
    gate.check(until_s)
    if until_s > 0.0:
        with pytest.raises(VenueUnavailable):
            gate.check(math.nextafter(until_s, 0.0))
