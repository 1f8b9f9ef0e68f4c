"""`make soak` in miniature: fifteen seconds, twenty clients, and the same judge."""

import re
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
        name: int(count) for name, count in re.findall(r"^(checked|witnessed|faults) +(\d+)", done.stdout, re.MULTILINE)
    }
    # That nothing was found says something only where something was looked at.
    assert counts["witnessed"] > 300, done.stdout
    assert counts["checked"] > 2000, done.stdout
    assert counts["faults"] > 1, done.stdout
    assert re.search(r"full_disk [1-9]", done.stdout), done.stdout
