"""What a reload changes, and what it leaves alone."""

import pytest
import trio
import trio.testing

from connectors.base import Event, StateChange
from daemon.config.changes import REMOVED, adopt, changed_venues, fixed_keys
from daemon.config.load import Config, parse
from daemon.config.settings import Supervisor
from daemon.fanout.hub import Hub, Item, Pace
from daemon.health.board import Board, Verdict
from daemon.host.clock import WallClock
from daemon.ingest.fleet import Fleet
from daemon.tape.tape import Tape

NOW_MS = 1_765_211_445_123
PLAIN = parse("", {}, "a test")


def configured(text: str) -> Config:
    return parse(text, {}, "a test")


@pytest.mark.parametrize(
    ("text", "venues"),
    [
        ("", []),
        ("[limits]\nclients = 5\n", []),
        ("[channels.ethprice]\nenabled = false\n", ["okx"]),
        ("[channels.solprice]\nconnector = 'okx'\ninstrument = 'SOL/USDT'\n", ["okx"]),
        ("[channels.binance_prices]\ncadence_s = 5.0\n", ["binance"]),
        ("[connectors.okx]\nsilence_s = 20.0\n[connectors.binance]\nlevels = 5\n", ["binance", "okx"]),
        ("[connectors.coingecko]\nenabled = false\n", ["coingecko"]),
    ],
)
def test_only_venues_that_change_are_disturbed(text: str, venues: list[str]) -> None:
    assert sorted(changed_venues(PLAIN, configured(text))) == venues
    assert sorted(changed_venues(configured(text), PLAIN)) == venues


def test_keys_that_take_a_restart_are_named() -> None:
    assert fixed_keys(PLAIN, PLAIN) == []
    other = configured("[server]\nport = 1\nhost = '::'\n[tape]\nentries = 5\n[limits]\nclients = 3\n")
    assert fixed_keys(PLAIN, other) == ["server.host", "server.port", "tape.entries"]


def hub_of(config: Config) -> Hub:
    catalogue = config.catalogue()
    clock = WallClock(lambda: NOW_MS * 1_000_000)
    return Hub(Tape(100, 100_000), Board(catalogue, NOW_MS), catalogue, clock, Pace(512, 0.0, 0.0))


def event(channel: str, instrument: str) -> Event:
    return Event(channel=channel, instrument=instrument, data=b"{}", received_ms=NOW_MS, price="1.50")


def test_a_channel_that_is_taken_away_is_told_once_and_shown_nowhere() -> None:
    hub = hub_of(PLAIN)
    hub.publish([StateChange("ethprice", "live"), [event("ethprice", "ETH/USDT")]])
    head = hub.tape.head
    adopt(hub, configured("[channels.ethprice]\nenabled = false\n").catalogue())
    [told] = [entry.payload for entry in hub.tape.between(head, hub.tape.head)]
    assert REMOVED.encode() in told
    assert "ethprice" not in hub.board.states()
    assert hub.latest("ethprice") == []
    [gap] = [gap for gap in hub.ledger.gaps(NOW_MS) if gap.channel == "ethprice"]
    assert (gap.reason, gap.end_ms) == (REMOVED, NOW_MS)


def test_a_channel_that_stays_keeps_what_is_known_of_it_and_one_that_changes_does_not() -> None:
    hub = hub_of(PLAIN)
    for name, instrument in (("ethprice", "ETH/USDT"), ("bitcoinprice", "BTC/USDT")):
        hub.publish([StateChange(name, "live"), [event(name, instrument)], Verdict(name, "freshness", "stale", "late")])
    adopt(hub, configured("[channels.bitcoinprice]\ninstrument = 'SOL/USDT'\n").catalogue())
    kept, changed = hub.board.state("ethprice"), hub.board.state("bitcoinprice")
    assert (kept.state, kept.reason, kept.last_event_ms) == ("stale", "late", NOW_MS)
    assert changed.last_event_ms is None
    assert hub.board.verdict("bitcoinprice", "freshness") is None
    assert len(hub.latest("ethprice")) == 1
    assert hub.latest("bitcoinprice") == [], "the price of another instrument"


def test_a_channel_that_comes_back_goes_on_with_its_chain() -> None:
    hub = hub_of(PLAIN)
    hub.publish([[event("ethprice", "ETH/USDT")]])
    last = hub.tape.head
    adopt(hub, configured("[channels.ethprice]\nenabled = false\n").catalogue())
    adopt(hub, PLAIN.catalogue())
    hub.publish([[event("ethprice", "ETH/USDT")]])
    [entry] = hub.tape.latest(frozenset({("ethprice", "*")}))
    assert f'"prev_seq":{last},'.encode() in entry.payload
    assert entry.ordinal == 2


def test_the_first_word_of_a_new_channel_is_news_to_whoever_is_still_subscribed_to_it() -> None:
    hub = hub_of(configured("[channels.ethprice]\nenabled = false\n"))
    adopt(hub, PLAIN.catalogue())
    assert hub.board.apply(StateChange("ethprice", "connecting"), NOW_MS) is not None


class Counting:
    """A connector that runs until it is ended."""

    channels = ("bitcoinprice",)

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = self.ends = 0

    async def run(self, context: object) -> None:
        self.runs += 1
        try:
            await trio.sleep_forever()
        finally:
            self.ends += 1


async def test_venues_are_ended_and_started_alone_and_all_at_the_stop() -> None:
    send, receive = trio.open_memory_channel[Item](100)
    fleet, settings = Fleet(send, WallClock()), Supervisor()
    okx, binance, another = Counting("okx"), Counting("binance"), Counting("okx")
    async with trio.open_nursery() as nursery:
        await nursery.start(fleet.run)
        fleet.start("okx", [okx], settings)
        fleet.start("binance", [binance], settings)
        fleet.start("coingecko", [], settings)
        with pytest.raises(RuntimeError, match="okx"):
            fleet.start("okx", [another], settings)
        await trio.testing.wait_all_tasks_blocked()
        assert list(fleet.connectors) == [okx, binance]
        await fleet.end("okx")
        await fleet.end("coingecko")
        assert (okx.ends, binance.ends) == (1, 0)
        assert list(fleet.connectors) == [binance]
        while receive.statistics().current_buffer_used:
            receive.receive_nowait()
        fleet.start("okx", [another], settings, why="the configuration was changed")
        await trio.testing.wait_all_tasks_blocked()
        assert receive.receive_nowait() == StateChange("bitcoinprice", "connecting", "the configuration was changed")
        assert (another.runs, binance.runs, binance.ends) == (1, 1, 0)
        fleet.stop()
    assert (another.ends, binance.ends) == (1, 1)
    assert not receive.statistics().open_send_channels, "the hub would wait for ever"
