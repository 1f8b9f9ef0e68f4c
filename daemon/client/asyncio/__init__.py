"""The client on asyncio: a thin shell around `daemon/client/core/`, of the same shape as the one on trio."""

from __future__ import annotations

from daemon.client.asyncio.client import Client as Client
from daemon.client.asyncio.client import connect as connect
from daemon.client.asyncio.subscription import Subscription as Subscription
