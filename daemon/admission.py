"""Who may come in, and how many at once.

The front door asks here about every connection and every websocket handshake. All that is decided here can change
while the daemon runs (a reload sets `terms` anew): who is in stays, and who comes next is judged by the new terms.
"""

from __future__ import annotations

import ipaddress
import math
import random
from contextlib import AbstractContextManager
from typing import Final

import msgspec

from daemon.census import Census
from daemon.http import HttpLimits, Refused
from protocol.codes import ErrorCode

_RETRY_S: Final = (5.0, 15.0)
"""Between these a refused client is asked to wait; each another time, so that they do not come back all at once."""

_REFUSALS_AT_ONCE: Final = 64
"""So many connections over the limit are told why they are refused; those beyond are closed without a word."""


class FrontDoorLimits(HttpLimits, frozen=True, kw_only=True):
    """What one connection may cost (`HttpLimits`), and how many there may be.

    Attributes:
        connections: open at once, of whatever kind.
        connections_per_address: of those, from one address; loopback and trusted proxies are excepted.
        clients: websocket clients at once.
        clients_per_address: of those, from one address; loopback and trusted proxies are excepted.
    """

    connections: int
    connections_per_address: int
    clients: int
    clients_per_address: int


class Terms(msgspec.Struct, frozen=True):
    """On what terms clients are let in.

    Attributes:
        limits: what one connection may cost, and how many there may be.
        origins: whose pages are let in beside our own.
        trusted_proxies: addresses or networks that the limits per address are not meant for, beside loopback.
    """

    limits: FrontDoorLimits
    origins: frozenset[str] = frozenset()
    trusted_proxies: tuple[str, ...] = ()


class Admission:
    """The terms, and the count of who is in.

    Attributes:
        connections: how many connections are open, and from where.
        clients: how many websocket clients there are, and from where.
    """

    def __init__(self, terms: Terms) -> None:
        self.connections = Census()
        self.clients = Census()
        self.terms = terms

    @property
    def terms(self) -> Terms:
        """On what terms whoever comes now is let in."""
        return self._terms

    @terms.setter
    def terms(self, terms: Terms) -> None:
        self._terms = terms
        exempt = tuple(ipaddress.ip_network(proxy, strict=False) for proxy in terms.trusted_proxies)
        self.connections.exempt = self.clients.exempt = exempt

    @property
    def limits(self) -> FrontDoorLimits:
        """What one connection may cost, and how many there may be."""
        return self._terms.limits

    def connection(self, peer: str) -> AbstractContextManager[None]:
        """One more connection from that IP address, as long as the block lasts; whether it may stay is asked next."""
        return self.connections.counting(peer)

    def client(self, peer: str) -> AbstractContextManager[None]:
        """One more websocket client from that IP address, as long as the block lasts."""
        return self.clients.counting(peer)

    def over_limit(self, peer: str) -> str:
        """Which limit a connection, which is counted already, goes beyond; "" for none."""
        limits = self.limits
        if self.connections.total > limits.connections:
            return f"all {limits.connections} connections are taken"
        if self.connections.of(peer) > limits.connections_per_address:
            return f"{peer} has {limits.connections_per_address} connections already, which is the limit"
        return ""

    @property
    def may_explain(self) -> bool:
        """Whether there is room to tell one more connection why it is refused."""
        return self.connections.total <= self.limits.connections + _REFUSALS_AT_ONCE

    def check_room(self, peer: str) -> None:
        """Whether one more websocket client may come. Raises: Refused, 503."""
        limits = self.limits
        if self.clients.total >= limits.clients:
            raise full(f"all {limits.clients} places for websocket clients are taken")
        if self.clients.of(peer) >= limits.clients_per_address:
            raise full(f"{peer} has {limits.clients_per_address} websocket clients already, which is the limit")


def full(message: str) -> Refused:
    """The refusal of one who may come back when there is room."""
    return unavailable(ErrorCode.FULL, message)


def unavailable(code: ErrorCode, message: str) -> Refused:
    """A refusal that says when to come back."""
    wait_s = math.ceil(random.uniform(*_RETRY_S))
    return Refused(503, code, message, (("Retry-After", str(wait_s)),))
