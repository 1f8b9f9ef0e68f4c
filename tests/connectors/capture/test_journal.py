"""A recording's files: cut off anywhere they can be read up to there, and trouble with the disk costs no line twice."""

import errno
import io
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.capture.journal import HOUR_MS, PIECE_MS, Chunk, Journal
from connectors.capture.lines import Header, written_frames
from connectors.capture.pieces import Damaged, pieces, unpacked
from connectors.capture.reading import RecordingError, load, opened

NOW = 1_765_211_445_122
HEADER = Header(format=1, venue="okx", connector="okx", carries=("bitcoinprice",), run=7, daemon="test")


def chunk(number: int, at_ms: int = NOW, count: int = 3) -> Chunk:
    payloads = [b'{"n":%d,"i":%d}' % (number, each) for each in range(count)]
    return Chunk(written_frames(payloads, at_ms, 1), at_ms, at_ms, frames=count)


def read(folder: Path) -> list[bytes]:
    """The frames of the only series there, in order."""
    (series,) = load(folder)
    lines = [line for file in series.files for part in file.lines() for line in part]
    return [line.payload for line in lines if line.payload is not None]


def expected(*numbers: int, count: int = 3) -> list[bytes]:
    return [b'{"n":%d,"i":%d}' % (number, each) for number in numbers for each in range(count)]


def test_what_is_written_can_be_read_at_once_and_has_an_index_at_its_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path, HEADER)
    journal.write(chunk(1))
    assert read(tmp_path) == expected(1)
    journal.write(chunk(2, NOW + 20))
    assert read(tmp_path) == expected(1, 2)
    journal.close("the test is over", NOW + 30)
    assert read(tmp_path) == expected(1, 2)
    (series,) = load(tmp_path)
    (file,) = series.files
    assert file.path == tmp_path / "okx" / "okx_2025-12-08T16.jsonl.zst"
    assert file.header == HEADER
    assert (file.begin_ms, file.end_ms, file.counted.frames, file.damage) == (NOW, NOW + 30, 6, "")
    assert [line.end for part in file.lines() for line in part][-1] == "the test is over"
    assert file.path.stat().st_mode & 0o007 == 0


def test_hours_are_files_and_minutes_are_pieces(tmp_path: Path) -> None:
    journal = Journal(tmp_path, HEADER)
    for minute in range(3):
        journal.write(chunk(minute, NOW + minute * PIECE_MS))
        journal.settle(NOW + minute * PIECE_MS + PIECE_MS // 2)
    journal.write(chunk(9, NOW + HOUR_MS))
    journal.close("over", NOW + HOUR_MS)
    (series,) = load(tmp_path)
    assert [file.path.name for file in series.files] == ["okx_2025-12-08T16.jsonl.zst", "okx_2025-12-08T17.jsonl.zst"]
    assert [len(file.pieces) for file in series.files] == [2, 1]
    assert read(tmp_path) == expected(0, 1, 2, 9)
    assert [line.payload for part in series.files[0].lines(1) for line in part] == expected(2)


def test_an_old_piece_is_ended_though_nothing_comes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, HEADER)
    journal.write(chunk(1))
    journal.settle(NOW + PIECE_MS)
    (series,) = load(tmp_path)
    with series.files[0].path.open("rb") as file:
        assert [piece.index is not None for piece in pieces(file)] == [True]


def test_another_run_leaves_the_file_of_the_hour_alone(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        journal = Journal(tmp_path, HEADER)
        journal.write(chunk(number, NOW + number))
        # As if it were killed.
    names = sorted(path.name for path in (tmp_path / "okx").iterdir())
    assert names == [f"okx_2025-12-08T16{number}.jsonl.zst" for number in ("-2", "-3", "")]
    assert read(tmp_path) == expected(1, 2, 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    journal = Journal(folder, HEADER)
    for number in range(40):
        journal.write(chunk(number, NOW + number * PIECE_MS // 8))
    journal.close("over", NOW + HOUR_MS)
    return next((folder / "okx").iterdir()).read_bytes()


def text_of(data: bytes) -> bytes:
    file = io.BytesIO(data)
    return b"".join(part for piece in pieces(file) for part in unpacked(file, piece))


@given(st.data())
def test_a_torn_file_is_read_up_to_where_it_is_torn(whole: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(whole)))
    text = text_of(whole[:cut])
    assert text_of(whole).startswith(text)
    assert text[-1:] in (b"\n", b"")
    file = io.BytesIO(whole)
    ended = [piece for piece in pieces(file) if piece.end <= cut]
    assert text.startswith(b"".join(part for piece in ended for part in unpacked(file, piece)))


def test_what_was_flushed_is_there_though_the_piece_is_not_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path, HEADER)
    for number in range(10):
        journal.write(chunk(number))
        assert read(tmp_path) == expected(*range(number + 1))


@given(st.binary(max_size=200))
def test_what_is_no_recording_is_damaged_or_empty(data: bytes) -> None:
    file = io.BytesIO(data)
    with suppress(Damaged):
        for piece in pieces(file):
            list(unpacked(file, piece))


def test_damage_in_the_middle_is_told_in_its_place(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "okx").mkdir()
    path = tmp_path / "okx" / "okx_2025-12-08T16.jsonl.zst"
    second = whole.index(b"\x28\xb5\x2f\xfd", 10)
    path.write_bytes(whole[: second + 20] + b"\xff" * 40 + whole[second + 60 :])
    file = opened(path)
    assert file is not None
    lines = [line for part in file.lines() for line in part]
    lost = [line.lost.why for line in lines if line.lost is not None]
    assert lost[0].startswith("okx_2025-12-08T16.jsonl.zst: ")
    assert lines[1].payload == b'{"n":0,"i":0}'


def test_a_recording_of_a_later_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"recv_ts":1.0,"record":{"format":2,"venue":"okx","connector":"okx"}}\n' + chunk(1).text
    )
    with pytest.raises(RecordingError, match=r"a\.jsonl: a recording of format 2; this version of tickerd reads 1"):
        load(tmp_path)


# The disk.


class Disk:
    """Writes at most so many bytes in all, and then nothing."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._pwrite = os.pwrite

    def pwrite(self, descriptor: int, data: memoryview, at: int) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(self.room, len(data))
        self.room -= taken
        return self._pwrite(descriptor, data[:taken], at)


@pytest.mark.parametrize("room", [*range(0, 400, 13), 10_000])
def test_a_disk_that_is_full_at_any_byte_costs_nothing_once_there_is_room(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(room)
    monkeypatch.setattr(os, "pwrite", disk.pwrite)
    journal = Journal(tmp_path, HEADER)
    for number in range(8):
        given, at_ms = chunk(number, NOW + number * PIECE_MS // 2), NOW + number * PIECE_MS // 2
        for tries in range(3):
            try:
                journal.write(given)
                journal.settle(at_ms)
                break
            except OSError:
                if tries == 1:
                    disk.room = room + 1000
    disk.room = 10_000
    journal.close("over", NOW + HOUR_MS - 1)
    assert read(tmp_path) == expected(*range(8))


def vanish(folder: Path) -> None:
    shutil.rmtree(folder / "okx")


def replace(folder: Path) -> None:
    path = next((folder / "okx").iterdir())
    path.unlink()
    path.write_bytes(b"something else")


@pytest.mark.parametrize("harm", [vanish, replace])
def test_a_file_that_has_vanished_is_begun_anew(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    journal = Journal(tmp_path, HEADER)
    journal.write(chunk(1))
    harm(tmp_path)
    journal.write(chunk(2))
    assert read(tmp_path) == expected(2)


def test_the_folder_itself_is_not_made(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "disk", HEADER)
    with pytest.raises(FileNotFoundError):
        journal.write(chunk(1))
    (tmp_path / "disk").mkdir()
    journal.write(chunk(1))
    assert read(tmp_path / "disk") == expected(1)
