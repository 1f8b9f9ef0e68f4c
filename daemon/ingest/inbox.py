"""What comes through the memory channel that leads from the connectors to the sequencer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from connectors.base import Event, StateChange


class Turn(msgspec.Struct, frozen=True):
    """Something that has to happen in order with the messages: after all that came before it, before all that follows.

    Attributes:
        act: does it. Sync; the sequencer calls it when everything before it is on the tape and written. It may publish.
    """

    act: Callable[[], None]


Item: TypeAlias = Sequence[Event] | StateChange | Turn
"""Events that belong together, a connector's new state, or a turn."""
