"""`tickerd` with instruments in its event loop: for the soak, which counts tasks, and the benchmark, which times steps.

What an instrument finds stands in a small mapped file that another process reads, and is up to date at every moment.

    python -m tests.observed tasks FILE run --config ...
    python -m tests.observed steps FILE run --config ...
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
import trio

from daemon.__main__ import main
from daemon.publish.sequencer import Sequencer

COUNT: Final = struct.Struct("=q")
"""The number of tasks."""

_STEPS: Final = struct.Struct("=qqqqqq64s64s")
"""As `Steps`, times in nanoseconds; then the names of the two longest steps' tasks."""

_NAME_BYTES: Final = 64

_PASSES: Final = f"{Sequencer.run.__module__}.{Sequencer.run.__qualname__}"
"""The task whose steps are the fan-out: a pass writes once to each client that has caught up, and is as long as they
are many."""

LONG_S: Final = 0.005
"""A step longer than this is counted."""


class Steps(msgspec.Struct, frozen=True):
    """The steps of a process's tasks since it was asked to forget. A step is all that a task does between two waits.

    The passes of the fan-out are not among them.

    Attributes:
        count: how many there were.
        long_count: how many of them took more than `LONG_S` of CPU time.
        longest_s: the longest one, by the clock: with what other processes took of the core meanwhile.
        longest_cpu_s: the longest one, by the thread's CPU time.
        longest_pass_s: the longest pass of the fan-out, by CPU time.
        longest_turn_s: the longest time from one look at the sockets to the next: all tasks that were ready, once.
        name: the task whose step was the longest by the clock.
        cpu_name: the same by CPU time.
    """

    count: int
    long_count: int
    longest_s: float
    longest_cpu_s: float
    longest_pass_s: float
    longest_turn_s: float
    name: str
    cpu_name: str


class TaskCount(trio.abc.Instrument):
    """Counts trio's tasks into a mapped file."""

    def __init__(self, path: Path) -> None:
        self._map = _mapped(path, COUNT.size)
        self._tasks = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """One more."""
        self._tasks += 1
        COUNT.pack_into(self._map, 0, self._tasks)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """One less."""
        self._tasks -= 1
        COUNT.pack_into(self._map, 0, self._tasks)


class StepTimes(trio.abc.Instrument):
    """Times every step of every task into a mapped file; whoever fills the file with zeros begins anew.

    It costs each step about a microsecond.
    """

    def __init__(self, path: Path) -> None:
        self._map = _mapped(path, _STEPS.size)
        self._began_ns = self._cpu_ns = 0
        self._turn_ns = time.perf_counter_ns()
        self._forget()

    def _forget(self) -> None:
        self._count = self._long_count = 0
        self._longest_ns = self._longest_cpu_ns = self._longest_pass_ns = self._longest_turn_ns = 0
        self._name = self._cpu_name = b""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """It is on."""
        self._cpu_ns = time.thread_time_ns()
        self._began_ns = time.perf_counter_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It waits, or has ended."""
        took_ns = time.perf_counter_ns() - self._began_ns
        cpu_ns = time.thread_time_ns() - self._cpu_ns
        self._look()
        self._count += 1
        COUNT.pack_into(self._map, 0, self._count)
        if task.name == _PASSES:
            if cpu_ns > self._longest_pass_ns:
                self._longest_pass_ns = cpu_ns
                self._write()
            return
        is_long = cpu_ns > LONG_S * 1e9
        self._long_count += is_long
        if took_ns > self._longest_ns:
            self._longest_ns, self._name = took_ns, task.name.encode()[-_NAME_BYTES:]
        elif cpu_ns <= self._longest_cpu_ns and not is_long:
            return
        if cpu_ns > self._longest_cpu_ns:
            self._longest_cpu_ns, self._cpu_name = cpu_ns, task.name.encode()[-_NAME_BYTES:]
        self._write()

    def after_io_wait(self, timeout: float) -> None:
        """A turn begins."""
        self._turn_ns = time.perf_counter_ns()

    def before_io_wait(self, timeout: float) -> None:
        """A turn is over."""
        took_ns = time.perf_counter_ns() - self._turn_ns
        self._look()
        if took_ns > self._longest_turn_ns:
            self._longest_turn_ns = took_ns
            self._write()

    def _look(self) -> None:
        """Begin anew, where somebody has emptied the file."""
        if COUNT.unpack_from(self._map)[0] != self._count:
            self._forget()

    def _write(self) -> None:
        counts = self._count, self._long_count
        times_ns = self._longest_ns, self._longest_cpu_ns, self._longest_pass_ns, self._longest_turn_ns
        _STEPS.pack_into(self._map, 0, *counts, *times_ns, self._name, self._cpu_name)


def steps(path: Path) -> Steps:
    """What the observed process has written to that file."""
    count, long_count, *times_ns, name, cpu_name = _STEPS.unpack(path.read_bytes())
    names = (each.rstrip(b"\0").decode(errors="replace") for each in (name, cpu_name))
    return Steps(count, long_count, *(each / 1e9 for each in times_ns), *names)


def forget_steps(path: Path) -> None:
    """Begin anew."""
    with path.open("r+b") as file:
        file.write(bytes(_STEPS.size))


def _mapped(path: Path, size: int) -> mmap.mmap:
    path.write_bytes(bytes(size))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), size)


_INSTRUMENTS: Final[dict[str, Callable[[Path], trio.abc.Instrument]]] = {"tasks": TaskCount, "steps": StepTimes}


def run_observed(kind: str, path: Path, argv: list[str]) -> int:
    """Run one command of `tickerd` in this process; returns its exit code."""
    plain = trio.run
    instrument = _INSTRUMENTS[kind](path)

    def run(start: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
        return plain(start, *arguments, instruments=[instrument], **options)

    with patch.object(trio, "run", run):
        return main(argv)


if __name__ == "__main__":
    sys.exit(run_observed(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
