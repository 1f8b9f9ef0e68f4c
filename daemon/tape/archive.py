"""The archive keeps the tape over a restart: it follows the tape like a client, and writes it to a file.

The hot path knows nothing of it. Ten times a second a task takes the new entries from the tape, and a worker thread
writes them in one transaction (`daemon.tape.tape_file`). No queue builds up: entries that are not stored yet are still
on the tape. If the disk is so slow that entries leave the tape before they are stored, they are counted (`unstored`).
The file keeps what the tape keeps, channel by channel (`daemon.tape.shares`), and with it up to where each channel's
messages have left: so after a restart, kill -9 included, every channel has the share that it had.

**Nothing waits for the disk.** While it cannot be written to (full, read-only, broken, or not answering) the daemon
serves its clients as usual, reports what is wrong (`trouble`, the log, the ledger), and tries again until it works. A
file that was deleted, replaced or damaged meanwhile is written anew, with the whole tape.

**No position is used twice in one epoch.** Positions are reserved in the file, `BLOCK` at a time, before the first of
them is used; the next block is reserved when half of one is used. `Tape.limit` is the last reserved position. Half a
block lasts longer than any disk stays broken.

* A clean stop stores everything and returns the rest of the block: the next start goes on where the tape ended.
* After any other end the next start goes on after the block. The messages that were sent but not stored, usually those
  of a tenth of a second, are a *gap*: a client whose position lies before or in it is told `recovered: false`, each
  topic's `prev_seq` names a position that no message has, and the gap ledger records it. Counts per topic
  (`Entry.ordinal`) go on from what was stored.
* A start that can reserve nothing, because the disk cannot be written to, begins a new tape in memory, with an epoch of
  its own: the positions in the file belong to the old one. As soon as the file can be written, it becomes the file of
  the new tape. If the daemon dies before that, the next start finds the old tape as it was left.

The ledger is kept in the same file.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import trio

from connectors.metric import Samples
from daemon.host.clock import WallClock
from daemon.tape.database import ArchiveError as ArchiveError
from daemon.tape.database import DiskError, is_damage, is_full, is_malformed, move_aside
from daemon.tape.ledger import Ledger, LedgerGap
from daemon.tape.rows import Rows
from daemon.tape.tape import LAST_POSITION, Entry, Tape
from daemon.tape.tape_file import Batch, Meta, Restored, TapeFile

BLOCK: Final = 2**40
"""Positions reserved at a time: a year of 30 000 messages a second. There are 2**53: after 8191 unclean stops a new
epoch begins."""

EVERY_S: Final = 0.1
"""How often new entries are stored."""

RETRY_S: Final = 1.0
"""The wait after the file could not be written."""

LATE_S: Final = 5.0
"""A disk that needs longer than this for one transaction counts as trouble."""

CLOSE_S: Final = 5.0
"""How long a stop waits for the disk."""

_LOOK_S: Final = 1.0
"""How often to check whether the disk answers."""

_ENTRIES: Final = 4096
"""The most entries of one transaction."""

_LATE: Final = f"has taken longer than {LATE_S:g} s over one transaction"

_log: Final = logging.getLogger(__name__)


class ArchiveStatistics(msgspec.Struct, frozen=True):
    """Counts since the start, and the current state.

    Attributes:
        stored: entries that were written to the file.
        unstored: positions that left the tape before they could be stored.
        failures: transactions that could not be carried out.
        reserved: the last position that may be used.
        waiting: entries on the tape that are not stored yet.
        storing: whether what is sent is being stored.
    """

    stored: int
    unstored: int
    failures: int
    reserved: int
    waiting: int
    storing: bool


class Archive:
    """The tape's file, and the code that writes it.

    Attributes:
        tape: the tape as it was read back, ready for the next message; a new one where nothing could be reserved.
        ledger: the ledger as it was read back.
    """

    def __init__(self, path: Path, tape: Tape, ledger: Ledger, clock: WallClock, block: int) -> None:
        """Use `open`."""
        self.tape = tape
        self.ledger = ledger
        self._path = path
        self._clock = clock
        self._block = block
        self._file: TapeFile | None = None
        self._writing = threading.Lock()
        """Held by the thread that uses the file."""
        self._anew = False
        self._unread = False
        self._found: list[LedgerGap] = []
        self._position = self._safe = tape.head
        """How far the file goes, and the last position that was ever stored."""
        self._rows = Rows()
        self._gaps: dict[int, LedgerGap] = {}
        self._forgotten = -1
        self._stored = self._unstored = self._failures = 0
        self._reason = ""
        self._began_s: float | None = None
        self._late = False

    @classmethod
    def open(cls, path: Path, max_entries: int, max_bytes: int, clock: WallClock, block: int = BLOCK) -> Archive:
        """Read the file back, or create it, and reserve the first positions. Blocking.

        Where the disk takes nothing, the tape is a new one in memory, and the file is taken up when it can be written.

        Raises:
            ArchiveError: It cannot be used, and not because of the disk.
        """
        new, ledger = Tape(max_entries, max_bytes), Ledger()
        try:
            file, restored = _read(path, max_entries, max_bytes, clock)
        except DiskError as error:
            archive = cls(path, new, ledger, clock, block)
            archive._unread = True
            archive._begin_in_memory(error, clock.now_ms())
            return archive
        ledger.load(restored.gaps)
        used_up = LAST_POSITION - restored.tape.head < block
        archive = cls(path, new if used_up else restored.tape, ledger, clock, block)
        archive._file, archive._anew, archive._rows = file, used_up, restored.rows
        archive.tape.limit = archive.tape.head
        try:
            archive.store()
        except (sqlite3.Error, DiskError) as error:
            still_open = archive._file
            archive = cls(path, new, ledger, clock, block)
            archive._file, archive._anew = still_open, True
            archive._begin_in_memory(error, restored.meta.stored_ms)
            return archive
        archive._account_for(restored, used_up=used_up)
        return archive

    def _begin_in_memory(self, error: Exception, since_ms: int) -> None:
        """Begin a new tape in memory: the disk cannot be written to, and nothing was sent since `since_ms`."""
        self._reason = _said(error)
        self._failures = 1
        epoch = self.tape.epoch
        reason = f"the tape's file {self._reason}: a new tape begins, with epoch {epoch}"
        self.ledger.record("restart", "", since_ms, self._clock.now_ms(), reason=reason)
        _log.error("%s %s; a new tape, with epoch %s, is kept in memory meanwhile", self._path, self._reason, epoch)

    def _account_for(self, restored: Restored, *, used_up: bool) -> None:
        """Report in the log and the ledger what the last stop and the state of the file mean for clients."""
        path, meta, tape, now_ms = self._path, restored.meta, self.tape, self._clock.now_ms()
        # Nothing is ordered by it, but whoever reads the ledger must know.
        behind_s = (meta.stored_ms - now_ms) / 1000
        behind = f"; the clock is {behind_s:.0f} s behind what was stored last" if behind_s >= 1 else ""
        if behind:
            _log.warning("%s%s", path, behind.replace("; ", ": ", 1))
        if restored.aside is not None:
            reason = f"the tape's file was damaged: a new tape begins, with epoch {tape.epoch}"
            _log.warning("%s: %s", path, reason)
            self.ledger.record("restart", "", now_ms, now_ms, reason=reason)
        elif used_up:
            reason = f"the positions of epoch {meta.epoch} are used up: a new tape begins, with epoch {tape.epoch}"
            _log.warning("%s: %s", path, reason)
            self.ledger.record("restart", "", meta.stored_ms, now_ms, reason=reason + behind)
        elif restored.hole is not None:
            first, last = restored.hole
            reason = f"an unclean stop: what was sent between positions {first} and {last} is not stored"
            if restored.discarded:
                reason += f", and {restored.discarded} damaged entries were discarded"
            _log.warning("%s: %s", path, reason)
            self.ledger.record("restart", "", meta.stored_ms, now_ms, reason=reason + behind)
        elif tape.head:
            reason = f"a clean stop at position {tape.head}: nothing that was sent is lost"
            self.ledger.record("restart", "", meta.stored_ms, now_ms, reason=reason + behind)
        _log.info("%s: %d entries, epoch %s, head %d", path, len(tape), tape.epoch, tape.head)

    # ---- while running --------------------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """Why messages are not being stored; "" if they are."""
        return self._reason or (_LATE if self._late else "")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Store new entries regularly, until cancelled.

        If cancelled, a transaction under way is left to its thread; `close` waits for it.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_after)
            task_status.started()
            while True:
                await trio.sleep(RETRY_S if self._reason else EVERY_S)
                try:
                    await self.flush()
                except (sqlite3.Error, ArchiveError) as error:
                    self._failed(_said(error))
                else:
                    self._succeeded()

    async def flush(self) -> None:
        """Store all new entries.

        Raises:
            sqlite3.Error, ArchiveError: The file could not be written; nothing is lost by that yet.
        """
        self._began_s = trio.current_time()
        try:
            if self._file is None:
                await trio.to_thread.run_sync(self._take_up, abandon_on_cancel=True)
            while self._is_due(batch := self._batch()):
                await trio.to_thread.run_sync(self._write, batch, abandon_on_cancel=True)
                self._wrote(batch)
                self._began_s = trio.current_time()
        except (sqlite3.Error, ArchiveError):
            self._failures += 1
            raise
        finally:
            self._began_s = None

    def statistics(self) -> ArchiveStatistics:
        """The counts so far, and the current state."""
        tape = self.tape
        in_file = self._file is not None and not self._anew
        return ArchiveStatistics(
            stored=self._stored,
            unstored=self._unstored + self._lost(),
            failures=self._failures,
            reserved=tape.limit,
            waiting=tape.count_beyond(self._position) if in_file else len(tape),
            storing=not self.trouble,
        )

    def measure(self, samples: Samples) -> None:
        """Add how many messages were stored, and how many were not."""
        counts = self.statistics()
        samples.count("tickerd_archive_stored", "Messages that were written to the tape's file.", counts.stored)
        samples.count("tickerd_archive_unstored", "Messages that left the tape before that.", counts.unstored)
        samples.count("tickerd_archive_failures", "Transactions that could not be carried out.", counts.failures)
        samples.value("tickerd_archive_waiting", "Messages on the tape that are not stored yet.", counts.waiting)
        samples.value("tickerd_archive_storing", "1 while what is sent is being stored, else 0.", int(counts.storing))
        samples.value("tickerd_archive_reserved_position", "The last seq that may be used.", counts.reserved)

    async def close(self) -> None:
        """Store everything, mark a clean stop, and close the file. Call this when nothing more is sent.

        Takes `CLOSE_S` at most, also if cancelled. If the disk does not answer in time, the next start finds an unclean
        stop, and says so.
        """
        done = False
        with trio.move_on_after(CLOSE_S, shield=True):
            await trio.to_thread.run_sync(self.finish, abandon_on_cancel=True)
            done = True
        if not done:
            _log.error("%s did not take the rest of the tape within %g s", self._path, CLOSE_S)

    def store(self) -> bool:
        """Carry out one transaction, if there is anything to store. Blocking.

        Raises:
            sqlite3.Error, ArchiveError: The file could not be written.
        """
        self._take_up()
        batch = self._batch()
        if not self._is_due(batch):
            return False
        self._write(batch)
        self._wrote(batch)
        return True

    def finish(self) -> None:
        """As `close`, but blocking."""
        try:
            while self.store():
                pass
            batch = self._batch()
            meta = msgspec.structs.replace(batch.meta, clean=True, reserved=self.tape.head)
            self._write(msgspec.structs.replace(batch, meta=meta, synced=True))
        except (sqlite3.Error, ArchiveError) as error:
            _log.error("%s did not take the rest of the tape: %s", self._path, _said(error))
        finally:
            self._let_go()

    # ---- how it goes ------------------------------------------------------------------------------------------------

    def _failed(self, reason: str) -> None:
        if reason != self._reason:
            _log.error("%s %s; what is sent is not stored. Trying again every %g s", self._path, reason, RETRY_S)
        self._reason = reason

    def _succeeded(self) -> None:
        if self._reason:
            self._reason = ""
            self._well_again()

    def _well_again(self) -> None:
        if not self.trouble:
            lost = self.statistics().unstored
            _log.info("%s is written again; %d messages in all left the tape unstored", self._path, lost)
            self.ledger.over("unstored", "", self._clock.now_ms())

    async def _look_after(self) -> None:
        """Notice a disk that does not answer, and record all trouble in the ledger."""
        noted = 0
        while True:
            late = self._began_s is not None and trio.current_time() - self._began_s > LATE_S
            if late and not self._late:
                _log.error("%s %s; what is sent is not stored", self._path, _LATE)
            was, self._late = self._late, late
            if was and not late:
                self._well_again()
            if self.trouble:
                count, noted = max(1, self._failures - noted), self._failures
                reason = f"the tape's file {self.trouble}"
                self.ledger.note("unstored", "", self._clock.now_ms(), count=count, reason=reason)
            await trio.sleep(_LOOK_S)

    # ---- in a worker thread -----------------------------------------------------------------------------------------

    def _take_up(self) -> None:
        """Open the file, if it is not open. Then all of its entries are written anew.

        Raises:
            sqlite3.Error, ArchiveError: It cannot be.
        """
        with self._writing:
            if self._file is not None:
                return
            file = TapeFile(self._path)
            try:
                if self._unread:
                    self._found = file.gaps()
            except sqlite3.Error as error:
                file.close()
                if is_malformed(error):
                    move_aside(self._path)
                raise
            self._unread = False
            self._file, self._anew = file, True

    def _write(self, batch: Batch) -> None:
        """Raises: sqlite3.Error, ArchiveError. Unless only room was lacking, the next write opens the file anew."""
        with self._writing:
            if self._file is None:
                raise DiskError(self._path, "is not open")
            try:
                self._file.write(batch)
            except (sqlite3.Error, DiskError) as error:
                if not is_full(error):
                    self._drop(aside=is_damage(error))
                raise

    def _let_go(self) -> None:
        with self._writing:
            self._drop(aside=False)

    def _drop(self, *, aside: bool) -> None:
        file, self._file = self._file, None
        if aside:
            with suppress(ArchiveError):
                move_aside(self._path)
        if file is not None:
            file.close()

    # ---- what is written --------------------------------------------------------------------------------------------

    def _batch(self) -> Batch:
        """The next transaction: what is not stored yet, and what to delete from the file."""
        tape, now_ms, anew = self.tape, self._clock.now_ms(), self._anew
        if self._found:
            self.ledger.load(self._found)
            self._found = []
        position = 0 if anew else self._position
        outliving = tape.outliving()
        entries = [entry for entry in outliving if entry.seq > position]
        entries += islice(tape.between(position, tape.head), _ENTRIES)
        entries = sorted(entries, key=_seq)[:_ENTRIES]
        gone = {share.channel: share.gone for share in tape.shares() if share.gone}
        kept = {entry.seq for entry in outliving}
        self._gaps.update((gap.id, gap) for gap in self.ledger.changes(now_ms))
        all_gaps = anew or self.ledger.forgotten != self._forgotten
        renew = anew or tape.limit < min(tape.head + self._block // 2, LAST_POSITION)
        meta = Meta(
            epoch=tape.epoch,
            reserved=min(tape.head + self._block, LAST_POSITION) if renew else tape.limit,
            clean=False,
            broken_at=tape.broken_at,
            tail=tape.tail,
            stored_ms=now_ms,
        )
        return Batch(
            meta=meta,
            entries=entries,
            reached=entries[-1].seq if len(entries) == _ENTRIES else tape.head,
            gone=gone,
            kept=kept,
            deleted=() if anew else self._rows.leaving(gone, kept, _ENTRIES),
            gaps=self.ledger.dump() if all_gaps else list(self._gaps.values()),
            all_gaps=all_gaps,
            anew=anew,
            synced=renew,
        )

    def _is_due(self, batch: Batch) -> bool:
        return bool(batch.entries or batch.deleted or batch.gaps or batch.synced)

    def _wrote(self, batch: Batch) -> None:
        """Note that the transaction is in the file."""
        if batch.anew:
            self._rows.clear()
        self._rows.add(batch.entries)
        self._rows.deleted(batch.deleted, batch.gone, batch.kept)
        new = sum(entry.seq > self._safe for entry in batch.entries)
        self._unstored += max(0, batch.reached - self._safe) - new
        self._stored += len(batch.entries)
        self._position = batch.reached
        self._safe = max(self._safe, batch.reached)
        self._anew = False
        self.tape.limit = batch.meta.reserved
        for gap in batch.gaps:
            if self._gaps.get(gap.id) is gap or batch.all_gaps:
                self._gaps.pop(gap.id, None)
        if batch.all_gaps:
            self._forgotten = self.ledger.forgotten

    def _lost(self) -> int:
        """How many positions were not stored yet, and can no longer be."""
        tape, safe = self.tape, self._safe
        here = tape.count_beyond(safe) + sum(entry.seq > safe for entry in tape.outliving())
        return max(0, tape.head - safe - here)


def _read(path: Path, max_entries: int, max_bytes: int, clock: WallClock) -> tuple[TapeFile, Restored]:
    """Open or create the file, and read it. Raises: ArchiveError."""
    file = TapeFile(path)
    try:
        return file, file.restore(max_entries, max_bytes, clock.now_ms())
    except BaseException:
        file.close()
        raise


def _said(error: Exception) -> str:
    """What is wrong with the file, as text that follows its name."""
    return error.reason if isinstance(error, ArchiveError) else f"cannot be written: {error}"


def _seq(entry: Entry) -> int:
    return entry.seq
