"""What the front door hands over: a client that is let in, with its connection, before it has had its answer."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
import trio

from daemon.front.address_counts import Place
from daemon.front.event_request import EventRequest
from daemon.front.tls import TlsStream
from protocol.grant import ANYONE, Grant
from protocol.messages import Format

Transport: TypeAlias = trio.SocketStream | TlsStream


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """A websocket client that is let in, before it has had its answer.

    Attributes:
        stream: its connection; whoever serves it closes it.
        head: the handshake, for the websocket library to read first.
        trailing: what the client has sent behind the handshake already.
        peer: its IP address.
        format: how its messages are written.
        subprotocol: the name to confirm, or None where it offered none.
        grant: what it may have.
        place: as it is counted; to be left when it is gone.
    """

    stream: Transport
    head: bytes
    trailing: bytes
    peer: str
    format: Format
    subprotocol: str | None
    place: Place
    grant: Grant = ANYONE


class EventClient(msgspec.Struct, frozen=True, kw_only=True):
    """A client of Server-Sent Events that is let in, before it has had its answer.

    Attributes:
        stream: its connection; whoever serves it closes it.
        head: the answer's head, to be sent first.
        peer: its IP address.
        request: what it asked for.
        place: as it is counted; to be left when it is gone.
    """

    stream: Transport
    head: bytes
    peer: str
    request: EventRequest
    place: Place
