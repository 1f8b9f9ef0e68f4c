"""The PROXY protocol: taken from trusted proxies where the operator says so, named wherever else it comes."""

import logging
import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.front.openings import explained
from daemon.front.proxy_protocol import source, take_off, version
from tests.daemon.front.test_admitted import Door, open_door
from tests.daemon.serving import SOON_S, certificate, handshake, open_gateway

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def binary(client: str = "203.0.113.9", *, command: int = 1, more: bytes = b"") -> bytes:
    """A header of version 2."""
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    address = socket.inet_pton(family, client)
    body = address + address + struct.pack("!HH", 4711, 443) + more
    kind = 0x21 if family is socket.AF_INET6 else 0x11
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, kind, len(body)) + body


V1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"
V1_6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"
UNKNOWN = [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"]
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
UNIX = SIGNATURE + b"\x21\x31" + struct.pack("!H", 216) + bytes(216)
HEADERS = [V1, V1_6, *UNKNOWN, binary(), binary("2001:db8::7"), binary(more=bytes(200)), LOCAL, UNIX]
BROKEN = [
    *(b"PROXY TCP4 203.0.113.999 192.0.2.1 1 2\r\n", b"PROXY TCP6 203.0.113.9 192.0.2.1 1 2\r\n", b"PROXY \r\n"),
    *(b"PROXY TCP4 203.0.113.9\r\n", b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", b"PROXY " + b"x" * 200 + b"\r\n"),
    SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
    SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
    SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
    SIGNATURE + b"\x21\x11\xff\xff" + bytes(400),
    SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
]


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (V1, "203.0.113.9"),
        (V1_6, "2001:db8::7"),
        *((each, "") for each in UNKNOWN),
        (binary(), "203.0.113.9"),
        (binary("2001:db8::7"), "2001:db8::7"),
        (binary("::ffff:203.0.113.9"), "203.0.113.9"),
        (binary(more=b"\x03\x00\x04abcd"), "203.0.113.9"),
        (binary(command=0), ""),
        (LOCAL, ""),
        (UNIX, ""),
    ],
)
def test_it_says_who_the_client_is(header: bytes, client: str) -> None:
    assert source(header) == client
    assert version(header) in (1, 2)


async def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return near, await listener.accept()


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("cut", [0, 1, 5, 7, 13, 17])
async def test_nothing_behind_it_is_taken_however_it_comes(header: bytes, cut: int) -> None:
    near, far = await pair()
    async with near, far, trio.open_nursery() as nursery:

        async def send() -> None:
            await near.send_all(header[:cut])
            if cut:
                await trio.sleep(0.02)
            await near.send_all(header[cut:] + GET)

        nursery.start_soon(send)
        with trio.fail_after(SOON_S):
            assert await take_off(far) == source(header)
            received = b""
            while len(received) < len(GET):
                received += await far.receive_some()
        assert received == GET


@pytest.mark.parametrize(
    "sent", [GET, b"POST / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"\r\nGET / HTTP/1.1\r\n", b"\x16\x03\x01"]
)
async def test_what_is_no_header_stays_where_it_is(sent: bytes) -> None:
    near, far = await pair()
    async with near, far:
        await near.send_all(sent)
        with trio.fail_after(SOON_S):
            assert await take_off(far) == ""
            assert await far.receive_some() == sent


@pytest.mark.parametrize("sent", BROKEN)
async def test_one_that_is_not_in_order_ends_the_connection(sent: bytes) -> None:
    near, far = await pair()
    async with near, far:
        await near.send_all(sent)
        with trio.fail_after(SOON_S), pytest.raises(trio.BrokenResourceError, match="not in order"):
            await take_off(far)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_header_or_refused(rest: bytes) -> None:
    for header in (b"PROXY " + rest + b"\r\n", SIGNATURE + b"\x21\x11" + struct.pack("!H", len(rest)) + rest):
        with suppress(trio.BrokenResourceError):
            assert isinstance(source(header), str)


# Through the door.

TRUSTING = '[server]\ntrusted_proxies = ["127.0.0.1"]\nproxy_protocol = true\n'


async def peer_of_a_websocket(door: Door, header: bytes) -> str:
    async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
        await stream.send_all(header + handshake())
        with trio.fail_after(SOON_S):
            received = b""
            while b"welcome" not in received:
                received += await stream.receive_some()
        [session] = door.daemon.serving.sessions
        return session.peer


@pytest.mark.parametrize(
    ("header", "peer"),
    [(V1, "203.0.113.9"), (binary("2001:db8::7"), "2001:db8::7"), (LOCAL, "127.0.0.1"), (b"", "127.0.0.1")],
)
async def test_a_trusted_proxys_header_says_who_the_client_is(header: bytes, peer: str) -> None:
    async with open_door(TRUSTING) as door:
        assert await peer_of_a_websocket(door, header) == peer


async def test_who_comes_from_elsewhere_by_it_may_not_act() -> None:
    body = b'{"message":"x"}'
    sent = (
        b"POST /ws/test HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    async with open_door(TRUSTING) as door:
        for header, status in ((V1, 403), (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", 200), (LOCAL, 200)):
            assert int((await door.raw(header + sent)).split()[1]) == status


@pytest.mark.parametrize("header", [V1, *UNKNOWN, binary(), LOCAL])
@pytest.mark.parametrize(
    "text",
    [
        "",
        '[server]\ntrusted_proxies = ["127.0.0.1"]',
        '[server]\nproxy_protocol = true\ntrusted_proxies = ["10.0.0.1"]',
    ],
)
async def test_from_anybody_else_it_is_refused_by_its_name(
    header: bytes, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_door(text) as door:
        answer = await door.raw(header + GET)
    assert answer.startswith(b"HTTP/1.1 400 ")
    for text in (answer.decode(), caplog.text):
        assert f"a PROXY protocol header (version {version(header)})" in text
        assert "proxy_protocol = true" in text


@pytest.mark.parametrize("header", [V1, binary(), GET])
async def test_before_tls_it_is_named_in_the_log(
    header: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pem, key = certificate(tmp_path)
    context.load_cert_chain(pem, key)
    trusting = ssl.create_default_context(cafile=str(pem))
    async with open_gateway(tls=context, trusting=trusting) as gateway:
        async with await gateway.dial() as stream:
            await stream.send_all(header + GET)
            with trio.fail_after(SOON_S):
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
        await gateway.wait(lambda: "closed without a word" in caplog.text)
    assert explained(header, secure=True)
    assert explained(header, secure=True) in caplog.text


async def test_behind_it_tls_is_spoken(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    trusting = ssl.create_default_context(cafile=str(pem))
    async with open_door(TRUSTING) as door:
        door.daemon.serving.front_door.tls = context
        plain = await trio.open_tcp_stream("127.0.0.1", door.port)
        await plain.send_all(binary())
        async with trio.SSLStream(plain, trusting, server_hostname="localhost", https_compatible=True) as stream:
            await stream.send_all(GET)
            with trio.fail_after(SOON_S):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("first", "secure", "said"),
    [
        (V1, False, "version 1"),
        (binary(), True, "version 2"),
        (b"\x16\x03\x01\x02\x00", False, "https"),
        (b"GET / HTTP/1.1\r\n", True, "https://"),
        (b"GET http://x/ HTT", True, "https://"),
    ],
)
def test_what_is_meant_for_another_port_is_named(first: bytes, secure: bool, said: str) -> None:
    if said == "https":
        assert "TLS handshake" in explained(first, secure=secure)
    else:
        assert said in explained(first, secure=secure)


@pytest.mark.parametrize("first", [b"", b"SSH-2.0-x", b"\0" * 16, b"PROX", b"GET", SIGNATURE[:11]])
def test_the_rest_is_not(first: bytes) -> None:
    assert explained(first, secure=True) == explained(first, secure=False) == ""
