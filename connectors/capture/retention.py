"""Which files of a recording are kept: by their age, and by how much all of them take. Blocking."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from connectors.capture.journal import SUFFIX

_NAME: Final = re.compile(rf"(?P<connector>.+)_(?P<hour>\d{{4}}-\d\d-\d\dT\d\d)(-(?P<number>\d+))?{re.escape(SUFFIX)}")


class RecordFile(msgspec.Struct, frozen=True, order=True):
    """A file by its name: the hour that it is of, `2025-12-08T16`, and the how manieth of that hour."""

    hour: str
    connector: str
    number: int
    path: Path


def files(folder: Path) -> Iterator[RecordFile]:
    """All files of a recording, venue by venue, in any order; whatever else lies there is none. Raises: OSError."""
    for venue in sorted(folder.iterdir()):
        if venue.is_dir():
            for path in venue.iterdir():
                if found := _NAME.fullmatch(path.name):
                    yield RecordFile(found["hour"], found["connector"], int(found["number"] or 1), path)


def clear(folder: Path, *, oldest_hour: str, keep_bytes: int, keep_paths: Collection[Path]) -> tuple[list[Path], int]:
    """Remove the oldest files: those before `oldest_hour`, and more while all of them take more than `keep_bytes`.

    Those in `keep_paths` are being written, and stay. Returns what was removed, and how many bytes are left.

    Raises:
        OSError: the folder cannot be read, or a file not be removed.
    """
    removed: list[Path] = []
    found = sorted(files(folder))
    sizes = {file.path: _size(file.path) for file in found}
    total = sum(sizes.values())
    for file in found:
        if file.path in keep_paths:
            continue
        if file.hour >= oldest_hour and total <= keep_bytes:
            break
        file.path.unlink(missing_ok=True)
        total -= sizes[file.path]
        removed.append(file.path)
    return removed, total


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
