"""What is asked of Coinbase for some channels, and on how many connections. Pure.

Source: Coinbase's documentation of Advanced Trade, "WebSocket overview", "WebSocket channels" and "WebSocket rate
limits", November 2026.

* A request is for one channel of Coinbase's and any number of products. Here it is for one product, because an error
  says nothing but its text (`answers.py`); it costs one of the 8 messages that an address may send in a second, so
  requests are spaced, the wider the more connections there are.
* Several kinds may need the same: `ticker` feeds tickers and quotes, `level2` books of either kind. Each instrument has
  one request, and those that are the same product (`products.py`) one each too; a repeated one costs nothing.
* How many products of `level2` a connection may have is not documented. 16 were seen to work, and 32 to be refused
  (JKorf/Coinbase.Net#19), so there are at most `MOST_BOOKS`. The other channels have shown no limit;
  `MOST_SUBSCRIPTIONS` bounds how long a connection takes to be complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from connectors.push.parcels import parcels
from connectors.venues.coinbase.products import product_of
from protocol.channels import Channel

INTERVAL: Final = "5m"
"""How long candles are (Coinbase's documentation of Advanced Trade, "WebSocket channels: candles", November 2026).

That channel tells of the present candle each second, and does not say that one is closed.
"""

INTERVALS: Final = (INTERVAL,)
"""How long they may be."""

MOST_BOOKS: Final = 10
MOST_SUBSCRIPTIONS: Final = 200
"""On one connection."""

Stream: TypeAlias = Literal["ticker", "market_trades", "level2", "candles"]

_STREAMS: Final[Mapping[str, Stream]] = {
    "ticker": "ticker",
    "quotes": "ticker",
    "trades": "market_trades",
    "book": "level2",
    "depth": "level2",
    "candles": "candles",
}
"""What feeds each kind."""

_BOOK_COST: Final = MOST_SUBSCRIPTIONS // MOST_BOOKS


class Subscription(msgspec.Struct, frozen=True):
    """One instrument on one channel of Coinbase's.

    Attributes:
        stream: that channel.
        instrument: ours.
        channels: ours that it feeds.
    """

    stream: Stream
    instrument: str
    channels: tuple[Channel, ...]

    @property
    def id(self) -> str:
        """Unique on its connection."""
        return f"{self.stream} {self.instrument}"

    @property
    def product(self) -> str:
        """Coinbase's name."""
        return product_of(self.instrument)


class Connection(msgspec.Struct, frozen=True):
    """What one connection is for.

    Attributes:
        name: for logs and metrics.
        channels: ours that it feeds, by name.
        subscriptions: all of them.
        parts: of the channels that other connections feed too, their instruments here.
    """

    name: str
    channels: tuple[str, ...]
    subscriptions: tuple[Subscription, ...]
    parts: Mapping[str, tuple[str, ...]]


def plan(channels: Sequence[Channel]) -> list[Connection]:
    """The connections that these channels need.

    Raises:
        ValueError: candles of a length that Coinbase does not push.
    """
    for channel in channels:
        if stream_of(channel) == "candles" and channel.interval != INTERVAL:
            raise ValueError(f"{channel.name}: Coinbase has no candles of {channel.interval!r}; allowed: {INTERVAL!r}")
    return [
        Connection(
            parcel.name,
            tuple(channel.name for channel in parcel.channels),
            _subscriptions(parcel.channels),
            parcel.parts,
        )
        for parcel in parcels("coinbase", channels, MOST_SUBSCRIPTIONS, _cost)
    ]


def stream_of(channel: Channel) -> Stream:
    """What feeds a channel."""
    return _STREAMS[channel.kind.name]


def _cost(channel: Channel, _instrument: str) -> int:
    return _BOOK_COST if stream_of(channel) == "level2" else 1


def _subscriptions(channels: Sequence[Channel]) -> tuple[Subscription, ...]:
    wanted: dict[tuple[Stream, str], list[Channel]] = {}
    for channel in channels:
        for instrument in channel.instruments:
            wanted.setdefault((stream_of(channel), instrument), []).append(channel)
    return tuple(Subscription(stream, instrument, tuple(fed)) for (stream, instrument), fed in wanted.items())
