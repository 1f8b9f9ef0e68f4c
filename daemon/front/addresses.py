"""Who a request is from, where it came through proxies: what they say counts only if they are trusted.

Anybody can write `X-Forwarded-For`. A proxy appends the address that it was spoken to from, so the list is read from
its right end, as long as each address is that of a trusted proxy; the first other one is the client's, and whatever
stands to the left of it is the client's own invention. Only the addresses of `[server] trusted_proxies` are trusted: a
proxy on the same machine is trusted by listing 127.0.0.1 and ::1.

`X-Forwarded-Proto` of a trusted proxy says whether the client spoke TLS to it: a page that came by https:// has an
`Origin` that says so, though the proxy speaks plain HTTP to us. `Forwarded` (RFC 7239) is not read: nginx does not send
it by itself, and where both are sent only one can be kept in order.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from daemon.front.address_counts import Network
from daemon.front.request import Request

FOR: Final = "x-forwarded-for"
PROTO: Final = "x-forwarded-proto"
HEADERS: Final = (FOR, "forwarded")
"""What tells that a request came through a proxy, trusted or not."""

_MOST_HOPS: Final = 16
"""More proxies than anybody has in a row; reading a list costs time."""

_WITH_PORT: Final = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d{1,5})?|(?P<v4>[\d.]+):\d{1,5}")


def as_sent(request: Request, proxies: tuple[Network, ...]) -> Request:
    """The request as the client sent it to the first of the trusted proxies; from any other peer, as it came."""
    if not proxies or not _trusted(request.peer, proxies):
        return request
    client = client_of(request.tokens(FOR), proxies)
    schemes = request.tokens(PROTO)
    secure = schemes[-1].lower() == "https" if schemes else request.secure
    return msgspec.structs.replace(request, peer=client or request.peer, secure=secure, vouched=client is not None)


def client_of(hops: list[str], proxies: tuple[Network, ...]) -> str | None:
    """The client's address: of these, the nearest one that is no trusted proxy; the first, where all of them are.

    Returns:
        None where nobody can tell: the list is empty, too long, or has something else than an address where it counts.
        Then the client counts as the proxy that sent the request. Refusing it would be no better: the proxy that wrote
        this is one that the operator trusts, and writes it for all of its clients.
    """
    client: str | None = None
    for hop in reversed(hops[-_MOST_HOPS:]):
        client = _address(hop)
        if client is None or not _trusted(client, proxies):
            return client
    return client if len(hops) <= _MOST_HOPS else None


def plain(address: str) -> str:
    """An IP address as it is compared: an IPv4 client of an IPv6 listener as IPv4 (RFC 4291 section 2.5.5.2).

    Raises: ValueError, where it is none.
    """
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def _address(hop: str) -> str | None:
    """One item of the list: an address, perhaps with a port, an IPv6 one perhaps in brackets."""
    found = _WITH_PORT.fullmatch(hop)
    try:
        # A zone (`%eth0`) is a name of the proxy's own machine, and any text at all.
        return None if "%" in hop else plain(found["v6"] or found["v4"] or "" if found else hop)
    except ValueError:
        return None


def _trusted(address: str, proxies: tuple[Network, ...]) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in proxies)
