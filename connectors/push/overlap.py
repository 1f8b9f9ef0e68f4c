"""One sequence out of two connections that deliver the same: each event once, in order, whichever brings it first.

While one connection takes over from another, both deliver. A *topic* is a channel and an instrument; the venue gives
each event of a topic an *order* (`Event.order`) that never falls along the sequence and is the same on every connection
(OKX's tickers: `ts`; equal ones are told apart by the bytes, which are the same on both). Three rules:

* What is older than the last event passed on, or equal to one that was passed on with the same key, is dropped.
* The new connection begins somewhere in the sequence, usually ahead of the old one, which may be slower. Until the old
  one has come to that place (the two have *met*), the new one's events of the topic are held, or what lies between
  would be late and lost; but not for longer than `HOLD_S`, because an old connection may well be dying.
* An event without an order cannot be compared: the old connection alone speaks for those, until it is gone.

When one of the two is gone the other may still be behind it, and its events go through here until it is not.

Pure: no I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Final, TypeAlias

import msgspec

from connectors.base import Event

Topic: TypeAlias = tuple[str, str]
"""A channel and an instrument."""

HOLD_S: Final = 1.0
"""How long the new connection's events of one topic wait for the old connection at most."""

HELD_MOST: Final = 1024
"""And how many of them."""

SAME_KEY_MOST: Final = 64
"""How many events of one topic with one key are remembered."""


class _Track(msgspec.Struct):
    """One topic: what was passed on last, and what waits.

    Attributes:
        key: of the last event passed on that has one.
        said: the data passed on with that key; of those before the overlap only the last.
        start: the event passed on last before the overlap.
        met: whether the old connection has come to where the new one began.
        held: the new connection's events until then.
        since_s: since when they wait.
    """

    key: int | None = None
    said: list[bytes] = []
    start: Event | None = None
    met: bool = False
    held: list[Event] = []
    since_s: float = inf


class Overlap:
    """The sifting of two connections' events into one sequence.

    Attributes:
        latest: the last event of each topic that was passed on.
        met: the topics on which the two have met, or that only the new connection has.
        told_by_old: the topics that the old connection has delivered since the overlap began.
        dropped: how many events were left out.
    """

    def __init__(
        self,
        latest: Mapping[Topic, Event],
        before: Overlap | None = None,
    ) -> None:
        """`latest` holds the last event of each topic that the old connection has passed on.

        `before` is an overlap that is not over, from which the present old connection is left.
        """
        self.latest = dict(latest)
        self.met: set[Topic] = set()
        self.told_by_old: set[Topic] = set()
        self.dropped = 0
        self._tracks: dict[Topic, _Track] = {}
        self._old_at = {
            topic: event for topic, event in latest.items() if before is None or topic not in before._behind
        }
        self._new_at: dict[Topic, Event] = {}
        self._alone = False
        self._behind: set[Topic] = set()
        for topic, event in latest.items():
            known = before and before._tracks.get(topic)
            key = event.order
            key, said = (known.key, known.said) if known else (key, [event.data])
            self._tracks[topic] = _Track(key, said, event)

    @property
    def is_over(self) -> bool:
        """Whether one connection is gone and the other is behind it in no topic."""
        return self._alone and not self._behind

    def from_old(self, events: Sequence[Event]) -> list[Event]:
        """The old connection delivered these: what is to be passed on now."""
        passed: list[Event] = []
        for event in events:
            topic = (event.channel, event.instrument)
            self._old_at[topic] = event
            self.told_by_old.add(topic)
            track = self._track(topic)
            self._sift(topic, track, event, passed, may_speak=True)
            if track.held and self._has_met(track):
                self._meet(topic, track, passed)
        return passed

    def from_new(self, events: Sequence[Event], now_s: float) -> list[Event]:
        """The new connection delivered these at `now_s`, any clock: what is to be passed on now."""
        passed: list[Event] = []
        for event in events:
            topic = (event.channel, event.instrument)
            self._new_at[topic] = event
            track = self._track(topic)
            if track.met or self._alone:
                self._sift(topic, track, event, passed, may_speak=self._alone)
            elif _same(event, track.start):
                # It was behind the old one, and so was all that waits.
                self.dropped += len(track.held) + 1
                track.held = []
                self._meet(topic, track, passed)
            elif self._is_before(event, track.start):
                self.dropped += 1
            else:
                if not track.held:
                    track.since_s = now_s
                track.held.append(event)
                if self._has_met(track) or len(track.held) >= HELD_MOST:
                    self._meet(topic, track, passed)
        return passed

    def overdue(self, now_s: float) -> list[Event]:
        """What the old connection was waited for in vain: to be passed on now."""
        passed: list[Event] = []
        for topic, track in self._tracks.items():
            if track.held and now_s - track.since_s >= HOLD_S:
                self._meet(topic, track, passed)
        return passed

    def end(self, *, new_is_gone: bool) -> list[Event]:
        """One connection is gone, and the other goes on alone: what is to be passed on now.

        What the new one had brought and that still waits is passed on if the old one is gone; else the old one will
        bring it too. The events of the one that is left go through `from_old` or `from_new`, as before, until the
        overlap `is_over`.
        """
        passed: list[Event] = []
        for topic, track in self._tracks.items():
            if track.held and new_is_gone:
                self.dropped += len(track.held)
                track.held = []
            elif track.held:
                self._meet(topic, track, passed)
        self._alone = True
        at = self._old_at if new_is_gone else self._new_at
        self._behind = {topic for topic, event in self.latest.items() if not _same(at.get(topic), event)}
        return passed

    def _track(self, topic: Topic) -> _Track:
        track = self._tracks.get(topic)
        if track is None:
            track = self._tracks[topic] = _Track()
        return track

    def _is_before(self, event: Event, start: Event | None) -> bool:
        key = event.order
        start_key = None if start is None else start.order
        return key is not None and start_key is not None and key < start_key

    def _has_met(self, track: _Track) -> bool:
        """Whether the old connection has delivered what the new one began with, or something later."""
        first = track.held[0]
        key = first.order
        if key is None or track.key is None:
            return True
        return track.key > key or (track.key == key and first.data in track.said)

    def _meet(self, topic: Topic, track: _Track, passed: list[Event]) -> None:
        held, track.held = track.held, []
        track.met = True
        self.met.add(topic)
        for event in held:
            self._sift(topic, track, event, passed, may_speak=self._alone)

    def _sift(self, topic: Topic, track: _Track, event: Event, passed: list[Event], *, may_speak: bool) -> None:
        """Pass the event on or drop it. `may_speak`: also if it has no key."""
        key = event.order
        if key is None:
            is_news = may_speak
        elif track.key is None or key > track.key:
            is_news = True
            track.key, track.said = key, [event.data]
        else:
            is_news = key == track.key and event.data not in track.said
            if is_news:
                track.said = [*track.said[1 - SAME_KEY_MOST :], event.data]
        if is_news:
            passed.append(event)
            self.latest[topic] = event
        else:
            self.dropped += 1
        if self._behind and _same(event, self.latest.get(topic)):
            self._behind.discard(topic)


def _same(one: Event | None, other: Event | None) -> bool:
    return one is not None and other is not None and one.data == other.data
