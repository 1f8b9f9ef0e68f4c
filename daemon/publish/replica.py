"""A replica: the tape of another process, with the states and the ledger that go with it, kept up by its parts.

Whoever serves clients cannot tell it from the original: the bus hands over what was placed by a synchronous call, as
where the tape is made. Parts that wait together become one pass, and a pass is followed by a rest half as long: so
under load the batches grow here as they do there.

Sync and pure but for `run`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Final

import trio

from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.publish import parts
from daemon.publish.bus import Appended, Bus
from daemon.publish.parts import Beginning, Part
from daemon.publish.sequencer import known_topics
from daemon.tape import copying, deltas
from daemon.tape.entry import Entry
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from protocol.channels import Catalogue

_PASS_S: Final = 0.02
"""A pass that has lasted this long takes no further parts."""

_PASS_ROWS: Final = 512
"""Nor one with so many rows."""

_REST_RATIO: Final = 0.5
_REST_MOST_S: Final = 0.1


class NotNextError(Exception):
    """A part does not follow what is on the tape.

    Attributes:
        head: the replica's head.
        before: the head that the part follows.
    """

    def __init__(self, head: int, before: int) -> None:
        super().__init__(f"the next part follows position {before}, and the tape ends at {head}")
        self.head = head
        self.before = before


class Replica:
    """One tape that is followed, with its board and its ledger.

    Attributes:
        tape: the tape; whole when the parts of `Beginning` are placed (`ready`).
        board: shows the states that the parts tell.
        ledger: has the gaps that they tell.
        bus: hands over what was placed.
        passes: how many there were.
    """

    def __init__(
        self,
        beginning: Beginning,
        max_entries: int,
        max_bytes: int,
        clock: WallClock,
        *,
        adopted: Callable[[Catalogue], None] = lambda _: None,
    ) -> None:
        """Begin. `adopted` is called when the catalogue has become another one; with it before any of its messages.

        Raises:
            ValueError: the catalogue has a kind that is unknown here.
        """
        catalogue = parts.catalogue(beginning.channels)
        self.tape: Tape = copying.begun(beginning.origin, max_entries, max_bytes)
        self.board = Board(catalogue, clock.now_ms())
        self.board.follow(beginning.states)
        self.ledger = Ledger()
        self.ledger.follow(beginning.gaps)
        self.bus = Bus()
        self.passes = 0
        self.adopted = adopted
        self._origin = beginning.origin
        self._clock = clock

    def fill(self, rows: Iterable[copying.Row]) -> None:
        """Place what was on the tape at the beginning; nobody is handed it."""
        for row in rows:
            self.tape.place(row.entry(self.tape.epoch))

    def ready(self) -> None:
        """All of that is placed."""
        copying.ended(self.tape, self._origin)
        deltas.adopt(self.tape, self.board.catalogue)

    def take(self, found: Iterable[Part]) -> None:
        """One pass: take these parts, and hand over what is new. No checkpoint.

        Raises:
            NotNextError: one of them does not follow the tape's head; those before it are taken.
            ValueError: a catalogue has a kind that is unknown here.
        """
        tape, before = self.tape, self.tape.head
        placed: list[Entry] = []
        received: list[int] = []
        try:
            for part in found:
                if part.before != tape.head:
                    raise NotNextError(tape.head, part.before)
                if part.channels is not None:
                    self._hand_over(before, placed, received)
                    placed, received, before = [], [], tape.head
                    self._adopt(parts.catalogue(part.channels))
                self.board.follow(part.states)
                self.ledger.follow(part.gaps)
                for row in part.rows:
                    entry = tape.place(row.entry(tape.epoch))
                    deltas.placed(tape, entry)
                    placed.append(entry)
                    received.append(row.received_ms)
        finally:
            self._hand_over(before, placed, received)
        self.passes += 1

    def _hand_over(self, before: int, placed: list[Entry], received: list[int]) -> None:
        if placed:
            self.bus.hand_over(Appended(before, placed, received))

    def _adopt(self, catalogue: Catalogue) -> None:
        self.board.adopt(catalogue, set(), self._clock.now_ms())
        self.tape.forget(known_topics(catalogue))
        deltas.adopt(self.tape, catalogue)
        self.adopted(catalogue)

    async def run(
        self, inbox: trio.MemoryReceiveChannel[Part], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take parts until the memory channel ends or this is cancelled.

        Raises:
            NotNextError, ValueError: see `take`.
        """
        task_status.started()
        rested_s = -math.inf
        async for part in inbox:
            if trio.current_time() < rested_s:
                await trio.sleep_until(rested_s)
            began_s = time.perf_counter()
            self.take(_ready(part, inbox, began_s + _PASS_S))
            took_s = time.perf_counter() - began_s
            rested_s = trio.current_time() + min(took_s * _REST_RATIO, _REST_MOST_S)


def _ready(part: Part, inbox: trio.MemoryReceiveChannel[Part], until_s: float) -> Iterable[Part]:
    """This part, and others that are ready, up to the bounds."""
    count = 0
    while True:
        yield part
        count += len(part.rows)
        if count >= _PASS_ROWS or time.perf_counter() >= until_s:
            return
        try:
            part = inbox.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return
