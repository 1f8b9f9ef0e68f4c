"""CoinGecko's v3 interface, simulated: `VenueRequest` in, `VenueResponse` out.

Source of every rule: CoinGecko's OpenAPI description (`coingecko-api-oas`), its reference and
its page on errors and rate limits, state of June 2026; the texts of errors, the cache headers and
the refusal of requests without a User-Agent are as recorded from the live service.

Bodies are renewed only when their cache period has passed, as upstream. The periods here are
shorter than the real ones (markets 45 to 60 s, global and trending 10 min), so that a page looks
alive. The limit on calls per minute is not enforced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from connectors.simulator.http.request import JSON, VenueRequest, VenueResponse, json_response
from connectors.simulator.venues.coins import (
    COIN_CURRENCIES,
    IMAGES,
    ORDERS,
    RATES,
    CoinMarket,
    coin_rows,
    rate,
)
from connectors.simulator.venues.market import MILLION, Market

PATHS = frozenset({"/api/v3/global", "/api/v3/coins/markets", "/api/v3/search/trending"})
"""Paths that are CoinGecko's alone."""

NO_USER_AGENT = "Please add a descriptive User-Agent to your request."
MARKETS_PERIOD_S, SLOW_PERIOD_S = 10, 30
_NFTS = (
    ("pudgy-penguins", "Pudgy Penguins", "PPG", 11.9),
    ("bored-ape-yacht-club", "Bored Ape Yacht Club", "BAYC", 14.2),
    ("milady-maker", "Milady Maker", "MIL", 4.9),
    ("azuki", "Azuki", "AZUKI", 5.8),
    ("cryptopunks", "CryptoPunks", "PUNK", 38.5),
    ("lil-pudgys", "Lil Pudgys", "LP", 1.3),
    ("doodles-official", "Doodles", "DOODLE", 3.2),
)
_CATEGORIES = (
    (1, "Layer 1 (L1)", "layer-1", 381, 2.4e12),
    (251, "Solana Meme", "solana-meme-coins", 573, 1.71e10),
    (327, "AI Agents", "ai-agents", 214, 1.12e10),
    (333, "Base Ecosystem", "base-ecosystem", 1_002, 9.6e10),
    (89, "Real World Assets (RWA)", "real-world-assets-rwa", 466, 5.2e10),
)


def cached(request: VenueRequest, body: bytes, max_age_s: int, age_s: int) -> VenueResponse:
    """A 200 with the cache headers of CoinGecko's edge, or a 304 where the client has this body.

    The entity tag is weak (RFC 9110 section 8.8.1), as the edge's are.
    """
    tag = f'W/"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    headers = (
        ("cache-control", f"public, max-age={max_age_s}"),
        ("etag", tag),
        ("age", str(age_s)),
        ("vary", "Accept-Encoding, Origin"),
    )
    held = {part.strip() for part in request.headers.get("if-none-match", "").split(",")}
    if tag in held or "*" in held:
        return VenueResponse(304, b"", headers)
    return VenueResponse(200, body, (JSON, *headers))


class SimulatedCoinGecko:
    """CoinGecko's endpoints over the simulated market.

    Args:
        market: Where prices come from.
        clock: Epoch seconds; gives the times in the answers, never the prices.
        elapsed: Seconds since the simulation began; decides which body is the present one.
        step_at: The market's step after so many seconds.
        markets_period_s: How long a `/coins/markets` body stays.
        slow_period_s: How long `/global` and `/search/trending` bodies stay.
    """

    def __init__(
        self,
        market: Market,
        clock: Callable[[], float],
        elapsed: Callable[[], float],
        step_at: Callable[[float], int],
        markets_period_s: int = MARKETS_PERIOD_S,
        slow_period_s: int = SLOW_PERIOD_S,
    ) -> None:
        self._market = market
        self._clock = clock
        self._elapsed = elapsed
        self._step_at = step_at
        self._markets_period_s = markets_period_s
        self._slow_period_s = slow_period_s
        self._bodies: dict[tuple[str, ...], tuple[int, bytes]] = {}

    def answer(self, request: VenueRequest) -> VenueResponse:
        """Answer one GET of a path in `PATHS`."""
        if not request.headers.get("user-agent"):
            status = {"error_code": 403, "error_message": NO_USER_AGENT}
            return json_response({"status": status}, 403)
        match request.path:
            case "/api/v3/global":
                return self._kept(request, ("global",), self._slow_period_s, self._global)
            case "/api/v3/search/trending":
                return self._kept(request, ("trending",), self._slow_period_s, self._trending)
            case _:
                return self._coins_markets(request)

    def _kept(
        self,
        request: VenueRequest,
        key: tuple[str, ...],
        period_s: int,
        make: Callable[[int, float], object],
    ) -> VenueResponse:
        """The body of the present cache period, made once by `make(step, epoch_s)`."""
        elapsed = self._elapsed()
        period = int(elapsed // period_s)
        held = self._bodies.get(key)
        if held is None or held[0] != period:
            if len(self._bodies) >= 64:
                self._bodies.clear()
            begun = period * period_s
            epoch_s = self._clock() - elapsed + begun
            held = (period, msgspec.json.encode(make(self._step_at(begun), epoch_s)))
            self._bodies[key] = held
        return cached(request, held[1], period_s, int(elapsed - period * period_s))

    def _coins_markets(self, request: VenueRequest) -> VenueResponse:
        currency = request.parameter("vs_currency")
        if currency is None:
            return json_response({"error": "Missing parameter vs_currency"}, 422)
        currency = currency.lower()
        if currency not in RATES and currency not in COIN_CURRENCIES:
            return json_response({"error": "invalid vs_currency"}, 400)
        order = request.parameter("order") or "market_cap_desc"
        per_page = _bounded(request.parameter("per_page"), 100, 250)
        page = _bounded(request.parameter("page"), 1, MILLION)
        ids = request.parameter("ids") or ""

        def rows(step: int, epoch_s: float) -> object:
            wanted = set(ids.split(",")) if ids else None
            table = coin_rows(self._market, step, epoch_s, rate(self._market, currency, step))
            chosen = [row for row in table if wanted is None or row.id in wanted]
            chosen.sort(key=ORDERS.get(order, ORDERS["market_cap_desc"]))
            return chosen[(page - 1) * per_page : page * per_page]

        key = (currency, order, str(per_page), str(page), ids)
        return self._kept(request, key, self._markets_period_s, rows)

    def _global(self, step: int, epoch_s: float) -> object:
        """`{"data":{"active_cryptocurrencies":17397,...,"updated_at":1779878351}}`."""
        rows = coin_rows(self._market, step, epoch_s, 1.0)
        cap = sum(row.market_cap for row in rows) * 1.04
        volume = sum(row.total_volume for row in rows) * 1.04
        before = sum(row.market_cap - row.market_cap_change_24h for row in rows) * 1.04
        rates = {name: rate(self._market, name, step) for name in (*COIN_CURRENCIES, *RATES)}
        walk = self._market.walk("BTC").at(step)
        return {
            "data": {
                "active_cryptocurrencies": 17_397,
                "upcoming_icos": 0,
                "ongoing_icos": 49,
                "ended_icos": 3_376,
                "markets": 1_476,
                "total_market_cap": {name: cap * rate for name, rate in rates.items()},
                "total_volume": {name: volume * rate for name, rate in rates.items()},
                "market_cap_percentage": {r.symbol: r.market_cap / cap * 100 for r in rows[:10]},
                "market_cap_change_percentage_24h_usd": (cap / before - 1) * 100,
                "volume_change_percentage_24h_usd": walk / 500,
                "updated_at": int(epoch_s),
            }
        }

    def _trending(self, step: int, epoch_s: float) -> object:
        """Fifteen coins, seven collections, five categories. There is no time anywhere in it."""
        bitcoin = self._market.usd_price("BTC", step)
        rows = coin_rows(self._market, step, epoch_s, 1.0)
        first = step // 997
        chosen = [rows[(first + 7 * place) % len(rows)] for place in range(15)]
        return {
            "coins": [{"item": _trend(row, score, bitcoin)} for score, row in enumerate(chosen)],
            "nfts": [self._nft(number, step) for number in range(len(_NFTS))],
            "categories": [self._category(number, step, bitcoin) for number in range(len(_CATEGORIES))],
        }

    def _nft(self, number: int, step: int) -> dict[str, object]:
        nft_id, name, symbol, start = _NFTS[number]
        change = self._market.walk("ETH").at(step + 101 * number) / 1_000
        floor = round(start * (1 + change / 100), 2)
        return {
            "id": nft_id,
            "name": name,
            "symbol": symbol,
            "thumb": f"{IMAGES}/nft_contracts/images/{number + 1}/standard/{nft_id}.png?1707287183",
            "nft_contract_id": 1_300 + number,
            "native_currency_symbol": "eth",
            "floor_price_in_native_currency": floor,
            "floor_price_24h_percentage_change": change,
            "data": {
                "floor_price": f"{floor:.2f} ETH",
                "floor_price_in_usd_24h_percentage_change": str(change),
                "h24_volume": f"{floor * 23:.2f} ETH",
                "h24_average_sale_price": f"{floor * 1.02:.2f} ETH",
                "sparkline": f"https://data.coingecko.com/nft/{1_300 + number}/sparkline.svg",
                "content": None,
            },
        }

    def _category(self, number: int, step: int, bitcoin: float) -> dict[str, object]:
        category_id, name, slug, count, cap = _CATEGORIES[number]
        change = self._market.walk("SOL").at(step + 53 * number) / 1_000
        cap *= 1 + change / 100
        return {
            "id": category_id,
            "name": name,
            "top_3_coins_images": [f"{IMAGES}/coins/images/{n}/small/coin.png" for n in (1, 279, 4128)],
            "market_cap_1h_change": change / 5,
            "slug": slug,
            "coins_count": str(count),
            "data": {
                "market_cap": cap,
                "market_cap_btc": cap / bitcoin,
                "total_volume": cap * 0.07,
                "total_volume_btc": cap * 0.07 / bitcoin,
                "market_cap_change_percentage_24h": {"usd": change, "btc": change / 2},
                "sparkline": f"https://data.coingecko.com/categories/{category_id}/sparkline.svg",
            },
        }


def _trend(row: CoinMarket, score: int, bitcoin: float) -> dict[str, object]:
    """One trending coin: `price_btc` is a number, but text inside `data`, where money is text."""
    price_btc = row.current_price / bitcoin
    stem = f"{IMAGES}/coins/images/{28_000 + score}"
    change = row.price_change_percentage_24h
    explained = {"title": f"What is {row.name}?", "description": f"{row.name} is a simulated coin."}
    return {
        "id": row.id,
        "coin_id": 28_000 + score,
        "name": row.name,
        "symbol": row.symbol.upper(),
        "market_cap_rank": row.market_cap_rank,
        "thumb": f"{stem}/standard/{row.id}.png?1696527587",
        "small": f"{stem}/small/{row.id}.png?1696527587",
        "large": f"{stem}/large/{row.id}.png?1696527587",
        "slug": row.id,
        "price_btc": price_btc,
        "score": score,
        "data": {
            "price": row.current_price,
            "price_btc": f"{price_btc:.20f}".rstrip("0"),
            "price_change_percentage_24h": {"usd": change, "btc": change / 2},
            "market_cap": f"${row.market_cap:,}",
            "market_cap_btc": str(row.market_cap / bitcoin),
            "total_volume": f"${row.total_volume:,}",
            "total_volume_btc": str(row.total_volume / bitcoin),
            "sparkline": f"https://data.coingecko.com/coins/{28_000 + score}/sparkline.svg",
            "content": explained if score % 5 == 4 else None,
        },
    }


def _bounded(text: str | None, default: int, most: int) -> int:
    """A whole number of 1 to `most`; what is none counts as `default`."""
    if text is None or not text.isdecimal() or len(text) > 9:
        return default
    return min(max(int(text), 1), most)
