"""The catalogue: all channels, and what each carries.

A *channel* is the public name a client subscribes to (`binance_prices`). A *topic* is one series of messages inside a
channel: the pair of channel and instrument. The sequence chain (`prev_seq`), the snapshot and every filter work per
topic.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from protocol.grant import Grant
from protocol.kinds import Kind

WHOLE_MARKET: Final = ""
"""The instrument of a topic that is about a whole market rather than one pair."""

_MOST_COMPARED_CHARS: Final = 64
"""Comparing two names costs the product of their lengths, and a client chooses one of them."""


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One public channel.

    Attributes:
        name: what clients subscribe to; `connector_id` on the wire.
        exchange: the venue, as the wire's `exchange` field names it.
        kind: what the venue is asked for, and the properties that follow from it.
        instruments: `BASE/QUOTE` names; empty if the channel is about a whole market.
        cadence_s: seconds between two messages of a scheduled channel; None if the venue pushes.
        stale_after_s: seconds of silence after which it is stale; None to derive this from the cadence or, if the venue
            pushes, from the usual pauses.
        levels: of a book, how many levels of each side.
        every_ms: of a book, least time between two messages of one instrument.
        interval: of candles, how long each is: `1m`.
    """

    name: str
    exchange: str
    kind: Kind
    instruments: tuple[str, ...] = ()
    cadence_s: float | None = None
    stale_after_s: float | None = None
    levels: int = 20
    every_ms: int = 100
    interval: str = "1m"


class Catalogue:
    """All channels by name, in the order of the configuration. Immutable: a reload makes a new one.

    Attributes:
        withheld: names of channels that exist, but that the client of this catalogue may not have.
    """

    def __init__(self, channels: Iterable[Channel], withheld: AbstractSet[str] = frozenset()) -> None:
        """Raises: ValueError, if two channels have the same name."""
        self.withheld = withheld
        self._channels: dict[str, Channel] = {}
        for channel in channels:
            if channel.name in self._channels:
                raise ValueError(f"two channels are named {channel.name!r}")
            self._channels[channel.name] = channel

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    def __len__(self) -> int:
        return len(self._channels)

    def __contains__(self, name: object) -> bool:
        return name in self._channels

    def __getitem__(self, name: str) -> Channel:
        return self._channels[name]

    def get(self, name: str) -> Channel | None:
        """The channel of that name, or None."""
        return self._channels.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Every channel's name, in order."""
        return tuple(self._channels)

    def granted(self, grant: Grant) -> Catalogue:
        """The catalogue for a client with that grant; this very object if the grant covers all channels."""
        withheld = frozenset(name for name in self._channels if not grant.covers(name))
        if not withheld:
            return self
        return Catalogue((channel for channel in self if channel.name not in withheld), self.withheld | withheld)

    def nearest(self, name: str, count: int = 3) -> tuple[str, ...]:
        """The valid names most like `name`, best first: probably what was meant by a typing error."""
        return nearest(name, self._channels, count)


def nearest(name: str, valid: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """The `valid` names most like `name`, best first; upper and lower case do not matter."""
    folded: dict[str, list[str]] = {}
    for candidate in valid:
        folded.setdefault(candidate.casefold(), []).append(candidate)
    matches = difflib.get_close_matches(name[:_MOST_COMPARED_CHARS].casefold(), folded, n=count, cutoff=0.5)
    return tuple(candidate for match in matches for candidate in folded[match])[:count]
