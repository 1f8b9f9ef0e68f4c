"""The tape in one file: what it holds, how it is read back, and how damage is found.

The file is written in transactions, in WAL mode, by one connection that holds it exclusively. So a killed process
leaves all of its last transaction or none of it. A reservation of positions is synced to disk, and moved into the file
itself. Everything else is synced whenever SQLite moves it into the file (`synchronous` is FULL or NORMAL accordingly;
sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous). **kill -9 loses nothing that was stored; a power
failure may lose the last transactions, but never a reservation.** Either way the file stays intact.

Every row carries a checksum. A row that does not match it is discarded and never served, and the positions from there
on count as lost. A file that SQLite cannot read is moved aside, and a new tape begins.

Blocking, and by one thread at a time: `daemon.tape.archive` keeps it off the hot path.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from daemon.tape.database import Database, DiskError, is_malformed, move_aside
from daemon.tape.ledger import LedgerGap
from daemon.tape.rows import Rows
from daemon.tape.tape import Entry, Tape, Topic

_VERSION: Final = 1

_SCHEMA: Final = (
    """CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT, reserved INTEGER, clean INTEGER,
        broken_at INTEGER, tail INTEGER, stored_ms INTEGER, checksum INTEGER)""",
    """CREATE TABLE entries (
        seq INTEGER PRIMARY KEY, channel TEXT, instrument TEXT, ordinal INTEGER, payload BLOB, checksum INTEGER)""",
    "CREATE TABLE gaps (id INTEGER PRIMARY KEY, body BLOB, checksum INTEGER)",
    "CREATE TABLE IF NOT EXISTS gone (channel TEXT PRIMARY KEY, seq INTEGER, checksum INTEGER)",
)


class _Damaged(Exception):
    """The content of the file cannot be trusted."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """The record of the tape as a whole.

    Attributes:
        epoch: its random id, for as long as the file lives.
        reserved: positions up to here may have been used.
        clean: whether exactly these have been used, and the whole tape is stored.
        broken_at: the position of the newest break (`Tape.broken_at`).
        tail: entries before this position are kept only as the newest of their topics. So are those of a channel up to
            its position in the table `gone`, which files of older versions lack: channels had no shares then.
        stored_ms: when this was written, ms since 1970.
    """

    epoch: str
    reserved: int = 0
    clean: bool = True
    broken_at: int = 0
    tail: int = 1
    stored_ms: int


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction.

    Attributes:
        meta: the new record of the tape.
        entries: the new entries.
        reached: everything up to here that is on the tape is in the file then.
        gone: per channel, up to where its messages have left the tape.
        kept: the positions of those among them that are kept as the newest of their topics.
        deleted: the positions of rows to be deleted.
        gaps: the gaps that are new or have changed.
        all_gaps: whether `gaps` is the whole ledger, so that all others are deleted.
        anew: whether to delete all entries in the file first: they belong to another tape, or nobody knows which ones
            there are.
        synced: whether it must be on the disk when `write` returns, even if the power fails.
    """

    meta: Meta
    entries: Sequence[Entry] = ()
    reached: int = 0
    gone: Mapping[str, int] = MappingProxyType({})
    kept: Collection[int] = ()
    deleted: Sequence[int] = ()
    gaps: Sequence[LedgerGap] = ()
    all_gaps: bool = False
    anew: bool = False
    synced: bool = False


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was read back.

    Attributes:
        tape: ready to go on: the next message follows its head.
        meta: the record of the tape as it was found.
        rows: the rows in the file.
        gaps: the ledger's gaps.
        hole: the gap after an unclean stop: the first and the last position whose messages are unknown; None after a
            clean stop.
        discarded: how many rows did not match their checksums.
        aside: where a damaged file was moved, if there was one.
    """

    tape: Tape
    meta: Meta
    rows: Rows
    gaps: list[LedgerGap]
    hole: tuple[int, int] | None
    discarded: int
    aside: Path | None


class TapeFile:
    """The open file. It must be closed; until then no other process can open it.

    Attributes:
        path: the path of the file.
        aside: where a damaged file that was found there was moved, or None.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or create one; a damaged one is moved aside.

        Raises:
            ArchiveError: It cannot be opened, is in use, or is not a tape.
        """
        self.path = path
        self.aside: Path | None = None
        try:
            self._database = Database(path, _SCHEMA, _VERSION)
        except sqlite3.Error:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self.aside = move_aside(self.path)
        try:
            self._database = Database(self.path, _SCHEMA, _VERSION)
        except sqlite3.Error as error:
            raise DiskError(self.path, f"cannot be used: {error}") from error

    def restore(self, max_entries: int, max_bytes: int, now_ms: int) -> Restored:
        """Read everything back. A damaged file is moved aside, and a new tape begins.

        Raises:
            ArchiveError: The file cannot be read, or the damaged one cannot be moved.
        """
        try:
            return self._restore(max_entries, max_bytes, now_ms)
        except (_Damaged, sqlite3.Error) as error:
            if isinstance(error, sqlite3.Error) and not is_malformed(error):
                raise DiskError(self.path, f"cannot be read: {error}") from error
        self._database.close()
        self._begin_anew()
        return self._restore(max_entries, max_bytes, now_ms)

    def gaps(self) -> list[LedgerGap]:
        """The ledger's part of the file alone.

        Raises:
            sqlite3.Error: It cannot be read.
        """
        return list(self._gaps())

    def _restore(self, max_entries: int, max_bytes: int, now_ms: int) -> Restored:
        meta = self._meta()
        if meta is None:
            tape = Tape(max_entries, max_bytes)
            return Restored(
                tape=tape,
                meta=Meta(epoch=tape.epoch, stored_ms=now_ms),
                rows=Rows(),
                gaps=[],
                hole=None,
                discarded=0,
                aside=self.aside,
            )
        tape = Tape(max_entries, max_bytes, meta.epoch)
        gone, discarded = self._gone(meta.epoch)
        tape.start_at(meta.tail, gone)
        rows = Rows()
        placed: set[Topic] = set()
        for seq, entry in self._entries(meta.epoch):
            if entry is None:
                discarded += 1
                rows.set_apart(seq)
                continue
            rows.add([entry])
            topic, left = entry.topic, max(meta.tail - 1, gone.get(entry.topic[0], 0))
            if entry.ordinal > 1 and (tape.newest(topic) is None or (seq > left and topic not in placed)):
                tape.left(topic, _prev_seq(entry, min(left, seq - 1)), entry.ordinal - 1)
            if seq <= left:
                tape.outlive(entry)
                continue
            if tape.head < meta.broken_at < seq:
                tape.break_at(meta.broken_at)
            placed.add(topic)
            tape.place(entry)
        if meta.broken_at > tape.head:  # nothing has been sent since
            tape.break_at(meta.broken_at)
        tape.broken_at = max(tape.broken_at, meta.broken_at)
        hole = None
        if discarded or not meta.clean or tape.head != meta.reserved:
            last = max(tape.head, meta.reserved)
            hole = (tape.head + 1, last + 1)
            tape.break_at(last + 1)
        return Restored(
            tape=tape,
            meta=meta,
            rows=rows,
            gaps=list(self._gaps()),
            hole=hole,
            discarded=discarded,
            aside=self.aside,
        )

    def _meta(self) -> Meta | None:
        rows = self._database.read(
            "SELECT epoch, reserved, clean, broken_at, tail, stored_ms, checksum FROM meta"
        ).fetchall()
        if not rows:
            if self._database.read("SELECT 1 FROM entries LIMIT 1").fetchone():
                raise _Damaged("there are entries, and no record of the tape as a whole")
            return None
        epoch, *others, checksum = rows[0]
        if checksum != _checksum(epoch, *others):
            raise _Damaged("the record of the tape as a whole does not fit its checksum")
        reserved, clean, broken_at, tail, stored_ms = others
        return Meta(
            epoch=epoch.decode(),
            reserved=reserved,
            clean=bool(clean),
            broken_at=broken_at,
            tail=tail,
            stored_ms=stored_ms,
        )

    def _gone(self, epoch: str) -> tuple[dict[str, int], int]:
        """Up to where each channel's messages had left the tape, and how many rows do not match their checksums."""
        gone, discarded = dict[str, int](), 0
        if self._database.read("SELECT 1 FROM sqlite_master WHERE name = 'gone'").fetchone():
            for channel, seq, checksum in self._database.read("SELECT channel, seq, checksum FROM gone"):
                if checksum == _checksum(epoch, channel, seq):
                    gone[channel.decode()] = seq
                else:
                    discarded += 1
        return gone, discarded

    def _entries(self, epoch: str) -> Iterator[tuple[int, Entry | None]]:
        """All rows in the order of their positions; None for a row that does not match its checksum."""
        rows = self._database.read(
            "SELECT seq, channel, instrument, ordinal, payload, checksum FROM entries ORDER BY seq"
        )
        for seq, channel, instrument, ordinal, payload, checksum in rows:
            if checksum == _checksum(epoch, seq, channel, instrument, ordinal, payload):
                yield seq, Entry.of(seq, ordinal, (channel.decode(), instrument.decode()), payload, epoch)
            else:
                yield seq, None

    def _gaps(self) -> Iterator[LedgerGap]:
        for id_, body, checksum in self._database.read("SELECT id, body, checksum FROM gaps ORDER BY id"):
            if checksum == _checksum(id_, body):
                try:
                    yield msgspec.json.decode(body, type=LedgerGap)
                except msgspec.ValidationError:  # of a version that knew other causes
                    continue

    def write(self, batch: Batch) -> None:
        """Carry out one transaction.

        Raises:
            sqlite3.Error: It failed, and nothing was changed.
            DiskError: Likewise; the file is not the one that was opened, or its log cannot be moved into it.
        """
        meta = batch.meta
        with self._database.transaction(synced=batch.synced) as connection:
            connection.execute(_SCHEMA[-1])
            if batch.anew:
                connection.execute("DELETE FROM entries")
                connection.execute("DELETE FROM gone")
            connection.executemany(
                "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)", (_row(entry) for entry in batch.entries)
            )
            connection.executemany("DELETE FROM entries WHERE seq = ?", ((seq,) for seq in batch.deleted))
            connection.executemany(
                "INSERT OR REPLACE INTO gone VALUES (?, ?, ?)",
                ((channel, seq, _checksum(meta.epoch, channel, seq)) for channel, seq in batch.gone.items()),
            )
            if batch.all_gaps:
                connection.execute("DELETE FROM gaps")
            bodies = ((gap.id, msgspec.json.encode(gap)) for gap in batch.gaps)
            connection.executemany(
                "INSERT OR REPLACE INTO gaps VALUES (?, ?, ?)",
                ((id_, body, _checksum(id_, body)) for id_, body in bodies),
            )
            fields = (meta.epoch, meta.reserved, int(meta.clean), meta.broken_at, meta.tail, meta.stored_ms)
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?, ?, ?)", (*fields, _checksum(*fields))
            )

    def close(self) -> None:
        """Close the file. The log is moved into it."""
        self._database.close()


class _Chain(msgspec.Struct):
    prev_seq: int


def _prev_seq(entry: Entry, otherwise: int) -> int:
    """The topic's previous position, from `prev_seq`; `otherwise` for a status or a notice, which has none."""
    try:
        return msgspec.json.decode(entry.payload, type=_Chain).prev_seq
    except msgspec.DecodeError:
        return otherwise


def _row(entry: Entry) -> tuple[int, str, str, int, bytes, int]:
    (channel, instrument), payload = entry.topic, entry.payload
    checksum = _checksum(entry.epoch, entry.seq, channel, instrument, entry.ordinal, payload)
    return entry.seq, channel, instrument, entry.ordinal, payload, checksum


def _checksum(*fields: object) -> int:
    """CRC-32 of the fields: bytes as they are, text as UTF-8, everything else (numbers, damage) as its `repr`."""
    checksum = 0
    for field in fields:
        data = field if isinstance(field, bytes) else field.encode() if isinstance(field, str) else repr(field).encode()
        checksum = zlib.crc32(b"%d:" % len(data) + data, checksum)
    return checksum
