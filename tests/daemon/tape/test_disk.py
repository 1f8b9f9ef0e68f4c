"""The disk under the tape fails in every way it can: messages go on, it is said, and it gets well by itself."""

import errno
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
import trio

from daemon.tape import archive as archives
from daemon.tape import database
from daemon.tape.archive import Archive
from daemon.tape.database import ArchiveError, Database, DiskError
from daemon.tape.tape import LAST_POSITION
from daemon.tape.tape_file import TapeFile
from tests.daemon.fanout.sink import START_MS
from tests.daemon.tape.test_archive import A2, A, B, Clock, filled, opened, seqs, until

FULL = "cannot be written: database or disk is full"


def said(code: int) -> sqlite3.Error:
    """What SQLite raises with this result code."""
    error = sqlite3.OperationalError("database or disk is full" if code == sqlite3.SQLITE_FULL else "disk I/O error")
    error.sqlite_errorcode = code
    return error


class Disk:
    """What stands between a tape's file and its disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.refusal: OSError | None = None
        self.hung = threading.Event()
        self.hung.set()
        write, check = TapeFile.write, database._check_writable

        def failing(file: TapeFile, batch: object) -> None:
            self.hung.wait(10)
            if self.error is not None:
                raise self.error
            write(file, batch)  # type: ignore[arg-type]

        def refusing(path: Path) -> None:
            if self.refusal is not None:
                raise database._refused(path, "cannot be written", self.refusal)
            check(path)

        monkeypatch.setattr(TapeFile, "write", failing)
        monkeypatch.setattr(database, "_check_writable", refusing)

    def fill(self) -> None:
        self.error = said(sqlite3.SQLITE_FULL)

    def mend(self) -> None:
        self.error = self.refusal = None


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is done again and again is done at once."""
    for name in ("EVERY_S", "RETRY_S", "_LOOK_S"):
        monkeypatch.setattr(archives, name, 0.001)


@contextmanager
def restarted(archive: Archive) -> Iterator[Archive]:
    """What a start finds after this archive's daemon was killed just now."""
    folder = archive._path.parent.with_name(f"{archive._path.parent.name}x")
    shutil.copytree(archive._path.parent, folder)
    again = opened(folder / archive._path.name)
    yield again
    again.finish()


def tape_path(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk" / "tape"


def open_gaps(archive: Archive) -> list[tuple[str, bool]]:
    """The ledger's gaps about storing: why, and whether each still lasts."""
    gaps = archive.ledger.gaps(START_MS)
    return [(gap.reason, gap.end_ms is None) for gap in gaps if gap.cause == "unstored"]


# A start.


def test_a_start_with_a_full_disk_begins_a_tape_in_memory(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    path = tape_path(tmp_path)
    first = filled(path)
    first.ledger.note("lagged", "", START_MS, messages=7, reason="slow")
    first.finish()
    disk.fill()
    second = opened(path)
    assert (len(second.tape), second.tape.head, second.tape.limit) == (0, 0, LAST_POSITION)
    assert second.tape.epoch != first.tape.epoch
    assert second.trouble == FULL
    assert (second.statistics().storing, second.statistics().failures) == (False, 1)
    reasons = [gap.reason for gap in second.ledger.gaps(START_MS)]
    assert f"the tape's file {FULL}: a new tape begins, with epoch {second.tape.epoch}" in reasons
    assert "slow" in reasons
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    second.tape.append(A, b"{}")
    second.finish()
    assert "did not take the rest of the tape" in caplog.text


def test_what_the_file_had_is_found_again_if_the_disk_never_took_the_new_tape(tmp_path: Path, disk: Disk) -> None:
    path = tape_path(tmp_path)
    first = filled(path)
    first.finish()
    disk.fill()
    second = opened(path)
    second.tape.append(A, b'{"other":1}')
    disk.mend()
    with restarted(second) as third:
        assert (third.tape.epoch, seqs(third)) == (first.tape.epoch, [1, 2, 3, 4, 5])
        assert not third.tape.broken_at, "nothing was sent in this epoch meanwhile"
    second.finish()


def test_the_new_tape_takes_the_file_as_soon_as_the_disk_takes_it(tmp_path: Path, disk: Disk) -> None:
    path = tape_path(tmp_path)
    filled(path).finish()
    disk.fill()
    second = opened(path, entries=3)
    for topic in (A2, A, A, A):
        second.tape.append(topic, b'{"prev_seq":0}')
    disk.mend()
    assert second.store()
    assert second.tape.limit == second.tape.head + 1000
    with restarted(second) as third:
        assert (third.tape.epoch, seqs(third)) == (second.tape.epoch, [2, 3, 4])
        assert third.tape.broken_at > second.tape.limit
        newest = third.tape.newest(A2)
        assert newest is not None
        assert newest.seq == 1
    second.finish()
    fourth = opened(path)
    assert (fourth.tape.epoch, fourth.tape.head, fourth.tape.broken_at) == (second.tape.epoch, 4, 0)
    fourth.finish()


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_a_file_that_the_disk_does_not_let_open_is_taken_up_later_with_its_ledger(
    tmp_path: Path, disk: Disk, number: int
) -> None:
    path = tape_path(tmp_path)
    first = filled(path)
    for reason in ("one", "two"):
        first.ledger.record("outage", "a", START_MS, START_MS, reason=reason)
    first.finish()
    disk.refusal = OSError(number, os.strerror(number))
    second = opened(path)
    assert second.trouble == f"cannot be written: {os.strerror(number)}"
    second.ledger.record("outage", "a", START_MS, START_MS, reason="three")
    with pytest.raises(DiskError):
        second.store()
    disk.mend()
    second.store()
    gaps = second.ledger.dump()
    assert [gap.id for gap in gaps] == list(range(1, len(gaps) + 1))
    assert [gap.reason for gap in gaps if gap.cause == "outage"] == ["one", "two", "three"]
    second.finish()
    third = opened(path)
    assert [gap.reason for gap in third.ledger.dump() if gap.cause == "outage"] == ["one", "two", "three"]
    assert third.tape.epoch == second.tape.epoch
    third.finish()


def test_a_file_that_cannot_be_read_at_the_start_is_the_disks_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tape_path(tmp_path)
    filled(path).finish()

    def broken(file: TapeFile) -> None:
        raise said(sqlite3.SQLITE_IOERR)

    monkeypatch.setattr(TapeFile, "_meta", broken)
    archive = opened(path)
    assert archive.trouble == "cannot be read: disk I/O error"
    monkeypatch.undo()
    archive.store()
    archive.finish()


def test_a_ledger_that_is_damaged_is_moved_aside_when_its_file_is_taken_up(tmp_path: Path, disk: Disk) -> None:
    path = tape_path(tmp_path)
    filled(path).finish()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE gaps")
    connection.close()
    disk.refusal = OSError(errno.EROFS, "Read-only file system")
    archive = opened(path)
    disk.mend()
    with pytest.raises(sqlite3.Error):
        archive.store()
    archive.store()
    archive.finish()
    assert len(list(path.parent.glob("tape.corrupt-*"))) == 1
    again = opened(path)
    assert again.tape.epoch == archive.tape.epoch
    again.finish()


def test_when_the_positions_of_an_epoch_are_used_up_a_new_one_begins(tmp_path: Path) -> None:
    path = tape_path(tmp_path)
    first = opened(path)
    first.tape.break_at(LAST_POSITION - 500)  # after thousands of unclean stops
    first.store()
    first.tape.append(A, b"{}")
    assert not first._batch().synced, "there is nothing more to reserve"
    first.finish()
    second = opened(path)
    assert (second.tape.epoch != first.tape.epoch, second.tape.head, second.tape.limit) == (True, 0, 1000)
    assert any("used up" in gap.reason for gap in second.ledger.dump())
    second.tape.append(A, b"{}")
    second.finish()
    third = opened(path)
    assert (third.tape.epoch, seqs(third)) == (second.tape.epoch, [1])
    third.finish()


# While it runs.


async def test_trouble_is_told_once_and_where_one_looks_and_passes_by_itself(
    tmp_path: Path, disk: Disk, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "daemon.tape.archive")
    archive = opened(tape_path(tmp_path), entries=3)
    caplog.clear()
    async with trio.open_nursery() as nursery:
        await nursery.start(archive.run)
        disk.fill()
        for _ in range(10):
            archive.tape.append(A, b"{}")
        await until(lambda: archive.statistics().failures >= 3)
        assert archive.trouble == FULL
        statistics = archive.statistics()
        assert (statistics.storing, statistics.unstored, statistics.waiting) == (False, 7, 3)
        await until(lambda: open_gaps(archive) == [(f"the tape's file {FULL}", True)])
        disk.error = said(sqlite3.SQLITE_IOERR)  # it goes from bad to worse
        await until(lambda: "I/O" in archive.trouble)
        disk.mend()
        await until(lambda: not archive.trouble)
        await until(lambda: archive.statistics().waiting == 0)
        nursery.cancel_scope.cancel()
    statistics = archive.statistics()
    assert (statistics.storing, statistics.unstored) == (True, 7)
    [(_, lasts)] = open_gaps(archive)
    assert not lasts
    told = [record.getMessage().removeprefix(f"{archive._path} ") for record in caplog.records]
    assert told == [
        f"{FULL}; what is sent is not stored. Trying again every 0.001 s",
        "cannot be written: disk I/O error; what is sent is not stored. Trying again every 0.001 s",
        "is written again; 7 messages in all left the tape unstored",
    ]
    with restarted(archive) as again:
        assert seqs(again) == [8, 9, 10]
    archive.finish()


def test_a_kill_while_the_disk_is_full_leaves_a_hole_that_no_position_comes_back_from(
    tmp_path: Path, disk: Disk
) -> None:
    path = tape_path(tmp_path)
    archive = filled(path)
    disk.fill()
    sent = [archive.tape.append(A, b'{"lost":1}').seq for _ in range(300)]
    disk.mend()
    with restarted(archive) as again:
        assert again.tape.epoch == archive.tape.epoch
        assert again.tape.head > sent[-1]
        assert seqs(again) == [1, 2, 3, 4, 5]
        assert again.tape.append(A, b"{}").seq not in sent
    archive.finish()


def test_a_clean_stop_with_a_full_disk_is_an_unclean_one(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    path = tape_path(tmp_path)
    archive = filled(path)
    archive.tape.append(A, b"{}")
    disk.fill()
    archive.finish()
    assert f"did not take the rest of the tape: {FULL}" in caplog.text
    disk.mend()
    again = opened(path)
    assert (seqs(again), again.tape.broken_at) == ([1, 2, 3, 4, 5], 1001)
    again.finish()


async def test_a_disk_that_takes_its_time_is_noticed_and_holds_nobody_up(
    tmp_path: Path, disk: Disk, quick: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archives, "LATE_S", 0.01)
    monkeypatch.setattr(archives, "CLOSE_S", 0.01)
    caplog.set_level(logging.INFO, "daemon.tape.archive")
    archive = opened(tape_path(tmp_path), entries=3)
    caplog.clear()
    async with trio.open_nursery() as nursery:
        await nursery.start(archive.run)
        for _ in range(2):
            disk.hung.clear()  # as an fsync of half a minute
            for _ in range(10):
                archive.tape.append(A, b"{}")
            await until(lambda: not archive.statistics().storing)
            assert "longer than" in archive.trouble
            await until(lambda: len(open_gaps(archive)) >= 1)
            disk.hung.set()
            await until(lambda: not archive.trouble)
        disk.hung.clear()
        archive.tape.append(A, b"{}")
        await until(lambda: archive._began_s is not None)
        nursery.cancel_scope.cancel()  # returns although the disk does not
    assert sum("longer than" in record.getMessage() for record in caplog.records) >= 2
    assert "written again" in caplog.text
    with trio.fail_after(5):
        await archive.close()
    assert "did not take the rest of the tape within 0.01 s" in caplog.text
    disk.hung.set()
    await until(lambda: archive._file is None)
    with trio.fail_after(5):
        while True:
            try:
                again = opened(archive._path)
            except ArchiveError:  # the thread that wrote is still letting go of the file
                await trio.sleep(0.01)
            else:
                break
    assert again.tape.broken_at == 0, "the disk took it in the end"
    again.finish()


def away(path: Path) -> None:
    path.unlink()


def away_with_its_log(path: Path) -> None:
    for each in path.parent.iterdir():
        each.unlink()


def only_the_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replaced(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


@pytest.mark.parametrize("what", [away, away_with_its_log, only_the_log, moved, replaced, emptied, cut])
def test_a_file_that_somebody_takes_away_is_made_anew_with_all_that_is_on_the_tape(
    tmp_path: Path, what: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ENTRIES", 7)
    path = tape_path(tmp_path)
    archive = filled(path, 50)
    archive.tape.append(B, b"{}")
    archive.store()
    archive._file._database._move_log()  # type: ignore[union-attr] # so that there is something to cut
    archive.tape.append(A, b'{"prev_seq":50}')
    what(path)
    with pytest.raises(DiskError, match=r"was deleted or replaced|was cut short"):
        archive.store()
    while archive.store():
        assert archive.statistics().waiting == len(archive.tape) - (archive.statistics().stored - 51)
    assert (archive.statistics().unstored, archive.statistics().waiting) == (0, 0)
    with restarted(archive) as again:
        assert (again.tape.epoch, seqs(again)) == (archive.tape.epoch, list(range(1, 53)))
        assert again.tape.head > archive.tape.limit
    archive.finish()
    again = opened(path)
    assert (again.tape.head, again.tape.broken_at, len(again.tape)) == (52, 0, 52)
    again.finish()


async def test_a_folder_that_is_deleted_is_waited_for(tmp_path: Path, quick: None) -> None:
    path = tape_path(tmp_path)
    archive = filled(path)
    async with trio.open_nursery() as nursery:
        await nursery.start(archive.run)
        shutil.rmtree(path.parent)
        archive.tape.append(A, b"{}")
        await until(lambda: "No such file or directory" in archive.trouble)
        path.parent.mkdir()
        await until(lambda: not archive.trouble)
        nursery.cancel_scope.cancel()
    archive.finish()
    again = opened(path)
    assert (again.tape.epoch, seqs(again)) == (archive.tape.epoch, [1, 2, 3, 4, 5, 6])
    again.finish()


def test_somebody_elses_file_in_the_place_of_ours_is_left_alone_until_it_is_gone(tmp_path: Path) -> None:
    path = tape_path(tmp_path)
    archive = filled(path)
    away_with_its_log(path)
    path.write_text("mine\n")
    archive.tape.append(A, b"{}")
    for why in ("deleted or replaced", "something else", "something else"):
        with pytest.raises(archives.ArchiveError, match=why):
            archive.store()
    assert path.read_text() == "mine\n"
    path.unlink()
    archive.store()
    archive.finish()
    again = opened(path)
    assert len(again.tape) == 6
    again.finish()


def test_a_file_that_turns_out_to_be_damaged_is_moved_aside_and_made_anew(tmp_path: Path) -> None:
    path = tape_path(tmp_path)
    archive = filled(path, 90)
    archive._file._database._move_log()  # type: ignore[union-attr]
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    archive._let_go()  # what SQLite has in its cache is good
    with pytest.raises(sqlite3.DatabaseError):
        archive.store()
    archive.store()
    assert len(list(path.parent.glob("tape.corrupt-*Z"))) == 1
    archive.finish()
    again = opened(path)
    assert (again.tape.epoch, seqs(again)) == (archive.tape.epoch, list(range(1, 91)))
    again.finish()


def test_a_file_that_is_damaged_under_us_is_moved_aside_and_made_anew(tmp_path: Path, disk: Disk) -> None:
    path = tape_path(tmp_path)
    archive = filled(path)
    archive.tape.append(A, b"{}")
    disk.error = said(sqlite3.SQLITE_CORRUPT)
    with pytest.raises(sqlite3.Error):
        archive.store()
    disk.mend()
    archive.store()
    assert len(list(path.parent.glob("tape.corrupt-*Z"))) == 1
    archive.finish()
    again = opened(path)
    assert (again.tape.epoch, seqs(again)) == (archive.tape.epoch, [1, 2, 3, 4, 5, 6])
    again.finish()


def test_a_log_that_cannot_be_moved_into_the_file_does_not_grow_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tape_path(tmp_path)
    archive = opened(path)
    assert archive._file is not None
    archive._file._database.read("PRAGMA wal_autocheckpoint = 0")
    monkeypatch.setattr(database, "_LOG_BYTES", 100_000)
    monkeypatch.setattr(Database, "_move_log", lambda self: False)

    def fill_log() -> None:
        for _ in range(100):
            archive.tape.append(A, b"." * 5000)
            archive.store()
            assert Path(f"{path}-wal").stat().st_size < 150_000

    with pytest.raises(DiskError, match=r"its log of \d+ bytes cannot be moved into it"):
        fill_log()
    monkeypatch.undo()
    archive.store()
    archive.finish()
    again = opened(path)
    assert again.tape.head == archive.tape.head
    again.finish()


def test_a_log_that_is_long_is_moved_into_the_file_and_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tape_path(tmp_path)
    archive = opened(path)
    assert archive._file is not None
    archive._file._database.read("PRAGMA wal_autocheckpoint = 0")
    monkeypatch.setattr(database, "_LOG_BYTES", 100_000)
    for _ in range(100):
        archive.tape.append(A, b"." * 5000)
        archive.store()
    assert Path(f"{path}-wal").stat().st_size < 150_000
    archive.finish()


def test_a_reservation_is_in_the_file_itself(tmp_path: Path) -> None:
    path = tape_path(tmp_path)
    archive = opened(path)
    Path(f"{path}-wal").unlink()  # and the daemon dies before it finds out
    copy = tmp_path / "copy"
    shutil.copy(path, copy)
    again = opened(copy)
    assert again.tape.head > archive.tape.limit
    again.finish()
    archive.finish()


def test_no_more_than_three_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tape_path(tmp_path)
    for number in range(6):
        path.write_text(str(number))
        Path(f"{path}-wal").write_text("log")
        database.move_aside(path)
    kept = [each for each in path.parent.iterdir() if not each.name.endswith("-wal")]
    assert len(kept) == 3
    assert len(list(path.parent.iterdir())) == 6
    assert "5" in {each.read_text() for each in kept}


def test_a_damaged_file_that_cannot_be_moved_aside_is_refused_or_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tape_path(tmp_path)
    path.touch()

    for number, permanent in ((errno.EACCES, True), (errno.EROFS, False)):
        error = OSError(number, os.strerror(number))
        monkeypatch.setattr(os, "rename", Mock(side_effect=error))
        with pytest.raises(archives.ArchiveError, match="cannot be moved aside") as caught:
            database.move_aside(path)
        assert caught.value.permanent == permanent


def test_a_clock_that_was_set_back_makes_no_gap_end_before_it_began(tmp_path: Path, disk: Disk) -> None:
    path = tape_path(tmp_path)
    clock = Clock()
    first = opened(path, clock=clock)
    first.tape.append(A, b"{}")
    first.finish()
    clock.ms -= 10_000
    disk.fill()
    second = opened(path, clock=clock)
    assert all(gap.end_ms is not None and gap.end_ms >= gap.start_ms for gap in second.ledger.dump())
    second.finish()
