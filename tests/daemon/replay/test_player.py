"""A recording served by a daemon: at its pace, by its own clock, the same at any speed, and told when it is over."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import msgspec
import pytest
import trio

from connectors.capture.journal import HOUR_MS
from connectors.capture.lines import Line, Lost
from connectors.replay.playback import Playback, Source
from daemon.app import Daemon
from daemon.commands.moments import moment
from daemon.commands.replay import replay
from daemon.replay.clock import ReplayClock
from daemon.replay.player import HOLE_MS, Player
from tests.connectors.replay.made import BEGAN_MS, channel, header, line, record, ticker

TICKERS = channel("bitcoinprice", "okx", "ticker")
OF_THE_RUN = ("timestamp", "seq", "prev_seq")
ISO = "2025-12-08T16:30:00.000Z"


class Playing:
    """A daemon that plays, and what is on its tape."""

    def __init__(self, daemon: Daemon, player: Player) -> None:
        self.daemon = daemon
        self.player = player

    def messages(self) -> list[dict[str, object]]:
        """All that was published, without what differs from run to run."""
        found = []
        for name in self.daemon.board.catalogue.names:
            for entry in self.daemon.tape.known(name):
                message = msgspec.json.decode(entry.payload)
                found.append({key: value for key, value in message.items() if key not in OF_THE_RUN})
        return found

    def statuses(self) -> list[tuple[str, str]]:
        """State and reason of each status of the first channel, in order."""
        return [
            (str(message["state"]), str(message.get("reason", "")))
            for message in self.messages()
            if message["type"] == "status"
        ]


@asynccontextmanager
async def playing(
    folder: Path, speed: float = inf, from_ms: int | None = None, to_ms: int | None = None
) -> AsyncIterator[Playing]:
    config, player = await trio.to_thread.run_sync(
        lambda: replay(folder, {}, port=0, speed=speed, from_ms=from_ms, to_ms=to_ms)
    )
    daemon = Daemon(config, player=player)
    async with trio.open_nursery() as nursery:
        await daemon.start(nursery, await trio.open_tcp_listeners(0, host="127.0.0.1"))
        yield Playing(daemon, player)
        nursery.cancel_scope.cancel(reason="the test is over")


async def played(folder: Path, speed: float = inf) -> Playing:
    async with playing(folder, speed) as made:
        with trio.fail_after(30):
            await made.player.has_ended.wait()
    return made


def prices(count: int, every_ms: int) -> list[Line]:
    return [
        line(0, opened="a"),
        *(line(number * every_ms, frame=ticker(f"{number}.50", number * every_ms)) for number in range(1, count + 1)),
    ]


async def test_it_goes_by_its_own_clock_and_stamps_by_the_machines(tmp_path: Path) -> None:
    record(tmp_path, header("okx", [TICKERS]), prices(5, 100))
    async with playing(tmp_path) as made:
        await made.player.has_ended.wait()
        daemon = made.daemon
        payload = daemon.tape.payload("bitcoinprice", "BTC/USDT")
        assert payload is not None
        message = msgspec.json.decode(payload)
        assert message["received_ms"] == BEGAN_MS + 500
        assert abs(moment(message["timestamp"]) - time.time() * 1000) < 60_000
        state = daemon.board.state("bitcoinprice")
        assert (state.state, state.reason, state.since_ms) == ("down", "the recording ended", BEGAN_MS + 500)
        assert daemon.clock.now_ms() == BEGAN_MS + 500
        info = made.player.info
        assert (info.from_, info.to, info.speed) == (ISO, "2025-12-08T16:30:00.500Z", "max")


async def test_it_keeps_the_pace_that_was_asked_for(tmp_path: Path) -> None:
    record(tmp_path, header("okx", [TICKERS]), prices(20, 100))
    began_s = trio.current_time()
    made = await played(tmp_path, 4.0)
    took_s = trio.current_time() - began_s
    assert took_s >= 2.0 / 4
    assert made.daemon.ingesting.sequencer.events == 20


@pytest.mark.parametrize("speed", [50.0, 500.0])
async def test_the_speed_changes_nothing_that_is_published(tmp_path: Path, speed: float) -> None:
    pause = [line(60_000 + 40_000 + number, frame=ticker("9", 100_000)) for number in range(3)]
    record(tmp_path, header("okx", [TICKERS]), [*prices(600, 100), *pause])
    slow, fast = await played(tmp_path, speed), await played(tmp_path)
    assert len(fast.messages()) > 100
    assert slow.messages() == fast.messages()
    # The pause of 40 s is one by the recording's time, whatever it took.
    assert "stale" in [state for state, _ in slow.statuses()]


async def test_a_replay_does_not_go_stale_by_itself(tmp_path: Path) -> None:
    record(tmp_path, header("okx", [TICKERS]), prices(10, 200))
    made = await played(tmp_path, 0.9)
    assert {state for state, _ in made.statuses()} == {"live", "down"}


async def test_a_time_of_nothing_is_passed_over(tmp_path: Path) -> None:
    later = [line(2 * HOUR_MS + number, frame=ticker("7", 2 * HOUR_MS)) for number in range(2)]
    record(tmp_path, header("okx", [TICKERS]), [*prices(3, 100), *later])
    with trio.fail_after(20):
        slow, fast = await played(tmp_path, 1.0), await played(tmp_path)
    assert slow.messages() == fast.messages()
    assert slow.daemon.clock.now_ms() == BEGAN_MS + 2 * HOUR_MS + 1
    assert HOLE_MS < HOUR_MS


async def test_what_was_not_recorded_is_in_the_ledger_at_its_time(tmp_path: Path) -> None:
    lost = Lost(12, 4711, BEGAN_MS + 350, BEGAN_MS + 900, "the disk was too slow")
    record(tmp_path, header("okx", [TICKERS], run=1), [*prices(3, 100), line(900, lost=lost)])
    record(tmp_path, header("okx", [TICKERS], run=2), [line(5000, frame=ticker("2", 5000))])
    made = await played(tmp_path)
    gaps = [gap for gap in made.daemon.ledger.gaps(made.daemon.clock.now_ms()) if gap.cause == "unrecorded"]
    assert [(gap.start_ms - BEGAN_MS, (gap.end_ms or 0) - BEGAN_MS, gap.messages) for gap in gaps] == [
        (900, 5000, 0),
        (350, 900, 12),
    ]
    assert gaps[0].reason == "bitcoinprice: nothing was recorded: the daemon is stopping"
    assert gaps[1].reason == "bitcoinprice: 12 frames were not recorded: the disk was too slow"
    states = made.statuses()
    assert ("down", "nothing was recorded: the daemon is stopping") in states
    assert ("live", "BTC/USDT: 12 frames were not recorded: the disk was too slow") in states


async def test_a_recording_that_cannot_be_played_further_ends_there_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record(tmp_path, header("okx", [TICKERS], run=1), prices(3, 100))
    strange = msgspec.structs.replace(header("okx", [TICKERS], run=2), channels=[{"name": "x", "kind": "ticker"}])
    config, player = await trio.to_thread.run_sync(
        lambda: replay(tmp_path, {}, port=0, speed=inf, from_ms=None, to_ms=None)
    )
    record(tmp_path, strange, [line(5000, frame=ticker("2", 5000))])
    player = Player(_again(tmp_path), inf)
    daemon = Daemon(config, player=player)
    async with trio.open_nursery() as nursery:
        await daemon.start(nursery, await trio.open_tcp_listeners(0, host="127.0.0.1"))
        with trio.fail_after(10):
            await player.has_ended.wait()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert "cannot be read: Missing required argument 'exchange'" in daemon.board.state("bitcoinprice").reason
    assert daemon.ingesting.sequencer.events == 3
    assert "the recording cannot be played to its end: " in caplog.text


def _again(folder: Path) -> Playback:
    return Playback(Source(folder))


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1765211400000", BEGAN_MS),
        ("2025-12-08T16:30:00Z", BEGAN_MS),
        ("2025-12-08T16:30:00.000", BEGAN_MS),
        ("2025-12-08T17:30:00+01:00", BEGAN_MS),
        ("2025-12-08", BEGAN_MS - 59_400_000),
    ],
)
def test_moments_are_iso_or_milliseconds(text: str, ms: int) -> None:
    assert moment(text) == ms


@pytest.mark.parametrize("text", ["", "noon", "-5", "2025-13-01", "1.5"])
def test_what_is_no_moment_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"got .*; allowed: ISO-8601"):
        moment(text)


def test_the_clock_stands_where_the_recording_does() -> None:
    clock = ReplayClock(BEGAN_MS)
    assert (clock.now_ms(), clock.iso(clock.now_ms())) == (BEGAN_MS, ISO)
    assert abs(moment(clock.timestamp()) - time.time() * 1000) < 60_000
    assert abs(moment(clock.stamp(BEGAN_MS)) - time.time() * 1000) < 60_000
