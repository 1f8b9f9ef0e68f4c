"""`[catalogue]`: which channels there are without a section of their own.

A *preset* is a set of channels by name. `seed` has the eight of the beginning; each venue that streams has one, with a
channel `{venue}_{kind}` for each of its kinds that are pushed; and so has each venue whose data is made of others'
(`market`). They are made from the registry's rows, so that a new venue has its preset by its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from connectors.venues.registry import VENUES, Venue
from daemon.config.channels import ChannelSection
from daemon.config.reader import shown
from protocol.kinds import KINDS

SEED: Final = "seed"

_BASES: Final = ("BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOGE", "AVAX", "LINK", "DOT")
_TEN: Final = tuple(f"{base}/USDT" for base in _BASES)
DEFAULT_CHANNELS: Final[dict[str, ChannelSection]] = {
    "binance_prices": ChannelSection("binance", "prices", instruments=_TEN),
    "binance_orderbook": ChannelSection("binance", "orderbook", instruments=(_TEN[0], _TEN[1], _TEN[3])),
    "binance_24hr": ChannelSection("binance", "24hr", instruments=_TEN),
    "coingecko_global": ChannelSection("coingecko", "global"),
    "coingecko_top": ChannelSection("coingecko", "top"),
    "coingecko_trending": ChannelSection("coingecko", "trending"),
    "bitcoinprice": ChannelSection("okx", "ticker", instrument="BTC/USDT"),
    "ethprice": ChannelSection("okx", "ticker", instrument="ETH/USDT"),
}
"""The channels of `seed`."""


def _of(venue: Venue[Any]) -> dict[str, ChannelSection]:
    if venue.is_derived:
        # Without instruments: those of all the channels that it is made of.
        return {f"{venue.name}_{KINDS[kind].made_of}": ChannelSection(venue.name, kind) for kind in venue.kinds}
    return {
        f"{venue.name}_{kind}": ChannelSection(venue.name, kind, instruments=venue.instruments)
        for kind in venue.streamed
    }


PRESETS: Final = {SEED: DEFAULT_CHANNELS} | {venue.name: _of(venue) for venue in VENUES.values() if venue.streamed}
"""The channels of each preset, by name."""


class CatalogueSettings(msgspec.Struct, frozen=True):
    """`[catalogue]`.

    Attributes:
        presets: whose channels there are without a section of their own.
        check_instruments: whether the instruments are looked up on the venues' own lists.
        simulated: whether clients are told that the venues are simulated.
    """

    presets: tuple[str, ...] = (SEED,)
    check_instruments: bool = True
    simulated: bool = False

    def refused(self) -> Iterator[tuple[str, str, str]]:
        """Key, value seen and what is allowed, for presets that there are not."""
        unknown = [name for name in self.presets if name not in PRESETS]
        if unknown:
            yield "catalogue.presets", ", ".join(map(shown, unknown)), f"any of {', '.join(map(shown, PRESETS))}"


def preset_channels(presets: Iterable[str]) -> dict[str, ChannelSection]:
    """The channels of these presets, in the order of `PRESETS`, however they were listed."""
    named = frozenset(presets)
    return {name: section for preset, of_it in PRESETS.items() if preset in named for name, section in of_it.items()}
