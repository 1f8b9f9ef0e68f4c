"""Binance: what is asked, how bodies become events, what errors mean."""

import json
from collections.abc import Sequence

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from connectors.base import (
    ConnectorError,
    Event,
    PayloadError,
    StateChange,
    TopicNote,
    VenueRefused,
    VenueUnavailable,
)
from connectors.poll.host import Host
from connectors.poll.poller import Poller
from connectors.poll.venue import Answer, PollRequest
from connectors.venues.binance.build import build
from connectors.venues.binance.polls import BinancePoll, explain, weight_pause
from connectors.venues.binance.settings import Binance
from protocol.channels import Channel
from protocol.kinds import KINDS
from tests.connectors.poll.streaming import streamed
from tests.connectors.venues.binance.answers import NOW_MS, ticker, tickers

UNKNOWN = b'{"code":-1121,"msg":"Invalid symbol."}'


def channel(kind: str = "prices", *instruments: str, name: str = "c") -> Channel:
    return Channel(
        name=name,
        exchange="binance",
        kind=KINDS[kind],
        instruments=instruments or ("BTC/USDT", "ETH/USDT"),
        cadence_s=10.0,
    )


def answer(body: bytes, status: int = 200, at_s: float = 0.0, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, body, NOW_MS, at_s)


# ---- errors


@pytest.mark.parametrize(
    ("status", "asked", "body", "seconds"),
    [
        (429, "120", b"", 120.0),
        (418, "7200", b"", 7_200.0),
        (429, "0", b"", 1.0),
        (429, "", b"", 60.0),
        (418, "", b"<html>", 120.0),
        (
            418,
            "",
            b'{"code":-1003,"msg":"Way too much request weight used; IP banned until '
            b'1765211745000. Please use WebSocket Streams."}',
            300.0,
        ),
        (400, "", b'{"code":-1003,"msg":"Too many requests queued."}', 60.0),
        # Nonsense is granted what can be meant: an hour, or the longest ban that is documented.
        (429, "999999999", b"", 3_600.0),
        (418, "999999999", b"", 3 * 86_400.0),
        (418, "", b'{"code":-1003,"msg":"IP banned until 9999999999999."}', 3 * 86_400.0),
        (418, "", b'{"code":-1003,"msg":"IP banned until 1000000000000."}', 1.0),
        (429, "-999999999", b"", 60.0),
        (429, "Fri, 31 Dec 9999 23:59:59 GMT", b"", 3_600.0),
    ],
)
def test_a_request_for_a_pause_is_kept(status: int, asked: str, body: bytes, seconds: float) -> None:
    error = explain(answer(body, status, retry_after=asked))
    assert isinstance(error, VenueUnavailable)
    assert error.retry_after_s == seconds
    assert str(error) == f"Binance asked for a pause of {seconds:.0f} s (HTTP {status})"


def test_a_refusal_that_comes_as_a_success_is_a_refusal() -> None:
    poll = BinancePoll(channel("orderbook", "BTC/USDT"), 5)
    (request,) = poll.tick(0.0).requests
    with pytest.raises(VenueUnavailable, match=r"Binance asked for a pause of 60 s \(HTTP 200\)"):
        poll.answer(request, answer(b'{"code":-1003,"msg":"Too many requests queued."}', 200))
    odd = poll.answer(request, answer(b'{"bids":7}', 200))
    assert (odd.events, [note.instrument for note in odd.notes]) == ([], ["BTC/USDT"])
    with pytest.raises(PayloadError):
        poll.answer(request, answer(b"<html>", 200))


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (451, b"", VenueRefused, "region at this address (HTTP 451); https://data-api.binance."),
        (403, b"<html>", VenueRefused, "firewall refused the request (HTTP 403)"),
        (500, b"", VenueUnavailable, "Binance is in trouble (HTTP 500)"),
        (
            503,
            b'{"code":-1008,"msg":"Server is currently overloaded."}',
            VenueUnavailable,
            "(HTTP 503: Server is currently overloaded)",
        ),
        (408, b"", VenueUnavailable, "in trouble (HTTP 408)"),
        (301, b"", VenueRefused, "moved to another address (HTTP 301)"),
        (404, b"<html>", VenueRefused, "refused the request (HTTP 404)"),
        (
            400,
            b'{"code":-1130,"msg":"Data sent for parameter \'limit\' is not valid."}',
            VenueRefused,
            "(HTTP 400: Data sent for parameter 'limit' is not valid)",
        ),
        (400, b'{"code":"x","msg":3}', VenueRefused, "refused the request (HTTP 400)"),
    ],
)
def test_an_error_is_one_sentence_and_says_whether_to_come_back(
    status: int, body: bytes, kind: type[ConnectorError], words: str
) -> None:
    error = explain(answer(body, status))
    assert type(error) is kind
    assert words in str(error)
    assert error.retry_after_s is None


def test_trouble_with_a_time_is_a_pause() -> None:
    assert explain(answer(b"", 503, retry_after="30")).retry_after_s == 30.0


@given(st.integers(100, 599), st.binary(), st.text(max_size=20))
def test_any_answer_can_be_explained(status: int, body: bytes, header: str) -> None:
    error = explain(answer(body, status, retry_after=header))
    assert str(error).startswith("Binance")
    assert str(error).isprintable()


@pytest.mark.parametrize(("used", "pauses"), [("4799", False), ("4800", True), ("", False), ("x", False), ("²", False)])
def test_used_weight_is_held_back_until_the_minute_turns(used: str, pauses: bool) -> None:
    pause = weight_pause(answer(b"", x_mbx_used_weight_1m=used))
    assert (pause is not None) == pauses
    if pause is not None:
        assert pause.seconds == pytest.approx(60.0 - NOW_MS / 1_000 % 60.0)
        assert "4800 of 6000" in pause.reason


# ---- the poll


def test_symbols_are_asked_for_in_the_only_form_that_is_taken() -> None:
    (request,) = BinancePoll(channel(), 20).tick(0.0).requests
    assert request.path == "/api/v3/ticker/24hr"
    assert request.params == {"symbols": '["BTCUSDT","ETHUSDT"]'}


def test_many_instruments_are_asked_for_in_batches_that_weigh_2() -> None:
    names = tuple(f"C{number}/USDT" for number in range(45))
    requests = BinancePoll(channel("24hr", *names), 20).tick(0.0).requests
    assert [len(request.instruments) for request in requests] == [20, 20, 5]
    assert [name for request in requests for name in request.instruments] == list(names)


def test_a_book_is_asked_for_per_instrument() -> None:
    requests = BinancePoll(channel("orderbook"), 20).tick(0.0).requests
    assert [request.params for request in requests] == [
        {"symbol": "BTCUSDT", "limit": "20"},
        {"symbol": "ETHUSDT", "limit": "20"},
    ]
    assert {request.path for request in requests} == {"/api/v3/depth"}


def refused(poll: BinancePoll, now_s: float) -> dict[str, str]:
    """What is set aside, and what is said of it."""
    return {note.instrument: note.reason for note in poll.tick(now_s).notes if note.cause == "refused"}


def settle(poll: BinancePoll, unknown: set[str], now_s: float) -> tuple[list[str], int]:
    """One tick against a venue without the `unknown`: who got an event, in how many requests."""
    pending: list[PollRequest] = list(poll.tick(now_s).requests)
    served: list[str] = []
    count = 0
    while pending:
        request = pending.pop(0)
        count += 1
        if unknown & set(request.instruments):
            outcome = poll.answer(request, answer(UNKNOWN, 400, now_s))
        else:
            rows = (ticker(name.replace("/", "")) for name in request.instruments)
            outcome = poll.answer(request, answer(tickers(*rows), at_s=now_s))
        served += [event.instrument for event in outcome.events]
        pending += outcome.requests
    return served, count


@given(unknown=st.sets(st.integers(0, 44), max_size=44))
def test_unknown_instruments_are_found_and_set_aside_and_the_others_served(
    unknown: set[int],
) -> None:
    names = [f"C{number}/USDT" for number in range(45)]
    lost = {names[number] for number in unknown}
    poll = BinancePoll(channel("prices", *names), 20)
    served, _ = settle(poll, lost, 0.0)
    assert sorted(served) == sorted(set(names) - lost)
    assert refused(poll, 1.0) == dict.fromkeys(lost, "unknown to Binance (set aside, asked again after 1 min)")

    served, count = settle(poll, lost, 59.0)
    assert count == -(-len(set(names) - lost) // 20), "nobody asks for them again"
    assert set(served) == set(names) - lost

    served, _ = settle(poll, set(), 60.0)
    assert sorted(served) == sorted(names), "after a minute they are tried again"
    assert refused(poll, 61.0) == {}


def test_a_refusal_in_a_row_doubles_the_wait_up_to_an_hour_and_the_others_are_not_asked_twice() -> None:
    """Binance says -1121 also while it relists a pair, or has lost a part of its tables."""
    poll = BinancePoll(channel("prices", "BTC/USDT", "NOPE/USDT", "ETH/USDT"), 20)
    now_s = 0.0
    waits: list[float] = []
    for _ in range(9):
        served, count = settle(poll, {"NOPE/USDT"}, now_s)
        assert (sorted(served), count) == (["BTC/USDT", "ETH/USDT"], 2 if waits else 5)
        again_s = now_s
        while "NOPE/USDT" not in {name for request in poll.tick(again_s).requests for name in request.instruments}:
            again_s += 30.0
        waits.append(again_s - now_s)
        now_s = again_s
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    settle(poll, set(), now_s)
    settle(poll, {"NOPE/USDT"}, now_s + 10)
    served, _ = settle(poll, set(), now_s + 70)
    assert "NOPE/USDT" in served, "what was served meanwhile begins with a minute again"


@pytest.mark.parametrize("status", [200, 202, 400, 404, 422])
@pytest.mark.parametrize("code", [-1121, -1100, -1130, -1220])
@pytest.mark.parametrize("kind", ["prices", "24hr", "orderbook"])
def test_whatever_status_a_refusal_has_it_costs_its_own_symbol_only(status: int, code: int, kind: str) -> None:
    poll = BinancePoll(channel(kind, "BTC/USDT", "NOPE/USDT"), 20)
    pending, served = list(poll.tick(0.0).requests), []
    while pending:
        request = pending.pop()
        said = b'{"code":%d,"msg":"No."}' % code, status
        if kind == "orderbook":
            good = b'{"lastUpdateId":1,"bids":[["1","1"]],"asks":[["2","1"]]}'
        else:
            good = tickers(*(ticker(name.replace("/", "")) for name in request.instruments))
        outcome = poll.answer(request, answer(*said) if "NOPE/USDT" in request.instruments else answer(good))
        served += [event.instrument for event in outcome.events]
        pending += outcome.requests
    assert served == ["BTC/USDT"]
    assert list(refused(poll, 1.0)) == ["NOPE/USDT"]


def test_where_nothing_is_known_the_channel_is_refused_by_name() -> None:
    poll = BinancePoll(channel("prices", "NOPE/USDT", "NADA/USDT"), 20)
    with pytest.raises(VenueRefused, match=r"^unknown to Binance: NOPE/USDT, NADA/USDT$"):
        settle(poll, {"NOPE/USDT", "NADA/USDT"}, 0.0)
    with pytest.raises(VenueRefused) as refused:
        poll.tick(10.0)
    assert refused.value.retry_after_s == 50.0, "not sooner, and not later"
    assert poll.tick(60.0).requests


def test_illegal_characters_are_one_instruments_fault_too() -> None:
    poll = BinancePoll(channel("orderbook", "BTC/USDT", "B C/USDT"), 20)
    _, second = poll.tick(0.0).requests
    illegal = b'{"code":-1100,"msg":"Illegal characters found in parameter \'symbol\'."}'
    assert poll.answer(second, answer(illegal, 400)).events == []
    assert refused(poll, 1.0) == {"B C/USDT": "unknown to Binance (set aside, asked again after 1 min)"}


@pytest.mark.parametrize("kind", ["prices", "24hr", "orderbook"])
def test_each_kind_has_its_normaliser(kind: str) -> None:
    poll = BinancePoll(channel(kind, "BTC/USDT"), 20)
    (request,) = poll.tick(0.0).requests
    levels = b'{"lastUpdateId":1,"bids":[["1","2"]],"asks":[["2","2"]]}'
    body = levels if kind == "orderbook" else tickers(ticker())
    outcome = poll.answer(request, answer(body, x_mbx_used_weight_1m="5000"))
    (event,) = outcome.events
    assert ("count" in json.loads(event.data)) == (kind == "24hr")
    assert outcome.pause is not None
    with pytest.raises(VenueUnavailable):
        poll.answer(request, answer(b"", 500))


# ---- together with the loop


class World:
    """A context that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reports: list[StateChange] = []
        self.notes: list[TopicNote] = []

    async def publish(self, events: Sequence[Event]) -> None:
        self.events += events

    async def report(self, change: StateChange) -> None:
        self.reports.append(change)

    async def note(self, notes: Sequence[TopicNote]) -> None:
        self.notes += notes

    def now_ms(self) -> int:
        return NOW_MS + round(trio.current_time() * 1_000)


async def test_an_unknown_instrument_is_reported_and_the_others_go_on(
    autojump_clock: MockClock,
) -> None:
    asked: list[list[str]] = []

    async def venue(request: httpx.Request) -> httpx.Response:
        symbols = json.loads(request.url.params["symbols"])
        asked.append(symbols)
        if "NOPEUSDT" in symbols:
            return streamed(httpx.Response(400, content=UNKNOWN))
        return streamed(httpx.Response(200, content=tickers(*(ticker(symbol) for symbol in symbols))))

    served = channel("prices", "BTC/USDT", "NOPE/USDT", "ETH/USDT")
    host = Host(
        "Binance",
        "http://binance.test",
        timeout_s=8.0,
        user_agent="tickerd/1",
        transport=httpx.MockTransport(venue),
    )
    world = World()
    with trio.move_on_after(15):
        await Poller(served, BinancePoll(served, 20), host).run(world)
    assert world.reports == []
    assert world.notes[0] == TopicNote(
        "c", "NOPE/USDT", "refused", "unknown to Binance (set aside, asked again after 1 min)"
    )
    assert [event.instrument for event in world.events] == ["BTC/USDT", "ETH/USDT"] * 2
    assert asked[-1] == ["BTCUSDT", "ETHUSDT"]


async def test_a_channel_that_is_refused_whole_does_not_hold_up_the_hosts_others_and_comes_back(
    autojump_clock: MockClock,
) -> None:
    healed_s = 30.0

    async def venue(request: httpx.Request) -> httpx.Response:
        symbols = json.loads(request.url.params["symbols"])
        if "BTCUSDT" not in symbols and trio.current_time() < healed_s:
            return streamed(httpx.Response(400, content=UNKNOWN))
        return streamed(httpx.Response(200, content=tickers(*(ticker(symbol) for symbol in symbols))))

    host = Host(
        "Binance",
        "http://binance.test",
        timeout_s=8.0,
        user_agent="tickerd/1",
        transport=httpx.MockTransport(venue),
    )
    refused, served = channel("prices", "NEW/USDT", "OLD/USDT", name="a"), channel("prices", "BTC/USDT", name="b")
    world, came_s = World(), {"NEW/USDT": 0.0, "OLD/USDT": 0.0}
    waits: list[float] = []

    async def supervised(poller: Poller) -> None:
        while True:
            try:
                await poller.run(world)
            except VenueRefused as error:
                waits.append(error.retry_after_s or 0.0)
                await trio.sleep(waits[-1])

    with trio.move_on_after(75):
        async with trio.open_nursery() as nursery:
            for one in (refused, served):
                nursery.start_soon(supervised, Poller(one, BinancePoll(one, 20), host))
            while not all(came_s.values()):
                for event in world.events:
                    if event.instrument in came_s:
                        came_s[event.instrument] = came_s[event.instrument] or trio.current_time()
                await trio.sleep(1)
            await trio.sleep_forever()
    assert waits == [pytest.approx(60, abs=1)]
    assert all(60 <= at_s <= 72 for at_s in came_s.values())
    assert [event.instrument for event in world.events].count("BTC/USDT") == 8, "every ten seconds, as ever"


def test_a_request_says_how_large_its_answer_may_be() -> None:
    names = tuple(f"X{number}/USDT" for number in range(30))
    (many, few) = BinancePoll(channel("24hr", *names), 20).tick(0.0).requests
    (book,) = BinancePoll(channel("orderbook", "BTC/USDT"), 20).tick(0.0).requests
    assert (many.most_bytes, few.most_bytes) == (20 * 16_384, 10 * 16_384)
    assert book.most_bytes == 65_536


def test_each_channel_gets_a_connector_of_its_name() -> None:
    made = build([channel(name="x"), channel("orderbook", name="y")], Binance(), "tickerd/1")
    assert [(connector.name, connector.channels) for connector in made] == [
        ("x", ("x",)),
        ("y", ("y",)),
    ]
