"""The websocket's opening handshake, judged before anything is upgraded (RFC 6455 section 4.2).

Pure: one request in, a `Handshake` or a `Refused` out. trio-websocket would answer a bad handshake with a bare 400 and
then never return; so it is handed only handshakes that it cannot but accept. It reads the *head* that is rebuilt here
from what was judged: nothing else that the client wrote gets there.
"""

from __future__ import annotations

import base64
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from daemon.front.http import Refused, Request
from daemon.front.origins import check_reading
from protocol.codes import ErrorCode
from protocol.grant import Grant
from protocol.messages import SUBPROTOCOLS, Format

PATH: Final = "/ws"

_VERSION: Final = "13"
_KEY_BYTES: Final = 16


class Handshake(msgspec.Struct, frozen=True):
    """A handshake that is in order.

    Attributes:
        head: the request's head for the websocket library to read.
        format: how messages are written.
        subprotocol: the name to confirm to the client, or None where it offered none.
        grant: what the client may have, as the request says.
    """

    head: bytes
    format: Format
    subprotocol: str | None
    grant: Grant


def judge(request: Request, origins: AbstractSet[str]) -> Handshake:
    """What the client asks for, if it may have it.

    Compression is not negotiated: an offered extension is left out of the head, and so declined.

    Raises:
        Refused: 405, 426 or 400 for what is no websocket handshake, 403 for the origin.
    """
    _check_upgrade(request)
    key = _checked_key(request)
    check_reading(request, origins)
    name, message_format = _chosen_format(request)
    lines = [
        f"GET {PATH} HTTP/1.1",
        # Required, and read by nobody: a name that cannot fail to be decoded.
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Version: {_VERSION}",
        f"Sec-WebSocket-Key: {key}",
    ]
    if name is not None:
        lines.append(f"Sec-WebSocket-Protocol: {name}")
    return Handshake("\r\n".join([*lines, "", ""]).encode(), message_format, name, request.grant)


def _check_upgrade(request: Request) -> None:
    """Whether this is an upgrade to version 13 of the websocket protocol, sent as it must be."""
    if request.method not in ("GET", "HEAD"):
        not_get = f"{request.method[:20]} {PATH}; only GET is answered here"
        raise Refused(405, ErrorCode.METHOD_NOT_ALLOWED, not_get, (("Allow", "GET"),))
    if "websocket" not in (token.lower() for token in request.tokens("upgrade")):
        plain = f"{PATH} is a websocket: connect with ws:// or wss://, or send Upgrade: websocket"
        headers = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
        raise Refused(426, ErrorCode.BAD_REQUEST, plain, headers)
    if request.method != "GET" or request.version != "1.1":
        seen = f"{request.method} by HTTP/{request.version}"
        raise _bad(f"a websocket opens with GET by HTTP/1.1, not {seen}")
    if "upgrade" not in (token.lower() for token in request.tokens("connection")):
        raise _bad("Upgrade: websocket without Connection: Upgrade; a proxy in between may have removed it")
    if request.body or request.values("transfer-encoding"):
        raise _bad("a websocket handshake has no body")
    versions = request.values("sec-websocket-version")
    if versions != [_VERSION]:
        seen = ", ".join(versions)[:100] or "none"
        other = f"Sec-WebSocket-Version: {seen}; only {_VERSION} is spoken here"
        # RFC 6455 section 4.4: the answer names what is supported.
        raise Refused(426, ErrorCode.BAD_REQUEST, other, (("Sec-WebSocket-Version", _VERSION),))


def _checked_key(request: Request) -> str:
    keys = request.values("sec-websocket-key")
    try:
        [key] = keys
        decoded = base64.b64decode(key.encode("ascii"), validate=True)
    except ValueError:
        decoded = b""
    if len(decoded) != _KEY_BYTES:
        seen = ", ".join(keys)[:100] or "none"
        raise _bad(f"Sec-WebSocket-Key: {seen}; it has to be {_KEY_BYTES} bytes in base64")
    return keys[0]


def _chosen_format(request: Request) -> tuple[str | None, Format]:
    """The first of the offered subprotocols that is known; JSON where none is offered."""
    offered = request.tokens("sec-websocket-protocol")
    if not offered:
        return None, Format.JSON
    for name in offered:
        if name in SUBPROTOCOLS:
            return name, SUBPROTOCOLS[name]
    seen = ", ".join(offered)[:100]
    raise _bad(f"Sec-WebSocket-Protocol: {seen}; spoken here: {', '.join(SUBPROTOCOLS)}")


def _bad(message: str) -> Refused:
    return Refused(400, ErrorCode.BAD_REQUEST, message)
