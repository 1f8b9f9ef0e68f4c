"""What trusted proxies say of a request: who sent it, and how that client addressed the first of them. Pure.

A proxy may rewrite everything that a page's `Origin` is compared with: it speaks plain HTTP to us where the client
spoke TLS to it, names us in `Host` by a name of its own network, and takes a prefix off the path. It says so in
headers, which anybody can write: they count only where the peer is one of `[server] trusted_proxies`.

    X-Forwarded-For, -Proto, -Host, -Port, -Prefix     what nearly all proxies write
    Forwarded                                          the same by RFC 7239, without the prefix

`Forwarded` is read only where none of the others is there: a proxy that keeps those in order passes on what a client
has written into this one. So who has a proxy that writes `Forwarded` lets it remove the others.

Each is a list where there are several proxies in a row: every one of them appends what it saw. The addresses say how
many of them are trusted (`daemon.front.addresses`), and so which item is the first trusted one's; a list that is
shorter was written anew on the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from daemon.front import addresses
from daemon.front.address_counts import Network
from daemon.front.request import Request

FOR: Final = "x-forwarded-for"
PROTO: Final = "x-forwarded-proto"
HOST: Final = "x-forwarded-host"
PORT: Final = "x-forwarded-port"
PREFIX: Final = "x-forwarded-prefix"
STANDARD: Final = "forwarded"

HEADERS: Final = (FOR, STANDARD)
"""What tells that a request came through a proxy, trusted or not."""

_SECURE: Final = ("https", "wss")
"""Traefik names the scheme of a websocket."""

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR: Final = re.compile(rf'\s*({_NAME})=(?:"((?:[^"\\]|\\.)*)"|([^\s";,]*))\s*([;,]|$)')
"""A pair of RFC 7239 section 4 and what ends it; a value without quotes may have colons and brackets, as many write."""

_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?P<port>:[0-9]{1,5})?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~%!$&'()*+=:@-]+)+/?")


def as_sent(request: Request, proxies: tuple[Network, ...]) -> Request:
    """The request as the client sent it to the first of the trusted proxies; from any other peer, as it came.

    Its `Host` is the one that the client wrote, as far as the proxies tell.
    """
    if not proxies or not addresses.is_trusted(request.peer, proxies):
        return request
    said = _said(request)
    hops = said[FOR]
    client = addresses.client_of(hops, proxies)
    depth = addresses.depth_of(hops, proxies)
    scheme, host, port = (_at(said[name], depth) for name in (PROTO, HOST, PORT))
    headers = request.headers
    if _HOST.fullmatch(host):
        headers = (*(each for each in headers if each[0] != "host"), ("host", host))
    prefix = "".join(each.rstrip("/") for each in said[PREFIX])
    return msgspec.structs.replace(
        request,
        headers=headers,
        peer=client or request.peer,
        secure=scheme.lower() in _SECURE if scheme else request.secure,
        vouched=client is not None,
        port=port if _PORT.fullmatch(port) else "",
        prefix=prefix if _PREFIX.fullmatch(prefix) else "",
    )


def _said(request: Request) -> dict[str, list[str]]:
    """The proxies' words by header, the nearest proxy's last."""
    names = (FOR, PROTO, HOST, PORT, PREFIX)
    said = {name: request.tokens(name) for name in names}
    if not any(said[name] for name in (FOR, PROTO, HOST)):
        elements = list(_elements(", ".join(request.values(STANDARD))))
        for name, key in ((FOR, "for"), (PROTO, "proto"), (HOST, "host")):
            said[name] = [element.get(key, "") for element in elements]
    return said


def _elements(value: str) -> Iterator[dict[str, str]]:
    """The elements of `Forwarded`, the farthest first; what stands before something that is none has no value.

    Whoever wrote what is not in order, a trusted proxy appends behind it: what comes after is judged by itself.
    """
    element: dict[str, str] = {}
    at = 0
    while at < len(value):
        found = _PAIR.match(value, at)
        if found is None:
            # A client's own, or a mistake: on to the next comma.
            element = {}
            at = value.find(",", at) + 1 or len(value)
            yield element
            continue
        name, quoted, plain, end = found.groups()
        element[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        at = found.end()
        if end != ";":
            yield element
            element = {}
    if element:
        yield element


def _at(items: list[str], depth: int) -> str:
    """What the first of so many trusted proxies said, or the first that said anything; "" where none did."""
    return next((item for item in items[-depth:] if item), "")
