"""One venue's HTTP interface as its pollers share it: addresses, headers, the gate, and the connections to it.

The only place that makes an httpx client. Its connections go through the venue's proxy (`connectors.poll.tunnelled`),
and what comes over them is bounded (`connectors.poll.wire`).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

import httpcore
import httpx

from connectors.network.trust import client_context
from connectors.network.tunnel import tunnel_through
from connectors.poll.body import ACCEPTED_CODINGS
from connectors.poll.schedule import Gate
from connectors.poll.tunnelled import TunnelBackend
from connectors.poll.wire import Counted

KEEPALIVE_S: Final = 30.0
"""How long an idle connection is kept for the next tick: longer than the usual cadence of 10 s, and
shorter than servers keep one, so that polls and the venue's own closing do not cross."""


class Host:
    """One venue's HTTP interface, shared by all pollers that call it.

    Args:
        venue: the venue's name as people write it.
        base_url: what request paths are put behind.
        timeout_s: longest time for one answer, from connecting to the body's last byte.
        user_agent: `tickerd/VERSION`; venues turn away libraries' default ones.
        headers: sent along with every request; the place of a key.
        transport: replaces the network in tests.
        proxy: the venue's `proxy` setting.

    Raises:
        ValueError: the proxy is none that can be used.
    """

    def __init__(
        self,
        venue: str,
        base_url: str,
        *,
        timeout_s: float,
        user_agent: str,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        proxy: str = "",
    ) -> None:
        self.venue = venue
        self.timeout_s = timeout_s
        self.gate = Gate()
        self._base_url = base_url
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": ACCEPTED_CODINGS,
            "User-Agent": user_agent,
            **(headers or {}),
        }
        self._transport = transport
        self.tunnel = tunnel_through(proxy)
        encrypted = not base_url.lower().startswith("http:")
        # Reads the certificates from disk: once per venue, not once per run.
        self._tls = client_context() if encrypted and transport is None else None

    def client(self) -> httpx.AsyncClient:
        """A client of its own for one run; enter and leave it in one task.

        httpx takes nothing from the environment (`trust_env`): what it says of proxies is looked up with the
        configuration, and the same for websockets.
        """
        transport = self._transport
        if transport is None:
            tunnel = self.tunnel
            network = httpcore.TrioBackend() if tunnel is None else TunnelBackend(tunnel, self.timeout_s)
            transport = _Transport(self._tls, Counted(self.venue, network))
        return httpx.AsyncClient(
            base_url=self._base_url,
            headers=self._headers,
            timeout=httpx.Timeout(self.timeout_s),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's transport over a network of ours. What that raises and httpcore does not know comes out as it is."""

    def __init__(self, tls: ssl.SSLContext | None, network: httpcore.AsyncNetworkBackend) -> None:
        # Without TLS there is nothing to verify, and no reason to read certificates.
        super().__init__(verify=tls or False, trust_env=False)
        # httpx (0.28) has no argument for the network; its own pool has opened nothing yet.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=1,
            max_keepalive_connections=1,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=network,
        )
