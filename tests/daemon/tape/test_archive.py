"""The tape's file: what survives, what is refused, what is discarded, and that nobody waits for the disk."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trio

from connectors.base import Event
from daemon.host.clock import WallClock
from daemon.tape import archive as archives
from daemon.tape.archive import BLOCK, Archive, ArchiveError
from daemon.tape.ledger import LedgerGap
from daemon.tape.tape import LAST_POSITION, NOTICE, STATUS
from daemon.tape.tape_file import TapeFile
from tests.daemon.fanout.sink import START_MS, Fan

A, A2, B = ("a", "X/U"), ("a", "Y/U"), ("b", "X/U")


class Clock:
    """Wall time that stands still until it is moved."""

    def __init__(self) -> None:
        self.ms = START_MS
        self.wall = WallClock(lambda: self.ms * 1_000_000)


def opened(path: Path, *, entries: int = 100, block: int = 1000, clock: Clock | None = None) -> Archive:
    return Archive.open(path, entries, 10**6, (clock or Clock()).wall, block)


def filled(path: Path, count: int = 5) -> Archive:
    """An archive with so many messages of one topic, all stored."""
    archive = opened(path)
    for number in range(count):
        archive.tape.append(A, b'{"n":%d,"prev_seq":%d}' % (number, number))
    while archive.store():
        pass
    return archive


def killed(archive: Archive, path: Path) -> Path:
    """A copy of the file and its log as a killed process would leave them now."""
    copy = path.with_name("killed")
    for ending in ("", "-wal"):
        shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    archive.finish()
    return copy


def seqs(archive: Archive) -> list[int]:
    tape = archive.tape
    return [entry.seq for entry in tape.between(0, tape.head)]


def rows_of(path: Path) -> list[int]:
    """The positions of the rows in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return [seq for (seq,) in connection.execute("SELECT seq FROM entries ORDER BY seq")]


def gaps(archive: Archive) -> list[tuple[str, int, int | None]]:
    return [(gap.reason, gap.start_ms, gap.end_ms) for gap in archive.ledger.gaps(START_MS) if gap.cause == "restart"]


# What survives.


def test_after_a_clean_stop_the_tape_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    first = opened(tmp_path / "tape", entries=3)
    for topic in (B, ("a", STATUS), A, A2, A, NOTICE):
        first.tape.append(topic, b'{"x":1}')
    before = first.tape
    first.finish()
    second = opened(tmp_path / "tape", entries=3)
    after = second.tape
    assert (after.epoch, after.head, after.tail, len(after)) == (before.epoch, 6, 1, 3)
    assert seqs(second) == seqs(first) == [1, 5, 6]
    assert {share.channel: share.gone for share in after.shares()} == {"a": 4, "b": 0, "!": 0}
    for topic in (A, A2, B, NOTICE, ("a", STATUS)):
        old, new = before.newest(topic), after.newest(topic)
        assert old is not None
        assert new is not None
        assert (old.seq, old.ordinal, old.topic, old.text, old.data) == (
            new.seq,
            new.ordinal,
            new.topic,
            new.text,
            new.data,
        )
        assert after.last_seq(topic) == old.seq
    second.finish()


def test_a_smaller_tape_takes_back_its_newest_part(tmp_path: Path) -> None:
    filled(tmp_path / "tape", 10).finish()
    small = opened(tmp_path / "tape", entries=3)
    assert (seqs(small), small.tape.gone, small.tape.head) == ([8, 9, 10], 7, 10)
    small.finish()
    again = opened(tmp_path / "tape")
    assert seqs(again) == [8, 9, 10]
    again.finish()


def test_the_file_forgets_what_the_tape_has_forgotten(tmp_path: Path) -> None:
    archive = opened(tmp_path / "tape", entries=3)
    archive.tape.append(A2, b"{}")
    for _ in range(500):
        archive.tape.append(A, b"{}")
        archive.store()
    archive.finish()
    with closing(sqlite3.connect(tmp_path / "tape")) as connection:
        rows = connection.execute("SELECT seq FROM entries ORDER BY seq").fetchall()
    assert rows == [(1,), (499,), (500,), (501,)]  # the newest of the slow topic stays


def test_what_left_the_tape_before_it_was_stored_is_counted_and_is_a_hole_afterwards(tmp_path: Path) -> None:
    archive = opened(tmp_path / "tape", entries=3)
    archive.tape.append(A, b"{}")
    archive.store()
    for topic in (A2, A, A, A, A):  # the disk was too slow for this
        archive.tape.append(topic, b"{}")
    archive.store()
    assert archive.statistics().unstored == 1  # 3; 2 was overtaken too, but as the newest of its topic it is still here
    archive.finish()
    again = opened(tmp_path / "tape", entries=3)
    assert seqs(again) == [4, 5, 6]
    newest = again.tape.newest(A2)
    assert newest is not None
    assert newest.seq == 2
    again.finish()


def test_every_channel_has_its_share_in_the_file_too_and_after_a_kill(tmp_path: Path) -> None:
    archive = opened(tmp_path / "tape", entries=6)
    for number in range(3):
        archive.tape.append(B, b'{"n":%d,"prev_seq":%d}' % (number, number))
    for number in range(500):
        archive.tape.append(A, b'{"prev_seq":%d}' % (number + 3 if number else 0))
        if number % 3 == 0:
            archive.store()
    archive.store()
    copy = killed(archive, tmp_path / "tape")
    assert rows_of(tmp_path / "tape") == [1, 2, 3, 501, 502, 503]
    for path in (tmp_path / "tape", copy):
        again = opened(path, entries=6)
        tape = again.tape
        assert seqs(again) == [1, 2, 3, 501, 502, 503]
        assert (tape.gone, tape.gone_of("a"), tape.gone_of("b")) == (500, 500, 0)
        assert (tape.whole(B, 0), tape.whole(A, 499), tape.whole(A, 500)) == (True, False, True)
        tape.append(A, b'{"prev_seq":503}')
        while again.store():
            pass
        assert seqs(again)[:5] == [1, 2, 3, 502, 503]
        again.finish()
        assert rows_of(path) == [1, 2, 3, 502, 503, 1504 if path == copy else 504]


def test_a_file_from_before_there_were_shares_is_taken_as_it_is(tmp_path: Path) -> None:
    archive = opened(tmp_path / "tape", entries=3)
    for topic in (A2, A, A, A, B):
        archive.tape.append(topic, b'{"prev_seq":1}')
    archive.finish()
    with sqlite3.connect(tmp_path / "tape") as connection:
        connection.execute("DROP TABLE gone")
    connection.close()
    again = opened(tmp_path / "tape", entries=3)
    assert (seqs(again), again.tape.broken_at, again.tape.gone_of("a")) == ([3, 4, 5], 0, 1)
    newest = again.tape.newest(A2)
    assert newest is not None
    assert not again.tape.stands(newest)
    again.tape.append(A, b'{"prev_seq":4}')
    again.finish()
    third = opened(tmp_path / "tape", entries=3)
    assert (seqs(third), third.tape.gone_of("a")) == ([4, 5, 6], 3)
    third.finish()


def test_where_it_is_not_known_how_much_of_a_channel_had_left_it_is_told(tmp_path: Path) -> None:
    archive = opened(tmp_path / "tape", entries=3)
    for _ in range(5):
        archive.tape.append(A, b'{"prev_seq":1}')
    archive.finish()
    with sqlite3.connect(tmp_path / "tape") as connection:
        connection.execute("UPDATE gone SET seq = 1")
    connection.close()
    again = opened(tmp_path / "tape", entries=3)
    assert again.tape.broken_at == again.tape.head > 5
    again.finish()


def test_the_ledger_is_kept_and_says_how_the_last_run_ended(tmp_path: Path) -> None:
    clock = Clock()
    first = opened(tmp_path / "tape", clock=clock)
    first.ledger.note("lagged", "", START_MS, messages=7, reason="slow")
    first.tape.append(A, b"{}")
    first.finish()
    clock.ms += 5000
    second = opened(tmp_path / "tape", clock=clock)
    [lagged] = [gap for gap in second.ledger.dump() if gap.cause == "lagged"]
    assert (lagged.messages, lagged.reason) == (7, "slow")
    assert gaps(second) == [("a clean stop at position 1: nothing that was sent is lost", START_MS, START_MS + 5000)]
    second.tape.append(A, b"{}")
    second.store()
    copy = killed(second, tmp_path / "tape")
    clock.ms += 5000
    third = opened(copy, clock=clock)
    reason = "an unclean stop: what was sent between positions 3 and 1002 is not stored"
    assert gaps(third)[0] == (reason, START_MS + 5000, START_MS + 10_000)
    assert len({gap.id for gap in third.ledger.dump()}) == len(third.ledger.dump()) == 3
    third.finish()


def test_a_clock_behind_what_is_stored_is_told_and_orders_nothing(tmp_path: Path) -> None:
    clock = Clock()
    first = opened(tmp_path / "tape", clock=clock)
    first.tape.append(A, b"{}")
    first.store()
    first.finish()
    epoch = first.tape.epoch
    clock.ms -= 3_600_000
    second = opened(tmp_path / "tape", clock=clock)
    assert second.tape.epoch == epoch
    assert second.tape.append(A, b"{}").seq == 2
    said = "nothing that was sent is lost; the clock is 3600 s behind what was stored last"
    reason, start_ms, end_ms = gaps(second)[0]
    assert reason.endswith(said)
    assert (start_ms, end_ms) == (clock.ms, clock.ms), "it does not end before it began"
    second.finish()


def test_gaps_that_the_ledger_has_forgotten_leave_the_file(tmp_path: Path) -> None:
    archive = opened(tmp_path / "tape")
    for number in range(450):
        archive.ledger.record("outage", "a", START_MS, START_MS + number, reason=str(number))
        archive.store()
    archive.finish()
    with closing(sqlite3.connect(tmp_path / "tape")) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM gaps").fetchall()
    assert count == 200


# Positions.


def test_a_start_goes_on_behind_the_reservation_after_anything_but_a_clean_stop(tmp_path: Path) -> None:
    path, used = tmp_path / "tape", 0
    for _ in range(4):
        archive = opened(path, block=50)
        assert archive.tape.head >= used
        for _ in range(7):
            used = archive.tape.append(A, b"{}").seq
        path = killed(archive, path)
        path = path.rename(path.with_name(f"run{used}"))
        Path(f"{path.with_name('killed')}-wal").rename(f"{path}-wal")
    archive = opened(path, block=50)
    assert archive.tape.head > used
    assert archive.tape.broken_at == archive.tape.head
    assert archive.tape.last_seq(A) == archive.tape.last_seq(B) == archive.tape.head
    archive.finish()


def test_positions_are_reserved_anew_when_half_of_them_are_used(tmp_path: Path) -> None:
    archive = opened(tmp_path / "tape", block=100)
    assert archive.tape.limit == 100
    for _ in range(50):
        archive.tape.append(A, b"{}")
    archive.store()
    assert archive.tape.limit == 100
    archive.tape.append(A, b"{}")
    archive.store()
    assert archive.tape.limit == 151
    archive.finish()
    with closing(sqlite3.connect(tmp_path / "tape")) as connection:
        assert connection.execute("SELECT reserved, clean FROM meta").fetchall() == [(51, 1)]


def test_the_positions_of_one_reservation_outlast_any_failure_of_a_disk() -> None:
    a_year_s = 365 * 86_400
    most_messages_per_s = 30_000  # ARCHITECTURE.md, "Figures"
    assert a_year_s * most_messages_per_s <= BLOCK
    assert LAST_POSITION // BLOCK > 8000  # unclean stops until the positions of an epoch are used up


async def test_a_disk_that_never_answers_holds_no_message_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = opened(tmp_path / "tape", entries=1000, block=BLOCK)
    fan = Fan(tape=archive.tape)
    client = fan.connect()
    client.subscribe("a")
    client.messages()
    inbox, outbox = trio.open_memory_channel[Sequence[Event]](0)

    def write(self: TapeFile, batch: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(TapeFile, "write", write)
    async with trio.open_nursery() as nursery:
        await nursery.start(archive.run)
        await nursery.start(fan.sequencer.run, outbox)
        with trio.fail_after(5):
            for _ in range(3000):
                await inbox.send([Event(*A, data=b"1", received_ms=START_MS)])
            inbox.close()
            while client.subscriber.group is None or archive.tape.head < 3000:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert client.seqs() == list(range(1, 3001))
    monkeypatch.undo()
    archive.finish()


# Never in the way.


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - what a worker thread does tells no event
            await trio.sleep(0.001)


async def test_publishing_touches_no_file_and_makes_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = opened(tmp_path / "tape")
    fan = Fan(tape=archive.tape)
    client = fan.connect()
    client.subscribe("a")
    client.messages()

    def write(self: TapeFile, batch: object) -> None:
        raise AssertionError("the hot path wrote to the file")

    monkeypatch.setattr(TapeFile, "write", write)
    with trio.testing.assert_no_checkpoints():
        fan.publish(A, A, A2)
    assert client.seqs() == [1, 2, 3]
    monkeypatch.undo()
    archive.finish()


async def test_a_file_that_cannot_be_written_is_tried_again_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archives, "EVERY_S", 0.001)
    monkeypatch.setattr(archives, "RETRY_S", 0.001)
    archive = opened(tmp_path / "tape")
    assert archive._file is not None
    sqlite = archive._file._database.read
    [(pages,)] = sqlite("PRAGMA page_count").fetchall()
    sqlite(f"PRAGMA max_page_count = {pages}")  # as good as a full disk
    async with trio.open_nursery() as nursery:
        await nursery.start(archive.run)
        archive.tape.append(A, b"." * 100_000)
        await until(lambda: archive.statistics().failures >= 3)
        sqlite("PRAGMA max_page_count = 1000000")
        await until(lambda: archive.statistics().stored == 1)
        nursery.cancel_scope.cancel()
    lines = [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "WARNING")]
    assert len(lines) == 1, "it is said once"
    assert "full" in lines[0]
    archive.finish()
    again = opened(tmp_path / "tape")
    assert (seqs(again), again.tape.broken_at) == ([1], 0)
    again.finish()


async def test_a_disk_that_does_not_answer_holds_a_stop_no_longer_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archives, "CLOSE_S", 0.01)
    archive = opened(tmp_path / "tape")
    archive.tape.append(A, b"{}")
    answer, done = threading.Event(), threading.Event()
    finish = archive.finish

    def stall() -> None:
        answer.wait(5)
        finish()
        done.set()

    monkeypatch.setattr(archive, "finish", stall)
    await archive.close()
    assert "did not take the rest" in caplog.text
    answer.set()
    assert done.wait(5)


# What is not believed.


@pytest.mark.parametrize("torn_bytes", [1, 20, 100, 4000, 4116])
def test_a_torn_last_record_is_discarded_and_never_served(tmp_path: Path, torn_bytes: int) -> None:
    archive = filled(tmp_path / "tape", 5)
    archive.tape.append(A, b'{"n":5,"prev_seq":5}')
    archive.store()
    copy = killed(archive, tmp_path / "tape")
    log = Path(f"{copy}-wal")
    os.truncate(log, log.stat().st_size - torn_bytes)
    again = opened(copy)
    assert seqs(again) == [1, 2, 3, 4, 5]
    assert again.tape.head > 1000
    assert not again.tape.holds(6)
    again.finish()


@pytest.mark.parametrize("at", [-1, -2000, -4000])
def test_garbage_at_the_end_of_the_log_is_discarded(tmp_path: Path, at: int) -> None:
    archive = filled(tmp_path / "tape", 5)
    archive.tape.append(A, b'{"n":5,"prev_seq":5}')
    archive.store()
    copy = killed(archive, tmp_path / "tape")
    with Path(f"{copy}-wal").open("r+b") as log:
        log.seek(at, os.SEEK_END)
        log.write(b"\xff")
    again = opened(copy)
    assert seqs(again) == [1, 2, 3, 4, 5]
    again.finish()


@pytest.mark.parametrize("which", [1, 3, 5])
@pytest.mark.parametrize("column", ["payload = x'7b7d'", "channel = x'ff00'", "ordinal = 9", "checksum = checksum + 1"])
def test_a_row_that_does_not_fit_its_checksum_is_discarded_and_told(tmp_path: Path, which: int, column: str) -> None:
    filled(tmp_path / "tape", 5).finish()
    with sqlite3.connect(tmp_path / "tape") as connection:
        connection.execute(f"UPDATE entries SET {column} WHERE seq = {which}")  # noqa: S608 - the test's own words
    connection.close()
    again = opened(tmp_path / "tape")
    assert seqs(again) == [seq for seq in range(1, 6) if seq != which]
    assert again.tape.broken_at == again.tape.head == 6  # though the stop was a clean one
    assert "1 damaged entries were discarded" in gaps(again)[0][0]
    again.finish()


def test_a_file_that_is_not_whole_is_moved_aside_and_a_new_tape_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = filled(tmp_path / "tape", 300)
    epoch = first.tape.epoch
    first.finish()
    for _ in range(2):
        with (tmp_path / "tape").open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 20_000)
        again = opened(tmp_path / "tape")
        assert again.tape.epoch != epoch
        assert (again.tape.head, again.tape.broken_at, seqs(again)) == (0, 0, [])
        again.finish()
    assert "was damaged" in caplog.text
    assert len(list(tmp_path.glob("tape.corrupt-*"))) == 2


@pytest.mark.parametrize(
    "damage",
    ["UPDATE meta SET reserved = 1", "UPDATE meta SET epoch = x'ff'", "DELETE FROM meta", "DROP TABLE meta"],
)
def test_without_a_record_of_the_whole_that_can_be_believed_a_new_tape_begins(tmp_path: Path, damage: str) -> None:
    filled(tmp_path / "tape").finish()
    with sqlite3.connect(tmp_path / "tape") as connection:
        connection.execute(damage)
    connection.close()
    again = opened(tmp_path / "tape")
    assert (again.tape.head, seqs(again)) == (0, [])
    again.finish()


def test_gaps_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    archive = opened(tmp_path / "tape")
    for reason in ("one", "two"):
        archive.ledger.record("outage", "a", START_MS, START_MS, reason=reason)
    archive.finish()
    with sqlite3.connect(tmp_path / "tape") as connection:
        connection.execute("UPDATE gaps SET checksum = 0 WHERE id = 1")
    connection.close()
    again = opened(tmp_path / "tape")
    kept: list[LedgerGap] = [gap for gap in again.ledger.dump() if gap.cause == "outage"]
    assert [gap.reason for gap in kept] == ["two"]
    again.finish()


# What is refused.


def refusal(path: Path) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        opened(path)
    assert str(caught.value).startswith(f"tape.path: {path}: ")
    assert "\n" not in str(caught.value)
    return caught.value


def test_somebody_elses_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (x)")
    connection.commit()
    connection.close()
    for content in (path.read_bytes(), b"notes\n" * 100, b"x"):
        path.write_bytes(content)
        error = refusal(path)
        assert error.permanent
        assert "something else" in str(error)
        assert path.read_bytes() == content
        assert [each.name for each in tmp_path.iterdir()] == ["other"]


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "tape").touch()
    opened(tmp_path / "tape").finish()


def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).permanent
    assert refusal(tmp_path / "no" / "tape").permanent
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").permanent
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file" / "tape").permanent


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "tape").finish()
    with sqlite3.connect(tmp_path / "tape") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    error = refusal(tmp_path / "tape")
    assert error.permanent
    assert "form 2" in str(error)


def test_a_file_in_use_is_refused_for_now(tmp_path: Path) -> None:
    archive = filled(tmp_path / "tape")
    error = refusal(tmp_path / "tape")
    assert not error.permanent
    assert "in use" in str(error)
    archive.finish()


def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **options: object) -> sqlite3.Connection:  # permissions do not bind a test run as root
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorcode = sqlite3.SQLITE_READONLY
        raise error

    monkeypatch.setattr(sqlite3, "connect", refuse)
    error = refusal(tmp_path / "tape")
    assert error.permanent
    assert "readonly" in str(error)
