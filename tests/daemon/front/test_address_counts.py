"""Counting who is here."""

import ipaddress
from contextlib import ExitStack

import pytest

from daemon.front.address_counts import AddressCounts


def test_a_count_lasts_as_long_as_its_block() -> None:
    census = AddressCounts()
    with census.counting("192.0.2.1"), census.counting("192.0.2.1"), census.counting("192.0.2.2"):
        assert (census.total, census.of("192.0.2.1"), census.of("192.0.2.2")) == (3, 2, 1)
    assert (census.total, census.of("192.0.2.1"), census.of("192.0.2.2")) == (0, 0, 0)


def test_a_block_that_fails_is_counted_out() -> None:
    census = AddressCounts()
    with pytest.raises(ZeroDivisionError), census.counting("192.0.2.1"):
        raise ZeroDivisionError
    assert (census.total, census.of("192.0.2.1")) == (0, 0)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "10.1.2.3", "2001:db8:1::7"])
def test_loopback_and_exempt_networks_are_in_the_total_only(peer: str) -> None:
    census = AddressCounts((ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8:1::/48")))
    with census.counting(peer):
        assert (census.total, census.of(peer)) == (1, 0)


def test_an_ipv6_subscriber_counts_once_whatever_address_it_takes() -> None:
    census = AddressCounts()
    with ExitStack() as stack:
        for host in range(5):
            stack.enter_context(census.counting(f"2001:db8:2:3::{host:x}"))
        assert census.of("2001:db8:2:3:ffff::1") == 5
        assert census.of("2001:db8:2:4::1") == 0
        assert census.of("fe80::1%lo") == 0
