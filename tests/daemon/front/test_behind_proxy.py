"""Clients that come through a reverse proxy, over real sockets: whom the limits, the log and the origin test see."""

import logging
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
import trio

from tests.daemon.serving import SOON_S, Gateway, HandMade, handshake, open_gateway, policy

HEAD_END = b"\r\n\r\n"


def trust(gateway: Gateway, *proxies: str, **limits: int) -> None:
    """From now on these are trusted proxies, and these are the limits."""
    changed = msgspec.structs.replace(gateway.door.admission.limits, **limits)
    gateway.door.admission.policy = policy(changed, trusted_proxies=proxies, origins=frozenset())


def forwarded(**headers: str) -> bytes:
    """A handshake as a proxy passes it on."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return handshake().removesuffix(b"\r\n") + lines.encode() + b"\r\n"


async def answered(gateway: Gateway, sent: bytes, clients: AsyncExitStack) -> bytes:
    """The answer's status. The client stays as long as the stack."""
    stream = await gateway.dial()
    await clients.enter_async_context(HandMade(stream))
    await stream.send_all(sent)
    received = b""
    with trio.fail_after(SOON_S):
        while HEAD_END not in received:
            data = bytes(await stream.receive_some(4096))
            assert data, received
            received += data
    return received.split()[1]


async def test_each_client_of_a_trusted_proxy_counts_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, other = forwarded(X_Forwarded_For="203.0.113.1"), forwarded(X_Forwarded_For="6.6.6.6, 203.0.113.2")
    async with open_gateway() as gateway:
        trust(gateway, "127.0.0.1", clients_per_address=2)
        async with AsyncExitStack() as clients:
            assert [await answered(gateway, first, clients) for _ in range(3)] == [b"101", b"101", b"503"]
            assert await answered(gateway, other, clients) == b"101"
            await gateway.wait(lambda: len(gateway.sessions) == 3)
            assert sorted(session.peer for session in gateway.sessions) == ["203.0.113.1"] * 2 + ["203.0.113.2"]
        await gateway.wait(lambda: gateway.door.statistics().clients_open == 0)
        async with AsyncExitStack() as clients:
            assert await answered(gateway, first, clients) == b"101"
    assert "203.0.113.1 refused: 503 full" in caplog.messages
    assert "client 203.0.113.2 connected (tickerd.v1.json)" in caplog.messages
    [refusal] = [record for record in caplog.records if getattr(record, "event", "") == "refusal"]
    fields: dict[str, Any] = refusal.__dict__
    assert (fields["peer"], fields["status"], fields["code"]) == ("203.0.113.1", 503, "full")


async def test_a_header_of_anybody_else_changes_nothing() -> None:
    sent = forwarded(X_Forwarded_For="203.0.113.1")
    async with open_gateway() as gateway, AsyncExitStack() as clients:
        trust(gateway, "10.0.0.0/8", clients_per_address=1)
        assert [await answered(gateway, sent, clients) for _ in range(3)] == [b"101"] * 3
        await gateway.wait(lambda: len(gateway.sessions) == 3)
        assert {session.peer for session in gateway.sessions} == {"127.0.0.1"}


async def test_requests_of_two_clients_on_one_connection_of_the_proxy_are_told_apart() -> None:
    ask = b"GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n"
    async with open_gateway() as gateway, AsyncExitStack() as clients:
        trust(gateway, "127.0.0.1")
        assert await answered(gateway, ask + forwarded(X_Forwarded_For="203.0.113.2"), clients) == b"200"
        await gateway.wait(lambda: len(gateway.sessions) == 1)
        assert [session.peer for session in gateway.sessions] == ["203.0.113.2"]


@pytest.mark.parametrize(
    ("proto", "origin", "trusted", "status"),
    [
        ("https", "https://prices.example", True, b"101"),
        ("http", "https://prices.example", True, b"403"),
        ("http", "http://prices.example", True, b"101"),
        ("https", "http://prices.example", True, b"403"),
        ("https", "https://evil.example", True, b"403"),
        ("https", "https://prices.example", False, b"403"),
    ],
)
async def test_a_page_behind_a_proxy_that_speaks_tls_is_of_our_own_origin(
    proto: str, origin: str, trusted: bool, status: bytes
) -> None:
    sent = forwarded(X_Forwarded_For="203.0.113.1", X_Forwarded_Proto=proto, Origin=origin)
    sent = sent.replace(b"Host: localhost", b"Host: prices.example")
    async with open_gateway() as gateway, AsyncExitStack() as clients:
        trust(gateway, *(["127.0.0.1"] if trusted else []))
        assert await answered(gateway, sent, clients) == status
