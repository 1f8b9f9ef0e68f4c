"""How the hub's passes are spaced, and what is counted of them."""

from __future__ import annotations

import msgspec


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
    """Counts since the start."""

    events: int
    refused: int
    passes: int
    deliveries: int
    lagged: int
    subscribers: int
    behind: int
    groups: int
