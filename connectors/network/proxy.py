"""A proxy's URL: what it may be, what it says, and how it is shown without its password. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from connectors.base import FROM_ENVIRONMENT

ALLOWED: Final = (
    "http://, https://, socks5:// or socks5h:// and a host, with :PORT behind it and USER:PASSWORD@ (percent-encoded) "
    f'before it where needed; "" for none, "{FROM_ENVIRONMENT}" for what HTTPS_PROXY, ALL_PROXY and NO_PROXY say'
)
"""What a proxy may be, in words."""

_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
"""Where there is none in the URL, as curl and httpx have it."""

_MOST_SOCKS_CHARACTERS: Final = 255
"""Of a user's name, and of a password (RFC 1929 section 2)."""

_SHOWABLE: Final = re.compile(
    r"([a-z][a-z0-9+.-]*://)?(\*\*\*@)?([\w.-]+|\[[0-9a-f:.]+\])(:[0-9]{0,5})?/?", re.IGNORECASE
)


class Proxy(msgspec.Struct, frozen=True):
    """One proxy.

    Attributes:
        scheme: `http` or `https` (asked by CONNECT), `socks5` (we look names up) or `socks5h` (it does).
        host: a name or an IP address, without brackets.
        port: where it listens.
        user: for whom the tunnel is; "" for nobody in particular.
        password: a secret. It appears in no `repr`.
    """

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        """Its URL, without user and password."""
        return f"{self.scheme}://{bracketed(self.host)}:{self.port}"

    def __repr__(self) -> str:
        return f"Proxy({str(self)!r})"


def bracketed(host: str) -> str:
    """The host as a URL and a request line have it: an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def parse_proxy(url: str) -> Proxy:
    """The proxy that a URL names; without a scheme it is `http`, as curl has it.

    Raises:
        ValueError: it is none that can be used. The text does not hold the URL.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise ValueError("no such scheme")
    if parts.path not in ("", "/") or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", url):
        raise ValueError("more than a proxy's address")
    host, port = parts.hostname or "", parts.port
    if not re.fullmatch(r"[\w.:-]+", host) or port == 0:
        raise ValueError("no host, or a port that is none")
    user, password = (unquote(text or "", errors="strict") for text in (parts.username, parts.password))
    _check(scheme, user, password)
    return Proxy(scheme, host, _PORTS[scheme] if port is None else port, user, password)


def _check(scheme: str, user: str, password: str) -> None:
    if not (user + password).isprintable() or (password and not user):
        raise ValueError("user or password cannot be sent")
    if scheme in ("http", "https"):
        if ":" in user:
            raise ValueError("a user's name with a colon (RFC 7617 section 2)")
    elif user:
        lengths = range(1, _MOST_SOCKS_CHARACTERS + 1)
        if not (user + password).isascii() or len(user) not in lengths or len(password) not in lengths:
            raise ValueError("user or password that SOCKS cannot carry")


def shown_proxy(url: str) -> str:
    """The URL, for errors: without user and password, and not at all where these may be anywhere in it."""
    before, at, after = url.rpartition("@")
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", before)
    text = f"{scheme[0] if scheme else ''}***@{after}" if at else url
    return f'"{text}"' if not text or _SHOWABLE.fullmatch(text) else "a URL that is not shown"
