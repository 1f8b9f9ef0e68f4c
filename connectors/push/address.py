"""The address that a websocket's URL names. Pure: nothing is looked up."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import msgspec

_PORTS: Final = {"ws": 80, "wss": 443}


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
