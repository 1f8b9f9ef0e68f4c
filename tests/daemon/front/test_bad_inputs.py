"""Bad inputs, one by one: what each gets, and that the next client is served.

A daemon runs as a process, with its real routes and simulated venues, and is sent bytes over real sockets. Each refusal
has to say what was seen and what is allowed; and when all is over, the daemon has logged no failure of its own.
"""

import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import trio

from tests.daemon.serving import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, HandMade, certificate, client_frame
from tests.process.running import Process, wait_ready

WAIT_S = 10.0
"""Longer than any answer takes; a test that fails by it is red, not slow."""

SLOW_S = 1.5
"""How long the daemon waits for a head or a body."""

MESSAGE_BYTES = 2048

LIMITS = {
    "TICKERD_LIMITS__MESSAGE_BYTES": str(MESSAGE_BYTES),
    "TICKERD_LIMITS__HEAD_BYTES": "2048",
    "TICKERD_LIMITS__BODY_BYTES": "1024",
    "TICKERD_LIMITS__CHANNELS_PER_COMMAND": "8",
    "TICKERD_LIMITS__HANDSHAKE_S": str(SLOW_S),
    "TICKERD_LIMITS__KEEP_ALIVE_S": str(SLOW_S),
    "TICKERD_LIMITS__REQUESTS_PER_S": "100000",
    "TICKERD_LIMITS__REQUESTS_BURST": "100000",
    "TICKERD_SERVER__ORIGINS": '["https://listed.example"]',
    "TICKERD_LOG__FORMAT": "json",
}

HOST = b"Host: localhost\r\n"


@dataclass
class Server:
    """A daemon, and how to speak to it."""

    process: Process
    secure: ssl.SSLContext | None

    async def dial(self) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.process.port)
        if self.secure is None:
            return stream
        return trio.SSLStream(stream, self.secure, server_hostname="localhost", https_compatible=True)

    async def websocket(self, subprotocol: str | None = None) -> HandMade:
        """A client that has had its welcome."""
        stream = await self.dial()
        await stream.send_all(upgrade(subprotocol=subprotocol))
        head, rest = await read_head(stream)
        assert head.startswith(b"HTTP/1.1 101 "), head
        client = HandMade(stream, rest)
        await client.payload()
        return client

    async def serves(self) -> None:
        """The next client is served: over HTTP, and as a websocket."""
        async with await self.dial() as stream:
            assert (await asked(stream, get("/healthz")))[0] == 200
        async with await self.websocket() as client:
            await client.say(type="ping", id="next")
            assert (await client.until("pong"))["id"] == "next"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """One that speaks plain HTTP and one that speaks TLS, with small limits; neither may have failed in the end."""
    pem, key = certificate(tmp_path_factory.mktemp("tls"))
    tls = {"TICKERD_SERVER__CERTIFICATE": str(pem), "TICKERD_SERVER__KEY": str(key)}
    plain = Process("demo", "--port", "0", environ=LIMITS)
    secure = Process("demo", "--port", "0", environ=LIMITS | tls)
    try:
        running = {
            "plain": Server(plain, None),
            "tls": Server(secure, ssl.create_default_context(cafile=str(pem))),
        }
        wait_ready(plain.port)
        assert secure.port
        yield running
        for server in running.values():
            assert server.process.stop() == 0
            lines = [line for line in server.process.lines if line.startswith("{")]
            assert [line for line in lines if json.loads(line)["level"] in ("error", "critical")] == []
            assert not any("Traceback" in line for line in server.process.lines)
    finally:
        plain.end()
        secure.end()


@pytest.fixture
def plain(servers: dict[str, Server]) -> Server:
    return servers["plain"]


@pytest.fixture(params=["plain", "tls"])
def either(servers: dict[str, Server], request: pytest.FixtureRequest) -> Server:
    return servers[str(request.param)]


def get(target: str = "/healthz", *headers: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    lines = [f"{method} {target} {version}", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(body: bytes, *headers: str, target: str = "/ws/test") -> bytes:
    kind = () if any(header.startswith("Content-Type:") for header in headers) else ("Content-Type: application/json",)
    return get(target, f"Content-Length: {len(body)}", *kind, *headers, method="POST") + body


def upgrade(*, subprotocol: str | None = None, without: str = "", more: str = "", **changed: str) -> bytes:
    headers = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    if subprotocol:
        headers["Sec-WebSocket-Protocol"] = subprotocol
    headers.pop(without, None)
    return get(
        "/ws", *(f"{name}: {value}" for name, value in headers.items() if name != "Host"), *([more] if more else [])
    )


async def read_head(stream: trio.abc.Stream) -> tuple[bytes, bytes]:
    """A response's head, and what came behind it."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = bytes(await stream.receive_some(65536))
        assert data, f"the connection ended behind {received!r}"
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


async def asked(stream: trio.abc.Stream, sent: bytes) -> tuple[int, dict[str, Any], bytes]:
    """Status, JSON body and head of the answer."""
    with trio.fail_after(WAIT_S):
        await stream.send_all(sent)
        head, body = await read_head(stream)
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert found is not None, head
        while len(body) < int(found[1]):
            data = bytes(await stream.receive_some(65536))
            assert data, f"the connection ended behind {body!r}"
            body += data
    return int(head.split()[1]), json.loads(body[: int(found[1])]) if body else {}, head


# ---- HTTP -----------------------------------------------------------------------------------------------------------

Http = tuple[bytes, int, str, tuple[str, ...]]
"""What is sent, the status, the error code, and what its text has to name."""

HTTP: dict[str, Http] = {
    "a greeting": (b"hello\r\n\r\n", 400, "bad_request", ("not HTTP/1.1",)),
    "zeros": (bytes(64), 400, "bad_request", ("not HTTP/1.1",)),
    "a TLS client": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request", ("not HTTP/1.1",)),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400, "bad_request", ("not HTTP/1.1",)),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_request", ("2.0", "HTTP/1.1")),
    "HTTP/3.0": (get(version="HTTP/3.0"), 505, "bad_request", ("3.0", "HTTP/1.1")),
    "no Host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "bad_request", ("Host",)),
    "two Hosts": (get("/healthz", "Host: other"), 400, "bad_request", ("Host",)),
    "a header without a colon": (get("/healthz", "nonsense"), 400, "bad_request", ("header",)),
    "a space before the colon": (get("/healthz", "A : b"), 400, "bad_request", ("header",)),
    "a NUL in a header": (get("/healthz", "A: \x00"), 400, "bad_request", ("header",)),
    "a method with a control character": (b"G\x01T / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request", ()),
    "a space in the target": (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request", ()),
    "an unheard-of method": (get("/healthz", method="BREW"), 405, "method_not_allowed", ("BREW", "GET")),
    "a method in lower case": (get("/healthz", method="get"), 405, "method_not_allowed", ("get", "GET")),
    "CONNECT": (get("example.org:443", method="CONNECT"), 404, "not_found", ("example.org",)),
    "a long target": (get("/" + "x" * 3000), 431, "too_large", ("2048",)),
    "a long header": (get("/healthz", "A: " + "x" * 3000), 431, "too_large", ("2048",)),
    "headers without end": (get("/healthz", *["A: b"] * 1000), 431, "too_large", ("2048",)),
    "a length that is no number": (get("/healthz", "Content-Length: ten"), 400, "bad_request", ("Content-Length",)),
    "a negative length": (get("/healthz", "Content-Length: -1"), 400, "bad_request", ("Content-Length",)),
    "two lengths": (get("/", "Content-Length: 1", "Content-Length: 2"), 400, "bad_request", ("Content-Length",)),
    "a huge length": (get("/ws/test", "Content-Length: 99999999999", method="POST"), 413, "too_large", ("1024",)),
    "a length without end": (get("/", "Content-Length: " + "9" * 400), 400, "bad_request", ()),
    "an unknown coding": (get("/ws/test", "Transfer-Encoding: gzip", method="POST"), 501, "bad_request", ()),
    "a chunk of no size": (get("/", "Transfer-Encoding: chunked", method="POST") + b"x\r\n", 400, "bad_request", ()),
    "chunks over the limit": (
        get("/ws/test", "Transfer-Encoding: chunked", method="POST") + b"100\r\n" + b"x" * 256 + b"\r\n" * 1
        + (b"100\r\n" + b"x" * 256 + b"\r\n") * 4,
        413, "too_large", ("1024",),
    ),
    "a body over the limit": (post(b"x" * 1025), 413, "too_large", ("1024",)),
    "33 fields": (get("/snapshot?" + "a=b&" * 33), 400, "bad_request", ("32",)),
    "nothing there": (get("/nothing"), 404, "not_found", ("/nothing",)),
    "out of the folder": (get("/../../etc/passwd"), 404, "not_found", ("/../../etc/passwd",)),
    "out of the folder, encoded": (get("/%2e%2e/%2e%2e/etc/passwd"), 404, "not_found", ("/etc/passwd",)),
    "a NUL in the path": (get("/client.js%00"), 404, "not_found", ()),
    "a path that is not UTF-8": (get("/%ff%fe"), 404, "not_found", ()),
    "a snapshot of nothing": (get("/snapshot/"), 404, "unknown_channel", ("''",)),
    "a snapshot without a name": (get("/snapshot"), 404, "not_found", ("/snapshot", "GET /")),
    "a near miss": (get("/snapshot/bitcoin_price"), 404, "unknown_channel", ("bitcoin_price", "bitcoinprice")),
    "a snapshot of no instrument": (
        get("/snapshot/binance_prices?instrument=BTC/USD"), 404, "unknown_instrument", ("BTC/USD", "BTC/USDT"),
    ),
    "a snapshot of two": (
        get("/snapshot/binance_prices?instrument=BTC/USDT&instrument=ETH/USDT"), 400, "invalid_field", ("2", "one"),
    ),
    "gaps of no time": (get("/gaps?since_ms=yesterday"), 400, "invalid_field", ("yesterday", "from 0")),
    "gaps of two channels": (get("/gaps?channel=a&channel=b"), 400, "invalid_field", ("channel",)),
    "no gaps at all": (get("/gaps?limit=0"), 400, "invalid_field", ("limit", "'0'", "from 1")),
    "a test message that is no JSON": (post(b"hello"), 400, "malformed", ("JSON",)),
    "a test message of the wrong type": (post(b'{"message":1}'), 400, "invalid_field", ("int", "str", "message")),
    "a test message as bytes": (post(b'\xff\xfe{"message":"x"}'), 400, "malformed", ()),
    "a test message of another page": (
        post(b'{"message":"x"}', "Origin: https://evil.example"), 403, "forbidden", ("https://evil.example",),
    ),
    "a test message to another host": (
        post(b'{"message":"x"}').replace(b"localhost", b"evil.example"), 403, "forbidden", ("evil.example", "names"),
    ),
    "a test message as a form": (
        post(b'{"message":"x"}', "Content-Type: text/plain"), 415, "bad_request", ("text/plain", "application/json"),
    ),
    "a test message through a proxy": (
        post(b'{"message":"x"}', "X-Forwarded-For: 127.0.0.1"), 403, "forbidden", ("machine",),
    ),
    "a test message by GET": (get("/ws/test"), 405, "method_not_allowed", ("GET", "POST")),
    "a POST to what is read": (post(b"", target="/channels"), 405, "method_not_allowed", ("POST", "GET")),
    "events of nothing": (get("/events"), 400, "invalid_field", ("channels",)),
    "events of an unknown channel": (get("/events?channels=bitcoinprize"), 404, "unknown_channel", ("bitcoinprice",)),
    "events by POST": (post(b"", target="/events?channels=ethprice"), 405, "method_not_allowed", ("POST", "GET")),
    # The websocket's opening handshake.
    "no upgrade": (get("/ws"), 426, "bad_request", ("/ws", "Upgrade: websocket")),
    "an upgrade to something else": (upgrade(Upgrade="h2c"), 426, "bad_request", ("Upgrade: websocket",)),
    "an upgrade that a proxy has cut": (upgrade(without="Connection"), 400, "bad_request", ("Connection: Upgrade",)),
    "an old version": (upgrade(Sec_WebSocket_Version="8"), 426, "bad_request", ("8", "13")),
    "no version": (upgrade(without="Sec-WebSocket-Version"), 426, "bad_request", ("none", "13")),
    "no key": (upgrade(without="Sec-WebSocket-Key"), 400, "bad_request", ("none", "16 bytes")),
    "a short key": (upgrade(Sec_WebSocket_Key="c2hvcnQ="), 400, "bad_request", ("c2hvcnQ=", "16 bytes")),
    "a key that is not base64": (upgrade(Sec_WebSocket_Key="??"), 400, "bad_request", ("??", "base64")),
    "two keys": (upgrade(more="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, "bad_request", ("16 bytes",)),
    "an unknown subprotocol": (upgrade(subprotocol="graphql-ws"), 400, "bad_request", ("graphql-ws", "tickerd.v1")),
    "another origin": (upgrade(Origin="https://evil.example"), 403, "forbidden", ("https://evil.example",)),
    "two origins": (upgrade(Origin="null", more="Origin: http://localhost"), 403, "forbidden", ("null",)),
    "an upgrade by POST": (upgrade().replace(b"GET", b"POST", 1), 405, "method_not_allowed", ("POST", "GET")),
    "an upgrade by HTTP/1.0": (upgrade().replace(b"HTTP/1.1", b"HTTP/1.0", 1), 400, "bad_request", ("1.0",)),
    "an upgrade with a body": (upgrade(more="Content-Length: 1") + b"x", 400, "bad_request", ("body",)),
}  # fmt: skip


@pytest.mark.parametrize("case", HTTP)
async def test_a_bad_request_is_told_why(case: str, plain: Server) -> None:
    sent, status, code, named = HTTP[case]
    async with await plain.dial() as stream:
        seen, error, _ = await asked(stream, sent)
    assert (seen, error["type"], error["code"]) == (status, "error", code), error
    assert [word for word in named if word not in error["message"]] == [], error["message"]
    await plain.serves()


# ---- commands -------------------------------------------------------------------------------------------------------

Command = tuple[bytes, str, tuple[str, ...]]


def subscribe(**fields: object) -> bytes:
    return json.dumps({"type": "subscribe", "channels": ["ethprice"], **fields}).encode()


COMMANDS: dict[str, Command] = {
    "nothing": (b"", "malformed", ()),
    "no JSON": (b"subscribe", "malformed", ("JSON",)),
    "half of it": (b'{"type":"subscribe"', "malformed", ()),
    "two of them": (b'{"type":"ping"}{"type":"ping"}', "malformed", ()),
    "a list": (b'["subscribe"]', "malformed", ("object",)),
    "a number": (b"1", "malformed", ("object",)),
    "null": (b"null", "malformed", ("object",)),
    "NaN": (b'{"type":"ping","id":NaN}', "malformed", ()),
    "very deep": (b"[" * 1000 + b"]" * 1000, "malformed", ()),
    "no type": (b"{}", "unknown_type", ("type", "subscribe")),
    "a type that is no text": (b'{"type":1}', "unknown_type", ("subscribe",)),
    "an unknown type": (b'{"type":"subscribee","id":5}', "unknown_type", ("subscribee", "subscribe", "ping")),
    "no channels": (b'{"type":"subscribe"}', "invalid_field", ("channels",)),
    "channels that are no list": (subscribe(channels="ethprice"), "invalid_field", ("channels",)),
    "a channel that is no text": (subscribe(channels=[1]), "invalid_field", ("channels",)),
    "a list of no channels": (subscribe(channels=[]), "invalid_field", ("channels", "*")),
    "nine channels": (subscribe(channels=["ethprice"] * 9), "too_many_channels", ("9", "8")),
    "a channel that is misspelt": (subscribe(channels=["etprice"]), "unknown_channel", ("etprice", "ethprice")),
    "a channel of 1 000 letters": (subscribe(channels=["x" * 1000]), "unknown_channel", ("x" * 50,)),
    "an id that is an object": (subscribe(id={}), "invalid_field", ("id",)),
    "an interval that is too short": (subscribe(interval_ms=1), "invalid_field", ("interval_ms: 1;", "50")),
    "an interval that is too long": (subscribe(interval_ms=10**9), "invalid_field", ("1000000000", "3600000")),
    "an interval that is text": (subscribe(interval_ms="100"), "invalid_field", ("interval_ms",)),
    "an interval beyond all bounds": (subscribe(interval_ms=10**30), "invalid_field", ("interval_ms",)),
    "no instruments": (subscribe(instruments=[]), "invalid_field", ("instruments",)),
    "an unknown instrument": (subscribe(instruments=["ETH/USD"]), "unknown_instrument", ("ETH/USD", "ETH/USDT")),
    "a position before the first": (subscribe(since={"epoch": "x", "seq": -1}), "invalid_field", ("-1", "0")),
    "a position that is a number": (subscribe(since=7), "invalid_field", ("since",)),
    "a snapshot that is text": (subscribe(snapshot="yes"), "invalid_field", ("snapshot",)),
    "leaving what is not there": (
        b'{"type":"unsubscribe","channels":["etprice"]}', "unknown_channel", ("etprice", "ethprice"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
async def test_a_bad_command_is_told_why_and_the_session_goes_on(case: str, plain: Server) -> None:
    sent, code, named = COMMANDS[case]
    async with await plain.websocket() as client:
        await client.send(sent)
        error = await client.message()
        assert (error["type"], error["code"]) == ("error", code), error
        assert [word for word in named if word not in error["message"]] == [], error["message"]
        await client.say(type="ping", id="after")
        assert (await client.until("pong"))["id"] == "after"
    await plain.serves()


# ---- frames ---------------------------------------------------------------------------------------------------------

Frames = tuple[bytes, int]
"""What is sent, and the close code."""


def message_of(size: int) -> bytes:
    """A ping command of exactly that many bytes."""
    empty = b'{"type":"ping","data":""}'
    return empty[:-2] + b"x" * (size - len(empty)) + empty[-2:]


FRAMES: dict[str, Frames] = {
    "binary on JSON": (client_frame(BINARY, b"{}"), 1003),
    "not UTF-8": (client_frame(TEXT, b"\xff"), 1007),
    "half a character": (client_frame(TEXT, b"\xe2\x82"), 1007),
    "a surrogate": (client_frame(TEXT, b"\xed\xa0\x80"), 1007),
    "one byte over the limit": (client_frame(TEXT, message_of(MESSAGE_BYTES + 1)), 1009),
    "over the limit in fragments": (
        client_frame(TEXT, b"x" * 1500, fin=False) + client_frame(CONTINUATION, b"x" * 1500), 1009,
    ),
    "announced, over the limit": (struct.pack("!BBQ", 0x81, 0xFF, 2**62) + b"1234" + b"x" * 4096, 1009),
    "a length with its highest bit": (struct.pack("!BBQ", 0x81, 0xFF, 2**63) + b"1234", 1002),
    "a length written too long": (struct.pack("!BBH", 0x81, 0xFE, 5) + b"1234hello", 1002),
    "unmasked": (client_frame(TEXT, b"{}", masked=False), 1002),
    "a reserved bit (compression)": (client_frame(TEXT | 0x40, b"{}"), 1002),
    "a reserved opcode": (client_frame(0x3, b""), 1002),
    "a reserved control opcode": (client_frame(0xB, b""), 1002),
    "a fragmented ping": (client_frame(PING, b"", fin=False), 1002),
    "a ping of 126 bytes": (client_frame(PING, b"x" * 126), 1002),
    "a continuation of nothing": (client_frame(CONTINUATION, b"x"), 1002),
    "a message within a message": (client_frame(TEXT, b"{", fin=False) + client_frame(TEXT, b"{}"), 1002),
    "a close code of one byte": (client_frame(CLOSE, b"\x03"), 1002),
    "a close code that is reserved": (client_frame(CLOSE, struct.pack("!H", 1005)), 1002),
    "a close reason that is not UTF-8": (client_frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
    "a flood of pings": (client_frame(PING, b"") * 101, 1008),
    "a flood of pongs": (client_frame(PONG, b"") * 101, 1008),
    "a flood of empty fragments": (client_frame(TEXT, b"", fin=False) + client_frame(0, b"", fin=False) * 101, 1008),
    "20 bad commands in a row": (client_frame(TEXT, b"x") * 20, 1008),
    "HTTP": (get(), 1002),
}  # fmt: skip


@pytest.mark.parametrize("case", FRAMES)
async def test_a_bad_frame_is_told_by_its_close_code(case: str, either: Server) -> None:
    sent, code = FRAMES[case]
    async with await either.websocket() as client:
        await client.stream.send_all(sent)
        closed = await client.closed()
        assert closed.code == code, closed
        if code == 1008:
            assert re.search(r"\d", closed.reason), closed.reason
        with suppress(trio.BrokenResourceError):
            await client.send(struct.pack("!H", code), CLOSE)
        await client.ended()
    await either.serves()


async def test_a_message_at_the_limit_is_heard(either: Server) -> None:
    async with await either.websocket() as client:
        await client.send(message_of(MESSAGE_BYTES))
        assert len((await client.until("pong"))["data"]) == MESSAGE_BYTES - len(message_of(0))
    await either.serves()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\xc1", "malformed"),
        (b"", "malformed"),
        (msgspec.msgpack.encode([1]), "malformed"),
        (msgspec.msgpack.encode({"type": "subscribe"}), "invalid_field"),
        (msgspec.msgpack.encode({1: 2}), "malformed"),
        (b"\x81\xa4type\xd9\xff", "malformed"),
        (b"\x91" * 1500, "malformed"),
    ],
)
async def test_a_bad_command_in_messagepack_is_told_why(sent: bytes, code: str, plain: Server) -> None:
    async with await plain.websocket("tickerd.v1.msgpack") as client:
        await client.send(sent, BINARY)
        error = msgspec.msgpack.decode(await client.payload())
        assert (error["type"], error["code"]) == ("error", code), error
    await plain.serves()


# ---- what is slow, silent or gone -----------------------------------------------------------------------------------


def drip(begin: bytes, more: bytes) -> Callable[[socket.socket], None]:
    """First this, and then a byte at a time, for longer than there is."""

    def dripping(sock: socket.socket) -> None:
        sock.sendall(begin)
        for _ in range(30):
            time.sleep(SLOW_S / 10)
            sock.sendall(more)

    return dripping


def say(sent: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(sent)


SLOW: dict[str, tuple[Callable[[socket.socket], None], str, bytes]] = {
    "says nothing": (lambda _: None, "plain", b""),
    "a head that stops": (say(get()[:-2]), "plain", b"HTTP/1.1 408 "),
    "a head that drips": (drip(b"GET / HTTP/1.1\r\nA: ", b"x"), "plain", b"HTTP/1.1 408 "),
    "a greeting of another protocol": (say(b"SSH-2.0-OpenSSH_9.2\r\n"), "plain", b"HTTP/1.1 408 "),
    "a body that stops": (say(post(b"x" * 9)[:-1]), "plain", b"HTTP/1.1 408 "),
    "a body that drips": (
        drip(get("/ws/test", "Content-Length: 1000", method="POST"), b"x"), "plain", b"HTTP/1.1 408 ",
    ),
    "chunks that drip": (
        drip(get("/ws/test", "Transfer-Encoding: chunked", method="POST"), b"1\r\nx\r\n"), "plain", b"HTTP/1.1 408 ",
    ),
    "a pause between two requests": (say(get()), "plain", b"HTTP/1.1 200 "),
    "a second head that stops": (say(get() + get()[:-2]), "plain", b"HTTP/1.1 200 "),
    "a TLS handshake that never begins": (lambda _: None, "tls", b""),
    "a TLS handshake that stops": (say(b"\x16\x03\x01\x02\x00\x01"), "tls", b""),
    "plain HTTP to TLS": (say(get()), "tls", b""),
    "nonsense to TLS": (say(b"\xff" * 5000), "tls", b""),
}  # fmt: skip

Outcomes = dict[str, tuple[bytes, float]]


@pytest.fixture(scope="module")
def outcomes(servers: dict[str, Server]) -> Outcomes:
    """All that is slow, side by side: what came back until the daemon closed, and after how many seconds."""
    done: Outcomes = {}

    def run(case: str) -> None:
        misdeed, name, _ = SLOW[case]
        began = time.monotonic()
        received = b""
        with socket.create_connection(("127.0.0.1", servers[name].process.port)) as sock:
            sock.settimeout(WAIT_S)
            doing = threading.Thread(target=_until_closed, args=(misdeed, sock))
            doing.start()
            try:
                while data := sock.recv(65536):
                    received += data
            except ConnectionResetError:
                pass
            except TimeoutError:
                received += b" ... and it was never closed"
            done[case] = received, time.monotonic() - began
            doing.join()

    threads = [threading.Thread(target=run, args=(case,)) for case in SLOW]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def _until_closed(misdeed: Callable[[socket.socket], None], sock: socket.socket) -> None:
    try:
        misdeed(sock)
    except OSError:
        return


@pytest.mark.parametrize("case", SLOW)
async def test_who_is_slow_is_waited_for_so_long_and_no_longer(
    case: str, outcomes: Outcomes, servers: dict[str, Server]
) -> None:
    received, after_s = outcomes[case]
    expected = SLOW[case][2]
    assert received.startswith(expected), received
    assert expected or not received.startswith(b"HTTP"), received
    assert b"never closed" not in received
    assert after_s < 3 * SLOW_S + 5.0
    await servers[SLOW[case][1]].serves()


GONE: dict[str, bytes] = {
    "without a word": b"",
    "in the middle of a head": get()[:20],
    "behind a head": get(),
    "in the middle of a body": post(b"x" * 9)[:-1],
    "behind 2 000 requests": get() * 2000,
    "behind an upgrade": upgrade(),
    "in the middle of a frame": upgrade() + client_frame(TEXT, b"{}")[:3],
    "behind a subscribe": upgrade() + client_frame(TEXT, b'{"type":"subscribe","channels":["*"]}'),
}


@pytest.mark.parametrize("how", ["reset", "half-closed", "closed"])
@pytest.mark.parametrize("case", GONE)
async def test_who_goes_at_whatever_moment_takes_nothing_along(case: str, how: str, plain: Server) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", plain.process.port)
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            if how == "half-closed":  # it reads what it is answered, to the end
                nursery.start_soon(_read_to_the_end, stream)
            with trio.move_on_after(0.05 if how != "half-closed" else WAIT_S):
                await stream.send_all(GONE[case])
                if how == "half-closed":
                    await stream.send_eof()
    if how == "reset":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
    await plain.serves()


async def _read_to_the_end(stream: trio.SocketStream) -> None:
    while await stream.receive_some(65536):
        pass


def test_there_are_enough_of_them() -> None:
    """The issue asks for 60 kinds at least."""
    assert len(HTTP) + len(COMMANDS) + len(FRAMES) + len(SLOW) + len(GONE) * 3 >= 60
