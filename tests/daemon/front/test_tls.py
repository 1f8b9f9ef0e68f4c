"""TLS over a real pair of sockets: trio's own stream checks, and a peer that speaks something else or goes."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
import trio
import trio.testing

from daemon.front.tls import RECORD_BYTES, TlsStream
from tests.daemon.serving import SOON_S, certificate

Contexts: TypeAlias = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    pem, key = certificate(tmp_path_factory.mktemp("tls"))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem, key)
    return server, ssl.create_default_context(cafile=str(pem))


def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    return (
        trio.SocketStream(trio.socket.from_stdlib_socket(far)),
        trio.SocketStream(trio.socket.from_stdlib_socket(near)),
    )


@asynccontextmanager
async def talking(contexts: Contexts) -> AsyncIterator[tuple[TlsStream, trio.SSLStream[trio.SocketStream]]]:
    far, near = pair()
    server = TlsStream(far, contexts[0])
    client = trio.SSLStream(near, contexts[1], server_hostname="localhost")
    with trio.fail_after(SOON_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            nursery.start_soon(client.do_handshake)
        yield server, client
    await trio.aclose_forcefully(server)
    await trio.aclose_forcefully(client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_bytes_go_both_ways_and_the_end_is_signed(contexts: Contexts, version: ssl.TLSVersion) -> None:
    contexts[1].maximum_version = version
    try:
        async with talking(contexts) as (server, client):
            await client.send_all(b"hello")
            assert await server.receive_some(2) == b"he"
            assert await server.receive_some() == b"llo"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.send_all, b"x" * 1_000_000)
                received = 0
                while received < 1_000_000:
                    received += len(await client.receive_some())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.send_eof)
                assert await client.receive_some() == b"", "an end without close_notify raises here"
                await client.aclose()
    finally:
        contexts[1].maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED


async def test_records_can_be_made_without_waiting_and_arrive_in_order(contexts: Contexts) -> None:
    async with talking(contexts) as (server, client):
        records = server.encrypt(b"a" * 10) + server.encrypt(b"b" * (RECORD_BYTES + 1))
        assert len(records) < 10 + RECORD_BYTES + 1 + 3 * 64
        await server.transport_stream.send_all(records)
        received = b""
        while len(received) < 11 + RECORD_BYTES:
            received += await client.receive_some()
        assert received == b"a" * 10 + b"b" * (RECORD_BYTES + 1)


async def test_a_send_that_was_cancelled_tears_no_record(contexts: Contexts) -> None:
    async with talking(contexts) as (server, client):
        with trio.move_on_after(0.05) as scope:
            await server.send_all(b"x" * 20_000_000)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send_all, b"!")
            received = bytearray()
            while not received.endswith(b"!"):
                received += await client.receive_some()
        assert received == b"x" * 20_000_000 + b"!"


@pytest.mark.parametrize("ragged", [True, False])
async def test_the_end_of_the_connection_is_the_end_of_the_stream(contexts: Contexts, ragged: bool) -> None:
    async with talking(contexts) as (server, client):
        if ragged:
            await client.transport_stream.send_eof()
        else:
            await client.aclose()
        assert await server.receive_some() == b""


@pytest.mark.parametrize(
    ("sent", "alert"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
        (b"\x16\x03\x01\x00\x05hello" + b"x" * 300, b"\x15"),
    ],
)
async def test_what_is_no_tls_breaks_the_handshake_and_an_alert_is_sent(
    contexts: Contexts, sent: bytes, alert: bytes
) -> None:
    """Where OpenSSL makes an alert (RFC 8446 section 6); it makes none for what it takes for HTTP."""
    far, near = pair()
    server = TlsStream(far, contexts[0])
    with trio.fail_after(SOON_S):
        await near.send_all(sent)
        with pytest.raises(trio.BrokenResourceError, match="handshake"):
            await server.do_handshake()
        await server.aclose()
        try:
            assert (await near.receive_some())[:1] == alert
        except trio.BrokenResourceError:
            assert not alert
    await near.aclose()


async def test_a_peer_that_goes_in_the_handshake_breaks_it(contexts: Contexts) -> None:
    far, near = pair()
    server = TlsStream(far, contexts[0])
    await near.send_all(b"\x16\x03\x01")
    await near.aclose()
    with trio.fail_after(SOON_S), pytest.raises(trio.BrokenResourceError):
        await server.do_handshake()
    await server.aclose()


async def test_garbage_in_the_middle_breaks_the_stream(contexts: Contexts) -> None:
    async with talking(contexts) as (server, client):
        await client.transport_stream.send_all(b"no record at all, by any means")
        with pytest.raises(trio.BrokenResourceError, match="no TLS"):
            await server.receive_some()


async def test_it_is_a_stream_as_trio_understands_it(contexts: Contexts) -> None:
    """Of a stream that was closed; two tasks that use one side; limits that are none."""
    async with talking(contexts) as (server, _):
        with pytest.raises(ValueError, match="at least 1"):
            await server.receive_some(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await server.receive_some()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send_all, b"x" * 20_000_000)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await server.send_all(b"y")
            with pytest.raises(trio.BusyResourceError):
                await server.wait_send_all_might_not_block()
            nursery.cancel_scope.cancel()
        await server.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await server.send_all(b"z")
        with pytest.raises(trio.ClosedResourceError):
            await server.receive_some()
