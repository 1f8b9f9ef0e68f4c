"""From a connection's payloads to events, in order, and what is done about payloads that nobody can read. No I/O."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.push.inlet import Batch
from connectors.push.venue import Control, Conversation, Said

_log: Final = logging.getLogger(__name__)

EVENTS_AT_ONCE: Final = 512
"""Most events that are handed on at once, give or take the last frame's."""

BAD_IN_A_ROW: Final = 10
BAD_OF_100: Final = 50
"""More unreadable frames in a row, or so many among the last hundred, and the connection is not worth keeping."""


class FeedStatistics(msgspec.Struct):
    """Counts since the start of the daemon.

    Attributes:
        connections: opening handshakes that succeeded.
        frames: messages of any kind.
        events: what became of them.
        empty: data frames without an event, such as the ticker of a pair that has not traded yet.
        ignored: well-formed frames that are of no interest.
        unreadable: frames that are not what the venue documents; they are left out.
        odd_rows: parts of well-formed frames that were left out, because they are not what the venue documents, or are
            no prices: the daemon was told of which instrument.
        switches: connections that took over from one that was still there.
        duplicates: events that another connection had delivered already, and that were not published again.
        repeats: trades that had been published before, or are history.
        fetches: answers of the venue's HTTP interface that were asked for.
        renewals: subscriptions that were ended and asked for anew, because something was missing.
    """

    connections: int = 0
    frames: int = 0
    events: int = 0
    empty: int = 0
    ignored: int = 0
    unreadable: int = 0
    odd_rows: int = 0
    switches: int = 0
    duplicates: int = 0
    repeats: int = 0
    fetches: int = 0
    renewals: int = 0


class Faults:
    """Decides whether unreadable frames are accidents or the rule. Good frames cost nothing here."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._last = -2
        self._bad: deque[int] = deque(maxlen=BAD_OF_100)

    def add(self, frame: int) -> bool:
        """Note that the frame of that number cannot be read. Whether that makes too many."""
        self._in_a_row = self._in_a_row + 1 if frame == self._last + 1 else 1
        self._last = frame
        self._bad.append(frame)
        half = len(self._bad) == BAD_OF_100 and frame - self._bad[0] < 100
        return half or self._in_a_row > BAD_IN_A_ROW


class Intake:
    """Reads what one connection delivers."""

    def __init__(self, name: str, conversation: Conversation, counts: FeedStatistics) -> None:
        """`name` is the venue's, for the log. `counts` are kept here, as far as they are about frames."""
        self._name = name
        self._conversation = conversation
        self._counts = counts
        self._faults = Faults()
        self._frames = 0

    def read(self, batch: Batch) -> Iterator[list[Event] | Rows | Control]:
        """What a batch says, in order: lists of events, and control messages; at the end the notes about topics.

        Needs and notes of gaps stand in their place among the events: what follows may be what mends them. Where there
        was data but nothing became of it, the list of events is empty; rows that cannot be read are no data. The next
        piece is read when it is asked for.

        Raises:
            PayloadError: too much of what comes cannot be read; what could be has been handed out.
        """
        handle, received_ms, counts = self._conversation.handle, batch.received_ms, self._counts
        events: list[Event] = []
        notes: list[TopicNote] = []
        had_data = False
        number = self._frames
        self._frames += len(batch.payloads)
        counts.frames += len(batch.payloads)
        for payload in batch.payloads:
            number += 1
            try:
                said = handle(payload, received_ms)
            except PayloadError as error:
                if self._too_many(number, error):
                    if events:
                        yield events
                    raise PayloadError(f"too much cannot be read; at last: {error}") from None
                continue
            if isinstance(said, list):
                had_data = True
                events += said
                if not said:
                    counts.empty += 1
                elif len(events) >= EVENTS_AT_ONCE:
                    yield events
                    events = []
            elif isinstance(said, Rows):
                is_gap = isinstance(said, Said) or any(note.cause == "gap" for note in said.notes)
                if is_gap:
                    if events:
                        yield events
                        events = []
                    yield msgspec.structs.replace(said, events=[])
                else:
                    counts.odd_rows += len(said.notes)
                    notes += said.notes
                events += said.events
                had_data = had_data or bool(said.events) or any(note.cause == "halted" for note in said.notes)
            else:
                if events:
                    yield events
                    events = []
                yield said
        if had_data:
            yield events
        if notes:
            yield Rows([], notes)

    def _too_many(self, frame: int, error: PayloadError) -> bool:
        counts = self._counts
        counts.unreadable += 1
        # The 1st, 2nd, 4th, 8th, ...: a flood of bad frames is no flood of lines.
        if counts.unreadable & (counts.unreadable - 1) == 0:
            name, count = self._name, counts.unreadable
            _log.warning("%s: unreadable frame (number %d): %s", name, count, error)
        return self._faults.add(frame)
