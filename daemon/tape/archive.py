"""What lets the tape's tail survive a restart: one more cursor on the tape, whose client is a file.

The hot path knows nothing of it. Ten times a second a task takes what is new from the tape and has a worker thread
write it, in one transaction (`daemon.tape.tape_file`). Nothing queues up: what is not stored yet is on the tape anyway,
and if the disk is so slow that the tape's tail overtakes it, what left is not stored, and counted (`unstored`).

**No position is used twice.** Positions are reserved on the disk, `BLOCK` at a time, before the first of them is used,
and the next block when half of one is used. `Tape.limit` is the end of what is reserved. Half a block lasts for longer
than any disk stays broken, so nobody waits for one.

* A clean stop stores everything and gives the rest of the block back: the next start goes on as if nothing had been.
* After any other end the next start goes on behind the block. What was sent and not stored, a tenth of a second's
  messages as a rule, is a *hole*: a client whose position lies before or in it is told `recovered: false`, each topic's
  `prev_seq` names a position that no message has, and it is written into the gap ledger. Counts per topic
  (`Entry.ordinal`) go on from what was stored.

The ledger is kept in the same file.
"""

from __future__ import annotations

import logging
import sqlite3
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import trio

from connectors.metric import Samples
from daemon.host.clock import WallClock
from daemon.tape.database import ArchiveError as ArchiveError
from daemon.tape.gaps import Gap, Ledger
from daemon.tape.tape import LAST_POSITION, Tape
from daemon.tape.tape_file import Batch, Restored, TapeFile

BLOCK: Final = 2**40
"""Positions reserved at a time: a year of 30 000 messages a second. There are 2**53, so 8191 unclean stops are free."""

EVERY_S: Final = 0.1
"""How often what is new is stored."""

RETRY_S: Final = 1.0
"""After the file could not be written."""

CLOSE_S: Final = 5.0
"""How long a stop waits for the disk."""

_ENTRIES: Final = 4096
"""Stored in one transaction at most."""

_log: Final = logging.getLogger(__name__)


class ArchiveStatistics(msgspec.Struct, frozen=True):
    """Counts since the start, and what is reserved.

    Attributes:
        stored: entries in the file by now.
        unstored: positions that left the tape before they could be stored.
        failures: transactions that could not be carried out.
        reserved: the last position that may be used.
    """

    stored: int
    unstored: int
    failures: int
    reserved: int


class Archive:
    """The tape's file, and who writes it.

    Attributes:
        tape: the tape as it was read back, ready for the next message.
        ledger: the ledger as it was read back.
    """

    def __init__(self, file: TapeFile, restored: Restored, clock: WallClock, block: int = BLOCK) -> None:
        """Use `open`. The first block is not reserved yet."""
        self.tape: Tape = restored.tape
        self.ledger = Ledger()
        self.ledger.load(restored.gaps)
        self._file = file
        self._clock = clock
        self._block = block
        self._meta = restored.meta
        self._position = self.tape.head
        self._gaps: dict[int, Gap] = {}
        self._forgotten = -1
        self._stored = self._unstored = self._failures = 0
        self.tape.limit = self.tape.head

    @classmethod
    def open(cls, path: Path, max_entries: int, max_bytes: int, clock: WallClock, block: int = BLOCK) -> Archive:
        """Read the file back, or make a new one, and reserve the first positions. Blocking.

        Raises:
            ArchiveError: It cannot be used.
        """
        file = TapeFile(path)
        try:
            restored = file.restore(max_entries, max_bytes, clock.now_ms())
            archive = cls(file, restored, clock, block)
            archive._account_for(restored)
            batch = archive._batch()
            file.write(batch)
            archive._wrote(batch)
        except BaseException as error:
            file.close()
            if isinstance(error, sqlite3.Error):
                raise ArchiveError(path, f"cannot be written: {error}", permanent=False) from error
            raise
        return archive

    def _account_for(self, restored: Restored) -> None:
        """Say what the last stop, and what was found, mean for clients: in the log, and in the ledger."""
        path, meta, now_ms = self._file.path, restored.meta, self._clock.now_ms()
        if restored.aside is not None:
            reason = f"the tape's file was damaged: a new tape begins, with epoch {self.tape.epoch}"
            _log.warning("%s was damaged, and is now %s; %s", path, restored.aside, reason)
            self.ledger.record("restart", "", now_ms, now_ms, reason=reason)
        elif restored.hole is not None:
            first, last = restored.hole
            reason = f"an unclean stop: what was sent between positions {first} and {last} is not stored"
            if restored.discarded:
                reason += f", and {restored.discarded} damaged entries were discarded"
            _log.warning("%s: %s", path, reason)
            self.ledger.record("restart", "", meta.stored_ms, now_ms, reason=reason)
        elif self.tape.head:
            reason = f"a clean stop at position {self.tape.head}: nothing that was sent is lost"
            self.ledger.record("restart", "", meta.stored_ms, now_ms, reason=reason)
        _log.info("%s: %d entries, epoch %s, head %d", path, len(self.tape), self.tape.epoch, self.tape.head)

    # ---- while running --------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Store what is new, again and again, until cancelled. If cancelled, the transaction under way is finished."""
        task_status.started()
        failing = False
        while True:
            await trio.sleep(RETRY_S if failing else EVERY_S)
            try:
                await self.flush()
            except sqlite3.Error as error:
                if not failing:
                    _log.error("%s cannot be written: %s; trying again every %g s", self._file.path, error, RETRY_S)
                failing = True
            else:
                if failing:
                    _log.info("%s is written again", self._file.path)
                failing = False

    async def flush(self) -> None:
        """Store everything that is new.

        Raises:
            sqlite3.Error: The file could not be written; nothing is lost by that yet.
        """
        while self._is_due(batch := self._batch()):
            try:
                await trio.to_thread.run_sync(self._file.write, batch)
            except sqlite3.Error:
                self._failures += 1
                raise
            self._wrote(batch)

    def statistics(self) -> ArchiveStatistics:
        """What happened so far."""
        return ArchiveStatistics(self._stored, self._unstored, self._failures, self.tape.limit)

    async def close(self) -> None:
        """Store everything, note that this is a clean stop, and let go of the file; to be called when nothing is sent.

        Takes `CLOSE_S` at most, also if cancelled. If the disk does not answer in time, the next start finds an unclean
        stop, and says so.
        """
        done = False
        with trio.move_on_after(CLOSE_S, shield=True):
            await trio.to_thread.run_sync(self.finish, abandon_on_cancel=True)
            done = True
        if not done:
            _log.error("%s did not take the rest of the tape within %g s", self._file.path, CLOSE_S)

    def store(self) -> bool:
        """Carry out one transaction, if there is anything to store. Blocking.

        Raises:
            sqlite3.Error: The file could not be written.
        """
        batch = self._batch()
        if not self._is_due(batch):
            return False
        self._file.write(batch)
        self._wrote(batch)
        return True

    def finish(self) -> None:
        """As `close`, but blocking."""
        try:
            while self.store():
                pass
            batch = self._batch()
            meta = msgspec.structs.replace(batch.meta, clean=True, reserved=self.tape.head)
            self._file.write(msgspec.structs.replace(batch, meta=meta, synced=True))
        except sqlite3.Error as error:
            _log.error("%s did not take the rest of the tape: %s", self._file.path, error)
        finally:
            self._file.close()

    def _batch(self) -> Batch:
        """The next transaction: what is not stored yet, and what the file is to forget."""
        tape, now_ms = self.tape, self._clock.now_ms()
        outliving = tape.outliving()
        entries = [entry for entry in outliving if self._position < entry.seq]
        entries += islice(tape.between(self._position, tape.head), _ENTRIES)
        self._gaps.update((gap.id, gap) for gap in self.ledger.changes(now_ms))
        forgot = self.ledger.forgotten != self._forgotten
        renew = tape.limit - tape.head < self._block // 2
        meta = msgspec.structs.replace(
            self._meta,
            reserved=min(tape.head + self._block, LAST_POSITION) if renew else tape.limit,
            clean=False,
            broken_at=tape.broken_at,
            tail=tape.tail,
            stored_ms=now_ms,
        )
        return Batch(
            meta=meta,
            entries=entries,
            kept=[entry.seq for entry in outliving],
            gaps=self.ledger.dump() if forgot else list(self._gaps.values()),
            all_gaps=forgot,
            synced=renew,
        )

    def _is_due(self, batch: Batch) -> bool:
        return bool(batch.entries or batch.gaps or batch.synced)

    def _wrote(self, batch: Batch) -> None:
        """The transaction is in the file."""
        overtaken = max(0, batch.meta.tail - 1 - self._position)
        self._unstored += overtaken - sum(entry.seq < batch.meta.tail for entry in batch.entries)
        if batch.entries:
            self._position = batch.entries[-1].seq
            self._stored += len(batch.entries)
        self._meta = batch.meta
        if batch.meta.reserved > self.tape.limit:
            self.tape.limit = batch.meta.reserved
        for gap in batch.gaps:
            if self._gaps.get(gap.id) is gap or batch.all_gaps:
                self._gaps.pop(gap.id, None)
        if batch.all_gaps:
            self._forgotten = self.ledger.forgotten

    def measure(self, samples: Samples) -> None:
        """Add what was stored, and what was not."""
        counts = self.statistics()
        samples.count("tickerd_archive_stored", "Messages that were written to the tape's file.", counts.stored)
        samples.count("tickerd_archive_unstored", "Messages that left the tape before that.", counts.unstored)
        samples.count("tickerd_archive_failures", "Transactions that could not be carried out.", counts.failures)
        samples.value("tickerd_archive_reserved_position", "The last seq that may be used.", counts.reserved)
