"""Whom a proxy's word is believed, and how far."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.front.addresses import client_of, plain
from daemon.front.forwarded import as_sent
from daemon.front.request import Request

PROXIES = tuple(map(ipaddress.ip_network, ("127.0.0.1", "::1", "10.0.0.0/8", "2001:db8:1::/48")))
HUGE = "1.2.3.4" + ", 10.0.0.1" * 17


def request(peer: str = "127.0.0.1", *, secure: bool = False, **headers: str | list[str]) -> Request:
    listed = [
        (name.replace("_", "-"), each)
        for name, values in headers.items()
        for each in ([values] if isinstance(values, str) else values)
    ]
    return Request(method="GET", path="/", headers=tuple(listed), peer=peer, secure=secure)


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("203.0.113.9,10.1.2.3 , 10.9.9.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("127.0.0.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("nonsense, 203.0.113.9", "203.0.113.9"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.9.9.9, 10.1.2.3", "10.9.9.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("2001:db8:2::7", "2001:db8:2::7"),
        ("[2001:db8:2::7]", "2001:db8:2::7"),
        ("[2001:DB8:2::7]:443", "2001:db8:2::7"),
        ("2001:db8:2::7, 2001:db8:1::1", "2001:db8:2::7"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, ::ffff:10.1.2.3", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:80", "203.0.113.9"),
    ],
)
def test_the_nearest_address_that_is_no_trusted_proxy_is_the_clients(said: str, client: str) -> None:
    seen = as_sent(request(x_forwarded_for=said), PROXIES)
    assert (seen.peer, seen.vouched) == (client, True)


@pytest.mark.parametrize(
    "said",
    [
        *("", ",", "unknown", "_hidden", "203.0.113", "203.0.113.999", "203.0.113.9:", "203.0.113.9:port", "[::1"),
        *(
            "fe80::1%eth0",
            "[fe80::1%eth0]",
            "[]",
            "203.0.113.9, unknown",
            "203.0.113.9, unknown, 10.1.2.3",
            '"1.2.3.4"',
        ),
        *("1.2.3.4.5", "1:2:3", "for=1.2.3.4", "\u00b2", HUGE, "10.0.0.1, " * 16 + "10.0.0.1"),
    ],
)
def test_where_nobody_can_tell_the_proxy_itself_stands_for_the_client(said: str) -> None:
    seen = as_sent(request(x_forwarded_for=said), PROXIES)
    assert (seen.peer, seen.vouched) == ("127.0.0.1", False)


def test_several_lines_of_the_header_are_one_list() -> None:
    assert as_sent(request(x_forwarded_for=["6.6.6.6", "203.0.113.9", "10.1.2.3"]), PROXIES).peer == "203.0.113.9"


@pytest.mark.parametrize("peer", ["203.0.113.1", "2001:db8:2::1", "11.0.0.1"])
def test_nobody_else_is_believed(peer: str) -> None:
    sent = request(peer, x_forwarded_for="127.0.0.1", x_forwarded_proto="https")
    assert as_sent(sent, PROXIES) is sent


def test_without_a_list_not_even_loopback_is_believed() -> None:
    sent = request("127.0.0.1", x_forwarded_for="203.0.113.9", x_forwarded_proto="https")
    assert as_sent(sent, ()) is sent


@pytest.mark.parametrize(
    ("said", "secure"),
    [("https", True), ("HTTPS", True), ("http", False), ("http, https", True), ("https, http", False), ("wss", True)],
)
@pytest.mark.parametrize("to_us", [False, True])
def test_the_proxy_says_whether_its_client_spoke_tls(said: str, secure: bool, to_us: bool) -> None:
    assert as_sent(request(x_forwarded_proto=said, secure=to_us), PROXIES).secure is secure
    assert as_sent(request(secure=to_us), PROXIES).secure is to_us


ADDRESSES = st.ip_addresses().map(str)


@given(st.lists(ADDRESSES, max_size=4), ADDRESSES.filter(lambda each: client_of([each], ()) == plain(each)))
def test_what_a_client_writes_itself_changes_nothing(invented: list[str], client: str) -> None:
    trusted = any(ipaddress.ip_address(plain(client)) in network for network in PROXIES)
    if not trusted:
        assert client_of([*invented, client, "10.0.0.1"], PROXIES) == plain(client)


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_list_gives_an_address_or_nothing(hops: list[str]) -> None:
    client = client_of(hops, PROXIES)
    assert client is None or plain(client) == client
