"""Logging: one line per record, the journal's form, and a reader that stalls."""

import fcntl
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.host import logs

log = logging.getLogger("daemon.test")

Written = Callable[[], list[str]]
Setup = Callable[..., Written]


@pytest.fixture(autouse=True)
def no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)


@pytest.fixture
def set_up() -> Iterator[Setup]:
    """Sets logging up on a pipe; what that returns stops it and reads all lines."""
    opened: list[int] = []

    def start(level: logs.Level = "info", format_: logs.Format = "text", **options: Any) -> Written:
        reader, writer = os.pipe()
        opened.extend((reader, writer))
        stop = logs.setup(level, format_, fd=writer, **options)

        def written() -> list[str]:
            stop()
            os.close(writer)
            opened.remove(writer)
            with os.fdopen(os.dup(reader), encoding="utf-8") as lines:
                return lines.read().split("\n")[:-1]

        return written

    yield start
    for descriptor in opened:
        os.close(descriptor)


def test_a_record_is_one_line_of_text(set_up: Setup) -> None:
    written = set_up()
    log.info("okx: %d channels", 2)
    [line] = written()
    stamp, rest = line.split(" ", 1)
    assert rest == "INFO daemon.test: okx: 2 channels"
    assert abs(time.time() - time.mktime(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone) < 60
    assert stamp[19] == "."
    assert stamp.endswith("Z")
    assert len(stamp) == len("2025-12-08T16:30:45.123Z")


def test_a_traceback_stays_in_its_line(set_up: Setup) -> None:
    written = set_up()
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        log.exception("failed", stack_info=True)
    [line] = written()
    assert r"daemon.test: failed\nTraceback (most recent call last):\n" in line
    assert r"RuntimeError: first\nsecond" in line
    assert "Stack (most recent call last)" in line


def test_json_is_one_object_a_line(set_up: Setup) -> None:
    written = set_up(format_="json")
    log.warning("a\nb é")
    try:
        raise RuntimeError("x")
    except RuntimeError:
        log.exception("failed", stack_info=True)
    first, second = map(json.loads, written())
    assert first.pop("timestamp").endswith("Z")
    assert first == {"level": "warning", "logger": "daemon.test", "message": "a\nb é"}
    assert second["exception"].endswith("RuntimeError: x")
    assert second["stack"].startswith("Stack (most recent call last)")


@given(st.text())
def test_no_text_makes_a_second_line_or_steers_a_terminal(text: str) -> None:
    record = logging.makeLogRecord({"msg": "%s", "args": (text,), "name": "n", "levelno": 20, "levelname": "INFO"})
    for formatter in (logs._TextFormatter(journal=False), logs._JsonFormatter(journal=True)):
        line = formatter.format(record)
        assert len(line.splitlines()) == 1
        assert "\x1b" not in line
        line.encode("utf-8", "backslashreplace")


def test_arguments_are_shown_as_they_were_when_logged(set_up: Setup) -> None:
    written = set_up()
    channels = ["a"]
    log.info("%s", channels)
    channels.append("b")
    assert written()[0].endswith("daemon.test: ['a']")


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_only_what_matters_enough_is_written(set_up: Setup, level: logs.Level, shown: list[str]) -> None:
    written = set_up(level)
    for name in ("debug", "info", "warning", "error", "critical"):
        log.log(getattr(logging, name.upper()), name)
    assert [line.rpartition(" ")[2] for line in written()] == shown


def test_libraries_that_log_every_request_are_kept_to_warnings(set_up: Setup) -> None:
    written = set_up("debug")
    for name in ("trio_websocket", "httpx", "httpcore", "httpcore.http11"):
        logging.getLogger(name).info("request")
        logging.getLogger(name).warning("trouble")
    assert len(written()) == 4


# The journal.


def as_journal(descriptor: int) -> str:
    stat = os.fstat(descriptor)
    return f"{stat.st_dev}:{stat.st_ino}"


def test_the_journal_is_known_by_device_and_inode(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    assert not logs.is_journal(writer)
    monkeypatch.setenv("JOURNAL_STREAM", as_journal(writer))
    assert logs.is_journal(writer)
    assert not logs.is_journal(0)
    for malformed in ("", "1", "a:b", "1:2:3"):
        monkeypatch.setenv("JOURNAL_STREAM", malformed)
        assert not logs.is_journal(writer)
    monkeypatch.setenv("JOURNAL_STREAM", as_journal(writer))
    os.close(reader)
    os.close(writer)
    assert not logs.is_journal(writer)


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        (
            "auto",
            ["<7>daemon.test: d", "<6>daemon.test: i", "<4>daemon.test: w", "<3>daemon.test: e", "<2>daemon.test: c"],
        ),
        ("json", '<6>{"level": "info", "logger": "daemon.test", "message": "i"}'),
        ("text", " INFO daemon.test: i"),
    ],
)
def test_the_journal_gets_its_priorities_and_stamps_for_itself(
    monkeypatch: pytest.MonkeyPatch, format_: logs.Format, expected: list[str] | str
) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv("JOURNAL_STREAM", as_journal(writer))
    stop = logs.setup("debug", format_, fd=writer)
    for level in ("debug", "info", "warning", "error", "critical"):
        log.log(getattr(logging, level.upper()), level[0])
    stop()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()
    if isinstance(expected, list):
        assert lines == expected
    else:
        assert lines[1].endswith(expected)
        assert lines[1].startswith("<6>") == (format_ == "json")


# A reader that stalls.


def fill(descriptor: int) -> int:
    """Fill a pipe to the brim; returns how many bytes went in."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    count = 0
    try:
        while True:
            count += os.write(descriptor, b"x" * 4096)
    except BlockingIOError:
        pass
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return count


def read_exactly(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(descriptor, count - len(data))
    return data


def test_a_stalled_reader_costs_lines_and_they_are_counted() -> None:
    reader, writer = os.pipe()
    brim = fill(writer)
    stop = logs.setup("info", "text", fd=writer, queue_lines=8)
    for number in range(100):
        log.info(f"line {number}")  # a hundred kinds of line: none is left out for being like another
    # All hundred were logged at once, although nothing could be written.
    read_exactly(reader, brim)
    stop()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()
    notices = [line for line in lines if "dropped" in line]
    kept = [line for line in lines if "daemon.test" in line]
    dropped = sum(int(line.split(": ", 1)[1].split(" ")[0]) for line in notices)
    assert dropped == 100 - len(kept)
    assert 8 <= len(kept) <= 9
    assert kept[0].endswith("line 0")
    assert "WARNING daemon.host.logs" in notices[0]


def test_the_end_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FLUSH_S", 0.05)
    for lines, queue_lines in ((1, 8), (20, 8)):
        reader, writer = os.pipe()
        brim = fill(writer)
        stop = logs.setup("info", "text", fd=writer, queue_lines=queue_lines)
        for _ in range(lines):
            log.info("never read in time")
        began = time.monotonic()
        stop()
        assert time.monotonic() - began < 2
        # Let the writer go: its thread must not outlive the descriptor.
        read_exactly(reader, brim)
        os.close(reader)


def test_a_reader_that_has_gone_is_no_error(set_up: Setup) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stop = logs.setup("info", "text", fd=writer)
    log.info("to nobody")
    stop()
    os.close(writer)


def test_after_the_end_the_root_logger_is_as_it_was(set_up: Setup) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    written = set_up("debug")
    assert len(root.handlers) == len(before[1]) + 1
    written()
    assert (root.level, list(root.handlers)) == before


def test_a_process_whose_reader_stalls_still_ends_in_order() -> None:
    code = (
        "import logging\nfrom daemon.host import logs\nlogs.FLUSH_S = 0.1\n"
        "stop = logs.setup('info', 'text', queue_lines=8)\n"
        "for n in range(3000): logging.warning('x' * 100 + str(n))\n"
        "stop(); print('ended')"
    )
    reader, writer = os.pipe()
    process = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writer, timeout=30, check=False
    )
    os.close(writer)
    os.close(reader)
    assert (process.returncode, process.stdout) == (0, b"ended\n")
