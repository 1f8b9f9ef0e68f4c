"""Who a request is from, where it came through proxies: what they say counts only if they are trusted.

Anybody can write `X-Forwarded-For`. A proxy appends the address that it was spoken to from, so the list is read from
its right end, as long as each address is that of a trusted proxy; the first other one is the client's, and whatever
stands to the left of it is the client's own invention. Only the addresses of `[server] trusted_proxies` are trusted: a
proxy on the same machine is trusted by listing 127.0.0.1 and ::1.

`daemon.front.forwarded` reads what else they say: how the client addressed them, and whether it spoke TLS.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from daemon.front.address_counts import Network

_MOST_HOPS: Final = 16
"""More proxies than anybody has in a row; reading a list costs time."""

_WITH_PORT: Final = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d{1,5})?|(?P<v4>[\d.]+):\d{1,5}")


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
        if client is None or not is_trusted(client, proxies):
            return client
    return client if len(hops) <= _MOST_HOPS else None


def depth_of(hops: list[str], proxies: tuple[Network, ...]) -> int:
    """How many trusted proxies the request came through, one after the other: the peer, and who of these sent it on."""
    depth = 1
    for hop in reversed(hops[-_MOST_HOPS:]):
        address = _address(hop)
        if address is None or not is_trusted(address, proxies):
            break
        depth += 1
    return depth


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


def is_trusted(address: str, proxies: tuple[Network, ...]) -> bool:
    """Whether it is the address of one of these proxies."""
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in proxies)
