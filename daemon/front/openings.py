"""What a connection begins with that is meant for another kind of port: in words, for whoever set it up. Pure."""

from __future__ import annotations

import re
from typing import Final

from daemon.front import proxy_protocol

SHOWN_BYTES: Final = 16
"""So many of a connection's first bytes say what it is."""

_TLS: Final = re.compile(rb"\x16\x03[\x00-\x04]")
"""The record of a ClientHello (RFC 8446 section 5.1)."""

_HTTP: Final = re.compile(rb"[A-Z]{3,10} /|[A-Z]{3,10} https?:", re.IGNORECASE)


def explained(first: bytes, *, secure: bool) -> str:
    """What these first bytes are, and what to do about it; "" where they say nothing.

    `secure`: whether TLS should have come.
    """
    if version := proxy_protocol.version(first):
        return (
            f"the first bytes are a PROXY protocol header (version {version}), which is taken only from [server] "
            "trusted_proxies, with [server] proxy_protocol = true: set both, or do not let the balancer send it"
        )
    if _TLS.match(first) and not secure:
        return (
            "the first bytes are a TLS handshake, and this port speaks plain HTTP: use http:// and ws://, or set "
            "[server] certificate and key"
        )
    if _HTTP.match(first) and secure:
        return "the first bytes are plain HTTP, and this port speaks TLS: use https:// and wss://"
    return ""
