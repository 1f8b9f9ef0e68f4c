"""What everybody is told of a recorder that cannot write, and that each connector is given its tap."""

from pathlib import Path

import trio

from connectors.base import StateChange
from connectors.capture.reading import load
from connectors.capture.recorder import RecordSettings
from connectors.venues.registry import VENUES
from daemon.config.load import parse
from daemon.health.board import Board, Verdict
from daemon.host.clock import WallClock
from daemon.publish.recording import Recording
from daemon.tape.ledger import Ledger

NOW = 1_765_211_445_122


class Told:
    def __init__(self, folder: Path) -> None:
        self.config = parse('[catalogue]\npresets = ["seed", "okx", "market"]', {}, "a test")
        self.board = Board(self.config.catalogue(), NOW)
        self.ledger = Ledger()
        self.verdicts: list[Verdict] = []
        self.recording = Recording(
            RecordSettings(str(folder)),
            board=self.board,
            ledger=self.ledger,
            clock=WallClock(lambda: NOW * 1_000_000),
            publish=self.publish,
            daemon="test",
        )

    def publish(self, verdicts: object) -> None:
        for verdict in verdicts:  # type: ignore[attr-defined] # a sequence of them
            self.verdicts.append(verdict)
            self.board.apply(verdict, NOW)


def test_each_channel_of_a_venue_has_a_remark_while_nothing_is_recorded(tmp_path: Path) -> None:
    told = Told(tmp_path)
    for name in told.board.catalogue.names:
        told.board.apply(StateChange(name, "live"), NOW)
    told.recording.tell()
    assert told.verdicts == []
    told.recording.recorder.trouble = "cannot be written: the disk is full"
    told.recording.tell()
    told.recording.tell()
    remarked = {verdict.channel for verdict in told.verdicts}
    assert len(told.verdicts) == len(remarked)
    assert remarked == set(told.board.catalogue.names) - {"market_quotes"}
    state = told.board.state("bitcoinprice")
    assert state.state == "live"
    assert state.reason == "what the venue sends is not recorded: cannot be written: the disk is full"
    told.recording.recorder.trouble = ""
    told.recording.tell()
    assert told.board.state("bitcoinprice").reason == ""


async def test_the_ledger_has_a_gap_with_the_number_of_frames_while_it_lasts(tmp_path: Path) -> None:
    told = Told(tmp_path / "nowhere")
    async with trio.open_nursery() as nursery:
        await nursery.start(told.recording.run)
        with trio.fail_after(10):
            while not told.ledger.gaps(NOW):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.05)
        (gap,) = told.ledger.gaps(NOW)
        assert (gap.cause, gap.channel, gap.end_ms) == ("unrecorded", "", None)
        assert gap.reason == "what venues send is not recorded: is not there: the folder has vanished"
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_each_connector_is_recorded_with_its_channels_and_without_secrets(tmp_path: Path) -> None:
    told = Told(tmp_path)
    okx = VENUES["okx"]
    channels = [channel for channel in told.config.channels if channel.exchange == "okx"]
    settings = okx.settings(proxy="http://user:password@proxy.example:1")
    connectors = [*okx.build(channels, settings, "test"), okx.check(channels, settings, "test")]
    told.recording.record("okx", [each for each in connectors if each is not None], channels, settings)
    for tap in told.recording.recorder._taps:
        tap.frames(1, [b"{}"], NOW)
    await told.recording.recorder.close()
    found = {series.connector: series.files[0].header for series in load(tmp_path)}
    assert set(found) == {"okx", "okx-candles", "okx-instruments"}
    assert found["okx-candles"].carries == ("okx_candles",)
    assert [channel["name"] for channel in found["okx"].channels] == [channel.name for channel in channels]
    assert found["okx"].settings["url"] == "wss://ws.okx.com/ws/v5/public"
    assert "password" not in str(found)
