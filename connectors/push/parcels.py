"""Channels over as many connections as a venue's limits ask for.

A venue bounds what one connection may carry: streams, characters, books. `parcels` packs the topics of some channels.
A channel stays on one connection if it fits, so that its state is that of its connection. One that does not fit is cut
by instruments, and each connection is told which part is its own (`FeedVenue.parts`). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from protocol.channels import Channel


class Parcel(msgspec.Struct, frozen=True):
    """What one connection carries.

    Attributes:
        name: of its connector, for logs and metrics.
        channels: each with the instruments that it has here.
        parts: the instruments here of those channels that have others elsewhere.
    """

    name: str
    channels: tuple[Channel, ...]
    parts: Mapping[str, tuple[str, ...]]


def parcels(
    name: str,
    channels: Sequence[Channel],
    most: int,
    cost: Callable[[Channel, str], int] = lambda _channel, _instrument: 1,
) -> list[Parcel]:
    """Pack these channels; no parcel costs more than `most`, except one of a single topic that does so alone.

    The first is called `name`, others `name-2` and so on. `cost` is that of one instrument of a channel; what costs
    nothing here is no reason for another connection.
    """
    bins: list[tuple[int, list[Channel]]] = []
    cut: set[str] = set()
    for channel in channels:
        for piece in _pieces(channel, most, cost):
            price = sum(cost(piece, each) for each in piece.instruments)
            if piece != channel:
                cut.add(channel.name)
            for at, (used, held) in enumerate(bins):
                if used + price <= most and channel.name not in [other.name for other in held]:
                    bins[at] = (used + price, [*held, piece])
                    break
            else:
                bins.append((price, [piece]))
    return [
        Parcel(
            name if number == 1 else f"{name}-{number}",
            tuple(held),
            {channel.name: channel.instruments for channel in held if channel.name in cut},
        )
        for number, (_, held) in enumerate(bins, 1)
    ]


def _pieces(channel: Channel, most: int, cost: Callable[[Channel, str], int]) -> list[Channel]:
    """The channel, cut by instruments where it costs more than `most`."""
    pieces: list[list[str]] = [[]]
    used = 0
    for instrument in channel.instruments:
        price = cost(channel, instrument)
        if used + price > most and pieces[-1]:
            pieces.append([])
            used = 0
        pieces[-1].append(instrument)
        used += price
    return [msgspec.structs.replace(channel, instruments=tuple(piece)) for piece in pieces]
