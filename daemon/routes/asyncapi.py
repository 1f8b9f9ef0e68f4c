"""`GET /asyncapi.json`: the daemon's interface as an AsyncAPI 3.0.0 document, made from the Structs of `protocol/`.

The messages' schemas and descriptions come from the Structs (see `protocol.schemas`). This file adds only where each
message occurs: at which address, who sends it, and what answers it.

The document describes the daemon, so *receive* is what the daemon receives: a client does the opposite
(https://www.asyncapi.com/docs/reference/specification/v3.0.0). A plain HTTP route is an operation with a reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, get_args

import msgspec
from msgspec import Raw

from daemon.front.access import is_guarded
from daemon.front.http import Request, Response
from daemon.routes.gaps import MOST as MOST_GAPS
from daemon.routes.history import MOST as MOST_HISTORY
from protocol.answers import ChannelList, ClusterReport, GapList, Health, History, Readiness, Snapshot, TestRequest
from protocol.channels import Catalogue, Channel
from protocol.codes import CloseCode
from protocol.commands import LEAST_INTERVAL_MS, MOST_INTERVAL_MS
from protocol.kinds import MESSAGES, PAYLOADS
from protocol.messages import (
    Command,
    ControlMessage,
    Data,
    Error,
    Format,
    Ping,
    Pong,
    ServerInfo,
    Subscribe,
    Subscribed,
    TestResponse,
    Unsubscribe,
    Unsubscribed,
)
from protocol.schemas import Object, docstring, schema_name, schemas

Message: TypeAlias = type[msgspec.Struct]

ANSWERS: Final[dict[type[Command], tuple[Message, ...]]] = {
    Subscribe: (Subscribed, Error),
    Unsubscribe: (Unsubscribed, Error),
    Ping: (Pong, Error),
}
"""The answers to each command."""

UNASKED: Final[tuple[Message, ...]] = tuple(
    struct for struct in get_args(ControlMessage) if struct not in (Subscribed, Unsubscribed, Pong, TestResponse)
)
"""Control messages that the daemon sends without a command."""

EVENTS: Final[tuple[Message, ...]] = (Subscribed, *MESSAGES, *UNASKED)
"""The messages of an event stream, which subscribes by its query."""

_INSTRUMENT: Final = {"instrument": {"type": "string", "description": "Only this one, such as `BTC/USDT`."}}
_GAPS: Final = {
    "channel": {"type": "string", "description": "Only this channel's gaps, and those that concern all."},
    "since_ms": {"type": "integer", "minimum": 0, "description": "Only gaps that lasted beyond it; ms since 1970."},
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST_GAPS, "description": "So many at most."},
}

_PAST: Final = {
    **_INSTRUMENT,
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST_HISTORY, "description": "So many messages at most."},
    "before": {"type": "integer", "minimum": 1, "description": "Only messages before this `seq`."},
    "before_ms": {"type": "integer", "minimum": 0, "description": "Only candles that began before; ms since 1970."},
}

_LISTED: Final = "separated by commas"
_EVENTS: Final = {
    "channels": {"type": "string", "description": f"Names, {_LISTED}; `*` for all. As in `subscribe`, and so are:"},
    "instruments": {"type": "string", "description": f"Only these, {_LISTED}."},
    "interval_ms": {
        "type": "integer",
        "minimum": LEAST_INTERVAL_MS,
        "maximum": MOST_INTERVAL_MS,
        "description": "At most one message per topic in this time.",
    },
    "snapshot": {"type": "boolean", "description": "Whether the newest messages come first."},
    "last_event_id": {"type": "string", "description": "For clients that cannot set the header `Last-Event-ID`."},
}

_STREAM: Final = "Server-Sent Events: the `data` of each is one message, the `id` the position to come back to."


class Route(msgspec.Struct, frozen=True):
    """An HTTP route: a request and its answers. An `error` may come instead."""

    name: str
    method: str
    address: str
    answers: tuple[Message, ...]
    body: Message | None = None
    query: Object = {}
    description: str = ""


ROUTES: Final = (
    Route("health", "GET", "/healthz", (Health,)),
    Route("readiness", "GET", "/readyz", (Readiness,)),
    Route("catalogue", "GET", "/channels", (ChannelList,)),
    Route("snapshot", "GET", "/snapshot/{channel}", (Snapshot,), query=_INSTRUMENT),
    Route("history", "GET", "/history/{channel}", (History,), query=_PAST),
    Route("gaps", "GET", "/gaps", (GapList,), query=_GAPS),
    Route("cluster", "GET", "/cluster", (ClusterReport,)),
    Route("events", "GET", "/events", EVENTS, query=_EVENTS, description=_STREAM),
    Route("test", "POST", "/ws/test", (TestResponse,), body=TestRequest),
)

_SECURITY: Final = {"security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in ("bearer", "token")]}
"""Either of them is enough."""

_JSON: Final = "application/json"
_MSGPACK: Final = "application/msgpack"
_HOST: Final = re.compile(r"[A-Za-z0-9._\-:\[\]]{1,255}")
_ELSEWHERE: Final = "localhost"
"""The host in the document for a client that sent no usable `Host` header."""


class Description:
    """The document, cached for the catalogue that it was last made for."""

    def __init__(self, server: ServerInfo) -> None:
        self._server = server
        self._made_for: tuple[Catalogue, bool] | None = None
        self._parts: dict[str, Raw] = {}

    def answer(self, request: Request, catalogue: Catalogue, *, tokens: bool) -> Response:
        """The document for this client; its servers have the address that the client used.

        `tokens`: whether a token is needed.
        """
        if self._made_for is None or self._made_for[0] is not catalogue or self._made_for[1] != tokens:
            parts = describe(self._server, catalogue, tokens=tokens)
            self._parts = {name: Raw(msgspec.json.encode(part)) for name, part in parts.items()}
            self._made_for = catalogue, tokens
        host = next((value for value in request.values("host") if _HOST.fullmatch(value)), _ELSEWHERE)
        named = servers(host, secure=request.secure, tokens=tokens, prefix=request.prefix)
        return Response(200, msgspec.json.encode({**self._parts, "servers": named}))


def servers(host: str, *, secure: bool, tokens: bool, prefix: str = "") -> Object:
    """The one port with its two protocols; `host` includes the port if the client named one.

    `prefix`: what stands before the paths in this client's URLs.
    """
    safety = "s" if secure else ""
    place = {"host": host, **({"pathname": prefix} if prefix else {})}
    websocket = {**place, "protocol": f"ws{safety}", "description": "Commands and messages."}
    return {
        "websocket": {**websocket, **(_SECURITY if tokens else {})},
        "http": {**place, "protocol": f"http{safety}", "description": "Plain requests, and event streams."},
    }


def describe(server: ServerInfo, catalogue: Catalogue, *, tokens: bool) -> Object:
    """The document without its `servers`."""
    commands = tuple(ANSWERS)
    spoken = {"websocket": _JSON, "packed": _MSGPACK}
    bodies = [body for route in ROUTES for body in (*route.answers, route.body) if body is not None]
    messages = {
        _key(struct, kind): _message(struct, kind, catalogue)
        for kind in spoken.values()
        for struct in (*commands, *MESSAGES, *UNASKED, *(each for answers in ANSWERS.values() for each in answers))
    }
    messages |= {_key(body, _JSON): _message(body, _JSON, catalogue) for body in bodies}
    channels: Object = {}
    operations: Object = {}
    for name, kind in spoken.items():
        channels[name] = _websocket(name, kind, catalogue)
        operations |= _conversation(name, kind)
    for route in ROUTES:
        channels[route.name], operation = _route(route, catalogue)
        operations[route.name] = {**operation, **(_SECURITY if tokens and is_guarded(route.address) else {})}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": server.name,
            "version": server.version,
            "description": "Live crypto prices of several exchanges: one protocol, numbered messages, one port.",
        },
        "defaultContentType": _JSON,
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas([*commands, *MESSAGES, *get_args(ControlMessage), *bodies, *PAYLOADS, CloseCode]),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer TOKEN`."},
                "token": {
                    "type": "httpApiKey",
                    "name": "token",
                    "in": "query",
                    "description": "`?token=TOKEN`, for browsers, whose websockets cannot send headers.",
                },
            },
        },
    }


def _message(struct: Message, kind: str, catalogue: Catalogue) -> Object:
    """A message object: name, description and schema."""
    summary, _, more = docstring(struct)[0].partition("\n\n")
    message: Object = {
        "name": _tag(struct),
        "title": struct.__name__,
        "summary": " ".join(summary.split()),
        "contentType": kind,
        "payload": _reference("schemas", schema_name(struct, packed=kind == _MSGPACK)),
    }
    if more:
        message["description"] = more
    if issubclass(struct, Data):
        message["x-channels"] = [channel.name for channel in catalogue if struct in channel.kind.messages]
    examples = [{"payload": msgspec.to_builtins(each)} for each in _examples(catalogue) if isinstance(each, struct)]
    return {**message, "examples": examples} if examples else message


def _examples(catalogue: Catalogue) -> list[Command]:
    """Examples of commands that this daemon carries out."""
    names = list(catalogue.names[:1]) or ["*"]
    return [
        Subscribe(channels=["*"]),
        Subscribe(channels=names, interval_ms=1000, id=7),
        Unsubscribe(channels=names, id=8),
        Ping(id=9),
    ]


def _websocket(name: str, kind: str, catalogue: Catalogue) -> Object:
    """The websocket with one of its subprotocols. `x-channels` lists the channels."""
    subprotocol = (Format.MSGPACK if kind == _MSGPACK else Format.JSON).value
    structs = dict.fromkeys(
        (*ANSWERS, *MESSAGES, *UNASKED, *(each for answers in ANSWERS.values() for each in answers))
    )
    header = {"type": "string", "const": subprotocol}
    frames = "binary frames" if kind == _MSGPACK else "text frames; also what is spoken where none is offered"
    return {
        "address": "/ws",
        "title": subprotocol,
        "description": f"The subprotocol `{subprotocol}`: {frames}.",
        "servers": [{"$ref": "#/servers/websocket"}],
        "messages": {_tag(struct): _reference("messages", _key(struct, kind)) for struct in structs},
        "bindings": {
            "ws": {
                "method": "GET",
                "headers": {"type": "object", "properties": {"Sec-WebSocket-Protocol": header}},
                "bindingVersion": "0.1.0",
            }
        },
        "x-channels": [_channel(channel) for channel in catalogue],
    }


def _channel(channel: Channel) -> Object:
    """The channels that clients can subscribe to."""
    kind = channel.kind
    fields = {name: getattr(channel, name) for name in channel.__struct_fields__}
    return {**fields, "kind": kind.name, "type": kind.tag, "view": kind.view}


def _conversation(channel: str, kind: str) -> Object:
    """The operations of one subprotocol."""
    prefix = "packed." if kind == _MSGPACK else ""
    operations: Object = {
        f"{prefix}{_tag(command)}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": f"The command `{_tag(command)}`.",
            "messages": _of(channel, [command]),
            "reply": {"channel": {"$ref": f"#/channels/{channel}"}, "messages": _of(channel, answers)},
        }
        for command, answers in ANSWERS.items()
    }
    told = {"data": (MESSAGES, "What the venues say."), "control": (UNASKED, "What the daemon says of its own accord.")}
    for name, (structs, summary) in told.items():
        operations[f"{prefix}{name}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "messages": _of(channel, structs),
        }
    return operations


def _route(route: Route, catalogue: Catalogue) -> tuple[Object, Object]:
    """A route's channel and operation."""
    asked: list[Message] = [route.body] if route.body else []
    answers = [*route.answers, *(() if Error in route.answers else (Error,))]
    channel: Object = {
        "address": route.address,
        "servers": [{"$ref": "#/servers/http"}],
        "messages": {_tag(struct): _reference("messages", _key(struct, _JSON)) for struct in (*asked, *answers)},
    }
    if "{channel}" in route.address:
        names = {"description": "The channel's name.", "enum": list(catalogue.names)}
        channel["parameters"] = {"channel": names}
    binding: Object = {"method": route.method, "bindingVersion": "0.3.0"}
    if route.query:
        binding["query"] = {"type": "object", "properties": route.query}
    here = {"$ref": f"#/channels/{route.name}"}
    return channel, {
        "action": "receive",
        "channel": here,
        "summary": f"`{route.method} {route.address}`",
        **({"description": route.description} if route.description else {}),
        "messages": _of(route.name, asked),
        "bindings": {"http": binding},
        "reply": {"channel": here, "messages": _of(route.name, answers)},
    }


def _of(channel: str, structs: Iterable[Message]) -> list[Mapping[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{_tag(struct)}"} for struct in structs]


def _reference(section: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{section}/{name}"}


def _key(struct: Message, kind: str) -> str:
    """A message's name among the components."""
    return f"packed.{_tag(struct)}" if kind == _MSGPACK else _tag(struct)


def _tag(struct: Message) -> str:
    """`type` on the wire; for a body without one, the name of its Struct."""
    return str(struct.__struct_config__.tag or struct.__name__)
