"""Too many lines of one kind: what is left out, what never is, and how that is told."""

import json
import logging
import os
import threading

import pytest

from daemon.host import logs
from daemon.host.log_limit import LogLimit


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> LogLimit:
    return LogLimit(lines=3, window_s=10.0, now_s=clock)


def record(
    text: str = "client %s connected", *args: object, level: int = logging.INFO, **fields: object
) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "daemon.test", "levelno": level, "msg": text, "args": args, **fields})


def failure(error: type[Exception], *, deeper: bool = False) -> logging.LogRecord:
    try:
        if deeper:
            raise ExceptionGroup("a nursery's", [error("x")])
        raise error("x")
    except Exception as caught:
        return record("failed", level=logging.ERROR, exc_info=(type(caught), caught, caught.__traceback__))


def told(limit: LogLimit, *, ending: bool = False) -> list[str]:
    return [each.getMessage() for each in limit.overdue(ending=ending)]


def test_of_one_kind_so_many_are_written_and_the_rest_is_counted_and_told_once(limit: LogLimit, clock: Clock) -> None:
    written = [limit.filter(record("client %s connected", f"10.0.0.{at}")) for at in range(20)]
    assert written == [True] * 3 + [False] * 17
    assert told(limit) == []
    clock.now_s += 10.0
    assert told(limit) == ["17 more like this in the last 10 s: client %s connected"]
    assert told(limit) == []
    clock.now_s += 10.0
    assert told(limit) == []


def test_the_next_while_begins_anew_though_nobody_asked_for_what_was_left_out(limit: LogLimit, clock: Clock) -> None:
    for _ in range(2):
        assert [limit.filter(record()) for _ in range(5)] == [True] * 3 + [False] * 2
        clock.now_s += 10.0
    assert told(limit) == ["4 more like this in the last 10 s: client %s connected"]


def test_what_is_common_hides_nothing_that_is_rare(limit: LogLimit) -> None:
    assert [limit.filter(record()) for _ in range(5)][-1] is False
    assert limit.filter(record("another"))
    assert limit.filter(record(level=logging.WARNING))
    assert limit.filter(record(name="daemon.other"))
    assert limit.filter(record(channel="a"))
    assert limit.filter(record(connector="a"))
    assert not limit.filter(record(peer="10.0.0.1"))


def test_each_channel_has_lines_of_its_own(limit: LogLimit) -> None:
    assert all(limit.filter(record("%s: %s", channel=channel)) for channel in "abcdefg" for _ in range(3))
    assert not any(limit.filter(record("%s: %s", channel=channel)) for channel in "abcdefg")


def test_another_failure_is_another_kind_though_the_text_is_the_same(limit: LogLimit) -> None:
    assert [limit.filter(failure(ZeroDivisionError)) for _ in range(5)][-1] is False
    assert limit.filter(failure(KeyError))
    assert limit.filter(failure(KeyError, deeper=True))
    assert [limit.filter(failure(KeyError, deeper=True)) for _ in range(5)][-1] is False


def test_below_info_nothing_is_counted(limit: LogLimit) -> None:
    assert all(limit.filter(record(level=logging.DEBUG)) for _ in range(100))


def test_however_many_kinds_there_are_they_take_no_memory(limit: LogLimit, clock: Clock) -> None:
    for at in range(5000):
        limit.filter(record(f"a text with its number in it, {at}"))
    assert len(limit._counts) <= 1001
    assert not limit.filter(record("one more"))
    assert limit.filter(record("one more", level=logging.ERROR))
    clock.now_s += 10.0
    [line] = told(limit)
    assert line.startswith("3998 more like this")
    for _ in range(3000):  # whoever should tell is stalled
        clock.now_s += 10.0
        for at in range(4):
            limit.filter(record(f"text {clock.now_s:g}", peer=str(at)))
    assert len(limit._due) == 1000


def test_the_end_tells_what_was_left_out() -> None:
    reader, writer = os.pipe()
    stop = logs.setup("info", "json", fd=writer)
    log = logging.getLogger("daemon.test")
    try:
        for at in range(60):
            log.info("client %s connected", f"10.0.0.{at}", extra={"event": "connect", "peer": f"10.0.0.{at}"})
    finally:
        stop()
        os.close(writer)
    with os.fdopen(reader) as lines:
        written = [json.loads(line) for line in lines]
    assert [line["peer"] for line in written[:-1]] == [f"10.0.0.{at}" for at in range(50)]
    assert {line["event"] for line in written[:-1]} == {"connect"}
    assert written[-1]["message"] == "10 more like this in the last 10 s: client %s connected"
    assert (written[-1]["left_out"], written[-1]["logger"], written[-1]["level"]) == (10, "daemon.test", "info")


def test_while_nothing_else_is_logged_it_is_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WINDOW_S", 0.05)
    monkeypatch.setattr(logs, "LogLimit", lambda: LogLimit(lines=1, window_s=0.05))
    reader, writer = os.pipe()
    stop = logs.setup("info", "text", fd=writer)
    try:
        for _ in range(5):
            logging.getLogger("daemon.test").info("again")
        with os.fdopen(reader) as lines:
            guard = threading.Timer(5.0, os.close, [writer])
            guard.start()
            said = [lines.readline() for _ in range(2)]
            guard.cancel()
    finally:
        stop()
        os.close(writer)
    assert said[0].endswith("INFO daemon.test: again\n")
    assert said[1].endswith(" more like this in the last 0.05 s: again\n")


def test_a_records_own_fields_stand_beside_its_text_and_replace_nothing() -> None:
    own = record(
        "x", level=logging.INFO, levelname="INFO", peer="10.0.0.1", code=1008, timestamp="mine", odd={1}, event="close"
    )
    said = json.loads(logs._JsonFormatter(journal=False).format(own))
    assert said["timestamp"] != "mine"
    assert (said["peer"], said["code"], said["event"], said["odd"]) == ("10.0.0.1", 1008, "close", "{1}")
    assert set(said) == {"timestamp", "level", "logger", "message", "peer", "code", "event", "odd"}
