"""What this process costs: CPU time, memory, open files.

Not by prometheus_client's own collector: that one first reads /proc/stat, and says nothing at all where it is hidden,
as systemd's `ProcSubset=pid` does. What is asked here is the process's own, and stays visible.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import msgspec

_STATM = Path("/proc/self/statm")
_FILES = Path("/proc/self/fd")


class ProcessUsage(msgspec.Struct, frozen=True):
    """What is used now.

    Attributes:
        cpu_s: user and system time since the start of the process.
        resident_bytes: memory; None where the system does not say.
        open_files: file descriptors; None where the system does not say, as Linux before 6.2.
        most_files: how many there may be.
    """

    cpu_s: float
    resident_bytes: int | None
    open_files: int | None
    most_files: int


def process_usage() -> ProcessUsage:
    """Ask the kernel. Takes as long with ten thousand open files as with ten."""
    most_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ProcessUsage(time.process_time(), _resident_bytes(), _open_files(), most_files)


def _resident_bytes() -> int | None:
    """The second number of /proc/self/statm, which counts pages: proc(5)."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return None


def _open_files() -> int | None:
    """From Linux 6.2 on the size of the folder is their number. Before, it is 0.

    Reading the folder instead would hold up the event loop by some microseconds per client.
    """
    try:
        return _FILES.stat().st_size or None
    except OSError:
        return None
