"""`make soak` in miniature: fifteen seconds, twenty clients, and the same judge."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_twenty_clients_and_failing_venues_for_fifteen_seconds() -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.25", "--clients", "20", "--seed", "2", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("nothing is wrong\n"), done.stdout
    counts = {
        name: int(count)
        for name, count in re.findall(r"^(checked|witnessed|books|faults) +(\d+)", done.stdout, re.MULTILINE)
    }
    # That nothing was found says something only where something was looked at.
    assert counts["witnessed"] > 300, done.stdout
    assert counts["checked"] > 2000, done.stdout
    assert counts["books"] > 50, done.stdout
    assert counts["faults"] > 1, done.stdout
    assert re.search(r"full_disk [1-9]", done.stdout), done.stdout


def test_a_daemon_that_forgets_clients_is_found_and_the_kernel_is_not_blamed() -> None:
    """The hub writes nothing more to some clients: what the issue's soak had seemed to see."""
    arguments = ["--minutes", "0.1", "--clients", "20", "--seed", "2", "--quiet", "--fault", "mute"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    folder = Path(done.stdout.rstrip().rpartition("\nin ")[2])
    offences = folder.joinpath("offences.txt").read_text(encoding="utf-8")
    shutil.rmtree(folder)
    assert "never came" in offences, offences
    # What the daemon thinks, and that its socket holds nothing for such a client.
    assert re.search(r"though the client waited for them\nthe daemon: (caught up|behind|gone)", offences), offences
