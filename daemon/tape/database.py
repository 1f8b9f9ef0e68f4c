"""One SQLite file of ours: opened and held, or refused with one clear line.

A file that is something else is never touched, not even opened: its header says whose it is. A file of ours that SQLite
cannot read is damaged, and is moved aside by whoever finds that out.

The schema is made before the file is switched to WAL mode, so that its header tells from the first moment on.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_MAGIC: Final = b"SQLite format 3\0"
_APPLICATION_ID: Final = int.from_bytes(b"tick", "big")
_APPLICATION_ID_AT: Final = 68
"""Where it stands in the file's header (sqlite.org/fileformat.html section 1.3.17)."""

_WAL_BYTES: Final = 16 * 1024 * 1024
"""The log is cut to this size after it has been larger."""

_ABSENT: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""The last one is what SQLite says when a table is not as it was made."""
_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class ArchiveError(OSError):
    """The file cannot be used; `str()` is one line that names it.

    Attributes:
        permanent: whether trying again is pointless until somebody changes the configuration or the file.
    """

    def __init__(self, path: Path, reason: str, *, permanent: bool) -> None:
        super().__init__(f"tape.path: {path}: {reason}")
        self.permanent = permanent


def open_database(path: Path, schema: Sequence[str], version: int) -> sqlite3.Connection:
    """Open the file, or make a new one of that schema, and hold it: nobody else can open it until it is closed.

    Any thread may use the connection, one at a time. Text comes out of it as bytes: what is damaged need not be UTF-8.

    Raises:
        ArchiveError: It is something else, or of another version.
        sqlite3.Error: It cannot be opened (see `unusable`), or is damaged (see `is_damage`).
    """
    new = _is_new(path)
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = bytes
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        if new:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version}")
            for statement in schema:
                connection.execute(statement)
        connection.execute("COMMIT")
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found != version:
            reason = f"is written in form {found}, of another version of tickerd; this one knows form {version}"
            raise ArchiveError(path, reason, permanent=True)
        if connection.execute("PRAGMA journal_mode = WAL").fetchone() != (b"wal",):
            raise ArchiveError(path, "lies where SQLite can keep no write-ahead log", permanent=True)
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is not whole."""
    return _code(error) in _DAMAGED


def unusable(path: Path, error: sqlite3.Error) -> ArchiveError:
    """What SQLite says about the file, for a user."""
    code = _code(error)
    if code in _LOCKED:
        return ArchiveError(path, "is in use by another process", permanent=False)
    return ArchiveError(path, f"cannot be used: {error}", permanent=code in _ABSENT)


def _is_new(path: Path) -> bool:
    """Look at the file without opening it as a database. Raises: ArchiveError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ArchiveError(path, "is not a file", permanent=True)
        with path.open("rb") as file:
            header = file.read(_APPLICATION_ID_AT + 4)
    except FileNotFoundError:
        return True
    except OSError as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(path, f"cannot be read: {error.strerror or error}", permanent=True) from error
    if header and not (header.startswith(_MAGIC) and header.endswith(_APPLICATION_ID.to_bytes(4, "big"))):
        raise ArchiveError(path, "is something else than a tape of tickerd; name another file", permanent=True)
    return not header


def move_aside(path: Path) -> Path:
    """Rename a damaged file, and its log with it. Raises: ArchiveError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{number}")
    try:
        for ending in ("-wal", "-shm", "-journal", ""):
            if os.path.exists(f"{path}{ending}"):
                os.rename(f"{path}{ending}", f"{aside}{ending}")
    except OSError as error:
        reason = f"is damaged, and cannot be moved aside: {error.strerror or error}"
        raise ArchiveError(path, reason, permanent=True) from error
    return aside


def _code(error: sqlite3.Error) -> int:
    """The primary result code (sqlite.org/rescode.html); 0 where the module itself raised it."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
