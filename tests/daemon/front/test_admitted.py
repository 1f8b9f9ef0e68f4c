"""Tokens over real sockets: the whole daemon but its connectors, asked with and without one."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from daemon.app import Daemon
from daemon.config.load import parse
from daemon.config.tokens import written_hash
from daemon.front import access
from daemon.front.tokens import new_token
from tests.daemon.serving import SOON_S, HandMade, handshake

PARTNER, BOT = new_token(), new_token()
ONLY_BOT = f"""
[tokens.bot]
hash = "{written_hash(BOT)}"
test = true
"""
TOKENS = f"""
[tokens.partner]
hash = "{written_hash(PARTNER)}"
channels = ["binance_*"]
{ONLY_BOT}
"""
COVERED = ["binance_prices", "binance_orderbook", "binance_24hr"]


class Asked:
    """What one request was answered."""

    def __init__(self, received: bytes) -> None:
        head, _, self.body = received.partition(b"\r\n\r\n")
        first, *self.lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in self.lines)}

    @property
    def error(self) -> dict[str, Any]:
        error = json.loads(self.body)
        assert error["type"] == "error"
        assert isinstance(error, dict)
        return error


class Door:
    """A daemon whose front door is open."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self.daemon = daemon
        self.port = port

    async def raw(self, sent: bytes) -> bytes:
        """Everything that is answered until the connection ends."""
        received = bytearray()
        with trio.fail_after(SOON_S):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(sent)
                async for data in stream:
                    received += data
        return bytes(received)

    async def head(self, target: str, *headers: str) -> bytes:
        """The head of an answer that does not end."""
        sent = "\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost", *headers, "", ""])
        received = b""
        with trio.fail_after(SOON_S):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(sent.encode())
                while b"\r\n\r\n" not in received:
                    received += await stream.receive_some()
        return received.partition(b"\r\n\r\n")[0]

    async def ask(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> Asked:
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
            if not any(header.startswith("Content-Type: ") for header in headers):
                lines.append("Content-Type: application/json")
        return Asked(await self.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body))

    @asynccontextmanager
    async def websocket(self, *headers: str, query: str = "") -> AsyncIterator[HandMade]:
        """A client that is let in, and has not read its welcome."""
        sent = handshake().replace(b"GET /ws ", f"GET /ws{query} ".encode())
        sent = sent.replace(b"\r\n\r\n", "\r\n".join(["", *headers, "", ""]).encode())
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(sent)
            received = b""
            while b"\r\n\r\n" not in received:
                more = await stream.receive_some()
                assert more, received
                received += more
            head, _, rest = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            yield HandMade(stream, rest)

    @asynccontextmanager
    async def events(self, query: str) -> AsyncIterator[trio.SocketStream]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(f"GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            yield stream

    def reload(self, tokens: str) -> None:
        """Other tokens, in the order in which the daemon brings a configuration into force."""
        admission = self.daemon.serving.front_door.admission
        guarded = admission.policy.tokens is not None
        policy = admission.policy = parse(tokens, {}, "a test").policy(guarded=guarded)
        self.daemon.serving.sessions.revoke(partial(access.ending, policy.tokens))


@asynccontextmanager
async def open_door(text: str = TOKENS) -> AsyncIterator[Door]:
    daemon = Daemon(parse(text, {}, "a test"))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.serving.front_door.run, listeners)
        yield Door(daemon, listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


GUARDED = [
    ("GET", "/ws", 426),
    ("GET", "/events?channels=binance_prices", 200),
    ("HEAD", "/events?channels=binance_prices", 200),
    ("GET", "/snapshot/binance_prices", 200),
    ("HEAD", "/snapshot/binance_prices", 200),
    ("GET", "/ws/test", 405),
    ("POST", "/ws/test", 200),
    ("POST", "/snapshot/binance_prices", 405),
]
"""Method, target, and what a good token gets."""


@pytest.mark.parametrize(("method", "target", "status"), GUARDED)
async def test_what_gives_data_is_given_to_who_has_a_token(method: str, target: str, status: int) -> None:
    body = b'{"message":"hello"}' if method == "POST" else b""
    separator = "&" if "?" in target else "?"
    async with open_door() as door:
        for query, headers, expected in (
            ("", (), 401),
            ("", ("Authorization: Bearer wrong",), 401),
            ("token=wrong", (), 401),
            ("token=", (), 400),
            (f"token={PARTNER}", ("Authorization: Bearer wrong",), 401),
            (f"token={PARTNER}", ("Authorization: Bearer",), 400),
        ):
            asked = await door.ask(
                f"{target}{separator}{query}" if query else target, *headers, method=method, body=body
            )
            assert asked.status == expected
            assert asked.headers["www-authenticate"].startswith('Bearer realm="tickerd"')
            assert method == "HEAD" or asked.error["code"] in ("unauthorized", "invalid_field")
        if target.startswith("/events") and method == "GET":  # which does not end
            async with door.events(f"channels=binance_prices&token={PARTNER}") as stream:
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 OK\r\n")
            return
        good = BOT if method == "POST" and status == 200 else PARTNER
        for query, headers in ((f"token={good}", ()), ("", (f"Authorization: Bearer {good}",))):
            asked = await door.ask(
                f"{target}{separator}{query}" if query else target, *headers, method=method, body=body
            )
            assert asked.status == status


@pytest.mark.parametrize("path", ["/", "/page.js", "/client.js", "/channels", "/gaps", "/healthz"])
async def test_the_rest_is_open_even_to_a_wrong_token(path: str) -> None:
    async with open_door() as door:
        for headers in ((), ("Authorization: Bearer wrong",)):
            assert (await door.ask(path, *headers)).status == 200
        assert (await door.ask(f"{path}?token=wrong")).status == 200


async def test_without_tokens_none_is_needed() -> None:
    async with open_door("") as door:
        assert (await door.ask("/snapshot/ethprice")).status == 200
        assert (await door.ask("/snapshot/ethprice?token=any")).status == 200
        async with door.websocket() as client:
            assert "ethprice" in (await client.message())["channels"]


@pytest.mark.parametrize(("headers", "query"), [((f"Authorization: Bearer {PARTNER}",), ""), ((), f"?token={PARTNER}")])
async def test_a_websocket_client_gets_what_its_token_covers(headers: tuple[str, ...], query: str) -> None:
    async with open_door() as door, door.websocket(*headers, query=query) as client:
        assert (await client.message())["channels"] == COVERED
        await client.say(type="subscribe", channels=["ethprice", "binance_24hr"], id=1)
        error = await client.message()
        assert (error["code"], error["channels"], error["id"]) == ("forbidden", ["ethprice"], 1)
        assert "the token does not cover ethprice" in error["message"]
        assert (await client.message())["channels"] == ["binance_24hr"]
        await client.say(type="subscribe", channels=["*"], id=2)
        assert (await client.until("subscribed"))["channels"] == COVERED


async def test_a_token_for_everything_gets_everything() -> None:
    async with open_door() as door, door.websocket(query=f"?token={BOT}") as client:
        assert (await client.message())["channels"] == list(door.daemon.board.catalogue.names)


async def test_a_snapshot_and_an_event_stream_are_given_as_far_as_the_token_goes() -> None:
    async with open_door() as door:
        asked = await door.ask("/snapshot/ethprice", f"Authorization: Bearer {PARTNER}")
        assert (asked.status, asked.error["code"]) == (403, "forbidden")
        assert asked.error["message"] == "the token does not cover ethprice"
        asked = await door.ask("/snapshot/ethprices", f"Authorization: Bearer {PARTNER}")
        assert asked.status == 404
        assert "'ethprice'" not in asked.error["message"]
        asked = await door.ask(f"/events?channels=ethprice&token={PARTNER}")
        assert (asked.status, asked.error["code"]) == (403, "forbidden")
        async with door.events(f"channels=*&token={PARTNER}") as stream:
            said = await _until(stream, b'"type":"subscribed"')
        assert b"ethprice" not in said
        assert b"binance_prices" in said


async def _until(stream: trio.SocketStream, mark: bytes) -> bytes:
    received = b""
    with trio.fail_after(SOON_S):
        while mark not in received:
            more = await stream.receive_some()
            assert more, received
            received += more
    return received


async def test_a_test_message_may_come_from_elsewhere_with_a_token_and_only_then() -> None:
    elsewhere = ("X-Forwarded-For: 192.0.2.7", "Content-Type: application/json")
    body = b'{"message":"hello"}'
    async with open_door() as door:
        for headers, status in ((elsewhere, 401), ((*elsewhere, f"Authorization: Bearer {BOT}"), 200)):
            assert (await door.ask("/ws/test", *headers, method="POST", body=body)).status == status
        assert (await door.ask("/ws/test", method="POST", body=body)).status == 401, "loopback needs one, too"
    async with open_door("") as door:
        assert (await door.ask("/ws/test", method="POST", body=body)).status == 200
        for headers in (elsewhere, (*elsewhere, f"Authorization: Bearer {BOT}")):
            assert (await door.ask("/ws/test", *headers, method="POST", body=body)).status == 403


async def test_a_refusal_is_logged_once_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    wrong = new_token()
    async with open_door() as door:
        with caplog.at_level(logging.DEBUG):
            await door.ask(f"/snapshot/ethprice?token={wrong}")
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO] == [
            "127.0.0.1 refused: 401 unauthorized"
        ]
        with caplog.at_level(logging.DEBUG):
            async with door.websocket(query=f"?token={BOT}") as client:
                await client.message()
        assert "client 127.0.0.1 connected (tickerd.v1.json, token bot)" in caplog.messages
    for secret in (wrong, BOT):
        assert secret not in caplog.text


# Other tokens while clients are there.


async def test_the_clients_of_a_revoked_token_are_closed_and_nobody_else() -> None:
    async with open_door() as door, door.websocket(query=f"?token={PARTNER}") as gone:
        async with door.websocket(query=f"?token={BOT}") as stays, door.events(f"channels=*&token={PARTNER}") as events:
            await _until(events, b'"type":"subscribed"')
            await gone.message()
            await stays.message()
            door.reload(ONLY_BOT)
            goodbye = await gone.message()
            assert (goodbye["type"], goodbye["code"]) == ("goodbye", 1008)
            closed = await gone.closed()
            assert (closed.code, closed.reason) == (1008, "token partner was revoked")
            assert b'"reason":"token partner was revoked"' in await _until(events, b'"type":"goodbye"')
            with trio.fail_after(SOON_S):
                while await events.receive_some():
                    pass
            await stays.say(type="ping")
            assert (await stays.message())["type"] == "pong"
        assert (await door.ask(f"/snapshot/binance_prices?token={PARTNER}")).status == 401


async def test_a_token_that_covers_something_else_is_to_come_back() -> None:
    async with open_door() as door:
        async with door.websocket(query=f"?token={PARTNER}") as client:
            await client.message()
            door.reload(TOKENS.replace("binance_*", "eth*"))
            assert (await client.message())["retry_after_s"] > 0
            closed = await client.closed()
            assert (closed.code, closed.reason) == (1013, "token partner was changed: connect again")
        async with door.websocket(query=f"?token={PARTNER}") as client:
            assert (await client.message())["channels"] == ["ethprice"]


async def test_who_was_let_in_before_and_comes_after_is_closed_too() -> None:
    """The handshake was judged under the old tokens; it is completed under the new ones."""
    async with open_door() as door:
        # As if the front door had judged it just before: it still knows the tokens, the sessions do not.
        door.daemon.serving.sessions.revoke(partial(access.ending, parse(ONLY_BOT, {}, "a test").policy().tokens))
        async with door.websocket(query=f"?token={PARTNER}") as client:
            assert (await client.message())["type"] == "welcome"
            assert (await client.closed()).reason == "token partner was revoked"
        async with door.websocket(query=f"?token={BOT}") as client:
            await client.message()


async def test_once_there_are_tokens_everybody_needs_one() -> None:
    async with open_door("") as door, door.websocket() as client:
        await client.message()
        door.reload(TOKENS)
        closed = await client.closed()
        assert (closed.code, closed.reason) == (1008, "a token is needed from now on")


async def test_the_next_request_of_a_connection_is_judged_by_the_tokens_in_force() -> None:
    request = f"GET /snapshot/binance_prices?token={PARTNER} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with open_door() as door, await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
        await stream.send_all(request)
        assert b"HTTP/1.1 200" in await _until(stream, b'"messages":')
        door.reload("[server]\nopen = true")
        await stream.send_all(request)
        assert b"HTTP/1.1 200" in await _until(stream, b'"messages":')
        door.reload(ONLY_BOT)
        await stream.send_all(request)
        assert b"HTTP/1.1 401" in await _until(stream, b'"type":"error"')


# None left.

NONE_LEFT = ["", "[tokens]\n", "[server]\nport = 8001\n", "[server]\nopen = false\n"]


@pytest.mark.parametrize("text", NONE_LEFT)
async def test_revoking_the_last_token_closes_the_door(text: str) -> None:
    async with open_door(ONLY_BOT) as door, door.websocket(query=f"?token={BOT}") as gone:
        await gone.message()
        door.reload(text)
        assert (await gone.closed()).reason == "token bot was revoked"
        for again in ("", text):
            for method, target, _ in GUARDED:
                for query in ("", f"{'&' if '?' in target else '?'}token={BOT}"):
                    asked = await door.ask(target + query, method=method)
                    assert asked.status == 401, (target, query)
            assert "no token is in force" in (await door.ask("/ws", "Authorization: Bearer x")).error["message"]
            door.reload(again)
        assert (await door.ask("/channels")).status == 200
        door.reload(ONLY_BOT)
        assert (await door.ask(f"/snapshot/ethprice?token={BOT}")).status == 200
        assert (await door.ask("/snapshot/ethprice")).status == 401


async def test_only_the_operators_word_opens_it_again() -> None:
    async with open_door(ONLY_BOT) as door:
        door.reload("")
        assert (await door.ask("/snapshot/ethprice")).status == 401
        door.reload("[server]\nopen = true\n")
        assert (await door.ask("/snapshot/ethprice")).status == 200
        door.reload("")
        assert (await door.ask("/snapshot/ethprice")).status == 200, "it was opened, and has not been closed since"
        door.reload("[server]\nopen = true\n" + ONLY_BOT)
        assert (await door.ask("/snapshot/ethprice")).status == 401, "where there are tokens one is needed"


async def test_an_empty_table_is_closed_from_the_start_and_no_table_is_open() -> None:
    for text, status in (("[tokens]\n", 401), ("", 200), ("[tokens]\n[server]\nopen = true\n", 200)):
        async with open_door(text) as door:
            assert (await door.ask("/snapshot/ethprice")).status == status
            assert (await door.ask("/ws/test", method="POST", body=b'{"message":"x"}')).status == status
