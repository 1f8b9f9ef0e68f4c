"""Binance simulated: shapes, the traps of its parameters, weights and refusals."""

import json
import re
from typing import Any, TypeAlias
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.simulator.http.request import VenueRequest, VenueResponse
from connectors.simulator.venues.binance import PATHS, SimulatedBinance
from connectors.simulator.venues.binance_weight import REFUSALS_BEFORE_BAN, RequestWeight, weight
from connectors.simulator.venues.market import BINANCE, Market

Json: TypeAlias = Any
"""Whatever JSON decodes to."""


NOW = 1_800_000_000.5
DECIMALS = re.compile(r"-?\d+\.\d{8}")


def request(target: str, **headers: str) -> VenueRequest:
    path, _, query = target.partition("?")
    return VenueRequest("GET", f"/api/v3/{path}?{quote(query, safe='=&')}", headers)


def answer(target: str, **headers: str) -> VenueResponse:
    venue = SimulatedBinance(Market(1), lambda: NOW, lambda: 40)
    return venue.answer(request(target, **headers))


def body(target: str, **headers: str) -> Json:
    response = answer(target, **headers)
    assert response.status == 200, response.body
    return json.loads(response.body)


def refusal(target: str) -> tuple[int, str]:
    response = answer(target)
    assert response.status == 400
    error = json.loads(response.body)
    assert list(error) == ["code", "msg"]
    return error["code"], error["msg"]


FULL = [
    "symbol",
    "priceChange",
    "priceChangePercent",
    "weightedAvgPrice",
    "prevClosePrice",
    "lastPrice",
    "lastQty",
    "bidPrice",
    "bidQty",
    "askPrice",
    "askQty",
    "openPrice",
    "highPrice",
    "lowPrice",
    "volume",
    "quoteVolume",
    "openTime",
    "closeTime",
    "firstId",
    "lastId",
    "count",
]
MINI = [
    "symbol",
    "openPrice",
    "highPrice",
    "lowPrice",
    "lastPrice",
    "volume",
    "quoteVolume",
    "openTime",
    "closeTime",
    "firstId",
    "lastId",
    "count",
]
INTEGERS = {"openTime", "closeTime", "firstId", "lastId", "count"}


def test_a_24_h_ticker_has_all_fields_in_binances_types() -> None:
    ticker = body("ticker/24hr?symbol=BTCUSDT")

    assert list(ticker) == FULL
    for name, value in ticker.items():
        if name in INTEGERS:
            assert type(value) is int
        elif name == "priceChangePercent":
            assert re.fullmatch(r"-?\d+\.\d{3}", value)
        elif name != "symbol":
            assert DECIMALS.fullmatch(value)
    assert ticker["closeTime"] == 1_800_000_000_500
    assert ticker["closeTime"] - ticker["openTime"] == 86_400_000
    assert ticker["lastId"] - ticker["firstId"] + 1 == ticker["count"]
    change, opened = float(ticker["priceChange"]), float(ticker["openPrice"])
    assert float(ticker["lastPrice"]) - opened == pytest.approx(change, abs=1e-6)
    assert float(ticker["priceChangePercent"]) == pytest.approx(change / opened * 100, abs=0.001)
    assert float(ticker["bidPrice"]) < float(ticker["askPrice"])


def test_one_symbol_is_an_object_and_several_or_none_a_list() -> None:
    assert list(body("ticker/24hr?symbol=BTCUSDT&type=MINI")) == MINI
    several = body('ticker/24hr?symbols=["ETHUSDT","BTCUSDT"]&type=FULL')
    assert [row["symbol"] for row in several] == ["ETHUSDT", "BTCUSDT"]
    assert [row["symbol"] for row in body("ticker/24hr")] == list(BINANCE)
    assert body("ticker/price?symbol=DOTUSDT").keys() == {"symbol", "price"}
    best = body('ticker/bookTicker?symbols=["DOTUSDT"]')
    assert list(best[0]) == ["symbol", "bidPrice", "bidQty", "askPrice", "askQty"]


def test_all_endpoints_agree_at_one_step() -> None:
    ticker = body("ticker/24hr?symbol=BTCUSDT")
    best = body("ticker/bookTicker?symbol=BTCUSDT")
    book = body("depth?symbol=BTCUSDT&limit=5")

    assert body("ticker/price?symbol=BTCUSDT")["price"] == ticker["lastPrice"]
    assert best["bidPrice"] == ticker["bidPrice"] == book["bids"][0][0]
    assert best["askQty"] == ticker["askQty"] == book["asks"][0][1]


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ('ticker/24hr?symbols=["BTCUSDT", "ETHUSDT"]', -1100),
        ('ticker/24hr?symbols=["btcusdt"]', -1100),
        ('ticker/24hr?symbols=["BTCUSDT"]&symbols=["ETHUSDT"]', -1100),
        ("ticker/24hr?symbols=BTCUSDT", -1100),
        ("ticker/24hr?symbols=", -1100),
        ("ticker/price?symbol=btcusdt", -1100),
        ('ticker/24hr?symbols=["BTCUSDT","NOPE"]', -1121),
        ('exchangeInfo?symbols=["BTCUSDT","NOPE"]', -1121),
        ("depth?symbol=NOPE", -1121),
        ("depth", -1102),
        ("depth?symbol=", -1102),
        ('depth?symbols=["BTCUSDT"]', -1102),
        ("ticker/price?symbol=", -1102),
        ("depth?symbol=BTCUSDT&limit=ten", -1100),
        ("depth?symbol=BTCUSDT&limit=0", -1130),
        ('ticker/24hr?symbol=BTCUSDT&symbols=["BTCUSDT"]', -1128),
        ('ticker/24hr?symbols=["BTCUSDT","BTCUSDT"]', -1151),
        ("ticker/24hr?type=HUGE", -1139),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_code(target: str, code: int) -> None:
    assert refusal(target)[0] == code


def test_texts_of_refusals() -> None:
    assert refusal("depth?symbol=NOPE")[1] == "Invalid symbol."
    text = "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
    assert refusal("depth")[1] == text
    assert refusal('ticker/24hr?symbols=["A", "B"]')[1] == (
        "Illegal characters found in parameter 'symbols'; legal range is "
        r"""'^\[("[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}"){0,}){0,1}\]$'."""
    )


@given(st.text(max_size=60), st.sampled_from(["symbol", "symbols", "limit", "type"]), st.sampled_from(sorted(PATHS)))
def test_no_parameter_is_answered_but_by_200_or_400(text: str, name: str, path: str) -> None:
    venue = SimulatedBinance(Market(1), lambda: NOW, lambda: 0)
    response = venue.answer(VenueRequest("GET", f"{path}?{name}={quote(text)}"))

    assert response.status in (200, 400)
    json.loads(response.body)


@pytest.mark.parametrize(("limit", "levels"), [("5", 5), ("20", 20), ("5000", 100), ("99999", 100), ("", 100)])
def test_books_have_the_levels_asked_for_up_to_what_there_is(limit: str, levels: int) -> None:
    book = body(f"depth?symbol=ETHUSDT&limit={limit}")

    assert list(book) == ["lastUpdateId", "bids", "asks"]
    assert len(book["bids"]) == len(book["asks"]) == levels
    assert all(DECIMALS.fullmatch(text) for side in ("bids", "asks") for level in book[side] for text in level)
    assert float(book["bids"][0][0]) < float(book["asks"][0][0])


def test_exchange_info_maps_symbols_and_states_the_limits() -> None:
    info = body('exchangeInfo?symbols=["DOGEUSDT"]')

    (row,) = info["symbols"]
    assert (row["baseAsset"], row["quoteAsset"], row["status"]) == ("DOGE", "USDT", "TRADING")
    assert row["filters"][0]["tickSize"] == "0.00001000"
    assert info["rateLimits"][0]["limit"] == 6_000
    assert len(body("exchangeInfo")["symbols"]) == len(BINANCE)


def test_microseconds_on_request() -> None:
    unit = {"x-mbx-time-unit": "MICROSECOND"}

    assert body("time") == {"serverTime": 1_800_000_000_500}
    assert body("time", **unit) == {"serverTime": 1_800_000_000_500_000}
    ticker = body("ticker/24hr?symbol=BTCUSDT", **unit)
    assert ticker["closeTime"] - ticker["openTime"] == 86_400_000_000


# Weight


def many(count: int) -> str:
    return "symbols=[" + ",".join(f'"S{number}"' for number in range(count)) + "]"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("ticker/24hr?symbol=A", 2),
        (f"ticker/24hr?{many(20)}", 2),
        (f"ticker/24hr?{many(21)}", 40),
        (f"ticker/24hr?{many(101)}", 80),
        ("ticker/24hr", 80),
        ("ticker/price?symbol=A", 2),
        (f"ticker/price?{many(2)}", 4),
        ("ticker/bookTicker", 4),
        ("depth?symbol=A", 5),
        ("depth?symbol=A&limit=100", 5),
        ("depth?symbol=A&limit=500", 25),
        ("depth?symbol=A&limit=1000", 50),
        ("depth?symbol=A&limit=5000", 250),
        ("depth?symbol=A&limit=9999999", 250),
        ("exchangeInfo", 20),
        ("time", 1),
    ],
)
def test_weights(target: str, expected: int) -> None:
    assert weight(request(target)) == expected


def test_used_weight_grows_is_counted_by_address_and_starts_anew_each_minute() -> None:
    now = 600.0
    guard = RequestWeight(lambda: now).guard

    def used(target: str, peer: str = "10.0.0.1") -> str:
        asked = VenueRequest("GET", f"/api/v3/{target}", peer=peer)
        return dict(guard(asked, lambda request: VenueResponse(400)).headers)["x-mbx-used-weight-1m"]

    assert [used("time"), used("depth"), used("time")] == ["1", "6", "7"]
    assert used("time", "10.0.0.2") == "1"
    now = 660.0
    assert used("time") == "1"


def test_over_the_limit_is_429_and_going_on_is_a_ban() -> None:
    now = 615.0
    guard = RequestWeight(lambda: now, limit=3).guard

    def ask(peer: str = "10.0.0.1") -> VenueResponse:
        return guard(VenueRequest("GET", "/api/v3/time", peer=peer), lambda request: VenueResponse(200))

    assert [ask().status for _ in range(3)] == [200] * 3
    refused = ask()
    assert (refused.status, dict(refused.headers)["retry-after"]) == (429, "45")
    assert json.loads(refused.body) == {
        "code": -1003,
        "msg": "Too much request weight used; current limit is 3 request weight per 1 MINUTE. "
        "Please use WebSocket Streams for live updates to avoid polling the API.",
    }
    assert [ask().status for _ in range(REFUSALS_BEFORE_BAN - 1)] == [429] * (REFUSALS_BEFORE_BAN - 1)
    banned = ask()
    assert (banned.status, dict(banned.headers)["retry-after"]) == (418, "121")
    assert json.loads(banned.body)["msg"].startswith("Way too much request weight used; IP banned until 735000.")
    assert ask("10.0.0.2").status == 200
    now = 734.0
    assert ask().status == 418
    now = 736.0
    assert ask().status == 200
