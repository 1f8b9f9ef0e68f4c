"""Logging: one line per record to standard error, without ever waiting for the reader of standard error.

Records go through a bounded queue to a thread that writes. When the reader stalls (a full pipe, a stopped terminal) the
queue fills and further lines are dropped and counted; the count is logged as soon as lines can be written again. So a
log line costs the event loop its formatting and nothing else. `daemon.host.log_limit` limits how many lines of one kind
are written.

JSON lines carry a record's own fields (`extra`) beside its text. Lines about a client's connect and close, a refusal or
a channel's state have `event`, `peer`, `channel`, `code` and so on.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from logging.handlers import QueueHandler
from typing import Final, Literal, TypeAlias

import msgspec

from daemon.host.log_limit import WINDOW_S, LogLimit

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Format: TypeAlias = Literal["auto", "text", "json"]

QUEUE_LINES: Final = 4096
FLUSH_S: Final = 2.0
"""How long `stop` waits until the last lines are written."""

QUIET: Final = ("trio_websocket", "httpx", "httpcore")
"""Libraries that log each connection or request at `info`."""

STDERR: Final = 2

_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    0x09: "\\t",
    0x0A: "\\n",
    0x0D: "\\r",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
"""Characters that end a line or control a terminal are escaped: a record stays one line, whoever wrote its text."""


class LogSettings(msgspec.Struct, frozen=True):
    """`[log]`: the lowest level that is written, and the form; see `setup`."""

    level: Level = "info"
    format: Format = "auto"


def setup(
    level: Level, format_: Format, *, worker: int = 0, fd: int = STDERR, queue_lines: int = QUEUE_LINES
) -> Callable[[], None]:
    """Send the root logger's records to a file descriptor.

    Args:
        level: The lowest level that is written.
        format_: `text`, `json`, or `auto`: text, in the journal's own form where the descriptor is the journal.
        worker: Which of the daemon's workers this process is, to be named in each line; 0 for none.
        fd: Where the lines go.
        queue_lines: How many lines wait for a stalled reader before more are dropped.

    Returns:
        A function that stops it: it writes the queued lines, for `FLUSH_S` at most, and removes the handler.
    """
    lines: queue.Queue[str | None] = queue.Queue(queue_lines)
    handler = _BoundedHandler(lines)
    handler.setFormatter(_formatter(format_, journal=is_journal(fd), worker=worker))
    limit = LogLimit()
    handler.addFilter(limit)
    writer = threading.Thread(target=_write, args=(lines, handler, limit, fd), name="log writer", daemon=True)
    root = logging.getLogger()
    level_before = root.level
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    writer.start()

    def stop() -> None:
        root.removeHandler(handler)
        root.setLevel(level_before)
        deadline = time.monotonic() + FLUSH_S
        try:
            lines.put(None, timeout=FLUSH_S)
        except queue.Full:
            return
        writer.join(max(0.0, deadline - time.monotonic()))

    return stop


def is_journal(fd: int) -> bool:
    """Whether systemd connected the descriptor to the journal: `$JOURNAL_STREAM` is its device and inode.

    Source: systemd.exec(5), JOURNAL_STREAM.
    """
    try:
        device, inode = map(int, os.environ.get("JOURNAL_STREAM", "").split(":"))
        stat = os.fstat(fd)
    except (ValueError, OSError):
        return False
    return (stat.st_dev, stat.st_ino) == (device, inode)


class _BoundedHandler(QueueHandler):
    """Never waits. Formats in the thread that logs, so that the line shows its arguments as they were then."""

    def __init__(self, lines: queue.Queue[str | None]) -> None:
        super().__init__(lines)
        self._lines = lines
        self._dropped = 0
        self.dropped_count = 0

    def prepare(self, record: logging.LogRecord) -> str:
        """Replace the record by the finished line."""
        return self.format(record)

    def enqueue(self, record: object) -> None:
        """Queue the line that `prepare` made; if the queue is full, count it. Called under the handler's lock."""
        try:
            self._lines.put_nowait(str(record))
        except queue.Full:
            self._dropped += 1
            self.dropped_count += 1

    def take_dropped(self) -> int:
        """How many lines were dropped since the last call."""
        self.acquire()
        try:
            dropped, self._dropped = self._dropped, 0
        finally:
            self.release()
        return dropped


def dropped_count() -> int:
    """How many lines this process has dropped since the start because the reader stalled."""
    handlers = logging.getLogger().handlers
    return sum(handler.dropped_count for handler in handlers if isinstance(handler, _BoundedHandler))


def _write(lines: queue.Queue[str | None], handler: _BoundedHandler, limit: LogLimit, fd: int) -> None:
    """Write lines until the end marker (None). If the descriptor fails, the lines are lost."""
    while True:
        try:
            line = lines.get(timeout=WINDOW_S)
        except queue.Empty:
            line = ""
        for record in limit.overdue(ending=line is None):
            _write_line(fd, handler.format(record))
        dropped = handler.take_dropped()
        if dropped:
            notice = logging.makeLogRecord(
                {
                    "name": __name__,
                    "levelno": logging.WARNING,
                    "levelname": "WARNING",
                    "msg": "%d log lines dropped: their reader stalled",
                    "args": (dropped,),
                }
            )
            _write_line(fd, handler.format(notice))
        if line is None:
            return
        if line:
            _write_line(fd, line)


def _write_line(fd: int, line: str) -> None:
    # Not through sys.stderr: a thread stuck inside its lock would make the interpreter's own exit fail.
    rest = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        # There is nowhere left to report this.
        return


def _formatter(format_: Format, *, journal: bool, worker: int) -> logging.Formatter:
    if format_ == "json":
        return _JsonFormatter(journal=journal, worker=worker)
    return _TextFormatter(journal=journal and format_ == "auto", worker=worker)


_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)


def _priority(level: int) -> int:
    """The syslog priority, which the journal reads from the start of a line: sd-daemon(3)."""
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)


def _timestamp(record: logging.LogRecord) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{moment}.{int(record.msecs):03d}Z"


class _TextFormatter(logging.Formatter):
    """`2025-12-08T16:30:45.123Z INFO daemon.app: message`; for the journal `<6>daemon.app: message`.

    A worker's line begins its message with `worker 1: `.
    """

    def __init__(self, *, journal: bool, worker: int = 0) -> None:
        super().__init__()
        self._journal = journal
        self._by = f"worker {worker}: " if worker else ""

    def format(self, record: logging.LogRecord) -> str:
        parts = [record.getMessage()]
        if record.exc_info:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(record.stack_info)
        message = "\n".join(parts).translate(_ESCAPES)
        if self._journal:
            return f"<{_priority(record.levelno)}>{record.name}: {self._by}{message}"
        return f"{_timestamp(record)} {record.levelname} {record.name}: {self._by}{message}"


_EVERY_RECORDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _JsonFormatter(logging.Formatter):
    """One JSON object per line. The journal adds its own timestamp, and reads the priority in front of the object.

    A worker's has its number as `worker`.
    """

    def __init__(self, *, journal: bool, worker: int = 0) -> None:
        super().__init__()
        self._journal = journal
        self._by = {"worker": worker} if worker else {}

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {} if self._journal else {"timestamp": _timestamp(record)}
        fields |= {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        fields |= self._by
        own = {name: value for name, value in record.__dict__.items() if name not in _EVERY_RECORDS}
        fields |= {name: value for name, value in own.items() if name not in fields}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        # ASCII only, so that no character can end the line.
        line = json.dumps(fields, default=str)
        return f"<{_priority(record.levelno)}>{line}" if self._journal else line
