"""What the memory channel from the connectors to the sequencer carries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from connectors.base import Event, StateChange, TopicNote


class Turn(msgspec.Struct, frozen=True):
    """An action that runs in order with the messages: after all that came before it, before all that follow.

    Attributes:
        act: the action. Sync; the sequencer calls it when everything before it is on the tape and handed over to the
            bus. It may publish.
    """

    act: Callable[[], None]


class TopicNotes(msgspec.Struct, frozen=True):
    """What a connector noted of single topics."""

    notes: tuple[TopicNote, ...]


Item: TypeAlias = Sequence[Event] | StateChange | TopicNotes | Turn
"""Events that belong together, a connector's new state, its notes about topics, or a turn."""
