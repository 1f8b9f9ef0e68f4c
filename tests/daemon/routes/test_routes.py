"""What the plain HTTP routes answer, over made-up views of the daemon."""

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from connectors.base import State
from daemon.front.forwarded import as_sent
from daemon.front.http import Headers, Refused, Request, Response
from daemon.health.board import Condition, TopicState
from daemon.host.clock import WallClock
from daemon.routes.routes import ChannelState, PlainRoutes
from daemon.tape.ledger import Ledger
from protocol.answers import ClusterReport
from protocol.channels import Catalogue, Channel
from protocol.codes import ErrorCode
from protocol.grant import Grant
from protocol.kinds import KINDS
from protocol.messages import ServerInfo

NOW_MS = 1_765_211_445_123
NOW = "2025-12-08T16:30:45.123Z"
CATALOGUE = Catalogue(
    [
        Channel(
            name="binance_prices",
            exchange="binance",
            kind=KINDS["prices"],
            instruments=("BTC/USDT", "ETH/USDT"),
            cadence_s=10.0,
        ),
        Channel(name="coingecko_global", exchange="coingecko", kind=KINDS["global"], cadence_s=10.0),
    ]
)

CLUSTER = ClusterReport(timestamp=NOW, node="one", epoch="k3vQ", seq=7, leader="", clients=2, nodes=())


@dataclass(frozen=True)
class FakeState:
    state: State = "connecting"
    since_ms: int = NOW_MS - 5_000
    reason: str = ""
    retry_in_s: float | None = None
    last_event_ms: int | None = None
    stale_after_s: float | None = None
    topics: Mapping[str, TopicState] = field(default_factory=dict)


@dataclass
class Daemon:
    """The views and the routes over them."""

    epoch: str = "k3v"
    head: int = 1287
    accepting: bool = True
    channel_states: dict[str, FakeState] = field(
        default_factory=lambda: {name: FakeState() for name in CATALOGUE.names}
    )
    messages: dict[tuple[str, str], bytes] = field(default_factory=dict)
    tests: list[str] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    unstored: str = ""
    unreached: str = ""

    def payloads(self, channel: str, instrument: str = "*") -> list[bytes]:
        return [message for (name, of), message in self.messages.items() if name == channel and instrument in ("*", of)]

    def states(self) -> Mapping[str, ChannelState]:
        return self.channel_states

    def routes(self) -> PlainRoutes:
        return PlainRoutes(
            unstored=lambda: self.unstored,
            unreached=lambda: self.unreached,
            server=ServerInfo("tickerd", "1.2.3"),
            catalogue=lambda: CATALOGUE,
            tape=self,
            clients=lambda: 3,
            broadcast=self.tests.append,
            admit_test=lambda _request, _message: None,
            board=self,
            ledger=self.ledger,
            accepting=lambda: self.accepting,
            clock=WallClock(lambda: NOW_MS * 1_000_000),
            cluster=lambda: CLUSTER,
        )

    async def answer(self, request: Request) -> Response:
        response = await self.routes().answer(request)
        assert isinstance(response, Response)
        return response

    async def get(self, path: str, query: Headers = ()) -> Response:
        return await self.answer(Request(method="GET", path=path, query=query, peer="192.0.2.1"))

    async def post(self, body: bytes, *, peer: str = "127.0.0.1", headers: Headers = ()) -> Response:
        headers = (*headers, ("content-type", "application/json"))
        return await self.answer(Request(method="POST", path="/ws/test", body=body, peer=peer, headers=headers))

    async def refusal(self, method: str, path: str, query: Headers = ()) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.answer(Request(method=method, path=path, query=query, peer="192.0.2.1"))
        return caught.value


async def test_the_cluster_is_told_as_it_is() -> None:
    asked = Request(method="GET", path="/cluster", peer="127.0.0.1")
    body = json.loads((await Daemon().answer(asked)).body)
    assert body == {
        "type": "cluster",
        "timestamp": NOW,
        "node": "one",
        "epoch": "k3vQ",
        "seq": 7,
        "leader": "",
        "clients": 2,
        "nodes": [],
    }


async def test_which_processes_there_are_is_told_to_this_machine_and_to_tokens_only() -> None:
    refused = await Daemon().refusal("GET", "/cluster")
    assert (refused.status, refused.code) == (403, ErrorCode.FORBIDDEN)
    assert "GET /cluster is for clients on the daemon's own machine, and for those with a token" in str(refused)
    forwarded = Request(method="GET", path="/cluster", peer="127.0.0.1", headers=(("x-forwarded-for", "192.0.2.1"),))
    with pytest.raises(Refused):
        await Daemon().answer(forwarded)
    granted = Request(method="GET", path="/cluster", peer="192.0.2.1", grant=Grant("partner", ("*",), b"mark"))
    assert (await Daemon().answer(granted)).status == 200


async def test_health_says_who_and_where() -> None:
    response = await Daemon().get("/healthz")
    assert (response.status, response.content_type) == (200, "application/json")
    assert json.loads(response.body) == {
        "type": "health",
        "timestamp": NOW,
        "status": "ok",
        "server": {"name": "tickerd", "version": "1.2.3"},
        "epoch": "k3v",
        "seq": 1287,
    }


async def test_ready_once_a_connector_has_delivered_and_until_the_stop() -> None:
    daemon = Daemon()
    response = await daemon.get("/readyz")
    assert response.status == 503
    body = json.loads(response.body)
    assert (body["type"], body["ready"], body["reason"]) == ("readiness", False, "no connector has delivered yet")
    assert [channel["name"] for channel in body["channels"]] == ["binance_prices", "coingecko_global"]

    daemon.channel_states["coingecko_global"] = FakeState("live", last_event_ms=NOW_MS)
    response = await daemon.get("/readyz")
    assert response.status == 200
    body = json.loads(response.body)
    assert body["ready"] is True
    assert [channel["state"] for channel in body["channels"]] == ["connecting", "live"]

    daemon.accepting = False
    response = await daemon.get("/readyz")
    assert response.status == 503
    assert "stopping" in json.loads(response.body)["reason"]


async def test_readiness_says_which_channels_are_stale_and_why() -> None:
    daemon = Daemon()
    assert "stale" not in json.loads((await daemon.get("/readyz")).body)
    daemon.channel_states["binance_prices"] = FakeState("stale", reason="no message for 25.0 s", last_event_ms=NOW_MS)
    response = await daemon.get("/readyz")
    assert response.status == 200
    assert json.loads(response.body)["stale"] == {"binance_prices": "no message for 25.0 s"}


async def test_readiness_says_that_the_tape_is_not_stored_though_clients_are_served() -> None:
    daemon = Daemon(unstored="cannot be written: database or disk is full")
    daemon.channel_states["binance_prices"] = FakeState("live", last_event_ms=NOW_MS)
    response = await daemon.get("/readyz")
    body = json.loads(response.body)
    assert (response.status, body["ready"]) == (200, True)
    assert "not stored: the tape's file cannot be written: database or disk is full" in body["reason"]
    daemon.accepting = False
    assert json.loads((await daemon.get("/readyz")).body)["reason"].startswith("stopping")


async def test_readiness_says_that_no_exchange_can_be_reached() -> None:
    daemon = Daemon(unreached="no exchange can be reached: why")
    body = json.loads((await daemon.get("/readyz")).body)
    assert body["reason"] == "no connector has delivered yet: no exchange can be reached: why"
    daemon.channel_states["binance_prices"] = FakeState("live", last_event_ms=NOW_MS)
    response = await daemon.get("/readyz")
    assert (response.status, json.loads(response.body)["reason"]) == (200, "no exchange can be reached: why")


async def test_the_ledger_can_be_asked_for() -> None:
    daemon = Daemon()
    daemon.ledger.note("lagged", "", NOW_MS, count=3, messages=7, reason="slow")
    body = json.loads((await daemon.get("/gaps", query=(("channel", "binance_prices"),))).body)
    assert (body["type"], body["timestamp"]) == ("gaps", NOW)
    assert [(gap["cause"], gap["count"], gap["messages"], gap["end"]) for gap in body["gaps"]] == [
        ("lagged", 3, 7, None)
    ]


async def test_the_catalogue_tells_each_channels_state_and_age_and_which_instruments_do_not_do_as_well() -> None:
    daemon = Daemon()
    halted = TopicState(Condition("down", "halted", "not trading: its book is empty"), NOW_MS - 5_000)
    daemon.channel_states = {
        "coingecko_global": FakeState("reconnecting", reason="429", retry_in_s=2.5, last_event_ms=NOW_MS + 40),
        "binance_prices": FakeState(
            "live", last_event_ms=NOW_MS - 1_500, stale_after_s=25.0, topics={"ETH/USDT": halted}
        ),
    }
    body = json.loads((await daemon.get("/channels")).body)
    assert (body["type"], body["timestamp"]) == ("channels", NOW)
    assert body["channels"] == [
        {
            "name": "binance_prices",
            "source": "binance",
            "kind": "prices",
            "type": "price_update",
            "view": "price",
            "instruments": ["BTC/USDT", "ETH/USDT"],
            "cadence_s": 10.0,
            "stale_after_s": 25.0,
            "state": "live",
            "since": "2025-12-08T16:30:40.123Z",
            "reason": "",
            "retry_in_s": None,
            "age_s": 1.5,
            "topics": {
                "ETH/USDT": {
                    "state": "down",
                    "cause": "halted",
                    "since": "2025-12-08T16:30:40.123Z",
                    "reason": "not trading: its book is empty",
                }
            },
        },
        {
            "name": "coingecko_global",
            "source": "coingecko",
            "kind": "global",
            "type": "market_update",
            "view": "market",
            "instruments": [],
            "cadence_s": 10.0,
            "stale_after_s": None,
            "state": "reconnecting",
            "since": "2025-12-08T16:30:40.123Z",
            "reason": "429",
            "retry_in_s": 2.5,
            "age_s": 0.0,
            "topics": {},
        },
    ]


BTC = b'{"type":"price_update","instrument":"BTC/USDT","price":42150.50,"timestamp":"t","seq":1}'
ETH = b'{"type":"price_update","instrument":"ETH/USDT","price":0.10,"timestamp":"t","seq":2}'


async def test_a_snapshot_has_the_messages_byte_for_byte() -> None:
    daemon = Daemon(messages={("binance_prices", "BTC/USDT"): BTC, ("binance_prices", "ETH/USDT"): ETH})
    response = await daemon.get("/snapshot/binance_prices")
    assert response.status == 200
    assert b'"messages":[' + BTC + b"," + ETH + b"]" in response.body
    body = json.loads(response.body)
    assert {key: body[key] for key in body if key != "messages"} == {
        "type": "snapshot",
        "timestamp": NOW,
        "channel": "binance_prices",
        "epoch": "k3v",
        "seq": 1287,
    }


async def test_a_snapshot_of_one_instrument() -> None:
    daemon = Daemon(messages={("binance_prices", "BTC/USDT"): BTC, ("binance_prices", "ETH/USDT"): ETH})
    response = await daemon.get("/snapshot/binance_prices", (("instrument", "ETH/USDT"), ("other", "x")))
    assert b'"messages":[' + ETH + b"]" in response.body
    assert json.loads(response.body)["instrument"] == "ETH/USDT"


async def test_a_snapshot_before_the_first_message_is_empty() -> None:
    assert json.loads((await Daemon().get("/snapshot/coingecko_global")).body)["messages"] == []


@pytest.mark.parametrize("path", ["/snapshot/binance_price", "/snapshot/binance_prices/"])
async def test_an_unknown_channel_is_404_with_the_nearest(path: str) -> None:
    refused = await Daemon().refusal("GET", path)
    assert (refused.status, refused.code) == (404, ErrorCode.UNKNOWN_CHANNEL)
    assert str(refused).endswith("nearest: binance_prices")


async def test_a_channel_like_none_is_404_with_the_way_to_the_list() -> None:
    refused = await Daemon().refusal("GET", "/snapshot/" + "x" * 10_000)
    assert refused.code == ErrorCode.UNKNOWN_CHANNEL
    assert str(refused).endswith("GET /channels lists what there is")
    assert len(str(refused)) < 200


@pytest.mark.parametrize(
    ("channel", "query", "status", "code", "words"),
    [
        ("binance_prices", ["DOGE/USDT"], 404, ErrorCode.UNKNOWN_INSTRUMENT, "BTC/USDT, ETH/USDT"),
        ("binance_prices", [""], 404, ErrorCode.UNKNOWN_INSTRUMENT, "BTC/USDT, ETH/USDT"),
        ("coingecko_global", ["BTC/USDT"], 404, ErrorCode.UNKNOWN_INSTRUMENT, "whole market"),
        ("binance_prices", ["BTC/USDT", "ETH/USDT"], 400, ErrorCode.INVALID_FIELD, "2 instruments"),
    ],
)
async def test_an_instrument_the_channel_lacks_is_refused(
    channel: str, query: list[str], status: int, code: ErrorCode, words: str
) -> None:
    fields = tuple(("instrument", value) for value in query)
    refused = await Daemon().refusal("GET", f"/snapshot/{channel}", fields)
    assert (refused.status, refused.code) == (status, code)
    assert words in str(refused)


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
async def test_a_test_message_goes_to_everybody(peer: str) -> None:
    daemon = Daemon()
    response = await daemon.post(b'{"message": "Hello, WebSocket!", "more": 1}', peer=peer)
    assert response.status == 200
    assert json.loads(response.body) == {
        "type": "test_response",
        "message": "Broadcast to all connected clients",
        "timestamp": NOW,
        "clients": 3,
    }
    assert daemon.tests == ["Hello, WebSocket!"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", ErrorCode.MALFORMED),
        (b"{", ErrorCode.MALFORMED),
        (b'{"message": "\xff"}', ErrorCode.MALFORMED),
        (b'{"more": ' + b"[" * 10_000, ErrorCode.MALFORMED),
        (b"[]", ErrorCode.INVALID_FIELD),
        (b"{}", ErrorCode.INVALID_FIELD),
        (b'{"message": 1}', ErrorCode.INVALID_FIELD),
    ],
)
async def test_a_bad_test_message_is_refused_and_goes_to_nobody(body: bytes, code: ErrorCode) -> None:
    daemon = Daemon()
    with pytest.raises(Refused) as caught:
        await daemon.post(body)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert daemon.tests == []


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("192.0.2.1", ()),
        ("2001:db8::1", ()),
        ("127.0.0.1", (("x-forwarded-for", "192.0.2.1"),)),
        ("127.0.0.1", (("forwarded", "for=192.0.2.1"),)),
    ],
)
async def test_a_test_message_from_elsewhere_is_refused(peer: str, headers: Headers) -> None:
    daemon = Daemon()
    with pytest.raises(Refused) as caught:
        await daemon.post(b'{"message": "x"}', peer=peer, headers=headers)
    assert (caught.value.status, caught.value.code) == (403, ErrorCode.FORBIDDEN)
    assert daemon.tests == []


@pytest.mark.parametrize(("said", "allowed"), [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False), ("?", False)])
async def test_a_trusted_proxy_may_say_who_is_on_this_machine(said: str, allowed: bool) -> None:
    daemon = Daemon()
    headers = (("x-forwarded-for", said), ("content-type", "application/json"))
    sent = Request(method="POST", path="/ws/test", body=b'{"message": "x"}', peer="127.0.0.1", headers=headers)
    request = as_sent(sent, (ipaddress.ip_network("127.0.0.1"),))
    if allowed:
        assert (await daemon.answer(request)).status == 200
    else:
        with pytest.raises(Refused):
            await daemon.answer(request)
    assert daemon.tests == ["x"] * allowed


@pytest.mark.parametrize("path", ["/nothing", "/metrics", "/events", "*", "", "/healthz/", "/snapshot"])
async def test_an_unknown_path_is_404_and_named(path: str) -> None:
    refused = await Daemon().refusal("GET", path)
    assert (refused.status, refused.code) == (404, ErrorCode.NOT_FOUND)
    assert repr(path) in str(refused)


async def test_a_long_path_is_cut() -> None:
    assert len(str(await Daemon().refusal("GET", "/" + "x" * 10_000))) < 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/healthz", "GET, HEAD"),
        ("get", "/channels", "GET, HEAD"),
        ("DELETE", "/snapshot/nothing", "GET, HEAD"),
        ("GET", "/ws/test", "POST"),
        ("HEAD", "/ws/test", "POST"),
    ],
)
async def test_another_method_is_405_with_what_is_allowed(method: str, path: str, allowed: str) -> None:
    refused = await Daemon().refusal(method, path)
    assert (refused.status, refused.code) == (405, ErrorCode.METHOD_NOT_ALLOWED)
    assert refused.headers == (("Allow", allowed),)


@pytest.mark.parametrize("path", ["/", "/healthz", "/channels", "/snapshot/binance_prices"])
async def test_head_is_answered_like_get(path: str) -> None:
    daemon = Daemon()
    head = await daemon.answer(Request(method="HEAD", path=path, peer="192.0.2.1"))
    assert head == await daemon.get(path)


@pytest.mark.parametrize("path", ["/", "/client.js", "/style.css"])
async def test_the_live_page_is_served(path: str) -> None:
    response = await Daemon().get(path)
    assert (response.status, dict(response.headers)["Cache-Control"]) == (200, "no-cache")


@pytest.mark.parametrize("path", ["/index.html", "/web/client.js", "/../page.py", "/./client.js", "/client.js/", "//"])
async def test_no_other_name_leads_to_a_file(path: str) -> None:
    assert (await Daemon().refusal("GET", path)).status == 404
