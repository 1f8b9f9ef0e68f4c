"""So much per second, and so much at once."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.limits.allowance import Allowance


def test_what_is_saved_up_can_be_used_at_once_and_no_more() -> None:
    allowance = Allowance(10.0, 20.0, 100.0)
    assert all(allowance.take(1, 100.0) for _ in range(20))
    assert not allowance.take(1, 100.0)
    assert allowance.take(5, 100.5)
    assert not allowance.take(1, 100.5)
    assert not allowance.take(21, 1e9)
    assert allowance.take(20, 1e9)


def test_what_is_refused_uses_nothing_up() -> None:
    allowance = Allowance(1.0, 2.0, 0.0)
    assert not allowance.take(3, 0.0)
    assert allowance.take(2, 0.0)


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 3.0))))
def test_never_is_more_used_than_there_can_be(uses: list[tuple[float, float]]) -> None:
    allowance, now_s, used = Allowance(2.0, 7.0, 0.0), 0.0, 0.0
    for amount, pause_s in uses:
        now_s += pause_s
        used += amount if allowance.take(amount, now_s) else 0.0
        assert used <= 7.0 + 2.0 * now_s + 1e-6
