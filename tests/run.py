"""`python -m tests.run`: the whole suite, in streams that run at the same time; `make test` calls it.

`python -m tests.run --quick` runs, in one stream, what may differ between interpreters; `make others` calls it.

Two streams mostly wait: that of the browser, the search for failures and the venues over sockets, and that of whole
processes. So they run beside the third, which computes. The rehearsal and the soak judge how long things take, and have
the machine to themselves at the end.

A test that fails beside the others is run once more, by itself, at the end: some judge time, and a machine of two cores
that runs three streams at once is slower than anything they allow for. A test that fails then too, fails; and each one
that was run again is named, so that nobody takes the suite for better than it is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PROCESSES: Final = "tests/process"
WAITING: Final = (
    *("tests/browser", "tests/daemon/front/test_fuzz.py"),
    *(f"tests/connectors/venues/{venue}/test_over_sockets.py" for venue in ("bybit", "coinbase", "kraken", "okx")),
    "tests/connectors/venues/binance/test_streams_over_sockets.py",
)
ALONE: Final = ("tests/process/test_rehearse.py", "tests/process/test_soak.py")

SLOW: Final = (
    *("tests/browser", "tests/process", "tests/daemon/commands", "tests/connectors/simulator"),
    *("tests/daemon/front/test_fuzz.py", "tests/daemon/client/trio/test_changes.py"),
)
SLOW_PATTERNS: Final = (
    *("tests/connectors/*/test_floods.py", "tests/daemon/routes/test_*_changes.py"),
    "tests/daemon/routes/test_page_*.py",
)
"""What starts processes and browsers, searches long, is flooded, or is about simulated venues or JavaScript.

That takes most of the time, and asks the machine rather than the interpreter. What an interpreter does otherwise than
another (how deep it nests, what it frees and when, what it warns of) shows in the rest, with some examples of each
property.
"""

FAILED: Final = 1
"""pytest's exit code if tests have failed; any other but 0 means that they could not be run."""


@dataclass
class Stream:
    """Tests that run one after the other, in one process of pytest.

    Attributes:
        paths: which tests; empty for all that `pyproject.toml` names.
        without: paths that other streams have.
        folder: where its output and pytest's memory of what failed are kept.
    """

    name: str
    folder: Path
    paths: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    options: tuple[str, ...] = field(default=("-r", "s", "--durations=8", "--durations-min=5"))

    @property
    def output(self) -> Path:
        """What pytest prints."""
        return self.folder / f"{self.name}.txt"

    def command(self, *more: str) -> list[str]:
        """How pytest is called."""
        ignored = [f"--ignore={path}" for path in self.without]
        memory = ["-o", f"cache_dir={self.folder / self.name}"]
        return [sys.executable, "-m", "pytest", *self.options, *memory, *ignored, *more, *self.paths]

    def start(self) -> subprocess.Popen[bytes]:
        """Run it in the background; its output goes to the file."""
        with self.output.open("wb") as output:
            return subprocess.Popen(self.command(), stdout=output, stderr=subprocess.STDOUT)

    def run(self) -> int:
        """Run it in the foreground. Returns pytest's exit code."""
        return subprocess.run(self.command(), check=False).returncode

    def run_again(self) -> int:
        """Run only what failed. Returns pytest's exit code."""
        return subprocess.run(self.command("--last-failed", "--last-failed-no-failures=none"), check=False).returncode


def main(*, quick: bool = False) -> int:
    """Run everything, or what is quick. Returns 0 if every test has passed, at the second try at the latest."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        codes = _run_quick(Path(place)) if quick else _run_all(Path(place))
        failed = [stream for stream, code in codes if code == FAILED]
        broken = [f"{stream.name} (pytest: {code})" for stream, code in codes if code not in (0, FAILED)]
        again = [f"{stream.name}: {name}" for stream in failed for name in _failed(stream)]
        for name in again:
            print(f"failed, and is run once more by itself: {name}", flush=True)
        still = [stream.name for stream in failed if stream.run_again() != 0]
    minutes, seconds = divmod(round(time.monotonic() - began_s), 60)
    said = [*(f"could not be run: {each}" for each in broken), *(f"failed twice: in {each}" for each in still)]
    for line in said or ([f"passed only by itself: {name}" for name in again] or ["all passed"]):
        print(line)
    print(f"{minutes} min {seconds} s")
    return 1 if said else 0


def _run_all(folder: Path) -> list[tuple[Stream, int]]:
    """Run all streams. Returns each one with pytest's exit code."""
    waiting = Stream("waiting", folder, WAITING)
    processes = Stream("processes", folder, (PROCESSES,), ALONE)
    computing = Stream("computing", folder, (), (*WAITING, PROCESSES))
    alone = Stream("alone", folder, ALONE)
    background = [(stream, stream.start()) for stream in (waiting, processes)]
    codes = [(computing, computing.run())]
    for stream, process in background:
        codes.append((stream, process.wait()))
        sys.stdout.write(stream.output.read_text(errors="replace"))
        sys.stdout.flush()
    codes.append((alone, alone.run()))
    return codes


def _run_quick(folder: Path) -> list[tuple[Stream, int]]:
    """Run the one stream. Returns it with pytest's exit code."""
    patterns = [f"--ignore-glob={pattern}" for pattern in SLOW_PATTERNS]
    stream = Stream("quick", folder, (), SLOW, options=("--quiet", "--hypothesis-profile=quick", *patterns))
    return [(stream, stream.run())]


def _failed(stream: Stream) -> list[str]:
    """The names of the tests that failed, as pytest remembers them."""
    memory = stream.folder / stream.name / "v" / "cache" / "lastfailed"
    return list(json.loads(memory.read_text())) if memory.exists() else []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.run", description="Run the tests.")
    parser.add_argument("--quick", action="store_true", help="only what may differ between interpreters")
    sys.exit(main(quick=parser.parse_args().quick))
