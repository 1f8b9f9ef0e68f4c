"""A client of the daemon for Python on trio, which reconnects by itself.

    async with connect("ws://127.0.0.1:8000/ws") as client:
        async for message in client.subscribe("bitcoinprice"):
            match message:
                case PriceUpdate(price=price, instrument=instrument):
                    print(instrument, bytes(price).decode())
                case Reconnecting() | Resumed() | Lost() | Gap() | Lagged():
                    print(message)

Each subscription has a connection of its own, so a slow consumer does not hold up others. After a lost connection it
waits (full jitter, or as `goodbye` says), and resumes each channel where it stopped: each message is delivered at most
once, in order, and missing ones are announced. Importing this package does not load the daemon.
"""

from __future__ import annotations

from daemon.client.book import Book as Book
from daemon.client.client import Client as Client
from daemon.client.client import check_token as check_token
from daemon.client.client import connect as connect
from daemon.client.client import websocket_url as websocket_url
from daemon.client.events import ClientError as ClientError
from daemon.client.events import CommandRefused as CommandRefused
from daemon.client.events import Gap as Gap
from daemon.client.events import Lost as Lost
from daemon.client.events import NotUnderstood as NotUnderstood
from daemon.client.events import Received as Received
from daemon.client.events import Reconnecting as Reconnecting
from daemon.client.events import Resumed as Resumed
from daemon.client.events import RoundTrip as RoundTrip
from daemon.client.events import ServerRefused as ServerRefused
from daemon.client.events import ServerUnavailable as ServerUnavailable
from daemon.client.history import History as History
from daemon.client.subscription import ALL as ALL
from daemon.client.subscription import Subscription as Subscription
from protocol.messages import CandleUpdate as CandleUpdate
from protocol.messages import ConsolidatedQuote as ConsolidatedQuote
from protocol.messages import Data as Data
from protocol.messages import DepthSnapshot as DepthSnapshot
from protocol.messages import DepthUpdate as DepthUpdate
from protocol.messages import Lagged as Lagged
from protocol.messages import MarketUpdate as MarketUpdate
from protocol.messages import OrderbookUpdate as OrderbookUpdate
from protocol.messages import PriceUpdate as PriceUpdate
from protocol.messages import QuoteUpdate as QuoteUpdate
from protocol.messages import Status as Status
from protocol.messages import Test as Test
from protocol.messages import TickerUpdate as TickerUpdate
from protocol.messages import TopUpdate as TopUpdate
from protocol.messages import Trade as Trade
from protocol.messages import TrendingUpdate as TrendingUpdate
