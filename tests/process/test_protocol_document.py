"""`protocol/PROTOCOL.md` is true: its examples are sent to a running demo, its tables are compared with the code.

A fenced block that is marked `json client` or `http client` is sent, one connection per section; each message of the
`json server` block behind it has to come. What comes has to have the same fields with values of the same kind, and the
same values but for those that no document can know (`VARYING`). A `json message` block is an example of what a demo
does not say. All of them are judged by the schemas of `/asyncapi.json`, too.
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple, get_args

import httpx
import msgspec
import pytest
from websockets.sync.client import connect

from daemon.front.limits import Limits
from protocol.answers import Cause
from protocol.codes import CloseCode, ErrorCode
from protocol.commands import Command
from protocol.kinds import MESSAGES
from tests.process.described import Description, Json

PATH = Path(__file__).resolve().parent.parent.parent / "protocol" / "PROTOCOL.md"
TEXT = PATH.read_text()

EPOCH = "k3vQ-0aYx1Tz"
"""Stands for the tape of whatever daemon is asked."""

VARYING = {
    *("timestamp", "since", "start", "end", "epoch", "version"),
    *("seq", "prev_seq", "exchange_ms", "received_ms", "price", "data"),
    *("before", "before_ms", "complete_from"),
    *("node", "leader", "clients"),
    *("age_s", "duration_s", "count", "messages", "clients", "more", "forgotten"),
    *("bid", "bid_size", "bid_exchange", "ask", "ask_size", "ask_exchange", "size", "side", "trade_id"),
    *("start_ms", "open", "high", "low", "close", "volume", "closed"),
}

STREAMS = "## 10. "
"""How the heading begins of what a demo with all presets says; everything else is said with the eight channels."""

BLOCK = re.compile(r"^```(json|http) (client|server|message)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One example."""

    language: str
    who: str
    text: str
    line: int


def sections() -> Iterator[tuple[str, list[Block]]]:
    """The examples by the heading above them."""
    for part in re.split(r"^(?=## )", TEXT, flags=re.MULTILINE):
        before = TEXT[: TEXT.index(part)].count("\n") + 1
        blocks = [
            Block(found[1], found[2], found[3], before + part[: found.start()].count("\n"))
            for found in BLOCK.finditer(part)
        ]
        if blocks:
            yield part.partition("\n")[0], blocks


SECTIONS = dict(sections())


def differences(shown: Json, came: Json, path: str = "$", *, shape_only: bool = False) -> list[str]:
    """In what a message that came is other than the document shows it."""
    if shown is None or came is None:
        return []  # where something may be absent, it may be absent
    if isinstance(shown, dict) and isinstance(came, dict):
        found = [f"{path}.{name}: {'missing' if name in shown else 'not shown'}" for name in shown.keys() ^ came.keys()]
        for name in shown.keys() & came.keys():
            loose = shape_only or name in VARYING
            found += differences(shown[name], came[name], f"{path}.{name}", shape_only=loose)
        return found
    if isinstance(shown, list) and isinstance(came, list):
        if not any(isinstance(each, dict | list) for each in shown):
            return [] if shape_only or shown == came else [f"{path}: {came!r}, shown {shown!r}"]
        by_item = [[differences(one, each, path, shape_only=True) for one in shown] for each in came]
        return [complaints[0][0] for complaints in by_item if all(complaints)]
    if kind(shown) != kind(came):
        return [f"{path}: {came!r}, shown {shown!r}"]
    return [] if shape_only or shown == came else [f"{path}: {came!r}, shown {shown!r}"]


def kind(value: Json) -> str:
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else type(value).__name__


def same_subject(shown: Json, came: Json) -> bool:
    """Whether the one could be an example of the other."""
    names = ("type", "connector_id", "channel", "instrument", "code")
    return all(shown.get(name) == came.get(name) for name in names)


@pytest.fixture(scope="module")
def description(eight_port: int) -> Description:
    return Description(httpx.get(f"http://localhost:{eight_port}/asyncapi.json").content)


@pytest.mark.parametrize("heading", [name for name, blocks in SECTIONS.items() if blocks[0].who != "message"])
def test_what_is_shown_is_what_comes(heading: str, demo_port: int, eight_port: int, description: Description) -> None:
    port = demo_port if heading.startswith(STREAMS) else eight_port
    told = 0
    with ExitStack() as open_ones:
        websocket = open_ones.enter_context(connect(f"ws://localhost:{port}/ws", max_size=None))
        welcome = json.loads(websocket.recv(timeout=10))
        spoken = chain([welcome], (json.loads(websocket.recv(timeout=10)) for _ in count()))
        answers: Iterator[Json] = spoken
        channel = "websocket"
        for block in SECTIONS[heading]:
            if block.who == "client" and block.language == "http":
                http = open_ones.enter_context(httpx.Client(base_url=f"http://localhost:{port}", timeout=10))
                channel = described_by(block.text, description)
                answers = (streamed if channel == "events" else asked)(http, block.text, open_ones)
            elif block.who == "client":
                command = json.loads(block.text.replace(EPOCH, welcome["epoch"]))
                if command.get("since", {}).get("epoch") == welcome["epoch"]:
                    command["since"]["seq"] = welcome["seq"]
                wrong = description.errors(command, f"#/components/schemas/{command['type'].title()}")
                assert bool(wrong) == is_refused(SECTIONS[heading], block), wrong
                websocket.send(json.dumps(command))
                answers, channel = spoken, "websocket"
            elif block.who == "server":
                for shown in objects(block.text):
                    came = next(each for each in answers if same_subject(shown, each))
                    text = json.dumps(shown).replace(EPOCH, welcome["epoch"])
                    assert differences(json.loads(text), came) == [], f"{PATH.name}:{block.line}"
                    assert description.complaints(shown, channel) == [], f"{PATH.name}:{block.line}"
                    assert description.complaints(came, channel) == []
                    told += 1
    assert told


def is_refused(blocks: list[Block], command: Block) -> bool:
    """Whether the answer that is shown says that the command is not as it must be."""
    return '"invalid_field"' in blocks[blocks.index(command) + 1].text


def objects(text: str) -> Iterator[Json]:
    """The JSON objects that stand one behind the other in a block."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]


def request_of(text: str) -> tuple[str, str, str]:
    """Method, target and body of an HTTP example."""
    head, _, body = text.strip().partition("\n\n")
    method, target = head.partition("\n")[0].split(" ")
    return method, target, body


def headers_of(text: str) -> dict[str, str]:
    """The headers of an HTTP example."""
    _, *lines = text.strip().partition("\n\n")[0].splitlines()
    return dict(line.split(": ", 1) for line in lines)


def described_by(text: str, description: Description) -> str:
    """The name of the channel that describes an HTTP example."""
    path = request_of(text)[1].partition("?")[0]
    path = re.sub(r"^/(snapshot|history)/.*", r"/\1/{channel}", path)
    [name] = [name for name, each in description.document["channels"].items() if each["address"] == path]
    return str(name)


def asked(http: httpx.Client, text: str, _open_ones: ExitStack) -> Iterator[Json]:
    """The one answer to a plain request."""
    method, target, body = request_of(text)
    yield json.loads(http.request(method, target, content=body or None, headers=headers_of(text)).content)


def streamed(http: httpx.Client, text: str, open_ones: ExitStack) -> Iterator[Json]:
    """What an event stream says; a data message's position is its event's `id`."""
    method, target, _ = request_of(text)
    answer = open_ones.enter_context(http.stream(method, target))
    position = ""
    for line in answer.iter_lines():
        if line.startswith("id: "):
            position = line.removeprefix("id: ")
        elif line.startswith("data: "):
            message = json.loads(line.removeprefix("data: "))
            if "seq" in message and "prev_seq" in message:
                assert position.rpartition("-")[2] == str(message["seq"])
            yield message


def test_what_a_demo_does_not_say_is_shown_as_it_would_be(description: Description) -> None:
    blocks = [block for blocks in SECTIONS.values() for block in blocks if block.who == "message"]
    shown = [each for block in blocks for each in objects(block.text)]
    assert {each["type"] for each in shown} >= {"lagged", "goodbye", "status"}
    for each in shown:
        assert description.complaints(each, "websocket") == []


def test_every_json_block_is_marked() -> None:
    fences = re.findall(r"^```(\S.*)$", TEXT, re.MULTILINE)
    assert len(fences) > 20
    assert {*fences} == {"json client", "json server", "json message", "http client"}


def rows(first: str) -> list[list[str]]:
    """A table's rows, as lists of cells, by the first cell of its head."""
    table = TEXT.split(f"| {first} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:]]


def test_the_codes_are_all_there() -> None:
    named = {name for row in rows("`code` of an `error`") for name in re.findall(r"`(\w+)`", row[0])}
    assert named == {code.value for code in ErrorCode}
    closing = {int(row[0]): row[2].startswith("yes") for row in rows("close code")}
    assert closing == {code.value: code.may_reconnect for code in CloseCode}


def test_the_limits_are_the_defaults() -> None:
    for row in rows("limit, `[limits]` in the configuration"):
        keys = [name for name in re.findall(r"`(\w+)`", row[0]) if name in Limits.__struct_fields__]
        values = [float(each) for each in row[1].split(",")]
        assert [float(getattr(Limits(), key)) for key in keys] == values, row


def test_everything_that_is_said_has_its_word(description: Description) -> None:
    for name in description.said_by_daemon("websocket") | {"subscribe", "unsubscribe", "ping"}:
        assert f"`{name}`" in TEXT or f'"{name}"' in TEXT, name
    for channel in description.document["channels"].values():
        assert f" {channel['address']}" in TEXT
    for command in get_args(Command):
        for field in msgspec.structs.fields(command):
            assert f"`{field.name}`" in TEXT, field.name
    for cause in get_args(Cause):
        assert f"`{cause}`" in TEXT, cause
    types = {row[1].strip("`") for row in rows("channel")}
    assert types == {message.__struct_config__.tag for message in MESSAGES}


def test_a_difference_is_seen() -> None:
    shown = {"type": "a", "seq": 1, "of": [{"x": 1.5}], "names": ["b"]}
    assert differences(shown, {"type": "a", "seq": 7, "of": [{"x": 2}, {"x": 3}], "names": ["b"]}) == []
    for other in (
        {**shown, "type": "b"},
        {**shown, "seq": "1"},
        {**shown, "more": 1},
        {**shown, "of": [{"x": "1.5"}]},
        {**shown, "of": [{"x": 1, "y": 1}]},
        {**shown, "names": ["c"]},
        {"type": "a", "seq": 1, "of": []},
    ):
        assert differences(shown, other) != [], other
