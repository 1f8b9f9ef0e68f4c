"""OKX's connectors against the simulated OKX, over real sockets: what is lost heals, and nothing comes twice."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal

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
    Notice,
    RepeatedTrades,
    SequenceReset,
    SwappedUpdates,
)
from connectors.simulator.http.request import VenueRequest
from connectors.simulator.simulator import Simulator
from connectors.simulator.venues.market import OKX, unpadded
from connectors.simulator.venues.okx_streams import OkxSession
from connectors.simulator.venues.okx_streams import OkxStreams as SimulatedStreams
from connectors.simulator.venues.sockets import Push
from connectors.simulator.venues.stream import FIRST_UPDATE_ID, UPDATES_A_STEP
from connectors.venues.okx import streams
from connectors.venues.okx.streams import Okx, build
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from tests.connectors.venues import over_sockets
from tests.connectors.venues.over_sockets import connected

PAIRS = ("BTC/USDT", "ETH/USDT")


class Hub(over_sockets.Hub):
    """It keeps every book as a client would, too."""

    def __init__(self) -> None:
        super().__init__()
        self.books: dict[str, tuple[dict[Decimal, str], dict[Decimal, str]]] = {}
        self.resets: dict[str, int] = {}

    async def publish(self, events: Sequence[Event]) -> None:
        for event in events:
            self._keep(event)
        await super().publish(events)

    def _keep(self, event: Event) -> None:
        fields = event.fields
        if not isinstance(fields, SnapshotFields | DepthFields):
            return
        if isinstance(fields, SnapshotFields):
            self.books[event.instrument] = {}, {}
            self.resets[event.instrument] = self.resets.get(event.instrument, 0) + 1
        for side, raw in zip(self.books[event.instrument], (fields.bids, fields.asks), strict=True):
            for price, size in msgspec.json.decode(raw, type=list[tuple[str, str]]):
                if size == "0":
                    del side[Decimal(price)]
                else:
                    side[Decimal(price)] = size
        bids, asks = self.books[event.instrument]
        assert max(bids) < min(asks)

    def ids(self, instrument: str) -> list[int]:
        """The trades of that instrument, by id."""
        fields = [event.fields for event in self.events if event.instrument == instrument]
        return [int(each.trade_id) for each in fields if isinstance(each, TradeFields)]

    def count(self, kind: str, instrument: str) -> int:
        return sum((event.channel, event.instrument) == (kind, instrument) for event in self.events)


def running(hub: Hub, *kinds: str) -> AbstractAsyncContextManager[tuple[Simulator, list[Feed]]]:
    """The simulated OKX, and connectors of these kinds."""
    channels = [Channel(name=kind, exchange="okx", kind=KINDS[kind], instruments=PAIRS) for kind in kinds]

    def built(port: int) -> list[Connector]:
        where = f"ws://127.0.0.1:{port}/ws/v5"
        return build(channels, Okx(url=f"{where}/public", business_url=f"{where}/business"), "tickerd/test")

    return connected(hub, built)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connects need not be apart here."""
    monkeypatch.setattr(streams, "RULES", msgspec.structs.replace(streams.RULES, connect_spacing_s=0.0))


class Losing(SimulatedStreams):
    """Loses the fifth update of one pair's book, and the snapshot of the renewal after that."""

    def open(self, request: VenueRequest, number: int) -> OkxSession:
        session = super().open(request, number)
        return LosingSession(session.subscriptions, self._stream)


class LosingSession(OkxSession):
    updates = 0
    snapshots = 0

    def pushes(self, step: int, now_ms: int) -> Sequence[Push]:
        return [push for push in super().pushes(step, now_ms) if not self._is_lost(push)]

    def _is_lost(self, push: Push) -> bool:
        if push.change is None or push.listing is None or push.listing.symbol != "BTC-USDT":
            return False
        self.snapshots += push.whole
        self.updates += not push.whole
        return self.snapshots == 2 if push.whole else self.updates == 5


def begun(hub: Hub, simulator: Simulator, instrument: str) -> list[bool]:
    """Whether each message of a book is a snapshot; the book made of them is the market's after each."""
    listing = OKX[instrument.replace("/", "-")]
    sides: dict[str, dict[str, str]] = {}
    found: list[bool] = []
    base = 0
    for event in hub.events:
        if (event.channel, event.instrument) != ("depth", instrument):
            continue
        assert isinstance(event.fields, DepthFields | SnapshotFields)
        found.append(isinstance(event.fields, SnapshotFields))
        if found[-1]:
            sides = {"bids": {}, "asks": {}}
        for name, side in sides.items():
            for price, size in msgspec.json.decode(getattr(event.fields, name), type=list[tuple[str, str]]):
                side[price] = size
                if size == "0":
                    del side[price]
        ids = msgspec.json.decode(event.data, type=dict[str, str | int])
        seq, before = int(ids["seqId"]), int(ids["prevSeqId"])
        if seq < FIRST_UPDATE_ID and before >= FIRST_UPDATE_ID:
            base = before  # the ids begin anew
        elif seq >= FIRST_UPDATE_ID:
            base = 0
        book = simulator._stream.book(listing, (base + seq - FIRST_UPDATE_ID) // UPDATES_A_STEP)
        for name, whole in (("bids", book.bids), ("asks", book.asks)):
            assert sides[name] == {
                unpadded(price, listing.price_digits): unpadded(size, listing.size_digits) for price, size in whole
            }
    return found


async def test_all_kinds_come_on_the_connections_that_have_them() -> None:
    hub, kinds = Hub(), ("ticker", "trades", "quotes", "book", "depth", "candles")
    async with running(hub, *kinds) as (_, feeds):
        await hub.until(lambda: all(hub.count(kind, pair) for kind in kinds for pair in PAIRS))
    assert {feed.name: feed.channels for feed in feeds} == {
        "okx": ("ticker", "trades", "quotes", "book", "depth"),
        "okx-candles": ("candles",),
    }
    assert all(event.price for event in hub.events)
    assert hub.notes == []


@pytest.mark.parametrize(
    ("fault", "is_told"),
    [
        (LostUpdates(venue="okx", instrument="BTC/USDT", times=1), True),
        (DoubledUpdates(venue="okx", instrument="BTC/USDT", times=1), True),
        (SwappedUpdates(venue="okx", instrument="BTC/USDT", times=1), True),
        (CrossedBook(venue="okx", instrument="BTC/USDT", times=1), True),
        (DelayedUpdates(venue="okx", instrument="BTC/USDT", times=3, delay_s=0.2), False),
        (SequenceReset(venue="okx", instrument="BTC/USDT"), False),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
async def test_what_goes_wrong_with_a_book_ends_that_book_alone_and_heals(fault: Fault, is_told: bool) -> None:
    hub = Hub()
    async with running(hub, "depth") as (simulator, [feed]):
        await hub.until(lambda: min(hub.count("depth", pair) for pair in PAIRS) > 3)
        simulator.order(fault)
        await hub.until(lambda: bool(hub.notes) or not is_told)
        known = {pair: hub.count("depth", pair) for pair in PAIRS}
        await hub.until(lambda: all(hub.count("depth", pair) > known[pair] + 8 for pair in PAIRS))
        assert begun(hub, simulator, "BTC/USDT").count(True) == 1 + is_told
        assert begun(hub, simulator, "ETH/USDT").count(True) == 1
    told = [(note.instrument, note.cause, note.partial) for note in hub.notes]
    assert told == ([("BTC/USDT", "gap", False)] if is_told else [])
    assert (feed.counts.renewals, feed.counts.connections) == (int(is_told), 1)


async def test_a_renewal_whose_snapshot_got_lost_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "SOCKET_VENUES", {**simulation.SOCKET_VENUES, "okx": Losing})
    hub = Hub()
    async with running(hub, "depth") as (simulator, [feed]):
        await hub.until(lambda: hub.resets.get("BTC/USDT") == 2 and hub.count("depth", "BTC/USDT") > 12)
        assert begun(hub, simulator, "BTC/USDT").count(True) == 2
        assert begun(hub, simulator, "ETH/USDT").count(True) == 1
    assert {(note.instrument, note.cause, note.partial) for note in hub.notes} == {("BTC/USDT", "gap", False)}
    assert (feed.counts.renewals, feed.counts.connections) == (2, 1)


async def test_trades_that_are_repeated_after_a_cut_are_not_new() -> None:
    hub = Hub()
    async with running(hub, "trades") as (simulator, [feed]):
        await hub.until(lambda: min(len(hub.ids(pair)) for pair in PAIRS) > 10)
        simulator.order(RepeatedTrades(venue="okx", drop=True, trades=20))
        seen = len(hub.events)
        await hub.until(lambda: len(hub.events) > seen + 40)
    for pair in PAIRS:
        assert hub.ids(pair) == sorted(set(hub.ids(pair)))
    assert feed.counts.connections == 2
    assert feed.counts.repeats > 0


async def test_a_pair_that_does_not_exist_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PAIRS", ("BTC/USDT", "NOPE/USDT"))
    hub, kinds = Hub(), ("trades", "quotes", "depth", "candles")
    async with running(hub, *kinds):
        await hub.until(lambda: all(hub.count(kind, "BTC/USDT") > 1 for kind in kinds))
    assert {(note.channel, note.instrument, note.cause) for note in hub.notes} == {
        (kind, "NOPE/USDT", "refused") for kind in kinds
    }
    assert all(note.reason.startswith("unknown to OKX: NOPE/USDT (set aside") for note in hub.notes)


async def test_each_trade_comes_once_and_none_is_missing_across_a_handover() -> None:
    hub = Hub()
    async with running(hub, "trades", "depth") as (simulator, [feed]):
        await hub.until(lambda: min(len(hub.ids(pair)) for pair in PAIRS) > 20)
        simulator.order(Notice(venue="okx"))
        await hub.until(lambda: feed.counts.switches == 1)
        await hub.until(lambda: max(hub.resets.values()) == 2)
        await hub.until(lambda: min(len(hub.ids(pair)) for pair in PAIRS) > 60)
    for pair in PAIRS:
        ids = hub.ids(pair)
        assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert hub.resets == dict.fromkeys(PAIRS, 2), "a change of connection begins a book anew, once"
    assert hub.notes == []


async def test_after_a_cut_no_trade_comes_twice_and_books_begin_anew() -> None:
    hub = Hub()
    async with running(hub, "trades", "depth") as (simulator, [feed]):
        await hub.until(lambda: min(len(hub.ids(pair)) for pair in PAIRS) > 20)
        simulator.order(Disconnect(venue="okx", code=1006))
        await hub.until(lambda: feed.counts.connections == 2 and min(len(hub.ids(pair)) for pair in PAIRS) > 60)
    for pair in PAIRS:
        assert hub.ids(pair) == sorted(set(hub.ids(pair)))
    assert hub.resets == dict.fromkeys(PAIRS, 2)
