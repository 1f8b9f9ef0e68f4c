"""Addresses: what a websocket's URL names, and what is none."""

import pytest

from connectors.push.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "address", "header"),
    [
        ("wss://ws.okx.com/ws/v5/public", Address("ws.okx.com", 443, True, "/ws/v5/public"), "ws.okx.com"),
        ("ws://localhost:8080", Address("localhost", 8080, False, "/"), "localhost:8080"),
        ("ws://[::1]:80/a?b=c", Address("::1", 80, False, "/a?b=c"), "[::1]"),
        ("wss://[::1]:80/", Address("::1", 80, True, "/"), "[::1]:80"),
        ("ws://127.0.0.1:0/", Address("127.0.0.1", 0, False, "/"), "127.0.0.1:0"),
    ],
)
def test_a_url_is_taken_apart(url: str, address: Address, header: str) -> None:
    assert parse_address(url) == address
    assert address.host_header == header


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://ws.okx.com/", "must begin with ws:// or wss://"),
        ("ws.okx.com", "must begin with ws:// or wss://"),
        ("wss:///public", "names no host"),
        ("wss://host:port/", "port"),
        ("wss://host:70000/", "ort"),
        (f"wss://{'x' * 64}.com/", "label"),
        ("wss://host/a b", "percent-encoded"),
        ("wss://host/\u00e4", "percent-encoded"),
    ],
)
def test_what_is_no_websocket_url_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_address(url)
