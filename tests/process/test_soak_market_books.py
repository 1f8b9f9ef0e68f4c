"""The soak finds a book that all clients agree on, and that the simulated market never had."""

from collections.abc import Callable
from functools import partial

import msgspec
import pytest
import trio
import trio.testing

from connectors.simulator.venues.market import OKX, Market, unpadded
from connectors.simulator.venues.stream import MarketStream
from tests.soak.market_books import MarketBooks
from tests.soak.record import Topic
from tests.soak.reference import Reference

SEED = 3
LISTING = OKX["BTC-USDT"]
TOPIC: Topic = ("okx_depth", "BTC/USDT")
STREAM = MarketStream(Market(SEED))


def add(reference: Reference, step: int, *, but: int = 0) -> None:
    """The book of that step, or what has changed by it without the last `but` levels of the bids."""
    is_first = len(reference) == 0
    said = STREAM.book(LISTING, step) if is_first else STREAM.change(LISTING, step)
    bids, asks = (
        [(unpadded(price, LISTING.price_digits), unpadded(size, LISTING.size_digits)) for price, size in side]
        for side in (said.bids[: len(said.bids) - but], said.asks)
    )
    message = {"type": "depth_snapshot" if is_first else "depth_update", "bids": bids, "asks": asks}
    reference.add(TOPIC, step, 0 if is_first else step - 1, msgspec.json.encode(message))


async def found(then: Callable[[Reference], None]) -> tuple[list[str], int]:
    """What is wrong, and how many books are right, where that happens during the check."""
    reference, books, wrong = Reference(), MarketBooks(SEED, 4.0), list[str]()
    add(reference, 1)

    async def check() -> None:
        wrong.extend(await books.check(reference, {"okx_depth": "okx"}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(check)
        await trio.testing.wait_all_tasks_blocked()
        then(reference)
    return wrong, books.compared


async def test_a_book_that_has_changed_and_is_the_markets_is_right(autojump_clock: trio.testing.MockClock) -> None:
    assert await found(partial(add, step=2)) == ([], 1)


@pytest.mark.parametrize("then", [partial(add, step=2, but=1), lambda _: None], ids=["wrong", "still"])
async def test_one_that_is_wrong_or_stands_still_is_found(
    autojump_clock: trio.testing.MockClock, then: Callable[[Reference], None]
) -> None:
    wrong, compared = await found(then)
    assert wrong == [f"no book of {TOPIC} is the venue's, within 20 s after all faults"]
    assert compared == 0


async def test_a_channel_without_a_book_is_found(autojump_clock: trio.testing.MockClock) -> None:
    wrong = await MarketBooks(SEED, 4.0).check(Reference(), {"okx_depth": "okx"})
    assert wrong == ["there is no book of okx_depth"]
