"""The venues: one row for each, and the only place that imports them.

Whoever needs to know of a venue asks its row: the configuration (its section, which channels it can have), the daemon
(its connectors), the demo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from connectors.base import Connector, VenueSettings
from connectors.venues.binance import polls as binance
from connectors.venues.coingecko import polls as coingecko
from connectors.venues.okx import tickers as okx
from protocol.channels import Channel

Settings = TypeVar("Settings", bound=VenueSettings)


class Venue(msgspec.Struct, Generic[Settings], frozen=True, kw_only=True):
    """What there is to know of a venue.

    Attributes:
        name: as in `exchange` on the wire, in `[connectors.NAME]`, and as a channel's `connector`.
        title: as people write it.
        settings: what it can be told; made without arguments, the defaults.
        build: makes the connectors that these channels, all of this venue, need, of its settings and our user agent.
            None without channels. May read files. Raises ValueError where a channel or setting cannot be used.
        kinds: which kinds of channel it has (`protocol.kinds.KINDS`).
        polled: those of them that are asked for at a cadence; the others are pushed.
    """

    name: str
    title: str
    settings: type[Settings]
    build: Callable[[Sequence[Channel], Settings, str], list[Connector]]
    kinds: tuple[str, ...]
    polled: frozenset[str] = frozenset()


BINANCE: Final = Venue(
    name="binance",
    title="Binance",
    settings=binance.Binance,
    build=binance.build,
    kinds=("prices", "orderbook", "24hr"),
    polled=frozenset({"prices", "orderbook", "24hr"}),
)
OKX: Final = Venue(name="okx", title="OKX", settings=okx.Okx, build=okx.build, kinds=("ticker",))
COINGECKO: Final = Venue(
    name="coingecko",
    title="CoinGecko",
    settings=coingecko.CoinGecko,
    build=coingecko.build,
    kinds=("global", "top", "trending"),
    polled=frozenset({"global", "top", "trending"}),
)

VENUES: Final[dict[str, Venue[Any]]] = {venue.name: venue for venue in (BINANCE, OKX, COINGECKO)}
"""All of them by name, in the order of the configuration."""
