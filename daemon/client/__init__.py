"""The clients of the daemon for Python, on trio and on asyncio, which reconnect by themselves.

    async with connect("ws://127.0.0.1:8000/ws") as client:
        async for message in client.subscribe("bitcoinprice"):
            match message:
                case PriceUpdate(price=price, instrument=instrument):
                    print(instrument, bytes(price).decode())
                case Reconnecting() | Resumed() | Lost() | Gap() | Lagged():
                    print(message)

Users import them from `tickerd` and `tickerd.asyncio` (`daemon/public/`). Each subscription has a connection of its
own, so a slow consumer does not hold up others. After a lost connection it waits (full jitter, or as `goodbye` says),
and resumes each channel where it stopped: each message is delivered at most once, in order, and missing ones are
announced. Importing this package loads neither the daemon nor, until `connect` and its like are asked for, trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.client.core.book import Book
from daemon.client.core.course import ALL
from daemon.client.core.endpoint import check_token, websocket_url
from daemon.client.core.events import (
    ClientError,
    CommandRefused,
    Gap,
    Lost,
    NotUnderstood,
    Received,
    Reconnecting,
    Resumed,
    RoundTrip,
    ServerRefused,
    ServerUnavailable,
)
from daemon.client.core.history import History
from daemon.client.core.records import Record, records
from protocol.messages import (
    CandleUpdate,
    ConsolidatedQuote,
    Data,
    DepthSnapshot,
    DepthUpdate,
    Lagged,
    MarketUpdate,
    OrderbookUpdate,
    Position,
    PriceUpdate,
    QuoteUpdate,
    Status,
    Test,
    TickerUpdate,
    TopUpdate,
    Trade,
    TrendingUpdate,
)

if TYPE_CHECKING:
    from daemon.client.trio import Client, Subscription, connect

__all__ = [
    "ALL",
    "Book",
    "CandleUpdate",
    "Client",
    "ClientError",
    "CommandRefused",
    "ConsolidatedQuote",
    "Data",
    "DepthSnapshot",
    "DepthUpdate",
    "Gap",
    "History",
    "Lagged",
    "Lost",
    "MarketUpdate",
    "NotUnderstood",
    "OrderbookUpdate",
    "Position",
    "PriceUpdate",
    "QuoteUpdate",
    "Received",
    "Reconnecting",
    "Record",
    "Resumed",
    "RoundTrip",
    "ServerRefused",
    "ServerUnavailable",
    "Status",
    "Subscription",
    "Test",
    "TickerUpdate",
    "TopUpdate",
    "Trade",
    "TrendingUpdate",
    "check_token",
    "connect",
    "records",
    "websocket_url",
]

_ON_TRIO: Final = frozenset({"Client", "Subscription", "connect"})


if not TYPE_CHECKING:  # or every name would be right for a type checker

    def __getattr__(name: str) -> object:  # a module's own, PEP 562
        """What is made of trio, when it is first asked for: whoever is on asyncio need not load it."""
        if name not in _ON_TRIO:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from daemon.client import trio

        return getattr(trio, name)
