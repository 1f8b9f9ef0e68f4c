"""What a reload changes, and what it leaves alone."""

import pytest
import trio
import trio.testing

from connectors.base import StateChange
from daemon.config.changes import changed_venues, fixed_keys
from daemon.config.load import Config, parse
from daemon.host.clock import WallClock
from daemon.ingest.fleet import Fleet, RestartSettings
from daemon.ingest.inbox import Item
from tests.daemon.ingest.uncounted import Uncounted

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


class Counting(Uncounted):
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
    fleet, settings = Fleet(send, WallClock()), RestartSettings()
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
