"""Which files of a recording are removed: the old ones, and the oldest of too many; never what is being written."""

from pathlib import Path

from connectors.capture.retention import clear, files


def made(folder: Path, *names: str, size: int = 100) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"." * size)
    return paths


def test_what_is_too_old_goes_whatever_there_is_room_for(tmp_path: Path) -> None:
    old, new, _ = made(
        tmp_path, "okx/okx_2025-12-08T15.jsonl.zst", "okx/okx_2025-12-08T16.jsonl.zst", "okx/notes_2025-12-08T15.txt"
    )
    assert clear(tmp_path, oldest_hour="2025-12-08T16", keep_bytes=10**9, keep_paths=()) == ([old], 100)
    assert new.exists()
    assert len(list((tmp_path / "okx").iterdir())) == 2


def test_of_too_many_the_oldest_hour_goes_first_over_all_connections(tmp_path: Path) -> None:
    names = ["kraken/kraken_2025-12-08T15.jsonl.zst", "okx/okx_2025-12-08T15-2.jsonl.zst"]
    names += ["okx/okx-candles_2025-12-08T16.jsonl.zst", "okx/okx_2025-12-08T17.jsonl.zst"]
    paths = made(tmp_path, *names)
    assert [file.connector for file in sorted(files(tmp_path))] == ["kraken", "okx", "okx-candles", "okx"]
    assert clear(tmp_path, oldest_hour="", keep_bytes=250, keep_paths=()) == (paths[:2], 200)
    assert clear(tmp_path, oldest_hour="", keep_bytes=250, keep_paths=()) == ([], 200)


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    (path,) = made(tmp_path, "okx/okx_2025-12-08T15.jsonl.zst")
    assert clear(tmp_path, oldest_hour="2026-01-01T00", keep_bytes=1, keep_paths={path}) == ([], 100)
    assert path.exists()
