"""Proxies' URLs: what they say, what is refused, and that no password shows."""

import pytest

from connectors.network.proxy import Proxy, parse_proxy, shown_proxy

SECRET = "hush"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.example.net:3128", Proxy("http", "proxy.example.net", 3128)),
        ("http://proxy.example.net:3128/", Proxy("http", "proxy.example.net", 3128)),
        ("proxy.example.net:3128", Proxy("http", "proxy.example.net", 3128)),
        ("HTTP://Proxy.Example.Net", Proxy("http", "proxy.example.net", 80)),
        ("https://proxy", Proxy("https", "proxy", 443)),
        ("socks5://[fd00::1]", Proxy("socks5", "fd00::1", 1080)),
        ("socks5h://10.0.0.1:9", Proxy("socks5h", "10.0.0.1", 9)),
        ("http://us%40er:p%3Aa%20s%2Fs%23@p:1", Proxy("http", "p", 1, "us@er", "p:a s/s#")),
        ("http://user:p@ss@p:1", Proxy("http", "p", 1, "user", "p@ss")),
        ("http://user@p:1", Proxy("http", "p", 1, "user")),
        ("user:pass@p:1", Proxy("http", "p", 1, "user", "pass")),
    ],
)
def test_a_url_is_taken_apart(url: str, proxy: Proxy) -> None:
    assert parse_proxy(url) == proxy


@pytest.mark.parametrize(
    "url",
    [
        "ftp://p:1", "socks4://p:1", "socks://p:1", "http://", "http://:80", "http://p:0", "http://p:70000", "http://p:x",
        "http://p:1/path", "http://p:1?q", "http://p:1#f", "http://p p:1", "http://[fd00::1:1", "http://user:p#ss@p:1",
        "http://:password@p:1", "http://u%3Aser:x@p:1", "http://u%0Ax:x@p", "http://u:%ff@p",
        "socks5://user@p:1", "socks5://us%C3%A9r:x@p:1", f"socks5://u:{'x' * 256}@p:1", "p\u00e9:1", "\n",
    ],
)  # fmt: skip
def test_what_is_no_proxy_is_refused(url: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - urllib has words of its own
        parse_proxy(url)
    assert SECRET not in str(refused.value)


def test_neither_its_text_nor_its_repr_shows_who_we_are() -> None:
    proxy = parse_proxy(f"http://user:{SECRET}@proxy:3128")
    assert str(proxy) == "http://proxy:3128"
    assert f"{proxy!r}" == "Proxy('http://proxy:3128')"
    assert str(parse_proxy("socks5://[fd00::1]")) == "socks5://[fd00::1]:1080"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("socks4://p:1", '"socks4://p:1"'),
        (f"socks4://user:{SECRET}@p:1", '"socks4://***@p:1"'),
        (f"socks4://user:{SECRET}@x@p:1", '"socks4://***@p:1"'),
        (f"user:{SECRET}@p:1", '"***@p:1"'),
        (f"http://user:{SECRET}", "a URL that is not shown"),
        (f"http://p:1/{SECRET}", "a URL that is not shown"),
        (f"http://p:1?key={SECRET}", "a URL that is not shown"),
        (f"http://p:1@{SECRET}/x", "a URL that is not shown"),
    ],
)
def test_one_that_is_refused_is_shown_as_far_as_it_is_no_secret(url: str, shown: str) -> None:
    assert shown_proxy(url) == shown
