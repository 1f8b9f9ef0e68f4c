"""`tickerd rehearse`: every fault that the simulated venues can have, and every one ends well."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from connectors.simulator.faults.table import FAULTS
from daemon.commands.rehearse import crowd
from daemon.commands.rehearse.judge import FULL_DISK
from daemon.commands.rehearse.own import TITLES
from daemon.commands.rehearse.pair import STREAMED

COMMAND = (sys.executable, "-m", "daemon", "rehearse")
WHOLE_S = 300.0


def test_every_fault_ends_well() -> None:
    done = subprocess.run([*COMMAND, "--json"], capture_output=True, text=True, timeout=WHOLE_S, check=False)
    verdicts: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [verdict for verdict in verdicts if not verdict["well"]] == []
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    titles = [case.title for kind in FAULTS for case in kind.cases]
    titles += [case.title for kind in FAULTS for case in kind.streams if case.faults[0].venue in STREAMED]
    assert sorted(verdict["fault"] for verdict in verdicts) == sorted(
        [FULL_DISK, *TITLES.values(), *crowd.TITLES.values(), *titles]
    )
    assert {(verdict["lost"], verdict["doubled"], verdict["up"]) for verdict in verdicts} == {(0, 0, True)}
    assert max(verdict["told_s"] or 0.0 for verdict in verdicts) <= 1.0


def test_the_table_has_a_row_for_each_case() -> None:
    done = subprocess.run(
        [*COMMAND, "--only", "disconnect", "--only", "duplicates", "--sample"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "160", "TICKERD_SERVER__PORT": "not for this daemon"},
    )
    assert done.returncode == 0, done.stderr
    head, _, first, second, _, last = done.stdout.splitlines()
    assert head.split("  ")[0] == "fault"
    assert first.startswith("okx disconnect code=1000  reconnecting > connecting > live (the connection to OKX closed")
    assert second.startswith("okx duplicates            nothing ")
    assert [row.split()[-4:] for row in (first, second)] == [["0", "0", "fine", "up"]] * 2
    assert last.startswith("2 of 2 faults ended well: 0 messages lost, 0 doubled")
    assert sorted(done.stderr.splitlines()) == [
        "1/2 well     okx disconnect code=1000",
        "2/2 well     okx duplicates",
    ]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_stopped_and_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--only", "silence", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        deadline = time.monotonic() + 20
        while len(_running(tmp_path)) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(_running(tmp_path)) == 4
        process.send_signal(number)
        said, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert _running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def _running(folder: Path) -> list[str]:
    """The command lines of the processes that were given a file there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/" in line:
            found.append(line)
    return found
