"""A pause of the daemon's own and a clock set back, as judged by what clients noted; and the clock that can be set."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon.commands.rehearse.judge import Verdict
from daemon.commands.rehearse.own import Name, OwnRecord, judge_own
from daemon.commands.rehearse.pair import ALL
from daemon.commands.rehearse.records import Data, Entry, Told
from daemon.commands.rehearse.set_clock import set_clock

REASON = "the daemon itself did not run for 11.0 s: it or its machine was stopped, or starved"


def noted(name: Name, *entries: Entry, causes: tuple[str, ...], failure: str = "") -> Verdict:
    before = {(channel, "X/U"): Data(1.0, channel, "X/U", 1, 0) for channel in ALL}
    record = OwnRecord(name=name, before=before, entries=entries, causes=causes, failure=failure)
    record.began_s, record.cleared_s, record.recovered_s = 2.0, 13.0, 14.0
    return judge_own(record)


def warned(*but: str) -> list[Entry]:
    return [Told(13.1, 13_100, name, "connecting", REASON) for name in ALL if name not in but]


def fresh(prev_seq: int = 1) -> list[Entry]:
    return [Data(13.5, channel, "X/U", 9, prev_seq) for channel in ALL]


def test_a_pause_of_which_everybody_was_told_is_well() -> None:
    verdict = noted("own_pause", *warned(), *fresh(), causes=("restart", "pause"))
    assert verdict.is_well, verdict
    assert (verdict.fault, verdict.reason) == ("tickerd own_pause", REASON)
    assert verdict.notice_s == pytest.approx(0.1)


def test_a_clock_that_was_set_back_and_that_nobody_noticed_is_well() -> None:
    assert noted("clock_back", *fresh(), causes=("clock",)).is_well


@pytest.mark.parametrize(
    ("verdict", "problem"),
    [
        (noted("own_pause", *warned("ethprice"), *fresh(), causes=("pause",)), "clients were not told of ethprice"),
        (noted("own_pause", *warned(), *fresh(), causes=()), "the ledger has 0 gaps `pause`"),
        (noted("own_pause", *warned(), *fresh(4), causes=("pause",)), "8 messages lost"),
        (noted("own_pause", *warned(), *fresh(), *fresh(), causes=("pause",)), "8 messages doubled"),
        (noted("own_pause", *warned(), *fresh()[1:], causes=("pause",)), f"disturbed: {ALL[0]}"),
        (noted("own_pause", *warned(), *fresh(), causes=("pause",), failure="closed: 4001"), "closed: 4001"),
        (
            noted("clock_back", Told(13.2, 13_200, "ethprice", "stale", "late"), *fresh(), causes=("clock",)),
            "disturbed: ethprice",
        ),
        (noted("clock_back", *fresh(), causes=("clock", "clock")), "the ledger has 2 gaps `clock`"),
    ],
)
def test_what_is_wrong_is_named(verdict: Verdict, problem: str) -> None:
    assert list(verdict.problems) == [problem]


def test_a_process_believes_the_clock_that_was_set(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    set_clock(clock, -3600.0)
    script = (
        "import sys, time; from pathlib import Path; from daemon.commands.rehearse import set_clock as s\n"
        f"path = Path({str(clock)!r}); s._replace_clock(path); from daemon.host.clock import WallClock\n"
        "first = WallClock().now_ms() / 1000; s.set_clock(path, 60.0); print(first, time.time())"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    before_s, after_s = map(float, ran.stdout.split())
    assert before_s == pytest.approx(time.time() - 3600, abs=60)
    assert after_s - before_s == pytest.approx(3660, abs=60)
