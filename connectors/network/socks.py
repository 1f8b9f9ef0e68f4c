"""Asking a SOCKS5 proxy for a tunnel (RFC 1928, RFC 1929), by python-socks."""

from __future__ import annotations

import math
import socket

import trio

from connectors.base import ProxyRefused, ProxyUnavailable, VenueUnavailable, unreached, what_failed
from connectors.network.proxy import Proxy

_NOT_ALLOWED = 2
"""The reply `connection not allowed by ruleset` (RFC 1928 section 6)."""


async def open_socks(proxy: Proxy, host: str, port: int) -> trio.abc.Stream:
    """A stream to the host, through the proxy. Being cancelled leaves nothing.

    Raises:
        ProxyRefused: the proxy does not want to.
        ProxyUnavailable: it cannot be reached, cannot reach the host, or does not speak SOCKS5.
        VenueUnavailable: with `socks5`, the venue's name cannot be looked up here.
        trio.BrokenResourceError: it broke off.
    """
    # Here, since only those who have such a proxy need it.
    from python_socks import ProxyConnectionError, ProxyError, ProxyType
    from python_socks.async_.trio.v2 import Proxy as SocksProxy

    client = SocksProxy(
        ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        username=proxy.user or None,
        password=proxy.password or None,
        rdns=proxy.scheme == "socks5h",
    )
    try:
        connected = await client.connect(host, port, timeout=math.inf)
    except ProxyConnectionError as error:
        cause = error.__cause__
        reason = what_failed(cause) if isinstance(cause, OSError) else str(error)
        away = f"the proxy {proxy} cannot be reached"
        raise ProxyUnavailable(f"{away}: {reason}", unreached=away) from None
    except socket.gaierror as error:
        raise VenueUnavailable(
            f"{host} cannot be found: {error.strerror}; with socks5h:// the proxy {proxy} looks it up",
            unreached=unreached(error),
        ) from None
    except ProxyError as error:
        raise _refusal(proxy, host, port, str(error), error.error_code) from None
    except ValueError:
        raise ProxyUnavailable(f"the proxy {proxy} does not speak SOCKS5") from None
    stream: trio.abc.Stream = connected.trio_stream
    return stream


def _refusal(proxy: Proxy, host: str, port: int, said: str, code: int | None) -> ProxyRefused | ProxyUnavailable:
    """A reply in words: that of the proxy, or what is wrong with it."""
    if code == _NOT_ALLOWED:
        return ProxyRefused(f"the proxy {proxy} does not let us through to {host}:{port}: {said}")
    if code is not None:
        return ProxyUnavailable(f"the proxy {proxy} did not get through to {host}:{port}: {said}")
    if "authentication methods" in said:
        wants = "does not accept a user and a password" if proxy.user else "wants a user and a password"
        return ProxyRefused(f"the proxy {proxy} {wants}: {said}")
    if "authentication failure" in said:
        return ProxyRefused(f"the proxy {proxy} does not accept our user and password")
    if "closed" in said:
        return ProxyUnavailable(f"the proxy {proxy} hung up before it answered")
    return ProxyUnavailable(f"the proxy {proxy} does not speak SOCKS5 as it should: {said}")
