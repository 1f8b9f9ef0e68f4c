"""Starting a worker's process, with what it inherits and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from daemon.host.program import DAEMON, HOME

_KEPT_BACK: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY")
"""What systemd gave to the parent is for the parent alone."""

_KEPT_BACK_PREFIXES: Final = ("TICKERD_", "LISTEN_")

PARENTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal, or systemd, sends to all processes is the parent's to deal with."""


def spawn(link: int, inherited: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a worker; `link` is the descriptor of its end of the link.

    It shares the working directory, the umask, and standard error. Signals that are the parent's to deal with are
    blocked until it ignores them. This does not wait for more than the start itself.

    Raises:
        OSError: the machine does not allow it.
    """
    flags = ["-I"] if sys.flags.isolated else ["-P"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS)
    try:
        return subprocess.Popen(  # noqa: S603 - this program itself
            [sys.executable, *flags, "-m", f"{DAEMON}.workers", str(link)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(link, *inherited),
            env=environment(os.environ, sys.path[0]),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def environment(environ: Mapping[str, str], first: str) -> dict[str, str]:
    """What a worker sees of the environment. `first` is where this process looks for modules first.

    The configuration is not in it: it comes over the link. A daemon that runs from a checkout has workers of that
    checkout, wherever else the program may be installed.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _KEPT_BACK and not name.upper().startswith(_KEPT_BACK_PREFIXES)
    }
    if Path(first or ".").resolve() == HOME:
        kept["PYTHONPATH"] = os.pathsep.join([str(HOME), *filter(None, [environ.get("PYTHONPATH")])])
    return kept
