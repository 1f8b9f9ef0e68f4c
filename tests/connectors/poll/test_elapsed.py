"""How much time has passed, by two clocks of which either may be wrong."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.poll.elapsed import STEP_S, Elapsed

MOVES = st.lists(st.tuples(st.integers(0, 600), st.integers(-90_000, 90_000)), max_size=30)


@given(MOVES)
def test_it_never_goes_back_and_misses_nothing(moves: list[tuple[int, int]]) -> None:
    """Each move: the steady clock goes on by so much, the wall clock by so much more (below 0: it was set back)."""
    elapsed, now_s, wall_s = Elapsed(), 50, 1_700_000_000
    before = elapsed.read(now_s, wall_s * 1000)
    assert before == 50
    for ran_s, more_s in moves:
        now_s, wall_s = now_s + ran_s, wall_s + ran_s + more_s
        after = elapsed.read(now_s, wall_s * 1000)
        assert after - before == ran_s + (more_s if more_s > STEP_S else 0)
        before = after
