"""Coinbase's numbers: which is next, which was had, which is a break; and for how long breaks are acted on."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.venues.coinbase.continuity import LONGEST_MS, MOST_BREAKS, SPAN_MS, Numbers, Trust

NOW = 1_775_572_202_000


def steps(*numbers: int) -> list[str]:
    """What each of these is, as a word's first letter."""
    seen = Numbers()
    return [seen.take(number)[0] for number in numbers]


def test_numbers_rise_by_one_from_whatever_the_first_is() -> None:
    assert steps(0, 1, 2) == ["n", "n", "n"]
    assert steps(7, 8, 9) == ["n", "n", "n"]


def test_what_was_had_is_a_repetition_and_changes_nothing() -> None:
    assert steps(3, 4, 4, 3, 5) == ["n", "n", "r", "r", "n"]


def test_a_hole_is_a_break_and_it_goes_on_from_there() -> None:
    assert steps(0, 2, 3) == ["n", "b", "n"]


def test_a_number_from_before_the_first_is_a_break() -> None:
    assert steps(5, 4) == ["n", "b"]


@given(st.lists(st.integers(0, 6), max_size=12))
def test_no_break_means_that_every_number_from_the_first_on_was_there(numbers: list[int]) -> None:
    seen = Numbers()
    had: list[int] = []
    for number in numbers:
        step = seen.take(number)
        if step == "break":
            return
        assert (step == "next") == (number not in had)
        had.append(number)
        assert sorted(set(had)) == list(range(had[0], seen.next))


def test_breaks_are_acted_on_until_there_are_too_many_of_them() -> None:
    trust = Trust()
    assert [trust.broke(NOW + at) for at in range(MOST_BREAKS + 2)] == [True] * MOST_BREAKS + [False] * 2
    assert trust.waits_ms(NOW + MOST_BREAKS + 1) == SPAN_MS


def test_breaks_that_are_rare_are_always_acted_on() -> None:
    trust = Trust()
    assert all(trust.broke(NOW + at * SPAN_MS // MOST_BREAKS) for at in range(100))


def test_the_rule_is_believed_again_after_a_while_without_a_break() -> None:
    trust = Trust()
    for at in range(MOST_BREAKS + 1):
        trust.broke(NOW + at)
    assert trust.broke(NOW + SPAN_MS // 2) is False
    later = NOW + SPAN_MS // 2 + SPAN_MS
    assert trust.waits_ms(later - 1) == 1
    assert trust.waits_ms(later) == 0
    assert trust.broke(later + SPAN_MS) is True


def test_a_break_soon_after_that_is_noted_only_and_each_time_for_longer() -> None:
    trust = Trust()
    at = NOW
    while trust.broke(at):
        at += 1
    waits = []
    for _ in range(12):
        waits.append(trust.waits_ms(at))
        at += trust.waits_ms(at)
        assert trust.broke(at) is False
    assert waits == [min(SPAN_MS * 2**power, LONGEST_MS) for power in range(12)]


def test_where_every_frame_is_a_break_few_are_acted_on() -> None:
    trust = Trust()
    assert sum(trust.broke(NOW + at * 1000) for at in range(100_000)) == MOST_BREAKS


@given(st.lists(st.tuples(st.integers(-2 * SPAN_MS, 2 * SPAN_MS), st.booleans()), max_size=40))
def test_a_clock_that_jumps_makes_nobody_wait_for_longer(moves: list[tuple[int, bool]]) -> None:
    trust = Trust()
    now_ms = NOW
    for move, breaks in moves:
        now_ms += move
        if breaks:
            assert trust.broke(now_ms) == (trust.waits_ms(now_ms) == 0)
        assert 0 <= trust.waits_ms(now_ms) <= LONGEST_MS
