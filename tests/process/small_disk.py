"""A disk of a few megabytes that a test can fill: a tmpfs in a mount namespace of its own, which nobody else sees."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILLER = "filler"
_READY = "mounted"


class NoMountError(Exception):
    """This machine does not allow a mount namespace of one's own; `str()` is why."""


class SmallDisk:
    """The disk, held by a process that does nothing else.

    Attributes:
        inside: where the disk is for whoever is started with `command`.
        outside: the same for everybody else.
        command: put before a command, it runs that where the disk is.
    """

    def __init__(self, folder: Path, holder: int) -> None:
        self.inside = folder
        self.outside = Path(f"/proc/{holder}/root{folder}")
        namespaces = ("--mount",) if os.geteuid() == 0 else ("--user", "--mount", "--preserve-credentials")
        self.command = ("nsenter", "--target", str(holder), *namespaces)

    def fill(self) -> None:
        """Leave not a byte."""
        for size in (65536, 4096, 1):
            try:
                with (self.outside / _FILLER).open("ab", buffering=0) as file:
                    while True:
                        file.write(b"." * size)
            except OSError:
                continue

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.outside / _FILLER).unlink()

    def remount(self, *, writable: bool) -> None:
        """Make it read-only, or writable again. Nobody may have a file open for writing."""
        mount = ("mount", "-o", f"remount,{'rw' if writable else 'ro'}", str(self.inside))
        subprocess.run([*self.command, *mount], check=True)


@contextmanager
def small_disk(folder: Path, megabytes: int = 4) -> Iterator[SmallDisk]:
    """Such a disk at a folder that exists.

    Raises:
        NoMountError: this machine does not allow it.
    """
    unshare = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
    script = f'mount -t tmpfs -o size={megabytes}m tickerd "$0" && echo {_READY} && exec sleep infinity'
    with subprocess.Popen(
        [*unshare, "sh", "-c", script, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stderr is not None
            if holder.stdout.readline().strip() != _READY:
                raise NoMountError(f"no mount namespace of one's own: {holder.stderr.read().strip()}")
            yield SmallDisk(folder, holder.pid)
        finally:
            holder.kill()
