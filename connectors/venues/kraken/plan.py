"""What is asked of Kraken for some channels, and on how many connections. Pure.

Source: Kraken's API documentation, "Spot WebSocket v2" and its channels, November 2026; limits: its guide "WebSockets:
introduction" (Cloudflare: about 150 connects in ten minutes for each address).

* A subscription is for one symbol and one channel, so that a refusal names its instrument. Channels that need the same
  share it: those of the kinds `depth` and `book`, say.
* `ticker` comes at each trade, or, with `event_trigger` `bbo`, at each change of the best bid or ask. The frames do not
  say which, so the two are on connections of their own.
* How many subscriptions a connection may have is not published. Requests are kept 0.1 s apart (v1 skipped what came
  faster, bitrich-info/xchange-stream#502), so a connection with `MOST_SUBSCRIPTIONS` is complete after 25 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from connectors.push.parcels import parcels
from protocol.channels import Channel

MOST_SUBSCRIPTIONS: Final = 250
"""On one connection."""

INTERVALS: Final[Mapping[str, int]] = {
    "1m": 1,
    "5m": 5,
    "15m": 15,
    "30m": 30,
    "1h": 60,
    "4h": 240,
    "1d": 1440,
    "1w": 10080,
    "15d": 21600,
}
"""The lengths of candles that Kraken has, in minutes, by their names."""

INSTRUMENTS: Final = 1
"""The request for the list of instruments, on each connection; the others are numbered from there on."""

_QUOTES: Final = "quotes"
_CANDLES: Final = "ohlc"
_STREAMS: Final = {"ticker": "ticker", "quotes": _QUOTES, "trades": "trade", "depth": "book", "book": "book"}


class Subscription(msgspec.Struct, frozen=True):
    """One symbol on one channel of Kraken's.

    Attributes:
        stream: `ticker`, `quotes` (Kraken's `ticker` too), `trade`, `book` or `ohlc`.
        instrument: ours, and Kraken's symbol too.
        minutes: of `ohlc` how long a candle is.
        channels: ours that it feeds.
    """

    stream: str
    instrument: str
    minutes: int
    channels: tuple[Channel, ...]

    def params(self, depth: int) -> dict[str, object]:
        """Of its request."""
        common: dict[str, object] = {"channel": self.stream, "symbol": [self.instrument], "snapshot": True}
        match self.stream:
            case "quotes":
                return common | {"channel": "ticker", "event_trigger": "bbo"}
            case "ticker":
                return common | {"event_trigger": "trades"}
            case "book":
                return common | {"depth": depth}
            case "ohlc":
                return common | {"interval": self.minutes}
            case _:
                return common


class Connection(msgspec.Struct, frozen=True):
    """What one connection is for.

    Attributes:
        name: for logs and metrics.
        subscriptions: all of them.
        parts: of the channels that other connections feed too, their instruments here.
    """

    name: str
    subscriptions: tuple[Subscription, ...]
    parts: Mapping[str, tuple[str, ...]]


def plan(channels: Sequence[Channel], most: int = MOST_SUBSCRIPTIONS) -> list[Connection]:
    """The connections that these channels need; quotes are on connections of their own.

    Raises:
        ValueError: candles of a length that Kraken does not have.
    """
    quotes = [channel for channel in channels if _stream(channel) == _QUOTES]
    others = [channel for channel in channels if _stream(channel) != _QUOTES]
    return [
        Connection(parcel.name, _subscriptions(parcel.channels), parcel.parts)
        for parcel in (*parcels("kraken", others, most), *parcels("kraken-quotes", quotes, most))
    ]


def _stream(channel: Channel) -> str:
    return _STREAMS.get(channel.kind.name, _CANDLES)


def _subscriptions(channels: Sequence[Channel]) -> tuple[Subscription, ...]:
    wanted: dict[tuple[str, str, int], list[Channel]] = {}
    for channel in channels:
        stream = _stream(channel)
        minutes = _minutes(channel) if stream == _CANDLES else 0
        for instrument in channel.instruments:
            wanted.setdefault((stream, instrument, minutes), []).append(channel)
    return tuple(Subscription(*key, tuple(fed)) for key, fed in wanted.items())


def _minutes(channel: Channel) -> int:
    minutes = INTERVALS.get(channel.interval)
    if minutes is None:
        allowed = ", ".join(INTERVALS)
        raise ValueError(f"{channel.name}: Kraken has no candles of {channel.interval!r}; allowed: {allowed}")
    return minutes
