"""CoinGecko: how often it is asked, what is repeated meanwhile, and what its errors mean."""

from collections.abc import Sequence

import httpx
import msgspec
import pytest
import trio
from trio.testing import MockClock

from connectors.base import (
    Connector,
    ConnectorError,
    Event,
    StateChange,
    TopicNote,
)
from connectors.poll.host import Host
from connectors.poll.poller import Poller
from connectors.poll.venue import Answer, Outcome
from connectors.venues.coingecko import polls
from connectors.venues.coingecko.polls import (
    ENDPOINTS,
    PAID_ROOT,
    PLANS,
    CoinGecko,
    CoinGeckoPoll,
)
from protocol.channels import Channel
from protocol.kinds import KINDS
from tests.connectors.poll.streaming import streamed

NOW_MS = 1_765_211_445_000
SECRET = "CG-abcdefghijklmnop"

GLOBAL = (
    b'{"data":{"active_cryptocurrencies":17397,"total_market_cap":{"btc":34570737.199462704,'
    b'"clp":1.52899720736006e+15},"updated_at":1765211351}}'
)
MARKETS = (
    b'[{"id":"bitcoin","symbol":"btc","name":"Bitcoin","current_price":77671,"roi":null},\n'
    b' {"id":"pepe","symbol":"pepe","name":"Pepe","current_price":5.9e-06}]'
)
TRENDING = b'{"coins":[{"item":{"id":"bonk","price_btc":7.821066970851871e-11}}],"nfts":[]}'
BODIES = {"global": GLOBAL, "top": MARKETS, "trending": TRENDING}


def channel(kind: str = "global", cadence_s: float = 10.0) -> Channel:
    return Channel(
        name=f"coingecko_{kind}",
        exchange="coingecko",
        kind=KINDS[kind],
        cadence_s=cadence_s,
    )


def answer(body: bytes = b"", status: int = 200, at_s: float = 0.0, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, body, NOW_MS + round(at_s * 1_000), at_s)


# ---- the poll


def poll(kind: str = "global", plan: str = "unlimited", refresh_s: float | None = None) -> CoinGeckoPoll:
    terms = PLANS[plan]
    spread_s = terms.refresh_s.get(kind, 0.0) if refresh_s is None else refresh_s
    return CoinGeckoPoll(channel(kind), terms, refresh_s=spread_s, secret=SECRET)


@pytest.mark.parametrize("kind", list(ENDPOINTS))
def test_a_body_that_is_taken_fits_onto_the_tape(kind: str) -> None:
    """Else it would be kept for its lifetime, and refused at each repeat."""
    asking = poll(kind)
    (request,) = asking.tick(0.0).requests
    body = BODIES[kind].replace(b"{", b'{"padding":"%s",' % (b"x" * (request.most_bytes - len(BODIES[kind]) - 13)), 1)
    assert len(body) == request.most_bytes
    (event,) = asking.answer(request, answer(body)).events
    assert len(event.data) <= KINDS[kind].most_bytes


@pytest.mark.parametrize("kind", list(ENDPOINTS))
def test_each_kind_asks_its_endpoint_and_reads_its_body(kind: str) -> None:
    asking = poll(kind)
    (request,) = asking.tick(0.0).requests
    (event,) = asking.answer(request, answer(BODIES[kind])).events
    assert (event.channel, event.instrument, event.cached) == (f"coingecko_{kind}", "", False)
    assert (
        request.path
        == {
            "global": "/global",
            "top": "/coins/markets",
            "trending": "/search/trending",
        }[kind]
    )


def test_a_body_is_repeated_while_it_is_fresh_and_then_asked_for_by_its_tag() -> None:
    asking = poll()
    (request,) = asking.tick(0.0).requests
    assert request.headers == {}
    fresh = answer(GLOBAL, at_s=0.5, cache_control="max-age=60", age="30", etag='W/"7"')
    (first,) = asking.answer(request, fresh).events
    assert first.lifetime_s == 30.0

    for now_s in (10.0, 20.0, 30.0):
        outcome = asking.tick(now_s)
        assert outcome.requests == []
        (repeated,) = outcome.events
        assert repeated.cached
        assert repeated.lifetime_s == 0.0, "a repeat explains no other repeat"
        assert repeated.received_ms == first.received_ms == NOW_MS + 500
        assert repeated.data == first.data

    (request,) = asking.tick(40.0).requests
    assert request.headers == {"If-None-Match": 'W/"7"'}
    (confirmed,) = asking.answer(request, answer(status=304, at_s=40.5)).events
    assert confirmed.cached
    assert confirmed.lifetime_s == 30.0, "the venue's word is as good as a body"
    assert confirmed.received_ms == first.received_ms
    assert asking.tick(70.0).events, "a 304 that names no lifetime renews the old one"
    assert asking.tick(80.0).requests


def test_a_body_without_a_lifetime_is_asked_for_at_every_tick() -> None:
    asking = poll()
    for now_s in (0.0, 10.0, 20.0):
        (request,) = asking.tick(now_s).requests
        assert request.headers == {}
        (event,) = asking.answer(request, answer(GLOBAL, at_s=now_s)).events
        assert not event.cached
        assert event.lifetime_s == 10.0, "as long as a cadence"


@pytest.mark.parametrize("lost", ["nothing came", "500", "odd body"])
def test_nothing_is_repeated_while_the_venue_fails(lost: str) -> None:
    asking = poll()
    (request,) = asking.tick(0.0).requests
    asking.answer(request, answer(GLOBAL, cache_control="max-age=15"))
    assert asking.tick(10.0).events
    for now_s in (20.0, 30.0):
        (request,) = asking.tick(now_s).requests
        if lost != "nothing came":
            bad = answer(b"x", 500) if lost == "500" else answer(b"[]")
            with pytest.raises(ConnectorError):
                asking.answer(request, bad)
    (request,) = asking.tick(40.0).requests
    assert not asking.answer(request, answer(GLOBAL)).events[0].cached


@pytest.mark.parametrize(
    ("plan", "kind", "calls"),
    [
        ("keyless", "global", 60),
        ("keyless", "top", 60),
        ("demo", "global", 4),
        ("demo", "trending", 2),
        ("demo", "top", 6),
        ("pro", "top", 72),
        ("unlimited", "top", 72),
    ],
)
def test_a_plan_bounds_the_calls_of_an_hour(plan: str, kind: str, calls: int) -> None:
    asking = poll(kind, plan)
    asked = 0
    for number in range(360):
        # A tick wakes a little late, and not always equally so.
        now_s = 10.0 * number + (number % 3) * 0.01
        for request in asking.tick(now_s).requests:
            asked += 1
            asking.answer(request, answer(BODIES[kind], at_s=now_s + 0.2, cache_control="max-age=45"))
    assert asked == calls


def test_a_month_with_a_demo_key_stays_within_its_credits() -> None:
    assert sum(31 * 86_400 / every_s for every_s in PLANS["demo"].refresh_s.values()) <= 10_000


@pytest.mark.parametrize(
    ("plan", "cadence_s", "notice"),
    [
        ("keyless", 10.0, "CoinGecko keyless: asking every 60 s"),
        ("keyless", 45.0, "CoinGecko keyless: asking every 90 s"),
        ("keyless", 60.0, ""),
        ("demo", 10.0, "CoinGecko demo: asking every 900 s"),
        ("unlimited", 10.0, ""),
    ],
)
def test_a_budget_that_slows_a_channel_is_told(plan: str, cadence_s: float, notice: str) -> None:
    terms = PLANS[plan]
    refresh_s = terms.refresh_s.get("global", 0.0)
    assert CoinGeckoPoll(channel("global", cadence_s), terms, refresh_s=refresh_s).notice == notice


def test_what_is_left_out_is_noted_for_as_long_as_the_body_is_repeated() -> None:
    asking = poll("top")
    (request,) = asking.tick(0.0).requests
    body = MARKETS.replace(b"5.9e-06", b"-1")
    outcome = asking.answer(request, answer(body, cache_control="max-age=60"))
    assert [note.reason for note in outcome.notes] == ["coins left out: pepe: `current_price` is -1.0, below 0"]
    repeat = asking.tick(10.0)
    assert (repeat.notes, [event.cached for event in repeat.events]) == (outcome.notes, [True])


def test_old_figures_are_asked_for_no_more_often_than_fresh_ones() -> None:
    asking = poll("global", "keyless")
    (request,) = asking.tick(0.0).requests
    outcome = asking.answer(request, answer(GLOBAL.replace(b"1765211351", b"1763000000")))
    assert outcome.events == []
    assert [(note.instrument, note.cause) for note in outcome.notes] == [("", "halted")]
    assert asking.tick(10.0) == Outcome(notes=outcome.notes)
    assert asking.tick(60.0).requests


# ---- together with the loop


class World:
    """A context that writes down what it is told, and runs a connector again when it fails."""

    def __init__(self) -> None:
        self.events: list[tuple[float, Event]] = []
        self.reports: list[StateChange] = []
        self.notes: list[TopicNote] = []
        self.errors: list[tuple[float, ConnectorError]] = []

    async def publish(self, events: Sequence[Event]) -> None:
        self.events += [(round(trio.current_time(), 3), event) for event in events]

    async def report(self, change: StateChange) -> None:
        self.reports.append(change)

    async def note(self, notes: Sequence[TopicNote]) -> None:
        self.notes += notes

    def now_ms(self) -> int:
        return NOW_MS + round(trio.current_time() * 1_000)

    async def supervise(self, connector: Connector) -> None:
        while True:
            try:
                await connector.run(self)
            except ConnectorError as error:
                self.errors.append((round(trio.current_time(), 3), error))
                await trio.sleep(error.retry_after_s or 0.0)


class Venue:
    """CoinGecko with a body that never changes."""

    def __init__(self, down: tuple[float, float] = (0.0, 0.0)) -> None:
        self.down = down
        self.asked: list[tuple[float, int]] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        now_s = round(trio.current_time(), 3)
        headers = {"ETag": '"1"', "Cache-Control": "public, max-age=30"}
        if self.down[0] <= now_s < self.down[1]:
            response = httpx.Response(503)
        elif request.headers.get("if-none-match") == '"1"':
            response = httpx.Response(304, headers=headers)
        else:
            response = httpx.Response(200, content=GLOBAL, headers=headers)
        self.asked.append((now_s, response.status_code))
        return streamed(response)

    def poller(self, asking: CoinGeckoPoll) -> Poller:
        host = Host(
            "CoinGecko",
            "http://coingecko.test/api/v3",
            timeout_s=8.0,
            user_agent="tickerd/1",
            transport=httpx.MockTransport(self),
        )
        return Poller(channel(), asking, host)


async def test_a_channel_ticks_at_its_cadence_whatever_the_plan_allows(
    autojump_clock: MockClock,
) -> None:
    venue, world = Venue(), World()
    with trio.move_on_after(125):
        await world.supervise(venue.poller(poll(plan="keyless")))
    assert [at_s for at_s, _ in world.events] == [10.0 * number for number in range(13)]
    assert venue.asked == [(0.0, 200), (60.0, 304), (120.0, 304)]
    assert [event.cached for _, event in world.events] == [False] + [True] * 12
    assert {event.received_ms for _, event in world.events} == {NOW_MS}
    assert world.reports == [StateChange("coingecko_global", "live", "CoinGecko keyless: asking every 60 s")]


async def test_an_outage_silences_the_channel_and_its_end_revives_it(
    autojump_clock: MockClock,
) -> None:
    venue, world = Venue(down=(25.0, 55.0)), World()
    with trio.move_on_after(75):
        await world.supervise(venue.poller(poll()))
    assert venue.asked == [(0.0, 200), (30.0, 503), (40.0, 503), (50.0, 503), (60.0, 304)]
    assert [at_s for at_s, _ in world.events] == [0.0, 10.0, 20.0, 60.0, 70.0]
    assert {str(error) for _, error in world.errors} == {"CoinGecko is in trouble (HTTP 503)"}


async def test_failed_calls_are_kept_within_the_minutes_limit(autojump_clock: MockClock) -> None:
    venue, world = Venue(down=(0.0, 100.0)), World()
    with trio.move_on_after(125):
        await world.supervise(venue.poller(poll(plan="keyless")))
    assert venue.asked == [(0.0, 503), (60.0, 503), (120.0, 200)]


# ---- what is built


@pytest.mark.parametrize(
    ("plan", "header"),
    [("demo", "x-cg-demo-api-key"), ("pro", "x-cg-pro-api-key"), ("keyless", ""), ("unlimited", "")],
)
def test_the_key_goes_into_the_plans_header_only(plan: str, header: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: list[dict[str, object]] = []

    class Noted(Host):
        def __init__(self, venue: str, base_url: str, **more: object) -> None:
            self.venue = venue
            hosts.append({"venue": venue, "base_url": base_url, **more})

    monkeypatch.setattr(polls, "Host", Noted)
    build(plan, "global")
    ((host,),) = (hosts,)
    assert host["headers"] == ({header: SECRET} if header else {})
    assert host["base_url"] == (PAID_ROOT if plan == "pro" else "https://api.coingecko.com/api/v3")
    assert host["user_agent"] == "tickerd/1.2.3"


def build(plan: str, *kinds: str) -> list[Connector]:
    settings = msgspec.convert({"api_key": SECRET, "plan": plan}, CoinGecko)
    return polls.build([channel(kind) for kind in kinds], settings, "tickerd/1.2.3")


def test_each_channel_gets_a_connector_of_its_name() -> None:
    made = build("demo", "global", "top")
    assert [connector.channels for connector in made] == [("coingecko_global",), ("coingecko_top",)]


def test_channels_of_one_kind_share_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    spread: list[float] = []

    class Noted(CoinGeckoPoll):
        def __init__(self, *args: object, refresh_s: float, **more: object) -> None:
            spread.append(refresh_s)

    monkeypatch.setattr(polls, "CoinGeckoPoll", Noted)
    build("keyless", "top", "top", "global")
    assert spread == [120.0, 120.0, 60.0]


def test_a_plan_that_is_none_is_refused_and_there_are_no_others() -> None:
    with pytest.raises(msgspec.ValidationError, match="'gold'"):
        build("gold", "global")
    for plan in PLANS:
        build(plan, "global")


def test_a_paid_plan_is_served_by_its_own_root() -> None:
    assert CoinGecko(plan="pro", api_key="k").root == "https://pro-api.coingecko.com/api/v3"
    elsewhere = "http://127.0.0.1:9/api/v3"
    assert CoinGecko(plan="pro", api_key="k", base_url=elsewhere).root == elsewhere
    assert CoinGecko(plan="demo", api_key="k").root == CoinGecko().root == "https://api.coingecko.com/api/v3"
