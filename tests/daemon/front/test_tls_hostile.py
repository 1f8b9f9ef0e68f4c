"""TLS and a peer that is hostile, or only unusual: new keys without end, renegotiation, half-closed connections."""

import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from daemon.front import tls
from daemon.front.tls import TlsStream
from tests.daemon.front.test_tls import Contexts, contexts, pair, talking
from tests.daemon.serving import SOON_S

__all__ = ["contexts"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_all_of_trios_rules_for_a_stream_that_can_be_half_closed(
    contexts: Contexts, version: ssl.TLSVersion
) -> None:
    """With trio's own TLS at the other end, which cannot be half-closed itself."""

    async def two(*, clogged: bool = False) -> tuple[TlsStream, trio.SSLStream[trio.SocketStream]]:
        far, near = pair()
        server = TlsStream(far, contexts[0])
        client = trio.SSLStream(near, contexts[1], server_hostname="localhost")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            nursery.start_soon(client.do_handshake)
        if clogged:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # it does not grow by itself any more
            with trio.move_on_after(0.2):
                await server.send_all(b"x" * 20_000_000)
        return server, client

    async def clogged() -> tuple[TlsStream, trio.SSLStream[trio.SocketStream]]:
        return await two(clogged=True)

    contexts[1].maximum_version = version
    try:
        with trio.fail_after(4 * SOON_S):
            await trio.testing.check_one_way_stream(two, clogged)
            await trio.testing.check_two_way_stream(two, None)
    finally:
        contexts[1].maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED


async def test_who_has_closed_its_own_end_without_a_word_can_still_be_answered(contexts: Contexts) -> None:
    async with talking(contexts) as (server, client):
        await client.send_all(b"question")
        await client.transport_stream.send_eof()
        assert await server.receive_some() == b"question"
        assert await server.receive_some() == b""
        assert await server.receive_some() == b"", "it has not ended less by being asked again"
        await server.send_all(b"answer")
        assert await client.receive_some() == b"answer"


async def test_the_end_is_signed_and_what_the_peer_goes_on_saying_is_heard(contexts: Contexts) -> None:
    async with talking(contexts) as (server, client):
        await client.send_all(b"before")
        assert await server.receive_some(1) == b"b"
        await server.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await server.send_all(b"behind the end")
        assert await client.receive_some() == b""
        await client.send_all(b" and after")
        heard = b""
        while len(heard) < 15:
            heard += await server.receive_some(4)
        assert heard == b"efore and after"


async def to_the_end(client: trio.SSLStream[trio.SocketStream]) -> None:
    while await client.receive_some():
        pass


@pytest.mark.parametrize("forcefully", [False, True])
async def test_closing_signs_the_end_unless_it_is_forced(contexts: Contexts, forcefully: bool) -> None:
    async with talking(contexts) as (server, client):
        await server.send_all(b"all of it")
        with trio.CancelScope() as scope:
            if forcefully:
                scope.cancel()
            await server.aclose()
        assert await client.receive_some() == b"all of it"
        if forcefully:
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        else:
            assert await client.receive_some() == b""


async def test_closing_behind_a_record_that_is_torn_signs_nothing(contexts: Contexts) -> None:
    async with talking(contexts) as (server, client):
        with trio.move_on_after(0.05) as scope:
            await server.send_all(b"x" * 20_000_000)
        assert scope.cancelled_caught
        while True:  # so that the socket takes bytes again; how much of it must be read is up to the kernel
            await client.receive_some(500_000)
            with trio.move_on_after(0.01) as waiting:
                await trio.lowlevel.wait_writable(server.transport_stream.socket)
            if not waiting.cancelled_caught:
                break
        await server.aclose()
        with pytest.raises(trio.BrokenResourceError) as broken:
            await to_the_end(client)
        assert isinstance(broken.value.__cause__, ssl.SSLEOFError), "something was put into the record"


# ---- OpenSSL's own client, which can be told to do what Python's cannot ---------------------------------------------


@asynccontextmanager
async def openssl(
    contexts: Contexts, *options: str
) -> AsyncIterator[tuple[TlsStream, Callable[[bytes], Awaitable[None]]]]:
    """The server's end, and what types a line into `openssl s_client`: K and k announce new keys, R renegotiates."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]
    async with listeners[0], trio.open_nursery() as nursery:
        quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process: trio.Process = await nursery.start(partial(trio.run_process, command, check=False, **quiet))
        assert process.stdin is not None
        with trio.fail_after(SOON_S):
            stream = TlsStream(await listeners[0].accept(), contexts[0])
            await stream.do_handshake()
            yield stream, process.stdin.send_all
        await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize("line", [b"k\n", b"K\n"])
async def test_a_peer_may_announce_new_keys_and_ask_for_ours(contexts: Contexts, line: bytes) -> None:
    async with openssl(contexts) as (stream, say):
        for _ in range(3):
            await say(line)
            await trio.sleep(0.05)  # each line of its own is a command
            await say(b"hello\n")
            assert await stream.receive_some() == b"hello\n"
            await stream.send_all(b"and so to you\n")
        await stream.send_all(b"x" * 40_000)


async def test_new_keys_without_end_are_no_conversation(contexts: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_WORDLESS_BYTES", 100)
    async with openssl(contexts) as (stream, say), trio.open_nursery() as nursery:

        async def announce() -> None:
            while True:
                await say(b"k\n")
                await trio.sleep(0.01)

        nursery.start_soon(announce)
        with pytest.raises(trio.BrokenResourceError, match=r"bytes came without data"):
            await stream.receive_some()
        nursery.cancel_scope.cancel()


async def test_who_renegotiates_is_refused_and_what_that_makes_us_say_is_bounded(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_ANSWERS_BYTES", 20)
    async with openssl(contexts, "-tls1_2") as (stream, say):
        await say(b"hello\n")
        assert await stream.receive_some() == b"hello\n"
        await say(b"R\n")
        with pytest.raises(trio.BrokenResourceError, match=r"3\d bytes wait"):
            await stream.receive_some()
