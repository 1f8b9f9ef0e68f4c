"""`tickerd`, on a machine whose wall clock can be set: `python -m daemon.commands.rehearse.set_clock FILE run ...`.

Nobody may set the clock of the machine on which he rehearses. So this replaces, in a process of its own and before
anything is imported that reads it, what Python says of the wall clock: the real one and an offset, which FILE holds
(eight bytes, nanoseconds, little-endian) and the rehearsal changes while the daemon runs.
"""

from __future__ import annotations

import mmap
import runpy
import struct
import sys
import time
from pathlib import Path
from typing import Final

from daemon.host.program import DAEMON

_OFFSET_NS: Final = struct.Struct("<q")


def set_clock(path: Path, ahead_s: float) -> None:
    """Put the clock that this file stands for so far ahead of the real one. Raises: OSError."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(_OFFSET_NS.pack(round(ahead_s * 1e9)))


def _replace_clock(path: Path) -> None:
    with path.open("rb") as file:
        offset = mmap.mmap(file.fileno(), _OFFSET_NS.size, prot=mmap.PROT_READ)
    read_ns = time.time_ns

    def now_ns() -> int:
        return read_ns() + int(_OFFSET_NS.unpack(offset[:])[0])

    vars(time).update(time_ns=now_ns, time=lambda: now_ns() / 1e9)


if __name__ == "__main__":
    _replace_clock(Path(sys.argv.pop(1)))
    runpy.run_module(DAEMON, run_name="__main__", alter_sys=True)
