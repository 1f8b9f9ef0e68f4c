"""Why a daemon cannot be reached, in one plain sentence, as asyncio's errors have it."""

from __future__ import annotations

import socket
import ssl

from connectors.base import tls_failed, what_failed
from daemon.client.core.endpoint import Endpoint
from daemon.client.core.events import ServerUnavailable


def unreachable(endpoint: Endpoint, error: OSError) -> ServerUnavailable:
    """No such host, no answer, a refused connection or a failed TLS handshake."""
    host = endpoint.address.host
    if isinstance(error, socket.gaierror):
        why = f"{host} cannot be found: {error.strerror}"
    elif isinstance(error, ssl.SSLError):
        why = f"the TLS handshake with {host} failed: {tls_failed(error)}"
    elif isinstance(error, TimeoutError):
        why = f"no connection to {host} within {endpoint.timeout_s:g} s"
    else:
        why = f"no connection to {host}: {what_failed(error)}"
    return ServerUnavailable(f"{endpoint.where}: {why}")
