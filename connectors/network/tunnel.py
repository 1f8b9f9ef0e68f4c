"""The way to a venue through a proxy: a stream that leads to the venue, and each failure in one plain sentence.

What fails between us and the end of the tunnel is told of the proxy (`ProxyUnavailable`, `ProxyRefused`). What fails
behind it may be either's fault, so the sentence names both. Polls and websockets take the same way: a tunnel in either
case, also for a venue without TLS, so that whatever is answered inside it is the venue's.
"""

from __future__ import annotations

import ssl

import trio

from connectors.base import (
    FROM_ENVIRONMENT,
    ConnectorError,
    ProxyUnavailable,
    VenueClosed,
    VenueTimeout,
    VenueUnavailable,
    tls_failed,
    what_failed,
)
from connectors.network.connect import ask_for_tunnel
from connectors.network.proxy import Proxy, parse_proxy
from connectors.network.socks import open_socks
from connectors.network.trust import client_context


def tunnel_through(proxy: str) -> Tunnel | None:
    """The way that a venue's `proxy` means; None straight to the venue. May read files.

    What the environment says has been looked up where the configuration was read.

    Raises:
        ValueError: no such URL.
    """
    return None if proxy in ("", FROM_ENVIRONMENT) else Tunnel(parse_proxy(proxy))


class Tunnel:
    """One proxy, for any number of connections."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._tls = client_context() if proxy.scheme == "https" else None

    async def dial(
        self, host: str, port: int, *, ssl_context: ssl.SSLContext | None, timeout_s: float
    ) -> trio.abc.Stream:
        """A stream to the host, its TLS handshake done where there is a context. Being cancelled leaves nothing.

        Raises:
            ConnectorError: why there is none.
        """
        deadline_s = trio.current_time() + timeout_s
        stream = await self.open(host, port, timeout_s=timeout_s)
        if ssl_context is None:
            return stream
        return await self.secure(stream, host, ssl_context, timeout_s=max(0.0, deadline_s - trio.current_time()))

    async def open(self, host: str, port: int, *, timeout_s: float) -> trio.abc.Stream:
        """The same without TLS to the host.

        Raises:
            ConnectorError: why there is none.
        """
        proxy = self.proxy
        with trio.move_on_after(timeout_s):
            try:
                if proxy.scheme.startswith("socks"):
                    return await open_socks(proxy, host, port)
                return await self._connect(host, port)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                away = f"the proxy {proxy} hung up before it answered"
                raise ProxyUnavailable(away, unreached=away) from None
        silent = f"the proxy {proxy} opens no way to them"
        raise ProxyUnavailable(
            f"the proxy {proxy} did not open a way to {host} within {timeout_s:g} s", unreached=silent
        )

    async def _connect(self, host: str, port: int) -> trio.abc.Stream:
        proxy = self.proxy
        try:
            stream: trio.abc.Stream = await trio.open_tcp_stream(proxy.host, proxy.port)
        except OSError as error:
            away = f"the proxy {proxy} cannot be reached"
            raise ProxyUnavailable(f"{away}: {what_failed(error)}", unreached=away) from None
        ready = False
        try:
            if self._tls is not None:
                secured = trio.SSLStream(stream, self._tls, server_hostname=proxy.host, https_compatible=True)
                try:
                    await secured.do_handshake()
                except trio.BrokenResourceError as error:
                    why = tls_failed(error.__cause__)
                    raise ProxyUnavailable(f"the TLS handshake with the proxy {proxy} failed: {why}") from None
                stream = secured
            await ask_for_tunnel(stream, proxy, _ascii(host), port)
            ready = True
        finally:
            if not ready:
                await trio.aclose_forcefully(stream)
        return stream

    async def secure(
        self, stream: trio.abc.Stream, host: str, ssl_context: ssl.SSLContext, *, timeout_s: float
    ) -> trio.abc.Stream:
        """TLS with the host on such a stream. After an error, or cancelled, the stream is closed.

        Raises:
            VenueUnavailable: the handshake failed.
            VenueTimeout: it took too long.
        """
        # `https_compatible`: venues drop the connection without TLS's own goodbye.
        secured = trio.SSLStream(stream, ssl_context, server_hostname=host, https_compatible=True)
        ready = False
        try:
            with trio.move_on_after(timeout_s):
                await secured.do_handshake()
                ready = True
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            # Proxies that look into what goes through them sign with an authority of their own.
            advice = "; SSL_CERT_FILE names further authorities" if isinstance(cause, ssl.CertificateError) else ""
            why = f"{tls_failed(cause)}{advice}"
            raise VenueUnavailable(
                f"the TLS handshake with {host} through the proxy {self.proxy} failed: {why}"
            ) from None
        finally:
            if not ready:
                await trio.aclose_forcefully(stream)
        if not ready:
            raise VenueTimeout(f"no TLS handshake with {host} through the proxy {self.proxy} in time")
        return secured

    def told(self, error: ConnectorError) -> ConnectorError:
        """The same failure of an open connection, with the proxy in its words: it may be the proxy's."""
        if type(error) not in (VenueClosed, VenueTimeout) or str(self.proxy) in str(error):
            return error
        words = f"{error} (through the proxy {self.proxy})"
        return type(error)(words, retry_after_s=error.retry_after_s, unreached=error.unreached)


def _ascii(host: str) -> str:
    """The host as it is looked up: RFC 5890's form of a name that is not ASCII."""
    return host if host.isascii() else host.encode("idna").decode()
