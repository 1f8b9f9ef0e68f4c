"""Bybit's connector against the simulated Bybit, over real sockets: what is broken heals, and nothing comes twice."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from connectors.base import Connector, Event
from connectors.push.feed import Feed
from connectors.simulator import simulator as simulation
from connectors.simulator.faults.faults import (
    CrossedBook,
    DelayedUpdates,
    Disconnect,
    DoubledUpdates,
    Fault,
    LostUpdates,
    RepeatedTrades,
    SequenceReset,
    SwappedUpdates,
)
from connectors.simulator.http.request import VenueRequest
from connectors.simulator.simulator import Simulator
from connectors.simulator.venues.bybit_streams import PATH, BybitSession, BybitStreams
from connectors.simulator.venues.market import BYBIT, unpadded
from connectors.simulator.venues.sockets import Push
from connectors.simulator.venues.stream import FIRST_UPDATE_ID, UPDATES_A_STEP
from connectors.venues.bybit import streams
from connectors.venues.bybit.streams import Bybit, build
from protocol.channels import Channel
from protocol.fields import DepthFields, QuoteFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from tests.connectors.venues.over_sockets import Hub, connected

PAIRS = ("BTC/USDT", "ETH/USDT")
BTC = BYBIT["BTCUSDT"]


@asynccontextmanager
async def running(
    hub: Hub, *kinds: str, pairs: tuple[str, ...] = PAIRS, rotate_after_s: float = 0.0
) -> AsyncIterator[tuple[Simulator, Feed]]:
    """The simulated Bybit, and the connector of these kinds."""
    channels = [Channel(name=kind, exchange="bybit", kind=KINDS[kind], instruments=pairs) for kind in kinds]

    def built(port: int) -> list[Connector]:
        settings = Bybit(url=f"ws://127.0.0.1:{port}{PATH}", depth=50, rotate_after_s=rotate_after_s)
        return build(channels, settings, "tickerd/test")

    async with connected(hub, built) as (simulator, [feed]):
        yield simulator, feed


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections need not be apart here."""
    monkeypatch.setattr(streams, "RULES", msgspec.structs.replace(streams.RULES, connect_spacing_s=0.0))


Spoil = Callable[[Push], Push | None]


def spoiling(monkeypatch: pytest.MonkeyPatch, spoil: Spoil) -> None:
    """What Bybit's connections push goes through this; None is lost."""

    class Session(BybitSession):
        def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
            return [told for push in super().pushes(step, now_ms) if (told := spoil(push)) is not None]

    class Venue(BybitStreams):
        def open(self, request: VenueRequest, number: int) -> BybitSession:
            return Session(self._stream, self._known, f"{number:08}")

    monkeypatch.setattr(simulation, "SOCKET_VENUES", {**simulation.SOCKET_VENUES, "bybit": Venue})


def followed(simulator: Simulator, events: Sequence[Event], symbol: str) -> list[bool]:
    """Whether each is a snapshot; the book made of them is the market's after each."""
    listing = BYBIT[symbol]
    sides: dict[str, dict[str, str]] = {}
    begun = []
    for event in events:
        assert isinstance(event.fields, DepthFields | SnapshotFields)
        begun.append(isinstance(event.fields, SnapshotFields))
        if begun[-1]:
            sides = {"bids": {}, "asks": {}}
        for side, levels in sides.items():
            for price, quantity in json.loads(bytes(getattr(event.fields, side))):
                levels[price] = quantity
                if quantity == "0":
                    del levels[price]
        if "seq" not in json.loads(event.data):
            continue  # Restated by the connection that took over.
        step = (json.loads(event.data)["seq"] - FIRST_UPDATE_ID) // UPDATES_A_STEP
        book = simulator._stream.book(listing, step, 50)
        for side, whole in (("bids", book.bids), ("asks", book.asks)):
            assert sides[side] == {
                unpadded(price, listing.price_digits): unpadded(size, listing.size_digits) for price, size in whole
            }
    return begun


async def test_all_kinds_come_on_one_connection() -> None:
    hub = Hub()
    kinds = ("ticker", "trades", "quotes", "book", "depth", "candles")
    async with running(hub, *kinds) as (simulator, feed):
        await hub.until(lambda: min(len(hub.of(kind, pair)) for kind in kinds[:5] for pair in PAIRS) > 5)
        await hub.until(lambda: all(hub.of("candles", pair) for pair in PAIRS))
        assert followed(simulator, hub.of("depth", "BTC/USDT"), "BTCUSDT").count(True) == 1
        assert followed(simulator, hub.of("depth", "ETH/USDT"), "ETHUSDT").count(True) == 1
    assert not hub.notes
    assert not hub.changes
    assert (feed.counts.connections, feed.counts.unreadable, feed.counts.ignored) == (1, 0, 0)
    assert all(event.price for event in hub.events)
    quotes = [event.fields for event in hub.of("quotes", "BTC/USDT")]
    assert all(isinstance(quote, QuoteFields) for quote in quotes)
    assert all(event.order is not None for kind in ("ticker", "trades", "quotes") for event in hub.of(kind, "BTC/USDT"))


@pytest.mark.parametrize(
    ("fault", "is_told"),
    [
        (LostUpdates(venue="bybit", instrument="BTC/USDT", times=1), True),
        (DoubledUpdates(venue="bybit", instrument="BTC/USDT", times=1), True),
        (SwappedUpdates(venue="bybit", instrument="BTC/USDT", times=1), True),
        (CrossedBook(venue="bybit", instrument="BTC/USDT", times=1), True),
        (DelayedUpdates(venue="bybit", instrument="BTC/USDT", times=3, delay_s=0.2), False),
        (SequenceReset(venue="bybit", instrument="BTC/USDT"), False),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
async def test_what_goes_wrong_with_a_book_ends_that_book_alone_and_heals(fault: Fault, is_told: bool) -> None:
    hub = Hub()
    async with running(hub, "depth") as (simulator, feed):
        await hub.until(lambda: min(len(hub.of("depth", pair)) for pair in PAIRS) > 3)
        simulator.order(fault)
        await hub.until(lambda: bool(hub.notes) or not is_told)
        known = {pair: len(hub.of("depth", pair)) for pair in PAIRS}
        await hub.until(lambda: all(len(hub.of("depth", pair)) > known[pair] + 12 for pair in PAIRS))
        begins_anew = is_told or isinstance(fault, SequenceReset)
        assert followed(simulator, hub.of("depth", "BTC/USDT"), "BTCUSDT").count(True) == 1 + begins_anew
        assert followed(simulator, hub.of("depth", "ETH/USDT"), "ETHUSDT").count(True) == 1
    told = [(note.instrument, note.cause, note.partial) for note in hub.notes]
    assert told == ([("BTC/USDT", "gap", False)] if is_told else [])
    assert (feed.counts.renewals, feed.counts.connections) == (int(is_told), 1)


async def test_trades_that_are_repeated_after_a_cut_are_not_new() -> None:
    hub = Hub()
    async with running(hub, "trades") as (simulator, feed):
        await hub.until(lambda: len(hub.events) > 20)
        simulator.order(RepeatedTrades(venue="bybit", drop=True, trades=20))
        begun = len(hub.events)
        await hub.until(lambda: len(hub.events) > begun + 40)
    for pair in PAIRS:
        fields = [event.fields for event in hub.of("trades", pair)]
        ids = [int(each.trade_id) for each in fields if isinstance(each, TradeFields)]
        assert ids == sorted(set(ids))
    assert feed.counts.connections == 2
    assert feed.counts.repeats > 0


async def test_a_snapshot_that_does_not_come_takes_another_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SNAPSHOT_MS", 300)
    seen = {"deltas": 0, "snapshots": 0}

    def spoil(push: Push) -> Push | None:
        if push.listing != BTC:
            return push
        seen["snapshots" if push.whole else "deltas"] += 1
        lost = seen["snapshots"] == 2 if push.whole else seen["deltas"] == 5
        return None if lost else push

    spoiling(monkeypatch, spoil)
    hub = Hub()
    async with running(hub, "depth") as (simulator, feed):
        await hub.until(lambda: len(hub.of("depth", "BTC/USDT")) > 20)
        assert followed(simulator, hub.of("depth", "BTC/USDT"), "BTCUSDT").count(True) == 2
    assert hub.failures == ["Bybit sent no snapshot of BTC/USDT in 0 s"]
    assert (feed.counts.renewals, feed.counts.connections) == (1, 2)


async def test_each_trade_comes_once_across_cuts() -> None:
    hub = Hub()

    def ids(instrument: str) -> list[int]:
        fields = [event.fields for event in hub.of("trades", instrument)]
        return [int(each.trade_id) for each in fields if isinstance(each, TradeFields)]

    async with running(hub, "trades", "quotes") as (simulator, feed):
        for round_ in (1, 2):
            await hub.until(lambda: min(len(ids(pair)) for pair in PAIRS) > 15 * round_)  # noqa: B023
            simulator.order(Disconnect(venue="bybit", code=1006))
        await hub.until(lambda: min(len(ids(pair)) for pair in PAIRS) > 45)
    for pair in PAIRS:
        assert ids(pair) == sorted(set(ids(pair)))
    assert feed.counts.connections == 3


async def test_a_connection_that_takes_over_is_noticed_by_nobody() -> None:
    hub = Hub()
    async with running(hub, "trades", "quotes", "depth", rotate_after_s=1.0) as (simulator, feed):
        await hub.until(lambda: feed.counts.switches == 1)
        seen = len(hub.of("depth", "BTC/USDT"))
        await hub.until(lambda: len(hub.of("depth", "BTC/USDT")) > seen + 5)
        assert followed(simulator, hub.of("depth", "BTC/USDT"), "BTCUSDT").count(True) == 2
        steps = [event.order for event in hub.of("trades", "BTC/USDT")]
        listed = [trade for step in _steps(steps) for trade in simulator._stream.trades(BTC, step)]
    assert not hub.notes
    assert not hub.changes
    assert not hub.failures
    assert len(steps) == len(listed), "each trade between the first and the last, once"
    quotes = [event.order or 0 for event in hub.of("quotes", "BTC/USDT")]
    assert quotes == sorted(set(quotes))


def _steps(orders: Sequence[int | None]) -> range:
    first, last = ((order or 0) - FIRST_UPDATE_ID for order in (orders[0], orders[-1]))
    return range(first // UPDATES_A_STEP, last // UPDATES_A_STEP + 1)


async def test_a_pair_that_does_not_exist_is_named_and_the_others_come() -> None:
    hub = Hub()
    async with running(hub, "trades", pairs=("BTC/USDT", "XXX/USDT")):
        await hub.until(lambda: len(hub.events) > 3 and bool(hub.notes))
    [note] = hub.notes
    assert (note.channel, note.instrument, note.cause) == ("trades", "XXX/USDT", "refused")
    assert note.reason.startswith("unknown to Bybit: XXX/USDT (set aside, asked again in ")
