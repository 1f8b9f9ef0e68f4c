"""One worker, as its parent sees it: its process, through all of its lives, and the link to it.

Nobody waits for a worker. It is handed what is new by a write to its socket, as the fan-out does with clients; what the
socket does not take stands in the outlet, within a bound. A worker that is further behind than that, that takes nothing
for some seconds, or that does not answer, is killed and started anew. So is one that ends by itself: at once, and if
that goes on, at growing intervals.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import trio

from daemon.host.clock import WallClock
from daemon.publish import parts
from daemon.publish.outlet import Outlet, OvertakenError
from daemon.workers.messages import (
    MESSAGE,
    Begin,
    Down,
    Filled,
    Frames,
    LinkError,
    Look,
    Ready,
    Seen,
    Setup,
    Up,
    framed,
    framed_part,
    read_up,
)
from daemon.workers.spawn import spawn

_SEND_BYTES: Final = 262_144
"""So much is handed to the link at once."""

_READ_BYTES: Final = 65_536

STALLED_S: Final = 10.0
"""A worker whose link takes nothing for so long is killed."""

SILENT_S: Final = 20.0
"""So is one that does not answer for so long."""

READY_S: Final = 60.0
"""And one that does not let clients in so long after it was started."""

_BACKOFF_S: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""How long a worker that has ended stays away: the first time, the second time, and so on."""

_WELL_S: Final = 60.0
"""After so long it counts as the first time again."""

_END_S: Final = 5.0
"""How long a worker may take to end when its link has ended."""

_REAP_S: Final = 2.0

_log: Final = logging.getLogger(__name__)


class WorkerError(Exception):
    """A worker ended at the start, before it let clients in; `str()` says which and how."""


class Heard(Protocol):
    """Who deals with what workers say."""

    def heard(self, worker: Worker, message: Up) -> None:
        """It said this. Sync."""
        ...

    def came(self, worker: Worker) -> None:
        """It lets clients in."""
        ...

    def went(self, worker: Worker, why: str) -> None:
        """It has ended; `why`: as `was killed by signal 9`; "" where it was told to."""
        ...


class Worker:
    """One worker.

    Attributes:
        number: from 1.
        pid: of its process; None while there is none.
        is_ready: whether it lets clients in.
        since_ms: when its process was started, ms since 1970.
        restarts: how often it had to be started again.
        lag: how many messages of the tape it had yet to take when it told its progress last.
        seen: the number of the newest canary that it saw.
    """

    def __init__(self, number: int, outlet: Outlet, clock: WallClock, listener: Heard) -> None:
        """`listener` is told what it says, and when it comes and goes."""
        self.number = number
        self.pid: int | None = None
        self.is_ready = False
        self.since_ms = clock.now_ms()
        self.restarts = self.lag = self.seen = 0
        self._last = trio.Event()
        self._outlet = outlet
        self._clock = clock
        self._listener = listener
        self._next = self._sent_bytes = 0
        """The number of the next part that it is to be sent, and how long all those before it were."""
        self._rest = memoryview(b"")
        """What its socket did not take of the last write."""
        self._blocked = trio.Event()
        self._plain: socket.socket | None = None
        """Its link, when it has the tape as it was at the beginning."""
        self._waiting: deque[tuple[int, bytes]] = deque()
        """Messages, each with the number of the part that it comes before."""
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._why = ""
        self._came = self._leaves = False
        self._may_begin = trio.Event()
        self._may_begin.set()
        self._owes_s: float | None = None
        """Since when it owes an answer."""

    @property
    def lag_bytes(self) -> int:
        """How much of the tape waits to be sent to it."""
        return self._outlet.made_bytes - self._sent_bytes if self.is_ready else 0

    @property
    def next(self) -> int:
        """The number of the next part that it is to be sent; that of the next one at all where there is no process."""
        return self._next if self._link is not None else self._outlet.next

    def say(self, message: Down) -> None:
        """Send it this, in order with the tape, as soon as it takes it. Nothing where there is no process."""
        if self.pid is not None:
            self._waiting.append((self._outlet.next, framed(message)))
            self.push()

    def push(self) -> None:
        """Write what is new, as far as its socket takes it; the rest is for `_flush`. Sync, and raises nothing."""
        if self._plain is None or self._rest:
            return
        try:
            while not self._rest and (data := self._due()):
                self._rest = memoryview(data)
                self._write(self._plain)
        except OvertakenError:
            self.kill("was killed: it was too slow, and is further behind than is kept for it")
        except OSError:
            return  # it has ended, as others find out
        if self._rest:
            self._blocked.set()

    def _write(self, link: socket.socket) -> None:
        """Write what is left of the last frames once. Raises: OSError, where that is over."""
        with suppress(BlockingIOError):
            self._rest = self._rest[link.send(self._rest) :]

    def let_end(self) -> None:
        """It is not to be started again."""
        self._last.set()
        self._may_begin.set()

    def leave(self, *words: Down) -> None:
        """Its process is to end by itself, by these words; the next one begins after `go_on`."""
        self._leaves = self.pid is not None
        self._may_begin = trio.Event()
        for each in words:
            self.say(each)

    def go_on(self) -> None:
        """The next process may begin."""
        self._may_begin.set()

    def look(self, number: int) -> None:
        """It is to say when it has seen that canary, which is on the tape."""
        if self.is_ready:
            self._owes_s = trio.current_time() if self._owes_s is None else self._owes_s
            self.say(Look(number))

    def kill(self, why: str) -> None:
        """End its process at once; `why`: as `was killed: it was too slow`."""
        if self._process is not None and self._process.poll() is None:
            self._why = self._why or why
            self._process.kill()

    def dismiss(self) -> None:
        """Nothing more is to come: it ends by itself when it has read this."""
        if self._link is not None:
            with suppress(OSError):
                self._link.shutdown(socket.SHUT_WR)

    def check(self) -> None:
        """Kill it where it has not answered for too long."""
        if self._owes_s is not None and trio.current_time() - self._owes_s > SILENT_S:
            self.kill(f"was killed: it did not answer for {SILENT_S:g} s")

    async def run(
        self,
        setup: Callable[[], tuple[Setup, Sequence[int]]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep it running until cancelled, or until it ends after `let_end`; then its process is gone.

        Started when it lets clients in.

        `setup`: makes its first message, and the descriptors that it inherits.

        Raises:
            WorkerError: it ended before it let clients in for the first time.
            OSError: its process cannot be started, the first time.
        """
        failures, is_first = 0, True
        while True:
            while not self._may_begin.is_set():
                await self._may_begin.wait()
            if self._last.is_set() and not is_first:
                return
            began_s = trio.current_time()
            try:
                why = await self._live(setup, task_status if is_first else None)
            except OSError as error:
                if is_first:
                    raise
                why = f"could not be started: {error.strerror or error}"
            is_told, self._leaves = self._leaves, False
            if is_first and not self._came and not is_told:
                raise WorkerError(f"worker {self.number} {why} before it let clients in")
            is_first = is_first and not self._came
            if self._last.is_set():
                self._listener.went(self, why)
                return
            if is_told:
                self._listener.went(self, "")
                continue
            failures = 1 if trio.current_time() - began_s >= _WELL_S else failures + 1
            wait_s = _BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1]
            again = f"in {wait_s:g} s" if wait_s else "at once"
            _log.error("worker %d %s; it is started again %s", self.number, why, again, extra={"event": "worker"})
            self.restarts += 1
            self._listener.went(self, why)
            with trio.move_on_after(wait_s):
                await self._last.wait()
                return

    async def _live(
        self, setup: Callable[[], tuple[Setup, Sequence[int]]], task_status: trio.TaskStatus[None] | None
    ) -> str:
        """One life. Returns how it ended."""
        self._why, self._came, self._owes_s = "", False, None
        self._waiting.clear()
        message, inherited = setup()
        with self._process_of(inherited) as (process, link):
            self._process, self._link = process, link
            self.pid, self.since_ms = process.pid, self._clock.now_ms()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, message, link)
                    nursery.start_soon(self._receive, link, task_status)
                    nursery.start_soon(self._wait_ready)
                    await _wait_ended(process)
                    nursery.cancel_scope.cancel(reason="the worker has ended")
            finally:
                self._process = self._link = self._plain = self.pid = self._owes_s = None
                self.is_ready = False
                self.lag = 0
        code = process.returncode
        ended = f"was killed by {_named(-code)}" if code < 0 else f"ended with exit code {code}"
        return self._why or ended

    @contextmanager
    def _process_of(self, inherited: Sequence[int]) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
        """A process, and the link to it; on leaving it is gone."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = spawn(theirs.fileno(), inherited)
            theirs.close()
            try:
                ours.setblocking(False)
                yield process, ours
            finally:
                process.kill()
                try:
                    process.wait(_REAP_S)
                except subprocess.TimeoutExpired:  # the kernel holds it, on a disk that does not answer for one
                    _log.error("worker %d (pid %d) cannot be ended", self.number, process.pid)

    async def _send(self, setup: Setup, link: socket.socket) -> None:
        """Send the beginning; then see to what `push` could not write."""
        try:
            beginning, standing = self._outlet.begin()
            self._next, self._sent_bytes = self._outlet.next, self._outlet.made_bytes
            await self._send_all(link, framed(setup) + framed(Begin(beginning)))
            for part in standing:
                await self._send_all(link, framed_part(parts.encode(part)))
            await self._send_all(link, framed(Filled()))
            self._plain = link
            while True:
                self._blocked = trio.Event()
                self.push()
                await self._blocked.wait()
                await self._flush(link)
        except trio.TooSlowError:
            self.kill(f"was killed: it took nothing for {STALLED_S:g} s")
        except OSError:
            return  # it has ended, as others find out

    async def _flush(self, link: socket.socket) -> None:
        """Write all of the rest. Raises: trio.TooSlowError, where the worker takes nothing; OSError."""
        while self._rest:
            with trio.fail_after(STALLED_S):
                await trio.lowlevel.wait_writable(link)
            self._write(link)

    async def _send_all(self, link: socket.socket, data: bytes) -> None:
        self._rest = memoryview(data)
        await self._flush(link)

    def _due(self) -> bytes:
        """What comes next: parts, and messages behind them. Raises: OvertakenError."""
        frames: list[bytes] = []
        upto, size = self._waiting[0][0] if self._waiting else self._outlet.next, 0
        if self._next < upto:
            for data in self._outlet.kept(self._next, _SEND_BYTES)[: upto - self._next]:
                frames.append(framed_part(data))
                size += len(data)
                self._next += 1
            self._sent_bytes += size
        while self._waiting and self._waiting[0][0] <= self._next and size < _SEND_BYTES:
            frames.append(self._waiting.popleft()[1])
            size += len(frames[-1])
        return b"".join(frames)

    async def _receive(self, link: socket.socket, task_status: trio.TaskStatus[None] | None) -> None:
        frames = Frames()
        try:
            while True:
                await trio.lowlevel.wait_readable(link)
                try:
                    data = link.recv(_READ_BYTES)
                except BlockingIOError:
                    continue
                if not data:
                    break
                for kind, body in frames.feed(data):
                    if kind != MESSAGE:
                        raise LinkError("a worker sends no parts")
                    self._take(read_up(body), task_status)
        except ConnectionError:
            pass  # as the link's end
        except LinkError as error:
            self.kill(f"was killed: {error}")
        await trio.sleep(_END_S)
        self.kill("was killed: it closed its link, and did not end")

    def _take(self, message: Up, task_status: trio.TaskStatus[None] | None) -> None:
        match message:
            case Ready():
                self.is_ready = self._came = True
                self._listener.came(self)
                if task_status is not None:
                    task_status.started()
            case Seen(number):
                self.seen, self._owes_s = number, None
                self._listener.heard(self, message)
            case _:
                self._listener.heard(self, message)

    async def _wait_ready(self) -> None:
        await trio.sleep(READY_S)
        if not self.is_ready:
            self.kill(f"was killed: it was not ready within {READY_S:g} s")


async def _wait_ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process, which is then reaped."""
    fd = os.pidfd_open(process.pid)
    try:
        while process.poll() is None:
            await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
