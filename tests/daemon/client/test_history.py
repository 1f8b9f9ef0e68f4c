"""`history` of both clients, against the daemon's own front door: below a prefix, with a token, over TLS."""

import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from connectors.base import Event
from daemon.client import ClientError, CommandRefused, History, NotUnderstood, PriceUpdate, ServerUnavailable, connect
from daemon.client.core.endpoint import Endpoint, endpoint
from daemon.client.core.history import Question
from daemon.client.trio.history import ask
from protocol.codes import ErrorCode
from tests.daemon.front.test_admitted import PARTNER, TOKENS, Door, open_door
from tests.daemon.serving import SOON_S, certificate

CLIENT = Path(__file__).parents[3] / "daemon" / "routes" / "web" / "client.js"
BTC = "BTC/USDT"


def fill(door: Door, count: int = 5) -> None:
    for number in range(1, count + 1):
        event = Event("binance_prices", BTC, b'{"symbol":"BTCUSDT"}', 1, price=f"{number}.50")
        door.daemon.ingesting.sequencer.publish([(event,)])


def prices(found: History) -> list[str]:
    return [bytes(each.price).decode() for each in found.messages if isinstance(each, PriceUpdate)]  # type: ignore[arg-type]


async def test_what_was_comes_typed_and_goes_on_further_back() -> None:
    async with open_door("") as door:
        fill(door)
        async with connect(f"ws://127.0.0.1:{door.port}/ws") as client:
            found = await client.history("binance_prices", instrument=BTC, limit=2)
            assert prices(found) == ["4.50", "5.50"]
            assert (found.more, found.before_ms, found.reason, found.epoch) == (True, None, "", client.welcome.epoch)
            assert found.seq == door.daemon.tape.head
            older = await client.history("binance_prices", before=found.before)
            assert prices(older) == ["1.50", "2.50", "3.50"]
            assert (older.more, older.before) == (False, None)


async def test_below_a_prefix_and_with_a_token() -> None:
    async with open_door(f'[server]\nprefix = "/feed"\n{TOKENS}') as door:
        fill(door)
        async with connect(f"ws://127.0.0.1:{door.port}/feed/ws", token=PARTNER) as client:
            assert len(prices(await client.history("binance_prices"))) == 5
            with pytest.raises(CommandRefused, match="the token does not cover bitcoinprice") as caught:
                await client.history("bitcoinprice")
            assert caught.value.code == ErrorCode.FORBIDDEN


async def test_over_tls(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    async with open_door(f'[server]\ncertificate = "{pem}"\nkey = "{key}"\n') as door:
        fill(door)
        trusting = ssl.create_default_context(cafile=pem)
        async with connect(f"wss://localhost:{door.port}/ws", ssl_context=trusting) as client:
            assert len(prices(await client.history("binance_prices"))) == 5


@pytest.mark.parametrize(
    ("channel", "query", "code", "told"),
    [
        ("binance_price", {}, ErrorCode.UNKNOWN_CHANNEL, "no channel 'binance_price'; nearest: binance_prices"),
        ("a/b?c#d", {}, ErrorCode.UNKNOWN_CHANNEL, "no channel 'a/b\\?c#d'"),
        (
            "binance_prices",
            {"instrument": "A/B"},
            ErrorCode.UNKNOWN_INSTRUMENT,
            "no instrument 'A/B' in binance_prices",
        ),
        ("binance_prices", {"limit": 0}, ErrorCode.INVALID_FIELD, "limit is '0'; allowed"),
        ("binance_prices", {"before": 0}, ErrorCode.INVALID_FIELD, "before is '0'; allowed"),
        ("binance_prices", {"before_ms": 1}, ErrorCode.INVALID_FIELD, "it is for candles"),
    ],
)
async def test_what_is_refused_is_the_daemons_word(
    channel: str, query: dict[str, Any], code: ErrorCode, told: str
) -> None:
    async with open_door("") as door, connect(f"ws://127.0.0.1:{door.port}/ws") as client:
        with pytest.raises(CommandRefused, match=told) as caught:
            await client.history(channel, **query)
        assert caught.value.code == code


@asynccontextmanager
async def answering(sent: bytes, *, slow: bool = False) -> AsyncIterator[Endpoint]:
    """A server that says these bytes and hangs up."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(sent)
            if slow:
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        yield endpoint(f"127.0.0.1:{port}", token="", ssl_context=None, timeout_s=SOON_S, retry_base_s=1, retry_cap_s=1)
        nursery.cancel_scope.cancel()


def http(status: str, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status.encode(), b"Content-Length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(lines)


ERROR = b'{"type":"error","timestamp":"2025-12-08T16:30:45.123Z","code":"rate_limited","message":"too many"}'


@pytest.mark.parametrize(
    ("sent", "type_", "told"),
    [
        (http("429 Too Many", ERROR, b"Retry-After: 7"), ServerUnavailable, "HTTP 429: too many"),
        (http("502 Bad Gateway", b"<html>"), ServerUnavailable, "answered with HTTP 502"),
        (http("404 Not Found", b"<html>"), ServerUnavailable, "answered with HTTP 404"),
        (http("200 OK", b"<html>"), NotUnderstood, "which is no history"),
        (http("200 OK", b'{"type":"snapshot"}'), NotUnderstood, "which is no history"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", NotUnderstood, "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", ServerUnavailable, "the connection was lost"),
        (b"", ServerUnavailable, "the connection was lost"),
    ],
)
async def test_whatever_else_answers_is_told_apart(sent: bytes, type_: type[ClientError], told: str) -> None:
    async with answering(sent) as there:
        with pytest.raises(type_, match=told) as caught:
            await ask(there, Question(there, "c"))
        if isinstance(caught.value, ServerUnavailable) and b"Retry-After" in sent:
            assert caught.value.retry_after_s == 7.0


async def test_an_answer_that_does_not_come_is_waited_for_so_long_and_no_longer() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n", slow=True) as there:
        question = Question(there, "c")
        question.wait_s = 0.2
        with pytest.raises(ServerUnavailable, match=r"did not answer in 0\.2 s"):
            await ask(there, question)


DRIVER = """
globalThis.WebSocket = class {};
globalThis.location = new URL(process.argv[3]);
globalThis.addEventListener = () => {};
const {connect} = await import(process.argv[2]);
const client = connect('ws', {token: process.argv[4] || undefined});
for (const [channel, query] of JSON.parse(process.argv[5])) {
  try {
    console.log(JSON.stringify(await client.history(channel, query)));
  } catch ({message, code}) {
    console.log(JSON.stringify({message, code}));
  }
}
process.exit(0);
"""


async def asked(url: str, token: str, *questions: tuple[str, dict[str, Any]]) -> list[Any]:
    """What `client.js` makes of these in Node, on a page at that URL."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here; Debian and Ubuntu have it: apt-get install nodejs")
    command = [node, "--input-type=module", "-e", DRIVER, "-", CLIENT.as_uri(), url, token, json.dumps(questions)]
    ran = await trio.run_process(command, capture_stdout=True)
    return [json.loads(line) for line in ran.stdout.splitlines()]


async def test_client_js_gives_a_promise_of_what_was() -> None:
    async with open_door(f'[server]\nprefix = "/feed"\n{TOKENS}') as door:
        fill(door)
        newest, older, nothing, wrong = await asked(
            f"http://127.0.0.1:{door.port}/feed/",
            PARTNER,
            ("binance_prices", {"instrument": BTC, "limit": 2}),
            ("binance_prices", {"before": 4}),
            ("bitcoinprice", {}),
            ("binance_prices", {"limit": 0}),
        )
        assert [each["price"] for each in newest["messages"]] == [4.5, 5.5]
        assert (newest["more"], newest["instrument"]) == (True, BTC)
        assert [each["price"] for each in older["messages"]] == [1.5, 2.5, 3.5]
        assert nothing == {"message": "the token does not cover bitcoinprice", "code": "forbidden"}
        assert wrong["code"] == "invalid_field"


async def test_client_js_says_what_another_answer_is() -> None:
    async with answering(http("502 Bad Gateway", b"<html>")) as there:
        [refused] = await asked(f"http://127.0.0.1:{there.address.port}/", "", ("c", {}))
        assert refused == {"message": "HTTP 502"}


def test_the_driver_is_run_by_a_node_that_fetches() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here; Debian and Ubuntu have it: apt-get install nodejs")
    ran = subprocess.run([node, "-p", "typeof fetch"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "function"
