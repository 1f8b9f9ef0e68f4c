"""What this process uses: CPU time, memory, open files.

prometheus_client's own collector is not used: it first reads /proc/stat, and reports nothing at all where systemd's
`ProcSubset=pid` hides that file. This reads only the process's own files, which stay visible.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import msgspec

_STATM = Path("/proc/self/statm")
_FILES = Path("/proc/self/fd")


class ProcessUsage(msgspec.Struct, frozen=True):
    """What the process uses now.

    Attributes:
        cpu_s: user and system time since the start of the process.
        resident_bytes: memory; None if the system does not report it.
        open_files: file descriptors; None if the system does not report them (Linux before 6.2).
        most_files: the limit on open file descriptors.
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
    """From Linux 6.2 on, the size of the folder is the number of descriptors; before, it is 0.

    Listing the folder instead would block the event loop for some microseconds per client.
    """
    try:
        return _FILES.stat().st_size or None
    except OSError:
        return None
