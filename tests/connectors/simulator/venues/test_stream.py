"""The market from step to step: changes that add up, trades that are numbered without a hole, candles of trades."""

from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.simulator.venues.market import BOOK_LEVELS, LISTINGS, Listing, Market
from connectors.simulator.venues.stream import Candle, MarketStream, update_id

MARKET = Market(3)
STREAM = MarketStream(MARKET, steps_per_s=5, began_ms=1_800_000_012_345)
ALL = st.sampled_from([listing for venue in LISTINGS.values() for listing in venue.values()])
STEPS = st.integers(0, 10**7)
MINUTE = 60_000


def applied(levels: list[tuple[int, int]], changes: tuple[tuple[int, int], ...]) -> dict[int, int]:
    book = dict(levels)
    for price, size in changes:
        if size:
            book[price] = size
        else:
            del book[price]
    return book


@given(ALL, STEPS, st.integers(1, 50), st.sampled_from([1, 10, 50, BOOK_LEVELS]))
def test_a_change_makes_the_earlier_book_the_later_one(listing: Listing, since: int, more: int, depth: int) -> None:
    step = since + more
    old, new = STREAM.book(listing, since, depth), STREAM.book(listing, step, depth)
    change = STREAM.change(listing, step, since, depth)

    assert applied(old.bids, change.bids) == dict(new.bids)
    assert applied(old.asks, change.asks) == dict(new.asks)
    assert change.first_id == update_id(since) + 1 <= change.last_id == update_id(step)


@given(ALL, STEPS)
def test_who_cuts_its_book_to_the_depth_needs_no_removals_behind_it(listing: Listing, step: int) -> None:
    old, new = STREAM.book(listing, step - 1, 10), STREAM.book(listing, step, 10)
    change = STREAM.change(listing, step, depth=10, trimmed=True)

    assert sorted(applied(old.bids, change.bids).items(), reverse=True)[:10] == new.bids
    assert sorted(applied(old.asks, change.asks).items())[:10] == new.asks


@given(ALL, STEPS)
def test_most_levels_stay(listing: Listing, step: int) -> None:
    old = STREAM.book(listing, step)
    later = MARKET.walk(listing.base)
    moved = abs(later.at(step + 1) - later.at(step))
    change = STREAM.change(listing, step + 1)

    assert change.bids
    assert change.asks
    if moved < 50:
        assert len(change.bids) < len(old.bids)


@given(ALL, STEPS)
def test_trades_are_at_the_best_prices_or_between_them(listing: Listing, step: int) -> None:
    quote = STREAM.quote(listing, step)

    for trade in STREAM.trades(listing, step):
        assert quote.bid <= trade.price <= quote.ask
        assert trade.price != (quote.ask if trade.side == "sell" else quote.bid)
        assert trade.size > 0
        assert trade.step == step


@given(ALL, STEPS)
def test_trade_ids_rise_by_one_whoever_asks(listing: Listing, step: int) -> None:
    trades = list(STREAM.trades_between(listing, step, step + 40))

    assert [trade.id for trade in trades] == list(range(trades[0].id, trades[0].id + len(trades)))
    assert len(trades) == 60
    fresh = MarketStream(Market(3))
    assert fresh.trades(listing, step + 20) == [trade for trade in trades if trade.step == step + 20]
    assert STREAM.newest_trades(listing, step + 40, 50) == trades[-50:]


@given(st.integers(-(10**6), 10**9), st.sampled_from([1.0, 5.0, 7.3, 40.0]), st.integers(0, 2 * 10**12))
def test_steps_have_times(step: int, steps_per_s: float, began_ms: int) -> None:
    stream = MarketStream(MARKET, steps_per_s, began_ms)
    time_ms = stream.time_ms(step)

    assert stream.step_at(time_ms) == step
    assert stream.time_ms(stream.step_at(time_ms + 1)) > time_ms


@settings(deadline=None, max_examples=20)
@given(ALL, st.integers(0, 10**5))
def test_a_candle_is_made_of_its_trades_however_it_grew(listing: Listing, step: int) -> None:
    stream = MarketStream(MARKET, 5, 1_800_000_012_345)
    for asked in (step - 7, step - 3, step - 5):
        stream.candle(listing, MINUTE, asked)
    candle = stream.candle(listing, MINUTE, step)
    first = stream.step_at(candle.start_ms)
    trades = list(stream.trades_between(listing, first - 1, step))

    assert candle.start_ms % MINUTE == 0
    assert candle.start_ms <= stream.time_ms(step) < candle.end_ms == candle.start_ms + MINUTE
    assert not candle.closed
    assert (candle.trades, candle.volume) == (len(trades), sum(trade.size for trade in trades))
    if trades:
        prices = [trade.price for trade in trades]
        assert (candle.open, candle.high, candle.low, candle.close) == (
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
        )
        assert (candle.first_id, candle.last_id) == (trades[0].id, trades[-1].id)


def test_a_candle_that_closed_is_told_once_and_is_the_last_of_its_interval() -> None:
    listing = LISTINGS["kraken"]["BTC/USD"]
    told: list[Candle] = []
    for since in range(1000, 2000):
        told += STREAM.candles(listing, MINUTE, since, since + 1)
    closed = [candle for candle in told if candle.closed]

    assert [candle.start_ms for candle in closed] == sorted({candle.start_ms for candle in told})[:-1]
    for candle in closed:
        grown = [one for one in told if one.start_ms == candle.start_ms and not one.closed][-1]
        assert grown.volume == candle.volume
        assert grown.close == candle.close
    assert STREAM.candles(listing, MINUTE, 1000, 2000)[:-1] == closed


def test_every_venue_lists_ten_against_tether_and_some_two_against_the_dollar() -> None:
    instruments = {name: {listing.instrument for listing in listed.values()} for name, listed in LISTINGS.items()}

    assert {len([one for one in listed if one.endswith("/USDT")]) for listed in instruments.values()} == {10}
    dollars = {"BTC/USD", "ETH/USD"}
    assert [name for name, listed in instruments.items() if dollars <= listed] == ["coinbase", "kraken"]


def test_venues_that_spell_a_symbol_the_same_have_their_own_prices() -> None:
    one, other = LISTINGS["binance"]["BTCUSDT"], LISTINGS["bybit"]["BTCUSDT"]
    asked = Market(1)
    asked.quote(one, 5)

    assert asked.quote(other, 5) == Market(1).quote(other, 5) != asked.quote(one, 5)
