"""Channels under watch, from the connectors to what a client is told: in memory, with the clock that jumps."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
from msgspec import UNSET, UnsetType
from trio.testing import MockClock

from connectors.backoff import Backoff
from connectors.base import Context, Event, StateChange, TopicNote, VenueUnavailable
from daemon.health.crosscheck import Tolerances
from daemon.health.freshness import FIRST_S, SHORTEST_S
from daemon.health.topics import HOLD_S
from daemon.health.watch import LOOK_S, Watch
from daemon.ingest.inbox import Item, TopicNotes
from daemon.ingest.supervisor import Intensity, Link, supervise
from protocol.channels import Catalogue, Channel
from protocol.fields import QuoteFields
from protocol.kinds import KINDS
from protocol.messages import Data, Status
from protocol.messages import number as digits
from tests.daemon.fanout.sink import START_MS, Client, Fan
from tests.daemon.ingest.uncounted import Uncounted

PUSHED = Channel(name="b", exchange="okx", kind=KINDS["ticker"], instruments=("X/U",))
POLLED = Channel(name="a", exchange="binance", kind=KINDS["prices"], instruments=("X/U",), cadence_s=10.0)
PAIR = Channel(name="a", exchange="binance", kind=KINDS["prices"], instruments=("X/U", "Y/U"), cadence_s=10.0)
BOOK = Channel(name="a", exchange="binance", kind=KINDS["orderbook"], instruments=("X/U",), cadence_s=10.0)
TOLERANCES = Tolerances(band_percent=1.0, for_s=30.0, frozen_s=60.0, frozen_percent=0.2)
TOLD_S = LOOK_S + 0.2
"""By when a client has been told of what is there to be seen: well within the second that is promised."""

Script = Callable[[Context], Awaitable[None]]


def event(channel: str, price: str = "100.0", *, instrument: str = "X/U", cached: bool = False) -> Event:
    return Event(channel, instrument, b"{}", START_MS, price, cached=cached)


async def ticking(context: Context, channel: str, every_s: float, seconds: float = 1e9, price: str = "100.0") -> None:
    """A price that moves in its last digit only."""
    end_s, digit = trio.current_time() + seconds, 0
    while trio.current_time() < end_s:
        digit = (digit + 1) % 3
        await context.publish([event(channel, f"{price}{digit}")])
        await trio.sleep(every_s)


class Scripted(Uncounted):
    """A connector that does in each run what its script says, and then works until it is cancelled."""

    def __init__(self, channel: str, *script: Script, others: tuple[str, ...] = ()) -> None:
        self.name = f"scripted {channel}"
        self.channels = (channel, *others)
        self._script = list(script)

    async def run(self, context: Context) -> None:
        while self._script:
            await self._script.pop(0)(context)
        await ticking(context, self.channels[0], 0.5)


class Watched:
    """Connectors, hub and watch, and a client that writes down what it is told, and when."""

    def __init__(
        self, nursery: trio.Nursery, *channels: Channel, unreadable: Callable[[], Mapping[str, int]] | None = None
    ) -> None:
        self.fan = Fan(max_entries=100_000)
        self.fan.board.catalogue = Catalogue(channels)
        self.watch = Watch(
            board=self.fan.board,
            newest=self.fan.tape.payload,
            publish=self.fan.sequencer.publish,
            tolerances=TOLERANCES,
            unreadable=unreadable or dict,
            note_unreadable=self._note_unreadable,
        )
        self.client: Client = self.fan.connect()
        self.client.subscribe("a", "b")
        self.client.messages()
        self.told: list[tuple[float, Status]] = []
        self.data: dict[str, int] = {"a": 0, "b": 0}
        self.began_s = trio.current_time()
        self._nursery = nursery
        self.inbox, self._outbox = trio.open_memory_channel[Item](100)
        nursery.start_soon(self.fan.sequencer.run, self._outbox)
        nursery.start_soon(self.watch.run)
        nursery.start_soon(self._read)

    def _note_unreadable(self, connector: str, count: int) -> None:
        self.fan.ledger.note("unreadable", "", START_MS, count=count, reason=connector)

    def start(self, connector: Scripted) -> None:
        link = Link(self.inbox, self.fan.clock)
        backoff = Backoff(1.0, 1.0, 60.0, 100, 100.0, random=lambda: 1.0)
        self._nursery.start_soon(supervise, connector, link, backoff, Intensity(restarts=1000, within_s=1.0))

    async def _read(self) -> None:
        while True:
            for message in self.client.messages():
                if isinstance(message, Status):
                    self.told.append((trio.current_time() - self.began_s, message))
                elif isinstance(message, Data):
                    self.data[message.connector_id] += 1
            await trio.sleep(0.1)

    def states(self, channel: str) -> list[str]:
        return [status.state for _, status in self.told if status.channel == channel]

    def reasons(self, channel: str) -> list[str]:
        return [status.reason for _, status in self.told if status.channel == channel]


@asynccontextmanager
async def watching(
    *channels: Channel, unreadable: Callable[[], Mapping[str, int]] | None = None
) -> AsyncIterator[Watched]:
    async with trio.open_nursery() as nursery:
        yield Watched(nursery, *channels, unreadable=unreadable)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_feed_that_goes_mute_is_told_at_once_and_heals_at_once(autojump_clock: MockClock) -> None:
    async def mute_for_a_while(context: Context) -> None:
        await ticking(context, "b", 0.2, seconds=240)
        await trio.sleep(20)

    async with watching(POLLED, PUSHED) as watched:
        watched.start(Scripted("b", mute_for_a_while))
        watched.start(Scripted("a", lambda context: ticking(context, "a", 10)))
        await trio.sleep(300)
        [live, stale, again] = [each for each in watched.told if each[1].channel == "b"]
        assert (live[1].state, stale[1].state, again[1].state) == ("live", "stale", "live")
        assert stale[0] == pytest.approx(239.8 + SHORTEST_S, abs=TOLD_S)
        assert again[0] == pytest.approx(260, abs=TOLD_S)
        assert stale[1].reason == "no message for 2.0 s, where the longest pause of a minute is usually 0.2 s"
        assert watched.states("a") == ["live"], "the other one is undisturbed"
        [gap] = watched.fan.ledger.gaps(START_MS)
        assert (gap.cause, gap.channel, gap.end_ms) == ("stale", "b", START_MS)


async def test_a_feed_that_is_mute_from_the_start_is_told(autojump_clock: MockClock) -> None:
    async def mute(context: Context) -> None:
        await trio.sleep(25)

    async with watching(POLLED, PUSHED) as watched:
        watched.start(Scripted("b", mute))
        await trio.sleep(60)
        assert watched.states("b") == ["stale", "live"]
        assert watched.told[0][0] == pytest.approx(FIRST_S, abs=TOLD_S)
        assert "no data" in watched.reasons("b")[0]


async def test_a_mute_connection_that_is_made_anew_is_told_once_per_turn(autojump_clock: MockClock) -> None:
    async def mute(context: Context) -> None:
        await trio.sleep(30)
        raise VenueUnavailable("OKX sent no data for 30 s though it answers pings")

    async def mutes(context: Context) -> None:
        await ticking(context, "b", 0.2, seconds=240)
        await mute(context)

    async with watching(POLLED, PUSHED) as watched:
        watched.start(Scripted("b", mutes, mute))
        await trio.sleep(400)
        assert watched.states("b") == [
            *("live", "stale", "reconnecting", "connecting", "stale", "reconnecting", "connecting", "live")
        ]
        assert "s since the attempt to connect" in watched.reasons("b")[4]
        assert watched.reasons("b")[-1] == ""
        [gap] = [gap for gap in watched.fan.ledger.gaps(START_MS) if gap.channel == "b"]
        assert (gap.cause, gap.count) == ("outage", 2)


async def test_a_quiet_instrument_beside_a_busy_one_is_told_once_and_costs_no_reconnect(
    autojump_clock: MockClock,
) -> None:
    runs = 0

    async def quiet(context: Context) -> None:
        nonlocal runs
        runs += 1
        await context.publish([event("b")])
        await ticking(context, "a", 0.2, seconds=200)

    async with watching(pushed(POLLED), PUSHED) as watched:
        watched.start(Scripted("a", quiet, others=("b",)))
        await trio.sleep(200)
        assert watched.states("b") == ["live", "stale"]
        assert watched.states("a") == ["live"]
        assert runs == 1


def pushed(channel: Channel) -> Channel:
    """The same channel, pushed."""
    return Channel(
        name=channel.name,
        exchange=channel.exchange,
        kind=channel.kind,
        instruments=channel.instruments,
    )


async def test_what_a_budget_costs_is_still_told_after_a_silence(autojump_clock: MockClock) -> None:
    notice = "CoinGecko keyless: asking every 60 s"

    async def noticed(context: Context) -> None:
        await context.publish([event("a")])
        await context.report(StateChange("a", "live", notice))
        await ticking(context, "a", 10, seconds=60)
        await trio.sleep(60)

    async with watching(POLLED, PUSHED) as watched:
        watched.start(Scripted("a", noticed))
        await trio.sleep(200)
        states = watched.states("a")
        assert states == ["live", "live", "stale", "live"]
        late = "no message for 25.0 s, where one is due every 10 s"
        assert watched.reasons("a") == ["", notice, f"{notice}; {late}", notice]
        since = [status.since for _, status in watched.told if status.channel == "a"]
        assert since[0] == since[1], "another reason does not make a state younger"


async def test_only_repeats_are_no_data(autojump_clock: MockClock) -> None:
    async def repeating(context: Context) -> None:
        await context.publish([event("a")])
        for _ in range(20):
            await trio.sleep(10)
            await context.publish([event("a", cached=True)])

    async with watching(POLLED, PUSHED) as watched:
        watched.start(Scripted("a", repeating))
        await trio.sleep(150)
        assert watched.states("a") == ["live", "stale"]
        assert watched.reasons("a")[1].startswith("only repeats")
        await trio.sleep(100)
        assert watched.states("a")[-1] == "live"


async def test_a_difference_of_two_venues_is_told_to_the_clients_of_both_and_nothing_is_held_back(
    autojump_clock: MockClock,
) -> None:
    async with watching(POLLED, PUSHED) as watched:
        watched.start(Scripted("a", lambda context: ticking(context, "a", 10, seconds=120, price="103.0")))
        watched.start(Scripted("b", lambda context: ticking(context, "b", 0.5)))
        await trio.sleep(240)
        for channel in ("a", "b"):
            assert watched.states(channel) == ["live", "live", "live"]
            first, remark, last = watched.reasons(channel)
            assert (first, last) == ("", "")
            assert remark.startswith("X/U: binance (a) and okx (b) are ")
        assert watched.data["b"] == pytest.approx(480, abs=3)
        assert watched.fan.ledger.gaps(START_MS) == []


async def test_a_remark_and_a_silence_do_not_wipe_each_other_out(autojump_clock: MockClock) -> None:
    async def apart_then_mute(context: Context) -> None:
        await ticking(context, "b", 0.5, seconds=240, price="103.0")
        await trio.sleep(25)
        await ticking(context, "b", 0.5, price="103.0")

    async with watching(POLLED, PUSHED) as watched:
        watched.start(Scripted("a", lambda context: ticking(context, "a", 10)))
        watched.start(Scripted("b", apart_then_mute))
        await trio.sleep(360)
        said = [(status.state, status.reason.count("apart")) for _, status in watched.told if status.channel == "b"]
        assert said[:3] == [("live", 0), ("live", 1), ("stale", 1)]
        assert said[-1] == ("live", 1)
        # A channel that is stale is not held against the other one any longer.
        assert watched.reasons("a")[2] == ""


async def test_a_crossed_book_is_told(autojump_clock: MockClock) -> None:
    def book(bid: str, ask: str) -> Event:
        data = json.dumps({"lastUpdateId": 1, "bids": [[bid, "1"]], "asks": [[ask, "1"]]}).encode()
        return Event("a", "X/U", data, START_MS)

    async with watching(BOOK, PUSHED) as watched:

        async def crossing(context: Context) -> None:
            for bid, ask in (("100.0", "100.1"), ("100.2", "100.1"), ("100.0", "100.1"), ("x", "y")):
                await context.publish([book(bid, ask)])
                await trio.sleep(10)
            await context.publish([Event("a", "X/U", b'{"bids":[],"asks":[]}', START_MS)])
            await trio.sleep_forever()

        watched.start(Scripted("a", crossing))
        await trio.sleep(55)
        assert watched.reasons("a") == ["", "X/U: crossed book, best bid 100.2 and best ask 100.1", ""]
        assert watched.told[1][0] == pytest.approx(10, abs=1.1)


async def test_an_instrument_that_stays_away_has_no_say(autojump_clock: MockClock) -> None:
    async def delisted(context: Context) -> None:
        await context.publish([event("a", "50.0")])
        received_ms = START_MS
        while True:
            received_ms += 10_000
            await context.publish([Event("a", "Y/U", b"{}", received_ms, "1.0")])
            await trio.sleep(10)

    async with watching(PAIR, PUSHED) as watched:
        watched.start(Scripted("a", delisted))
        watched.start(Scripted("b"))
        await trio.sleep(120)
        late = "X/U: no message for 25.0 s, where one is due every 10 s"
        assert watched.reasons("a") == ["", late], "it is missed, and not compared"


async def test_unreadable_frames_are_in_the_ledger(autojump_clock: MockClock) -> None:
    counts = {"okx": 0}
    async with watching(POLLED, PUSHED, unreadable=lambda: counts) as watched:
        await trio.sleep(2)
        counts["okx"] = 7
        await trio.sleep(2)
        counts["okx"] = 9
        await trio.sleep(2)
        [gap] = watched.fan.ledger.gaps(START_MS)
        assert (gap.cause, gap.count, gap.channel) == ("unreadable", 9, "")


async def test_one_instrument_that_goes_mute_is_told_by_name_and_the_channel_goes_on(autojump_clock: MockClock) -> None:
    async def mute(context: Context) -> None:
        for number in range(30):
            away = 10 <= number < 20
            await context.publish(
                [event("a", instrument=name) for name in ("X/U", "Y/U") if not (away and name == "Y/U")]
            )
            await trio.sleep(10)

    async with watching(PAIR, PUSHED) as watched:
        watched.start(Scripted("a", mute))
        await trio.sleep(260)
        [well, missed, again] = [status for _, status in watched.told if status.channel == "a"]
        assert [status.state for status in (well, missed, again)] == ["live"] * 3
        assert (well.topics, again.topics) == (UNSET, UNSET)
        assert isinstance(missed.topics, dict)
        topic = missed.topics["Y/U"]
        assert list(missed.topics) == ["Y/U"]
        assert (topic.state, topic.cause) == ("stale", "silent")
        assert missed.reason == f"Y/U: {topic.reason}"
        told_s = [at_s for at_s, status in watched.told if status.channel == "a"]
        assert told_s[1] == pytest.approx(90 + 25, abs=TOLD_S)
        assert told_s[2] == pytest.approx(200, abs=TOLD_S)
        [gap] = [gap for gap in watched.fan.ledger.gaps(START_MS) if gap.channel == "a"]
        assert (gap.cause, gap.end_ms, gap.reason) == ("stale", START_MS, f"Y/U: {topic.reason}")


async def test_odd_rows_are_told_once_by_name_and_are_in_the_ledger(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def odd(context: Context) -> None:
        for number in range(12):
            reason = f'`lastPrice` is "{number}x"'
            good = [event("a")] if number < 8 else [event("a"), event("a", instrument="Y/U")]
            await context.publish(good)
            if number < 8:
                await context.note([TopicNote("a", "Y/U", "unreadable", reason)])
            await trio.sleep(10)

    async with watching(PAIR, PUSHED) as watched:
        watched.start(Scripted("a", odd))
        await trio.sleep(115)
        told = [status for _, status in watched.told if status.channel == "a"]
        states = [
            (status.topics["Y/U"].state, status.topics["Y/U"].cause) if isinstance(status.topics, dict) else None
            for status in told
        ]
        unreadable = "unreadable"
        assert states == [None, ("live", unreadable), ("stale", unreadable), ("live", unreadable), None]
        assert {status.state for status in told} == {"live"}
        assert {status.reason for status in told} == {"", 'Y/U: `lastPrice` is "0x"'}
        gaps = [gap for gap in watched.fan.ledger.gaps(START_MS) if gap.cause == "unreadable"]
        assert [(gap.channel, gap.count, gap.reason) for gap in gaps] == [("a", 8, 'Y/U: `lastPrice` is "7x"')]
        lines = [record.message for record in caplog.records if "Y/U" in record.message]
        assert lines == [
            'a: Y/U is live: `lastPrice` is "0x"',
            'a: Y/U is stale: `lastPrice` is "0x"',
            'a: Y/U is live: `lastPrice` is "0x"',
        ]


def test_what_the_hub_refuses_and_who_lags_is_in_the_ledger() -> None:
    fan = Fan(max_entries=4)
    client = fan.connect()
    client.subscribe("a")
    client.sink.room = 0
    fan.sequencer.publish([[event("a", "NaN"), event("gone")]])
    fan.publish(("a", "X/U"), ("a", "Y/U"), ("a", "X/U"), ("a", "Y/U"), ("a", "X/U"), ("b", "X/U"))
    client.catch_up()
    found = {(gap.cause, gap.channel): (gap.count, gap.messages) for gap in fan.ledger.gaps(START_MS)}
    assert found == {("refused", "a"): (1, 0), ("refused", "gone"): (1, 0), ("lagged", ""): (1, 3)}


async def test_the_board_says_how_long_a_channel_may_be_silent(autojump_clock: MockClock) -> None:
    async with watching(POLLED, PUSHED) as watched:
        await trio.sleep(1)
        assert {name: state.stale_after_s for name, state in watched.fan.board.states().items()} == {
            "a": 25.0,
            "b": 30.0,
        }


# What is made of other channels.

QUOTES = Channel(name="a", exchange="okx", kind=KINDS["quotes"], instruments=("X/U", "Y/U"))
BEST = Channel(name="b", exchange="market", kind=KINDS["consolidated"], instruments=("X/U", "Y/U"))


def quoted(bid: str, ask: str, instrument: str = "X/U") -> Event:
    fields = QuoteFields(bid=digits(bid), bid_size=digits("1"), ask=digits(ask), ask_size=digits("1"))
    return Event("a", instrument, b"{}", START_MS, fields=fields)


async def test_a_channel_made_of_others_is_as_fresh_as_they_are_however_seldom_it_has_news(
    autojump_clock: MockClock,
) -> None:
    async def stands(context: Context) -> None:
        """The same best bid and ask, over and over: nothing for the other channel to say."""
        for _ in range(600):
            await context.publish([quoted("10", "11"), quoted("20", "21", "Y/U")])
            await trio.sleep(0.5)

    async def goes_mute(context: Context) -> None:
        await trio.sleep(1000)

    async with watching(QUOTES, BEST) as daemon:
        daemon.start(Scripted("a", stands, goes_mute))
        await trio.sleep(290)
        assert daemon.states("b") == ["live"]
        assert daemon.data["b"] == 2
        await trio.sleep(100)
        assert daemon.states("a")[-1] == "stale"
        assert daemon.states("b") == ["live", "stale"]
        [told] = [status for _, status in daemon.told if status.channel == "b" and status.state == "stale"]
        assert "X/U: no venue counts: okx: stale: no message for" in told.reason
        assert daemon.data["b"] == 4


async def test_a_venues_crossed_book_is_a_remark_on_it_and_takes_it_out_of_the_comparison(
    autojump_clock: MockClock,
) -> None:
    async def crosses(context: Context) -> None:
        while True:
            await context.publish([quoted("11", "10"), quoted("20", "21", "Y/U")])
            await trio.sleep(0.5)

    async with watching(QUOTES, BEST) as daemon:
        daemon.start(Scripted("a", crosses))
        await trio.sleep(5)
        last = [status for _, status in daemon.told if status.channel == "b"][-1]
        assert last.state == "live"
        assert not isinstance(last.topics, UnsetType)
        assert list(last.topics) == ["X/U"]
        assert last.topics["X/U"].reason == ("no venue counts: okx: X/U: crossed book, best bid 11 and best ask 10")
        remark = daemon.fan.board.verdict("b", "crosscheck")
        assert remark is None, "the sources have been compared"


def conditions(status: Status) -> list[tuple[str, str, str, str]]:
    topics = {} if isinstance(status.topics, UnsetType) else status.topics
    return [(name, topic.state, topic.cause, topic.reason) for name, topic in topics.items()]


def pair() -> Fan:
    """A channel of two instruments that is live, with data of both."""
    fan = Fan()
    fan.board.catalogue = Catalogue([PAIR])
    fan.sequencer.publish([StateChange("a", "live"), [event("a"), event("a", instrument="Y/U")]])
    return fan


def test_a_gap_is_told_in_the_pass_in_which_it_is_noted_and_is_over_in_that_in_which_data_comes() -> None:
    fan = pair()
    client = fan.connect()
    client.subscribe("a")
    client.messages()
    gap = TopicNote("a", "Y/U", "gap", "updates 7 to 9 are missing")
    fan.sequencer.publish([[event("a")], TopicNotes((gap,)), [event("a")]])
    _, told, _ = client.messages()
    assert isinstance(told, Status)
    assert (told.state, conditions(told)) == ("live", [("Y/U", "stale", "gap", "updates 7 to 9 are missing")])
    fan.sequencer.publish([[event("a"), event("a", instrument="Y/U")]])
    _, data, told = client.messages()
    assert isinstance(data, Data)
    assert isinstance(told, Status)
    assert (data.instrument, conditions(told)) == ("Y/U", [])
    fan.sequencer.publish([TopicNotes((gap,)), TopicNotes((gap,))])
    [told] = client.messages()
    gaps = [each for each in fan.ledger.gaps(START_MS) if each.cause == "gap"]
    assert [(each.channel, each.count, each.reason) for each in gaps] == [
        ("a", 3, "Y/U: updates 7 to 9 are missing"),
    ]


def test_what_all_instruments_lack_the_channel_lacks_and_a_lost_connection_explains_it() -> None:
    fan = pair()
    fan.sequencer.publish([TopicNotes(tuple(TopicNote("a", name, "gap", "torn") for name in ("X/U", "Y/U")))])
    assert fan.board.state("a").state == "stale"
    fan.sequencer.publish([[event("a")]])
    assert (fan.board.state("a").state, list(fan.board.topics("a"))) == ("live", ["Y/U"])
    fan.sequencer.publish([StateChange("a", "reconnecting", "closed"), StateChange("a", "live")])
    assert (fan.board.state("a").state, list(fan.board.topics("a"))) == ("live", [])
    assert fan.board.gaps == set()


async def test_the_next_looks_leave_a_gap_as_it_is_and_a_lost_trade_is_a_remark_for_a_while(
    autojump_clock: MockClock,
) -> None:
    async def torn(context: Context) -> None:
        for number in range(60):
            names = ("X/U", "Y/U") if not 10 <= number < 20 else ("X/U",)
            await context.publish([event("a", instrument=name) for name in names])
            if number == 9:
                await context.note([TopicNote("a", "Y/U", "gap", "torn")])
            elif number == 30:
                await context.note([TopicNote("a", "Y/U", "gap", "a trade is lost", partial=True)])
            await trio.sleep(1)

    async with watching(PAIR, PUSHED) as watched:
        watched.start(Scripted("a", torn))
        await trio.sleep(80)
        told = [(at_s, conditions(each)) for at_s, each in watched.told if each.channel == "a"]
        assert [what for _, what in told] == [
            [],
            [("Y/U", "stale", "gap", "torn")],
            [],
            [("Y/U", "live", "gap", "a trade is lost")],
            [],
        ]
        times = [at_s for at_s, _ in told]
        # What the client is told stands in its socket at once; this test looks ten times a second.
        assert times[1:4] == pytest.approx([9, 20, 30], abs=0.11)
        assert times[4] == pytest.approx(30 + HOLD_S, abs=2 * TOLD_S)
