"""Who may come in, how many at once, and how often.

The front door asks here about every connection, every request and every client that comes. All that is decided here can
change while the daemon runs (a reload sets `policy` anew): who is in stays, and who comes next is judged by
the new policy.
"""

from __future__ import annotations

import ipaddress
import math
import random
from contextlib import AbstractContextManager
from typing import Final

import msgspec

from daemon.front import access, addresses
from daemon.front.access import Tokens
from daemon.front.address_counts import AddressCounts, Network, NoRoomError, Place
from daemon.front.http import Refused, Request
from daemon.front.limits import FILES_BESIDE_CLIENTS, Limits
from daemon.front.listening import ServerSettings
from daemon.front.origins import ANY, spelled
from daemon.front.rates import Rates
from protocol.codes import ErrorCode

_RETRY_S: Final = (5.0, 15.0)
"""Between these a refused client is asked to wait; each another time, so that they do not come back all at once."""

_REFUSALS_AT_ONCE: Final = 64
"""So many connections over the limit are told why they are refused; those beyond are closed without a word."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Who is let in, and how many.

    Attributes:
        limits: what one client may cost, and how many there may be.
        connections: connections open at once, of whatever kind.
        connections_per_address: of those, from one address; loopback and trusted proxies are excepted.
        origins: whose pages may read, beside our own (`daemon.front.origins`).
        names: by which whoever acts may address us, beside the loopback's and our address; as `spelled`.
        trusted_proxies: addresses or networks that the limits per address are not meant for, beside loopback, and
            whose word is taken for who their clients are (`daemon.front.forwarded`).
        proxy_protocol: whether they may send a header before anything else (`daemon.front.proxy_protocol`).
        prefix: what may stand before every path (`daemon.front.paths`).
        tokens: what each token lets its bearer have; None: everybody may have everything (`daemon.front.access`).
    """

    limits: Limits
    connections: int
    connections_per_address: int
    origins: frozenset[str] = frozenset({ANY})
    names: frozenset[str] = frozenset()
    trusted_proxies: tuple[str, ...] = ()
    proxy_protocol: bool = False
    prefix: str = ""
    tokens: Tokens = None


def policy(server: ServerSettings, limits: Limits, tokens: Tokens) -> Policy:
    """The policy that follows from the configuration."""
    return Policy(
        limits=limits,
        connections=limits.clients + FILES_BESIDE_CLIENTS // 2,
        connections_per_address=limits.clients_per_address * 2,
        origins=frozenset(server.origins),
        names=frozenset(map(spelled, server.names)),
        trusted_proxies=server.trusted_proxies,
        proxy_protocol=server.proxy_protocol,
        prefix=server.prefix,
        tokens=tokens,
    )


class Admission:
    """The policy, and the count of who is in.

    Attributes:
        connections: how many connections are open, and from where.
        clients: how many websockets and event streams there are, and from where.
        rates: how much each address and each token has asked for lately.
        accepting: whether anybody may still come; False from the beginning of a stop.
    """

    def __init__(
        self, policy: Policy, connections: AddressCounts | None = None, clients: AddressCounts | None = None
    ) -> None:
        """`connections` and `clients`: who is counted together with those of other processes, where there are some."""
        self.accepting = True
        self.connections = AddressCounts() if connections is None else connections
        self.clients = AddressCounts() if clients is None else clients
        self.rates = Rates(policy.limits)
        self.policy = policy

    @property
    def policy(self) -> Policy:
        """What holds for whoever comes now."""
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._policy = policy
        exempt = tuple(ipaddress.ip_network(proxy, strict=False) for proxy in policy.trusted_proxies)
        self.connections.exempt = self.clients.exempt = exempt
        self.rates.adopt(policy.limits, exempt)

    @property
    def limits(self) -> Limits:
        """What one connection may cost, and how many there may be."""
        return self._policy.limits

    @property
    def proxies(self) -> tuple[Network, ...]:
        """The trusted proxies: what they say of whom they forward is believed."""
        return self.clients.exempt

    def takes_headers_of(self, peer: str) -> bool:
        """Whether that peer's connections may begin with a header of the PROXY protocol."""
        return self._policy.proxy_protocol and addresses.is_trusted(peer, self.proxies)

    def connection(self, peer: str) -> AbstractContextManager[None]:
        """One more connection from that IP address, as long as the block lasts; whether it may stay is asked next."""
        return self.connections.counting(peer)

    def refusal(self, peer: str, *, tls: bool) -> Refused | None:
        """Why a connection, which is counted already, may not stay; None where it may."""
        policy = self._policy
        if self.connections.total > policy.connections:
            return full(f"all {policy.connections} connections are taken")
        if self.connections.of(peer) > policy.connections_per_address:
            return full(f"{peer} has {policy.connections_per_address} connections already, which is the limit")
        return self.rates.connection(peer, tls=tls)

    def may_explain(self, peer: str) -> bool:
        """Whether to tell one more connection why it is refused: there is room, and it has not been told often."""
        room = self.connections.total <= self._policy.connections + _REFUSALS_AT_ONCE
        return room and not self.rates.owes(peer)

    def granted(self, request: Request) -> Request:
        """The request, with what it may have where that depends on a token. Raises: Refused, 401 or 400."""
        if not access.is_guarded(request.path):
            return request
        return msgspec.structs.replace(request, grant=access.granted(request.presented, self._policy.tokens))

    def take_place(self, peer: str) -> Place:
        """One more websocket or event stream from that IP address, until it leaves. Raises: Refused, 503."""
        limits = self.limits
        try:
            return self.clients.take(peer, limits.clients, limits.clients_per_address)
        except NoRoomError as none:
            if none.of == "all":
                raise full(f"all {limits.clients} places for clients are taken") from None
            raise full(f"{peer} has {limits.clients_per_address} clients already, which is the limit") from None


def full(message: str) -> Refused:
    """The refusal of one who may come back when there is room."""
    return unavailable(ErrorCode.FULL, message)


def unavailable(code: ErrorCode, message: str) -> Refused:
    """A refusal that says when to come back."""
    wait_s = math.ceil(random.uniform(*_RETRY_S))
    return Refused(503, code, message, (("Retry-After", str(wait_s)),))
