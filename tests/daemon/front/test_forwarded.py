"""How the client addressed us, by the word of trusted proxies: in their own headers, or in RFC 7239's."""

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.front.forwarded import as_sent
from daemon.front.request import Request
from tests.daemon.front.test_admitted import open_door

PROXIES = tuple(map(ipaddress.ip_network, ("127.0.0.1", "::1", "10.0.0.0/8")))
SAID = (("x-forwarded-host", "ticker.example"), ("x-forwarded-proto", "https"), ("x-forwarded-prefix", "/feed"))
STANDARD = (("forwarded", 'for="[2001:db8::7]:4711";proto=https;host="ticker.example:8443";by=10.0.0.1'),)


def request(*headers: tuple[str, str], peer: str = "127.0.0.1") -> Request:
    return Request(method="GET", path="/", headers=(("host", "backend:8000"), *headers), peer=peer)


@pytest.mark.parametrize("headers", [SAID, STANDARD])
@pytest.mark.parametrize("peer", ["203.0.113.1", "2001:db8::1"])
def test_nobody_but_a_trusted_proxy_is_believed(headers: tuple[tuple[str, str], ...], peer: str) -> None:
    sent = request(*headers, peer=peer)
    assert as_sent(sent, PROXIES) is sent
    sent = request(*headers)
    assert as_sent(sent, ()) is sent


@pytest.mark.parametrize(
    ("hops", "said", "host"),
    [
        ("203.0.113.9", "ticker.example", "ticker.example"),
        ("203.0.113.9", "ticker.example:8443", "ticker.example:8443"),
        ("203.0.113.9", "[2001:db8::5]:80", "[2001:db8::5]:80"),
        # A proxy appends; what stands before is the client's invention.
        ("203.0.113.9", "evil.example, ticker.example", "ticker.example"),
        # The nearer one of two was addressed by the other.
        ("203.0.113.9, 10.1.1.1", "ticker.example, inner.example", "ticker.example"),
        ("203.0.113.9, 10.1.1.1", "evil.example, ticker.example, inner.example", "ticker.example"),
        ("203.0.113.9, 10.1.1.1", "ticker.example", "ticker.example"),
        ("", "ticker.example", "ticker.example"),
        ("203.0.113.9", "", "backend:8000"),
        ("203.0.113.9", "a b", "backend:8000"),
        ("203.0.113.9", "evil.example/path", "backend:8000"),
        ("203.0.113.9", "u@ticker.example", "backend:8000"),
    ],
)
def test_the_host_is_what_the_first_trusted_proxy_was_addressed_by(hops: str, said: str, host: str) -> None:
    seen = as_sent(request(("x-forwarded-for", hops), ("x-forwarded-host", said)), PROXIES)
    assert seen.values("host") == [host]


@pytest.mark.parametrize(
    ("said", "prefix"),
    [
        ("/feed", "/feed"),
        ("/feed/", "/feed"),
        ("/a, /b", "/a/b"),
        ("/", ""),
        ("feed", ""),
        ("//evil.example", ""),
        ("https://evil.example/", ""),
        ("/a\\b", ""),
        ("/<script>", ""),
    ],
)
def test_a_prefix_is_a_path(said: str, prefix: str) -> None:
    assert as_sent(request(("x-forwarded-prefix", said)), PROXIES).prefix == prefix


@pytest.mark.parametrize(
    ("said", "client", "host", "secure"),
    [
        ("for=203.0.113.9;host=ticker.example;proto=https", "203.0.113.9", "ticker.example", True),
        ('For="[2001:db8::7]:4711" ; Proto=HTTPS', "2001:db8::7", "backend:8000", True),
        ("for=203.0.113.9:80;by=10.0.0.1", "203.0.113.9", "backend:8000", False),
        # The client's own, a trusted proxy's behind it.
        (
            "for=6.6.6.6;host=evil.example;proto=https, for=203.0.113.9;host=t.example",
            "203.0.113.9",
            "t.example",
            False,
        ),
        ('for="6.6.6.6, for=203.0.113.9;host=t.example', "203.0.113.9", "t.example", False),
        ('for="[::1]", for="[2001:db8::7]"', "2001:db8::7", "backend:8000", False),
        (
            "for=203.0.113.9;host=t.example;proto=https, for=10.1.1.1;host=inner.example;proto=http",
            "203.0.113.9",
            "t.example",
            True,
        ),
        ('host="t.\\example";for="203.0.113.9"', "203.0.113.9", "t.example", False),
    ],
)
def test_the_standard_header_says_the_same(said: str, client: str, host: str, secure: bool) -> None:
    seen = as_sent(request(("forwarded", said)), PROXIES)
    assert (seen.peer, seen.values("host"), seen.secure, seen.vouched) == (client, [host], secure, True)


@pytest.mark.parametrize(
    "said", ["for=unknown", "for=_hidden", 'for="_x:1"', "proto=https", "", "nonsense", "for=1.2.3.4 5.6.7.8", "for="]
)
def test_where_it_says_no_address_the_proxy_stands_for_the_client(said: str) -> None:
    seen = as_sent(request(("forwarded", said)), PROXIES)
    assert (seen.peer, seen.vouched) == ("127.0.0.1", False)


def test_what_a_proxy_passes_on_unread_does_not_count_beside_what_it_keeps_in_order() -> None:
    sent = request(("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=127.0.0.1;host=evil.example;proto=https"))
    seen = as_sent(sent, PROXIES)
    assert (seen.peer, seen.values("host"), seen.secure) == ("203.0.113.9", ["backend:8000"], False)


@given(st.text(max_size=60))
def test_any_text_is_taken_for_something_or_nothing(said: str) -> None:
    names = ("forwarded", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-port", "x-forwarded-proto")
    for name in names:
        seen = as_sent(request((name, said)), PROXIES)
        assert len(seen.values("host")) == 1


# Through the door.

TRUSTING = """
[server]
trusted_proxies = ["127.0.0.1"]
names = ["ticker.example"]
origins = ["https://else.example"]
"""
HERE = "X-Forwarded-For: 127.0.0.1"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((HERE, "X-Forwarded-Host: ticker.example"), 200),
        ((HERE, "X-Forwarded-Host: ticker.example", "X-Forwarded-Proto: https", "Origin: https://ticker.example"), 200),
        (
            (
                HERE,
                "X-Forwarded-Host: ticker.example:8443",
                "X-Forwarded-Proto: https",
                "Origin: https://ticker.example:8443",
            ),
            200,
        ),
        (
            (
                HERE,
                "X-Forwarded-Host: ticker.example",
                "X-Forwarded-Port: 8443",
                "X-Forwarded-Proto: https",
                "Origin: https://ticker.example:8443",
            ),
            200,
        ),
        (
            (
                HERE,
                "X-Forwarded-Host: ticker.example",
                "X-Forwarded-Port: 8443",
                "X-Forwarded-Proto: https",
                "Origin: https://ticker.example",
            ),
            200,
        ),
        (("Forwarded: for=127.0.0.1;host=ticker.example;proto=https", "Origin: https://ticker.example"), 200),
        # DNS rebinding by way of the proxy: neither the page's name nor a forged one helps.
        ((HERE, "X-Forwarded-Host: evil.example", "Origin: http://evil.example"), 403),
        ((HERE, "X-Forwarded-Host: ticker.example", "Origin: http://evil.example"), 403),
        ((HERE, "X-Forwarded-Host: evil.example"), 403),
        (("Forwarded: for=127.0.0.1;host=evil.example",), 403),
        ((HERE, "X-Forwarded-Host: ticker.example", "X-Forwarded-Port: 9", "Origin: http://ticker.example:8"), 403),
    ],
)
async def test_who_acts_is_judged_by_the_host_that_the_client_wrote(headers: tuple[str, ...], status: int) -> None:
    async with open_door(TRUSTING) as door:
        sent = ("POST /ws/test HTTP/1.1", "Host: backend.internal:8000", "Content-Type: application/json", *headers)
        body = b'{"message":"hello"}'
        lines = "\r\n".join([*sent, "Connection: close", f"Content-Length: {len(body)}", "", ""])
        answer = await door.raw(lines.encode() + body)
        assert int(answer.split()[1]) == status, answer


async def test_an_untrusted_peers_host_header_is_not_replaced() -> None:
    async with open_door("") as door:
        forged = ("X-Forwarded-Host: evil.example", "X-Forwarded-Prefix: /feed", "Forwarded: host=evil.example")
        document = json.loads((await door.ask("/asyncapi.json", *forged)).body)
        assert {server["host"] for server in document["servers"].values()} == {"localhost"}
        assert not any("pathname" in server for server in document["servers"].values())


async def test_the_description_has_the_address_that_the_client_used() -> None:
    async with open_door(TRUSTING) as door:
        said = ("X-Forwarded-Host: ticker.example", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /feed")
        servers = json.loads((await door.ask("/asyncapi.json", *said)).body)["servers"]
        assert {(each["host"], each["protocol"], each["pathname"]) for each in servers.values()} == {
            ("ticker.example", "wss", "/feed"),
            ("ticker.example", "https", "/feed"),
        }
