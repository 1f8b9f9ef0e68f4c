"""A venue's own history of candles: asked once, in turn, kept within bounds; and what a failure leaves behind."""

import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest
import trio
from trio.testing import MockClock

from connectors.metric import Samples
from connectors.poll import past_candles as module
from connectors.poll.past_candles import AGAIN_S, LEAST_REST_S, WAIT_S, Past, PastCandles, among, past_candles
from connectors.venues.binance.history import BinanceHistory
from connectors.venues.kraken.history import KrakenHistory
from protocol.channels import Channel
from protocol.kinds import KINDS
from tests.connectors.poll.test_poller import START_MS, Venue, World

MINUTE = 60_000
PAGE = BinanceHistory.rows * MINUTE
NOW = START_MS
FIRST = NOW // PAGE * PAGE
"""Where the stretch begins that the present is in."""


def now_ms() -> int:
    return START_MS + round(trio.current_time() * 1_000)


def kline(start_ms: int, high: str = "2.50") -> list[object]:
    return [start_ms, "1", high, "0.5", "1", "7.0", start_ms + MINUTE - 1, "7", 3, "1", "1", "0"]


class Exchange(Venue):
    """Binance's candles of every minute, the present one included; `spoil` may say something else."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.spoil: Callable[[httpx.Request], Awaitable[httpx.Response | None]] | None = None
        self.begins_ms = 0

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        if self.spoil is not None and (spoiled := await self.spoil(request)) is not None:
            return spoiled
        start, end = int(request.url.params["startTime"]), int(request.url.params["endTime"])
        starts = range(max(start, self.begins_ms), min(end + 1, now_ms()), MINUTE)
        return httpx.Response(200, json=[kline(at) for at in starts])


@asynccontextmanager
async def running(venue: Venue, history: BinanceHistory | KrakenHistory | None = None) -> AsyncIterator[PastCandles]:
    past = PastCandles("acme", history or BinanceHistory(), venue.host(), now_ms=now_ms)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(past.run, World())
        await trio.testing.wait_all_tasks_blocked()
        yield past
        nursery.cancel_scope.cancel()


async def get(past: PastCandles, from_ms: int, until_ms: int, instrument: str = "BTC/USDT") -> Past:
    return await past.get(instrument, "1m", [(from_ms, until_ms)])


def starts(past: Past) -> list[int]:
    return [candle.start_ms for candle in past.candles]


async def test_closed_candles_come_in_order_and_the_present_one_does_not(autojump_clock: MockClock) -> None:
    venue = Exchange()
    async with running(venue) as past:
        present = NOW // MINUTE * MINUTE
        found = await get(past, present - 3 * MINUTE, present + MINUTE)
        assert starts(found) == [present - 3 * MINUTE, present - 2 * MINUTE, present - MINUTE]
        assert (found.reason, found.begins) == ("", False)
        [candle, *_] = found.candles
        assert [bytes(raw) for raw in (candle.open, candle.high, candle.volume)] == [b"1", b"2.50", b"7.0"]
        assert msgspec.json.decode(candle.data)["symbol"] == "BTCUSDT"
        assert candle.received_ms == now_ms()


async def test_several_spans_are_looked_up_at_once_and_nothing_between_them_comes(autojump_clock: MockClock) -> None:
    venue = Exchange()
    async with running(venue) as past:
        spans = [(FIRST - at * MINUTE, FIRST - (at - 2) * MINUTE) for at in range(400, 3, -4)]
        found = await past.get("BTC/USDT", "1m", spans)
        assert starts(found) == [start + more for start, _ in spans for more in (0, MINUTE)]
        assert len(venue.asked) == 2
        assert (await past.get("BTC/USDT", "1m", [])).candles == []
        await trio.sleep(AGAIN_S + 1)
        assert (await get(past, now_ms() - 1, now_ms() + 1)).candles == []
        assert len(venue.asked) == 2, "what has not closed is not asked for"


async def test_what_was_asked_once_is_here(autojump_clock: MockClock) -> None:
    venue = Exchange()
    async with running(venue) as past:
        first = await get(past, FIRST - 2 * PAGE, FIRST)
        assert len(first.candles) == 2 * BinanceHistory.rows
        assert len(venue.asked) == 2
        await trio.sleep(86_400)
        assert starts(await get(past, FIRST - 2 * PAGE, FIRST)) == starts(first)
        assert starts(await get(past, FIRST - PAGE + MINUTE, FIRST - PAGE + 2 * MINUTE)) == [FIRST - PAGE + MINUTE]
        assert len(venue.asked) == 2
        assert (past.asked, past.kept, past.refused, past.failed) == (2, 3, 0, 0)


async def test_those_who_ask_at_once_share_one_request_and_each_gets_its_own_span(autojump_clock: MockClock) -> None:
    venue = Exchange()
    found: dict[int, Past] = {}

    async def ask(past: PastCandles, number: int) -> None:
        found[number] = await get(past, FIRST - PAGE + number * MINUTE, FIRST)

    async with running(venue) as past, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, past, number)
    assert len(venue.asked) == 1
    assert [len(found[number].candles) for number in range(20)] == [300 - number for number in range(20)]


async def test_another_instrument_or_interval_is_another_question(autojump_clock: MockClock) -> None:
    venue = Exchange()
    async with running(venue) as past:
        await get(past, FIRST - MINUTE, FIRST)
        await get(past, FIRST - MINUTE, FIRST, "ETH/USDT")
        await past.get("BTC/USDT", "5m", [(FIRST - 300_000, FIRST)])
        asked = [(each.url.params["symbol"], each.url.params["interval"]) for _, each in venue.asked]
        assert asked == [("BTCUSDT", "1m"), ("ETHUSDT", "1m"), ("BTCUSDT", "5m")]


async def test_the_present_stretch_is_asked_for_again_when_later_candles_are_wanted(autojump_clock: MockClock) -> None:
    venue = Exchange()
    async with running(venue) as past:
        present = NOW // MINUTE * MINUTE
        await get(past, present - 3 * MINUTE, present)
        await get(past, present - 3 * MINUTE, present + MINUTE)
        assert len(venue.asked) == 1, "no other candle has closed"
        await trio.sleep(5 * 60)
        assert starts(await get(past, present - 3 * MINUTE, present))[-1] == present - MINUTE
        assert len(venue.asked) == 1, "it is known already"
        assert starts(await get(past, present, present + 3 * MINUTE)) == [
            present,
            present + MINUTE,
            present + 2 * MINUTE,
        ]
        assert len(venue.asked) == 2


async def test_the_present_stretch_is_not_asked_for_again_too_soon(autojump_clock: MockClock) -> None:
    """Of candles of a second, one closes each second."""
    venue = Exchange()
    async with running(venue) as past:
        for _ in range(30):
            await past.get("BTC/USDT", "1s", [(now_ms() - 20_000, now_ms())])
            await trio.sleep(1)
    assert len(venue.asked) == math.ceil(30 / AGAIN_S)


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (503, {}, r"Binance is in trouble \(HTTP 503\)"),
        (451, {}, "Binance does not serve this region"),
        (400, {}, r"Binance refused the request \(HTTP 400\)"),
    ],
)
async def test_a_failure_is_told_at_once_to_all_who_ask_and_the_venue_left_alone(
    autojump_clock: MockClock, status: int, headers: dict[str, str], reason: str
) -> None:
    venue = Exchange()

    async def fail(_: httpx.Request) -> httpx.Response | None:
        return httpx.Response(status, headers=headers)

    venue.spoil = fail
    async with running(venue) as past:
        for _ in range(5):
            found = await get(past, FIRST - 3 * PAGE, FIRST)
            assert found.candles == []
            assert pytest.approx(0) == trio.current_time()
            assert re.search(reason, found.reason)
        assert len(venue.asked) == 1, "the other stretches waited for their turn, and it has failed before"
        assert (past.asked, past.failed) == (1, 1)
        assert past.refused == 2 + 4 * 3
        await trio.sleep(LEAST_REST_S + 0.1)
        await get(past, FIRST - 3 * PAGE, FIRST)
        assert len(venue.asked) == 2
        await trio.sleep(LEAST_REST_S + 0.1)
        await get(past, FIRST - 3 * PAGE, FIRST)
        assert len(venue.asked) == 2, "after each failure it is twice as long"
        venue.spoil = None
        await trio.sleep(LEAST_REST_S)
        found = await get(past, FIRST - 3 * PAGE, FIRST)
        assert (len(found.candles), found.reason) == (900, "")


async def test_a_failure_of_one_instrument_is_not_another_ones(autojump_clock: MockClock) -> None:
    venue = Exchange()

    async def fail(request: httpx.Request) -> httpx.Response | None:
        unknown = request.url.params["symbol"] == "BTCUSDT"
        return httpx.Response(400, json={"code": -1121, "msg": "Invalid symbol."}) if unknown else None

    venue.spoil = fail
    async with running(venue) as past:
        assert "Invalid symbol" in (await get(past, FIRST - MINUTE, FIRST)).reason
        assert len((await get(past, FIRST - MINUTE, FIRST, "ETH/USDT")).candles) == 1


async def test_a_pause_that_the_venue_asks_for_is_kept_for_all_instruments(autojump_clock: MockClock) -> None:
    venue = Exchange()

    async def throttle(_: httpx.Request) -> httpx.Response | None:
        return httpx.Response(429, headers={"Retry-After": "40"})

    venue.spoil = throttle
    async with running(venue) as past:
        assert "asked for a pause of 40 s" in (await get(past, FIRST - MINUTE, FIRST)).reason
        venue.spoil = None
        assert "asked for a pause of 40 s" in (await get(past, FIRST - MINUTE, FIRST, "ETH/USDT")).reason
        assert len(venue.asked) == 1
        await trio.sleep(41)
        assert (await get(past, FIRST - MINUTE, FIRST)).reason == ""


async def test_nobody_waits_for_long_and_what_comes_later_is_kept(autojump_clock: MockClock) -> None:
    venue = Exchange()

    async def tarry(_: httpx.Request) -> httpx.Response | None:
        await trio.sleep(WAIT_S + 3)
        return None

    venue.spoil = tarry
    async with running(venue, BinanceHistory()) as past:
        past._fetcher._host.timeout_s = 60.0
        found = await get(past, FIRST - MINUTE, FIRST)
        assert trio.current_time() == WAIT_S
        assert (found.candles, found.reason) == ([], f"Binance has not answered within {WAIT_S:g} s")
        assert (await get(past, FIRST - MINUTE, FIRST)).candles
        assert trio.current_time() == WAIT_S + 3
        assert len(venue.asked) == 1


async def test_a_client_that_leaves_ends_nobody_elses_request(autojump_clock: MockClock) -> None:
    venue = Exchange()

    async def tarry(_: httpx.Request) -> httpx.Response | None:
        await trio.sleep(3)
        return None

    venue.spoil = tarry
    async with running(venue) as past:
        with trio.move_on_after(1):
            await get(past, FIRST - MINUTE, FIRST)
        assert len((await get(past, FIRST - MINUTE, FIRST)).candles) == 1
        assert len(venue.asked) == 1


async def test_who_waits_when_it_ends_is_told_and_without_it_nothing_is_asked(autojump_clock: MockClock) -> None:
    venue = Exchange()

    async def never(_: httpx.Request) -> httpx.Response | None:
        await trio.sleep(100)
        return None

    venue.spoil = never
    found: list[Past] = []

    async def ask() -> None:
        found.append(await get(past, FIRST - MINUTE, FIRST))

    past = PastCandles("acme", BinanceHistory(), venue.host(), now_ms=now_ms)
    assert (await get(past, FIRST - MINUTE, FIRST)).reason == "Binance is not asked just now"
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await past.run(World())

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask)
        await trio.sleep(1)
        scope.cancel()
    assert trio.current_time() == 1
    assert [each.reason for each in found] == ["Binance is not asked just now"]


async def test_odd_rows_are_left_out_and_told(autojump_clock: MockClock) -> None:
    venue = Exchange()

    async def spoil(_: httpx.Request) -> httpx.Response | None:
        return httpx.Response(200, json=[kline(FIRST - 2 * MINUTE, "NaN"), kline(FIRST - MINUTE)])

    venue.spoil = spoil
    async with running(venue) as past:
        found = await get(past, FIRST - 2 * MINUTE, FIRST)
        assert starts(found) == [FIRST - MINUTE]
        assert found.reason == 'Binance sent 1 candles of BTC/USDT that cannot be read: `high` is "NaN", not a number'
        assert past.unreadable == 1
        assert (past.failed, past.asked) == (0, 1)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[", b"7", b"<html>", b'[{"a":1}]', msgspec.json.encode([kline(FIRST, "x")])]
)
async def test_a_body_that_is_none_is_a_failure(autojump_clock: MockClock, body: bytes) -> None:
    venue = Exchange()

    async def spoil(_: httpx.Request) -> httpx.Response | None:
        return httpx.Response(200, content=body)

    venue.spoil = spoil
    async with running(venue) as past:
        found = await get(past, FIRST - MINUTE, FIRST)
        assert found.candles == []
        assert found.reason
        assert past.failed == 1


async def test_where_the_venue_has_nothing_it_began_later(autojump_clock: MockClock) -> None:
    venue = Exchange()
    venue.begins_ms = FIRST - PAGE
    async with running(venue) as past:
        found = await get(past, FIRST - 2 * PAGE, FIRST)
        assert (len(found.candles), found.begins) == (300, True)
        assert not (await get(past, FIRST - PAGE, FIRST)).begins


async def test_what_is_kept_is_bounded_and_what_was_used_longest_ago_goes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 3 * (BinanceHistory.rows + 1))
    venue = Exchange()
    async with running(venue) as past:
        for back in (1, 2, 3, 1, 4):
            await get(past, FIRST - back * PAGE, FIRST - (back - 1) * PAGE)
        assert len(venue.asked) == 4
        await get(past, FIRST - PAGE, FIRST)
        assert len(venue.asked) == 4
        await get(past, FIRST - 2 * PAGE, FIRST - PAGE)
        assert len(venue.asked) == 5


async def test_so_many_requests_may_wait_and_no_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    venue = Exchange()
    async with running(venue) as past:
        found = await get(past, FIRST - 5 * PAGE, FIRST)
        assert len(found.candles) == 3 * BinanceHistory.rows, "the newest first"
        assert (past.asked, past.refused) == (3, 2)


async def test_requests_keep_to_so_many_in_a_minute(autojump_clock: MockClock) -> None:
    venue = Exchange()
    async with running(venue) as past:
        for back in range(0, 100, 50):
            await get(past, FIRST - (back + 50) * PAGE, FIRST - back * PAGE)
        assert len(venue.asked) == BinanceHistory.per_minute
        await trio.sleep(120)
        assert len(venue.asked) == 100
        for at_s, later_s in zip(venue.times, venue.times[BinanceHistory.per_minute :], strict=False):
            assert later_s - at_s >= 60.0


async def test_a_venue_that_goes_back_so_far_is_not_asked_for_more(autojump_clock: MockClock) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        since = int(request.url.params["since"])
        rows = [[at, "1", "1", "1", "1", "1", "1", 1] for at in range(since + 1, now_ms() // 1000, 60) if at % 60 == 0]
        return httpx.Response(200, json={"error": [], "result": {"XBTUSDT": rows[-720:], "last": 1}})

    venue = Venue(answer)
    async with running(venue, KrakenHistory()) as past:
        found = await get(past, NOW - 5_000 * MINUTE, NOW)
        assert 717 <= len(found.candles) <= 720
        assert (found.reason, found.begins) == ("Kraken has no more than the last 720 candles", True)
        count = len(venue.asked)
        assert count <= 2
        assert (await get(past, NOW - 5_000 * MINUTE, NOW - 4_000 * MINUTE)).candles == []
        assert len(venue.asked) == count


def test_it_is_there_for_channels_of_candles_alone() -> None:
    def channel(kind: str) -> Channel:
        return Channel(name=kind, exchange="acme", kind=KINDS[kind], instruments=("BTC/USDT",))

    host = Venue().host()
    assert past_candles("acme", [channel("trades")], BinanceHistory(), lambda: host) == []
    made = past_candles("acme", [channel("trades"), channel("candles")], BinanceHistory(), lambda: host)
    assert [each.name for each in made] == ["acme-history"]
    assert among(made) is made[0]
    assert among([]) is None
    assert made[0].channels == (), "no channel falls silent with it"


async def test_what_it_counts_is_measured(autojump_clock: MockClock) -> None:
    venue = Exchange()
    async with running(venue) as past:
        await get(past, FIRST - PAGE, FIRST)
        await get(past, FIRST - PAGE, FIRST)
        samples = Samples()
        past.measure(samples)
        values = {sample.name: sample.value for family in samples for sample in family.samples}
    assert values["tickerd_history_requests_total"] == 1
    assert values["tickerd_history_kept_total"] == 1
    assert values["tickerd_history_refused_total"] == values["tickerd_history_failures_total"] == 0
    assert values["tickerd_history_candles"] == 300
