"""Faults of streams: what each makes of the texts of a connection, on any venue; and over the wire, of OKX's."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
from wsproto.events import RejectConnection

from connectors.simulator.faults.active import FaultBoard
from connectors.simulator.faults.faults import (
    CrossedBook,
    DelayedUpdates,
    DoubledUpdates,
    Fault,
    LostTrades,
    LostUpdates,
    Mute,
    MuteInstrument,
    RepeatedTrades,
    Silence,
    SwappedUpdates,
    TornUpdates,
    WrongChecksum,
)
from connectors.simulator.faults.orders import read_order
from connectors.simulator.faults.streams import FaultyStream, PastTrades
from connectors.simulator.http.request import VenueRequest
from connectors.simulator.simulator import SOCKET_VENUES, Simulator
from connectors.simulator.venues.market import KRAKEN, Listing, Market
from connectors.simulator.venues.sockets import Push
from connectors.simulator.venues.stream import BookChange, MarketStream
from tests.connectors.push.raw_venue import RawOkx, in_memory, order
from tests.connectors.simulator.socket_client import SocketClient

Json: TypeAlias = Any
"""Whatever JSON decodes to."""

STREAM = MarketStream(Market(1))
BTC, ETH = KRAKEN["BTC/USDT"], KRAKEN["ETH/USDT"]


def book_push(step: int, listing: Listing = BTC, *, whole: bool = False) -> Push:
    """A frame of a venue whose texts are the change itself."""

    def remake(change: BookChange, spoiled: bool = False) -> bytes:
        return json.dumps([change.step, change.bids, change.asks, spoiled]).encode()

    change = STREAM.change(listing, step)
    return Push(remake(change), "book", listing, change, whole=whole, remake=remake)


def trade_push(number: int, listing: Listing = BTC) -> Push:
    return Push(b"%d" % number, "trade", listing)


class Connection:
    """One connection to Kraken, with these faults on since before it was opened."""

    def __init__(self, *faults: Fault) -> None:
        self.board = FaultBoard(1)
        self.active = [self.board.switch_on(fault, 0.0, 0) for fault in faults]
        self.past = PastTrades()
        self.stream = self.another(0)

    def another(self, number: int) -> FaultyStream:
        listings = {listing.instrument: listing for listing in KRAKEN.values()}
        return FaultyStream(self.board, "kraken", number, STREAM, listings, self.past)

    def texts(self, *pushes: Push, now_s: float = 0.0) -> list[bytes]:
        return self.stream.texts(pushes, now_s)

    @property
    def acted(self) -> int:
        return self.active[0].acted


def steps(texts: Sequence[bytes]) -> list[int]:
    return [json.loads(text)[0] for text in texts]


def test_without_faults_everything_is_as_it_is() -> None:
    pushes = [book_push(1, whole=True), trade_push(1), Push(b"beat"), book_push(2)]

    assert Connection().texts(*pushes) == [push.text for push in pushes]


def test_a_lost_change_is_that_instruments_alone() -> None:
    one = Connection(LostUpdates(venue="kraken", instrument="BTC/USDT", times=1))
    pushes = [book_push(1, whole=True), book_push(2, ETH), trade_push(1), book_push(3), book_push(4)]

    assert one.texts(*pushes) == [push.text for push in pushes if push is not pushes[3]]
    assert one.acted == 1


def test_doubled_changes_come_twice_and_snapshots_once() -> None:
    one = Connection(DoubledUpdates(venue="kraken"))

    assert steps(one.texts(book_push(1, whole=True), book_push(2), book_push(3))) == [1, 2, 2, 3, 3]


def test_late_changes_keep_their_order_also_when_the_fault_is_over() -> None:
    one = Connection(DelayedUpdates(venue="kraken", instrument="BTC/USDT", delay_s=2.0))

    assert one.texts(book_push(1), now_s=0.0) == []
    assert steps(one.texts(book_push(2, ETH), now_s=1.0)) == [2]
    one.board.switch_off(one.active)
    assert one.texts(book_push(3), now_s=1.5) == []
    assert steps(one.texts(book_push(4, ETH), now_s=2.0)) == [1, 3, 4]
    assert steps(one.texts(book_push(5), now_s=2.1)) == [5]


def test_two_changes_change_places() -> None:
    one = Connection(SwappedUpdates(venue="kraken", times=1))

    assert one.texts(book_push(1)) == []
    assert steps(one.texts(book_push(2, ETH), book_push(3), book_push(4))) == [3, 1, 4]
    assert one.acted == 1


def test_what_waits_for_its_successor_goes_when_the_fault_is_over() -> None:
    one = Connection(SwappedUpdates(venue="kraken"))

    assert one.texts(book_push(1)) == []
    one.board.switch_off(one.active)
    assert steps(one.texts(book_push(2))) == [1, 2]


def test_a_torn_change_has_half_of_its_levels() -> None:
    one = Connection(TornUpdates(venue="kraken", times=1))
    whole = book_push(1)
    assert whole.change is not None
    ((_, bids, asks, spoiled),) = map(json.loads, one.texts(whole))

    kept = len(bids) + len(asks)
    assert kept in (count := len(whole.change.bids) + len(whole.change.asks), count // 2, (count + 1) // 2)[1:]
    assert {tuple(level) for level in bids} <= set(whole.change.bids)
    assert not spoiled
    assert one.texts(book_push(2)) == [book_push(2).text]


def test_a_checksum_is_wrong_in_a_snapshot_too() -> None:
    one = Connection(WrongChecksum(venue="kraken"))

    assert [json.loads(text)[3] for text in one.texts(book_push(1, whole=True), book_push(2))] == [True, True]


def test_a_crossed_book_has_a_bid_above_the_best_ask() -> None:
    one = Connection(CrossedBook(venue="kraken", times=1))
    ((step, bids, _, _),) = map(json.loads, one.texts(book_push(7)))

    assert max(price for price, size in bids if size) > STREAM.quote(BTC, step).ask


def test_a_lost_trade_is_lost_for_good() -> None:
    one = Connection(LostTrades(venue="kraken", times=1))

    assert one.texts(trade_push(1), trade_push(2), trade_push(3)) == [b"2", b"3"]


def test_trades_of_before_come_again_on_a_connection_that_opens_meanwhile() -> None:
    one = Connection(RepeatedTrades(venue="kraken", trades=2))
    one.stream.texts([trade_push(number) for number in (1, 2, 3, 4)], 0.0)
    second = one.another(1)

    assert second.texts([trade_push(5)], 0.0) == [b"3", b"4", b"5"]
    assert second.texts([trade_push(6)], 0.0) == [b"6"]
    assert one.acted == 1


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        (Silence(venue="kraken"), []),
        (Mute(venue="kraken"), []),
        (MuteInstrument(venue="kraken", instrument="BTC/USDT"), [b"beat"]),
    ],
)
def test_what_is_silent_says_nothing(fault: Fault, left: list[bytes]) -> None:
    assert Connection(fault).texts(book_push(1, whole=True), trade_push(1), Push(b"beat")) == left


@pytest.mark.parametrize("name", sorted(SOCKET_VENUES))
def test_every_venue_can_remake_its_books(name: str) -> None:
    """With half of the levels a text is another one, of the same form."""
    stream = MarketStream(Market(1), 5, 1_800_000_000_000)
    found = list(_book_pushes(name, stream))

    # Binance's snapshots are to be had over HTTP.
    assert [push.whole for push in found[:2]] == [name != "binance", False]
    for push in found:
        assert push.change is not None
        assert push.remake is not None
        assert push.remake(push.change, False) == push.text
        torn = BookChange(push.change.since, push.change.step, push.change.bids[::2], push.change.asks[1::2])
        other = json.loads(push.remake(torn, False))
        assert other.keys() == json.loads(push.text).keys()
        assert other != json.loads(push.text)


SUBSCRIBE: dict[str, tuple[str, Json]] = {
    "okx": ("/ws/v5/public", {"op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT"}]}),
    "binance": ("/stream", {"method": "SUBSCRIBE", "params": ["btcusdt@depth@100ms"], "id": 1}),
    "bybit": ("/v5/public/spot", {"op": "subscribe", "args": ["orderbook.200.BTCUSDT"]}),
    "coinbase": ("/", {"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USDT"]}),
    "kraken": ("/v2", {"method": "subscribe", "params": {"channel": "book", "symbol": ["BTC/USDT"], "depth": 10}}),
}


def _book_pushes(name: str, stream: MarketStream) -> list[Push]:
    path, request = SUBSCRIBE[name]
    make = {str(venue): one for venue, one in SOCKET_VENUES.items()}[name]
    listed = ("BTC-USDT", "BTCUSDT", "BTC/USDT")
    session = make(stream, listed).open(VenueRequest("GET", path), 0)
    session.receive(json.dumps(request))
    texts = [push for step in range(10, 20) for push in session.pushes(step, stream.time_ms(step))]
    return [push for push in texts if push.change is not None]


# Over the wire


def clock() -> float:
    return 1_800_000_000 + trio.current_time()


async def books(connect: Callable[[], trio.abc.Stream], count: int) -> list[Json]:
    client = await RawOkx(connect()).open()
    await client.send(json.dumps(SUBSCRIBE["okx"][1]))
    assert (await client.json())["event"] == "subscribe"
    return [(await client.json())["data"][0] for _ in range(count)]


def chained(rows: Sequence[Json]) -> list[bool]:
    return [row["prevSeqId"] == before["seqId"] for before, row in pairwise(rows)]


async def test_a_lost_change_breaks_the_chain(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=5, clock=clock)
    async with in_memory(simulator) as connect:
        assert all(chained(await books(connect, 5)))
        order(simulator, fault="lost_updates", venue="okx", instrument="BTC/USDT", times=2)
        assert chained(await books(connect, 5)) == [False, True, True, True]


async def test_a_reset_keeps_the_chain_and_the_numbers_fall(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=5, clock=clock)
    async with in_memory(simulator) as connect:
        client = await RawOkx(connect()).open()
        await client.send(json.dumps(SUBSCRIBE["okx"][1]))
        assert (await client.json())["event"] == "subscribe"
        rows = [(await client.json())["data"][0] for _ in range(3)]
        order(simulator, fault="sequence_reset", venue="okx", instrument="BTC/USDT")
        rows += [(await client.json())["data"][0] for _ in range(4)]

    numbers = [row["seqId"] for row in rows]
    assert all(chained(rows))
    assert min(numbers) < 1000 < max(numbers)


async def test_a_connection_over_the_limit_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=5, clock=clock)
    async with in_memory(simulator) as connect:
        first = await RawOkx(connect()).open()
        order(simulator, fault="over_limit", venue="okx", connections=1, drop=False)
        opening = VenueRequest(
            "GET",
            "/ws/v5/public",
            {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13", "sec-websocket-key": "x"},
        )
        refused = simulator.answer(opening)
        order(simulator, clear=True)
        admitted = simulator.answer(opening)
        await first.send("ping")
        assert await first.text() == b"pong"

    assert refused is not None
    assert refused.status == 429
    assert admitted is None


def test_a_snapshot_is_as_old_as_ordered() -> None:
    now = 1_800_000_000.0
    simulator = Simulator(okx_rate=5, clock=lambda: now)

    def last() -> int:
        answer = simulator.answer(VenueRequest("GET", "/api/v3/depth?symbol=BTCUSDT&limit=1000"))
        assert answer is not None
        return int(json.loads(answer.body)["lastUpdateId"])

    now += 100
    present = last()
    simulator._board.switch_on(read_order({"fault": "old_snapshot", "age_s": 10, "times": 1}), 0.0, 0)  # type: ignore[arg-type]
    assert last() == present - 17 * 50
    assert last() == present


# All venues


async def subscribed(connect: Callable[[], trio.abc.Stream], name: str) -> SocketClient:
    """A client that has had data of its book."""
    path, request = SUBSCRIBE[name]
    client = SocketClient(connect(), path)
    await client.open()
    await client.send(json.dumps(request))
    while BOOK_FRAME[name] not in await client.text():
        pass
    return client


BOOK_FRAME = {
    "okx": '"action":',
    "binance": '"depthUpdate"',
    "bybit": '"topic":"orderbook',
    "coinbase": '"l2_data"',
    "kraken": '"channel":"book","type"',
}


async def is_silent(client: SocketClient, name: str, for_s: float) -> bool:
    """Whether nothing of its book comes for so long."""
    with trio.move_on_after(for_s):
        while BOOK_FRAME[name] not in await client.text():
            pass
        return False
    return True


@pytest.mark.parametrize("name", sorted(SUBSCRIBE))
async def test_any_venue_can_hang_up_and_fall_silent(name: str, autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=5, clock=clock)
    async with in_memory(simulator) as connect:
        client = await subscribed(connect, name)
        order(simulator, fault="silence", venue=name, for_s=4)
        assert await is_silent(client, name, 3.9)
        assert not await is_silent(client, name, 2)
        order(simulator, fault="mute_instrument", venue=name, instrument="BTC/USDT", for_s=4)
        assert await is_silent(client, name, 3.9)
        order(simulator, fault="disconnect", venue=name, code=1012, reason="restart")
        assert await client.closed() == (1012, "restart")
        again = await subscribed(connect, name)
        order(simulator, fault="hang_up", venue=name, code=1001, after_s=1, times=1)
        assert (await again.closed())[0] == 1001


@pytest.mark.parametrize("name", sorted(SUBSCRIBE))
async def test_any_venue_can_forget_an_instrument(name: str, autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=5, clock=clock)
    async with in_memory(simulator) as connect:
        client = await subscribed(connect, name)
        order(simulator, fault="delisted", venue=name, instrument="BTC/USDT")
        assert await is_silent(client, name, 5)
        order(simulator, clear=True)
        assert not await is_silent(await subscribed(connect, name), name, 2)


@pytest.mark.parametrize("name", ["bybit", "coinbase", "kraken", "okx"])
async def test_a_subscription_can_be_refused(name: str, autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=5, clock=clock)
    path, request = SUBSCRIBE[name]
    async with in_memory(simulator) as connect:
        order(simulator, fault="refused_subscription", venue=name, instrument="BTC/USDT", times=1)
        client = SocketClient(connect(), path)
        await client.open()
        await client.send(json.dumps(request))
        assert await is_silent(client, name, 3)
        await client.send(json.dumps(request))
        assert not await is_silent(client, name, 3)


@pytest.mark.parametrize("name", sorted(SUBSCRIBE))
async def test_any_handshake_can_be_refused(name: str, autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(okx_rate=5, clock=clock)
    path, _ = SUBSCRIBE[name]
    async with in_memory(simulator) as connect:
        client = await subscribed(connect, name)
        order(simulator, fault="over_limit", venue=name)
        assert (await client.closed())[0] == 1006
        assert isinstance(await SocketClient(connect(), path).open(), RejectConnection)
        order(simulator, clear=True)
        assert not isinstance(await SocketClient(connect(), path).open(), RejectConnection)
