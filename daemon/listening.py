"""The sockets the daemon listens on: opening them, TLS, and how many connections the process may have."""

from __future__ import annotations

import errno
import logging
import resource
import ssl
from collections.abc import Sequence
from typing import Final

import trio

from daemon.settings import Server

_TRIES: Final = 10
"""How often another free port is looked for that is free on every address."""

_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_log: Final = logging.getLogger(__name__)


async def open_listeners(server: Server) -> list[trio.SocketListener]:
    """Listen on every configured address, on the same port; port 0 picks one that is free on all of them.

    A machine without IPv6 has no `::1`: where the configuration says `localhost`, IPv4 alone is enough.

    Raises:
        OSError: an address or port cannot be had; its `filename` is `ADDRESS port PORT`.
    """
    for left in reversed(range(_TRIES)):
        port = server.port
        listeners: list[trio.SocketListener] = []
        try:
            for host in server.hosts:
                try:
                    opened = await trio.open_tcp_listeners(port, host=host, backlog=server.backlog)
                except OSError as error:
                    if listeners and server.host == "localhost" and _cause(error).errno in _NO_SUCH_ADDRESS:
                        _log.info("%s is not there; listening on IPv4 only", host)
                        continue
                    raise _named(_cause(error), host, port) from None
                listeners += opened
                port = port or int(opened[0].socket.getsockname()[1])
        except OSError as error:
            for listener in listeners:
                await listener.aclose()
            if server.port == 0 and left and error.errno == errno.EADDRINUSE:
                continue
            raise
        return listeners
    raise AssertionError("the last try returns or raises")


def base_urls(listeners: Sequence[trio.SocketListener], *, secure: bool) -> list[str]:
    """The listeners' addresses, as `http://127.0.0.1:8000`."""
    scheme = "https" if secure else "http"
    names = [listener.socket.getsockname() for listener in listeners]
    return [f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}" for host, port, *_ in names]


def tls_context(server: Server) -> ssl.SSLContext | None:
    """The server's TLS, 1.2 and newer; None where no certificate is configured.

    Raises:
        OSError: a file cannot be read.
        ssl.SSLError: a file is no certificate or key, they do not belong together, or the key has a passphrase.
    """
    if not server.certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Without a password OpenSSL would ask the terminal for that of an encrypted key, and wait for ever.
    context.load_cert_chain(server.certificate, server.key, password="")
    context.set_alpn_protocols(["http/1.1"])
    return context


def raise_descriptor_limit(wanted: int) -> int:
    """Let the process open as many files as it may, and say so where that is fewer than `wanted`. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = hard if hard != resource.RLIM_INFINITY else max(soft, wanted)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning("%d open files are allowed, %d could be wanted: raise LimitNOFILE or ulimit -n", allowed, wanted)
    return allowed


def _cause(error: OSError) -> OSError:
    """What trio wrapped: it reports all addresses of a name at once."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error


def _named(error: OSError, host: str, port: int) -> OSError:
    return OSError(error.errno, error.strerror or str(error), f"{host} port {port}")
