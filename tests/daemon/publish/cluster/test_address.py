"""Each form of the engine's URL, and what is said to one that is none: never a password that it holds."""

import pytest

from daemon.publish.cluster.address import Address, AddressError, parse


@pytest.mark.parametrize(
    ("url", "address", "words"),
    [
        ("redis://127.0.0.1:7000", Address("single", (("127.0.0.1", 7000),)), "127.0.0.1:7000"),
        ("valkey://cache", Address("single", (("cache", 6379),)), "cache:6379"),
        ("rediss://cache/3", Address("single", (("cache", 6379),), tls=True, database=3), "cache:6379 by TLS"),
        ("valkeys://[::1]:1", Address("single", (("::1", 1),), tls=True), "[::1]:1 by TLS"),
        ("redis://me@cache", Address("single", (("cache", 6379),), user="me"), "cache:6379"),
        (
            "redis+sentinel://a,b:1/market/2",
            Address("sentinel", (("a", 26379), ("b", 1)), service="market", database=2),
            "a:26379, b:1 (service market, by Sentinel)",
        ),
        (
            "rediss+cluster://a:1,b",
            Address("cluster", (("a", 1), ("b", 6379)), tls=True),
            "a:1, b:6379 (a cluster) by TLS",
        ),
    ],
)
def test_a_url_is_where_the_engine_is(url: str, address: Address, words: str) -> None:
    assert parse(url) == address
    assert parse(url).words == words


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://cache", "redis://HOST:PORT/DB"),
        ("cache:6379", "redis://HOST:PORT/DB"),
        ("redis://", "redis://HOST:PORT/DB"),
        ("redis://cache:0", "a port from 1 to 65535"),
        ("redis://cache:99999", "a port from 1 to 65535"),
        ("redis://a,b", "one host; several are for"),
        ("redis://cache/x", "at most the number of a database"),
        ("redis://cache/1/2", "at most the number of a database"),
        ("redis+sentinel://a", "the name of the service"),
        ("redis+cluster://a/1", "a cluster has only one"),
        ("redis://:hunter2@cache", "no password in it; put it into the credential cluster_password"),
        ("redis://me:hunter2@cache", "no password in it; put it into the credential cluster_password"),
        ("redis://@cache", "a user's name before the @"),
    ],
)
def test_what_is_none_is_told_what_is_allowed(url: str, allowed: str) -> None:
    with pytest.raises(AddressError, match=allowed) as refused:
        parse(url)
    assert "hunter2" not in str(refused.value)
