"""Kraken's connector against the simulated Kraken, over real sockets: what is broken heals, and nothing comes twice."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from zlib import crc32

import msgspec
import pytest

from connectors.base import Event
from connectors.push.feed import Feed
from connectors.simulator.faults.faults import (
    CrossedBook,
    DelayedUpdates,
    Disconnect,
    DoubledUpdates,
    Fault,
    LostTrades,
    LostUpdates,
    RepeatedTrades,
    SwappedUpdates,
    TornUpdates,
    WrongChecksum,
)
from connectors.simulator.simulator import Simulator
from connectors.venues.kraken import streams
from connectors.venues.kraken.streams import Kraken, build
from protocol.channels import Channel
from protocol.fields import DepthFields, QuoteFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from tests.connectors.venues.over_sockets import Hub, connected

PAIRS = ("BTC/USD", "ETH/USD")


def running(hub: Hub, *kinds: str) -> AbstractAsyncContextManager[tuple[Simulator, list[Feed]]]:
    """The simulated Kraken, and connectors of these kinds."""
    channels = [Channel(name=kind, exchange="kraken", kind=KINDS[kind], instruments=PAIRS) for kind in kinds]
    return connected(
        hub, lambda port: build(channels, Kraken(url=f"ws://127.0.0.1:{port}/v2"), "tickerd/test"), rate=50
    )


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connects and requests need not be apart here."""
    monkeypatch.setattr(
        streams, "RULES", msgspec.structs.replace(streams.RULES, request_spacing_s=0.0, connect_spacing_s=0.0)
    )


def checked(events: Sequence[Event], places: tuple[int, int]) -> list[bool]:
    """Whether each is a snapshot; the book made of them has the venue's checksum after each."""
    sides: dict[str, dict[str, str]] = {}
    begun = []
    for event in events:
        assert isinstance(event.fields, DepthFields | SnapshotFields)
        begun.append(isinstance(event.fields, SnapshotFields))
        if begun[-1]:
            sides = {"bids": {}, "asks": {}}
        for side, levels in sides.items():
            for price, quantity in msgspec.json.decode(getattr(event.fields, side)):
                levels[price] = quantity
                if quantity == "0":
                    del levels[price]
        bids, asks = (sorted(sides[side], key=float, reverse=side == "bids") for side in ("bids", "asks"))
        digits = [whole(price, places[0]) + whole(sides["asks"][price], places[1]) for price in asks[:10]]
        digits += [whole(price, places[0]) + whole(sides["bids"][price], places[1]) for price in bids[:10]]
        assert crc32("".join(digits).encode()) == msgspec.json.decode(event.data)["checksum"]
    return begun


def whole(number: str, places: int) -> str:
    return str(round(float(number) * 10**places))


@pytest.mark.parametrize(
    ("fault", "is_told"),
    [
        (WrongChecksum(venue="kraken", instrument="BTC/USD", times=1), True),
        (LostUpdates(venue="kraken", instrument="BTC/USD", times=1), True),
        (TornUpdates(venue="kraken", instrument="BTC/USD", times=1), True),
        (CrossedBook(venue="kraken", instrument="BTC/USD", times=1), True),
        (SwappedUpdates(venue="kraken", instrument="BTC/USD", times=1), True),
        (DoubledUpdates(venue="kraken", instrument="BTC/USD", times=3), False),
        (DelayedUpdates(venue="kraken", instrument="BTC/USD", times=3, delay_s=0.2), False),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
async def test_what_goes_wrong_with_a_book_ends_that_book_alone_and_heals(fault: Fault, is_told: bool) -> None:
    hub = Hub()
    async with running(hub, "depth") as (simulator, [feed]):
        await hub.until(lambda: min(len(hub.of("depth", pair)) for pair in PAIRS) > 3)
        simulator.order(fault)
        await hub.until(lambda: bool(hub.notes) or not is_told)
        known = {pair: len(hub.of("depth", pair)) for pair in PAIRS}
        await hub.until(lambda: all(len(hub.of("depth", pair)) > known[pair] + 12 for pair in PAIRS))
    # After each message the book has the venue's checksum.
    assert checked(hub.of("depth", "BTC/USD"), (1, 8)).count(True) == (2 if is_told else 1)
    assert checked(hub.of("depth", "ETH/USD"), (2, 8)).count(True) == 1
    told = [(note.instrument, note.cause, note.partial) for note in hub.notes]
    assert told == ([("BTC/USD", "gap", False)] if is_told else [])
    assert (feed.counts.renewals, feed.counts.connections) == (int(is_told), 1)


async def test_a_trade_that_is_lost_is_told_and_one_that_is_repeated_is_not_new() -> None:
    hub = Hub()
    async with running(hub, "trades") as (simulator, [feed]):
        await hub.until(lambda: len(hub.events) > 20)
        simulator.order(LostTrades(venue="kraken", instrument="BTC/USD", times=1))
        await hub.until(lambda: bool(hub.notes))
        simulator.order(RepeatedTrades(venue="kraken", drop=True, trades=20))
        begun = len(hub.events)
        await hub.until(lambda: len(hub.events) > begun + 60)
    [note] = hub.notes
    assert (note.instrument, note.cause, note.partial) == ("BTC/USD", "gap", True)
    for pair in PAIRS:
        fields = [event.fields for event in hub.events if event.instrument == pair]
        ids = [int(each.trade_id) for each in fields if isinstance(each, TradeFields)]
        holes = sum(after - before - 1 for before, after in pairwise(ids))
        assert ids == sorted(set(ids))
        assert holes == (note.count if pair == "BTC/USD" else 0)
    assert feed.counts.connections == 2


async def test_each_trade_comes_once_across_a_cut() -> None:
    hub = Hub()

    def ids(instrument: str) -> list[int]:
        fields = [event.fields for event in hub.events if event.instrument == instrument]
        return [int(each.trade_id) for each in fields if isinstance(each, TradeFields)]

    async with running(hub, "trades") as (simulator, [feed]):
        for round_ in (1, 2, 3):
            await hub.until(lambda: min(len(ids(pair)) for pair in PAIRS) > 20 * round_)  # noqa: B023
            simulator.order(Disconnect(venue="kraken", code=1006))
        await hub.until(lambda: min(len(ids(pair)) for pair in PAIRS) > 80)
    for pair in PAIRS:
        assert ids(pair) == list(range(ids(pair)[0], ids(pair)[0] + len(ids(pair))))
    assert feed.counts.connections == 4
    assert feed.counts.repeats >= 100


async def test_quotes_and_tickers_come_on_connections_of_their_own() -> None:
    hub = Hub()
    async with running(hub, "ticker", "quotes", "candles") as (_, feeds):
        await hub.until(lambda: len({(event.channel, event.instrument) for event in hub.events}) == 6)
    assert {feed.name: feed.channels for feed in feeds} == {
        "kraken": ("ticker", "candles"),
        "kraken-quotes": ("quotes",),
    }
    assert all(isinstance(event.fields, QuoteFields) == (event.channel == "quotes") for event in hub.events)
    assert all(event.price for event in hub.events)


async def test_a_pair_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.connectors.venues.kraken.test_over_sockets.PAIRS", ("BTC/USD", "XXX/USD"))
    hub = Hub()
    async with running(hub, "trades"):
        await hub.until(lambda: len(hub.events) > 3)
    told = {(note.instrument, note.cause) for note in hub.notes}
    assert told == {("XXX/USD", "refused")}
    reasons = " ".join(note.reason for note in hub.notes)
    assert "Currency pair not supported XXX/USD" in reasons
    assert "not on Kraken's list of pairs" in reasons
