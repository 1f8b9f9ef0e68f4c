"""The headers that every answer has, whatever was asked and whatever came of it."""

import re

import msgspec
import pytest
import trio

from tests.daemon.front.test_admitted import BOT, TOKENS, Asked, Door, open_door
from tests.daemon.serving import handshake

LIMITS = "[limits]\nhead_bytes = 2048\nbody_bytes = 1024\nhandshake_s = 0.5\nclients = 1\n"
ASKS = "Access-Control-Request-Method: GET\r\n"
JSON = "Content-Type: application/json\r\n"
END = "Host: localhost\r\nConnection: close\r\n"


def get(target: str, more: str = "", method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\n{END}{more}\r\n".encode()


ANSWERS = [
    ("GET, page", 200, get("/")),
    ("HEAD, page", 200, get("/", method="HEAD")),
    ("page that the browser has", 304, get("/", "If-None-Match: *\r\n")),
    ("script", 200, get("/page.js")),
    ("client for others", 200, get("/client.js")),
    *((path, 200, get(path)) for path in ("/healthz", "/channels", "/gaps", "/asyncapi.json")),
    ("not ready", 503, get("/readyz")),
    ("HEAD, not ready", 503, get("/readyz", method="HEAD")),
    ("snapshot", 200, get(f"/snapshot/ethprice?token={BOT}")),
    ("test", 200, get(f"/ws/test?token={BOT}", f"{JSON}Content-Length: 15\r\n", "POST") + b'{"message":"x"}'),
    ("not HTTP", 400, b"what?\r\n\r\n"),
    ("malformed token", 400, get("/snapshot/ethprice?token=")),
    ("malformed body", 400, get(f"/ws/test?token={BOT}", f"{JSON}Content-Length: 1\r\n", "POST") + b"{"),
    ("malformed events", 400, get(f"/events?token={BOT}")),
    ("no token", 401, get("/ws")),
    ("HEAD, no token", 401, get("/snapshot/ethprice", method="HEAD")),
    ("wrong token", 401, get("/events?channels=*&token=wrong")),
    ("origin", 403, get("/channels", "Origin: https://evil.example\r\n", "POST")),
    ("not JSON", 415, get(f"/ws/test?token={BOT}", "Content-Length: 2\r\n", "POST") + b"{}"),
    ("preflight", 204, get("/ws", f"Origin: https://a.example\r\n{ASKS}", method="OPTIONS")),
    ("not found", 404, get("/nothing")),
    ("HEAD, not found", 404, get("/nothing", method="HEAD")),
    ("no such channel", 404, get(f"/snapshot/nothing?token={BOT}")),
    ("method", 405, get("/channels", method="DELETE")),
    ("options", 405, get("/channels", method="OPTIONS")),
    ("slow head", 408, b"GET / HTTP/1.1\r\nHost: localhost\r\n"),
    ("long body", 413, get(f"/ws/test?token={BOT}", "Content-Length: 1025\r\n", "POST")),
    ("no upgrade", 426, get(f"/ws?token={BOT}")),
    ("long head", 431, get("/", f"X-Long: {'x' * 3000}\r\n")),
    ("transfer coding", 501, get("/ws/test", "Transfer-Encoding: gzip\r\n", "POST")),
    ("version", 505, b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n"),
]


def check(asked: Asked) -> None:
    headers = asked.headers
    assert headers["server"] == "tickerd", "and no version"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert re.search(r"(no-store|no-cache)$", headers["cache-control"])
    policy = headers["content-security-policy"].split("; ")
    assert policy[0] in ("default-src 'none'", "default-src 'self'")
    assert "frame-ancestors 'none'" in policy
    assert "strict-transport-security" not in headers, "that is for the operator of the whole host name to decide"


@pytest.mark.parametrize(("status", "sent"), [each[1:] for each in ANSWERS], ids=[each[0] for each in ANSWERS])
async def test_every_answer_has_them(status: int, sent: bytes) -> None:
    async with open_door(LIMITS + TOKENS) as door:
        asked = Asked(await door.raw(sent))
        assert asked.status == status
        check(asked)
        if status == 401:
            assert asked.headers["www-authenticate"].startswith("Bearer ")


async def test_an_answer_after_a_bug_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_door() as door:
        monkeypatch.setattr(door.daemon.board, "states", lambda: 1 / 0)
        asked = await door.ask("/channels")
        assert asked.status == 500
        check(asked)


async def test_the_answer_of_a_full_daemon_has_them() -> None:
    async with open_door(LIMITS + TOKENS) as door, door.websocket(query=f"?token={BOT}") as only:
        await only.message()
        sent = handshake().replace(b"GET /ws ", f"GET /ws?token={BOT} ".encode())
        asked = Asked(await door.raw(sent))
        assert asked.status == 503
        assert int(asked.headers["retry-after"]) > 0
        check(asked)


async def test_one_connection_too_many_is_told_so_with_them() -> None:
    async with open_door() as door:
        admission = door.daemon.serving.front_door.admission
        admission.policy = msgspec.structs.replace(admission.policy, connections=0)
        asked = Asked(await door.raw(b""))
        assert asked.status == 503
        check(asked)


async def test_an_event_stream_has_them() -> None:
    async with open_door() as door, door.events(f"channels=*&token={BOT}") as stream:
        asked = Asked((await stream.receive_some()).partition(b"\r\n\r\n")[0])
        assert (asked.status, asked.headers["content-type"]) == (200, "text/event-stream")
        check(asked)


async def test_what_opens_a_websocket_has_those_that_are_for_it() -> None:
    """Nothing of it is shown or stored: the policy and the cache are not its affair."""
    async with open_door() as door:
        assert (await _opening(door)).headers | {"sec-websocket-accept": ""} == {
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-accept": "",
            "server": "tickerd",
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }


async def _opening(door: Door) -> Asked:
    async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
        await stream.send_all(handshake().replace(b"GET /ws ", f"GET /ws?token={BOT} ".encode()))
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        return Asked(received)
