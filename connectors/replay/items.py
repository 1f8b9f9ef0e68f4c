"""What comes of a recording when it is played: what a connector hands to its context, and what is missing."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import msgspec

from connectors.base import Event, State, StateChange, TopicNote
from connectors.capture.lines import Line


class Notes(msgspec.Struct, frozen=True):
    """What is wrong with single topics."""

    notes: tuple[TopicNote, ...]


class Missing(msgspec.Struct, frozen=True):
    """Something of these channels was not recorded: from when to when (ms since 1970), how many frames (0: unknown)."""

    channels: tuple[str, ...]
    from_ms: int
    to_ms: int
    frames: int
    reason: str


Item: TypeAlias = list[Event] | StateChange | Notes | Missing
Played: TypeAlias = tuple[int, Item]
"""An item, and when it is due: ms since 1970, by the recording's clock."""


class Stage(Protocol):
    """One connector of a recording: what becomes of its lines. Pure."""

    @property
    def due_ms(self) -> float:
        """When `tick` is due next, ms since 1970; infinite while it is not."""
        ...

    def frames(self, connection: int, payloads: list[bytes], at_ms: int) -> list[Item]:
        """These frames came together."""
        ...

    def take(self, line: Line, at_ms: int) -> list[Item]:
        """Any other line."""
        ...

    def tick(self, at_ms: int) -> list[Item]:
        """What is due without a line."""
        ...

    def gone(self, reason: str) -> list[Item]:
        """Nothing more was recorded of it, and why."""
        ...

    def restated(self, at_ms: int) -> list[Item]:
        """How its channels do, and their books: for who has had nothing until now."""
        ...


class States:
    """The states that a connector's channels were reported in: only data makes one live, as when it is recorded."""

    def __init__(self, channels: tuple[str, ...]) -> None:
        self._channels = channels
        self._states: dict[str, StateChange] = {}
        self._live: set[str] = set()

    def told(self, state: State, reason: str = "") -> list[Item]:
        """All of them go into this state."""
        found: list[Item] = []
        for name in self._channels:
            found += self.one(StateChange(name, state, reason))
        return found

    def one(self, change: StateChange) -> list[Item]:
        """One of them does."""
        self._states[change.channel] = change
        if change.state == "live":
            self._live.add(change.channel)
        else:
            self._live.discard(change.channel)
        return [change]

    def live(self, events: list[Event]) -> list[Item]:
        """These events, and before them whose channels they make live."""
        live = self._live
        for event in events:
            if event.channel not in live:
                break
        else:
            return [events]
        new = dict.fromkeys(event.channel for event in events if event.channel not in live)
        return [*(item for name in new for item in self.one(StateChange(name, "live"))), events]

    def restated(self) -> list[Item]:
        """The states once more."""
        return list(self._states.values())
