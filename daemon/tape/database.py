"""One SQLite file of tickerd's: opens and holds it, writes to it in transactions, and closes it.

A foreign file is never touched, not even opened as a database: the header tells whose it is. A tickerd file that SQLite
cannot read is damaged; the caller that finds this out moves it aside.

Each error tells where the fault is:

* `ArchiveError`: the configuration (the path, the permissions), or another process that holds the file;
* `DiskError`: only the disk, which is full, read-only or broken. Writing can wait until it is well again;
* `sqlite3.Error`: one transaction; see `is_full` and `is_damage`.

The schema is created before the file is switched to WAL mode, so that the header is right from the first moment on.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_MAGIC: Final = b"SQLite format 3\0"
_APPLICATION_ID: Final = int.from_bytes(b"tick", "big")
_APPLICATION_ID_AT: Final = 68
"""Its offset in the file's header (sqlite.org/fileformat.html section 1.3.17)."""

_LOG: Final = "-wal"
"""The suffix of SQLite's write-ahead log."""

_BESIDE: Final = (_LOG, "-shm", "-journal")
"""The suffixes of the files that SQLite may put beside a file."""

_KEPT_ASIDE: Final = 3
"""How many damaged files are kept."""

_LOG_BYTES: Final = 16 * 1024 * 1024
"""A log that has grown beyond this is cut back to it. While it is larger and cannot be moved into the file, nothing is
written: otherwise it would grow until the disk is full."""

_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_FORBIDDEN: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY}
"""Caused by the permissions or by the disk; the operating system tells which."""

_DISK: Final = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    *(errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN),
}
"""No room, a quota, read-only, broken, no resources, or a network file system whose server is away."""


_log: Final = logging.getLogger(__name__)


class ArchiveError(OSError):
    """The file cannot be used; `str()` is one line that names it.

    Attributes:
        permanent: whether trying again is pointless until somebody changes the configuration or the file.
    """

    def __init__(self, path: Path, reason: str, *, permanent: bool) -> None:
        super().__init__(f"tape.path: {path}: {reason}")
        self.reason = reason
        self.permanent = permanent


class DiskError(ArchiveError):
    """The file cannot be used because of its disk. This may pass by itself."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason, permanent=False)


class CutShortError(DiskError):
    """The file has become shorter: something else truncated it."""


class Database:
    """The open file. No other process can open it until it is closed.

    Any thread may use it, one at a time. Text is read as bytes, because damaged text need not be UTF-8.

    Attributes:
        path: the path of the file.
        read: executes a query.
    """

    def __init__(self, path: Path, schema: Sequence[str], version: int) -> None:
        """Open the file, or create one with that schema.

        Raises:
            ArchiveError: The file is foreign, of another version, forbidden or in use; or (`DiskError`) the disk fails.
            sqlite3.Error: The file is damaged.
        """
        self.path = path
        new = _is_new(path)
        _check_writable(path)
        try:
            self._connection = _connect(path, schema, version, new=new)
        except sqlite3.Error as error:
            if is_malformed(error):
                raise
            raise _unusable(path, error) from error
        self.read = self._connection.execute
        self._identities = self._found()

    @contextmanager
    def transaction(self, *, synced: bool) -> Iterator[sqlite3.Connection]:
        """Carry out all statements of the body, or none.

        Args:
            synced: whether the change must be on the disk afterwards, in the file itself, even if the power fails.

        Raises:
            sqlite3.Error: The transaction failed.
            DiskError: This is no longer the file that was opened, or its log cannot be moved into it.
        """
        connection = self._connection
        self._check_in_place()
        self._check_log()
        connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        if synced:
            with suppress(sqlite3.Error):  # it is in the log anyway, and synced
                self._move_log()

    def close(self) -> None:
        """Close the file. The log is moved into it, if the disk allows."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def _check_in_place(self) -> None:
        """Raises: DiskError, if the file was deleted, replaced or cut short: a write would be lost."""
        for ending, seen in self._found().items():
            was = self._identities.get(ending)
            if was is not None and (seen is None or seen[:2] != was[:2]):
                raise DiskError(self.path, "was deleted or replaced")
            if was is not None and seen is not None and not ending and seen[2] < was[2]:
                raise CutShortError(self.path, "was cut short")
            self._identities[ending] = seen

    def _found(self) -> dict[str, tuple[int, int, int] | None]:
        """Device, inode and size of what is now at the paths of the file and of its log."""
        found: dict[str, tuple[int, int, int] | None] = {}
        for ending in ("", _LOG):
            try:
                status = os.stat(f"{self.path}{ending}")
            except OSError:
                found[ending] = None
            else:
                found[ending] = status.st_dev, status.st_ino, status.st_size
        return found

    def _check_log(self) -> None:
        """Raises: DiskError or sqlite3.Error, if the log is too long and cannot be moved into the file."""
        log = self._identities[_LOG]
        if log is not None and log[2] > _LOG_BYTES and not self._move_log():
            raise DiskError(self.path, f"its log of {log[2]} bytes cannot be moved into it")

    def _move_log(self) -> bool:
        """Move the log into the file, and sync that. Returns whether all of it could be moved."""
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy


def _connect(path: Path, schema: Sequence[str], version: int, *, new: bool) -> sqlite3.Connection:
    """Raises: ArchiveError, sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = bytes
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA temp_store = MEMORY")
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
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def is_damage(error: Exception) -> bool:
    """Whether the file is damaged."""
    return _code(error) in _DAMAGED or isinstance(error, CutShortError)


def is_malformed(error: Exception) -> bool:
    """Whether SQLite reports that the file is damaged, or that its tables do not match the schema."""
    return _code(error) in _DAMAGED or _code(error) == sqlite3.SQLITE_ERROR


def is_full(error: Exception) -> bool:
    """Whether SQLite reports that there was no room: the open file is still good."""
    return _code(error) == sqlite3.SQLITE_FULL


def _unusable(path: Path, error: sqlite3.Error) -> ArchiveError:
    """SQLite's error as an error for the operator."""
    code = _code(error)
    if code in _LOCKED:
        return ArchiveError(path, "is in use by another process", permanent=False)
    if code in _FORBIDDEN:
        return ArchiveError(path, f"cannot be used: {error}", permanent=True)
    return DiskError(path, f"cannot be used: {error}")


def _is_new(path: Path) -> bool:
    """Whether the file must be created; does not open it as a database. Raises: ArchiveError."""
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
        raise _refused(path, "cannot be read", error) from error
    if header and not (header.startswith(_MAGIC) and header.endswith(_APPLICATION_ID.to_bytes(4, "big"))):
        raise ArchiveError(path, "is something else than a tape of tickerd; name another file", permanent=True)
    return not header


def _check_writable(path: Path) -> None:
    """Check that the file and its log can be written or created: the operating system explains failures best.

    Raises: ArchiveError.
    """
    for ending in ("", _LOG):
        try:
            os.close(os.open(f"{path}{ending}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError as error:
            raise _refused(path, "cannot be written", error) from error


def _refused(path: Path, what: str, error: OSError) -> ArchiveError:
    """The operating system's error as an error for the operator."""
    reason = f"{what}: {error.strerror or error}"
    if error.errno in _DISK:
        return DiskError(path, reason)
    return ArchiveError(path, reason, permanent=True)


def move_aside(path: Path) -> Path:
    """Rename a damaged file and its log; the `_KEPT_ASIDE` newest such files are kept. Raises: ArchiveError."""
    now_s, now_us = divmod(time.time_ns() // 1000, 1_000_000)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now_s))
    aside = path.with_name(f"{path.name}.corrupt-{stamp}.{now_us:06}Z")
    try:
        for ending in (*_BESIDE, ""):
            if os.path.exists(f"{path}{ending}"):
                os.rename(f"{path}{ending}", f"{aside}{ending}")
    except OSError as error:
        raise _refused(path, "is damaged, and cannot be moved aside", error) from error
    _log.warning("%s was damaged, and is now %s", path, aside)
    _forget_aside(path)
    return aside


def _forget_aside(path: Path) -> None:
    """Delete all but the newest files moved aside: a recurring fault must not fill the disk."""
    found = (str(each) for each in path.parent.glob(f"{glob.escape(path.name)}.corrupt-*"))
    files = sorted(name for name in found if not name.endswith(_BESIDE))
    for name in files[:-_KEPT_ASIDE]:
        for ending in ("", *_BESIDE):
            Path(f"{name}{ending}").unlink(missing_ok=True)


def _code(error: Exception) -> int:
    """The primary result code (sqlite.org/rescode.html); 0 if the error is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
