"""`[limits]`: what one client may do and cost, and how many there may be.

One Struct for all who keep to them: HTTP, the admission, the sessions, and (what a client may ask for) the protocol.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from connectors.base import Count, Seconds
from protocol.session import CommandLimits

FILES_BESIDE_CLIENTS: Final = 256
"""Open files for everything that is not a client: listeners, venues, logs, connections being refused."""


Rate: TypeAlias = Annotated[float, Meta(gt=0, le=1_000_000)]


class Limits(CommandLimits, frozen=True, kw_only=True):
    """`[limits]`, beside what a client may ask for.

    Attributes:
        message_bytes: the longest client message.
        clients: websockets and event streams at once.
        clients_per_address: of those, from one address; loopback and trusted proxies are excepted.
        requests_per_s: plain HTTP requests of one address each second in the long run; those that cost more count as
            several, and probes apart (`daemon.front.rates`). A token may stand for ten addresses.
        requests_burst: how many at once after a pause.
        handshakes_per_s: websockets and event streams that one address opens each second in the long run; loopback and
            trusted proxies may stand for as many addresses as there may be clients. A token may stand for ten.
        handshakes_burst: how many at once after a pause.
        tests_per_s: test messages that one address, or one token, sends to everybody each second in the long run; all
            together ten times as many.
        tests_burst: how many at once after a pause.
        test_bytes: the longest of them.
        handshake_s: from the accepted connection to the end of its first request's head, the TLS handshake included;
            for a later request from its first byte to the end of its head. The body has as long again, and so has the
            opening handshake of a websocket.
        ping_every_s: how often the server pings.
        silent_after_s: after how long without a single byte from the client it counts as dead.
        write_deadline_s: how long a client's socket may take nothing at all, and a peer over its response.
        head_bytes: request line and headers together.
        body_bytes: a request's body.
        keep_alive_s: without a byte between two requests.
        grace_s: how long a stop may take.
    """

    message_bytes: Annotated[int, Meta(ge=128, le=2**24)] = 65_536
    clients: Count = 10_000
    clients_per_address: Count = 100
    requests_per_s: Rate = 200.0
    requests_burst: Count = 1000
    handshakes_per_s: Rate = 20.0
    handshakes_burst: Count = 200
    tests_per_s: Rate = 2.0
    tests_burst: Count = 20
    test_bytes: Annotated[int, Meta(ge=1, le=2**20)] = 1024
    handshake_s: Seconds = 10.0
    ping_every_s: Seconds = 20.0
    silent_after_s: Seconds = 40.0
    write_deadline_s: Seconds = 30.0
    head_bytes: Annotated[int, Meta(ge=1024, le=2**20)] = 16_384
    body_bytes: Annotated[int, Meta(ge=1024, le=2**24)] = 65_536
    keep_alive_s: Seconds = 75.0
    grace_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0
