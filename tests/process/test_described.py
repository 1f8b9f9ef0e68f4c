"""What a running demo says is as `/asyncapi.json` describes it, field by field, and all that it describes is said."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import msgspec
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from protocol.codes import ErrorCode
from protocol.messages import Format, Lagged, encode_as
from tests.process.described import Description, Json
from tests.process.minute import Minute
from tests.process.running import tickerd, wait_ready

MSGPACK = "tickerd.v1.msgpack"
DATA = {"price_update", "ticker_update", "orderbook_update", "market_update", "top_update", "trending_update"}

STREAMED = ("/ws", "/events")

BUILT = {"lagged"}
"""Messages that an unhurried client does not get; another test encodes and judges them."""

UNREACHED = {
    *("unauthorized", "timeout", "full", "unavailable", "internal", "interval_refused"),
}
"""Error codes of daemons that are configured otherwise, stopping, full or broken, or have other channels than the
demo. Their messages have the same form."""


class Listener:
    """One client, which keeps all it is told; `channel` of the description says how it speaks."""

    def __init__(self, port: int, channel: str, open_ones: ExitStack) -> None:
        self.channel = channel
        self.packed = channel == "packed"
        offered = [Subprotocol(MSGPACK)] if self.packed else None
        connection = connect(f"ws://localhost:{port}/ws", max_size=None, max_queue=None, subprotocols=offered)
        self.websocket: ClientConnection = open_ones.enter_context(connection)
        self.heard: list[Json] = []

    def say(self, command: Json) -> None:
        self.websocket.send(msgspec.msgpack.encode(command) if self.packed else json.dumps(command))

    def hear(self, *types: str, code: str | None = None) -> Json:
        """Listen until a message of each of these types came (and, with `code`, such an error); the last one."""
        wanted = set(types)
        while True:
            message = self.hear_one()
            if message["type"] in wanted and (code is None or message.get("code") == code):
                wanted.discard(message["type"])
            if not wanted:
                return message

    def hear_one(self) -> Json:
        raw = self.websocket.recv(timeout=15)
        assert isinstance(raw, bytes) == self.packed
        message = msgspec.msgpack.decode(raw) if isinstance(raw, bytes) else json.loads(raw)
        self.heard.append(message)
        return message

    def hear_out(self) -> None:
        """Listen until the daemon closes."""
        with suppress(ConnectionClosed):
            while True:
                self.hear_one()


class Stream(threading.Thread):
    """A client of Server-Sent Events, until the daemon ends the stream."""

    channel = "events"

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.url = f"http://localhost:{port}/events?channels=*,nothing"
        self.heard: list[Json] = []
        self.started = threading.Event()

    def run(self) -> None:
        with httpx.stream("GET", self.url, timeout=30) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.heard.append(json.loads(line.removeprefix("data: ")))
                    self.started.set()


class Told:
    """All that one demo said to clients that did everything there is to do, until it was stopped."""

    def __init__(
        self, description: Description, listeners: list[Listener | Stream], answers: list[tuple[str, Json]]
    ) -> None:
        self.description = description
        self.messages = [(each.channel, message) for each in listeners for message in each.heard]
        self.answers = answers


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with tickerd("demo", "--port", "0") as process, ExitStack() as open_ones:
        wait_ready(process.port)
        port = process.port
        described = httpx.get(f"http://localhost:{port}/asyncapi.json")
        description = Description(described.content)
        stream = Stream(port)
        stream.start()
        assert stream.started.wait(15)
        listeners = [Listener(port, channel, open_ones) for channel in ("websocket", "packed")]
        for listener in listeners:
            _do_everything(listener)
        answers = list(_ask_everything(f"http://localhost:{port}"))
        for listener in listeners:
            listener.hear("test", *DATA)
            listener.say({"type": "subscribe", "channels": ["bitcoinprice"], "since": {"epoch": "other", "seq": 1}})
            listener.hear("subscribed", "status")
        too_fast = Listener(port, "websocket", open_ones)
        for _ in range(130):
            too_fast.say({"type": "ping"})
        too_fast.hear("error", code="rate_limited")
        assert process.stop() == 0
        listeners.append(too_fast)
        for listener in listeners:
            listener.hear_out()
        stream.join(15)
        yield Told(description, [*listeners, stream], answers)


def _do_everything(listener: Listener) -> None:
    """Every command with every option, and every mistake that a command can make."""
    say, hear = listener.say, listener.hear
    welcome = hear("welcome")
    say({"type": "ping", "id": 9, "data": {"any": ["value", None, 1.5]}})
    hear("pong")
    say({"type": "ping"})
    hear("pong")
    for refused, code in (
        ({"type": "dance", "id": "x"}, "unknown_type"),
        ([1], "malformed"),
        ({"type": "subscribe", "channels": "bitcoinprice", "id": 1.5}, "invalid_field"),
        ({"type": "subscribe", "channels": ["bitcoin_price"]}, "unknown_channel"),
        ({"type": "subscribe", "channels": ["bitcoinprice"], "instruments": ["A/B"]}, "unknown_instrument"),
        ({"type": "subscribe", "channels": ["bitcoinprice"] * 65}, "too_many_channels"),
    ):
        say(refused)
        hear("error", code=code)
    since = {"epoch": welcome["epoch"], "seq": welcome["seq"]}
    say({"type": "subscribe", "channels": ["bitcoinprice"], "since": since, "snapshot": True, "id": "again"})
    hear("subscribed", "status", "price_update")
    say({"type": "unsubscribe", "channels": ["bitcoinprice"], "id": 8})
    hear("unsubscribed")
    say({"type": "subscribe", "channels": ["ethprice"], "interval_ms": 100})
    hear("subscribed", "price_update")
    say({"type": "subscribe", "channels": ["*"]})
    hear("subscribed", "status")


def _ask_everything(base: str) -> Iterator[tuple[str, Json]]:
    """Every plain route, and every refusal that can be had; each answer with the channel that describes it."""
    with httpx.Client(base_url=base) as http:

        def ask(channel: str, status: int, path: str, method: str = "GET", **options: Any) -> tuple[str, Json]:
            answer = http.request(method, path, **options)
            assert answer.status_code == status, answer.text
            return channel, json.loads(answer.content)

        yield ask("health", 200, "/healthz")
        yield ask("readiness", 200, "/readyz")
        yield ask("catalogue", 200, "/channels")
        for channel in json.loads(http.get("/channels").content)["channels"]:
            yield ask("snapshot", 200, f"/snapshot/{channel['name']}")
        yield ask("snapshot", 200, "/snapshot/binance_prices?instrument=BTC/USDT")
        yield ask("snapshot", 404, "/snapshot/nothing")
        yield ask("snapshot", 404, "/snapshot/binance_prices?instrument=A/B")
        yield ask("history", 200, "/history/binance_prices?limit=3")
        yield ask("history", 200, "/history/binance_prices?instrument=BTC/USDT&before=1")
        yield ask("history", 404, "/history/nothing")
        yield ask("history", 400, "/history/binance_prices?limit=0")
        yield ask("gaps", 200, "/gaps")
        yield ask("gaps", 200, "/gaps?channel=bitcoinprice&since_ms=1&limit=5")
        yield ask("gaps", 400, "/gaps?limit=none")
        yield ask("cluster", 200, "/cluster")
        yield ask("test", 200, "/ws/test", "POST", json={"message": "Hello, WebSocket!"})
        yield ask("test", 400, "/ws/test", "POST", content=b"{", headers={"Content-Type": "application/json"})
        yield ask("test", 400, "/ws/test", "POST", json={})
        yield ask("test", 403, "/ws/test", "POST", json={"message": ""}, headers={"Origin": "http://else.where"})
        yield ask("test", 415, "/ws/test", "POST", content=b"{}")
        yield ask("test", 405, "/ws/test", "PUT")
        yield ask("test", 413, "/ws/test", "POST", content=b" " * 70_000)
        yield ask("health", 404, "/nothing")
        yield ask("test", 426, "/ws")


def test_every_message_is_as_described(told: Told) -> None:
    wrong = {
        f"{channel} {message['type']} {complaint}"
        for channel, message in told.messages
        for complaint in told.description.complaints(message, channel)
    }
    assert wrong == set()


def test_every_answer_over_http_is_as_described(told: Told) -> None:
    for channel, answer in told.answers:
        assert told.description.complaints(answer, channel) == [], answer
    routes = {name for name, each in told.description.document["channels"].items() if each["address"] not in STREAMED}
    assert {channel for channel, _ in told.answers} == routes


def test_every_described_message_was_said(told: Told) -> None:
    for channel in ("websocket", "packed", "events"):
        said = {message["type"] for name, message in told.messages if name == channel}
        assert told.description.said_by_daemon(channel) == said | BUILT, channel
    answered = Counter((channel, answer["type"]) for channel, answer in told.answers)
    for channel in {channel for channel, _ in told.answers}:
        for type_ in told.description.said_by_daemon(channel) - {"error"}:
            assert answered[channel, type_], (channel, type_)


def test_every_error_code_was_said_that_can_be(told: Told) -> None:
    every = [message for _, message in (*told.messages, *told.answers) if message["type"] == "error"]
    assert {each["code"] for each in every} == {code.value for code in ErrorCode} - UNREACHED


def test_the_messages_of_clients_in_trouble_are_as_described(told: Told) -> None:
    lagged = Lagged(timestamp="2025-12-08T16:30:45.123Z", missed=3, from_seq=1, to_seq=9, by_channel={"a": 3})
    in_json = json.loads(encode_as(lagged, Format.JSON))
    assert told.description.complaints(in_json, "websocket") == []
    packed = msgspec.msgpack.decode(encode_as(lagged, Format.MSGPACK))
    assert told.description.complaints(packed, "packed") == []


def test_a_message_is_judged_by_its_own_format(told: Told) -> None:
    channel, price = next(each for each in told.messages if each[1]["type"] == "price_update")
    assert channel == "websocket"
    assert told.description.complaints(price, "packed") != []
    assert told.description.complaints({**price, "price": str(price["price"])}, "websocket") != []


def test_the_judge_can_refuse(told: Told) -> None:
    _, price = next(each for each in told.messages if each[1]["type"] == "price_update")
    for wrong in (
        {**price, "surprise": 1},
        {**price, "seq": "1"},
        {**price, "timestamp": "yesterday"},
        {**price, "data": {"price": 1}},
        {name: value for name, value in price.items() if name != "prev_seq"},
        {**price, "type": "no_update"},
    ):
        assert told.description.complaints(wrong, "websocket") != [], wrong


def test_every_message_of_a_minute_is_as_described(minute: Minute | None) -> None:
    assert minute is not None
    description = Description(httpx.get(f"http://localhost:{minute.port}/asyncapi.json").content)
    seen = [message for _, message in minute.seen()]
    wrong = {complaint for message in seen for complaint in description.complaints(message, "websocket")}
    assert wrong == set()
    assert {message["type"] for message in seen} >= DATA
