"""How many are here, in all and from each address.

The front door counts its connections and its clients by it, each with limits of their own.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SUBSCRIBER_BITS: Final = 64
"""What one subscriber has whole of IPv6 (RFC 6177): counting single addresses would be no limit at all."""


class AddressCounts:
    """A count in all, and one per address.

    Addresses behind which many clients stand, loopback and the given networks, are in the total only. An IPv6 address
    counts as its /64 network.

    Attributes:
        total: how many there are.
        exempt: those networks; changing them counts whoever comes from then on in another way.
    """

    def __init__(self, exempt: tuple[Network, ...] = ()) -> None:
        self.total = 0
        self.exempt = exempt
        self._of: Counter[str] = Counter()

    def of(self, peer: str) -> int:
        """How many are from that IP address; 0 for an exempt one."""
        return self._of[self.counted_as(peer)]

    @contextmanager
    def counting(self, peer: str) -> Iterator[None]:
        """One more, as long as the block lasts."""
        name = self.counted_as(peer)
        self.total += 1
        if name:
            self._of[name] += 1
        try:
            yield
        finally:
            self.total -= 1
            if name:
                self._of[name] -= 1
                # Else every address that ever came would stay here.
                if not self._of[name]:
                    del self._of[name]

    def counted_as(self, peer: str) -> str:
        """The name under which that IP address is counted; "" for an exempt one."""
        address = ipaddress.ip_address(peer)
        if address.is_loopback or any(address in network for network in self.exempt):
            return ""
        return subscriber(peer)


def subscriber(peer: str) -> str:
    """Who an IP address belongs to: one of IPv6 to the whole /64 network."""
    address = ipaddress.ip_address(peer)
    if address.version == 6:
        return str(ipaddress.ip_network((int(address), _SUBSCRIBER_BITS), strict=False))
    return peer
