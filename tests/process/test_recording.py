"""A real process that records: killed, on a disk that is full, with its folder removed. Clients notice nothing."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from connectors.capture.reading import Series, load
from tests.daemon.routes.scraping import Scrape
from tests.process.running import COMMAND, Process, tickerd, wait_ready
from tests.process.small_disk import NoMountError, SmallDisk, small_disk

ROOT = Path(__file__).resolve().parents[2]
SOON_S = 15.0


@contextlib.contextmanager
def daemon(config: Path, folder: Path, command: tuple[str, ...] = COMMAND, **environ: str) -> Iterator[Process]:
    told = {"TICKERD_SERVER__PORT": "0", "TICKERD_RECORD__PATH": str(folder), **environ}
    told["TICKERD_CONNECTORS__COINGECKO__PLAN"] = '"unlimited"'
    # Whoever enters another mount namespace begins at its root.
    told["PYTHONPATH"] = str(ROOT)
    with tickerd("run", "--config", str(config), environ=told, command=command) as process:
        yield process


def get(port: int, path: str) -> dict[str, object]:
    answer = httpx.get(f"http://127.0.0.1:{port}{path}")
    assert answer.status_code == 200
    return dict(json.loads(answer.content))


def metric(port: int, name: str) -> float:
    return Scrape.of(httpx.get(f"http://127.0.0.1:{port}/metrics").text).value(name)


def wait(condition: Callable[[], bool], within_s: float = SOON_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def goes_on(port: int) -> None:
    """Data goes on coming."""
    before = metric(port, "tickerd_events_total")
    wait(lambda: metric(port, "tickerd_events_total") > before + 50)


def okx(folder: Path) -> Series:
    return next(series for series in load(folder) if series.connector == "okx")


def test_kill_9_loses_at_most_the_last_second(busy_venues: Path, tmp_path: Path) -> None:
    with daemon(busy_venues, tmp_path) as process:
        wait_ready(process.port)
        goes_on(process.port)
        killed_ms = time.time() * 1000
        process.stop(signal.SIGKILL)
    (file,) = okx(tmp_path).files
    received = [line.at_ms for part in file.lines() for line in part if line.payload is not None]
    assert len(received) > 50
    # How long the machine lets the process wait is not known; 60 frames a second came up to the kill.
    assert killed_ms - received[-1] < 1000
    assert file.damage == ""
    with daemon(busy_venues, tmp_path) as process:
        wait_ready(process.port)
        assert process.stop() == 0
    first, second = okx(tmp_path).files
    assert first.counted.frames == len(received)
    assert second.counted.frames > 0
    with tickerd("recordings", "--json", str(tmp_path)) as listing:
        assert listing.wait() == 0
    told = {one["connector"]: one for one in map(json.loads, listing.lines)}
    assert told["okx"]["frames"] == len(received) + second.counted.frames
    (gap,) = told["okx"]["gaps"]
    assert gap["reason"] == "the recording breaks off: the daemon was killed, or its machine"
    assert told["okx"]["channels"] == {"bitcoinprice": ["BTC/USDT"], "ethprice": ["ETH/USDT"]}


def test_a_folder_that_is_removed_and_made_again(busy_venues: Path, tmp_path: Path) -> None:
    folder = tmp_path / "record"
    folder.mkdir()
    with daemon(busy_venues, folder) as process:
        port = process.port
        wait_ready(port)
        wait(lambda: metric(port, "tickerd_record_frames_total") > 50)
        shutil.rmtree(folder)
        wait(lambda: "the folder has vanished" in str(get(port, "/readyz").get("reason")))
        wait(lambda: "not recorded" in str(get(port, "/channels")))
        goes_on(port)
        assert metric(port, "tickerd_record_recording") == 0
        folder.mkdir()
        wait(lambda: "reason" not in get(port, "/readyz"))
        wait(lambda: "not recorded" not in str(get(port, "/channels")))
        goes_on(port)
        assert process.stop() == 0
    assert okx(folder).files[-1].counted.frames > 0
    assert sum("the folder has vanished" in line and "ERROR" in line for line in process.lines) == 1


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of its own; `TICKERD_REQUIRE_MOUNT=1` makes it an error where this machine does not allow that."""
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path))
        except NoMountError as absent:
            if os.environ.get("TICKERD_REQUIRE_MOUNT"):
                pytest.fail(str(absent))
            pytest.skip(str(absent))
        yield disk


def test_a_full_disk_costs_what_does_not_fit_the_buffer_and_the_recording_says_so(
    busy_venues: Path, disk: SmallDisk
) -> None:
    command = (*disk.command, *COMMAND)
    with daemon(busy_venues, disk.inside, command, TICKERD_RECORD__BUFFER_BYTES="65536") as process:
        port = process.port
        wait_ready(port)
        wait(lambda: metric(port, "tickerd_record_frames_total") > 50)
        disk.fill()
        wait(lambda: "the disk is full" in str(get(port, "/readyz").get("reason")))
        wait(lambda: metric(port, "tickerd_record_dropped_total") > 20)
        goes_on(port)
        gaps = [gap for gap in get(port, "/gaps")["gaps"] if gap["cause"] == "unrecorded"]  # type: ignore[attr-defined]
        assert [(gap["end"], "the disk is full" in gap["reason"]) for gap in gaps] == [(None, True)]
        disk.free()
        wait(lambda: "reason" not in get(port, "/readyz"))
        recorded = metric(port, "tickerd_record_frames_total")
        wait(lambda: metric(port, "tickerd_record_frames_total") > recorded + 50)
        assert process.stop() == 0
    series = load(disk.outside)
    lost = [line.lost for one in series for file in one.files for part in file.lines() for line in part if line.lost]
    assert sum(one.frames for one in lost) > 20
    assert all(one.from_ms <= one.to_ms for one in lost)
    assert sum("the disk is full" in line and "ERROR" in line for line in process.lines) == 1


def test_a_folder_that_is_not_there_is_a_wrong_configuration(busy_venues: Path, tmp_path: Path) -> None:
    with daemon(busy_venues, tmp_path / "nowhere") as process:
        assert process.wait() == 78
    assert process.lines == [
        f'tickerd: record.path (from TICKERD_RECORD__PATH): got "{tmp_path}/nowhere"; '
        "allowed: the path of a folder that exists and can be written"
    ]
