"""The outlet: makes the parts that other processes follow (`daemon.publish.parts`), once for all of them.

It is a follower of the bus like the fan-out. The newest parts are kept, within a bound, so whoever follows takes them
at its own speed: nobody waits for it, and one who is further behind than that begins anew. What is on the tape already
is handed to a new one from the tape itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import trio

from daemon.health.board import Board
from daemon.publish.bus import Appended
from daemon.publish.parts import Beginning, Part, changed, encode, listed
from daemon.tape.copying import Row, origin, standing
from daemon.tape.entry import STATUS
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape

KEPT_BYTES: Final = 67_108_864
"""Parts of so many bytes are kept together; the newest one always."""

_STRETCH: Final = 1000
"""So many of the entries that are on the tape already make one part."""

_TELL_S: Final = 1.0
"""How often followers are told what changed without a message: when data came last, and the gaps of the ledger."""


class OvertakenError(Exception):
    """The next part is not kept any longer: whoever was to take it has to begin anew."""


class Outlet:
    """The parts of one tape.

    Attributes:
        next: the number of the next part; they are numbered from 0.
        made_bytes: how long all parts were that were made so far.
    """

    def __init__(self, tape: Tape, board: Board, ledger: Ledger, kept_bytes: int = KEPT_BYTES) -> None:
        self.next = self.made_bytes = 0
        self._tape = tape
        self._board = board
        self._ledger = ledger
        self._kept_bytes = kept_bytes
        self._kept: deque[bytes] = deque()
        self._bytes = 0
        self._more = trio.lowlevel.ParkingLot()
        self._catalogue = board.catalogue
        self._states = dict(board.told())
        self._revision = ledger.revision
        self._head = tape.head
        """After the newest part."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell followers regularly what changed beside the tape, until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(_TELL_S)
            self.tell()

    def follow(self, appended: Appended) -> None:
        """Make a part of what was appended."""
        rows = [Row.of(entry, ms) for entry, ms in zip(appended.entries, appended.received_ms, strict=True)]
        statuses = {entry.topic[0] for entry in appended.entries if entry.topic[1] == STATUS}
        states = {name: self._board.told_of(name) for name in statuses if name in self._board.catalogue}
        self._add(Part(appended.before, rows, states))

    def tell(self) -> None:
        """Make a part of what changed beside the tape, if anything did."""
        states = changed(self._states, self._board.told())
        beside = self._revision != self._ledger.revision or self._catalogue is not self._board.catalogue
        if states or beside or self._head != self._tape.head:
            self._add(Part(self._tape.head, [], states))

    def _add(self, part: Part) -> None:
        if part.before != self._head:
            part.before, part.skip = self._head, part.before
        self._head = part.end
        if self._catalogue is not self._board.catalogue:
            self._catalogue = self._board.catalogue
            part.channels = listed(self._catalogue)
            part.states = dict(self._board.told())
            self._states = {}
        if self._revision != self._ledger.revision:
            part.gaps = self._ledger.since(self._revision)
            self._revision = self._ledger.revision
        self._states |= part.states
        data = encode(part)
        self._kept.append(data)
        self._bytes += len(data)
        self.made_bytes += len(data)
        self.next += 1
        while self._bytes > self._kept_bytes and len(self._kept) > 1:
            self._bytes -= len(self._kept.popleft())
        self._more.unpark_all()

    def forget(self, number: int) -> None:
        """Drop the parts before that number: all who follow have them."""
        while self._kept and self.next - len(self._kept) < number:
            self._bytes -= len(self._kept.popleft())

    def begin(self) -> tuple[Beginning, Iterator[Part]]:
        """Where following begins now: then come the parts of what is on the tape, and then those from `next` on.

        The parts are made as they are taken; they do not change any more, however long that takes.
        """
        if self._head != self._tape.head:
            self.tell()  # a skip belongs to the beginning, not to what comes after
        beginning = Beginning(
            origin(self._tape), listed(self._board.catalogue), dict(self._board.told()), self._ledger.dump()
        )
        found = standing(self._tape)
        return beginning, (
            Part(found[at].seq - 1, [Row.of(entry) for entry in found[at : at + _STRETCH]])
            for at in range(0, len(found), _STRETCH)
        )

    def kept(self, number: int, most_bytes: int) -> list[bytes]:
        """The parts from that number on, encoded: at least one, and no more than so many bytes; none if it is `next`.

        Raises:
            OvertakenError: it is not kept any longer.
        """
        at = number - (self.next - len(self._kept))
        if at < 0:
            raise OvertakenError(f"part {number} is not kept any longer; the first that is, is {number - at}")
        found: list[bytes] = []
        # By index: a deque finds what is near one of its ends at once, and a walk would begin at the oldest.
        for index in range(at, len(self._kept)):
            data = self._kept[index]
            if found and most_bytes < len(data):
                break
            found.append(data)
            most_bytes -= len(data)
        return found

    async def wait(self, number: int) -> None:
        """Wait until there is a part of that number."""
        while self.next <= number:
            await self._more.park()
