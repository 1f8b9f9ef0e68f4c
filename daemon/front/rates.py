"""How often an address, and a token, may ask for something.

Each has buckets of its own (`protocol.bucket`), by kind of what it asks for: plain requests, of which the dear ones
count as several, and probes apart; clients that come, by websocket or event stream; and test messages. Who asks for
more is told when to come back, and owes a little for each refusal, since that costs too: who keeps asking is let in
later, not sooner.

An address is the client's, as far as a trusted proxy says so; of IPv6 it is the /64 network. Many clients stand behind
the loopback (a proxy on this machine that is not named in the configuration, a test) and behind a trusted proxy that
does not say who they are: these may bring as many clients as if each came from an address of its own. A token may stand
for several addresses, too.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import Final

import msgspec
import trio

from daemon.front.address_counts import Network, subscriber
from daemon.front.limits import Limits
from daemon.front.request import Refused, Request
from protocol.bucket import Bucket
from protocol.codes import ErrorCode
from protocol.grant import ANYONE

WEIGHTS: Final = {
    "/channels": 2.0,
    "/readyz": 2.0,
    "/asyncapi.json": 2.0,
    "/cluster": 2.0,
    "/gaps": 3.0,
    "/metrics": 3.0,
}
"""What a plain request counts as that costs more than most: 1 stands for a quarter of a millisecond."""

_BELOW: Final = {"/snapshot/": 2.0, "/history/": 8.0}
"""The same for every path that begins so."""

_PROBES: Final = frozenset({"/healthz", "/readyz"})
"""These are counted apart: a flood of something else, perhaps by a proxy on this machine that is not named in the
configuration, must not make the daemon look dead to whoever watches it from there."""

_CONNECTION: Final = 0.5
_TLS_CONNECTION: Final = 5.0
"""What accepting a connection counts as, without and with the handshake of TLS."""

_TOKEN: Final = 10
"""A token may stand for so many addresses, and all test messages together for so many senders."""

_REFUSAL: Final = 0.2
"""What a refusal costs, as a part of what was asked for."""

_MOST_OWED: Final = 0.25
"""So much may be owed, as a part of the burst: who has stopped asking is served again soon."""

_DEEP: Final = 0.5
"""Who owes more than this part of it is not answered any more."""

_MOST_BUCKETS: Final = 65_536
"""Beyond this the one that was used longest ago makes room: as a rule it is full, and so no loss."""


class Rate(msgspec.Struct, frozen=True):
    """How often in the long run, and how often at once after a pause. `key` names it in `[limits]`."""

    key: str
    per_s: float
    burst: float

    def times(self, factor: float) -> Rate:
        """The rate of so many together."""
        return Rate(self.key, self.per_s * factor, self.burst * factor)

    def refusal(self, who: str, wait_s: float) -> Refused:
        """What one is told who is over it, and may come back after so long."""
        most = f"{self.per_s:g} {self.key}/s (in a burst {self.burst:g})"
        told = f"{who} asks for more than {most}; it may come back in {wait_s:.1f} s"
        retry = (("Retry-After", str(max(1, math.ceil(wait_s)))),)
        note = f"{who} asks for more than {most}, limits.{self.key}_per_s"
        return Refused(429, ErrorCode.RATE_LIMITED, told, retry, note=note)


class Buckets:
    """The buckets of everybody who has asked for something lately, by name."""

    def __init__(self) -> None:
        # Of a plain dict the first key is found by a walk over all that were deleted before it.
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, cost: float, rate: Rate, now_s: float) -> float:
        """Take what is asked for out of that bucket.

        Returns:
            0.0 where it was there; else in how many seconds it will be, what is owed for the refusal included.
        """
        bucket = self._buckets.pop(name, None)
        if bucket is None:
            bucket = Bucket(rate.burst, now_s)
            if len(self._buckets) >= _MOST_BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets[name] = bucket  # at the end: the first one is the one that was used longest ago
        cost = min(cost, rate.burst)
        if not bucket.take(cost, rate.per_s, rate.burst, now_s):
            return 0.0
        bucket.owe(cost * _REFUSAL, rate.burst * _MOST_OWED)
        return (cost - bucket.level(rate.per_s, rate.burst, now_s)) / rate.per_s

    def level(self, name: str, rate: Rate, now_s: float) -> float:
        """How much is in that bucket; below zero where something is owed."""
        bucket = self._buckets.get(name)
        return rate.burst if bucket is None else bucket.level(rate.per_s, rate.burst, now_s)


def weight(path: str) -> float:
    """What a plain request for that path counts as."""
    below = next((each for start, each in _BELOW.items() if path.startswith(start)), 1.0)
    return WEIGHTS.get(path, below)


class Rates:
    """Judges who may ask for something now. To be asked inside trio; no method is a checkpoint."""

    def __init__(self, limits: Limits, proxies: tuple[Network, ...] = ()) -> None:
        self._buckets = Buckets()
        self.adopt(limits, proxies)

    def adopt(self, limits: Limits, proxies: tuple[Network, ...]) -> None:
        """These are the limits, and the trusted proxies, from now on."""
        self._requests = Rate("requests", limits.requests_per_s, limits.requests_burst)
        self._handshakes = Rate("handshakes", limits.handshakes_per_s, limits.handshakes_burst)
        self._tests = Rate("tests", limits.tests_per_s, limits.tests_burst)
        self._test_bytes = limits.test_bytes
        self._many = max(1.0, limits.clients / limits.clients_per_address)
        self._proxies = proxies

    def connection(self, peer: str, *, tls: bool) -> Refused | None:
        """Why an address may not have one more connection now, as a 429; None where it may."""
        if self._is_loopback(peer) or self._is_proxy(peer):
            return None
        cost = _TLS_CONNECTION if tls else _CONNECTION
        wait_s = self._buckets.take(subscriber(peer), cost, self._requests, trio.current_time())
        return self._requests.refusal(peer, wait_s) if wait_s else None

    def owes(self, peer: str) -> bool:
        """Whether an address has been told so often that it is refused that it need not be told again."""
        level = self._buckets.level(subscriber(peer), self._requests, trio.current_time())
        return level < -self._requests.burst * _MOST_OWED * _DEEP

    def request(self, request: Request, *, arrives: bool) -> None:
        """Whether the request's address may ask for that now; `arrives`: it is a client that comes.

        Raises: Refused, 429.
        """
        peer = request.peer
        shared = self._is_proxy(peer) or (arrives and self._is_loopback(peer))
        rate = (self._handshakes if arrives else self._requests).times(self._many if shared else 1)
        name = subscriber(peer)
        if request.path in _PROBES:
            name = f"probes {name}"
        self._take(name, peer, 1.0 if arrives else weight(request.path), rate)

    def not_understood(self, peer: str) -> None:
        """The same for what came from that address and is no request that can be accepted. Raises: Refused, 429."""
        self._take(subscriber(peer), peer, 1.0, self._requests.times(self._many if self._is_proxy(peer) else 1))

    def token(self, request: Request, *, arrives: bool) -> None:
        """The same for the request's token, if it has one. Raises: Refused, 429."""
        if request.grant != ANYONE:
            rate = (self._handshakes if arrives else self._requests).times(_TOKEN)
            name = f"token {request.grant.name}"
            self._take(name, name, 1.0 if arrives else weight(request.path), rate)

    def test(self, request: Request, message: str) -> None:
        """Whether a test message may go to everybody now. Raises: Refused: 413 for one that is too long, 429."""
        size = len(message.encode())
        if size > self._test_bytes:
            told = f"a test message of {size} bytes; {self._test_bytes} at most (limits.test_bytes)"
            raise Refused(413, ErrorCode.TOO_LARGE, told)
        anyone = request.grant == ANYONE
        name = subscriber(request.peer) if anyone else f"token {request.grant.name}"
        self._take(name, request.peer if anyone else name, 1.0, self._tests)
        self._take("*", "everybody together", 1.0, self._tests.times(_TOKEN))

    def _take(self, name: str, shown: str, cost: float, rate: Rate) -> None:
        # Plain requests share a bucket with the connections that they come by.
        bucket = name if rate.key == "requests" else f"{rate.key} {name}"
        if wait_s := self._buckets.take(bucket, cost, rate, trio.current_time()):
            raise rate.refusal(shown, wait_s)

    def _is_loopback(self, peer: str) -> bool:
        return ipaddress.ip_address(peer).is_loopback

    def _is_proxy(self, peer: str) -> bool:
        return any(ipaddress.ip_address(peer) in network for network in self._proxies)
