"""The files that rows are written to: Parquet, CSV, JSON lines.

A file is written beside its place, under a name of its own, and put there when it is whole: a failed or interrupted
export leaves nothing behind.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from daemon.commands.export.rows import Row, Type

if TYPE_CHECKING:
    from daemon.commands.export.parquet import Parquet

PART: Final = ".part"
"""Behind the name of a file that is not whole yet."""

_FORMATS: Final = (".parquet", ".csv", ".jsonl")


class ExportError(Exception):
    """An export that cannot be made. The text is one sentence for its user."""


class Sink(Protocol):
    """A file of rows."""

    def add(self, rows: Sequence[Row]) -> None:
        """Write these. Raises: OSError."""
        ...

    def close(self) -> list[str]:
        """That was all. Returns what the user should know. Raises: OSError."""
        ...

    def abandon(self) -> None:
        """It is not wanted any more: close what is open. Raises: OSError."""
        ...


class Csv:
    """Comma-separated values (RFC 4180), with the columns' names in the first line. What is unknown is empty."""

    def __init__(self, path: Path, columns: Mapping[str, Type]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._flags = [at for at, type_ in enumerate(columns.values()) if type_ == "flag"]
        self._writer.writerow(columns)

    def add(self, rows: Sequence[Row]) -> None:
        """See `Sink`."""
        if self._flags:
            rows = [tuple(str(v).lower() if isinstance(v, bool) else v for v in row) for row in rows]
        self._writer.writerows(rows)

    def close(self) -> list[str]:
        """See `Sink`."""
        self._file.close()
        return []

    def abandon(self) -> None:
        """See `Sink`."""
        self._file.close()


class JsonLines:
    """A JSON object per line; digits are text, what is unknown is null."""

    def __init__(self, path: Path, columns: Mapping[str, Type]) -> None:
        self._file = path.open("wb")
        self._names = tuple(columns)
        self._encoder = msgspec.json.Encoder()

    def add(self, rows: Sequence[Row]) -> None:
        """See `Sink`."""
        self._file.write(self._encoder.encode_lines([dict(zip(self._names, row, strict=True)) for row in rows]))

    def close(self) -> list[str]:
        """See `Sink`."""
        self._file.close()
        return []

    def abandon(self) -> None:
        """See `Sink`."""
        self._file.close()


def check(out: Path, *, force: bool) -> None:
    """See beforehand that the file can be made.

    Raises:
        ExportError: it cannot.
    """
    if out.suffix not in _FORMATS:
        allowed = ", ".join(f"*{suffix}" for suffix in _FORMATS)
        raise ExportError(f"{out}: no format is known by that name; allowed: {allowed}")
    if out.suffix == ".parquet":
        _parquet()
    if out.is_dir():
        raise ExportError(f"{out}: is a folder; expected the name of a file")
    if out.exists() and not force:
        raise ExportError(f"{out}: is there already; --force replaces it")
    if not out.parent.is_dir():
        raise ExportError(f"{out}: the folder {out.parent} does not exist")


@contextmanager
def opened(out: Path, columns: Mapping[str, Type], remarks: list[str]) -> Iterator[Sink]:
    """The sink for a file, which is there when the block has ended well. `remarks` is given what the user should know.

    Raises:
        ExportError: it cannot be written.
    """
    part = out.with_name(out.name + PART)
    try:
        sink: Sink
        match out.suffix:
            case ".parquet":
                sink = _parquet()(part, columns)
            case ".csv":
                sink = Csv(part, columns)
            case _:
                sink = JsonLines(part, columns)
        whole = False
        try:
            yield sink
            remarks += sink.close()
            whole = True
        finally:
            if not whole:
                # Also when interrupted: the file is open. What is wrong has been said.
                with suppress(OSError):
                    sink.abandon()
        os.replace(part, out)
    except OSError as error:
        raise ExportError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _parquet() -> type[Parquet]:
    """Raises: ExportError, where pyarrow is not there."""
    try:
        from daemon.commands.export.parquet import Parquet
    except ImportError:
        what = "pip install 'tickerd[parquet]'"
        raise ExportError(f"Parquet needs pyarrow: {what}; or name the file *.csv or *.jsonl") from None
    return Parquet
