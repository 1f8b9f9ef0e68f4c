"""How many are here, in all and from each address.

The front door counts its connections and its clients by it, each with limits of their own.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SUBSCRIBER_BITS: Final = 64
"""What one subscriber has whole of IPv6 (RFC 6177): counting single addresses would be no limit at all."""

NO_LIMIT: Final = 2**31 - 1


class NoRoomError(Exception):
    """One more may not come.

    Attributes:
        of: whether all places are taken, or all of that address.
    """

    def __init__(self, of: Literal["all", "address"]) -> None:
        super().__init__(of)
        self.of = of


class Place:
    """One that is counted, until it leaves."""

    __slots__ = ("_counts", "_name")

    def __init__(self, counts: AddressCounts, name: str) -> None:
        self._counts: AddressCounts | None = counts
        self._name = name

    def leave(self) -> None:
        """It is gone. A second call does nothing."""
        counts, self._counts = self._counts, None
        if counts is not None:
            counts.remove(self._name)


class AddressCounts:
    """A count in all, and one per address.

    Addresses behind which many clients stand, loopback and the given networks, are in the total only. An IPv6 address
    counts as its /64 network.

    Attributes:
        exempt: those networks; changing them counts whoever comes from then on in another way.
    """

    def __init__(self, exempt: tuple[Network, ...] = ()) -> None:
        self.exempt = exempt
        self._total = 0
        self._of: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many there are."""
        return self._total

    @property
    def here(self) -> int:
        """Of these, how many are this process's own."""
        return self._total

    def of(self, peer: str) -> int:
        """How many are from that IP address; 0 for an exempt one."""
        return self._of[self.counted_as(peer)]

    @contextmanager
    def counting(self, peer: str) -> Iterator[None]:
        """One more, as long as the block lasts."""
        name = self.counted_as(peer)
        self.add(name)
        try:
            yield
        finally:
            self.remove(name)

    def take(self, peer: str, most: int, most_of_address: int) -> Place:
        """One more from that IP address, if there is room: it looks and counts in one step.

        Raises:
            NoRoomError: there are `most` already, or `most_of_address` from there.
        """
        name = self.counted_as(peer)
        self.add(name, most, most_of_address)
        return Place(self, name)

    def add(self, name: str, most: int = NO_LIMIT, most_of_address: int = NO_LIMIT) -> None:
        """Count one more under that name (`counted_as`). Raises: NoRoomError, see `take`."""
        if self._total >= most:
            raise NoRoomError("all")
        if name and self._of[name] >= most_of_address:
            raise NoRoomError("address")
        self._total += 1
        if name:
            self._of[name] += 1

    def remove(self, name: str) -> None:
        """Count one less under that name."""
        self._total -= 1
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
