"""Opening the way to a venue: its address, TCP by happy eyeballs, TLS, and each failure in one plain sentence."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

import msgspec
import trio

from connectors.base import UNANSWERED, VenueTimeout, VenueUnavailable, tls_failed, unreached, what_failed

_PORTS = {"ws": 80, "wss": 443}


class Address(msgspec.Struct, frozen=True):
    """A websocket URL, taken apart.

    Attributes:
        host: a name or an IP address, without brackets.
        port: the URL's, or its scheme's: OKX's URL must be given without one.
        tls: whether the scheme is `wss`.
        resource: path and query, as the request line has them.
    """

    host: str
    port: int
    tls: bool
    resource: str

    @property
    def host_header(self) -> str:
        """The value of `Host`: without the port where it is the scheme's (RFC 9110 section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = _PORTS["wss" if self.tls else "ws"]
        return host if self.port == usual else f"{host}:{self.port}"


def parse_address(url: str) -> Address:
    """The address that a `ws://` or `wss://` URL names.

    Raises:
        ValueError: it is no such URL; the text says what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError(f"{url!r} must begin with ws:// or wss://")
    if not parts.hostname:
        raise ValueError(f"{url!r} names no host")
    try:
        parts.hostname.encode("idna")
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from None
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not resource.isascii() or not resource.isprintable() or " " in resource:
        raise ValueError(f"{url!r}: the path must be percent-encoded")
    return Address(parts.hostname, _PORTS[parts.scheme] if port is None else port, parts.scheme == "wss", resource)


async def dial(address: Address, *, ssl_context: ssl.SSLContext | None, timeout_s: float) -> trio.abc.Stream:
    """A stream to the address, its TLS handshake done.

    Name resolution runs in a thread that cancellation abandons; apart from that, being cancelled
    leaves nothing.

    Raises:
        VenueUnavailable: no such host, no answer, a refused connection or a failed TLS handshake.
    """
    host = address.host
    stream: trio.SocketStream | None = None
    with trio.move_on_after(timeout_s):
        try:
            stream = await trio.open_tcp_stream(host, address.port)
        except socket.gaierror as error:
            why = f"{host} cannot be found: {error.strerror}"
            raise VenueUnavailable(why, unreached=unreached(error)) from None
        except OSError as error:
            why = f"no connection to {host}: {what_failed(error)}"
            raise VenueUnavailable(why, unreached=unreached(error)) from None
        if ssl_context is None:
            return stream
        # `https_compatible`: venues drop the connection without TLS's own goodbye.
        secured = trio.SSLStream(stream, ssl_context, server_hostname=host, https_compatible=True)
        ready = False
        try:
            await secured.do_handshake()
            ready = True
        except trio.BrokenResourceError as error:
            why = tls_failed(error.__cause__)
            raise VenueUnavailable(f"the TLS handshake with {host} failed: {why}") from None
        finally:
            if not ready:
                await trio.aclose_forcefully(stream)
        return secured
    nobody = UNANSWERED if stream is None else ""
    raise VenueTimeout(f"no connection to {host} within {timeout_s:g} s", unreached=nobody)
