"""Opening the way to a venue: TCP by happy eyeballs, TLS, and each failure in one plain sentence."""

from __future__ import annotations

import socket
import ssl

import trio

from connectors.base import UNANSWERED, VenueTimeout, VenueUnavailable, tls_failed, unreached, what_failed
from connectors.push.address import Address


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
