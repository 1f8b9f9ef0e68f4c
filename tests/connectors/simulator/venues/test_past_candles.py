"""The simulated histories: what each venue answers, in its form, is what its websocket told of the same candles."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from connectors.base import ConnectorError
from connectors.poll.candles import CandleHistory, Stretch
from connectors.poll.venue import Answer
from connectors.simulator.faults.active import FaultBoard
from connectors.simulator.faults.faults import PastCandles
from connectors.simulator.faults.past_candles import FaultyHistories
from connectors.simulator.http.request import VenueRequest, VenueResponse
from connectors.simulator.simulator import Simulator
from connectors.simulator.venues.market import LISTINGS, Market
from connectors.simulator.venues.past_candles import Name, SimulatedHistories
from connectors.simulator.venues.stream import MarketStream
from connectors.venues.binance.history import BinanceHistory
from connectors.venues.bybit.history import BybitHistory
from connectors.venues.coinbase.history import CoinbaseHistory
from connectors.venues.kraken.history import KrakenHistory
from connectors.venues.okx.history import OkxHistory

MINUTE, FIVE = 60_000, 300_000
BEGAN_MS = 1_800_000_012_345
STEPS_PER_S = 5
STEP = STEPS_PER_S * 60 * 12 + 7
"""Twelve minutes later, and a little."""

HISTORIES: Mapping[Name, CandleHistory] = {
    "binance": BinanceHistory(),
    "bybit": BybitHistory(),
    "coinbase": CoinbaseHistory(),
    "kraken": KrakenHistory(),
    "okx": OkxHistory(),
}
LENGTHS = {"coinbase": ("5m", FIVE)}


def simulated(step: int = STEP) -> tuple[MarketStream, SimulatedHistories]:
    stream = MarketStream(Market(1), STEPS_PER_S, BEGAN_MS)
    return stream, SimulatedHistories(stream, lambda: step, lambda name: LISTINGS[name])


def ask(target: str, histories: SimulatedHistories | None = None) -> VenueResponse:
    request = VenueRequest("GET", target)
    found = histories or simulated()[1]
    return found.routes[request.path][1](request)


def said(target: str) -> Any:
    return json.loads(ask(target).body)


@pytest.mark.parametrize("name", HISTORIES)
def test_the_daemon_reads_what_the_websocket_told(name: Name) -> None:
    history = HISTORIES[name]
    interval, length = LENGTHS.get(name, ("1m", MINUTE))
    stream, histories = simulated()
    now_ms = stream.time_ms(STEP)
    until_ms = now_ms // length * length + length
    stretch = Stretch("BTC/USDT", interval, until_ms - 30 * length, until_ms)
    response = ask(history.path(stretch, now_ms), histories)
    assert history.explain(Answer(response.status, {}, response.body, now_ms, 0.0)) is None
    rows = [history.row(bytes(raw), stretch) for raw in history.read(response.body)]
    for row in rows:
        row.check()
    found = {row.start_ms: row for row in rows if stretch.from_ms <= row.start_ms < stretch.until_ms}
    assert sorted(found) == list(range(stretch.from_ms, stretch.until_ms, length))
    listing = next(each for each in LISTINGS[name].values() if each.instrument == "BTC/USDT")
    fresh = MarketStream(Market(1), STEPS_PER_S, BEGAN_MS)
    for start_ms, row in found.items():
        is_present = start_ms + length > now_ms
        candle = fresh.candle(listing, length, STEP) if is_present else fresh.closed_candle(listing, length, start_ms)
        scale = 10**listing.price_digits
        prices = [round(float(text) * scale) for text in (row.open, row.high, row.low, row.close)]
        assert prices == [candle.open, candle.high, candle.low, candle.close]
        assert round(float(row.volume) * 10**listing.size_digits) == candle.volume
        assert row.closed in (None, not is_present)


def test_a_candle_from_before_the_market_began_is_one_and_cheap() -> None:
    stream, _ = simulated()
    listing = LISTINGS["binance"]["BTCUSDT"]
    day = 86_400_000
    candle = stream.closed_candle(listing, day, BEGAN_MS // day * day - day)
    assert candle.low <= min(candle.open, candle.close) <= max(candle.open, candle.close) <= candle.high
    assert candle.closed
    assert candle.trades == candle.last_id - candle.first_id + 1 > 0
    assert candle.volume > candle.bought > 0
    assert stream.closed_candle(listing, day, BEGAN_MS // day * day - day) is candle


@pytest.mark.parametrize(
    ("target", "count", "newest_first"),
    [
        ("/api/v3/klines?symbol=BTCUSDT&interval=1m", 500, False),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1000", 1000, False),
        ("/api/v5/market/candles?instId=BTC-USDT", 100, True),
        ("/api/v5/market/candles?instId=BTC-USDT&limit=300", 300, True),
        ("/api/v5/market/history-candles?instId=BTC-USDT&limit=300", 100, True),
        ("/v5/market/kline?category=spot&symbol=BTCUSDT&interval=1", 200, True),
        ("/0/public/OHLC?pair=XBTUSDT", 720, False),
        ("/0/public/OHLC?pair=XBTUSDT&since=1", 720, False),
        (
            "/api/v3/brokerage/market/products/BTC-USDT/candles?granularity=FIVE_MINUTE"
            f"&start={BEGAN_MS // 1000 - 90_000}&end={BEGAN_MS // 1000}",
            300,
            True,
        ),
    ],
)
def test_how_many_rows_there_are_and_in_which_order(target: str, count: int, newest_first: bool) -> None:
    rows = said(target)
    if isinstance(rows, dict):
        rows = rows.get("result", rows)
        rows = next(each for each in rows.values() if isinstance(each, list) and each)
    starts = [int(row["start"] if isinstance(row, dict) else row[0]) for row in rows]
    assert len(rows) == count
    assert starts == sorted(starts, reverse=newest_first)


@pytest.mark.parametrize(
    ("target", "status", "told"),
    [
        ("/api/v3/klines?interval=1m", 400, "Mandatory parameter 'symbol'"),
        ("/api/v3/klines?symbol=BTCUSDT", 400, "Mandatory parameter 'interval'"),
        ("/api/v3/klines?symbol=NOPE&interval=1m", 400, "Invalid symbol."),
        ("/api/v3/klines?symbol=BTCUSDT&interval=7m", 400, "Invalid interval."),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=x", 400, "parameter 'limit'"),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=0", 400, "'limit' is not valid"),
        ("/api/v5/market/candles", 400, "50014"),
        ("/api/v5/market/candles?instId=NO-PE", 200, "51001"),
        ("/api/v5/market/candles?instId=BTC-USDT&bar=7m", 400, "51000"),
        ("/api/v5/market/candles?instId=BTC-USDT&after=x", 400, "51000"),
        ("/v5/market/kline?symbol=BTCUSDT&interval=1", 200, "Category is invalid"),
        ("/v5/market/kline?category=spot&symbol=NOPE&interval=1", 200, "Not supported symbols"),
        ("/v5/market/kline?category=spot&symbol=BTCUSDT&interval=7", 200, "Invalid interval"),
        ("/v5/market/kline?category=spot&symbol=BTCUSDT&interval=1&end=x", 200, "Invalid end"),
        ("/0/public/OHLC?pair=NOPE", 200, "EQuery:Unknown asset pair"),
        ("/0/public/OHLC?pair=XBTUSDT&interval=7", 200, "EGeneral:Invalid arguments"),
        ("/0/public/OHLC?pair=XBTUSDT&since=x", 200, "EGeneral:Invalid arguments"),
        ("/api/v3/brokerage/market/products/BTC-USD/candles", 400, "start and end are needed"),
        ("/api/v3/brokerage/market/products/BTC-USD/candles?start=1&end=2&granularity=ONE", 400, "granularity"),
        ("/api/v3/brokerage/market/products/BTC-USD/candles?start=x&end=2", 400, "invalid start"),
        (
            "/api/v3/brokerage/market/products/BTC-USD/candles?start=0&end=200000&granularity=FIVE_MINUTE",
            400,
            "number of candles",
        ),
        ("/api/v3/brokerage/market/products/BTC-USD/candles?start=1&end=2&granularity=ONE_DAY", 501, "FIVE_MINUTE"),
    ],
)
def test_a_mistake_is_told_in_the_venues_way(target: str, status: int, told: str) -> None:
    response = ask(target)
    assert response.status == status
    assert told in response.body.decode()


def test_what_is_not_listed_any_more_has_no_history() -> None:
    stream = MarketStream(Market(1), STEPS_PER_S, BEGAN_MS)
    delisted = SimulatedHistories(stream, lambda: STEP, lambda _: frozenset())
    for target, told in (
        ("/api/v3/klines?symbol=BTCUSDT&interval=1m", "-1121"),
        ("/api/v5/market/candles?instId=BTC-USDT", "51001"),
        ("/v5/market/kline?category=spot&symbol=BTCUSDT&interval=1", "10001"),
        ("/0/public/OHLC?pair=XBTUSDT", "Unknown asset pair"),
        ("/api/v3/brokerage/market/products/BTC-USD/candles?start=1&end=2", "NOT_FOUND"),
    ):
        assert told in ask(target, delisted).body.decode()


TARGETS: Mapping[Name, str] = {
    "binance": "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=4",
    "bybit": "/v5/market/kline?category=spot&symbol=BTCUSDT&interval=1&limit=4",
    "coinbase": "/api/v3/brokerage/market/products/BTC-USD/candles?granularity=FIVE_MINUTE&start=1&end=1200",
    "kraken": f"/0/public/OHLC?pair=XBTUSD&since={(BEGAN_MS + 10 * MINUTE) // 1000}",
    "okx": "/api/v5/market/candles?instId=BTC-USDT&limit=4",
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("what", ["throttled", "trouble", "mute", "odd_rows", "not_json"])
def test_each_fault_is_one_that_the_daemon_notices(name: Name, what: Any) -> None:
    _, histories = simulated()
    board = FaultBoard(1)
    faulty = FaultyHistories(board)
    request, history = VenueRequest("GET", TARGETS[name]), HISTORIES[name]
    serve = histories.routes[request.path][1]
    assert faulty.answer(name, request, serve) == serve(request)
    board.switch_on(PastCandles(venue=name, what=what, times=1, retry_after_s=9), 0.0, 0)
    response = faulty.answer(name, request, serve)
    answer = Answer(response.status, dict(response.headers), response.body, 0, 0.0)
    stretch = Stretch("BTC/USD", "5m", 0, 1)
    if what == "mute":
        assert response.delivery.delay_s > 3_600
    elif what == "odd_rows":
        rows = [history.row(bytes(raw), stretch) for raw in history.read(response.body)]
        assert [row.high == "NaN" for row in rows] == [number % 2 == 0 for number in range(len(rows))]
        assert rows
    else:
        failed = history.explain(answer)
        if failed is None:
            with pytest.raises(ConnectorError) as caught:
                history.read(response.body)
            failed = caught.value
        assert (failed.cause == "throttled") == (what == "throttled")
    assert faulty.answer(name, request, serve) == serve(request), "it has acted once"


async def test_the_simulator_serves_them_and_weighs_binances() -> None:
    simulator = Simulator(clock=lambda: BEGAN_MS / 1000)
    for target in TARGETS.values():
        response = simulator.answer(VenueRequest("GET", target))
        assert response is not None
        assert response.status == 200
    weighed = [simulator.answer(VenueRequest("GET", TARGETS["binance"])) for _ in range(2)]
    used = [dict(each.headers)["x-mbx-used-weight-1m"] for each in weighed if each is not None]
    assert used == ["4", "6"]
    refused = simulator.answer(VenueRequest("POST", TARGETS["okx"]))
    assert refused is not None
    assert refused.status == 405
