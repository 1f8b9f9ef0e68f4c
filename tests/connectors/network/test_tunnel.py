"""The way through real proxies on loopback, and the sentence for each way in which it leads nowhere."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from connectors.base import (
    ConnectorError,
    ProxyRefused,
    ProxyUnavailable,
    VenueClosed,
    VenueRefused,
    VenueTimeout,
    VenueUnavailable,
)
from connectors.network.proxy import parse_proxy
from connectors.network.trust import client_context
from connectors.network.tunnel import Tunnel, tunnel_through
from tests.connectors.network.proxies import Answer, ProxyServer, hangs_up, running, says, says_nothing
from tests.daemon.serving import certificate

SECRET = "hush-hush"
LONG_S = 20.0


async def echo(stream: trio.abc.Stream) -> None:
    while data := await stream.receive_some(65_536):
        await stream.send_all(data)


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """A port that sends back what it is sent."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def answers(tunnel: Tunnel, host: str, port: int, context: ssl.SSLContext | None = None) -> bool:
    """Whether the other end is there."""
    stream = await tunnel.dial(host, port, ssl_context=context, timeout_s=LONG_S)
    await stream.send_all(b"hello")
    said = b""
    while len(said) < 5:
        said += await stream.receive_some(5)
    await trio.aclose_forcefully(stream)
    return said == b"hello"


def through(url: str) -> Tunnel:
    return Tunnel(parse_proxy(url))


@pytest.mark.parametrize("login", ["", f"us%40er:{SECRET}%3A%20x@"])
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
@pytest.mark.parametrize("host", ["venue.invalid", "10.255.0.1"])
async def test_a_tunnel_leads_to_the_venue_and_the_proxy_looks_names_up(scheme: str, login: str, host: str) -> None:
    async with listening() as target:
        proxy = ProxyServer(target, user="us@er" if login else "", password=f"{SECRET}: x")
        async with running(proxy, socks=scheme != "http") as where:
            assert await answers(through(f"{scheme}://{login}{where}"), host, 443)
            assert proxy.asked == [(host, 443)]


async def test_a_request_names_the_venue_and_what_it_need_not_say_it_does_not() -> None:
    async with listening() as target:
        proxy = ProxyServer(target)
        async with running(proxy) as where:
            assert await answers(through(f"http://{where}"), "fd00::7", 8443)
            assert await answers(through(f"http://{where}"), "b\u00fccher.invalid", 443)
    assert proxy.heads == [
        f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
        for authority in ("[fd00::7]:8443", "xn--bcher-kva.invalid:443")
    ]


async def test_with_socks5_names_are_looked_up_here() -> None:
    async with listening() as target:
        proxy = ProxyServer(target)
        async with running(proxy, socks=True) as where:
            assert await answers(through(f"socks5://{where}"), "localhost", 443)
            assert proxy.asked == [("127.0.0.1", 443)]


async def test_and_where_they_are_unknown_here_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with running(ProxyServer(1), socks=True) as where:
        tunnel = through(f"socks5://{where}")
        monkeypatch.setattr(trio.socket, "getaddrinfo", unknown)
        monkeypatch.setattr(trio, "open_tcp_stream", straight)
        with pytest.raises(VenueUnavailable) as raised:
            await tunnel.dial("venue.invalid", 443, ssl_context=None, timeout_s=LONG_S)
    assert str(raised.value) == (
        "venue.invalid cannot be found: Name or service not known; "
        f"with socks5h:// the proxy socks5://{where} looks it up"
    )


async def straight(host: str, port: int, **_: object) -> trio.SocketStream:
    """`open_tcp_stream`, without the lookup."""
    sock = trio.socket.socket()
    await sock.connect((host, port))
    return trio.SocketStream(sock)


HTTP_FAULTS: list[tuple[Answer, type[ConnectorError], str]] = [
    (hangs_up, ProxyUnavailable, "the proxy {} hung up before it answered"),
    (says(b"SSH-2.0-OpenSSH_9.2\r\n"), ProxyUnavailable, "the proxy {} does not speak HTTP"),
    (says(b"\x05\xff"), ProxyUnavailable, "the proxy {} does not speak HTTP"),
    (says(b"HTTP/1.1 200 OK\r\n" + b"a" * 70_000), ProxyUnavailable, "the proxy {} sent more than 65536 bytes"),
    (says(b"HTTP/1.1 200 OK\r\n\r\nhello"), ProxyUnavailable, "the proxy {} sent something behind its answer"),
    (says(b"HTTP/1.1 403 Forbidden\r\n\r\n"), ProxyRefused, "the proxy {} does not let us through to "
     "venue.invalid:443: HTTP 403 Forbidden"),
    (says(b"HTTP/1.0 405 No\r\n\r\n"), ProxyRefused, "does not let us through to venue.invalid:443: HTTP 405"),
    (says(b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>"), ProxyUnavailable, "the proxy {} did not get through to "
     "venue.invalid:443: HTTP 502 Bad Gateway"),
    (says(b"HTTP/1.1 504\r\n\r\n"), ProxyUnavailable, "did not get through to venue.invalid:443: HTTP 504"),
    (says(b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n"), ProxyUnavailable, "did not get through to "
     "venue.invalid:443: HTTP 302 Found"),
    (says(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"), ProxyRefused, "the proxy {} "
     "wants a user and a password: HTTP 407 Who"),
    (says(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n"), ProxyRefused,
     "the proxy {} wants us to log in by Negotiate, NTLM, of which we can only Basic: HTTP 407 Who"),
]  # fmt: skip

SOCKS_FAULTS: list[tuple[Answer, type[ConnectorError], str]] = [
    (hangs_up, ProxyUnavailable, "the proxy {} hung up before it answered"),
    (says(b"\x05\x00"), ProxyUnavailable, "the proxy {} hung up before it answered"),
    (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ProxyUnavailable, "the proxy {} does not speak SOCKS5 as it should"),
    (says(b"\x05\xff"), ProxyRefused, "the proxy {} wants a user and a password"),
    (says(b"\x05\x01"), ProxyUnavailable, "the proxy {} does not speak SOCKS5 as it should"),
    (says(b"\x05\x00", b"\x05\x00\x00\x09\x00\x00"), ProxyUnavailable, "the proxy {} does not speak SOCKS5"),
    *(
        (says(b"\x05\x00", bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])), ProxyUnavailable,
         f"the proxy {{}} did not get through to venue.invalid:443: {words}")
        for code, words in [(1, "General SOCKS server failure"), (3, "Network unreachable"), (4, "Host unreachable"),
                            (5, "Connection refused by destination host"), (6, "TTL expired"),
                            (7, "Command not supported"), (8, "Address type not supported")]
    ),
    (says(b"\x05\x00", b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"), ProxyRefused,
     "the proxy {} does not let us through to venue.invalid:443: Connection not allowed by ruleset"),
    (says(b"\x05\x00", b"\x05\x2a\x00\x01\x00\x00\x00\x00\x00\x00"), ProxyUnavailable, "does not speak SOCKS5 as"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("scheme", "fault", "kind", "words"),
    [("http", *fault) for fault in HTTP_FAULTS] + [("socks5h", *fault) for fault in SOCKS_FAULTS],
)
async def test_what_a_proxy_does_wrong_is_told_of_the_proxy(
    scheme: str, fault: Answer, kind: type[ConnectorError], words: str
) -> None:
    async with running(ProxyServer(1, fault=fault), socks=scheme != "http") as where:
        with pytest.raises(ConnectorError) as raised:
            await through(f"{scheme}://{where}").dial("venue.invalid", 443, ssl_context=None, timeout_s=LONG_S)
    assert type(raised.value) is kind
    assert words.format(f"{scheme}://{where}") in str(raised.value)
    assert raised.value.cause == "proxy"


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_wrong_password_is_told_and_not_shown(scheme: str) -> None:
    async with running(ProxyServer(1, user="user", password="right"), socks=scheme != "http") as where:
        for login, words in (
            (f"user:{SECRET}@", "does not accept our user and password"),
            ("", "wants a user and a pass"),
        ):
            with pytest.raises(ProxyRefused, match=f"^the proxy {scheme}://{where} {words}") as raised:
                await through(f"{scheme}://{login}{where}").dial("v.invalid", 443, ssl_context=None, timeout_s=LONG_S)
            assert SECRET not in repr(raised.value)
            assert isinstance(raised.value, VenueRefused)


async def test_the_wrong_status_for_a_wrong_password_is_understood() -> None:
    fault = says(b"HTTP/1.0 401 Unauthorized\r\nServer: tinyproxy/1.11.1\r\n\r\n")
    async with running(ProxyServer(1, fault=fault)) as where:
        with pytest.raises(ProxyRefused, match="does not accept our user and password: HTTP 401"):
            await through(f"http://user:{SECRET}@{where}").dial("v.invalid", 443, ssl_context=None, timeout_s=LONG_S)


async def test_a_proxy_that_asks_for_a_pause_is_granted_it() -> None:
    busy = says(b"HTTP/1.1 503 Busy\r\nRetry-After: 17\r\n\r\n")
    async with running(ProxyServer(1, fault=busy)) as where:
        with pytest.raises(ProxyUnavailable) as raised:
            await through(f"http://{where}").dial("venue.invalid", 443, ssl_context=None, timeout_s=LONG_S)
    assert raised.value.retry_after_s == 17


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
async def test_one_that_is_not_there_and_one_that_says_nothing(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"{scheme}://127.0.0.1:{port}"
    with pytest.raises(ProxyUnavailable, match=f"^the proxy {url} cannot be reached: Connection refused$"):
        await through(url).dial("127.0.0.2", 443, ssl_context=None, timeout_s=LONG_S)
    async with running(ProxyServer(1, fault=says_nothing), socks=scheme != "http") as where:
        with pytest.raises(
            ProxyUnavailable, match=rf"^the proxy {scheme}://{where} did not open a way to .* within 0\.2 s$"
        ):
            await through(f"{scheme}://{where}").dial("127.0.0.2", 443, ssl_context=None, timeout_s=0.2)


async def test_a_proxy_whose_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> trio.SocketStream:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio, "open_tcp_stream", unknown)
    for scheme in ("http", "https", "socks5h"):
        with pytest.raises(ProxyUnavailable, match=r"cannot be reached: Name or service not known$"):
            await through(f"{scheme}://proxy.invalid:1").dial("v.invalid", 443, ssl_context=None, timeout_s=LONG_S)


async def test_tls_with_the_proxy_and_with_the_venue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, key = certificate(tmp_path)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(pem, key)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, venue, 0, ours, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        proxy = ProxyServer(listener.transport_listener.socket.getsockname()[1])
        async with running(proxy, tls=ours) as where:
            with pytest.raises(
                ProxyUnavailable, match=f"TLS handshake with the proxy https://{where} failed: self.signed"
            ):
                await through(f"https://{where}").dial("localhost", 443, ssl_context=None, timeout_s=LONG_S)
            plain = through(f"http://{where}")
            with pytest.raises(ProxyUnavailable, match=r"hung up|does not speak HTTP"):
                await plain.dial("localhost", 443, ssl_context=None, timeout_s=LONG_S)
            monkeypatch.setenv("SSL_CERT_FILE", str(pem))
            assert await answers(through(f"https://{where}"), "localhost", 443, client_context())
            assert proxy.asked == [("localhost", 443)]
            with pytest.raises(VenueUnavailable) as raised:
                await through(f"https://{where}").dial(
                    "localhost", 443, ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), timeout_s=LONG_S
                )
            assert str(raised.value).startswith(
                f"the TLS handshake with localhost through the proxy https://{where} failed: self"
            )
            assert str(raised.value).endswith("; SSL_CERT_FILE names further authorities")
        nursery.cancel_scope.cancel()


async def venue(stream: trio.abc.Stream) -> None:
    try:
        await echo(stream)
    except trio.BrokenResourceError:
        # Whoever does not trust us hangs up in the middle of the handshake.
        await trio.aclose_forcefully(stream)


async def test_a_tunnel_whose_other_end_says_nothing_is_told_of_both() -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, says_nothing, 0, host="127.0.0.1"))
        async with running(ProxyServer(listener.socket.getsockname()[1])) as where:
            words = f"^no TLS handshake with venue.invalid through the proxy http://{where} in time$"
            with pytest.raises(VenueTimeout, match=words):
                await through(f"http://{where}").dial("venue.invalid", 443, ssl_context=client_context(), timeout_s=3)
        nursery.cancel_scope.cancel()


async def test_cancelled_it_leaves_no_connection_behind() -> None:
    for scheme in ("http", "socks5h"):
        came, gone = trio.Event(), trio.Event()

        async def waits(stream: trio.abc.Stream, came: trio.Event = came, gone: trio.Event = gone) -> None:
            await stream.receive_some(1)
            came.set()
            await says_nothing(stream)
            gone.set()

        async with (
            running(ProxyServer(1, fault=waits), socks=scheme != "http") as where,
            trio.open_nursery() as nursery,
        ):
            dial = partial(through(f"{scheme}://{where}").dial, ssl_context=None, timeout_s=LONG_S)
            nursery.start_soon(dial, "v.invalid", 443)
            with trio.fail_after(LONG_S):
                await came.wait()
                nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(LONG_S):
                await gone.wait()


def test_what_the_setting_means() -> None:
    assert tunnel_through("") is None
    assert tunnel_through("environment") is None
    tunnel = tunnel_through("http://p:1")
    assert tunnel is not None
    assert str(tunnel.proxy) == "http://p:1"


def test_a_failure_of_an_open_connection_names_the_proxy_too() -> None:
    tunnel = through("http://user:hush@p:1")
    closed = tunnel.told(VenueClosed("OKX dropped the connection", retry_after_s=3.0))
    assert (type(closed), str(closed)) == (VenueClosed, "OKX dropped the connection (through the proxy http://p:1)")
    assert closed.retry_after_s == 3.0
    assert str(tunnel.told(closed)) == str(closed)
    for other in (VenueRefused("no"), ProxyUnavailable("x"), VenueUnavailable("y")):
        assert tunnel.told(other) is other
