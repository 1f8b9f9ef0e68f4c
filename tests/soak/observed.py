"""`tickerd`, with its trio tasks counted: `python -m tests.soak.observed FILE run --config ...`.

The count stands in the file, eight bytes in the machine's order, and is up to date at every moment.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import trio

from daemon.__main__ import main

COUNT: Final = struct.Struct("=q")


class TaskCount(trio.abc.Instrument):
    """Counts trio's tasks into a mapped file."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(COUNT.pack(0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), COUNT.size)
        self._tasks = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        self._tasks += 1
        COUNT.pack_into(self._map, 0, self._tasks)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """One less."""
        self._tasks -= 1
        COUNT.pack_into(self._map, 0, self._tasks)


def run_observed(path: Path, argv: list[str]) -> int:
    """Run one command of `tickerd` in this process; returns its exit code."""
    plain = trio.run
    count = TaskCount(path)

    def run(start: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return plain(start, *arguments, instruments=[count])

    with patch.object(trio, "run", run):
        return main(argv)


if __name__ == "__main__":
    sys.exit(run_observed(Path(sys.argv[1]), sys.argv[2:]))
