"""CoinGecko simulated: shapes with their mixed types, cache headers and periods, refusals."""

import json
from typing import Any, TypeAlias

import pytest

from connectors.simulator.http.request import VenueRequest, VenueResponse
from connectors.simulator.venues.coingecko import SimulatedCoinGecko
from connectors.simulator.venues.coins import COINS, RATES
from connectors.simulator.venues.market import Market

Json: TypeAlias = Any
"""Whatever JSON decodes to."""


EPOCH = 1_800_000_000.0


class Venue:
    """The venue at a time that a test moves."""

    def __init__(self, seed: int = 1) -> None:
        self.elapsed = 0.0
        self._venue = SimulatedCoinGecko(
            Market(seed), lambda: EPOCH + self.elapsed, lambda: self.elapsed, lambda after: int(after * 5)
        )

    def get(self, target: str, **headers: str) -> VenueResponse:
        return self._venue.answer(VenueRequest("GET", f"/api/v3/{target}", {"user-agent": "x", **headers}))

    def body(self, target: str) -> Json:
        response = self.get(target)
        assert response.status == 200
        return json.loads(response.body)


MARKETS = "coins/markets?vs_currency=usd"
ROW = [
    "id",
    "symbol",
    "name",
    "image",
    "current_price",
    "market_cap",
    "market_cap_rank",
    "fully_diluted_valuation",
    "total_volume",
    "high_24h",
    "low_24h",
    "price_change_24h",
    "price_change_percentage_24h",
    "market_cap_change_24h",
    "market_cap_change_percentage_24h",
    "circulating_supply",
    "total_supply",
    "max_supply",
    "ath",
    "ath_change_percentage",
    "ath_date",
    "atl",
    "atl_change_percentage",
    "atl_date",
    "roi",
    "last_updated",
]


def test_markets_are_a_hundred_coins_by_size_with_null_int_float_and_exponent() -> None:
    response = Venue().get(MARKETS + "&order=market_cap_desc&per_page=100&page=1")
    rows = json.loads(response.body)

    assert len(rows) == len({row["id"] for row in rows}) == 100
    assert all(list(row) == ROW for row in rows)
    assert [row["market_cap_rank"] for row in rows] == [*range(1, 100), None]
    assert rows == sorted(rows, key=lambda row: -row["market_cap"])
    assert rows[0]["id"] == "bitcoin"
    assert type(rows[0]["current_price"]) is int
    assert {type(row["current_price"]) for row in rows} == {int, float}
    assert b"e-" in response.body
    for name in ("fully_diluted_valuation", "total_supply", "max_supply", "roi"):
        assert None in [row[name] for row in rows]
    assert any(isinstance(row["roi"], dict) for row in rows)
    assert rows[0]["last_updated"] == "2027-01-15T08:00:00.000Z"
    for row in rows:
        assert row["low_24h"] <= row["current_price"] <= row["high_24h"]


def test_pages_orders_ids_and_currencies() -> None:
    venue = Venue()
    whole = [row["id"] for row in venue.body(MARKETS)]

    assert [row["id"] for row in venue.body(MARKETS + "&per_page=7&page=2")] == whole[7:14]
    assert venue.body(MARKETS + "&page=2") == []
    assert [row["id"] for row in venue.body(MARKETS + "&order=market_cap_asc&per_page=2")] == whole[:-3:-1]
    ids = [row["id"] for row in venue.body(MARKETS + "&order=id_asc")]
    assert ids == sorted(ids)
    two = venue.body(MARKETS + "&ids=solana,ethereum")
    assert {row["id"] for row in two} == {"solana", "ethereum"}
    dollars, euros = venue.body(MARKETS), venue.body("coins/markets?vs_currency=EUR")
    assert euros[0]["market_cap"] == pytest.approx(dollars[0]["market_cap"] * RATES["eur"], rel=1e-6)
    (bitcoin,) = venue.body("coins/markets?vs_currency=btc&ids=bitcoin")
    assert bitcoin["current_price"] == 1
    assert len(venue.body(MARKETS + "&per_page=nonsense&order=nonsense")) == 100


@pytest.mark.parametrize(
    ("target", "status", "error"),
    [
        ("coins/markets", 422, "Missing parameter vs_currency"),
        ("coins/markets?vs_currency=", 422, "Missing parameter vs_currency"),
        ("coins/markets?vs_currency=usdt", 400, "invalid vs_currency"),
    ],
)
def test_refusals(target: str, status: int, error: str) -> None:
    response = Venue().get(target)

    assert (response.status, json.loads(response.body)) == (status, {"error": error})


def test_a_request_without_a_user_agent_is_forbidden() -> None:
    response = Venue().get("global", **{"user-agent": ""})

    assert response.status == 403
    status = json.loads(response.body)["status"]
    assert status["error_code"] == 403
    assert status["error_message"].startswith("Please add a descriptive User-Agent")


def test_global_is_wrapped_in_data_and_counts_in_many_currencies() -> None:
    venue = Venue()
    venue.elapsed = 65.0
    data = venue.body("global")["data"]

    assert list(data) == [
        *("active_cryptocurrencies", "upcoming_icos", "ongoing_icos", "ended_icos", "markets"),
        *("total_market_cap", "total_volume", "market_cap_percentage", "market_cap_change_percentage_24h_usd"),
        *("volume_change_percentage_24h_usd", "updated_at"),
    ]
    assert len(data["total_market_cap"]) > 55
    assert data["total_market_cap"].keys() == data["total_volume"].keys()
    assert 40 < data["market_cap_percentage"]["btc"] < 70
    assert data["updated_at"] == EPOCH + 60


def test_trending_keeps_its_mixed_types() -> None:
    body = Venue().body("search/trending")

    assert [len(body[part]) for part in ("coins", "nfts", "categories")] == [15, 7, 5]
    items = [coin["item"] for coin in body["coins"]]
    assert [item["score"] for item in items] == list(range(15))
    assert len({item["id"] for item in items}) == 15
    for item in items:
        assert isinstance(item["price_btc"], float)
        assert float(item["data"]["price_btc"]) == pytest.approx(item["price_btc"], rel=1e-6)
        assert item["data"]["market_cap"].startswith("$")
        assert item["symbol"] == item["symbol"].upper()
        assert item["data"]["price_change_percentage_24h"].keys() == {"usd", "btc"}
    contents = [item["data"]["content"] for item in items]
    assert None in contents
    assert {"title", "description"} in [set(content) for content in contents if content]
    assert isinstance(body["nfts"][0]["floor_price_in_native_currency"], float)
    assert body["nfts"][0]["data"]["floor_price"].endswith(" ETH")
    assert isinstance(body["categories"][0]["coins_count"], str)
    assert isinstance(body["categories"][0]["data"]["market_cap"], float)


@pytest.mark.parametrize(("target", "period"), [(MARKETS, 10), ("global", 30), ("search/trending", 30)])
def test_a_body_stays_for_its_cache_period_and_then_changes(target: str, period: int) -> None:
    venue = Venue()
    first = venue.get(target)
    venue.elapsed = period - 0.5
    same = venue.get(target)
    tag = dict(same.headers)["etag"]
    held = venue.get(target, **{"if-none-match": f'W/"other", {tag}'})
    venue.elapsed = period + 0.5
    renewed = venue.get(target, **{"if-none-match": tag})

    assert dict(first.headers)["cache-control"] == f"public, max-age={period}"
    assert (dict(first.headers)["age"], dict(same.headers)["age"]) == ("0", str(period - 1))
    assert same.body == first.body
    assert tag.startswith('W/"')
    assert (held.status, held.body, dict(held.headers)["etag"]) == (304, b"", tag)
    assert renewed.status == 200
    assert renewed.body != first.body
    assert dict(renewed.headers)["age"] == "0"


def test_one_seed_and_time_give_one_body() -> None:
    one, other = Venue(4), Venue(4)
    for elapsed in (3.0, 11.0, 47.0):
        one.elapsed = elapsed
        one.get(MARKETS)
    other.elapsed = 49.0

    assert one.get(MARKETS).body == other.get(MARKETS).body
    assert one.get(MARKETS).body != Venue(5).get(MARKETS).body


def test_many_different_requests_are_not_kept_for_ever() -> None:
    venue = Venue()
    for page in range(200):
        venue.get(f"{MARKETS}&page={page}&per_page=1")

    assert len(venue._venue._bodies) <= 64


def test_the_list_of_coins_is_whole() -> None:
    assert len(COINS) == len({coin.id for coin in COINS}) == 100
    assert all(coin.price > 0 and coin.supply > 0 for coin in COINS)
