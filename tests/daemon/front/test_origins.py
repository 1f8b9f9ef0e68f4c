"""Whose pages may read and who may act: judged by itself, and as a browser meets it over a real socket."""

import logging

import pytest

from daemon.front import origins
from daemon.front.http import Headers, Refused, Request
from daemon.front.origins import ANY, check_acting, check_reading, may_read, preflight, sharing
from protocol.codes import ErrorCode
from tests.daemon.front.test_admitted import BOT, TOKENS, Asked, Door, open_door
from tests.daemon.serving import handshake

LISTED = frozenset({"https://Example.org:443", "http://pages.example:8080", "null"})
OPEN = frozenset({ANY})
NAMES = frozenset({"ticker.example", "203.0.113.5", "2001:db8::5"})
ACAO = "access-control-allow-origin"


def request(
    origin: str | None, host: str = "localhost:8000", *, secure: bool = False, method: str = "GET", more: Headers = ()
) -> Request:
    given = [("host", host), *([] if origin is None else [("origin", origin)]), *more]
    return Request(method=method, path="/", headers=tuple(given), peer="127.0.0.1", local="192.0.2.10", secure=secure)


# Judged.

OURS = [
    (None, "localhost:8000", False),
    ("http://localhost:8000", "localhost:8000", False),
    ("http://LocalHost:8000", "localhost:8000", False),
    ("http://ticker.example", "ticker.example:80", False),
    ("http://ticker.example:80", "ticker.example", False),
    ("https://ticker.example", "ticker.example:443", True),
    ("http://[::1]:8000", "[::1]:8000", False),
    ("http://[::1]", "[::1]:80", False),
    ("https://example.org", "localhost:8000", False),
    ("http://pages.example:8080", "localhost:8000", True),
    ("null", "localhost:8000", False),
]
OTHERS = [
    ("http://evil.example", False),
    ("https://localhost:8000", False),
    ("http://localhost:8000", True),
    ("http://localhost:8001", False),
    ("http://localhost", False),
    ("http://localhost:8000.evil.example", False),
    ("https://example.org:8443", False),
    ("*", False),
    ("", False),
]


@pytest.mark.parametrize(("origin", "host", "secure"), OURS)
def test_no_origin_ours_and_listed_ones_read_and_act(origin: str | None, host: str, secure: bool) -> None:
    check_reading(request(origin, host, secure=secure), LISTED)
    check_acting(request(origin, host, secure=secure, method="POST"), LISTED, NAMES)
    check_acting(request(origin, host, secure=secure, method="POST"), LISTED | OPEN, NAMES)


@pytest.mark.parametrize(("origin", "secure"), OTHERS)
def test_other_origins_are_refused_by_a_list_and_may_never_act(origin: str, secure: bool) -> None:
    with pytest.raises(Refused) as caught:
        check_reading(request(origin, secure=secure), LISTED)
    assert (caught.value.status, caught.value.code) == (403, ErrorCode.FORBIDDEN)
    assert "server.origins" in caught.value.note
    check_reading(request(origin, secure=secure), OPEN)
    for listed in (LISTED, OPEN, LISTED | OPEN, frozenset[str]()):
        with pytest.raises(Refused):
            check_acting(request(origin, secure=secure, method="POST"), listed, NAMES)


def test_two_origins_are_none_of_ours() -> None:
    two = request("http://localhost:8000", more=(("origin", "http://localhost:8000"),))
    assert not may_read(two, LISTED)
    assert may_read(two, OPEN)
    with pytest.raises(Refused):
        check_acting(two, OPEN, NAMES)


def test_the_null_origin_has_to_be_listed_where_there_is_a_list() -> None:
    assert not may_read(request("null"), frozenset())
    assert may_read(request("null"), OPEN)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8000", "localhost.", "localhost.:80", "ticker.localhost:8000", "127.0.0.1:8000"),
        *("127.9.8.7", "[::1]:8000", "[::1]", "[::ffff:127.0.0.1]:8000", "[0:0:0:0:0:0:0:1]:8000"),
        *("192.0.2.10:8000", "ticker.example", "Ticker.Example:9000", "203.0.113.5:80", "[2001:DB8:0::5]:1"),
    ],
)
def test_whoever_addresses_us_by_a_name_of_ours_may_act(host: str) -> None:
    check_acting(request(None, host, method="POST"), OPEN, NAMES)
    check_acting(request(f"http://{host}", host, method="POST"), OPEN, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "evil-localhost",
            "localhostx",
            "xlocalhost:80",
        ),
        *("192.0.2.11", "0.0.0.0:8000", "[::]:8000", "127.1", "2130706433", "0x7f.1", "127.0.0.1.evil.example"),
        *(
            "",
            ":8000",
            "localhost:80:80",
            "[::1",
            "::1",
            "[evil.example]",
            "evil.example@localhost",
            "ticker.example.x",
        ),
    ],
)
def test_a_page_that_gives_its_own_name_our_address_may_not_act(host: str) -> None:
    """DNS rebinding: the page's origin and our `Host` agree, and neither is ours."""
    for origin in (f"http://{host}", None):
        with pytest.raises(Refused) as caught:
            check_acting(request(origin, host, method="POST"), OPEN, NAMES)
        assert caught.value.status == 403
        assert "server.names" in caught.value.note


def test_without_a_host_or_with_two_nobody_may_act() -> None:
    for headers in ((), (("host", "localhost"), ("host", "localhost"))):
        sent = Request(method="POST", path="/ws/test", headers=headers, peer="127.0.0.1")
        with pytest.raises(Refused):
            check_acting(sent, OPEN, NAMES)


def test_an_address_that_is_not_known_is_no_name() -> None:
    sent = Request(method="POST", path="/ws/test", headers=(("host", ""),), peer="127.0.0.1", local="")
    with pytest.raises(Refused):
        check_acting(sent, OPEN, NAMES)


def test_what_is_shared() -> None:
    anybody = dict(sharing((), OPEN))
    assert anybody["Access-Control-Allow-Origin"] == "*"
    assert "Vary" not in anybody
    assert "Retry-After" in anybody["Access-Control-Expose-Headers"]
    assert sharing(["https://evil.example"], OPEN) == sharing((), OPEN)
    assert dict(sharing(["https://example.org"], LISTED))["Access-Control-Allow-Origin"] == "https://example.org"
    assert sharing(["https://evil.example"], LISTED) == sharing([], LISTED) == (("Vary", "Origin"),)
    assert sharing(["https://example.org"] * 2, LISTED) == (("Vary", "Origin"),)
    assert sharing(["https://evil.example"], frozenset()) == ()


def test_a_page_may_ask_for_a_private_network() -> None:
    asks = (("access-control-request-method", "GET"), ("access-control-request-private-network", "true"))
    asked = request("https://evil.example", method="OPTIONS", more=asks)
    assert origins.is_preflight(asked)
    assert dict(preflight(asked, OPEN, NAMES).headers)["Access-Control-Allow-Private-Network"] == "true"


# As a browser meets it.

PAGE = "Origin: https://page.example"
NARROW = '[server]\norigins = ["https://ops.example"]\nnames = ["ticker.example"]\n'
ASKS = "Access-Control-Request-Method"
READS = [
    ("/", 200),
    ("/client.js", 200),
    ("/channels", 200),
    ("/gaps", 200),
    ("/gaps?limit=0", 400),
    ("/metrics", 200),
    ("/healthz", 200),
    ("/readyz", 503),
    ("/asyncapi.json", 200),
    ("/snapshot/ethprice", 200),
    ("/snapshot/nothing", 404),
    ("/nothing", 404),
    ("/ws/test", 405),
    ("/ws", 426),
    ("/events", 400),
    ("/events?channels=nothing", 404),
]


def shared(asked: Asked, sent: bytes | str = "") -> str:
    """The one header that lets a page read the answer."""
    lines = [line for line in asked.lines if line.lower().startswith(ACAO)]
    assert len(lines) == 1, (sent, asked.lines)
    return asked.headers[ACAO]


@pytest.mark.parametrize(("target", "status"), READS)
@pytest.mark.parametrize("origin", ["https://page.example", "null", "http://localhost:1234", "http://localhost"])
async def test_any_page_reads_every_answer(target: str, status: int, origin: str) -> None:
    async with open_door("") as door:
        for method in ("GET", "HEAD"):
            asked = await door.ask(target, f"Origin: {origin}", method=method)
            assert asked.status == status or method == "HEAD"
            assert shared(asked) == "*"
        assert shared(await door.ask(target)) == "*", "a cache keeps it for the next one"


async def test_any_page_opens_a_websocket_and_an_event_stream() -> None:
    async with open_door("") as door:
        for origin in ("https://page.example", "null"):
            async with door.websocket(f"Origin: {origin}") as client:
                assert (await client.message())["type"] == "welcome"
            asked = Asked(await door.head("/events?channels=ethprice", f"Origin: {origin}"))
            assert (asked.status, shared(asked)) == (200, "*")


END = "Host: localhost\r\nConnection: close\r\n" + PAGE + "\r\n"
REFUSALS = [
    ("not HTTP", 400, b"what?\r\n\r\n"),
    ("no token", 401, f"GET /snapshot/ethprice HTTP/1.1\r\n{END}\r\n".encode()),
    ("malformed token", 400, f"GET /events?token= HTTP/1.1\r\n{END}\r\n".encode()),
    ("may not act", 403, f"POST /ws/test?token={BOT} HTTP/1.1\r\n{END}Content-Length: 0\r\n\r\n".encode()),
    ("method", 405, f"PUT /ws HTTP/1.1\r\n{END}\r\n".encode().replace(b"/ws", f"/ws?token={BOT}".encode())),
    ("long body", 413, f"GET / HTTP/1.1\r\n{END}Content-Length: 99999999\r\n\r\n".encode()),
    ("long head", 431, f"GET / HTTP/1.1\r\n{END}X: {'x' * 3000}\r\n\r\n".encode()),
    ("transfer coding", 501, f"GET / HTTP/1.1\r\n{END}Transfer-Encoding: gzip\r\n\r\n".encode()),
    ("version", 505, b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n"),
]


@pytest.mark.parametrize(("status", "sent"), [each[1:] for each in REFUSALS], ids=[each[0] for each in REFUSALS])
async def test_any_page_reads_why_it_is_refused(status: int, sent: bytes) -> None:
    async with open_door("[limits]\nhead_bytes = 2048\n" + TOKENS) as door:
        asked = Asked(await door.raw(sent))
        assert asked.status == status
        assert shared(asked, sent) == "*"


async def test_any_page_reads_that_it_is_too_slow_that_there_is_no_room_and_that_the_daemon_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_door("[limits]\nhandshake_s = 0.2\nclients = 1\n") as door:
        assert shared(Asked(await door.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n"))) == "*"
        async with door.websocket() as only:
            await only.message()
            full = Asked(await door.raw(handshake()))
            assert (full.status, shared(full)) == (503, "*")
            full = await door.ask("/events?channels=ethprice", PAGE)
            assert (full.status, shared(full)) == (503, "*")
        monkeypatch.setattr(door.daemon.board, "states", lambda: 1 / 0)
        failed = await door.ask("/channels", PAGE)
        assert (failed.status, shared(failed)) == (500, "*")


@pytest.mark.parametrize("text", ["", TOKENS])
@pytest.mark.parametrize("target", ["/ws", "/events", "/snapshot/ethprice", "/channels", "/metrics", "/", "/nothing"])
async def test_a_preflight_is_answered_with_or_without_tokens(text: str, target: str) -> None:
    asks = (PAGE, f"{ASKS}: GET", "Access-Control-Request-Headers: authorization, x-any")
    async with open_door(text) as door:
        asked = await door.ask(target, *asks, "Access-Control-Request-Private-Network: true", method="OPTIONS")
        assert (asked.status, asked.body) == (204, b"")
        assert not asked.headers.keys() & {"content-length", "content-type", "transfer-encoding"}
        assert shared(asked) == "*"
        assert "GET" in asked.headers["access-control-allow-methods"].split(", ")
        assert "Authorization" in asked.headers["access-control-allow-headers"].split(", ")
        assert asked.headers["access-control-allow-private-network"] == "true"
        assert "access-control-allow-private-network" not in (await door.ask(target, *asks, method="OPTIONS")).headers


async def test_a_connection_goes_on_behind_a_preflight() -> None:
    async with open_door("") as door:
        sent = f"OPTIONS /channels HTTP/1.1\r\nHost: localhost\r\n{PAGE}\r\n{ASKS}: GET\r\n\r\n".encode()
        received = await door.raw(sent + f"GET /channels HTTP/1.1\r\n{END}\r\n".encode())
        assert received.startswith(b"HTTP/1.1 204 ")
        assert b'"type":"channels"' in received


async def test_what_asks_nothing_is_no_preflight() -> None:
    async with open_door("") as door:
        for headers in ((), (PAGE,), (f"{ASKS}: GET",)):
            assert (await door.ask("/channels", *headers, method="OPTIONS")).status == 405


# A list.


async def test_a_list_narrows_who_reads(caplog: pytest.LogCaptureFixture) -> None:
    ops = "Origin: https://ops.example"
    async with open_door(NARROW + TOKENS) as door:
        asked = await door.ask(f"/snapshot/ethprice?token={BOT}", ops)
        assert (asked.status, shared(asked), asked.headers["vary"]) == (200, "https://ops.example", "Origin")
        assert shared(await door.ask("/snapshot/ethprice", ops)) == "https://ops.example", "a refusal too"
        assert shared(await door.ask("/nothing", ops)) == "https://ops.example"
        asked = Asked(
            await door.raw(f"GET / HTTP/1.1\r\n{END}Content-Length: 99999999\r\n\r\n".replace(PAGE, ops).encode())
        )
        assert (asked.status, shared(asked)) == (413, "https://ops.example")
        assert (await door.ask("/channels", ops, f"{ASKS}: GET", method="OPTIONS")).status == 204
        async with door.websocket(ops, query=f"?token={BOT}") as client:
            await client.message()
        caplog.clear()
        for target in (f"/events?channels=*&token={BOT}", f"/ws?token={BOT}"):
            upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
            key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            with caplog.at_level(logging.INFO):
                asked = await door.ask(target, PAGE, *(upgrade if "/ws" in target else ()), key)
            assert asked.status == 403
            assert ACAO not in asked.headers
            assert "127.0.0.1 refused: 403 forbidden: the origin 'https://page.example' is not in server.origins" in (
                caplog.messages
            )
            caplog.clear()
        with caplog.at_level(logging.INFO):
            asked = await door.ask("/channels", PAGE)
        assert (asked.status, asked.headers["vary"]) == (200, "Origin")
        assert ACAO not in asked.headers
        assert caplog.messages == [
            "a page of the origin 'https://page.example' cannot read its answer: it is not in server.origins"
        ]
        asked = await door.ask("/channels", PAGE, f"{ASKS}: GET", method="OPTIONS")
        assert asked.status == 403
        assert ACAO not in asked.headers


# What acts.

JSON = "Content-Type: application/json"
HELLO = b'{"message":"hello"}'


async def _posted(door: Door, *headers: str, host: str = "localhost", body: bytes = HELLO) -> int:
    lines = ["POST /ws/test HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return Asked(await door.raw("\r\n".join([*lines, "", ""]).encode() + body)).status


async def test_no_page_of_another_origin_acts() -> None:
    async with open_door("") as door:
        port = door.port
        for origin in ("https://page.example", "null", f"http://localhost:{port + 1}", f"https://localhost:{port}"):
            assert await _posted(door, f"Origin: {origin}", JSON, host=f"localhost:{port}") == 403
            asks = (f"Origin: {origin}", f"{ASKS}: POST", "Access-Control-Request-Headers: content-type")
            assert (await door.ask("/ws/test", *asks, method="OPTIONS")).status == 403
        assert await _posted(door, f"Origin: http://localhost:{port}", JSON, host=f"localhost:{port}") == 200
        assert await _posted(door, JSON) == 200


async def test_no_page_that_has_bound_its_name_to_our_address_acts(caplog: pytest.LogCaptureFixture) -> None:
    async with open_door("") as door:
        for host in (f"evil.example:{door.port}", f"127.0.0.1.evil.example:{door.port}"):
            with caplog.at_level(logging.INFO):
                assert await _posted(door, f"Origin: http://{host}", JSON, host=host) == 403
                assert await _posted(door, JSON, host=host) == 403
            assert f"the host '{host}' is not in server.names" in caplog.text
        assert await _posted(door, JSON, host=f"127.0.0.1:{door.port}") == 200
        assert await _posted(door, JSON, host="ticker.example") == 403
    async with open_door(NARROW) as door:
        assert await _posted(door, JSON, host="ticker.example") == 200
        assert await _posted(door, "Origin: https://ops.example", JSON, host="ticker.example") == 200
        asks = ("Origin: https://ops.example", f"{ASKS}: POST")
        asked = await door.ask("/ws/test", *asks, method="OPTIONS")
        assert (asked.status, asked.headers["access-control-allow-methods"]) == (204, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (JSON, 200),
        ("Content-Type: Application/JSON; charset=utf-8", 200),
        ("content-type:application/json", 200),
        ("X: y", 415),
        ("Content-Type: text/plain", 415),
        ("Content-Type: text/plain;application/json", 415),
        ("Content-Type: application/x-www-form-urlencoded", 415),
        ("Content-Type: multipart/form-data; boundary=application/json", 415),
        ("Content-Type: application/jsonp", 415),
        ("Content-Type: application/json\r\nContent-Type: text/plain", 415),
        ("Content-Type: text/plain, application/json", 415),
        ("Content-Type:", 415),
    ],
)
async def test_what_a_page_may_send_without_asking_is_not_taken(kind: str, status: int) -> None:
    async with open_door("") as door:
        assert await _posted(door, kind) == status
