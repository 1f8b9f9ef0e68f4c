"""Where a daemon is, how to connect to it, and how long to wait between attempts. Pure."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from connectors.backoff import Backoff
from connectors.push.address import Address, parse_address

PATH: Final = "/ws"

READ_AHEAD: Final = 64
"""How many messages (or frames) are read ahead. Without any, a ping is not answered while a message waits."""

MESSAGE_BYTES: Final = 16 * 1024 * 1024
CLOSE_S: Final = 0.5
"""How long the daemon may take over the closing handshake."""

_SCHEMES: Final = {"http": "ws", "https": "wss"}
_STABLE_S: Final = 10.0
"""A connection that held this long, beyond the time to open it, ends a row of failures."""

_NEVER: Final = 2**31
"""Failures in a row until the back-off's breaker opens. It never does: a client always tries its daemon again."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the daemon is, and how to connect to it.

    Attributes:
        address: host, port and path.
        token: for `Authorization: Bearer`; "" for none.
        ssl_context: for TLS; None without.
        timeout_s: limit for connecting, for the handshake with the welcome, and for sending a command.
        retry_base_s: the first wait after a loss is drawn between 0 and this; the limit doubles with each failure.
        retry_cap_s: the highest such limit.
    """

    address: Address
    token: str
    ssl_context: ssl.SSLContext | None
    timeout_s: float
    retry_base_s: float
    retry_cap_s: float

    @property
    def where(self) -> str:
        """The daemon, as errors name it."""
        return self.address.host_header

    def backoff(self) -> Backoff:
        """The waits of one subscription. Raises: ValueError, if a limit is not above 0."""
        stable_s = _STABLE_S + 2 * self.timeout_s
        cap_s = self.retry_cap_s
        return Backoff(self.retry_base_s, cap_s, stable_s, breaker_after=_NEVER, breaker_s=cap_s)


def endpoint(
    url: str,
    *,
    token: str,
    ssl_context: ssl.SSLContext | None,
    timeout_s: float,
    retry_base_s: float,
    retry_cap_s: float,
) -> Endpoint:
    """What `connect` was given, checked. `url` is any that `websocket_url` accepts.

    Raises:
        ValueError: the URL or the token is invalid, or a limit is not above 0.
    """
    address = parse_address(websocket_url(url))
    check_token(token)
    if address.tls:
        ssl_context = ssl_context or ssl.create_default_context()
    found = Endpoint(
        address=address,
        token=token,
        ssl_context=ssl_context if address.tls else None,
        timeout_s=timeout_s,
        retry_base_s=retry_base_s,
        retry_cap_s=retry_cap_s,
    )
    found.backoff()  # a wrong limit shows here, not at the first loss
    return found


def websocket_url(url: str) -> str:
    """The websocket's address: `http` becomes `ws`, a bare `host:port` is allowed.

    The default path is `/ws`; behind one that ends in a slash, as `/feed/`, `ws` follows.
    """
    parts = urlsplit(url if "://" in url else f"ws://{url}")
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    path = parts.path or "/"
    return urlunsplit((scheme, parts.netloc, f"{path[:-1]}{PATH}" if path.endswith("/") else path, parts.query, ""))


def check_token(token: str) -> None:
    """Raises: ValueError, if the token cannot be sent in a header."""
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("a token consists of printable ASCII characters, without blanks")
