"""Coinbase's connector against the simulated Coinbase, over real sockets: what is lost is told, and heals."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count

import msgspec
import pytest

from connectors.base import Event, TopicNote
from connectors.push.feed import Feed
from connectors.simulator import simulator as simulation
from connectors.simulator.faults.faults import Disconnect
from connectors.simulator.http.request import VenueRequest
from connectors.simulator.simulator import Simulator
from connectors.simulator.venues.coinbase_streams import CoinbaseSession, CoinbaseStreams
from connectors.simulator.venues.market import COINBASE, unpadded
from connectors.simulator.venues.sockets import Push
from connectors.simulator.venues.stream import BookChange
from connectors.venues.coinbase import streams, sync
from connectors.venues.coinbase.streams import Coinbase, build
from protocol.channels import Channel
from protocol.fields import CandleFields, DepthFields, QuoteFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from tests.connectors.venues.over_sockets import Hub, connected

PAIRS = ("BTC/USD", "ETH/USD")


def running(
    hub: Hub, *kinds: str, pairs: tuple[str, ...] = PAIRS
) -> AbstractAsyncContextManager[tuple[Simulator, list[Feed]]]:
    """The simulated Coinbase, and connectors of these kinds."""
    channels = [
        Channel(name=kind, exchange="coinbase", kind=KINDS[kind], instruments=pairs, interval="5m") for kind in kinds
    ]
    return connected(hub, lambda port: build(channels, Coinbase(url=f"ws://127.0.0.1:{port}"), "tickerd/test"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connects and requests need not be apart here, and may be as many as they like."""
    monkeypatch.setattr(streams, "SPACING_S", 0.0)
    lenient = msgspec.structs.replace(CoinbaseStreams.rules, requests=None, connects=None)
    monkeypatch.setattr(CoinbaseStreams, "rules", lenient)


def spoiling(spoil: Callable[[Push], list[Push]]) -> type[CoinbaseStreams]:
    """A Coinbase that spoils the fifth change of BTC-USD's book, whoever is told it, and no other."""
    changes = count(1)

    def told(push: Push) -> list[Push]:
        is_change = push.change is not None and push.listing is COINBASE["BTC-USD"] and not push.whole
        return spoil(push) if is_change and next(changes) == 5 else [push]

    class Session(CoinbaseSession):
        def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
            return [each for push in super().pushes(step, now_ms) for each in told(push)]

    class Venue(CoinbaseStreams):
        def open(self, request: VenueRequest, number: int) -> CoinbaseSession:
            return Session(self._stream, self._known)

    return Venue


def lost(push: Push) -> list[Push]:
    return []


def doubled(push: Push) -> list[Push]:
    return [push, push]


def crossed(push: Push) -> list[Push]:
    """There is a bid far above all asks, and nobody takes it back."""
    assert push.change is not None
    assert push.remake is not None
    bids = ((push.change.asks[0][0] * 2, 1), *push.change.bids) if push.change.asks else ((2 * 10**9, 1),)
    change = BookChange(push.change.since, push.change.step, bids, push.change.asks)
    return [msgspec.structs.replace(push, text=push.remake(change, False))]


def checked(simulator: Simulator, events: Sequence[Event]) -> list[bool]:
    """Whether each is a snapshot; the book made of them is the market's at that time, after each change."""
    stream = simulator._stream
    sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
    begun: list[bool] = []
    for event in events:
        assert isinstance(event.fields, DepthFields | SnapshotFields)
        begun.append(isinstance(event.fields, SnapshotFields))
        if begun[-1]:
            sides = ({}, {})
        for side, levels in zip(sides, (event.fields.bids, event.fields.asks), strict=True):
            for price, quantity in msgspec.json.decode(levels):
                side[price] = quantity
                if quantity == "0":
                    del side[price]
        if begun[-1]:
            assert event.exchange_ms is None
            continue
        assert event.exchange_ms is not None
        listing = COINBASE[event.instrument.replace("/", "-")]
        book = stream.book(listing, stream.step_at(event.exchange_ms))
        for side, whole in zip(sides, (book.bids, book.asks), strict=True):
            assert side == {
                unpadded(price, listing.price_digits): unpadded(size, listing.size_digits) for price, size in whole
            }
    return begun


async def test_a_lost_frame_loses_all_books_and_they_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "SOCKET_VENUES", {**simulation.SOCKET_VENUES, "coinbase": spoiling(lost)})
    hub = Hub()
    async with running(hub, "depth") as (simulator, [feed]):
        await hub.until(lambda: all(len(hub.of("depth", pair)) > 20 for pair in PAIRS))
        for pair in PAIRS:
            assert checked(simulator, hub.of("depth", pair)).count(True) == 2
    assert sorted((note.instrument, note.cause, note.partial) for note in hub.notes) == [
        ("BTC/USD", "gap", False),
        ("ETH/USD", "gap", False),
    ]
    [error] = hub.failures
    assert re.fullmatch(r"Coinbase's frame \d+ came where \d+ was due", error)
    assert {note.reason for note in hub.notes} == {error}
    assert (feed.counts.connections, feed.counts.renewals) == (2, 0)
    # The next word on each book, once it was told as lost, is a snapshot.
    for pair in PAIRS:
        said = [each for each in hub.said if each.instrument == pair]
        [at] = [place for place, each in enumerate(said) if isinstance(each, TopicNote)]
        after = said[at + 1]
        assert isinstance(after, Event)
        assert isinstance(after.fields, SnapshotFields)


async def test_a_doubled_frame_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "SOCKET_VENUES", {**simulation.SOCKET_VENUES, "coinbase": spoiling(doubled)})
    hub = Hub()
    async with running(hub, "depth") as (simulator, [feed]):
        await hub.until(lambda: all(len(hub.of("depth", pair)) > 20 for pair in PAIRS))
        for pair in PAIRS:
            assert checked(simulator, hub.of("depth", pair)).count(True) == 1
    assert (hub.notes, hub.failures) == ([], [])
    assert feed.counts.connections == 1


async def test_a_crossed_book_alone_is_asked_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "SOCKET_VENUES", {**simulation.SOCKET_VENUES, "coinbase": spoiling(crossed)})
    monkeypatch.setattr(streams, "CROSSED_MS", 200)
    monkeypatch.setattr(sync, "CROSSED_MS", 200)
    hub = Hub()
    async with running(hub, "depth") as (simulator, [feed]):
        await hub.until(lambda: all(len(hub.of("depth", pair)) > 20 for pair in PAIRS))
        assert checked(simulator, hub.of("depth", "BTC/USD")).count(True) == 2
        assert checked(simulator, hub.of("depth", "ETH/USD")).count(True) == 1
    assert [(note.instrument, note.cause, note.partial, note.reason) for note in hub.notes] == [
        ("BTC/USD", "gap", False, "the book has been crossed for 0.2 s")
    ]
    assert (feed.counts.connections, feed.counts.renewals, hub.failures) == (1, 1, [])


async def test_each_trade_comes_once_across_a_cut() -> None:
    hub = Hub()

    def trades(instrument: str) -> list[TradeFields]:
        return [event.fields for event in hub.of("trades", instrument) if isinstance(event.fields, TradeFields)]

    async with running(hub, "trades") as (simulator, [feed]):
        for cut in (1, 2, 3):
            await hub.until(lambda: min(len(trades(pair)) for pair in PAIRS) > 20 * cut)  # noqa: B023
            simulator.order(Disconnect(venue="coinbase", code=1006))
        await hub.until(lambda: min(len(trades(pair)) for pair in PAIRS) > 80)
        for pair in PAIRS:
            ids = [int(trade.trade_id) for trade in trades(pair)]
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            listing, step = COINBASE[pair.replace("/", "-")], simulator._step()
            takers = {trade.id: trade.side for trade in simulator._stream.newest_trades(listing, step, 60)}
            assert len(takers.keys() & set(ids)) > 40
            assert all(takers.get(int(each.trade_id), each.side) == each.side for each in trades(pair))
    assert feed.counts.connections == 4
    assert feed.counts.repeats >= 100


async def test_all_kinds_come_on_one_connection() -> None:
    hub = Hub()
    kinds = ("ticker", "trades", "quotes", "book", "depth", "candles")
    async with running(hub, *kinds) as (_, [feed]):
        await hub.until(lambda: len({(event.channel, event.instrument) for event in hub.events}) == 12)
        await hub.until(lambda: any(isinstance(event.fields, CandleFields) for event in hub.events))
        await hub.until(lambda: len(hub.of("quotes", "BTC/USD")) > 2)
    assert feed.channels == kinds
    assert all(isinstance(event.fields, QuoteFields) == (event.channel == "quotes") for event in hub.events)
    assert all(event.price for event in hub.events)
    assert hub.notes == []
    assert (feed.counts.unreadable, feed.counts.connections) == (0, 1)


async def test_a_product_that_does_not_exist_is_named_and_harms_no_other() -> None:
    hub = Hub()
    async with running(hub, "depth", "trades", pairs=("XXX/USD", "BTC/USD")):
        await hub.until(lambda: len(hub.of("depth", "BTC/USD")) > 3 and len(hub.of("trades", "BTC/USD")) > 3)
    told = {(note.channel, note.instrument, note.cause, note.reason) for note in hub.notes}
    wait = "(set aside, asked again in 1 min)"
    assert told == {
        (
            "depth",
            "XXX/USD",
            "refused",
            f"refused by Coinbase: XXX/USD (level2): XXX-USD is not a valid product {wait}",
        ),
        (
            "trades",
            "XXX/USD",
            "refused",
            f"refused by Coinbase: XXX/USD (market_trades): XXX-USD is not a valid product {wait}",
        ),
    }


async def test_books_beyond_what_a_session_may_have_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.simulator.venues.coinbase_streams.MOST_BOOKS", 1)
    hub = Hub()
    async with running(hub, "depth"):
        await hub.until(lambda: len(hub.of("depth", "BTC/USD")) > 3)
    [note] = hub.notes
    assert (note.channel, note.instrument, note.cause) == ("depth", "ETH/USD", "refused")
    assert "too many L2 streams requested in a single session; which one it means it does not say" in note.reason


async def test_an_alias_comes_by_its_own_name() -> None:
    hub = Hub()
    async with running(hub, "depth", "ticker", pairs=("BTC/USDC", "BTC/USD")) as (simulator, _):
        await hub.until(lambda: all(len(hub.of("depth", pair)) > 5 for pair in ("BTC/USDC", "BTC/USD")))
        await hub.until(lambda: all(hub.of("ticker", pair) for pair in ("BTC/USDC", "BTC/USD")))
        assert checked(simulator, hub.of("depth", "BTC/USD")).count(True) == 1
    assert hub.notes == []
