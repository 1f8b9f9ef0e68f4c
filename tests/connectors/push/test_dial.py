"""The sentence for each way in which no connection comes about."""

import errno
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from connectors.base import VenueTimeout, VenueUnavailable
from connectors.push.address import Address, parse_address
from connectors.push.dial import dial
from tests.daemon.serving import certificate


def here(port: int) -> Address:
    return Address("127.0.0.1", port, False, "/")


async def test_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(VenueUnavailable, match=r"^no connection to 127\.0\.0\.1: Connection refused$") as caught:
        await dial(here(port), ssl_context=None, timeout_s=5)
    assert caught.value.__cause__ is None


async def test_each_distinct_reason_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(host: str, port: int) -> trio.SocketStream:
        refused = [ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused") for _ in range(2)]
        unreachable = OSError(errno.ENETUNREACH, "Network is unreachable")
        raise OSError("all attempts failed") from ExceptionGroup("", [*refused, unreachable])

    monkeypatch.setattr(trio, "open_tcp_stream", fails)
    with pytest.raises(VenueUnavailable, match=r": Connection refused, Network is unreachable$"):
        await dial(here(1), ssl_context=None, timeout_s=5)


async def test_a_failure_without_a_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(host: str, port: int) -> trio.SocketStream:
        raise OSError("odd")

    monkeypatch.setattr(trio, "open_tcp_stream", fails)
    with pytest.raises(VenueUnavailable, match=r"^no connection to 127\.0\.0\.1: odd$"):
        await dial(here(1), ssl_context=None, timeout_s=5)


async def test_an_unknown_host() -> None:
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: object, **__: object) -> list[object]:  # type: ignore[override] # always raises
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *_: object) -> tuple[str, str]:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(Resolver())
    address = parse_address("wss://nowhere.invalid/")
    with pytest.raises(
        VenueUnavailable, match=r"^nowhere\.invalid cannot be found: Name or service not known$"
    ) as raised:
        await dial(address, ssl_context=ssl.create_default_context(), timeout_s=5)
    assert raised.value.unreached == "name resolution fails"


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ([errno.ENETUNREACH, errno.EHOSTUNREACH], "there is no route to them"),
        ([errno.ENETUNREACH, errno.ETIMEDOUT], "connections are not answered"),
        ([errno.ENETUNREACH, errno.ECONNREFUSED], ""),
        ([errno.EACCES], ""),
    ],
)
async def test_whether_anybody_was_reached(numbers: list[int], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> trio.SocketStream:
        raise OSError("all attempts failed") from ExceptionGroup("", [OSError(each, "x") for each in numbers])

    monkeypatch.setattr(trio, "open_tcp_stream", fails)
    with pytest.raises(VenueUnavailable) as raised:
        await dial(here(1), ssl_context=None, timeout_s=5)
    assert raised.value.unreached == why


async def test_a_connection_that_is_never_made_has_reached_nobody(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(*_: object) -> trio.SocketStream:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(trio, "open_tcp_stream", hangs)
    with pytest.raises(VenueTimeout) as raised:
        await dial(here(1), ssl_context=None, timeout_s=5)
    assert raised.value.unreached == "connections are not answered"


async def test_a_server_that_does_not_speak_tls() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        port = listener.socket.getsockname()[1]
        with pytest.raises(VenueUnavailable, match=r"^the TLS handshake with 127\.0\.0\.1 failed: "):
            await dial(here(port), ssl_context=ssl.create_default_context(), timeout_s=5)
        nursery.cancel_scope.cancel()


async def test_a_server_that_hangs_up_and_one_that_says_nothing() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async def say_nothing(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            continue
        quiet_ended.set()

    quiet_ended = trio.Event()
    for handler, why in ((hang_up, "failed: (the connection broke|unexpected eof)"), (say_nothing, r"within 0\.2 s")):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handler, [listener])
            port = listener.socket.getsockname()[1]
            with pytest.raises(VenueUnavailable, match=why):
                await dial(here(port), ssl_context=ssl.create_default_context(), timeout_s=0.2)
            if handler is say_nothing:
                with trio.fail_after(5):
                    await quiet_ended.wait()  # the socket is not left behind
            nursery.cancel_scope.cancel()


async def test_tls_to_a_server_that_is_trusted_and_to_one_that_is_not(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(pem, key)

    async def echo(stream: trio.SSLStream[trio.SocketStream]) -> None:
        # Whoever does not trust us hangs up in the middle of the handshake.
        with suppress(trio.BrokenResourceError):
            await stream.send_all(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, ours, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        plain = listeners[0].transport_listener
        assert isinstance(plain, trio.SocketListener)
        port = plain.socket.getsockname()[1]
        localhost = Address("localhost", port, True, "/")
        trusting = ssl.create_default_context(cafile=str(pem))
        with trio.fail_after(5):
            stream = await dial(localhost, ssl_context=trusting, timeout_s=5)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        await trio.aclose_forcefully(stream)
        with pytest.raises(
            VenueUnavailable, match=r"^the TLS handshake with localhost failed: self.signed certificate"
        ):
            await dial(localhost, ssl_context=ssl.create_default_context(), timeout_s=5)
        nursery.cancel_scope.cancel()
