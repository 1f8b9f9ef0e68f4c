"""Make before break: in memory with a jumping clock, and over sockets with the simulated OKX."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection

from connectors.base import ConnectorError, Event, StateChange, VenueUnavailable
from connectors.push import connection
from connectors.push.address import Address
from connectors.push.feed import Feed
from connectors.push.handover import APART_S, PATIENCE_S, Handover
from connectors.push.intake import FeedStatistics
from connectors.push.merge import Merge, Side
from connectors.simulator.simulator import Simulator
from connectors.simulator.venues.market import OKX, Market
from connectors.simulator.venues.okx import PUBLIC_PATH, TickerText
from connectors.venues.okx.streams import OkxStreams
from protocol.channels import Channel
from protocol.kinds import KINDS
from tests.connectors.push.scripted_venue import Hub, Script, Venue, Words

EVERY_S = 0.1


class Exchange:
    """A venue of one clock: at each tick every instrument has its next price, and all connections are sent it.

    The price of tick `n` is `n`, and so is its time; a connection begins with the present one, as at the real venues.
    """

    def __init__(self, *instruments: str) -> None:
        self.instruments = instruments
        self.quiet_after: dict[str, int] = {}
        """Instruments that do not trade after this tick."""
        self.lag_s = [0.0]
        """By connection; the last holds for all that follow."""
        self.mute: set[int] = set()
        """Connections, counted from 0, that acknowledge and are sent nothing, or nothing more."""
        self.unknown: dict[int, str] = {}
        """An instrument that is refused on a connection."""
        self.connections: list[WebSocketConnection] = []
        self._began_s = trio.current_time()

    async def serve(self, websocket: WebSocketConnection) -> None:
        number = len(self.connections)
        self.connections.append(websocket)
        lag_s = self.lag_s[min(number, len(self.lag_s) - 1)]
        with suppress(ConnectionClosed):
            for name in self.instruments:
                known = name != self.unknown.get(number)
                await websocket.send_message(f"{'ok' if known else 'no'} {name}")
            tick, first = self._tick(), True
            while number not in self.mute:
                await trio.sleep_until(self._began_s + tick * EVERY_S + lag_s)
                for name in self.instruments:
                    if name == self.unknown.get(number):
                        continue
                    last = self.quiet_after.get(name, tick)
                    if tick <= last:
                        await websocket.send_message(f"{name} {tick} {tick}")
                    elif first:
                        await websocket.send_message(f"{name} {last} {last}")
                tick, first = tick + 1, False

    def _tick(self) -> int:
        return int((trio.current_time() - self._began_s) / EVERY_S)

    async def close(self, number: int, code: int, reason: str = "") -> None:
        # `Venue` ends its reader as soon as the answer is there, and `aclose` may not see it.
        with trio.move_on_after(0.1):
            await self.connections[number].aclose(code, reason)

    async def notice(self, number: int = -1) -> None:
        await self.connections[number].send_message("bye")


class Tables(Hub):
    """A hub that keeps the prices of each channel apart."""

    def __init__(self) -> None:
        super().__init__()
        self.by_channel: dict[str, list[int]] = {}

    async def publish(self, events: Sequence[Event]) -> None:
        await super().publish(events)
        for event in events:
            self.by_channel.setdefault(event.channel, []).append(int(event.price))

    def unbroken_up_to(self, tick: int, *names: str) -> bool:
        """Whether each channel has had every tick once, in order, from the first to at least this one."""
        each = [self.by_channel.get(f"{name}price", []) for name in names]
        return all(prices == list(range(len(prices))) and len(prices) > tick for prices in each)


@pytest.fixture
def hub() -> Tables:
    return Tables()


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> Callable[[Script], Venue]:
    """Gives the feed a scripted venue for its dials."""

    def install(script: Script) -> Venue:
        venue = Venue(script)
        venue.nursery = nursery
        monkeypatch.setattr(connection, "dial", venue.dial)
        return venue

    return install


InMemory = Callable[[Script], Venue]


def make_feed(*instruments: str, rotate_after_s: float = 0) -> Feed:
    return Feed(Words(*instruments), "ws://venue/", user_agent="tickerd/test", rotate_after_s=rotate_after_s)


def codes(venue: Venue) -> list[int | None]:
    return [reason.code if reason is not None else None for reason in venue.closes]


def dial_with(venue: Venue, monkeypatch: pytest.MonkeyPatch, before: Callable[[int], Awaitable[None]]) -> list[float]:
    """Have something happen before each dial, by its number; the times of the dials."""
    times: list[float] = []

    async def dial(address: Address, **_: object) -> trio.abc.Stream:
        times.append(trio.current_time())
        await before(len(times) - 1)
        return await venue.dial(address)

    monkeypatch.setattr(connection, "dial", dial)
    return times


class TestNotice:
    """The venue announces that it will close the connection."""

    @pytest.mark.parametrize("lag_s", [[0.0, 0.0], [0.45, 0.0], [0.0, 0.45], [0.03, 0.07]])
    async def test_the_new_connection_takes_over_and_nobody_notices(
        self,
        autojump_clock: MockClock,
        lag_s: list[float],
        in_memory: InMemory,
        hub: Tables,
        nursery: trio.Nursery,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        exchange = Exchange("a", "b")
        exchange.lag_s = lag_s
        venue = in_memory(exchange.serve)
        feed = make_feed("a", "b")
        nursery.start_soon(feed.run, hub)
        await trio.sleep(5.05)
        with caplog.at_level(logging.INFO, "connectors.push.handover"):
            await exchange.notice()
            await trio.sleep(0.01)
            assert codes(venue) == []
            await trio.sleep(5)
        assert hub.unbroken_up_to(95, "a", "b")
        assert hub.changes == []
        assert codes(venue) == [1000]
        assert venue.heard == ["give a", "give b"] * 2
        counts = feed.statistics()
        assert (counts.connections, counts.switches) == (2, 1)
        assert counts.duplicates > 0
        assert [line.partition(" side")[0].partition(", after")[0] for line in caplog.messages] == [
            "words: Words is about to close: another one is to take over",
            "words: another connection has taken over",
        ]
        nursery.cancel_scope.cancel()

    async def test_the_new_one_is_refused_at_first(
        self,
        autojump_clock: MockClock,
        in_memory: InMemory,
        hub: Tables,
        nursery: trio.Nursery,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        exchange = Exchange("a")
        venue = in_memory(exchange.serve)

        async def refuse(number: int) -> None:
            if number in (1, 2, 3):
                raise VenueUnavailable("no connection to venue", retry_after_s=7 if number == 2 else None)

        dials = dial_with(venue, monkeypatch, refuse)
        nursery.start_soon(make_feed("a").run, hub)
        await trio.sleep(5)
        await exchange.notice()
        await trio.sleep(40)
        assert hub.unbroken_up_to(445, "a")
        assert hub.changes == []
        assert codes(venue) == [1000]
        assert len(dials) == 5
        assert dials[3] - dials[2] >= 7
        assert all(later - earlier >= 0.299 for earlier, later in pairwise(dials))
        nursery.cancel_scope.cancel()

    async def test_a_mute_new_one_is_given_up_and_another_tried(
        self,
        autojump_clock: MockClock,
        in_memory: InMemory,
        hub: Tables,
        nursery: trio.Nursery,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        exchange = Exchange("a", "b")
        exchange.mute = {1}
        venue = in_memory(exchange.serve)
        nursery.start_soon(make_feed("a", "b").run, hub)
        await trio.sleep(5)
        await exchange.notice()
        await trio.sleep(PATIENCE_S - 1)
        assert len(exchange.connections) == 2
        await trio.sleep(5)
        assert len(exchange.connections) == 3
        assert hub.unbroken_up_to(200, "a", "b")
        assert hub.changes == []
        assert codes(venue) == [1000, 1000]
        assert "that was to take over: Words sent no data in 12 s: A, B" in caplog.text
        # The third is the one that goes on: without the first, there is still data.
        await trio.sleep(10)
        assert hub.unbroken_up_to(300, "a", "b")
        nursery.cancel_scope.cancel()

    async def test_an_old_one_that_dies_in_the_middle_does_not_take_the_new_one_with_it(
        self,
        autojump_clock: MockClock,
        in_memory: InMemory,
        hub: Tables,
        nursery: trio.Nursery,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        exchange = Exchange("a", "b")
        venue = in_memory(exchange.serve)

        async def slow(number: int) -> None:
            await trio.sleep(3 * number)

        dials = dial_with(venue, monkeypatch, slow)
        nursery.start_soon(make_feed("a", "b").run, hub)
        await trio.sleep(5.05)
        await exchange.notice()
        await trio.sleep(1)
        await exchange.close(0, 1012, "upgrade")
        await trio.sleep(0.5)
        why = "the connection to Words closed: 1012 upgrade"
        assert hub.changes == [StateChange(f"{name}price", "reconnecting", why) for name in "ab"]
        await trio.sleep(10)
        assert len(dials) == 2
        # What was missed is what the venue sent while there was no connection, and no more.
        prices = hub.by_channel["aprice"]
        assert prices[:61] == list(range(61))
        assert prices[61:] == list(range(80, 80 + len(prices) - 61))
        assert len(prices) > 140
        nursery.cancel_scope.cancel()

    async def test_an_old_one_that_dies_when_the_new_one_has_delivered_is_not_missed(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a", "b")
        exchange.quiet_after = {"b": 10}
        venue = in_memory(exchange.serve)
        feed = make_feed("a", "b")
        nursery.start_soon(feed.run, hub)
        await trio.sleep(5.05)
        exchange.instruments = ("a",)
        await exchange.notice()
        await trio.sleep(1)
        await trio.aclose_forcefully(venue.streams[0])
        await trio.sleep(5)
        assert hub.unbroken_up_to(100, "a")
        assert hub.changes == [StateChange("bprice", "reconnecting", "Words dropped the connection")]
        nursery.cancel_scope.cancel()

    async def test_both_die(
        self,
        autojump_clock: MockClock,
        in_memory: InMemory,
        hub: Tables,
        nursery: trio.Nursery,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        exchange = Exchange("a")
        venue = in_memory(exchange.serve)

        async def slow(number: int) -> None:
            if number:
                await trio.sleep(3)
                raise VenueUnavailable("no connection to venue")

        dial_with(venue, monkeypatch, slow)

        async def play() -> None:
            await trio.sleep(5)
            await exchange.notice()
            await trio.sleep(1)
            await exchange.close(0, 1012)

        nursery.start_soon(play)
        with pytest.raises(ConnectorError, match="no connection to venue"):
            await make_feed("a").run(hub)
        assert trio.current_time() == pytest.approx(8, abs=0.5)

    async def test_an_old_one_that_dies_between_two_tries(
        self,
        autojump_clock: MockClock,
        in_memory: InMemory,
        hub: Tables,
        nursery: trio.Nursery,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        exchange = Exchange("a")
        venue = in_memory(exchange.serve)

        async def refuse(number: int) -> None:
            if number:
                raise VenueUnavailable("busy", retry_after_s=50)

        dial_with(venue, monkeypatch, refuse)

        async def play() -> None:
            await trio.sleep(5)
            await exchange.notice()
            await trio.sleep(20)
            await exchange.close(0, 1012)

        nursery.start_soon(play)
        with pytest.raises(ConnectorError, match="the connection to Words closed: 1012"):
            await make_feed("a").run(hub)
        assert trio.current_time() == pytest.approx(25, abs=0.5)

    async def test_a_second_notice_on_the_same_connection_changes_nothing(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a")
        venue = in_memory(exchange.serve)
        feed = make_feed("a")
        nursery.start_soon(feed.run, hub)
        await trio.sleep(5)
        await exchange.notice()
        await exchange.notice()
        await trio.sleep(60)
        assert len(exchange.connections) == 2
        assert feed.statistics().switches == 1
        assert hub.unbroken_up_to(640, "a")
        assert codes(venue) == [1000]
        nursery.cancel_scope.cancel()

    async def test_notices_on_every_connection_are_no_storm(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a")

        async def closing_soon(websocket: WebSocketConnection) -> None:
            await websocket.send_message("bye")
            await exchange.serve(websocket)

        in_memory(closing_soon)
        nursery.start_soon(make_feed("a").run, hub)
        await trio.sleep(60)
        assert 60 / APART_S - 1 <= len(exchange.connections) <= 60 / APART_S + 2
        assert hub.unbroken_up_to(590, "a")
        assert hub.changes == []
        nursery.cancel_scope.cancel()

    async def test_a_venue_whose_connections_take_long_to_settle_is_given_the_time(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        class Slow(Words):
            rules = msgspec.structs.replace(Words.rules, settles_s=8)

        exchange = Exchange("a", "b")
        exchange.mute = {1}
        in_memory(exchange.serve)
        nursery.start_soon(Feed(Slow("a", "b"), "ws://venue/", user_agent="tickerd/test").run, hub)
        await trio.sleep(5)
        await exchange.notice()
        await trio.sleep(PATIENCE_S + 7)
        assert len(exchange.connections) == 2
        await trio.sleep(5)
        assert len(exchange.connections) == 3
        assert hub.unbroken_up_to(280, "a", "b")
        nursery.cancel_scope.cancel()

    async def test_an_illiquid_instrument_is_not_waited_for_for_ever(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a", "b")
        exchange.quiet_after = {"b": 10}
        venue = in_memory(exchange.serve)
        nursery.start_soon(make_feed("a", "b").run, hub)
        await trio.sleep(5)
        exchange.quiet_after = {"b": -1}

        async def without_b(websocket: WebSocketConnection) -> None:
            await websocket.send_message("ok b")
            exchange.instruments = ("a",)
            await exchange.serve(websocket)

        venue.script = without_b
        await exchange.notice()
        await trio.sleep(PATIENCE_S - 1)
        assert codes(venue) == []
        await trio.sleep(2)
        assert codes(venue) == [1000]
        assert hub.unbroken_up_to(175, "a")
        assert hub.by_channel["bprice"] == list(range(11))
        assert hub.changes == []
        nursery.cancel_scope.cancel()

    async def test_a_subscription_without_an_answer_is_no_reason_to_close_the_old_one(
        self,
        autojump_clock: MockClock,
        in_memory: InMemory,
        hub: Tables,
        nursery: trio.Nursery,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        exchange = Exchange("a", "b")
        exchange.quiet_after = {"b": 10}
        venue = in_memory(exchange.serve)
        nursery.start_soon(make_feed("a", "b").run, hub)
        await trio.sleep(5)
        exchange.instruments = ("a",)
        await exchange.notice()
        await trio.sleep(PATIENCE_S + 0.3)
        assert "Words did not take all subscriptions in 12 s" in caplog.text
        assert hub.unbroken_up_to(165, "a")
        assert hub.changes == []
        assert venue.closes[-1] is not None
        await exchange.connections[0].ping()
        nursery.cancel_scope.cancel()

    async def test_what_is_set_aside_stays_so_and_nobody_waits_for_it(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a")

        async def without_b(websocket: WebSocketConnection) -> None:
            if not exchange.connections:
                await websocket.send_message("no b")
            await exchange.serve(websocket)

        venue = in_memory(without_b)
        nursery.start_soon(make_feed("a", "b").run, hub)
        await trio.sleep(5)
        reported = list(hub.changes)
        assert [(change.channel, change.state) for change in reported] == [("bprice", "down")]
        await exchange.notice()
        await trio.sleep(5)
        assert codes(venue) == [1000]
        assert venue.heard == ["give a", "give b", "give a"]
        assert hub.unbroken_up_to(95, "a")
        assert {(change.channel, change.state) for change in hub.changes} == {("bprice", "down")}
        nursery.cancel_scope.cancel()

    async def test_what_the_new_one_has_to_tell_is_told_when_it_has_taken_over(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a", "b")
        exchange.quiet_after = {"b": 10}
        venue = in_memory(exchange.serve)
        nursery.start_soon(make_feed("a", "b").run, hub)
        await trio.sleep(5)

        async def delisted(websocket: WebSocketConnection) -> None:
            await websocket.send_message("no b")
            exchange.instruments = ("a",)
            await exchange.serve(websocket)

        venue.script = delisted
        await exchange.notice()
        await trio.sleep(PATIENCE_S - 1)
        assert hub.changes == []
        await trio.sleep(2)
        assert codes(venue) == [1000]
        down = "unknown to Words: B (set aside, asked again in 1 min)"
        assert [(change.channel, change.state, change.reason) for change in hub.changes] == [("bprice", "down", down)]
        assert hub.unbroken_up_to(175, "a")
        nursery.cancel_scope.cancel()

    async def test_what_the_new_one_is_refused_ends_with_the_old_one(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a", "b")
        exchange.unknown = {1: "b"}
        venue = in_memory(exchange.serve)
        nursery.start_soon(make_feed("a", "b").run, hub)
        await trio.sleep(5)
        await exchange.notice()
        await trio.sleep(PATIENCE_S + 1)
        assert codes(venue) == [1000]
        assert [(change.channel, change.state) for change in hub.changes] == [("bprice", "down")]
        assert hub.unbroken_up_to(165, "a", "b")
        nursery.cancel_scope.cancel()

    async def test_an_old_one_that_has_fallen_silent_does_not_hold_the_new_one_back(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a")
        venue = in_memory(exchange.serve)
        nursery.start_soon(make_feed("a").run, hub)
        await trio.sleep(5)
        exchange.mute = {0}
        await trio.sleep(5)
        await exchange.notice()
        await trio.sleep(2)
        assert codes(venue) == [1000]
        prices = hub.by_channel["aprice"]
        assert prices[prices.index(100) :] == list(range(100, 120))
        nursery.cancel_scope.cancel()

    async def test_cancellation_closes_both(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a")
        exchange.mute = {1}
        venue = in_memory(exchange.serve)
        async with trio.open_nursery() as running:
            running.start_soon(make_feed("a").run, hub)
            await trio.sleep(5)
            await exchange.notice()
            await trio.sleep(1)
            before_s = trio.current_time()
            running.cancel_scope.cancel()
        assert trio.current_time() - before_s < 1
        await trio.sleep(0.1)
        assert codes(venue) == [1000, 1000]
        nursery.cancel_scope.cancel()

    async def test_a_busy_hub_loses_nothing_at_the_switch(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a", "b")
        exchange.lag_s = [0, 0.2]
        in_memory(exchange.serve)
        nursery.start_soon(make_feed("a", "b").run, hub)
        await trio.sleep(5)
        await exchange.notice()
        for _ in range(20):
            await trio.sleep(0.11)
            hub.open = trio.Event()
            await trio.sleep(0.07)
            hub.open.set()
        await trio.sleep(3)
        assert hub.unbroken_up_to(110, "a", "b")
        nursery.cancel_scope.cancel()

    async def test_a_bug_in_the_new_connection_is_not_taken_for_the_venues_fault(
        self,
        autojump_clock: MockClock,
        in_memory: InMemory,
        hub: Tables,
        nursery: trio.Nursery,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        exchange = Exchange("a")
        venue = in_memory(exchange.serve)

        async def broken(number: int) -> None:
            if number:
                raise ZeroDivisionError

        dial_with(venue, monkeypatch, broken)

        async def play() -> None:
            await trio.sleep(5)
            await exchange.notice()

        nursery.start_soon(play)
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            await make_feed("a").run(hub)


class TestRotation:
    """A connection of a certain age is replaced."""

    async def test_by_the_clock(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a")
        venue = in_memory(exchange.serve)
        feed = make_feed("a", rotate_after_s=100)
        nursery.start_soon(feed.run, hub)
        await trio.sleep(99)
        assert len(exchange.connections) == 1
        await trio.sleep(251)
        assert len(exchange.connections) == 4
        assert codes(venue) == [1000] * 3
        assert feed.statistics().switches == 3
        assert hub.unbroken_up_to(3490, "a")
        assert hub.changes == []
        nursery.cancel_scope.cancel()

    async def test_never_by_default(
        self, autojump_clock: MockClock, in_memory: InMemory, hub: Tables, nursery: trio.Nursery
    ) -> None:
        exchange = Exchange("a")
        in_memory(exchange.serve)
        nursery.start_soon(make_feed("a").run, hub)
        await trio.sleep(300)
        assert len(exchange.connections) == 1
        nursery.cancel_scope.cancel()

    async def test_one_that_fails_is_tried_again_ever_more_slowly(
        self,
        autojump_clock: MockClock,
        in_memory: InMemory,
        hub: Tables,
        nursery: trio.Nursery,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        exchange = Exchange("a")
        venue = in_memory(exchange.serve)

        async def refuse(number: int) -> None:
            if number:
                raise VenueUnavailable("no connection to venue")

        dials = dial_with(venue, monkeypatch, refuse)
        nursery.start_soon(make_feed("a", rotate_after_s=100).run, hub)
        await trio.sleep(100 + 300)
        assert 10 <= len(dials) <= 30
        assert hub.unbroken_up_to(3990, "a")
        assert hub.changes == []
        nursery.cancel_scope.cancel()


class Fake:
    """A connection that is played by hand."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.opened_s = trio.current_time()
        self.is_settled = True
        self.broken = trio.Event()
        self.deliveries, self._delivered = trio.open_memory_channel[list[Event]](10)

    async def run(self) -> ConnectorError:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish)
            await self.broken.wait()
            nursery.cancel_scope.cancel()
        return VenueUnavailable("it broke", retry_after_s=60)

    async def _publish(self) -> None:
        async for events in self._delivered:
            await self.side.publish(events)

    def deliver(self, *ticks: int) -> None:
        self.deliveries.send_nowait(
            [Event("aprice", "A", b"%d" % tick, 0, str(tick), tick, order=tick) for tick in ticks],
        )


class TestDeathWhilePublishing:
    """The hub is busy, and a connection dies with what it has not got rid of."""

    @pytest.mark.parametrize(
        ("dying", "from_it", "from_the_other", "later"),
        [
            ("old", [2], [1, 2, 3], [4]),
            ("new", [1, 2], [2, 3], [4]),
            ("new", [1, 2, 3], [2], [3, 4]),
            ("new", [1, 2, 3], [], [2, 3, 4]),
        ],
    )
    async def test_nothing_that_was_sifted_is_lost(
        self,
        autojump_clock: MockClock,
        hub: Tables,
        nursery: trio.Nursery,
        dying: str,
        from_it: list[int],
        from_the_other: list[int],
        later: list[int],
    ) -> None:
        fakes: list[Fake] = []

        def connect(side: Side) -> Fake:
            fakes.append(Fake(side))
            return fakes[-1]

        words, counts = Words("a"), FeedStatistics()
        merge = Merge(hub, counts)
        handover = Handover(words, merge, counts, connect, rotate_after_s=0, set_aside=set)
        nursery.start_soon(handover.run)
        await trio.sleep(1)
        fakes[0].deliver(0, 1)
        await trio.sleep(0.01)
        fakes[0].side.announce_end("soon")
        await trio.sleep(0.01)
        it, other = fakes if dying == "old" else reversed(fakes)
        hub.open = trio.Event()
        # It waits at the hub, and the other one behind it.
        it.deliver(*from_it)
        await trio.sleep(0.01)
        if from_the_other:
            other.deliver(*from_the_other)
        await trio.sleep(0.01)
        it.broken.set()
        await trio.sleep(0.01)
        hub.open.set()
        await trio.sleep(0.1)
        assert hub.by_channel["aprice"] == [0, 1, 2, 3]
        other.deliver(*later)
        await trio.sleep(0.1)
        assert hub.by_channel["aprice"] == [0, 1, 2, 3, 4]
        # The other one has caught up: what it says from now on is passed on as it is.
        other.deliver(4)
        await trio.sleep(0.1)
        assert hub.by_channel["aprice"] == [0, 1, 2, 3, 4, 4]
        nursery.cancel_scope.cancel()


async def test_okx_over_sockets() -> None:
    """Every push of the simulated OKX arrives once and in order, over a notice."""
    simulator = Simulator(seed=7, okx_rate=40)
    enough = trio.Event()
    published: dict[str, list[Event]] = {"bitcoinprice": [], "ethprice": []}

    class Sink(Hub):
        async def publish(self, events: Sequence[Event]) -> None:
            for event in events:
                published[event.channel].append(event)
            if all(len(each) > 60 for each in published.values()):
                enough.set()

    channels = [
        Channel(name=name, exchange="okx", kind=KINDS["ticker"], instruments=(instrument,))
        for name, instrument in (("bitcoinprice", "BTC/USDT"), ("ethprice", "ETH/USDT"))
    ]
    sink = Sink()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(simulator.run, [listener])
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}{PUBLIC_PATH}"
        feed = Feed(OkxStreams(channels), url, user_agent="tickerd/test")
        nursery.start_soon(feed.run, sink)
        with trio.fail_after(10):
            await trio.sleep(0.5)
            simulator.notice_okx()
            await enough.wait()
        nursery.cancel_scope.cancel()
    assert feed.statistics().switches == 1
    assert feed.statistics().connections == 2
    assert sink.changes == []
    market = Market(7)
    for symbol, events in (("BTC-USDT", published["bitcoinprice"]), ("ETH-USDT", published["ethprice"])):
        text = TickerText(OKX[symbol])
        for number, event in enumerate(events):
            assert event.exchange_ms is not None
            fields = text.fields(market.quote(OKX[symbol], number), event.exchange_ms)
            assert event.data == f"{{{fields}}}".encode()
