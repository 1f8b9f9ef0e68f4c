"""Which opening handshakes are let in, and what the others are told."""

import base64

import h11
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio_websocket import WebSocketRequest, wrap_server_stream

from daemon.front.handshake import Handshake, judge
from daemon.front.http import Headers, Refused, Request
from protocol.codes import ErrorCode
from protocol.messages import Format

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {
    "host": "localhost:8000",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
}


def request(
    changes: dict[str, str | None] | None = None,
    *,
    method: str = "GET",
    version: str = "1.1",
    body: bytes = b"",
    more: Headers = (),
    secure: bool = False,
) -> Request:
    """A good handshake with some headers changed, or removed (None), and `more` behind them."""
    changed = {**GOOD, **(changes or {})}
    headers = tuple((name, value) for name, value in changed.items() if value is not None)
    return Request(
        method=method,
        path="/ws",
        headers=headers + more,
        body=body,
        version=version,
        peer="192.0.2.1",
        secure=secure,
    )


def refusal(request: Request, origins: frozenset[str] = frozenset()) -> Refused:
    with pytest.raises(Refused) as caught:
        judge(request, origins)
    return caught.value


async def accepted(handshake: Handshake) -> WebSocketRequest:
    """What the websocket library makes of the head, and that its answer is right."""
    client, server = trio.testing.memory_stream_pair()
    await client.send_all(handshake.head)
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, server)
        await request.accept(subprotocol=handshake.subprotocol)
        answer = bytes(await client.receive_some(4096))
        nursery.cancel_scope.cancel()
    assert answer.startswith(b"HTTP/1.1 101")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer  # RFC 6455 section 1.3: the answer to this key
    return request


async def test_a_good_handshake_speaks_json_and_confirms_nothing_that_was_not_offered() -> None:
    handshake = judge(request(), frozenset())
    assert (handshake.format, handshake.subprotocol) == (Format.JSON, None)
    assert (await accepted(handshake)).path == "/ws"


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"upgrade": "WebSocket", "connection": "keep-alive, upgrade"}, ()),
        ({"upgrade": "h2c, websocket"}, ()),
        ({"upgrade": "h2c"}, (("upgrade", "websocket"),)),
        ({"connection": "keep-alive"}, (("connection", "Upgrade"),)),
        ({"host": "xn--\xff..weird"}, (("sec-websocket-extensions", "permessage-deflate\xff"), ("cookie", "a=\xe9"))),
    ],
)
async def test_all_that_is_allowed_is_understood_by_the_library_too(
    changes: dict[str, str | None], more: Headers
) -> None:
    known = await accepted(judge(request(changes, more=more), frozenset()))
    assert {name for name, _ in known.headers} <= {name.encode() for name in GOOD}


@pytest.mark.parametrize(
    ("offered", "name", "expected"),
    [
        (["tickerd.v1.msgpack"], "tickerd.v1.msgpack", Format.MSGPACK),
        (["tickerd.v1.json"], "tickerd.v1.json", Format.JSON),
        (["graphql-ws, tickerd.v1.msgpack , tickerd.v1.json"], "tickerd.v1.msgpack", Format.MSGPACK),
        (["tickerd.v1.json", "tickerd.v1.msgpack"], "tickerd.v1.json", Format.JSON),
        ([""], None, Format.JSON),
    ],
)
async def test_the_first_known_subprotocol_is_taken(offered: list[str], name: str | None, expected: Format) -> None:
    handshake = judge(request(more=tuple(("sec-websocket-protocol", value) for value in offered)), frozenset())
    assert (handshake.subprotocol, handshake.format) == (name, expected)
    assert (await accepted(handshake)).proposed_subprotocols == (() if name is None else (name,))


@pytest.mark.parametrize("offered", ["graphql-ws", "TICKERD.V1.JSON", "text/event-stream", "\xff"])
def test_unknown_subprotocols_are_refused_naming_the_known(offered: str) -> None:
    refused = refusal(request({"sec-websocket-protocol": offered}))
    assert refused.status == 400
    assert "tickerd.v1.json, tickerd.v1.msgpack" in str(refused)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("upgrade", [None, "h2c"])
def test_a_plain_request_is_told_to_upgrade(method: str, upgrade: str | None) -> None:
    refused = refusal(request({"upgrade": upgrade}, method=method))
    assert refused.status == 426
    assert dict(refused.headers) == {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert "ws://" in str(refused)


def test_another_method_is_told_which() -> None:
    refused = refusal(request(method="POST"))
    assert (refused.status, refused.code) == (405, ErrorCode.METHOD_NOT_ALLOWED)
    assert refused.headers == (("Allow", "GET"),)


@pytest.mark.parametrize("version", ["12", "8", "13, 8", None])
def test_another_version_is_told_which(version: str | None) -> None:
    refused = refusal(request({"sec-websocket-version": version}))
    assert refused.status == 426
    assert refused.headers == (("Sec-WebSocket-Version", "13"),)


@pytest.mark.parametrize(
    "bad",
    [
        request({"sec-websocket-key": None}),
        request({"sec-websocket-key": ""}),
        request({"sec-websocket-key": "short"}),
        request({"sec-websocket-key": KEY[:-4]}),
        request({"sec-websocket-key": KEY + "AAAA"}),
        request({"sec-websocket-key": KEY.replace("=", "*")}),
        request({"sec-websocket-key": "\xff" * 24}),
        request(more=(("sec-websocket-key", KEY),)),
        request({"connection": None}),
        request({"connection": "keep-alive"}),
        request(version="1.0"),
        request(method="HEAD"),
        request(body=b"x"),
    ],
)
def test_a_bad_handshake_is_refused(bad: Request) -> None:
    refused = refusal(bad)
    assert (refused.status, refused.code) == (400, ErrorCode.BAD_REQUEST)


@given(key=st.text(st.characters(max_codepoint=255), max_size=30) | st.binary(max_size=20).map(base64.b64encode))
def test_any_key_is_refused_or_arrives_unchanged(key: str | bytes) -> None:
    text = key.decode() if isinstance(key, bytes) else key
    try:
        handshake = judge(request({"sec-websocket-key": text}), frozenset())
    except Refused:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(handshake.head)
    head = connection.next_event()
    assert isinstance(head, h11.Request)
    assert dict(head.headers)[b"sec-websocket-key"] == text.encode()


# Origins.


def test_a_page_that_may_not_read_opens_no_websocket() -> None:
    refused = refusal(request({"origin": "http://evil.example"}), frozenset({"https://example.org"}))
    assert (refused.status, refused.code) == (403, ErrorCode.FORBIDDEN)


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_where_any_page_may_read_each_opens_one(origin: str) -> None:
    assert judge(request({"origin": origin}), frozenset({"*"})).format is Format.JSON
