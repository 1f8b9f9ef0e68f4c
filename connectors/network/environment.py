"""Which proxy the environment names for a URL: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. Pure.

There is no standard, so this is what curl, Go and Python have in common. A name in lower case wins over the same in
capitals. `NO_PROXY` is a list, by commas or spaces:

    *                          everything
    example.com, .example.com  the host and all below it, also `*.example.com`
    example.com:8443           the same, at this port only
    10.0.0.7, [fd00::7]:443    an address, as the URL has it; no name is looked up for this
    10.0.0.0/8, fd00::/8       a network

What is on this machine is never asked of a proxy on the environment's word.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, TypeAlias
from urllib.parse import urlsplit

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_SCHEMES: Final = {"http": ("http", 80), "ws": ("http", 80), "https": ("https", 443), "wss": ("https", 443)}
"""By a URL's scheme: how the variable's name begins, and the usual port."""


def proxy_of(url: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The proxy's URL for that of a venue, and the variable that named it; None where there is none to be used."""
    parts = urlsplit(url)
    scheme, usual_port = _SCHEMES.get(parts.scheme.lower(), ("https", 443))
    host = (parts.hostname or "").rstrip(".")
    if _is_here(host) or is_exempt(host, parts.port or usual_port, _value(environ, "no_proxy")[0]):
        return None
    for name in (f"{scheme}_proxy", "all_proxy"):
        value, variable = _value(environ, name)
        if value:
            return value, variable
    return None


def _value(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable's value, and as it is written. One in lower case counts even where it is empty: it takes back."""
    variable = name if name in environ else name.upper()
    return environ.get(variable, "").strip(), variable


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether `NO_PROXY` names the host."""
    address = _address(host)
    return any(_covers(entry, host.lower(), port, address) for entry in re.split(r"[\s,]+", no_proxy) if entry)


def _covers(entry: str, host: str, port: int, address: _Address | None) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address is not None and address in network
    wanted = _address(entry)
    if wanted is None:
        name, colon, number = entry.rpartition(":")
        if colon and number.isdecimal():
            if int(number) != port:
                return False
            entry = name
        wanted = _address(entry)
    if wanted is not None or address is not None:
        return wanted == address
    suffix = entry.lower().removeprefix("*").strip(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_here(host: str) -> bool:
    """Whether it is this machine by its loopback, under any name that is always so (RFC 6761 section 6.3)."""
    address = _address(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified
    return host.lower() == "localhost" or host.lower().endswith(".localhost")
