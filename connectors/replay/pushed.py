"""A websocket's recording: each connection's frames go to a conversation of their own, as they did when they came.

What `connectors.push` does with tasks, locks and a socket is done here step by step, by the time that is given:

    `Overlap`   two connections' events as one sequence, while one takes over from the other
    `Once`      each trade once

Needs are not seen to: what was fetched is in the recording, what was asked for anew has been.
"""

from __future__ import annotations

import logging
from math import ceil, inf
from typing import Final

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.capture.lines import Fetched, Line
from connectors.limits.notes import NoteLimit
from connectors.push.connection import CLOSED_HERE
from connectors.push.feed import Feed
from connectors.push.once import Once
from connectors.push.overlap import Overlap, Topic
from connectors.push.venue import Control, Conversation, Said, Several, SubscribeRefused
from connectors.replay.items import Item, Missing, Notes, States
from protocol.fields import DepthFields, SnapshotFields

_log: Final = logging.getLogger(__name__)

_BOOK: Final = (DepthFields, SnapshotFields)


class _Connection:
    """One connection: its conversation, and what it is waiting for."""

    def __init__(self, talk: Conversation) -> None:
        self.talk = talk
        self.due_ms = inf
        self.must_restate = False
        self.gaps: dict[Topic, TopicNote] = {}
        """What it noted while another one spoke."""


class PushedStage:
    """One feed of a recording: a `Stage`."""

    def __init__(self, feed: Feed) -> None:
        """`feed` is made, and never run."""
        venue = feed.venue
        self._venue = venue
        self._carried = feed.carried
        self._parts = venue.parts
        self._requests = {request.id: request for request in venue.subscribe_requests()}
        self._once = Once(consecutive=venue.rules.consecutive_trades)
        self._notes = NoteLimit()
        self._states = States(feed.channels)
        self._unreadable = 0
        self._latest: dict[Topic, Event] = {}
        self._connections: dict[int, _Connection] = {}
        self._overlap: Overlap | None = None
        self._speaker: _Connection | None = None
        """The connection that speaks for the channels; another one may be about to take over from it."""
        self.due_ms: float = inf

    def frames(self, connection: int, payloads: list[bytes], at_ms: int) -> list[Item]:
        """See `Stage`."""
        one = self._connections.get(connection)
        if one is None:
            # The recording begins in the middle of it.
            one = self._open(connection)
        found: list[Item] = []
        overlap = self._overlap
        if overlap is not None:
            found += self._put_out(overlap.overdue(at_ms / 1000), at_ms)
        # As `Intake` reads a batch; that too much cannot be read has ended the connection when it was recorded.
        events: list[Event] = []
        notes: list[TopicNote] = []
        for payload in payloads:
            try:
                said = one.talk.handle(payload, at_ms)
            except PayloadError as error:
                self._cannot_read(error)
                continue
            if isinstance(said, list):
                events = [*events, *said] if events else said
            elif isinstance(said, Rows):
                if isinstance(said, Said) or any(note.cause == "gap" for note in said.notes):
                    found += [*self._publish(one, events, at_ms), *self._note(one, said, at_ms)]
                    events = []
                    for control in said.controls if isinstance(said, Said) else ():
                        found += self._heed(control, at_ms)
                else:
                    notes += said.notes
                events = [*events, *said.events]
            else:
                found += [*self._publish(one, events, at_ms), *self._heed(said, at_ms)]
                events = []
        if events:
            found += self._publish(one, events, at_ms)
        if notes:
            found += self._note(one, Rows([], notes), at_ms)
        wait_ms = one.talk.waits_ms(at_ms)
        if wait_ms is not None or one.due_ms != inf:
            self._wait(one, at_ms)
        return found

    def take(self, line: Line, at_ms: int) -> list[Item]:
        """See `Stage`."""
        if line.opened is not None:
            begins = not self._connections
            self._open(line.conn)
            return self._states.told("connecting") if begins else []
        if line.closed is not None:
            return self._close(line.conn, line.closed, at_ms)
        if line.fetched is not None:
            return self._fetched(line.conn, line.fetched, at_ms)
        if line.lost is not None:
            lost = line.lost
            return [Missing(self._carried, lost.from_ms, lost.to_ms, lost.frames, lost.why)]
        return []

    def tick(self, at_ms: int) -> list[Item]:
        """See `Stage`."""
        found: list[Item] = []
        for one in list(self._connections.values()):
            if one.due_ms <= at_ms:
                wait_ms = one.talk.waits_ms(at_ms)
                if wait_ms is not None and wait_ms <= 0:
                    found += self._said(one, one.talk.tick(at_ms), at_ms)
                self._wait(one, at_ms, least_ms=1)
        return found

    def gone(self, reason: str) -> list[Item]:
        """See `Stage`."""
        self._connections, self._speaker, self._overlap = {}, None, None
        self.due_ms = inf
        return [*self._states.told("down", reason), *self._parted(reason)]

    def restated(self, at_ms: int) -> list[Item]:
        """See `Stage`."""
        found = self._states.restated()
        if self._speaker is not None:
            events = self._speaker.talk.restate(at_ms)
            if events:
                found.append(events)
        return found

    def _cannot_read(self, error: PayloadError) -> None:
        """A frame is left out, as it was when it was recorded. A flood of them is no flood of lines."""
        self._unreadable = count = self._unreadable + 1
        if count & (count - 1) == 0:
            _log.warning("%s: unreadable frame (number %d): %s", self._venue.name, count, error)

    # ---- connections ----------------------------------------------------------------------------------------------

    def _open(self, number: int) -> _Connection:
        one = self._connections[number] = _Connection(self._venue.converse())
        if self._speaker is None:
            self._speaker = one
        else:
            overlap = self._overlap = Overlap(self._latest, self._overlap)
            self._latest = overlap.latest
        return one

    def _close(self, number: int, reason: str, at_ms: int) -> list[Item]:
        one = self._connections.pop(number, None)
        found: list[Item] = []
        if one is not None and self._connections:
            overlap = self._overlap
            if overlap is not None:
                found += self._put_out(overlap.end(new_is_gone=one is not self._speaker), at_ms)
            if one is self._speaker:
                new = self._speaker = next(iter(self._connections.values()))
                new.must_restate = True
                found += _noted(list(new.gaps.values()))
                new.gaps = {}
        elif not self._connections:
            # Also an attempt that got nowhere.
            self._speaker = self._overlap = None
            if reason == CLOSED_HERE:
                # What follows in the recording says why.
                return found
            found += [*self._states.told("reconnecting", reason), *self._parted(reason)]
        self.due_ms = min((each.due_ms for each in self._connections.values()), default=inf)
        return found

    def _parted(self, reason: str) -> list[Item]:
        """What is told of channels that other connections feed too."""
        notes = [TopicNote(name, each, "gap", reason) for name, own in self._parts.items() for each in own]
        return _noted(notes)

    def _wait(self, one: _Connection, at_ms: int, least_ms: int = 0) -> None:
        """See when it has something to say by itself."""
        wait_ms = one.talk.waits_ms(at_ms)
        due_ms = inf if wait_ms is None else at_ms + max(ceil(wait_ms), least_ms)
        if due_ms != one.due_ms:
            one.due_ms = due_ms
            self.due_ms = min(each.due_ms for each in self._connections.values())

    # ---- what is said ---------------------------------------------------------------------------------------------

    def _fetched(self, number: int, fetched: Fetched, at_ms: int) -> list[Item]:
        one = self._connections.get(number)
        if one is None:
            return []
        reason = fetched.reason
        if fetched.body is not None:
            try:
                found = self._said(one, one.talk.fetched(fetched.id, fetched.body.encode(), at_ms), at_ms)
            except PayloadError as error:
                reason = str(error)
            else:
                self._wait(one, at_ms)
                return found
        return self._noted_of(one, self._notes.due(one.talk.unfetched(fetched.id, reason), at_ms / 1000))

    def _said(self, one: _Connection, said: list[Event] | Rows, at_ms: int) -> list[Item]:
        if isinstance(said, Rows):
            return [*self._note(one, said, at_ms), *self._publish(one, said.events, at_ms)]
        return self._publish(one, said, at_ms)

    def _note(self, one: _Connection, said: Rows, at_ms: int) -> list[Item]:
        urgent = [note for note in said.notes if note.cause == "gap" and not note.partial]
        others = [note for note in said.notes if note not in urgent]
        return self._noted_of(one, [*urgent, *self._notes.due(others, at_ms / 1000)])

    def _noted_of(self, one: _Connection, notes: list[TopicNote]) -> list[Item]:
        if one is self._speaker:
            return _noted(notes)
        # All but what is lost would be noted again.
        lost = [note for note in notes if note.cause == "gap" and not note.partial]
        one.gaps |= {(note.channel, note.instrument): note for note in lost}
        return []

    def _heed(self, control: Control, at_ms: int) -> list[Item]:
        """Only what is refused is told."""
        found: list[Item] = []
        for single in control.controls if isinstance(control, Several) else (control,):
            if isinstance(single, SubscribeRefused) and (request := self._requests.get(single.id)) is not None:
                notes = [TopicNote(name, request.subject, "refused", single.reason) for name in request.channels]
                found += _noted(self._notes.due(notes, at_ms / 1000))
        return found

    def _publish(self, one: _Connection, events: list[Event], at_ms: int) -> list[Item]:
        if one.must_restate and events:
            one.must_restate = False
            events = [event for event in events if not isinstance(event.fields, _BOOK)] + one.talk.restate(at_ms)
        if not events:
            return []
        overlap = self._overlap
        if overlap is None:
            latest = self._latest
            for event in events:
                latest[event.channel, event.instrument] = event
            return self._put_out(events, at_ms)
        if one is self._speaker and len(self._connections) > 1:
            return self._put_out(overlap.from_old(events), at_ms)
        if one.gaps:
            for event in events:
                one.gaps.pop((event.channel, event.instrument), None)
        # The one that takes over, or has; which is behind until the overlap is over.
        return self._put_out(overlap.from_new(events, at_ms / 1000), at_ms)

    def _put_out(self, events: list[Event], at_ms: int) -> list[Item]:
        if self._overlap is not None and self._overlap.is_over:
            self._overlap = None
        admitted, notes = self._once.admit(events)
        if notes:
            told = _noted(self._notes.due(notes, at_ms / 1000))
            return [*told, *self._states.live(list(admitted))] if admitted else told
        return self._states.live(admitted if type(admitted) is list else list(admitted)) if admitted else []


def _noted(notes: list[TopicNote]) -> list[Item]:
    return [Notes(tuple(notes))] if notes else []
