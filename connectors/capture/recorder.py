"""The recorder: takes what connectors receive, as it came, and has a thread write it down.

Nothing waits for it. A connector's `Tap` puts what came into a buffer, which is bounded in bytes; several times a
second a task hands the buffer's content to a thread, which makes lines of it, compresses them and writes them to a file
for each connector and hour (`connectors.capture.journal`). So a crash loses what came within the last `EVERY_S`, and
what the thread was about to write.

While the disk cannot be written to (full, gone, not answering), the thread tries again every `RETRY_S`, and the buffer
fills up. Then what comes newly is dropped, and counted: for each connector a line says how much was lost, when and why,
once there is room again. All the while connectors go on as ever.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import gmtime, strftime
from typing import Annotated, Final

import msgspec
import trio
from msgspec import Meta

from connectors.base import Bytes
from connectors.capture.buffer import FULL, Buffer, BufferedTap, Entry, lines_of
from connectors.capture.journal import Journal
from connectors.capture.lines import FORMAT, Header
from connectors.capture.retention import clear
from connectors.capture.tap import Tap
from connectors.metric import Samples

EVERY_S: Final = 0.25
"""How often what came is written."""

RETRY_S: Final = 1.0
"""The wait after something could not be written."""

LATE_S: Final = 5.0
"""A disk that needs longer for it counts as trouble."""

CLOSE_S: Final = 5.0
"""How long a stop waits for the disk."""

_LOOK_S: Final = 1.0
_CLEAR_S: Final = 60.0
"""How often old files are looked for."""

_LATE: Final = f"takes longer than {LATE_S:g} s"

_log: Final = logging.getLogger(__name__)


class RecordSettings(msgspec.Struct, frozen=True):
    """`[record]`: whether and where what the venues send is recorded, and how much of it is kept.

    Attributes:
        path: a folder that exists; "": nothing is recorded.
        keep_s: files of hours that ended longer ago are removed.
        keep_bytes: the oldest files are removed while all of them take more.
        buffer_bytes: what may wait for the disk.
    """

    path: str = ""
    keep_s: Annotated[float, Meta(ge=3600, le=10 * 366 * 86_400)] = 7 * 86_400.0
    keep_bytes: Bytes = 10 * 2**30
    buffer_bytes: Annotated[int, Meta(ge=65_536, le=2**40)] = 32 * 2**20


class RecordStatistics(msgspec.Struct, frozen=True):
    """Counts since the start, and what holds now.

    Attributes:
        frames: frames that were written.
        lines: all lines that were written, those of frames too.
        dropped: frames that could not be.
        raw_bytes: what the lines are, before they are compressed.
        written_bytes: what was written.
        waiting_bytes: what waits in the buffer.
        kept_bytes: what all files of the folder take.
        removed: files that were removed because they were old, or many.
        failures: attempts to write that failed.
    """

    frames: int
    lines: int
    dropped: int
    raw_bytes: int
    written_bytes: int
    waiting_bytes: int
    kept_bytes: int
    removed: int
    failures: int


class _Batch(msgspec.Struct):
    """What is written in one go: the buffer's content, and how many bytes of the buffer it takes."""

    entries: list[Entry]
    size: int


class Recorder:
    """Records what connectors receive. Owned by one task (`run`); its taps are called by any, and never wait.

    Attributes:
        trouble: why nothing is recorded just now; "" while all is well.
    """

    def __init__(
        self,
        settings: RecordSettings,
        now_ms: Callable[[], int],
        *,
        daemon: str,
        noted: Callable[[str, int], None] = lambda _reason, _frames: None,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        """Set up; nothing is opened before something comes.

        Args:
            settings: `[record]`, with a path.
            now_ms: the wall clock.
            daemon: the daemon's version, for the files' headers.
            noted: called while there is trouble, with the reason and how many more frames were dropped.
            over: called when it is over.
        """
        self.trouble = ""
        self._folder = Path(settings.path)
        self._settings = settings
        self._now_ms = now_ms
        self._daemon = daemon
        self._run = now_ms()
        self._noted, self._over = noted, over
        self._taps: list[BufferedTap] = []
        self._buffer = Buffer(settings.buffer_bytes, lambda: self.trouble)
        self._batch: _Batch | None = None
        """On its way to the disk."""
        self._writing = threading.Lock()
        self._reason = ""
        self._late = False
        self._began_s: float | None = None
        self._cleared_s = -float("inf")
        self._frames = self._lines = self._raw = self._kept = self._removed = self._failures = 0
        self._written_before = 0
        self._told_dropped = 0

    def tap(
        self,
        venue: str,
        connector: str,
        carries: tuple[str, ...],
        channels: Sequence[dict[str, object]],
        settings: dict[str, object],
    ) -> Tap:
        """A tap for a connector of that name, which carries some of the venue's channels.

        A connector that is made anew gets another one, and other files.
        """
        header = Header(
            format=FORMAT,
            venue=venue,
            connector=connector,
            carries=carries,
            run=self._run,
            channels=list(channels),
            settings=settings,
            daemon=self._daemon,
        )
        tap = BufferedTap(self._buffer, Journal(self._folder, header))
        self._taps.append(tap)
        return tap

    # ---- the task -------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what comes, until cancelled. If cancelled, what is on its way is left to its thread; `close` waits."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_after)
            task_status.started()
            while True:
                await trio.sleep(RETRY_S if self._reason else EVERY_S)
                self._began_s = trio.current_time()
                try:
                    await trio.to_thread.run_sync(self._flush, self._next(), abandon_on_cancel=True)
                except OSError as error:
                    self._failed(error)
                else:
                    self._wrote()
                finally:
                    self._began_s = None

    def _next(self) -> _Batch:
        """What is to be written: what could not be written before, else the buffer's content."""
        if self._batch is None:
            self._batch = _Batch(*self._buffer.take(self._taps))
        return self._batch

    def _wrote(self) -> None:
        if self._batch is not None:
            self._buffer.release(self._batch.size)
            self._batch = None
        for tap in [tap for tap in self._taps if tap.is_over]:
            self._written_before += tap.journal.written_bytes
            self._taps.remove(tap)
        if self._reason:
            self._reason = ""
            self._judge()

    def _failed(self, error: OSError) -> None:
        self._failures += 1
        self._reason = _said(error)
        self._judge()

    def _judge(self) -> None:
        """Say so where there is trouble, or none any more."""
        before, self.trouble = self.trouble, self._reason or (_LATE if self._late else "")
        if self.trouble and self.trouble != before:
            text = "what the venues send is not recorded: %s %s; tried again every %g s"
            _log.error(text, self._folder, self.trouble, RETRY_S)
        elif before and not self.trouble:
            _log.info("%s is written again; %d frames in all were not recorded", self._folder, self._buffer.dropped)
            self._tell_dropped()
            self._over()

    async def _look_after(self) -> None:
        """Notice a disk that does not answer, and tell of what was dropped."""
        while True:
            await trio.sleep(_LOOK_S)
            late = self._began_s is not None and trio.current_time() - self._began_s > LATE_S
            if late is not self._late:
                self._late = late
                self._judge()
            if self.trouble or self._buffer.dropped != self._told_dropped:
                self._tell_dropped()

    def _tell_dropped(self) -> None:
        dropped = self._buffer.dropped
        new, self._told_dropped = dropped - self._told_dropped, dropped
        if self.trouble or new:
            self._noted(self.trouble or FULL, new)

    async def close(self) -> None:
        """Write the rest, and say in each file that it is complete. Call this when the connectors have ended.

        Takes `CLOSE_S` at most, also if cancelled.
        """
        done = False
        with trio.move_on_after(CLOSE_S, shield=True):
            await trio.to_thread.run_sync(self.finish, abandon_on_cancel=True)
            done = True
        if not done:
            _log.error("%s did not take the rest of the recording within %g s", self._folder, CLOSE_S)

    # ---- the thread -----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """As `close`, but blocking."""
        failed: OSError | None = None
        for _ in range(2):  # what was on its way, and what came since
            try:
                self._flush(self._next())
            except OSError as error:
                failed = error
            self._wrote()
        with self._writing:
            for tap in self._taps:
                try:
                    tap.journal.close(tap.ending or "the daemon is stopping", self._now_ms())
                except OSError as error:
                    failed = error
        if failed is not None:
            _log.error("%s did not take the rest of the recording: %s", self._folder, _said(failed))

    def _flush(self, batch: _Batch) -> None:
        """Write a batch, and what could not be written before; remove what is old.

        Every connector is tried, whatever becomes of the others.

        Raises:
            OSError: something of it could not be written; then the same batch is to be given again.
        """
        failed: OSError | None = None
        with self._writing:
            entries, batch.entries = batch.entries, []
            for tap, chunks in lines_of(entries).items():
                tap.unwritten += chunks
            for tap in self._taps:
                try:
                    self._write(tap)
                except OSError as error:
                    failed = error
            try:
                self._clear()
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _write(self, tap: BufferedTap) -> None:
        while tap.unwritten:
            chunk = tap.unwritten[0]
            tap.journal.write(chunk)
            del tap.unwritten[0]
            self._frames += chunk.frames
            self._lines += chunk.text.count(b"\n")
            self._raw += len(chunk.text)
        if not tap.ending:
            tap.journal.settle(self._now_ms())
        elif not self._buffer.has(tap):
            tap.journal.close(tap.ending, self._now_ms())
            tap.is_over = True

    def _clear(self) -> None:
        now_s = self._now_ms() / 1000
        if abs(now_s - self._cleared_s) < _CLEAR_S:
            return
        oldest = strftime("%Y-%m-%dT%H", gmtime(now_s - self._settings.keep_s))
        kept = {tap.journal.path for tap in self._taps if tap.journal.path is not None}
        removed, self._kept = clear(
            self._folder, oldest_hour=oldest, keep_bytes=self._settings.keep_bytes, keep_paths=kept
        )
        self._cleared_s = now_s
        self._removed += len(removed)
        if removed:
            _log.info("%s: %d old files were removed, %s the last", self._folder, len(removed), removed[-1].name)

    # ---- numbers --------------------------------------------------------------------------------------------------

    def statistics(self) -> RecordStatistics:
        """The counts so far."""
        return RecordStatistics(
            frames=self._frames,
            lines=self._lines,
            dropped=self._buffer.dropped,
            raw_bytes=self._raw,
            written_bytes=self._written_before + sum(tap.journal.written_bytes for tap in self._taps),
            waiting_bytes=self._buffer.held_bytes,
            kept_bytes=self._kept,
            removed=self._removed,
            failures=self._failures,
        )

    def measure(self, samples: Samples) -> None:
        """Add how much was recorded, and what was not."""
        counts = self.statistics()
        samples.count("tickerd_record_frames", "Frames of venues that were recorded.", counts.frames)
        samples.count("tickerd_record_dropped", "Frames and bodies that could not be recorded.", counts.dropped)
        samples.count("tickerd_record_raw_bytes", "What was recorded, before it was compressed.", counts.raw_bytes)
        samples.count("tickerd_record_written_bytes", "The same, as it was written.", counts.written_bytes)
        samples.count("tickerd_record_failures", "Attempts to write the recording that failed.", counts.failures)
        samples.count("tickerd_record_removed", "Files removed because they were old, or many.", counts.removed)
        samples.value("tickerd_record_waiting_bytes", "What waits for the disk.", counts.waiting_bytes)
        samples.value("tickerd_record_waiting_bytes_max", "How much may wait.", self._settings.buffer_bytes)
        samples.value("tickerd_record_kept_bytes", "What all files of the recording take.", counts.kept_bytes)
        recording = "1 while what the venues send is being recorded, else 0."
        samples.value("tickerd_record_recording", recording, int(not self.trouble))


def _said(error: OSError) -> str:
    """What is wrong, in words that follow the folder's name."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "cannot be written: the disk is full"
        case errno.ENOENT | errno.ENOTDIR:
            return "is not there: the folder has vanished"
        case _:
            return f"cannot be written: {error.strerror or os.strerror(error.errno or errno.EIO)}"
