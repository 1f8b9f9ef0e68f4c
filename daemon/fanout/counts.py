"""How the hub's passes are spaced, and what is counted of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from connectors.metric import Histogram

BATCH_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Bounds for how many events a turn takes."""

TURN_BOUNDS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Bounds for how long a turn is at work, in seconds."""


class Pace(msgspec.Struct, frozen=True):
    """How the hub spaces its passes.

    Attributes:
        batch_events: events taken into one pass at most (one send of a connector is never split).
        rest_ratio: the rest after a pass, as a part of what the pass took.
        rest_max_s: the longest rest.
    """

    batch_events: int
    rest_ratio: float
    rest_max_s: float


class Statistics(msgspec.Struct, frozen=True):
    """Counts since the start, and who is here; for the first ones see `Counts`."""

    events: int
    refused: int
    passes: int
    deliveries: int
    delivered_bytes: int
    lagged: int
    subscribers: int
    behind: int
    groups: int


class Counts:
    """What the hub adds up as it goes; nothing here is done per client.

    Attributes:
        events: messages that went onto the tape.
        refused: events of an unknown channel, or with a price that is no number.
        passes: how often groups were written to.
        deliveries: messages of the tape that a client's socket has taken, in a pass, from behind or at an interval. Not
            those that a `subscribed` is followed by.
        delivered_bytes: their frames.
        lagged: how often the tape's tail overtook a client.
        batches: how many events, or changes of state, a turn of the hub's loop took.
        turns_s: how long such a turn was at work.
        delays_s: from the arrival of a venue's bytes here until the sockets of all clients that are caught up have been
            written to, for each event that somebody takes. A repeat of a body (`cached`) has no such time.
    """

    __slots__ = (
        *("batches", "delays_s", "delivered_bytes", "deliveries", "events", "lagged", "passes", "refused"),
        *("taken_ms", "turns_s"),
    )

    def __init__(self) -> None:
        self.events = self.refused = self.passes = self.deliveries = self.delivered_bytes = self.lagged = 0
        self.batches = Histogram(BATCH_BOUNDS)
        self.turns_s = Histogram(TURN_BOUNDS_S)
        self.delays_s = Histogram()
        self.taken_ms: list[int] = []
        """When the events arrived that are being written just now, ms since 1970."""

    def delivered(self, frames: Sequence[bytes]) -> None:
        """A client's socket has these of the tape's frames, or is sure to get them."""
        self.deliveries += len(frames)
        self.delivered_bytes += sum(map(len, frames))

    def written(self, now_ms: int) -> None:
        """What was taken has been written to everybody. A clock that was set back makes no time less than none."""
        for received_ms, times in Counter(self.taken_ms).items():
            self.delays_s.add(max(0, now_ms - received_ms) / 1000, times)
        self.taken_ms.clear()


class Turn(msgspec.Struct, frozen=True):
    """Something that is to happen in order with the messages: after all that came before it, before all that follows.

    Attributes:
        act: does it. Sync, called by the hub between two writes; it may publish, attach and detach as it likes.
    """

    act: Callable[[], None]
