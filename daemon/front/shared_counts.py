"""How many are here, counted by several processes together: in memory that they share, one column for each.

The limits hold for all processes together, and exactly: to look and to count is one step, under a lock of the file that
is the memory. It is held for microseconds. A process that dies gives the lock back, whatever it was doing, and leaves
nothing half done that counts: a count is one store of four bytes, and a row whose counts are all 0 is nobody's. Its own
column stays, until `clear` empties it.

The memory is a table of rows, found by the address (open addressing, one row after the other):

    [a number that addresses are mixed with, so that nobody can know which of them stand together, 16 bytes]
    [how many in all, a column per process]
    [address, 16 bytes][how many, a column per process]
    ...
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import logging
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

from daemon.front.address_counts import NO_LIMIT, AddressCounts, NoRoomError

_KEY_BYTES: Final = 16
_COUNT_BYTES: Final = 4
_SALT_BYTES: Final = 16
_NOBODY: Final = bytes(_KEY_BYTES)

_MOST_PROBES: Final = 512
"""So many rows are looked at for an address. The table is at most a quarter full unless limits were raised since."""

_LEAST_ROWS: Final = 16_384

_CLEARED_AT_ONCE: Final = 2048
"""So many rows are cleared while the lock is held: a fraction of a millisecond."""

_LOCK_S: Final = 0.05
"""The lock is waited for so long. Only a process that was stopped just then holds it longer; counts may then be off by
a little, until it goes on or is ended."""

_TRY_S: Final = 0.0001

_log: Final = logging.getLogger(__name__)


class CountsMemory:
    """The memory of some tables, as one process has it: a file without a name.

    Attributes:
        fd: the file; inherited by those that are to share it.
    """

    def __init__(self, fd: int, processes: int, rows: int, tables: int) -> None:
        """Share the memory that `create` made with these numbers."""
        self.fd = fd
        self.processes = processes
        self.rows = rows
        self.stride = _KEY_BYTES // _COUNT_BYTES + processes
        self._table_words = processes + rows * self.stride
        self.map = mmap.mmap(fd, _SALT_BYTES + tables * self._table_words * _COUNT_BYTES)
        self.salt = self.map[:_SALT_BYTES]
        self.words = memoryview(self.map).cast("I")
        self._unlocked_until_s = 0.0

    @classmethod
    def create(cls, processes: int, most: int, tables: int) -> CountsMemory:
        """New memory, for up to `most` addresses. It takes up room as it is used."""
        rows = _LEAST_ROWS
        while rows < 4 * most:
            rows *= 2
        fd = os.memfd_create("tickerd-counts", os.MFD_CLOEXEC)
        words = processes + rows * (_KEY_BYTES // _COUNT_BYTES + processes)
        os.ftruncate(fd, _SALT_BYTES + tables * words * _COUNT_BYTES)
        os.pwrite(fd, os.urandom(_SALT_BYTES), 0)
        return cls(fd, processes, rows, tables)

    def start_of(self, table: int) -> int:
        """The word that a table begins with."""
        return _SALT_BYTES // _COUNT_BYTES + table * self._table_words

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile. No checkpoint may be within."""
        if not (has := self._try_lock()) and time.monotonic() >= self._unlocked_until_s:
            until_s = time.monotonic() + _LOCK_S
            while not has and time.monotonic() < until_s:
                time.sleep(_TRY_S)
                has = self._try_lock()
            if not has:
                self._unlocked_until_s = time.monotonic() + 1.0
                _log.warning("the counts of clients are locked by a process that does not go on: limits may be off")
        try:
            yield
        finally:
            if has:
                fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def _try_lock(self) -> bool:
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give it up in this process."""
        self.words.release()
        self.map.close()
        os.close(self.fd)


class SharedCounts(AddressCounts):
    """One table of the memory: `AddressCounts` of several processes together."""

    def __init__(self, memory: CountsMemory, table: int, process: int) -> None:
        """`process`: whose column is counted in; from 0."""
        super().__init__()
        self._memory = memory
        self._words = memory.words
        self._start = memory.start_of(table)
        self._rows = self._start + memory.processes
        self._process = process

    @property
    def total(self) -> int:
        """How many there are, of all processes."""
        return sum(self._words[self._start : self._rows])

    @property
    def here(self) -> int:
        """Of these, how many are this process's own."""
        return self._words[self._start + self._process]

    def of_process(self, process: int) -> int:
        """How many are that process's."""
        return self._words[self._start + process]

    def of(self, peer: str) -> int:
        """How many are from that IP address; 0 for an exempt one."""
        name = self.counted_as(peer)
        if not name:
            return 0
        with self._memory.locked():
            at, known = self._find(_key(name))
            return self._sum(at) if known else 0

    def add(self, name: str, most: int = NO_LIMIT, most_of_address: int = NO_LIMIT) -> None:
        """Count one more under that name (`counted_as`). Raises: NoRoomError, see `take`."""
        with self._memory.locked():
            if self.total >= most:
                raise NoRoomError("all")
            if name:
                key = _key(name)
                at, known = self._find(key)
                if known and self._sum(at) >= most_of_address:
                    raise NoRoomError("address")
                if at >= 0:
                    if not known:
                        self._memory.map[at * _COUNT_BYTES : at * _COUNT_BYTES + _KEY_BYTES] = key
                    self._words[self._column(at)] += 1
            self._words[self._start + self._process] += 1

    def remove(self, name: str) -> None:
        """Count one less under that name."""
        with self._memory.locked():
            if name:
                at, known = self._find(_key(name))
                if known and self._words[self._column(at)]:
                    self._words[self._column(at)] -= 1
                    self._tidy(at)
            self._words[self._start + self._process] -= 1

    def clear(self, process: int) -> None:
        """That process has ended: empty its column. It takes some milliseconds; others can go on in between."""
        memory, words = self._memory, self._words
        end = self._rows + memory.rows * memory.stride
        words[self._start + process] = 0
        for first in range(self._rows, end, _CLEARED_AT_ONCE * memory.stride):
            last = min(end, first + _CLEARED_AT_ONCE * memory.stride)
            column = _KEY_BYTES // _COUNT_BYTES + process
            with memory.locked():
                for offset, count in enumerate(words[first + column : last : memory.stride]):
                    if count:
                        at = first + offset * memory.stride
                        words[at + column] = 0
                        self._tidy(at)

    def _column(self, at: int) -> int:
        return at + _KEY_BYTES // _COUNT_BYTES + self._process

    def _sum(self, at: int) -> int:
        first = at + _KEY_BYTES // _COUNT_BYTES
        return sum(self._words[first : first + self._memory.processes])

    def _key_at(self, at: int) -> bytes:
        return self._memory.map[at * _COUNT_BYTES : at * _COUNT_BYTES + _KEY_BYTES]

    def _find(self, key: bytes) -> tuple[int, bool]:
        """The row of that address, and True; or where it may have one, and False: -1 where there is no room."""
        memory = self._memory
        row = int.from_bytes(hashlib.blake2b(key, digest_size=8, key=memory.salt).digest()) & (memory.rows - 1)
        free = -1
        for _ in range(_MOST_PROBES):
            at = self._rows + row * memory.stride
            found = self._key_at(at)
            if found == key:
                return at, True
            if found == _NOBODY:
                return (at if free < 0 else free), False
            if free < 0 and not self._sum(at):
                free = at
            row = (row + 1) & (memory.rows - 1)
        return free, False

    def _tidy(self, at: int) -> None:
        """Empty the row if nobody is counted there, where no other address is looked for beyond it; and those before.

        A row in the midst of others stays, with counts of 0, and is taken by whoever comes to it first.
        """
        memory, first = self._memory, self._rows
        row = (at - first) // memory.stride
        if self._key_at(first + ((row + 1) & (memory.rows - 1)) * memory.stride) != _NOBODY:
            return
        for _ in range(_MOST_PROBES):
            at = first + row * memory.stride
            if self._key_at(at) == _NOBODY or self._sum(at):
                return
            memory.map[at * _COUNT_BYTES : at * _COUNT_BYTES + _KEY_BYTES] = _NOBODY
            row = (row - 1) & (memory.rows - 1)


@lru_cache(4096)
def _key(name: str) -> bytes:
    """What an address, or a network of IPv6, is in the table: never 16 times 0."""
    network = ipaddress.ip_network(name)
    packed = network.network_address.packed
    if len(packed) == 4:
        return b"\0\0\0\0\0\0\0\0\0\0\xff\xff" + packed
    return packed[:-1] + b"\1"  # of a network of 64 bits this byte is 0
