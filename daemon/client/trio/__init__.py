"""The client on trio: a thin shell around `daemon/client/core/`."""

from __future__ import annotations

from daemon.client.trio.client import Client as Client
from daemon.client.trio.client import connect as connect
from daemon.client.trio.subscription import Subscription as Subscription
