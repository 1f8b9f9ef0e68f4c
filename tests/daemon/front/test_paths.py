"""Which path is meant: slashes too many, and prefixes that proxies leave there or take away."""

import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.config.load import ConfigError, parse
from daemon.front.access import is_guarded
from daemon.front.paths import meant, to_the_slash
from daemon.front.request import Request
from tests.daemon.front.test_admitted import TOKENS, open_door
from tests.daemon.serving import HandMade, handshake


def request(path: str, prefix: str = "", method: str = "GET") -> Request:
    return Request(method=method, path=path, peer="127.0.0.1", prefix=prefix)


@pytest.mark.parametrize(
    ("path", "said", "configured", "ours", "prefix"),
    [
        ("/ws", "", "", "/ws", ""),
        ("/ws/", "", "", "/ws", ""),
        ("//ws", "", "", "/ws", ""),
        ("/ws//test/", "", "", "/ws/test", ""),
        ("/snapshot/ethprice/", "", "", "/snapshot/ethprice", ""),
        ("/snapshot/", "", "", "/snapshot/", ""),
        ("/feed//history/okx_candles/", "", "/feed", "/history/okx_candles", "/feed"),
        ("/history/", "", "", "/history/", ""),
        ("", "", "", "/", ""),
        ("*", "", "", "*", ""),
        ("/feed/ws", "", "/feed", "/ws", "/feed"),
        ("/feed/ws/", "", "/feed/", "/ws", "/feed"),
        ("/feed//ws", "", "/feed", "/ws", "/feed"),
        ("/feed/", "", "/feed", "/", "/feed"),
        ("/feed", "", "/feed", "/", "/feed"),
        ("/ws", "", "/feed", "/ws", ""),
        ("/feeds/ws", "", "/feed", "/feeds/ws", ""),
        ("/a/b/ws", "", "/a/b", "/ws", "/a/b"),
        ("/ws", "/feed", "", "/ws", "/feed"),
        ("/feed/ws", "/feed", "", "/ws", "/feed"),
        ("/a b/ws", "/a%20b", "", "/ws", "/a%20b"),
        ("/inner/ws", "/outer", "/inner", "/ws", "/outer"),
    ],
)
def test_what_is_meant(path: str, said: str, configured: str, ours: str, prefix: str) -> None:
    seen = meant(request(path, said), configured)
    assert (seen.path, seen.prefix) == (ours, prefix)


@given(st.text(st.sampled_from("/ws.feed%"), max_size=12), st.sampled_from(["", "/feed", "/feed/"]))
def test_what_is_meant_once_is_meant_again(path: str, prefix: str) -> None:
    once = meant(request(path), prefix).path
    assert once.startswith("/") or "/" not in once[:1]
    assert "//" not in once
    assert is_guarded("/ws") == is_guarded(meant(request(f"/ws{'/' * len(path)}"), prefix).path)


@pytest.mark.parametrize(
    ("path", "prefix", "method", "location"),
    [
        ("/feed", "/feed", "GET", "feed/"),
        ("/market/feed", "/market/feed", "HEAD", "feed/"),
        ("/feed/", "/feed", "GET", None),
        ("/feed", "/feed", "POST", None),
        ("/", "/feed", "GET", None),
        ("/feed/ws", "/feed", "GET", None),
        ("", "", "GET", None),
        ("*", "", "OPTIONS", None),
    ],
)
def test_only_the_page_without_its_slash_is_sent_on(path: str, prefix: str, method: str, location: str | None) -> None:
    asked = request(path, method=method)
    found = to_the_slash(asked, meant(asked, prefix))
    assert (None if found is None else dict(found.headers)["Location"]) == location


@pytest.mark.parametrize("prefix", ["feed", "/", "//feed", "/feed?x", "/fe ed", "https://x/feed", "/a//b"])
def test_another_prefix_is_refused_by_name(prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.prefix"):
        parse(f"[server]\nprefix = {json.dumps(prefix)}", {}, "a test")


# Through the door.

PREFIXED = '[server]\nprefix = "/feed"\n'


@pytest.mark.parametrize(
    ("text", "path"),
    [("", "/ws/"), ("", "//ws"), (PREFIXED, "/feed/ws"), (PREFIXED, "/feed/ws/"), (PREFIXED, "/ws")],
)
async def test_a_websocket_opens_there(text: str, path: str) -> None:
    async with open_door(text) as door, door.websocket() as plain:
        assert (await plain.message())["type"] == "welcome"
        sent = handshake().replace(b"GET /ws ", f"GET {path} ".encode())
        async with HandMade(await dial(door.port)) as client:
            await client.stream.send_all(sent)
            head = bytes(await client.stream.receive_some(12))
            assert head == b"HTTP/1.1 101"


async def dial(port: int) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port)


@pytest.mark.parametrize("path", ["/healthz", "/channels", "/snapshot/ethprice", "/gaps", "/readyz", "/asyncapi.json"])
async def test_every_path_may_have_a_slash_behind_it_and_a_prefix_before_it(path: str) -> None:
    async with open_door(PREFIXED) as door:
        status = (await door.ask(path)).status
        for asked in (f"{path}/", f"/feed{path}", f"/feed{path}/", f"/feed/{path}"):
            assert (await door.ask(asked)).status == status
        assert (await door.ask(f"/else{path}")).status == 404


@pytest.mark.parametrize(
    "path", ["/ws/", "/events/?channels=*", "/snapshot/ethprice/", "//ws", "/feed/ws", "/feed/snapshot/ethprice/"]
)
async def test_no_spelling_leads_past_a_token(path: str) -> None:
    async with open_door(TOKENS + PREFIXED) as door:
        assert (await door.ask(path)).status == 401


async def test_the_page_below_a_prefix_is_opened_with_a_slash() -> None:
    async with open_door(PREFIXED) as door:
        sent_on = await door.ask("/feed?x=1")
        assert (sent_on.status, sent_on.headers["location"]) == (308, "feed/?x=1")
        assert b"<title>tickerd" in (await door.ask("/feed/")).body
        assert (await door.ask("/feed/client.js")).status == 200
        servers = json.loads((await door.ask("/feed/asyncapi.json")).body)["servers"]
        assert {each["pathname"] for each in servers.values()} == {"/feed"}


# What balancers send.


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        # HAProxy's own check, unless it is told otherwise.
        (b"OPTIONS / HTTP/1.0\r\n\r\n", 204),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 204),
        (b"OPTIONS /healthz HTTP/1.0\r\n\r\n", 204),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"HEAD /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz/ HTTP/1.0\r\nConnection: close\r\n\r\n", 200),
        (b"GET http://ticker.example/healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200),
        (b"GET http://ticker.example HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200),
        (b"GET http://ticker.example?x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a:8000\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n", 200),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n", 403),
    ],
)
async def test_what_balancers_send_is_answered(sent: bytes, status: int) -> None:
    async with open_door("") as door:
        answer = await door.raw(sent)
        assert int(answer.split()[1]) == status, answer


async def test_the_target_says_more_than_the_host_header() -> None:
    """RFC 9112 section 3.2.2."""
    body = b'{"message":"x"}'
    rest = f" HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    async with open_door("") as door:
        for target, host, status in (
            ("http://localhost/ws/test", "evil.example", 200),
            ("http://evil.example/ws/test", "localhost", 403),
        ):
            sent = f"POST {target}{rest % host}Connection: close\r\n\r\n".encode() + body
            assert int((await door.raw(sent)).split()[1]) == status
