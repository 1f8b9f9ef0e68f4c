"""The rule of Bybit's update ids."""

import pytest

from connectors.venues.bybit.sync import GAPS, WINDOW_MS, Step, UpdateIds

T0 = 1_765_211_445_000


def begun(u: int = 10) -> UpdateIds:
    ids = UpdateIds()
    ids.began(u)
    return ids


def test_nothing_follows_before_a_snapshot() -> None:
    ids = UpdateIds()
    assert [ids.follow(u, T0) for u in (1, 2, 3)] == [Step.SKIP] * 3
    ids.began(7)
    assert ids.follow(8, T0) is Step.APPLY


@pytest.mark.parametrize(
    ("us", "steps"),
    [
        ([11, 12, 13], [Step.APPLY] * 3),
        ([12, 13], [Step.GAP, Step.SKIP]),
        ([11, 11], [Step.APPLY, Step.GAP]),
        ([10], [Step.GAP]),
        ([9], [Step.GAP]),
        ([1, 2], [Step.GAP, Step.SKIP]),
    ],
)
def test_a_delta_follows_if_its_id_is_the_next(us: list[int], steps: list[Step]) -> None:
    ids = begun()
    assert [ids.follow(u, T0) for u in us] == steps


def test_after_a_restart_of_the_service_a_delta_with_1_follows_nothing() -> None:
    assert begun(0).follow(1, T0) is Step.GAP


def test_a_snapshot_at_any_time_begins_anew_with_any_id() -> None:
    ids = begun()
    for u in (1, 500, 500, 3):
        ids.began(u)
        assert ids.follow(u + 1, T0) is Step.APPLY


def test_a_book_that_is_lost_for_another_reason_awaits_a_snapshot_too() -> None:
    ids = begun()
    ids.lost()
    assert ids.follow(11, T0) is Step.SKIP


def with_gaps(count: int, at_ms: int = T0) -> UpdateIds:
    """So many gaps, and a snapshot after each."""
    ids = begun()
    for _ in range(count):
        assert ids.follow(99, at_ms) is Step.GAP
        ids.began(10)
    return ids


def test_after_many_gaps_the_ids_are_not_believed_any_more() -> None:
    ids = with_gaps(GAPS)
    seen = [(ids.follow(11, T0), ids.is_verified)]
    assert [ids.follow(u, T0) for u in (20, 21, 5)] == [Step.UNVERIFIED] * 3
    seen.append((ids.follow(6, T0), ids.is_verified))
    ids.began(50)
    seen.append((ids.follow(51, T0), ids.is_verified))
    assert seen == [(Step.APPLY, True), (Step.UNVERIFIED, False), (Step.APPLY, True)]


def test_gaps_of_long_ago_do_not_count() -> None:
    ids = with_gaps(GAPS)
    assert ids.follow(99, T0 + WINDOW_MS - 1) is Step.UNVERIFIED
    ids = with_gaps(GAPS)
    assert ids.follow(99, T0 + WINDOW_MS) is Step.GAP


def test_a_clock_that_is_set_back_forgets_them() -> None:
    assert with_gaps(GAPS).follow(99, T0 - WINDOW_MS) is Step.GAP


def test_when_holes_have_become_rare_the_book_begins_anew_once() -> None:
    ids = with_gaps(GAPS)
    assert ids.follow(20, T0) is Step.UNVERIFIED
    later_ms = T0 + WINDOW_MS
    assert [ids.follow(u, later_ms) for u in (21, 22)] == [Step.RENEW, Step.UNVERIFIED]
    ids.began(30)
    assert ids.follow(31, later_ms) is Step.APPLY


def test_where_holes_go_on_it_does_not() -> None:
    ids = with_gaps(GAPS)
    for minutes in range(1, 60):
        assert ids.follow(100 + 2 * minutes, T0 + 60_000 * minutes) is Step.UNVERIFIED


def test_a_restart_begins_an_unverified_book_anew_too() -> None:
    ids = with_gaps(GAPS)
    assert ids.follow(20, T0) is Step.UNVERIFIED
    assert ids.follow(1, T0) is Step.GAP
