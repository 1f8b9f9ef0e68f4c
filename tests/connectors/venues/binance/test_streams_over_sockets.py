"""Binance's connectors against the simulated Binance, over real sockets: what is broken heals, nothing comes twice."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from connectors.base import Connector, Event
from connectors.push.feed import Feed
from connectors.simulator.faults.faults import (
    CrossedBook,
    DelayedUpdates,
    Disconnect,
    DoubledUpdates,
    Fault,
    LostTrades,
    LostUpdates,
    Notice,
    OldSnapshot,
    RepeatedTrades,
    SwappedUpdates,
)
from connectors.simulator.http.request import VenueRequest, VenueResponse
from connectors.simulator.simulator import Simulator
from connectors.simulator.venues.market import BINANCE, Listing, padded
from connectors.simulator.venues.stream import FIRST_UPDATE_ID, UPDATES_A_STEP
from connectors.venues.binance import streams
from connectors.venues.binance.build import build
from connectors.venues.binance.settings import Binance
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from tests.connectors.venues.over_sockets import Hub, connected
from tests.connectors.venues.rebuilt import Rebuilt

INSTRUMENTS = ("BTC/USDT", "ETH/USDT")
SYMBOLS = {"BTC/USDT": "BTCUSDT", "ETH/USDT": "ETHUSDT"}


def running(
    hub: Hub, *kinds: str, instruments: tuple[str, ...] = INSTRUMENTS
) -> AbstractAsyncContextManager[tuple[Simulator, list[Feed]]]:
    """The simulated Binance, and connectors of these kinds."""
    channels = [
        Channel(name=kind, exchange="binance", kind=KINDS[kind], instruments=instruments, every_ms=50) for kind in kinds
    ]

    def built(port: int) -> list[Connector]:
        settings = Binance(base_url=f"http://127.0.0.1:{port}", stream_url=f"ws://127.0.0.1:{port}")
        return build(channels, settings, "tickerd/test")

    return connected(hub, built)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connects need not be apart here."""
    monkeypatch.setattr(streams, "CONNECTS_S", 0.0)


def judged(simulator: Simulator, events: Sequence[Event], instrument: str) -> int:
    """Of the events of a book: after each the book made of them is the market's. Returns how often it began."""
    listing = BINANCE[SYMBOLS[instrument]]
    rebuilt, begun = Rebuilt(), 0
    for event in events:
        if isinstance(event.fields, SnapshotFields):
            rebuilt = Rebuilt.of(event.fields)
            begun += 1
        else:
            assert isinstance(event.fields, DepthFields)
            rebuilt.apply(event.fields)
        id_ = (
            int(event.data.rpartition(b":")[2].rstrip(b"}")) if b'"u":' in event.data or b"last" in event.data else None
        )
        if id_ is None:
            continue
        market = simulator._market.book(listing, (id_ - FIRST_UPDATE_ID) // UPDATES_A_STEP)
        for held, levels in ((rebuilt.bids, market.bids), (rebuilt.asks, market.asks)):
            assert held == {padded(p, listing.price_digits): padded(q, listing.size_digits) for p, q in levels}
    return begun


@pytest.mark.parametrize(
    ("fault", "is_told"),
    [
        (LostUpdates(venue="binance", instrument="BTC/USDT", times=1), True),
        (SwappedUpdates(venue="binance", instrument="BTC/USDT", times=1), True),
        (CrossedBook(venue="binance", instrument="BTC/USDT", times=1), True),
        (DoubledUpdates(venue="binance", instrument="BTC/USDT", times=3), False),
        (DelayedUpdates(venue="binance", instrument="BTC/USDT", times=3, delay_s=0.3), False),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
async def test_what_goes_wrong_with_a_book_is_told_at_once_and_only_that_book_is_fetched_anew(
    fault: Fault, is_told: bool
) -> None:
    hub = Hub()
    async with running(hub, "depth", "book") as (simulator, [feed]):
        await hub.until(lambda: min(len(hub.of("depth", each)) for each in INSTRUMENTS) > 3)
        simulator.order(fault)
        await hub.until(lambda: bool(hub.notes) or not is_told)
        known = {each: len(hub.of("depth", each)) for each in INSTRUMENTS}
        await hub.until(lambda: all(len(hub.of("depth", each)) > known[each] + 8 for each in INSTRUMENTS))
        begun = {each: judged(simulator, hub.of("depth", each), each) for each in INSTRUMENTS}
    assert begun == {"BTC/USDT": 1 + is_told, "ETH/USDT": 1}
    told = [(note.channel, note.instrument, note.cause, note.partial) for note in hub.notes]
    expected = [("depth", "BTC/USDT", "gap", False), ("book", "BTC/USDT", "gap", False)]
    assert told[: 2 * is_told] == expected[: 2 * is_told]
    assert set(told) == set(expected[: 2 * is_told])
    assert (feed.counts.fetches, feed.counts.connections) == (2 + is_told, 1)


async def test_a_snapshot_that_is_too_old_is_not_used() -> None:
    hub = Hub()
    async with running(hub, "depth", instruments=("BTC/USDT",)) as (simulator, [feed]):
        simulator.order(OldSnapshot(venue="binance", times=1, age_s=1))
        await hub.until(lambda: len(hub.of("depth", "BTC/USDT")) > 3)
        assert judged(simulator, hub.of("depth", "BTC/USDT"), "BTC/USDT") == 1
    assert "is older than its updates, which begin with" in hub.notes[0].reason
    assert feed.counts.fetches == 1


async def test_a_trade_that_is_lost_is_told_and_one_that_is_repeated_is_not_new() -> None:
    hub = Hub()
    async with running(hub, "trades") as (simulator, [feed]):
        await hub.until(lambda: len(hub.events) > 20)
        simulator.order(LostTrades(venue="binance", instrument="BTC/USDT", times=1))
        await hub.until(lambda: bool(hub.notes))
        simulator.order(RepeatedTrades(venue="binance", drop=True, trades=20))
        begun = len(hub.events)
        await hub.until(lambda: len(hub.events) > begun + 60)
    assert all((note.cause, note.partial) == ("gap", True) for note in hub.notes)
    assert hub.notes[0].instrument == "BTC/USDT"
    for each in INSTRUMENTS:
        ids = [event.order or 0 for event in hub.of("trades", each)]
        assert ids == sorted(set(ids))
    assert feed.counts.connections == 2


async def test_each_trade_comes_once_across_a_cut_and_what_is_missing_is_counted() -> None:
    hub = Hub()

    def ids(instrument: str) -> list[int]:
        fields = [event.fields for event in hub.of("trades", instrument)]
        return [int(each.trade_id) for each in fields if isinstance(each, TradeFields)]

    async with running(hub, "trades") as (simulator, [feed]):
        for round_ in (1, 2, 3):
            await hub.until(lambda: min(len(ids(each)) for each in INSTRUMENTS) > 20 * round_)  # noqa: B023
            simulator.order(Disconnect(venue="binance", code=1006))
        await hub.until(lambda: min(len(ids(each)) for each in INSTRUMENTS) > 80)
    for each in INSTRUMENTS:
        assert len(set(ids(each))) == len(ids(each))
        assert ids(each) == sorted(ids(each))
        holes = ids(each)[-1] - ids(each)[0] + 1 - len(ids(each))
        told = sum(note.count for note in hub.notes if note.instrument == each)
        assert holes >= told
        assert (holes > 0) == (told > 0)
    assert {(note.cause, note.partial) for note in hub.notes} <= {("gap", True)}
    assert feed.counts.connections == 4


async def test_before_the_announced_end_another_connection_takes_over_and_nothing_is_missing() -> None:
    hub = Hub()

    def ids() -> list[int]:
        return [event.order or 0 for event in hub.of("trades", "BTC/USDT")]

    async with running(hub, "trades", "depth", instruments=("BTC/USDT",)) as (simulator, [feed]):
        await hub.until(lambda: len(ids()) > 10 and len(hub.of("depth", "BTC/USDT")) > 5)
        simulator.order(Notice(venue="binance", close_after_s=20))
        await hub.until(lambda: feed.counts.switches == 1)
        since = len(ids())
        await hub.until(
            lambda: len(ids()) > since + 10 and judged(simulator, hub.of("depth", "BTC/USDT"), "BTC/USDT") == 2
        )
    assert ids() == list(range(ids()[0], ids()[0] + len(ids())))
    assert (feed.counts.switches, hub.notes, hub.changes) == (1, [], [])


async def test_a_snapshot_that_cannot_be_had_is_told_and_asked_for_again() -> None:
    hub = Hub()
    refusals = 1

    def fault(request: VenueRequest) -> VenueResponse | None:
        nonlocal refusals
        if request.path == "/api/v3/depth" and refusals:
            refusals -= 1
            return VenueResponse(502, b"<html>")
        return None

    async with running(hub, "depth", instruments=("BTC/USDT",)) as (simulator, [feed]):
        simulator.fault = fault
        await hub.until(lambda: len(hub.of("depth", "BTC/USDT")) > 5)
        assert judged(simulator, hub.of("depth", "BTC/USDT"), "BTC/USDT") == 1
    [note] = hub.notes
    assert note.reason == "its book is not complete: Binance is in trouble (HTTP 502)"
    assert feed.counts.fetches == 1


async def test_quotes_tickers_and_candles_come_with_their_prices() -> None:
    hub = Hub()
    async with running(hub, "ticker", "quotes", "candles") as (_, feeds):
        await hub.until(lambda: len({(event.channel, event.instrument) for event in hub.events}) == 6)
    assert [feed.name for feed in feeds] == ["binance-streams"]
    assert all(event.price and event.order for event in hub.events)
    assert hub.notes == []


async def test_a_channel_comes_over_as_many_connections_as_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_CHARS", 30)
    instruments = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT")
    hub = Hub()
    async with running(hub, "trades", "depth", instruments=instruments) as (simulator, feeds):
        await hub.until(lambda: len({(event.channel, event.instrument) for event in hub.events}) == 8)
        simulator.order(Disconnect(venue="binance", code=1006))
        await hub.until(lambda: min(feed.counts.connections for feed in feeds) == 2)
        since = len(hub.events)
        await hub.until(lambda: len({(event.channel, event.instrument) for event in hub.events[since:]}) == 8)
    assert len({feed.name for feed in feeds}) == len(feeds) == 6
    assert [feed.channels for feed in feeds] == [()] * 6
    lost = {(note.channel, note.instrument) for note in hub.notes if not note.partial}
    assert lost == {(kind, each) for kind in ("trades", "depth") for each in instruments}
    assert hub.changes == []


async def test_an_instrument_may_have_a_name_in_any_script(monkeypatch: pytest.MonkeyPatch) -> None:
    named = Listing("币安人生USDT", "币安人生", "USDT", 0.15, 4, 1, 9_000_000)
    monkeypatch.setitem(BINANCE, named.symbol, named)
    monkeypatch.setitem(SYMBOLS, "币安人生/USDT", named.symbol)
    hub = Hub()
    async with running(hub, "trades", "depth", "quotes", instruments=("币安人生/USDT",)) as (simulator, _):
        await hub.until(lambda: all(len(hub.of(kind, "币安人生/USDT")) > 3 for kind in ("trades", "depth", "quotes")))
        assert judged(simulator, hub.of("depth", "币安人生/USDT"), "币安人生/USDT") == 1
    assert hub.notes == []
