"""`/asyncapi.json` is consistent in itself, complete, and about this daemon.

That it is a valid AsyncAPI 3.0.0 document is shown here by its structure; the official schema is not at hand offline.
"""

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from daemon.config.load import parse
from daemon.front.http import Request
from daemon.routes import asyncapi
from daemon.routes.asyncapi import Description, describe
from daemon.routes.page import FILES
from protocol.channels import Catalogue
from protocol.commands import Command
from protocol.messages import ControlMessage, DataMessage, ServerInfo
from tests.daemon.routes.test_routes import Daemon

SERVER = ServerInfo("tickerd", "1.2.3")
CATALOGUE = parse("", {}, "the defaults").catalogue()


def document(catalogue: Catalogue = CATALOGUE, *, tokens: bool = False, **request: Any) -> dict[str, Any]:
    asked = Request(method="GET", path="/asyncapi.json", peer="127.0.0.1", **request)
    answer = Description(SERVER).answer(asked, catalogue, tokens=tokens)
    assert (answer.status, answer.content_type) == (200, "application/json")
    made: dict[str, Any] = json.loads(answer.body)
    return made


DOCUMENT = document()


def resolve(reference: str) -> Any:
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_reference_resolves() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 50
    for reference in found:
        assert isinstance(resolve(reference), dict), reference


def test_every_operation_stands_on_its_channel() -> None:
    for name, operation in DOCUMENT["operations"].items():
        assert operation["action"] in ("send", "receive")
        here = operation["channel"]["$ref"]
        assert resolve(here)["address"].startswith("/")
        for part in (operation, operation.get("reply", {"channel": {"$ref": here}, "messages": []})):
            assert part["channel"]["$ref"] == here
            for message in part["messages"]:
                assert message["$ref"].startswith(f"{here}/messages/"), name
                assert "$ref" in resolve(message["$ref"])


def test_every_channel_has_a_server_and_its_messages_are_used() -> None:
    used = {each for operation in DOCUMENT["operations"].values() for each in references(operation)}
    for name, channel in DOCUMENT["channels"].items():
        assert [resolve(each["$ref"])["host"] for each in channel["servers"]] == ["localhost"]
        for message in channel["messages"]:
            assert f"#/channels/{name}/messages/{message}" in used


def test_every_schema_is_valid() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)
        Draft202012Validator.check_schema(schema)


def test_every_struct_of_the_unions_is_there() -> None:
    messages = DOCUMENT["components"]["messages"]
    for struct in (*get_args(Command), *get_args(DataMessage), *get_args(ControlMessage)):
        tag = struct.__struct_config__.tag
        assert messages[tag]["payload"] == {"$ref": f"#/components/schemas/{struct.__name__}"}
        channels = ("websocket", "packed") if tag != "test_response" else ("test",)
        for channel in channels:
            assert tag in DOCUMENT["channels"][channel]["messages"], tag
    sent = {message["name"] for key, message in messages.items() if key.startswith("packed.")}
    assert sent == {struct.__struct_config__.tag for struct in (*get_args(Command), *get_args(DataMessage))} | {
        struct.__struct_config__.tag for struct in get_args(ControlMessage)
    } - {"test_response"}


def test_every_command_is_answered() -> None:
    assert tuple(asyncapi.ANSWERS) == get_args(Command)
    for command in ("subscribe", "unsubscribe", "ping"):
        for prefix in ("", "packed."):
            [_, error] = DOCUMENT["operations"][prefix + command]["reply"]["messages"]
            assert error["$ref"].endswith("/messages/error")


def test_examples_are_what_they_are_examples_of() -> None:
    shown = 0
    for message in DOCUMENT["components"]["messages"].values():
        schema = {**message["payload"], "components": DOCUMENT["components"]}
        for example in message.get("examples", []):
            shown += 1
            assert list(Draft202012Validator(schema).iter_errors(example["payload"])) == []
    assert shown >= 4


def test_it_is_about_the_channels_of_this_daemon() -> None:
    listed = DOCUMENT["channels"]["websocket"]["x-channels"]
    assert [each["name"] for each in listed] == list(CATALOGUE.names)
    assert DOCUMENT["components"]["messages"]["price_update"]["x-channels"] == [
        *("binance_prices", "bitcoinprice", "ethprice")
    ]
    assert DOCUMENT["info"]["title"] == "tickerd"
    assert DOCUMENT["info"]["version"] == "1.2.3"
    empty = document(Catalogue([]))
    assert empty["channels"]["websocket"]["x-channels"] == []


@pytest.mark.parametrize(
    ("headers", "secure", "host", "protocols"),
    [
        ((("host", "prices.example:8443"),), True, "prices.example:8443", {"wss", "https"}),
        ((("host", "[::1]:8000"),), False, "[::1]:8000", {"ws", "http"}),
        ((("host", 'x"/<script>'),), False, "localhost", {"ws", "http"}),
        ((), False, "localhost", {"ws", "http"}),
    ],
)
def test_the_servers_are_where_the_client_found_it(
    headers: tuple[tuple[str, str], ...], secure: bool, host: str, protocols: set[str]
) -> None:
    servers = document(headers=headers, secure=secure)["servers"]
    assert {each["host"] for each in servers.values()} == {host}
    assert {each["protocol"] for each in servers.values()} == protocols


def test_tokens_are_asked_for_where_there_are_any() -> None:
    assert "security" not in json.dumps([DOCUMENT["servers"], DOCUMENT["operations"]])
    guarded = document(tokens=True)
    schemes = [{"$ref": "#/components/securitySchemes/bearer"}, {"$ref": "#/components/securitySchemes/token"}]
    assert guarded["servers"]["websocket"]["security"] == schemes
    asked = {name for name, operation in guarded["operations"].items() if operation.get("security") == schemes}
    assert asked == {"snapshot", "history", "events", "cluster", "test"}


def test_it_is_made_once_per_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Catalogue] = []

    def counted(server: ServerInfo, catalogue: Catalogue, *, tokens: bool) -> dict[str, Any]:
        made.append(catalogue)
        return describe(server, catalogue, tokens=tokens)

    monkeypatch.setattr(asyncapi, "describe", counted)
    description = Description(SERVER)
    request = Request(method="GET", path="/asyncapi.json", peer="127.0.0.1")
    other = Catalogue(CATALOGUE)
    for catalogue, tokens in ((CATALOGUE, False), (CATALOGUE, False), (other, False), (other, True), (other, True)):
        description.answer(request, catalogue, tokens=tokens)
    assert made == [CATALOGUE, other, other]


NOT_JSON = FILES.keys() | {"/metrics"}
"""The page's files and the figures: they have formats of their own. The document does not describe itself either."""


def test_every_route_is_described() -> None:
    described = {channel["address"] for channel in DOCUMENT["channels"].values()}
    plain = Daemon().routes().paths - NOT_JSON - {"/asyncapi.json"}
    assert described == {"/ws", "/snapshot/{channel}", "/history/{channel}", "/events"} | plain
