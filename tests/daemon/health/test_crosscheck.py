"""Venues held against each other: what is remarked on, on which channels, and when that is over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.health.crosscheck import CrossCheck, Quote, Tolerances

TOLERANCES = Tolerances(band_percent=1.0, for_s=30.0, frozen_s=60.0, frozen_percent=0.2)


def quotes(polled: float, pushed: float, instrument: str = "X/U") -> list[Quote]:
    return [Quote("prices", "binance", instrument, polled), Quote("xprice", "okx", instrument, pushed)]


@pytest.fixture
def check() -> CrossCheck:
    return CrossCheck(TOLERANCES)


def test_two_venues_that_agree_are_left_alone(check: CrossCheck) -> None:
    for second in range(300):
        assert check.look(quotes(100 + second % 7 / 10, 100.5 + second % 3 / 10), second) == {}


def test_a_difference_is_told_on_both_channels_once_it_has_lasted(check: CrossCheck) -> None:
    for second in range(30):
        assert check.look(quotes(100.0, 102.0), second) == {}
    said = check.look(quotes(100.0, 102.0), 30)
    told = "X/U: binance (prices) and okx (xprice) are 2.00 % apart (100 and 102), over 1 % for 30 s"
    assert said == {"prices": told, "xprice": told}
    assert check.look(quotes(100.0, 103.0), 31) == said, "its words stay the same as long as it lasts"
    assert check.look(quotes(100.0, 100.95), 32) == said, "at the edge it does not come and go"
    assert check.look(quotes(100.0, 100.89), 33) == {}
    assert check.look(quotes(100.0, 102.0), 34) == {}, "and then it has to last again"


def test_a_jump_that_one_venue_sees_first_is_not_told(check: CrossCheck) -> None:
    for second in range(200):
        polled = 100.0 if second % 20 < 10 else 102.0
        assert check.look(quotes(polled, 102.0 if second % 20 > 3 else 100.0), second) == {}


def test_a_price_that_stands_still_while_the_other_moves(check: CrossCheck) -> None:
    said = {second: check.look(quotes(100.0, 100.0 + second * 0.005), second) for second in range(100)}
    assert next(second for second in said if said[second]) == 60
    told = "X/U: binance (prices) has stood at 100 for 60 s while okx (xprice) moved by 0.30 %"
    assert said[60] == {"prices": told, "xprice": told} == said[99]
    assert check.look(quotes(100.01, 100.5), 100) == {}


def test_a_market_that_is_calm_everywhere_is_not_frozen(check: CrossCheck) -> None:
    for second in range(1000):
        assert check.look(quotes(100.0, 100.0 + 0.1 * (second % 2)), second) == {}


def test_two_channels_of_one_venue_are_not_two_venues(check: CrossCheck) -> None:
    for second in range(100):
        same = [Quote("prices", "binance", "X/U", 100.0), Quote("24hr", "binance", "X/U", 110.0 + second)]
        assert check.look(same, second) == {}


def test_a_channel_that_went_away_is_no_longer_held_against_anybody(check: CrossCheck) -> None:
    for second in range(40):
        check.look(quotes(100.0, 102.0), second)
    assert check.look(quotes(100.0, 102.0)[:1], 40) == {}
    assert check.look(quotes(100.0, 102.0), 41) == {}


@pytest.mark.parametrize(("bid", "ask", "crossed"), [(100.0, 100.1, False), (100.1, 100.1, True), (100.2, 100.1, True)])
def test_a_crossed_book_is_told_at_once(check: CrossCheck, bid: float, ask: float, crossed: bool) -> None:
    said = check.look([Quote("book", "binance", "X/U", bid=bid, ask=ask)], 0)
    assert said == ({"book": f"X/U: crossed book, best bid {bid:g} and best ask {ask:g}"} if crossed else {})
    assert check.look([Quote("book", "binance", "X/U", bid=99.0, ask=100.0)], 1) == {}


def test_several_remarks_on_a_channel_are_one(check: CrossCheck) -> None:
    for second in range(40):
        said = check.look([*quotes(100.0, 102.0), *quotes(1.0, 2.0, "Y/U")], second)
    assert [reason.partition(":")[0] for reason in said["prices"].split("; ")] == ["X/U", "Y/U"]
    assert said["prices"] == said["xprice"]


prices = st.one_of(st.just(0.0), st.floats(0.01, 1e6))


@given(st.lists(st.tuples(prices, prices, prices, st.floats(0.0, 50.0)), max_size=40))
def test_both_sides_are_told_the_same_and_nothing_is_kept(steps: list[tuple[float, float, float, float]]) -> None:
    check, now_s = CrossCheck(TOLERANCES), 0.0
    for one, other, third, seconds in steps:
        now_s += seconds
        seen = [*quotes(one, other), Quote("more", "coingecko", "X/U", third)]
        said = check.look(seen, now_s)
        words = "; ".join(said.values())
        mentioned = {channel for channel in ("prices", "xprice", "more") if f"({channel})" in words}
        assert mentioned == said.keys()
        assert all(quote.price > 0 for quote in seen if quote.channel in said)
    assert check.look([], now_s + 1) == {}
    assert not any([check._apart_s, check._reasons, check._standing, check._ranges, check._crossed])
