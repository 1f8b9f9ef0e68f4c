"""The client of tickerd for Python, on asyncio. The messages and events are those of `tickerd`.

    from tickerd import Gap, Lost, PriceUpdate
    from tickerd.asyncio import connect

    async with connect("ws://127.0.0.1:8000/ws") as client:
        async for message in client.subscribe("bitcoinprice"):
            ...

It needs `websockets`: `pip install 'tickerd[asyncio]'`. It does not load trio.
"""

from __future__ import annotations

from daemon.client.asyncio import Client as Client
from daemon.client.asyncio import Subscription as Subscription
from daemon.client.asyncio import connect as connect
