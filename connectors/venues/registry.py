"""The venues: one row for each, and the only place that imports them.

Whoever needs to know of a venue asks its row: the configuration (its section, which channels it can have), the daemon
(its connectors), the demo.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from connectors.base import Connector, VenueSettings
from connectors.poll.host import Host
from connectors.poll.listing import InstrumentCheck, Listing, beside
from connectors.venues.binance import pushes as binance_pushes
from connectors.venues.binance.build import build as build_binance
from connectors.venues.binance.listing import BinanceListing
from connectors.venues.binance.settings import Binance
from connectors.venues.bybit import streams as bybit
from connectors.venues.bybit import topics as bybit_topics
from connectors.venues.bybit.listing import BybitListing
from connectors.venues.coinbase import plan as coinbase_plan
from connectors.venues.coinbase import streams as coinbase
from connectors.venues.coinbase.listing import CoinbaseListing
from connectors.venues.coingecko import polls as coingecko
from connectors.venues.kraken import plan as kraken_plan
from connectors.venues.kraken import streams as kraken
from connectors.venues.okx import streams as okx
from connectors.venues.okx import topics as okx_topics
from connectors.venues.okx.listing import OkxListing
from protocol.channels import Channel
from protocol.kinds import KINDS

LIST_S: Final = 30.0
"""The longest time for one answer about a list, which may be long."""

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
        instruments: of the channels of its preset: its main pairs.
        listing: its own list of instruments, and the URL of the host that has it; None where it has none, or says what
            is on it by its websocket.
        intervals: how long its candles may be, in our words.
    """

    name: str
    title: str
    settings: type[Settings]
    build: Callable[[Sequence[Channel], Settings, str], list[Connector]]
    kinds: tuple[str, ...]
    polled: frozenset[str] = frozenset()
    instruments: tuple[str, ...] = ("BTC/USDT", "ETH/USDT")
    listing: Callable[[Settings], tuple[Listing, str]] | None = None
    intervals: Collection[str] = ()

    @property
    def streamed(self) -> tuple[str, ...]:
        """Its kinds that are pushed, or made of what is."""
        return tuple(kind for kind in self.kinds if kind not in self.polled)

    @property
    def usual_interval(self) -> str:
        """How long its candles are where nobody says: a minute, if it has that."""
        return next(iter(self.intervals), "1m") if "1m" not in self.intervals else "1m"

    @property
    def is_derived(self) -> bool:
        """Whether the daemon itself makes its data of other channels': it has no connector, and nothing to be told."""
        return all(KINDS[kind].made_of for kind in self.kinds)

    def check(self, channels: Sequence[Channel], settings: Settings, user_agent: str) -> InstrumentCheck | None:
        """What asks its list about these channels' instruments; None where there is nothing to ask. Reads files."""
        if self.listing is None or not any(channel.instruments for channel in channels):
            return None
        listing, url = self.listing(settings)
        host = Host(self.title, url, timeout_s=LIST_S, user_agent=user_agent, proxy=settings.proxy)
        return InstrumentCheck(self.name, listing, host, channels)


BINANCE: Final = Venue(
    name="binance",
    title="Binance",
    settings=Binance,
    build=build_binance,
    kinds=("prices", "orderbook", "24hr", "ticker", "trades", "quotes", "book", "depth", "candles"),
    polled=frozenset({"prices", "orderbook", "24hr"}),
    listing=lambda settings: (BinanceListing(), settings.base_url),
    intervals=binance_pushes.INTERVALS,
)
OKX: Final = Venue(
    name="okx",
    title="OKX",
    settings=okx.Okx,
    build=okx.build,
    kinds=("ticker", "trades", "quotes", "book", "depth", "candles"),
    intervals=okx_topics.INTERVALS,
    listing=lambda settings: (OkxListing(), beside(settings.url, OkxListing.hosts)),
)
COINGECKO: Final = Venue(
    name="coingecko",
    title="CoinGecko",
    settings=coingecko.CoinGecko,
    build=coingecko.build,
    kinds=("global", "top", "trending"),
    polled=frozenset({"global", "top", "trending"}),
)
COINBASE: Final = Venue(
    name="coinbase",
    title="Coinbase",
    settings=coinbase.Coinbase,
    build=coinbase.build,
    kinds=("ticker", "trades", "quotes", "book", "depth", "candles"),
    instruments=("BTC/USDT", "ETH/USDT", "BTC/USD", "ETH/USD"),
    intervals=coinbase_plan.INTERVALS,
    listing=lambda settings: (CoinbaseListing(), beside(settings.url, CoinbaseListing.hosts)),
)
KRAKEN: Final = Venue(
    name="kraken",
    title="Kraken",
    settings=kraken.Kraken,
    build=kraken.build,
    kinds=("ticker", "trades", "depth", "book", "candles", "quotes"),
    instruments=("BTC/USDT", "ETH/USDT", "BTC/USD", "ETH/USD"),
    intervals=kraken_plan.INTERVALS,
)
BYBIT: Final = Venue(
    name="bybit",
    title="Bybit",
    settings=bybit.Bybit,
    build=bybit.build,
    kinds=("ticker", "trades", "quotes", "book", "depth", "candles"),
    intervals=bybit_topics.INTERVALS,
    listing=lambda settings: (BybitListing(), beside(settings.url, BybitListing.hosts)),
)

MARKET: Final = Venue(
    name="market", title="Market", settings=VenueSettings, build=lambda *_: [], kinds=("consolidated",)
)

_ROWS: Final[tuple[Venue[Any], ...]] = (
    BINANCE,
    OKX,
    COINGECKO,
    COINBASE,
    KRAKEN,
    BYBIT,
    MARKET,
)

VENUES: Final = {venue.name: venue for venue in _ROWS}
"""All of them by name, in the order of the configuration."""
