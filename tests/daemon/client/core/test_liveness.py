"""`daemon.client.core.liveness`: silence is noticed in time, and a process that slept blames nobody."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.client.core.liveness import Liveness
from daemon.client.core.verdicts import Disconnected


def test_two_heartbeats_without_a_byte_are_too_long() -> None:
    liveness = Liveness(10.0, now_s=100.0)
    assert liveness.begin(100.0) == 125.0
    assert liveness.is_alive(124.9)
    assert not liveness.is_alive(125.0)
    with pytest.raises(Disconnected, match=r"nothing was heard for 25 s, not even a ping"):
        liveness.again_until_s(125.0)


def test_a_ping_counts_though_it_is_no_message() -> None:
    liveness = Liveness(10.0, now_s=100.0)
    liveness.begin(100.0)
    liveness.heard_s = 119.0
    assert liveness.again_until_s(125.0) == 144.0


def test_who_has_not_read_for_long_begins_to_wait_now() -> None:
    liveness = Liveness(10.0, now_s=100.0)
    assert liveness.begin(500.0) == 525.0


def test_who_was_stopped_gives_another_chance() -> None:
    liveness = Liveness(10.0, now_s=100.0)
    liveness.begin(100.0)
    assert liveness.again_until_s(3_000.0) == 3_025.0
    with pytest.raises(Disconnected):
        liveness.again_until_s(3_025.0)


def test_without_a_heartbeat_nothing_is_missed() -> None:
    liveness = Liveness(0.0, now_s=100.0)
    assert liveness.begin(100.0) == math.inf
    assert liveness.is_alive(1e9)


@given(st.lists(st.floats(0.1, 24.0), max_size=20))
def test_whoever_is_heard_often_enough_is_never_given_up(pauses: list[float]) -> None:
    now_s = 0.0
    liveness = Liveness(10.0, now_s)
    until_s = liveness.begin(now_s)
    for pause in pauses:
        heard_s = now_s + pause
        while until_s <= heard_s:
            until_s = liveness.again_until_s(until_s)
        liveness.heard_s = now_s = heard_s
    assert now_s < liveness.again_until_s(until_s) if pauses else True
