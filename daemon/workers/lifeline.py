"""A worker ends with its parent, at once, and even if its event loop hangs.

The parent keeps the writing end of a pipe that nobody writes to. When it dies, in whatever way, the kernel closes that
end, and sends whoever waits for the reading end a signal (fcntl(2), F_SETOWN, O_ASYNC), whose default is to end the
process. `prctl(PR_SET_PDEATHSIG)` would do the same for the thread that started the worker, and needs ctypes, which
systemd's MemoryDenyWriteExecute may refuse.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal


def hold(fd: int) -> bool:
    """From now on this process ends when the pipe's writing end is closed. Returns False if it is closed already."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)
