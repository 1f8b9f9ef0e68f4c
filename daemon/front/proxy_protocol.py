"""The PROXY protocol: the header by which a balancer of plain TCP connections says whose connection it is.

"The PROXY protocol", versions 1 and 2, by HAProxy Technologies: `send-proxy` and `send-proxy-v2` there, `proxy_protocol
on` of nginx's streams, the network balancers of clouds.

It comes before everything else, TLS too. It is taken only from `[server] trusted_proxies`, and only with
`[server] proxy_protocol`: anybody can write it. A trusted proxy need not send it on every connection, because checks
of its health (and the daemon's own canary) come without; so every proxy in the list has to send it for its clients, or
a client of one that does not could write it instead.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import trio

from daemon.front.addresses import plain

_TEXT: Final = b"PROXY "
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_TEXT_BYTES: Final = 107
"""The longest header of version 1, its line end included (section 2.1)."""

_FIXED_BYTES: Final = 16
_MOST_BYTES: Final = 4096
"""The longest header of version 2 that is taken: addresses and what a balancer adds, such as a certificate's name."""

_ADDRESS_BYTES: Final = {1: 4, 2: 16}
"""By the family in a header of version 2 (section 2.2): IPv4, IPv6."""

_AGAIN_S: Final = 0.01
"""A header comes in one segment (section 2); where it does not, the rest is looked for after this."""


def version(first: bytes) -> int:
    """Which version's header a connection begins with; 0 for none of them."""
    return 1 if first.startswith(_TEXT) else 2 if first.startswith(_SIGNATURE) else 0


async def take_off(stream: trio.SocketStream) -> str:
    """Take the header off the connection, and nothing behind it. No deadline: that is the caller's.

    Returns:
        The client's IP address; "" where no header came, or it says nothing of a client.

    Raises:
        trio.BrokenResourceError: the header is not in order.
        OSError: the connection broke.
    """
    while True:
        seen = await stream.socket.recv(_TEXT_BYTES, socket.MSG_PEEK)
        size = _size(seen) if seen else 0
        if size is not None:
            break
        await trio.sleep(_AGAIN_S)
    header = b""
    while len(header) < size:
        data = await stream.socket.recv(size - len(header))
        if not data:
            raise trio.BrokenResourceError("the peer went in the midst of its PROXY protocol header")
        header += data
    return source(header) if header else ""


def source(header: bytes) -> str:
    """The client's address in a whole header; "" where it names none.

    Raises: trio.BrokenResourceError, where it is not in order.
    """
    try:
        return _of_text(header) if header.startswith(_TEXT) else _of_binary(header)
    except ValueError:
        raise _broken(header) from None


def _size(seen: bytes) -> int | None:
    """How long the header is that a connection begins with, 0 for none; None while that cannot be said."""
    if seen.startswith(_TEXT):
        end = seen.find(b"\r\n")
        if end < 0 and len(seen) >= _TEXT_BYTES:
            raise _broken(seen)
        return end + 2 if end >= 0 else None
    if seen.startswith(_SIGNATURE):
        if len(seen) < _FIXED_BYTES:
            return None
        size = _FIXED_BYTES + int.from_bytes(seen[14:16], "big")
        if size > _MOST_BYTES:
            raise _broken(seen)
        return size
    return None if _TEXT.startswith(seen) or _SIGNATURE.startswith(seen) else 0


def _of_text(header: bytes) -> str:
    words = header.decode("ascii").removesuffix("\r\n").split(" ")
    if words[1] == "UNKNOWN":
        return ""
    _, family, address, *_ = words
    if len(words) != 6 or family != f"TCP{ipaddress.ip_address(address).version}":
        raise ValueError
    return plain(address)


def _of_binary(header: bytes) -> str:
    what, family = header[12], header[13] >> 4
    if what not in (0x20, 0x21):
        raise ValueError
    if what == 0x20 or family not in _ADDRESS_BYTES:
        return ""  # the balancer's own connection, or one that has no address
    size = _ADDRESS_BYTES[family]
    if len(header) < _FIXED_BYTES + 2 * size + 4:
        raise ValueError
    return plain(str(ipaddress.ip_address(header[_FIXED_BYTES : _FIXED_BYTES + size])))


def _broken(header: bytes) -> trio.BrokenResourceError:
    return trio.BrokenResourceError(f"a PROXY protocol header that is not in order: {header[:_TEXT_BYTES]!r}")
