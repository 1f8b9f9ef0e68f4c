"""The recorder: what is put into it is written soon; a disk that takes nothing costs frames, which are counted."""

import errno
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from connectors.capture import recorder
from connectors.capture.lines import Line
from connectors.capture.reading import load
from connectors.capture.recorder import Recorder, RecordSettings
from connectors.capture.tap import NO_TAP, Tap
from tests.daemon.serving import SOON_S

NOW = 1_765_211_445_122
HOUR_MS = 3_600_000
BUFFER = 65_536


class Told:
    """A recorder, its tap, and what it told."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.now_ms = NOW
        self.noted: list[tuple[str, int]] = []
        self.overs = 0
        kept = RecordSettings(str(folder), buffer_bytes=BUFFER, **settings)  # type: ignore[arg-type] # of any type
        self.recorder = Recorder(
            kept, lambda: self.now_ms, daemon="test", noted=lambda *told: self.noted.append(told), over=self._over
        )
        self.tap = self.made("okx")

    def made(self, connector: str) -> Tap:
        return self.recorder.tap("okx", connector, ("bitcoinprice",), [], {})

    def _over(self) -> None:
        self.overs += 1


def lines(folder: Path, connector: str = "okx") -> list[Line]:
    """All lines but the headers."""
    for series in load(folder):
        if series.connector == connector:
            return [line for file in series.files for part in file.lines() for line in part if line.record is None]
    return []


async def eventually(so: Callable[[], bool]) -> None:
    with trio.fail_after(2 * SOON_S):
        while True:
            if so():
                return
            await trio.sleep(0.02)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "EVERY_S", 0.02)
    monkeypatch.setattr(recorder, "RETRY_S", 0.05)
    monkeypatch.setattr(recorder, "_LOOK_S", 0.02)


@asynccontextmanager
async def recording(told: Told) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(told.recorder.run)
        yield
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_what_is_said_is_written_soon_and_in_order(tmp_path: Path) -> None:
    told = Told(tmp_path)
    other = told.made("okx-candles")
    async with recording(told):
        number = told.tap.number()
        told.tap.opened(number, "ws.okx.com/ws/v5/public", NOW)
        told.tap.sent(number, '{"op":"subscribe"}', NOW + 1)
        told.tap.frames(number, [b'{"a":1}', b'{"a":2}'], NOW + 2)
        told.tap.fetched(number, "x", "/depth", b'{"bids":[]}', NOW + 3)
        other.frames(other.number(), [b'{"c":1}'], NOW)
        await eventually(lambda: told.recorder.statistics().frames == 3)
        assert told.recorder.statistics().waiting_bytes == 0
        assert told.recorder.trouble == ""
        told.tap.closed(number, "OKX dropped the connection", NOW + 4)
    await told.recorder.close()
    said = lines(tmp_path)
    assert said[0].opened == "ws.okx.com/ws/v5/public"
    assert said[1].sent == '{"op":"subscribe"}'
    assert [line.payload for line in said[2:4]] == [b'{"a":1}', b'{"a":2}']
    assert [(line.at_ms, line.conn) for line in said[2:4]] == [(NOW + 2, 1)] * 2
    assert said[4].fetched is not None
    assert said[5].closed == "OKX dropped the connection"
    assert said[6].end == "the daemon is stopping"
    assert [line.payload for line in lines(tmp_path, "okx-candles")] == [b'{"c":1}', None]


async def test_a_stop_writes_what_came_last_though_the_task_is_gone(tmp_path: Path) -> None:
    told = Told(tmp_path)
    async with recording(told):
        pass
    told.tap.frames(1, [b"last"], NOW)
    await told.recorder.close()
    assert [line.payload for line in lines(tmp_path)] == [b"last", None]


async def test_a_slow_disk_costs_frames_that_are_counted_and_told_in_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, free, pwrite = Told(tmp_path), threading.Event(), os.pwrite

    def slow(descriptor: int, data: memoryview, at: int) -> int:
        free.wait(SOON_S)
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", slow)
    payload = b"." * 1000
    async with recording(told):
        told.tap.frames(1, [payload], NOW)
        await trio.sleep(0.1)  # until the thread waits for the disk
        for number in range(100):
            told.tap.frames(1, [payload], NOW + number)
        told.tap.closed(1, "a line that matters", NOW + 100)
        stuck = told.recorder.statistics()
        assert stuck.waiting_bytes <= BUFFER + 1000
        assert 35 < stuck.dropped < 50
        free.set()
        await eventually(lambda: told.recorder.statistics().waiting_bytes == 0)
        told.tap.frames(1, [b"again"], NOW + 200)
        await eventually(lambda: told.noted != [])
    await told.recorder.close()
    said = lines(tmp_path)
    (lost,) = [line.lost for line in said if line.lost is not None]
    assert (lost.frames, lost.bytes, lost.from_ms, lost.to_ms) == (
        stuck.dropped,
        stuck.dropped * 1000,
        NOW + 100 - stuck.dropped,
        NOW + 99,
    )
    kept = [line for line in said if line.payload == payload]
    assert len(kept) == 101 - stuck.dropped
    assert [line.payload or line.closed for line in said[-4:]] == [None, "a line that matters", b"again", None]
    assert sum(frames for _, frames in told.noted) == stuck.dropped


async def test_a_disk_that_does_not_answer_is_told_and_is_well_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, free, pwrite = Told(tmp_path), threading.Event(), os.pwrite

    def slow(descriptor: int, data: memoryview, at: int) -> int:
        free.wait(SOON_S)
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", slow)
    monkeypatch.setattr(recorder, "LATE_S", 0.1)
    async with recording(told):
        told.tap.frames(1, [b"one"], NOW)
        await eventually(lambda: told.recorder.trouble == "takes longer than 5 s")
        free.set()
        await eventually(lambda: told.recorder.trouble == "")
        assert told.overs == 1


async def test_a_full_disk_is_told_once_and_recording_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", recorder.__name__)
    told, pwrite, full = Told(tmp_path), os.pwrite, [True]

    def write(descriptor: int, data: memoryview, at: int) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", write)
    async with recording(told):
        told.tap.frames(1, [b"one"], NOW)
        await eventually(lambda: told.recorder.trouble == "cannot be written: the disk is full")
        told.tap.frames(1, [b"two"], NOW + 1)
        await eventually(lambda: told.recorder.statistics().failures > 3)
        full[0] = False
        await eventually(lambda: told.recorder.trouble == "")
        await eventually(lambda: told.recorder.statistics().frames == 2)
    await told.recorder.close()
    assert [line.payload for line in lines(tmp_path)] == [b"one", b"two", None]
    said = [record.getMessage() for record in caplog.records if record.name == recorder.__name__]
    assert [("the disk is full" in text, "is written again" in text) for text in said] == [(True, False), (False, True)]


async def test_a_folder_that_vanishes_is_told_and_taken_up_when_it_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    folder.mkdir()
    told = Told(folder)
    async with recording(told):
        told.tap.frames(1, [b"one"], NOW)
        await eventually(lambda: told.recorder.statistics().frames == 1)
        shutil.rmtree(folder)
        told.tap.frames(1, [b"two"], NOW + 1)
        await eventually(lambda: "the folder has vanished" in told.recorder.trouble)
        assert not folder.exists()
        folder.mkdir()
        await eventually(lambda: told.recorder.trouble == "")
    await told.recorder.close()
    assert [line.payload for line in lines(folder)] == [b"two", None]


async def test_a_folder_that_is_missing_is_noticed_though_nothing_comes(tmp_path: Path) -> None:
    told = Told(tmp_path / "nowhere")
    async with recording(told):
        await eventually(lambda: "the folder has vanished" in told.recorder.trouble)
        failures = told.recorder.statistics().failures
        await eventually(lambda: told.recorder.statistics().failures > failures + 2)
        assert told.recorder.trouble
        assert told.noted[-1] == (told.recorder.trouble, 0)


async def test_old_files_are_removed(tmp_path: Path) -> None:
    told = Told(tmp_path, keep_s=3600.0)
    async with recording(told):
        for hour in range(4):
            told.now_ms = NOW + hour * HOUR_MS
            told.tap.frames(1, [b"%d" % hour], told.now_ms)
            await eventually(lambda: told.recorder.statistics().frames == hour + 1)  # noqa: B023
        await eventually(lambda: told.recorder.statistics().removed == 2)
    await told.recorder.close()
    assert [line.payload for line in lines(tmp_path)] == [b"2", b"3", None]
    assert told.recorder.statistics().kept_bytes > 0


async def test_what_a_connector_was_before_a_reload_is_ended(tmp_path: Path) -> None:
    told = Told(tmp_path)
    async with recording(told):
        told.tap.frames(1, [b"before"], NOW)
        told.tap.end("the configuration was changed")
        after = told.made("okx")
        after.frames(1, [b"after"], NOW + 1)
        await eventually(lambda: told.recorder.statistics().frames == 2)
        written = told.recorder.statistics().written_bytes
        assert len(told.recorder._taps) == 1
        assert written > 0
    await told.recorder.close()
    assert [line.payload or line.end for line in lines(tmp_path)] == [
        b"before",
        "the configuration was changed",
        b"after",
        "the daemon is stopping",
    ]


def test_who_is_not_recorded_pays_nothing() -> None:
    NO_TAP.opened(NO_TAP.number(), "ws.okx.com", NOW)
    NO_TAP.frames(1, [b"frame"], NOW)
    NO_TAP.answered("/a", 200, {"retry-after": "1"}, b"\xff", NOW, 1)


def test_of_an_answers_headers_those_that_matter_are_kept() -> None:
    kept: list[Line] = []

    class Keeping(Tap):
        def put(self, line: Line, size: int = 0) -> None:
            kept.append(line)

    headers = {"retry-after": "7", "x-mbx-used-weight-1m": "20", "set-cookie": "secret", "server": "x"}
    Keeping().answered("/api/v3/depth?symbol=BTCUSDT", 429, headers, b"{}", NOW, 12)
    assert kept[0].http is not None
    assert kept[0].http.headers == {"retry-after": "7", "x-mbx-used-weight-1m": "20"}
