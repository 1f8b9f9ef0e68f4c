"""Limits how many log lines of one kind are written, so that a scanner or a reconnect storm cannot fill the journal.

The kind of a line is its logger, its level and its text before the arguments are filled in; also its channel or
connector, if it names one, and the place where its exception was raised, if it has one. So frequent lines never hide
rare ones, and the first line of a kind in a window (`WINDOW_S`) is always written. Suppressed lines are counted, and
one line per kind reports the count when the window ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

LINES: Final = 50
WINDOW_S: Final = 10.0

_MOST_KINDS: Final = 1000
"""Beyond this, all further lines of a logger and level are one kind: texts that always differ must not take memory."""

_MOST_TEXT: Final = 200

_NAMED: Final = ("channel", "connector")
"""Fields (`extra`) that take few values, so each value may be a kind of its own. Never addresses."""

_Kind: TypeAlias = tuple[str | int, ...]


class LogLimit(logging.Filter):
    """A handler's filter. Any thread may log through it; the thread that writes asks it for overdue reports.

    Lines below `info` are not counted: an operator who turns them on wants them all.
    """

    def __init__(
        self, lines: int = LINES, window_s: float = WINDOW_S, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._lines = lines
        self._window_s = window_s
        self._now_s = now_s
        self._lock = threading.Lock()
        self._counts: dict[_Kind, int] = {}
        self._due: dict[_Kind, tuple[str, int, str, int]] = {}
        self._until_s = now_s() + window_s

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the line."""
        if record.levelno < logging.INFO:
            return True
        kind = _kind(record)
        with self._lock:
            if self._now_s() >= self._until_s:
                self._begin()
            if kind not in self._counts and len(self._counts) >= _MOST_KINDS:
                kind = (record.name, record.levelno)
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
            if count <= self._lines:
                return True
            if kind in self._due or len(self._due) < _MOST_KINDS:
                name, level, text, left_out = self._due.get(kind, (record.name, record.levelno, _text(record), 0))
                self._due[kind] = name, level, text, left_out + 1
            return False

    def overdue(self, *, ending: bool = False) -> list[logging.LogRecord]:
        """One record per kind that reports its suppressed lines; none before the window ends, unless `ending`."""
        with self._lock:
            if self._now_s() < self._until_s and not ending:
                return []
            due = tuple(self._due.values())
            self._due.clear()
            self._begin()
        return [self._told(*each) for each in due]

    def _begin(self) -> None:
        self._counts.clear()
        self._until_s = self._now_s() + self._window_s

    def _told(self, name: str, level: int, text: str, count: int) -> logging.LogRecord:
        told = {
            "name": name,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": "%d more like this in the last %g s: %s",
            "args": (count, self._window_s, text),
            "left_out": count,
        }
        return logging.makeLogRecord(told)


def _text(record: logging.LogRecord) -> str:
    return str(record.msg)[:_MOST_TEXT]


def _kind(record: logging.LogRecord) -> _Kind:
    fields = record.__dict__
    named = tuple(str(fields[name]) for name in _NAMED if name in fields)
    kind: _Kind = (record.name, record.levelno, _text(record), *named)
    if record.exc_info and record.exc_info[1] is not None:
        kind += _raised_at(record.exc_info[1])
    return kind


def _raised_at(error: BaseException) -> _Kind:
    """What was raised and where; of a group, the first of its exceptions."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = (place.tb_frame.f_code.co_filename, place.tb_lineno) if place is not None else ()
    return (type(error).__name__, *where)
