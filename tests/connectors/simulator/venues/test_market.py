"""The simulated market: determinism, plausibility, number texts."""

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.simulator.venues.market import (
    BINANCE,
    BOOK_LEVELS,
    LONG_BRIDGE,
    OKX,
    Listing,
    Market,
    Walk,
    padded,
    unpadded,
)

SEEDS = st.integers(0, 2**31)
STEPS = st.integers(0, 10**9)
LISTINGS = st.sampled_from([*BINANCE.values(), *OKX.values()])


@given(SEEDS, LISTINGS, STEPS)
def test_a_value_depends_on_seed_instrument_and_step_only(seed: int, listing: Listing, step: int) -> None:
    asked, fresh = Market(seed), Market(seed)
    for other in (step + 1, 0, 12345):
        asked.quote(listing, other)
        asked.book(listing, other)

    assert asked.quote(listing, step) == fresh.quote(listing, step)
    assert asked.book(listing, step) == fresh.book(listing, step)


def test_seeds_give_different_markets() -> None:
    listing = BINANCE["BTCUSDT"]
    first = [Market(1).quote(listing, step).last for step in range(20)]
    second = [Market(2).quote(listing, step).last for step in range(20)]

    assert first != second


@given(SEEDS, LISTINGS, STEPS)
def test_quotes_are_plausible(seed: int, listing: Listing, step: int) -> None:
    quote = Market(seed).quote(listing, step)

    assert 0 < quote.low <= min(quote.bid, quote.last, quote.open)
    assert max(quote.ask, quote.last, quote.open) <= quote.high
    assert quote.bid < quote.ask
    assert quote.bid <= quote.last <= quote.ask
    assert min(quote.last_size, quote.bid_size, quote.ask_size, quote.volume) > 0
    price = quote.last / 10**listing.price_digits
    assert price == pytest.approx(listing.price, rel=0.05)


@given(SEEDS, LISTINGS, STEPS, st.integers(1, 200))
def test_books_are_sorted_never_crossed_and_begin_with_the_quote(
    seed: int, listing: Listing, step: int, levels: int
) -> None:
    market = Market(seed)
    quote, book = market.quote(listing, step), market.book(listing, step, levels)

    assert len(book.bids) == len(book.asks) == min(levels, BOOK_LEVELS)
    assert book.bids[0] == (quote.bid, quote.bid_size)
    assert book.asks[0] == (quote.ask, quote.ask_size)
    bids, asks = [price for price, _ in book.bids], [price for price, _ in book.asks]
    assert bids == sorted(set(bids), reverse=True)
    assert asks == sorted(set(asks))
    assert 0 < bids[-1] < bids[0] < asks[0] or len(bids) == 1
    assert all(size > 0 for _, size in book.bids + book.asks)


@given(SEEDS, st.sampled_from(sorted(BINANCE)), STEPS)
def test_venues_follow_each_other_closely(seed: int, symbol: str, step: int) -> None:
    market = Market(seed)
    one = BINANCE[symbol]
    other = OKX[f"{one.base}-USDT"]
    prices = [market.quote(listing, step).bid / 10**listing.price_digits for listing in (one, other)]

    assert prices[0] == pytest.approx(prices[1], rel=0.001)


def test_prices_move_at_nearly_every_step_and_return_to_the_start() -> None:
    market, listing = Market(7), BINANCE["BTCUSDT"]
    lasts = [market.quote(listing, step).last for step in range(200)]

    assert sum(a != b for a, b in pairwise(lasts)) > 190
    walk = Walk(7, "BTC")
    assert abs(walk.at(0)) < 200
    assert walk.lowest <= min(map(walk.at, range(LONG_BRIDGE)))
    assert walk.highest >= max(map(walk.at, range(LONG_BRIDGE)))


@given(st.integers(-(10**15), 10**15), st.integers(0, 8))
def test_padded_text_has_eight_decimals_and_the_exact_value(value: int, digits: int) -> None:
    text = padded(value, digits)

    assert len(text.partition(".")[2]) == 8
    assert Decimal(text) == Decimal(value).scaleb(-digits)


@given(st.integers(0, 10**15), st.integers(0, 16))
def test_unpadded_text_has_no_trailing_zero_and_the_exact_value(value: int, digits: int) -> None:
    text = unpadded(value, digits)

    assert Decimal(text) == Decimal(value).scaleb(-digits)
    assert "." not in text or text[-1] not in ".0"
    assert "E" not in text


def test_number_texts_by_example() -> None:
    assert padded(-9_499_999_800, 8) == "-94.99999800"
    assert padded(-2_427, 3, 3) == "-2.427"
    assert padded(7, 0) == "7.00000000"
    assert unpadded(84_773, 1) == "8477.3"
    assert unpadded(84_770, 1) == "8477"
    assert unpadded(700, 0) == "700"
