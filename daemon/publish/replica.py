"""A replica: the tape of another process, with the states and the ledger that go with it, kept up by its parts.

Whoever serves clients cannot tell it from the original: the bus hands over what was placed by a synchronous call, as
where the tape is made. Parts that wait together are taken as one pass.

Sync and pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.publish import parts
from daemon.publish.bus import Appended, Bus
from daemon.publish.parts import Beginning, Part
from daemon.publish.sequencer import known_topics
from daemon.tape import copying, deltas
from daemon.tape.entry import Entry
from daemon.tape.ledger import Cause, Ledger
from daemon.tape.tape import Tape
from protocol.channels import Catalogue


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


class Noted(msgspec.Struct, frozen=True):
    """Incidents among the clients of a replica, as they go up; see `Ledger.note`."""

    cause: Cause
    channel: str
    count: int = 1
    messages: int = 0
    reason: str = ""


class Notes(Ledger):
    """The ledger of another process, which is followed.

    What is noted here is not kept: it goes up to whoever makes the tape, and comes back as every gap does. So the
    ledger is the same everywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self._noted: dict[tuple[Cause, str], Noted] = {}

    def note(
        self, cause: Cause, channel: str, now_ms: int, *, count: int = 1, messages: int = 0, reason: str = ""
    ) -> None:
        """Remember these incidents until they are `taken`: one sum per cause and channel."""
        before = self._noted.get((cause, channel))
        if before is not None:
            count, messages, reason = count + before.count, messages + before.messages, reason or before.reason
        self._noted[cause, channel] = Noted(cause, channel, count, messages, reason)

    def record(self, cause: Cause, channel: str, start_ms: int, end_ms: int, *, messages: int = 0, reason: str) -> None:
        """A gap that is over already: for whoever makes the tape it is an incident of now."""
        self.note(cause, channel, end_ms, messages=messages, reason=reason)

    def taken(self) -> list[Noted]:
        """What was noted since the last call."""
        noted, self._noted = self._noted, {}
        return list(noted.values())


class Replica:
    """One tape that is followed, with its board and its ledger.

    Attributes:
        tape: the tape; whole when the parts of `Beginning` are placed (`ready`).
        board: shows the states that the parts tell.
        ledger: has the gaps that they tell; what is noted here is for whoever makes the tape.
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
        self.ledger = Notes()
        self.ledger.follow(beginning.gaps)
        self.bus = Bus()
        self.passes = 0
        self.adopted = adopted
        self._beginning = beginning
        self._clock = clock

    def become(self, other: Replica) -> None:
        """Be what that one is, which is whole, for all who hold this one's tape, board or ledger; drop the other one.

        No client may have a place on the tape: positions may be lower now, or mean something else.
        """
        self.tape.become(other.tape)
        self.ledger.follow(other.ledger.dump(), anew=True)
        self.board.adopt(other.board.catalogue, set(), self._clock.now_ms())
        self.board.follow(other.board.states(), anew=True)
        self.adopted(self.board.catalogue)

    def fill(self, rows: Iterable[copying.Row]) -> None:
        """Place what was on the tape at the beginning; nobody is handed it."""
        for row in rows:
            self.tape.place(row.entry(self.tape.epoch))

    def ready(self) -> None:
        """All of that is placed."""
        copying.ended(self.tape, self._beginning.origin)
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
                if part.channels is not None or part.skip:
                    self._hand_over(before, placed, received)
                    placed, received = [], []
                    if part.channels is not None:
                        self._adopt(parts.catalogue(part.channels))
                    if part.skip:
                        tape.skip_to(part.skip)
                    before = tape.head
                if part.states:
                    self.board.follow(part.states)
                if part.gaps:
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
