"""What comes down to a worker, a pass at a time.

A pass is all that waits in the socket, 256 KiB at most, and is followed by a rest. So under load the batches grow here
as they do where the tape is made.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from typing import Final

import trio

from daemon.publish.sequencer import Passes
from daemon.workers.messages import Frames

_READ_BYTES: Final = 262_144
"""So much is read at once, and makes a pass: some four hundred messages."""

_REST_LEAST_S: Final = 0.002
"""What a busy feed rests, too: a turn of the event loop costs more than a message or two."""

_PART_OF_CLIENTS: Final = 2
"""A worker rests so many times as long as a process that has all clients."""


def rest_s(passes: Passes, took_s: float, *, is_large: bool) -> float:
    """The rest after a pass that took so long.

    A worker has a part of the clients, so its passes are short. By resting longer it makes about as many of them as one
    process would with all clients, and pays for no more. `is_large`: the pass filled what is handed over at once, so a
    larger one would not be cheaper.
    """
    return max(passes.rest_s(took_s if is_large else _PART_OF_CLIENTS * took_s), _REST_LEAST_S)


class Inlet:
    """The end of the link that is read. The plain socket is: trio's own would take another turn of the event loop."""

    def __init__(self, link: socket.socket) -> None:
        """`link`: non-blocking."""
        self._link = link
        self._frames = Frames()
        self._rested_s = -math.inf
        self._is_busy = False
        """Whether more was there last time before the rest was over: then a look at the socket waits until it is."""

    def rest(self, seconds: float) -> None:
        """The next pass begins so much later."""
        self._rested_s = trio.current_time() + seconds

    async def read(self) -> Iterator[tuple[int, bytes]] | None:
        """The frames that are there, as soon as some are and the rest is over; None at the end. A checkpoint.

        To be exhausted before the next call. If cancelled, nothing is lost.

        Raises:
            LinkError: while it is exhausted; a frame is none of ours.
        """
        while True:
            if not self._is_busy:
                await trio.lowlevel.wait_readable(self._link)
                self._is_busy = trio.current_time() < self._rested_s
            if self._is_busy:
                await trio.sleep_until(self._rested_s)
            try:
                data = self._link.recv(_READ_BYTES)
            except BlockingIOError:
                self._is_busy = False
                continue
            except ConnectionError:
                return None
            return self._frames.feed(data) if data else None
